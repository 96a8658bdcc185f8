"""From the name of a flow to its chain of bijections."""

import pytest
import torch

from skmanifoldflow.backend.architectures import volume_preserving_flow
from skmanifoldflow.backend.bijections import (
    AdditiveCoupling,
    AffineCoupling,
    Orthogonal,
    Permutation,
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
