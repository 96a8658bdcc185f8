"""Rational-quadratic splines; what all bijections share is in test_bijections.py."""

import math

import pytest
import torch
import zuko
from helpers import randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from skmanifoldflow.backend.bijections import MarginalSpline, SplineCoupling, SplineMap
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.geometry import jacobian_columns
from skmanifoldflow.backend.serialization import arrays_from_module, load_arrays

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
both_ways = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])


def values_and_parameters(n_rows=20, n_features=3, n_bins=8, dtype=torch.float64, seed=0):
    """Return values on both sides of the bound and parameters that bend the map strongly."""
    generator = make_generator(seed)
    x = 3 * torch.randn(n_rows, n_features, generator=generator, dtype=torch.float64)
    params = torch.randn(n_rows, 3 * n_bins - 1, n_features, generator=generator, dtype=x.dtype)
    return x.to(dtype), params.to(dtype)


def knots_of(spline, params):
    """Return abscissae (n, K + 1, m) by the definition in the docstring."""
    sizes = params[:, : spline.n_bins].softmax(dim=1)
    sizes = spline.min_share + (1 - spline.n_bins * spline.min_share) * sizes
    edges = torch.cat([torch.zeros_like(sizes[:, :1]), sizes.cumsum(dim=1)], dim=1)
    return spline.bound * (2 * edges - 1)


@every_dtype
@pytest.mark.parametrize("n_bins", [2, 8, 40])
def test_inverse_undoes_the_map(dtype, n_bins):
    spline = SplineMap(n_bins).to(dtype)
    x, params = values_and_parameters(n_bins=n_bins, dtype=dtype)
    z, log_det = spline.map(x, params)
    back, inverse_log_det = spline.inverse_map(z, params)
    torch.testing.assert_close(back, x, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=100 * TOLERANCE[dtype])
    assert z.dtype == log_det.dtype == dtype


@every_dtype
def test_identity_at_zero_and_outside_the_bound(dtype):
    spline = SplineMap(bound=2.0).to(dtype)
    x, params = values_and_parameters(dtype=dtype)
    z, log_det = spline.map(x, torch.zeros_like(params))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(z, x, rtol=0, atol=8 * eps)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=20 * eps)
    z, _ = spline.map(x, params)
    outside = x.abs() > 2
    torch.testing.assert_close(z[outside], x[outside], rtol=0, atol=8 * eps)
    assert (z[~outside] != x[~outside]).all()


def zuko_arguments(spline, params):
    """Return the arguments that give zuko, which bounds its own softly, the same knots."""

    def unbounded(value, limit):
        return value / (1 - (value / limit).abs())

    n_bins, limit = spline.n_bins, math.log(zuko_slope)
    parts = params.movedim(1, -1).split([n_bins - 1, n_bins, n_bins], dim=-1)
    slopes, widths, heights = parts
    logs = [
        (spline.min_share + (1 - n_bins * spline.min_share) * part.softmax(-1)).log()
        for part in (widths, heights)
    ]
    sizes = [unbounded(log - log.mean(-1, keepdim=True), limit / 2) for log in logs]
    slopes = F.softplus(slopes + math.log(math.expm1(1 - spline.min_slope))) + spline.min_slope
    return *sizes, unbounded(slopes.log(), limit)


# Small enough to leave zuko's own bounds far away.
zuko_slope = 1e-9


@pytest.mark.parametrize("n_bins", [2, 8])
def test_agrees_with_zuko(n_bins):
    spline = SplineMap(n_bins, bound=4.0).double()
    x, params = values_and_parameters(n_bins=n_bins)
    theirs = zuko.transforms.MonotonicRQSTransform(
        *zuko_arguments(spline, params), bound=4.0, slope=zuko_slope
    )
    expected, log_slopes = theirs.call_and_ladj(x)
    z, log_det = spline.map(x, params)
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(log_det, log_slopes.sum(1))
    torch.testing.assert_close(spline.inverse_map(x, params)[0], theirs.inv(x))


def test_geometry_differentiates_twice(generator):
    layer = SplineCoupling(3, 2, (8,), generator=generator).double()
    randomize(layer, 1.0, generator)
    z = torch.randn(5, 3, generator=generator, dtype=torch.float64)

    def function(z):
        return layer.inverse_and_log_det(z)[0]

    values, columns = jacobian_columns(function, z, torch.eye(3, dtype=torch.float64))
    expected = torch.func.vmap(torch.func.jacrev(lambda row: function(row[None])[0]))(z)
    torch.testing.assert_close(values, function(z).detach())
    torch.testing.assert_close(columns, expected.detach())


@every_dtype
@both_ways
def test_gradients_are_finite_at_knots_and_at_huge_values(dtype, inverse):
    spline = SplineMap().to(dtype)
    _, params = values_and_parameters(1, 1, dtype=dtype)
    offset = 7 + 8 * inverse
    knots = knots_of(spline, params[:, offset : offset + 8])[0, :, 0]
    huge = torch.tensor([0.0, 5, -5, 1e6, -1e30, 1e30], dtype=dtype)
    v = torch.cat([knots, huge])[:, None].requires_grad_()
    params = params.expand(len(v), -1, -1).clone().requires_grad_()
    method = spline.inverse_map if inverse else spline.map
    mapped, log_det = method(v, params)
    gradients = torch.autograd.grad(mapped.sum() + log_det.sum(), (v, params))
    for tensor in (mapped, log_det, *gradients):
        assert torch.isfinite(tensor).all()
    torch.testing.assert_close(mapped[-5:], v[-5:])


@every_dtype
def test_extreme_parameters_stay_finite(dtype):
    spline = SplineMap().to(dtype)
    x, params = values_and_parameters(dtype=dtype)
    params = (1e4 * params).requires_grad_()
    z, log_det = spline.map(x, params)
    (gradient,) = torch.autograd.grad(z.sum() + log_det.sum(), params)
    for tensor in (z, log_det, gradient):
        assert torch.isfinite(tensor).all()


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(0, 5),
    n_bins=st.integers(2, 12),
)
def test_increasing(seed, scale, n_bins):
    spline = SplineMap(n_bins).double()
    _, params = values_and_parameters(1, 1, n_bins, seed=seed)
    x = torch.linspace(-6, 6, 500, dtype=torch.float64)[:, None]
    z, log_det = spline.map(x, scale * params.expand(500, -1, -1))
    assert (z.diff(dim=0) > 0).all()
    assert torch.isfinite(log_det).all()


def test_log_slope_is_continuous():
    spline = SplineMap().double()
    _, params = values_and_parameters(1, 1)
    knots = knots_of(spline, params[:, 7:15])[0, :, 0]
    log_slopes = [
        spline.map((knots + step)[:, None], params.expand(9, -1, -1))[1] for step in (-1e-9, 1e-9)
    ]
    torch.testing.assert_close(*log_slopes, rtol=0, atol=1e-6)


@both_ways
def test_no_rows(inverse):
    spline = SplineMap()
    x, params = values_and_parameters(0, dtype=torch.float32)
    method = spline.inverse_map if inverse else spline.map
    mapped, log_det = method(x, params.requires_grad_())
    log_det.sum().backward()
    assert mapped.shape == (0, 3)
    assert log_det.shape == (0,)


@pytest.mark.parametrize("n_bins", [1, 1000])
def test_number_of_bins_is_checked(n_bins):
    with pytest.raises(ValueError, match=f"between 2 and 999, got {n_bins}"):
        SplineMap(n_bins)


# Marginal splines


def heavy_rows(n_rows=500, dtype=torch.float64):
    """Return a normal, a log-normal, a rounded, a constant and a mostly zero column."""
    x = torch.randn(n_rows, 5, generator=make_generator(0), dtype=torch.float64)
    x[:, 1] = (3 * x[:, 1]).exp()
    x[:, 1] /= x[:, 1].std()
    x[:, 2] = x[:, 2].round()
    x[:, 3] = -1.7
    x[:, 4] = x[:, 4].clamp(min=1) - 1
    return x.to(dtype)


def initialized(dtype=torch.float64, seed=None, n_bins=32):
    spline = MarginalSpline(5, n_bins).to(dtype)
    spline.initialize(heavy_rows(dtype=dtype))
    if seed is not None:
        randomize(spline, 1 / spline.gain, make_generator(seed))
    return spline


@every_dtype
def test_marginal_starts_as_the_identity(dtype):
    rows = heavy_rows(dtype=dtype)
    spline = MarginalSpline(5).to(dtype)
    assert torch.equal(spline.initialize(rows), rows)
    z, log_det = spline.forward_and_log_det(2 * rows)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(z, 2 * rows, rtol=4 * eps, atol=4 * eps)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=50 * eps)


def test_marginal_knots_are_quantiles_and_increase():
    spline, rows = initialized(), heavy_rows()
    levels = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(spline.knots[0], rows[:, 0].quantile(levels))
    assert (spline.knots.diff(dim=1) > 0).all()
    for column in (2, 4):
        assert spline.knots[column, 0] == rows[:, column].min()
        assert spline.knots[column, -1] == rows[:, column].max()
    assert spline.is_free.flatten().tolist() == [1, 1, 1, 0, 1]


@pytest.mark.parametrize("spread", [1e-5, 1e-7, 1e-9, 1e-12, 0.0])
def test_marginal_knots_differ_in_float32_too(spread):
    """Rows close together beside a gross outlier: the start is in float64, the training is not."""
    noise = torch.randn(72, 1, generator=make_generator(0), dtype=torch.float64)
    spline = MarginalSpline(1, 2).double()
    spline.initialize(0.12 + spread * noise)
    spline.float()
    assert (spline.knots.diff(dim=1) > 0).all()
    x = (0.12 + spread * noise).float().requires_grad_()
    z, log_det = spline.forward_and_log_det(x)
    torch.testing.assert_close(z, x)
    (z.sum() + log_det.sum()).backward()
    for tensor in (log_det, x.grad, *(p.grad for p in spline.parameters())):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_marginal_takes_few_rows(n_rows):
    spline = MarginalSpline(2).double()
    rows = torch.randn(n_rows, 2, generator=make_generator(0), dtype=torch.float64)
    spline.initialize(rows)
    assert (spline.knots.diff(dim=1) > 0).all()
    torch.testing.assert_close(spline.forward_and_log_det(rows)[0], rows)


@every_dtype
def test_marginal_inverse_undoes_forward(dtype):
    spline, rows = initialized(dtype, seed=1), heavy_rows(dtype=dtype)
    x = torch.cat([rows, 3 * rows, spline.knots.T, -100 + 0 * rows[:1]])
    z, log_det = spline.forward_and_log_det(x)
    back, inverse_log_det = spline.inverse_and_log_det(z)
    torch.testing.assert_close(back, x, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=50 * TOLERANCE[dtype])
    assert torch.equal(z[:, 3], x[:, 3])
    assert (z != x)[: len(rows), [0, 1]].all()


def test_marginal_log_det_is_that_of_the_jacobian():
    spline = initialized(seed=1)
    x = torch.cat([heavy_rows()[:50], 3 * heavy_rows()[:50]]).requires_grad_()
    z, log_det = spline.forward_and_log_det(x)
    (slopes,) = torch.autograd.grad(z.sum(), x)
    assert (slopes > 0).all()
    torch.testing.assert_close(log_det, slopes.log().sum(1))


def test_marginal_gradients():
    spline = initialized(seed=1, n_bins=4)
    names = [name for name, _ in spline.named_parameters()]
    # At the knots themselves the log-slope has a kink.
    x = (heavy_rows()[:4] + 0.0123).requires_grad_()

    for method in ("forward_and_log_det", "inverse_and_log_det"):

        def function(x, *values, method=method):
            spline_with = _Method(spline, method)
            named = {f"spline.{n}": v for n, v in zip(names, values, strict=True)}
            return torch.func.functional_call(spline_with, named, (x,))

        inputs = (x, *spline.parameters())
        assert torch.autograd.gradcheck(function, inputs, eps=1e-7, atol=1e-4)


class _Method(torch.nn.Module):
    def __init__(self, spline, method):
        super().__init__()
        self.spline, self.method = spline, method

    def forward(self, x):
        return getattr(self.spline, self.method)(x)


def test_marginal_tails_are_lines_of_the_end_slope():
    spline = initialized(seed=1)
    ends = spline.knots[:, [0, -1]].T
    x = torch.cat([ends + torch.tensor([[-k], [k]]) for k in (0.0, 1.0, 5.0)])
    z, _ = spline.forward_and_log_det(x)
    first, second, third = z.view(3, 2, 5)
    torch.testing.assert_close((third - first), 5 * (second - first))


@every_dtype
def test_marginal_stays_finite_at_huge_values(dtype):
    spline = initialized(dtype, seed=1)
    x = torch.tensor([[1e30], [-1e30]], dtype=dtype).expand(2, 5).clone().requires_grad_()
    for method in (spline.forward_and_log_det, spline.inverse_and_log_det):
        rows, log_det = method(x)
        gradients = torch.autograd.grad(rows.sum() + log_det.sum(), [x, *spline.parameters()])
        assert all(torch.isfinite(t).all() for t in (rows, log_det, *gradients))


def test_marginal_learns_a_heavy_tailed_column():
    rows = heavy_rows(2000, torch.float32)[:, 1:2]
    spline = MarginalSpline(1)
    spline.initialize(rows)
    optimizer = torch.optim.Adam(spline.parameters(), lr=0.2 / spline.gain)
    for _ in range(100):
        z, log_det = spline.forward_and_log_det(rows)
        loss = (0.5 * z.square().sum(1) - log_det).mean() + 0.5 * math.log(2 * math.pi)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # The entropy of the column, log-normal and divided by its standard deviation.
    scale = (3 * torch.randn(2000, 5, generator=make_generator(0), dtype=torch.float64))[:, 1]
    entropy = math.log(3) + 0.5 * math.log(2 * math.pi * math.e) - scale.exp().std().log()
    assert loss.item() == pytest.approx(float(entropy), abs=0.25)


def test_marginal_knots_travel_with_the_weights():
    spline = initialized(seed=1)
    other = MarginalSpline(5)
    load_arrays(other, arrays_from_module(spline))
    rows = heavy_rows()
    assert torch.equal(
        other.forward_and_log_det(rows)[0], spline.forward_and_log_det(rows)[0].detach()
    )


def test_marginal_number_of_bins_is_checked():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        MarginalSpline(3, 1)


@both_ways
def test_gradient_of_knot_splines_is_in_closed_form(inverse, generator):
    spline = MarginalSpline(2, 5).double()
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    spline.initialize(x)
    randomize(spline, 0.05, generator)
    # Some rows lie beyond the outermost knots.
    v = (2.5 * x[:6]).requires_grad_()
    inputs = (v, *spline.parameters())

    def function(*_):
        return spline.inverse_and_log_det(v) if inverse else spline.forward_and_log_det(v)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)
