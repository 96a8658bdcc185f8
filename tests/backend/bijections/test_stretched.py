"""Narrow directions of rows are stretched, and the layers start as the identity all the same."""

import numpy as np
import pytest
import torch

from skmanifoldflow.backend.bijections import SplineCoupling, StretchedChain
from skmanifoldflow.backend.device import make_generator

SCALES = np.array([1.0, 0.6, 0.2, 0.04])


def rows(n=4000, seed=0):
    """Return rows with principal directions that lie askew."""
    rng = np.random.RandomState(seed)
    axes = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    return torch.tensor(rng.standard_normal((n, 4)) * SCALES @ axes.T)


def chain(n_features=4, dtype=torch.float64, **kwargs):
    generator = make_generator(0)
    couplings = [SplineCoupling(n_features, n_features // 2, (8,), generator=generator)]
    return StretchedChain(n_features, couplings, **kwargs).to(dtype)


def gains(stretched):
    """Return the factors of the directions, the largest first."""
    return np.linalg.svd(first_map(stretched).matrix.numpy(), compute_uv=False)


def first_map(stretched):
    return stretched.bijections[0]


def test_narrow_directions_get_the_least_variance():
    x, stretched = rows(), chain()
    stretched.initialize(x)
    matrix = first_map(stretched).matrix.numpy()
    before, axes = np.linalg.eigh(np.cov(x.numpy().T, bias=True))
    after = axes.T @ np.cov((x.numpy() @ matrix).T, bias=True) @ axes
    unbiased = after / (1 - 4 / len(x))
    np.testing.assert_allclose(np.diag(unbiased)[before < 0.09], 0.1, rtol=1e-9)
    np.testing.assert_allclose(np.diag(after)[before > 0.11], before[before > 0.11], rtol=1e-9)
    np.testing.assert_allclose(after, np.diag(np.diag(after)), atol=1e-12)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_starts_as_the_identity(dtype):
    x, stretched = rows().to(dtype), chain(dtype=dtype)
    stretched.initialize(x)
    z, log_det = stretched.forward_and_log_det(x)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(z, x, rtol=0, atol=tolerance)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=tolerance)


def test_maps_are_inverse_to_each_other_after_rounding():
    x, stretched = rows(), chain()
    stretched.initialize(x)
    stretched.to(torch.float32).to(torch.float64)
    z, log_det = stretched.forward_and_log_det(x)
    torch.testing.assert_close(z, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_rows_have_no_narrow_directions(n):
    stretched = chain()
    stretched.initialize(rows(n))
    assert torch.equal(first_map(stretched).matrix, torch.eye(4, dtype=torch.float64))


def test_variances_of_few_rows_are_corrected():
    # Of n normal rows the inverse of the covariance is n / (n - D - 2) times too large in the mean.
    squares = []
    for seed in range(300):
        stretched = chain()
        stretched.stretch(0.05 * rows(40, seed))
        squares.append(np.square(first_map(stretched).matrix.numpy()).sum())
    truth = 0.1 / (0.05 * SCALES) ** 2
    assert np.mean(squares) == pytest.approx(truth.sum() * 36 / 34, rel=0.03)


def test_wide_rows_are_left_alone():
    stretched = chain()
    stretched.initialize(torch.tensor(np.random.RandomState(0).standard_normal((500, 4))))
    assert torch.equal(first_map(stretched).matrix.round(decimals=12), torch.eye(4).double())


def test_directions_of_one_noise_are_stretched_alike():
    x = rows()
    variances = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True)) / (1 - 4 / len(x))
    stretched = chain(n_components=2)
    stretched.stretch(x)
    gain = np.sqrt(0.1 / variances[:2].mean())
    np.testing.assert_allclose(gains(stretched), [gain, gain, 1, 1], rtol=1e-9)


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
def test_noise_widens_narrow_directions(noise):
    x = rows()
    variances = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True)) / (1 - 4 / len(x)) + noise**2
    stretched = chain(noise=noise)
    stretched.stretch(x)
    expected = np.maximum(1, np.sqrt(0.1 / variances))
    np.testing.assert_allclose(gains(stretched), expected, rtol=1e-9)


def test_directions_without_any_variance_are_stretched_by_a_finite_factor():
    x = rows()
    x[:, 2] = x[:, 0]
    stretched = chain()
    stretched.stretch(x)
    assert gains(stretched)[0] == pytest.approx(np.sqrt(0.1 / 1e-6))
