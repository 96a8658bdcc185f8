"""The spline that maps quantiles of columns to normal ones."""

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from skmanifoldflow.backend.bijections.fixed_knot_spline import QuantileSpline


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
