import numpy as np
import pytest
import torch
from scipy import optimize, stats

from skmanifoldflow.backend.background import Background
from skmanifoldflow.backend.device import make_generator

NU = 3


@pytest.fixture
def rows():
    factor = np.array([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.2, 0.1]])
    of_t = stats.multivariate_t([1.0, -2.0, 0.5], factor @ factor.T, df=NU, seed=0)
    return torch.from_numpy(of_t.rvs(3000))


def distribution(background):
    root = background.root.numpy()
    scatter = np.diag(root**2) if background.is_diagonal else root @ root.T
    return stats.multivariate_t(background.location.numpy(), scatter, df=NU)


def test_density_is_that_of_scipy(rows):
    background = Background(3).fit(rows, 1e-3)
    expected = distribution(background).logpdf(100 * rows.numpy())
    np.testing.assert_allclose(background.log_prob(100 * rows), expected)
    background.set_weight(0.2, 100)
    of_flow = torch.linspace(-50, 1, len(rows), dtype=torch.float64)
    tail = background.log_prob(rows).numpy()
    mixed = np.logaddexp(np.log(0.8) + of_flow.numpy(), np.log(0.2) + tail)
    np.testing.assert_allclose(background.mix(rows, of_flow), mixed)


def test_fit_has_the_highest_likelihood(rows):
    """That of scipy's optimizer over location and scatter, on the rows that are used."""
    background, used = Background(3).fit(rows, 0.0), rows[:2048].numpy()
    is_lower = np.tril_indices(3)

    def loss(parameters):
        root = np.zeros((3, 3))
        root[is_lower] = parameters[3:]
        return -stats.multivariate_t(parameters[:3], root @ root.T, df=NU).logpdf(used).mean()

    start = np.concatenate([used.mean(0), np.linalg.cholesky(np.cov(used.T))[is_lower]])
    best = optimize.minimize(loss, start, method="BFGS")
    assert -distribution(background).logpdf(used).mean() == pytest.approx(best.fun, abs=1e-6)


def test_many_columns_are_uncorrelated():
    rows = torch.randn(400, 150, dtype=torch.float64, generator=make_generator(0))
    rows *= torch.logspace(-1, 1, 150, dtype=torch.float64)
    background = Background(150).fit(rows, 1e-3)
    assert background.root.shape == (150,)
    expected = distribution(background).logpdf(rows.numpy())
    np.testing.assert_allclose(background.log_prob(rows), expected)


def test_scale_is_that_of_most_rows():
    """One gross value does not widen it, and a constant column has the least scale."""
    rows = torch.randn(500, 2, dtype=torch.float64, generator=make_generator(0))
    clean = Background(2).fit(rows, 1e-3)
    rows[7, 0] = 1e6
    spoilt = Background(2).fit(rows, 1e-3)
    np.testing.assert_allclose(spoilt.root, clean.root, atol=0.02)
    rows[:, 1] = 3.0
    assert float(Background(2).fit(rows, 1e-3).root[1, 1]) == pytest.approx(1e-3)


def test_weight_is_the_most_probable_one(rows):
    """With ten more rows that the flow expects; see a grid over the weights."""
    background = Background(3).fit(rows, 1e-3)
    rows = rows[:200]
    log_prob = stats.multivariate_normal([1.0, -2.0, 0.5], np.eye(3)).logpdf(rows.numpy())
    background.learn_weight(rows, torch.from_numpy(log_prob), 1e6)
    density, tail = np.exp(log_prob), np.exp(background.log_prob(rows).numpy())

    def loss(weight):
        return -np.log((1 - weight) * density + weight * tail).sum() - 10 * np.log1p(-weight)

    best = optimize.minimize_scalar(loss, bounds=(0, 1), method="bounded")
    assert 0.05 < best.x < 0.95
    assert float(background.weight) == pytest.approx(best.x, abs=1e-3)


def test_weight_is_at_least_that_of_one_more_row(rows):
    background = Background(3).fit(rows, 1e-3)
    background.learn_weight(rows[:100], background.log_prob(rows[:100]) + 50, 399)
    assert float(background.weight) == pytest.approx(1 / 400)


@pytest.mark.parametrize("n_features", [3, 150])
def test_draws_follow_the_density(n_features):
    """Squared distances over the number of columns have an F distribution."""
    rows = torch.randn(300, n_features, dtype=torch.float64, generator=make_generator(0))
    background = Background(n_features).fit(rows @ (rows.T @ rows / 300), 1e-3)
    drawn = background.sample(4000, make_generator(1))
    root = background.root.numpy()
    centred = (drawn - background.location).numpy()
    white = centred / root if background.is_diagonal else np.linalg.solve(root, centred.T).T
    squares = (white**2).sum(1) / n_features
    assert stats.kstest(squares, stats.f(n_features, NU).cdf).pvalue > 1e-3
    directions = white / np.linalg.norm(white, axis=1, keepdims=True)
    assert np.abs(directions.mean(0)).max() < 5 / np.sqrt(4000 * n_features)
