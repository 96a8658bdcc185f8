"""From the name of a flow to its chain of bijections."""

import pytest
import torch
from helpers import randomize

from skmanifoldflow.backend.architectures import density_flow, volume_preserving_flow
from skmanifoldflow.backend.bijections import (
    AdditiveCoupling,
    AffineCoupling,
    MaskedAutoregressive,
    Orthogonal,
    Permutation,
    SplineCoupling,
)
from skmanifoldflow.backend.device import make_generator


def build(flow="affine", n_features=5, n_layers=4, seed=0):
    generator = make_generator(seed)
    return volume_preserving_flow(flow, n_features, n_layers, (8,), generator=generator)


@pytest.mark.parametrize("flow", ["affine", "additive"])
@pytest.mark.parametrize("n_features", [1, 2, 3, 64, 200])
def test_starts_as_an_isometry(flow, n_features, generator):
    x = torch.randn(6, n_features, generator=generator, dtype=torch.float64)
    z, log_det = build(flow, n_features).double().forward_and_log_det(x)
    torch.testing.assert_close(torch.cdist(z, z), torch.cdist(x, x))
    assert (log_det == 0).all()


@pytest.mark.parametrize(
    ("flow", "kind"), [("affine", AffineCoupling), ("additive", AdditiveCoupling)]
)
@pytest.mark.parametrize(("n_features", "mixing"), [(5, Orthogonal), (200, Permutation)])
def test_mixings_and_couplings_take_turns(flow, kind, n_features, mixing):
    layers = build(flow, n_features, 3).bijections
    assert [type(layer) for layer in layers] == [mixing, kind] * 3


def test_every_column_can_be_mapped_after_two_layers():
    sizes = [layer.n_transformed for layer in build("additive", 5).bijections[1::2]]
    assert sizes == [3, 2, 3, 2]


def test_one_column_leaves_nothing_to_learn():
    assert len(build(n_features=1).bijections) == 0


def test_same_seed_same_flow():
    first, again, other = (build(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["bijections.0.q"], other["bijections.0.q"])


FLOWS = {
    "spline": SplineCoupling,
    "affine": AffineCoupling,
    "additive": AdditiveCoupling,
    "autoregressive": MaskedAutoregressive,
}
every_flow = pytest.mark.parametrize("flow", FLOWS)


def with_random_weights(flow):
    return randomize(flow, 0.3, make_generator(1)).double()


def build_density(flow="spline", n_features=5, n_layers=4, seed=0, **kwargs):
    generator = make_generator(seed)
    return density_flow(flow, n_features, n_layers, (8,), generator=generator, **kwargs)


@every_flow
@pytest.mark.parametrize("n_features", [1, 2, 3, 64, 200])
@pytest.mark.parametrize("n_layers", [1, 2, 5])
def test_density_flow_starts_as_the_identity(flow, n_features, n_layers, generator):
    x = torch.randn(6, n_features, generator=generator)
    z, log_det = build_density(flow, n_features, n_layers).forward_and_log_det(x)
    torch.testing.assert_close(z, x, rtol=0, atol=1e-5)
    torch.testing.assert_close(log_det, torch.zeros(6), rtol=0, atol=1e-4)


@every_flow
@pytest.mark.parametrize("n_features", [1, 2, 5])
@pytest.mark.parametrize("n_context", [0, 2])
def test_density_flow_is_a_bijection_that_moves_rows(flow, n_features, n_context, generator):
    layers = with_random_weights(build_density(flow, n_features, n_context=n_context))
    x = torch.randn(6, n_features, generator=generator, dtype=torch.float64)
    context = torch.randn(6, n_context, generator=generator, dtype=torch.float64)
    z, log_det = layers.forward_and_log_det(x, context if n_context else None)
    back, inverse_log_det = layers.inverse_and_log_det(z, context if n_context else None)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-9)
    assert (z != x).all()
    assert flow == "additive" or (log_det != 0).all()


@every_flow
def test_density_flow_takes_turns_of_layers_and_permutations(flow):
    layers = build_density(flow, 5, 3).bijections
    assert [type(layer) for layer in layers] == [FLOWS[flow], Permutation] * 3


@every_flow
def test_one_column_keeps_every_layer(flow):
    layers = build_density(flow, 1, 3).bijections
    assert [type(layer) for layer in layers] == [FLOWS[flow]] * 3


@pytest.mark.parametrize("n_features", [2, 3, 5, 8])
def test_permuted_couplings_map_every_column_in_two_layers(n_features):
    layers = build_density("affine", n_features, 6).bijections
    columns, mapped = torch.arange(n_features), []
    for coupling, permutation in zip(layers[::2], layers[1::2], strict=True):
        mapped.append(set(columns[coupling.n_passed :].tolist()))
        columns = columns[permutation.order]
    assert columns.tolist() == list(range(n_features))
    for first, second in zip(mapped[::2], mapped[1::2], strict=True):
        assert first | second == set(range(n_features))
        assert not first & second


def test_permuted_autoregressive_layers_reverse_the_columns():
    first, second, _ = build_density("autoregressive", 5, 3).bijections[1::2]
    assert first.order.tolist() == [4, 3, 2, 1, 0]
    assert second.order.tolist() != first.order.tolist()


def test_density_flow_same_seed_same_flow():
    first, again, other = (build_density(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["bijections.3.order"], other["bijections.3.order"])
