"""Splines whose knots are read from rows: of each column, and of all of them together."""

import numpy as np
import pytest
import torch
from helpers import assert_inverse, assert_log_det, assert_near, perturb
from scipy import stats
from scipy.special import ndtri

from skmanifoldflow.backend.bijections.fixed_knot_spline import PooledSpline, QuantileSpline
from skmanifoldflow.backend.geometry import jacobian_columns

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-10}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.RandomState(0)
    return np.stack([rng.gamma(2, size=2000), rng.uniform(size=2000), rng.standard_normal(2000)], 1)


@pytest.fixture(scope="module")
def spline(rows):
    spline = QuantileSpline(3, n_bins=8)
    spline.fit(torch.tensor(rows))
    return spline


def test_quantiles_become_those_of_a_normal_distribution(rows, spline):
    share = np.arange(1, 8) / 8
    mapped = spline.forward_and_log_det(torch.tensor(np.quantile(rows, share, axis=0)))[0]
    np.testing.assert_allclose(mapped, np.repeat(ndtri(share)[:, None], 3, axis=1), atol=1e-9)


def test_inverse_and_slopes(rows, spline):
    # Beyond the outermost knots as well.
    x = torch.tensor(np.concatenate([rows[:50], rows.min(0)[None] - 1, rows.max(0)[None] + 1]))
    z, log_det = spline.forward_and_log_det(x)
    back, log_det_back = spline.inverse_and_log_det(z)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-9)
    log_slope, _ = spline.log_slopes_and_values(x)
    h = 1e-6
    rise = spline.forward_and_log_det(x + h)[0] - spline.forward_and_log_det(x - h)[0]
    np.testing.assert_allclose(log_slope.exp(), rise / (2 * h), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jacobians_of_the_inverse_at_knots(rows, dtype):
    """Rounding may put a value at a knot on either side of it, where the slope is the same."""
    spline = QuantileSpline(3, n_bins=8)
    spline.fit(torch.tensor(rows))
    spline.to(dtype)
    knots = spline._table()[3].T.to(dtype)
    for toward in (-torch.inf, 0.0, torch.inf):
        z = torch.nextafter(knots, torch.tensor(toward, dtype=dtype)) if toward else knots
        _, expected = spline.inverse_and_log_det(z)
        columns = jacobian_columns(
            lambda z: spline.inverse_and_log_det(z)[0], z, torch.eye(3, dtype=dtype)
        )[1]
        found = columns.diagonal(dim1=1, dim2=2).log().sum(1)
        torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=1e-3)


def test_columns_that_are_not_kept_are_the_identity(rows):
    spline = QuantileSpline(3, n_bins=8)
    x = torch.tensor(rows[:100])
    np.testing.assert_allclose(spline.forward_and_log_det(x)[0], x, atol=1e-12)
    spline.fit(torch.tensor(rows))
    fitted = spline.forward_and_log_det(x)[0]
    spline.keep(torch.tensor([True, False, False]))
    log_slope, z = spline.log_slopes_and_values(x)
    np.testing.assert_array_equal(z[:, 0], fitted[:, 0])
    np.testing.assert_allclose(z[:, 1:], x[:, 1:], atol=1e-12)
    np.testing.assert_allclose(log_slope[:, 1:], 0, atol=1e-12)
    spline.reset()
    np.testing.assert_allclose(spline.forward_and_log_det(x)[0], x, atol=1e-12)


# One spline of all columns


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_pooled_spline_inverse_inside_and_outside_the_knots(dtype, generator):
    spline = perturb(PooledSpline(8), 0.2, generator).to(dtype)
    x = torch.linspace(-3, 3, 301, dtype=dtype)[:, None]
    z, _ = spline.forward_and_log_det(x)
    assert (z.diff(dim=0) > 0).all()
    assert_inverse(spline, x, TOLERANCE[dtype])


def test_pooled_spline_log_det_is_that_of_the_jacobian(generator):
    spline = perturb(PooledSpline(8), 0.2, generator).double()
    assert_log_det(spline, 1.5 * torch.randn(5, 9, dtype=torch.float64, generator=generator), 1e-10)


def test_pooled_spline_is_the_identity_before_initialization(generator):
    x = torch.randn(5, 9, dtype=torch.float64, generator=generator)
    z, log_det = PooledSpline().double().forward_and_log_det(x)
    assert_near(z, x, 1e-6)
    assert_near(log_det, torch.zeros(5, dtype=torch.float64), 1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_pooled_spline_starts_with_a_normal_distribution(share, generator):
    # A share of the values is uniform on a narrow interval, as black pixels are.
    uniform = torch.rand(2000, 10, dtype=torch.float64, generator=generator)
    is_black = torch.rand(2000, 10, generator=generator) < share
    z = PooledSpline().double().initialize(torch.where(is_black, uniform / 256, uniform))
    assert stats.kstest(z.flatten()[::7].numpy(), stats.norm.cdf).pvalue > 0.01


@pytest.mark.parametrize("values", [[0.0], [0.0, 1.0], [1e6, 1e6 + 1]])
def test_pooled_spline_bears_ties(values):
    x = torch.tensor(values, dtype=torch.float64).repeat(20, 1)
    spline = PooledSpline().double()
    z = spline.initialize(x)
    assert torch.isfinite(z).all()
    assert_inverse(spline, x, 1e-6)
