"""Properties that every bijection has, and agreement with zuko."""

import math

import numpy as np
import pytest
import torch
import zuko
from helpers import assert_near
from scipy import stats

from skmanifoldflow.backend.architectures import volume_preserving_flow
from skmanifoldflow.backend.bijections import (
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    MaskedAutoregressive,
    Orthogonal,
    Permutation,
    SplineCoupling,
    StretchedChain,
)
from skmanifoldflow.backend.bijections.linear import LinearMap

N_ROWS = 6
N_CONTEXT = 2
FEATURES = [1, 2, 3, 5, 64]
DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-11}


def coupling(kind, n_features, generator, **kwargs):
    return kind(n_features, max(1, n_features // 2), (16, 16), generator=generator, **kwargs)


def elementwise(n_features, generator, **kwargs):
    return AffineCoupling(n_features, n_features, (16,), generator=generator, **kwargs)


def linear_map(n_features, generator):
    bijection = LinearMap(n_features)
    matrix = torch.randn(n_features, n_features, dtype=torch.float64, generator=generator)
    # Singular values between 1 and 3.
    matrix = 2 * torch.eye(n_features) + matrix / torch.linalg.matrix_norm(matrix, 2)
    bijection.set(matrix)
    return bijection


def stretched(n_features, generator):
    chain = StretchedChain(n_features, [coupling(AffineCoupling, n_features, generator)])
    scales = torch.linspace(1.0, 0.03, n_features)
    chain.initialize(scales * torch.randn(500, n_features, generator=generator))
    return chain


BIJECTIONS = {
    "additive": lambda d, g: coupling(AdditiveCoupling, d, g),
    "additive, context": lambda d, g: coupling(AdditiveCoupling, d, g, n_context=N_CONTEXT),
    "affine": lambda d, g: coupling(AffineCoupling, d, g),
    "affine, context": lambda d, g: coupling(AffineCoupling, d, g, n_context=N_CONTEXT),
    "affine, unit volume": lambda d, g: coupling(AffineCoupling, d, g, volume_preserving=True),
    "affine, unit volume, context": lambda d, g: coupling(
        AffineCoupling, d, g, volume_preserving=True, n_context=N_CONTEXT
    ),
    "elementwise": elementwise,
    "elementwise, context": lambda d, g: elementwise(d, g, n_context=N_CONTEXT),
    "spline": lambda d, g: coupling(SplineCoupling, d, g),
    "spline, context": lambda d, g: coupling(SplineCoupling, d, g, n_context=N_CONTEXT),
    "elementwise spline": lambda d, g: SplineCoupling(d, d, (16,), generator=g, n_bins=5),
    "autoregressive": lambda d, g: MaskedAutoregressive(d, (16, 16), generator=g),
    "autoregressive, context": lambda d, g: MaskedAutoregressive(
        d, (16, 16), generator=g, n_context=N_CONTEXT
    ),
    "orthogonal": lambda d, g: Orthogonal(d, generator=g),
    "permutation": lambda d, g: Permutation(d, generator=g),
    "linear map": linear_map,
    "stretched": stretched,
    "empty chain": lambda d, g: Chain([]),
    "additive chain": lambda d, g: volume_preserving_flow("additive", d, 4, (16,), generator=g),
    "affine chain": lambda d, g: volume_preserving_flow("affine", d, 4, (16,), generator=g),
    "mixed chain": lambda d, g: Chain(
        [
            coupling(AffineCoupling, d, g),
            Orthogonal(d, generator=g),
            coupling(AdditiveCoupling, d, g),
            Permutation(d, generator=g),
            elementwise(d, g),
        ]
    ),
}
CHANGING_VOLUME = [
    "affine",
    "affine, context",
    "elementwise",
    "elementwise, context",
    "linear map",
    "stretched",
    "mixed chain",
    "spline",
    "spline, context",
    "elementwise spline",
    "autoregressive",
    "autoregressive, context",
]

every_bijection = pytest.mark.parametrize("name", BIJECTIONS)
every_width = pytest.mark.parametrize("n_features", FEATURES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def build(name, n_features, seed=0):
    """Return a float32 bijection with random weights."""
    generator = torch.Generator().manual_seed(seed)
    bijection = BIJECTIONS[name](n_features, generator)
    with torch.no_grad():
        for p in bijection.parameters():
            spread = 0.7 / math.sqrt(max(1, p.shape[-1])) if p.ndim == 2 else 0.3
            p.copy_(spread * torch.randn(p.shape, generator=generator))
    return bijection


def rows_and_context(name, n_features, dtype=torch.float64, seed=1):
    """Return rows, and a context for the bijections that take one."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N_ROWS, n_features, dtype=dtype, generator=generator)
    context = torch.randn(N_ROWS, N_CONTEXT, dtype=dtype, generator=generator)
    return x, context if name.endswith("context") else None


@every_bijection
@every_width
@every_dtype
def test_inverse_undoes_forward(name, n_features, dtype):
    bijection = build(name, n_features).to(dtype)
    x, context = rows_and_context(name, n_features, dtype)
    z, log_det = bijection.forward_and_log_det(x, context)
    back, inverse_log_det = bijection.inverse_and_log_det(z, context)
    assert z.dtype == log_det.dtype == dtype
    assert z.shape == x.shape
    assert log_det.shape == inverse_log_det.shape == (N_ROWS,)
    assert_near(back, x, TOLERANCE[dtype])
    assert_near(inverse_log_det, -log_det, TOLERANCE[dtype])


@every_bijection
@every_width
@every_dtype
def test_log_det_is_that_of_the_jacobian(name, n_features, dtype):
    bijection = build(name, n_features).to(dtype)
    x, context = rows_and_context(name, n_features, dtype)

    def row(x, context=None):
        rows = None if context is None else context[None]
        return bijection.forward_and_log_det(x[None], rows)[0][0]

    inputs = (x,) if context is None else (x, context)
    jacobian = torch.func.vmap(torch.func.jacrev(row))(*inputs).detach()
    log_det = bijection.forward_and_log_det(x, context)[1].detach()
    assert_near(log_det, torch.linalg.slogdet(jacobian).logabsdet, TOLERANCE[dtype])


@every_bijection
@every_width
def test_unit_volume_is_exact(name, n_features):
    x, context = rows_and_context(name, n_features)
    log_det = build(name, n_features).double().forward_and_log_det(x, context)[1]
    assert (log_det != 0).all() if name in CHANGING_VOLUME else (log_det == 0).all()


@every_bijection
@every_width
@every_dtype
def test_gradients_are_finite(name, n_features, dtype):
    bijection = build(name, n_features).to(dtype)
    x, context = rows_and_context(name, n_features, dtype)
    x.requires_grad_()
    z, log_det = bijection.forward_and_log_det(x, context)
    inputs = [x, *bijection.parameters()]
    gradients = torch.autograd.grad(z.square().sum() + log_det.sum(), inputs)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert (gradients[0] != 0).any()


@every_bijection
@every_width
def test_float32_weights_invert_in_float64(name, n_features):
    bijection = build(name, n_features).double()
    x, context = rows_and_context(name, n_features)
    z, _ = bijection.forward_and_log_det(x, context)
    assert_near(bijection.inverse_and_log_det(z, context)[0], x, 1e-12)


@every_bijection
@every_width
@every_dtype
def test_rows_do_not_depend_on_each_other(name, n_features, dtype):
    bijection = build(name, n_features).to(dtype)
    x, context = rows_and_context(name, n_features, dtype)
    others = x.clone()
    others[1:] = 100 * x[1:].flip(0)
    for method in (bijection.forward_and_log_det, bijection.inverse_and_log_det):
        rows, log_det = method(x, context)
        changed, changed_log_det = method(others, context)
        assert torch.equal(rows[0], changed[0])
        assert log_det[0] == changed_log_det[0]
        # One row alone takes another matrix product, which rounds differently.
        alone, _ = method(x[:1], None if context is None else context[:1])
        assert_near(alone[0], rows[0], TOLERANCE[dtype])


@every_bijection
def test_building_is_reproducible_and_leaves_the_global_generator_alone(name):
    state = torch.get_rng_state()
    first, second, other = build(name, 5), build(name, 5), build(name, 5, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.state_dict().keys() == second.state_dict().keys()
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    if first.state_dict():
        differ = [
            not torch.equal(value, other.state_dict()[key])
            for key, value in first.state_dict().items()
            if value.numel() > 1
        ]
        assert all(differ)


@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling, SplineCoupling])
@pytest.mark.parametrize("n_transformed", [0, 4])
def test_number_of_mapped_columns_is_checked(kind, n_transformed, generator):
    with pytest.raises(ValueError, match=f"n_features=3, got {n_transformed}"):
        kind(3, n_transformed, (4,), generator=generator)


@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling])
def test_couplings_start_as_the_identity_and_pass_the_first_columns(kind, generator):
    x = torch.randn(N_ROWS, 5, generator=generator)
    layer = kind(5, 2, (8,), generator=generator)
    assert torch.equal(layer.forward_and_log_det(x)[0], x)
    torch.nn.init.ones_(layer.conditioner.layers[-1].bias)
    z, _ = layer.forward_and_log_det(x)
    assert torch.equal(z[:, :3], x[:, :3])
    assert (z[:, 3:] != x[:, 3:]).all()


def test_affine_coupling_scales_by_a_bounded_factor(generator):
    layer = AffineCoupling(3, 3, (), generator=generator)
    with torch.no_grad():
        layer.conditioner.layers[-1].bias.copy_(torch.tensor([0, 0, 0, 1e6, -1e6, 0.0]))
    z, log_det = layer.forward_and_log_det(torch.ones(1, 3))
    torch.testing.assert_close(z, torch.tensor([[math.exp(2), math.exp(-2), 1.0]]))
    assert log_det.item() == pytest.approx(0, abs=1e-6)


def test_given_order(generator):
    x = torch.randn(N_ROWS, 4, generator=generator)
    permutation = Permutation(4, order=torch.tensor([2, 0, 3, 1]))
    assert torch.equal(permutation.forward_and_log_det(x)[0], x[:, [2, 0, 3, 1]])


def test_permutation_takes_a_generator_or_its_order(generator):
    for kwargs in ({}, {"generator": generator, "order": torch.arange(3)}):
        with pytest.raises(ValueError, match="Give either a generator or an order"):
            Permutation(3, **kwargs)


@pytest.mark.parametrize("n_features", [2, 3, 5, 64])
def test_orthogonal_has_orthogonal_matrices(n_features):
    bijection = build("orthogonal", n_features).double()
    eye = torch.eye(n_features, dtype=torch.float64)
    matrix = bijection.forward_and_log_det(eye)[0]
    assert_near(matrix @ matrix.T, eye, 1e-13)


def test_orthogonal_is_drawn_from_the_haar_measure(generator):
    # Under that measure any unit vector goes anywhere on the sphere: each coordinate of it is
    # uniform on [-1, 1] in three dimensions, and both orientations are equally frequent.
    matrices = torch.stack([Orthogonal(3, generator=generator).q for _ in range(1000)]).numpy()
    for i, j in [(0, 0), (0, 2), (2, 0), (2, 2)]:
        assert stats.kstest(matrices[:, i, j], stats.uniform(-1, 2).cdf).pvalue > 0.01
    n_reflections = int((np.linalg.det(matrices) < 0).sum())
    assert stats.binomtest(n_reflections, 1000).pvalue > 0.01


def zuko_coupling(layer, transform):
    """Return zuko's coupling around the conditioner of a layer without context."""
    n_features = layer.n_passed + layer.n_transformed

    def meta(passed):
        return zuko.transforms.DependentTransform(
            transform(*layer.conditioner(passed).split(layer.n_transformed, dim=-1)), 1
        )

    return zuko.transforms.CouplingTransform(meta, torch.arange(n_features) < layer.n_passed)


def zuko_affine(shift, raw):
    """Return zuko's affine map at the log-scale 2 tanh(raw / 2), whose own bound is undone."""
    log_scale = 2 * torch.tanh(raw / 2)
    slope = 1e-3
    unbounded = log_scale / (1 - (log_scale / math.log(slope)).abs())
    return zuko.transforms.MonotonicAffineTransform(shift, unbounded, slope=slope)


def assert_same_map(bijection, transform, n_features):
    x, _ = rows_and_context("", n_features)
    z, log_det = bijection.forward_and_log_det(x)
    expected, expected_log_det = transform.call_and_ladj(x)
    assert_near(z, expected, 1e-12)
    assert_near(log_det, expected_log_det, 1e-12)
    back, inverse_log_det = bijection.inverse_and_log_det(x)
    expected, expected_log_det = transform.inv.call_and_ladj(x)
    assert_near(back, expected, 1e-12)
    assert_near(inverse_log_det, expected_log_det, 1e-12)


@every_width
def test_additive_coupling_agrees_with_zuko(n_features):
    layer = build("additive", n_features).double()
    transform = zuko_coupling(layer, zuko.transforms.AdditiveTransform)
    assert_same_map(layer, transform, n_features)


@every_width
@pytest.mark.parametrize("name", ["affine", "elementwise"])
def test_affine_coupling_agrees_with_zuko(n_features, name):
    layer = build(name, n_features).double()
    assert_same_map(layer, zuko_coupling(layer, zuko_affine), n_features)


@every_width
def test_permutation_agrees_with_zuko(n_features):
    layer = build("permutation", n_features)
    assert_same_map(layer, zuko.transforms.PermutationTransform(layer.order), n_features)


def test_chain_composes_in_order(generator):
    x = torch.randn(N_ROWS, 4, generator=generator)
    first, second = Orthogonal(4, generator=generator), Permutation(4, generator=generator)
    torch.testing.assert_close(
        Chain([first, second]).forward_and_log_det(x)[0], (x @ first.q)[:, second.order]
    )
