"""Standardisation against derivatives, quadrature and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from skmanifoldflow.backend.standardize import Standardizer

BOUNDS = [None, (0.0, 1.0), (-3.0, 5.0)]
every_bounds = pytest.mark.parametrize("bounds", BOUNDS, ids=str)


def rows_within(bounds, n_rows=50, n_features=3, seed=0):
    """Return float64 rows inside the bounds, each column with its own mean and scale."""
    rng = np.random.default_rng(seed)
    if bounds is None:
        rows = rng.normal([1e3, 0.0, -2.0], [1.0, 1e-3, 30.0], (n_rows, n_features))
    else:
        rows = rng.uniform(*bounds, (n_rows, n_features)) * [1.0, 0.5, 0.1]
    return torch.tensor(rows)


def test_mean_and_scale_are_those_of_numpy():
    rows = rows_within(None)
    standardizer = Standardizer(3).fit(rows)
    np.testing.assert_allclose(standardizer.mean, rows.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(standardizer.scale, rows.numpy().std(0), rtol=1e-10)
    z, _ = standardizer.forward_and_log_det(rows)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z.square().mean(0), 1)


@every_bounds
def test_log_det_is_that_of_the_jacobian(bounds):
    rows = rows_within(bounds)
    standardizer = Standardizer(3, bounds).fit(rows)
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda row: standardizer.forward_and_log_det(row[None])[0][0])
    )(rows)
    _, log_det = standardizer.forward_and_log_det(rows)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian.numpy())[1])


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-3.0, 5.0)], ids=str)
def test_pulled_back_density_integrates_to_one(bounds):
    standardizer = Standardizer(1, bounds).fit(rows_within(bounds, n_features=1)[:, :1])

    def density(x):
        z, log_det = standardizer.forward_and_log_det(torch.tensor([[x]], dtype=torch.float64))
        return stats.norm.pdf(z.item()) * math.exp(log_det.item())

    assert integrate.quad(density, *bounds)[0] == pytest.approx(1, abs=1e-6)


@every_bounds
def test_inverse(bounds):
    rows = rows_within(bounds)
    standardizer = Standardizer(3, bounds).fit(rows)
    z, _ = standardizer.forward_and_log_det(rows)
    np.testing.assert_allclose(standardizer.inverse(z), rows, rtol=1e-10, atol=1e-12)


@every_bounds
def test_inverse_slope_is_the_derivative_of_inverse(bounds):
    standardizer = Standardizer(3, bounds).fit(rows_within(bounds))
    z = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z.requires_grad_()
    (derivative,) = torch.autograd.grad(standardizer.inverse(z).sum(), z)
    np.testing.assert_allclose(standardizer.inverse_slope(z.detach()), derivative, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -0.3, 1.0, 7.3, -1e8, 1e-20])
@pytest.mark.parametrize("n_rows", [1, 3, 1000])
def test_constant_column(value, n_rows):
    rows = torch.full((n_rows, 1), value, dtype=torch.float64)
    standardizer = Standardizer(1).fit(rows)
    assert standardizer.scale.item() == max(abs(value), 1.0)
    z, log_det = standardizer.forward_and_log_det(rows)
    assert (z == 0).all()
    assert log_det[0].item() == pytest.approx(-math.log(max(abs(value), 1.0)))
    assert torch.equal(standardizer.inverse(z), rows)


def test_small_variation_is_not_constant():
    rng = np.random.default_rng(0)
    rows = torch.tensor(1.0 + 1e-9 * rng.normal(size=(1000, 1)))
    standardizer = Standardizer(1).fit(rows)
    assert standardizer.scale.item() == pytest.approx(rows.numpy().std(), rel=1e-6)


@pytest.mark.parametrize("exponent", [-40, 1, 30])
def test_power_of_two_changes_nothing_but_the_jacobian(exponent):
    rows = rows_within(None)
    factor = 2.0**exponent
    z, log_det = Standardizer(3).fit(rows).forward_and_log_det(rows)
    scaled = Standardizer(3).fit(rows * factor)
    z_scaled, log_det_scaled = scaled.forward_and_log_det(rows * factor)
    assert torch.equal(z, z_scaled)
    torch.testing.assert_close(log_det_scaled, log_det - 3 * exponent * math.log(2))
    assert torch.equal(scaled.inverse(z), Standardizer(3).fit(rows).inverse(z) * factor)


def test_bounded_columns_are_logits():
    standardizer = Standardizer(2, (-1.0, 3.0))
    rows = torch.tensor([[0.0, 1.0], [2.5, -0.9]], dtype=torch.float64)
    z, _ = standardizer.forward_and_log_det(rows)
    np.testing.assert_allclose(z, special.logit((rows.numpy() + 1) / 4))


def test_outside_the_box_the_density_is_zero():
    standardizer = Standardizer(2, (0.0, 1.0))
    rows = [[0.5, 0.5], [-1e-9, 0.5], [0.5, 1.1], [-3.0, 7.0], [0.0, 1.0]]
    z, log_det = standardizer.forward_and_log_det(torch.tensor(rows, dtype=torch.float64))
    assert torch.isfinite(z).all()
    assert (log_det == -torch.inf).tolist() == [False, True, True, True, False]
    assert torch.isfinite(log_det[[0, 4]]).all()


def test_inverse_stays_in_the_box():
    standardizer = Standardizer(1, (-2.0, 3.0)).fit(rows_within((-2.0, 3.0))[:, :1])
    z = torch.tensor([[-1e4], [0.0], [1e4]], dtype=torch.float64)
    assert standardizer.inverse(z).min() == -2
    assert standardizer.inverse(z).max() == 3
