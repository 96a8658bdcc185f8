"""Mixtures of probabilistic PCAs against scipy and blobs whose number is known."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from skmanifoldflow import _mixture_of_pca
from skmanifoldflow._mixture_of_pca import MixtureOfPCA, best_number_of_charts, fit_mixture


def _blobs(centres, n, scale=0.2, seed=0):
    """Return n rows around each centre, and where each comes from."""
    rng = np.random.RandomState(seed)
    centres = np.asarray(centres, dtype=float)
    labels = np.repeat(np.arange(len(centres)), n)
    rows = centres[labels] + scale * rng.randn(len(labels), centres.shape[1])
    order = rng.permutation(len(rows))
    return rows[order], labels[order]


def _covariances(mixture):
    """Return the covariance of each chart, from its axes and its variances."""
    for axes, scale, rest in zip(mixture.axes, mixture.scales, mixture.rest, strict=True):
        across = np.eye(len(axes)) - axes @ axes.T
        yield axes * scale**2 @ axes.T + rest**2 * across


@pytest.mark.parametrize("n_axes", [5, 2])
def test_log_joint_is_that_of_normal_distributions(n_axes):
    """With all axes, and with some and one variance for the rest."""
    rng = np.random.RandomState(0)
    mixture = MixtureOfPCA(
        weights=np.array([0.2, 0.7, 0.1]),
        means=rng.randn(3, 5),
        axes=np.stack([np.linalg.qr(rng.randn(5, 5))[0][:, :n_axes] for _ in range(3)]),
        scales=rng.uniform(0.3, 2.0, (3, n_axes)),
        rest=rng.uniform(0.3, 2.0, (3, 1)),
    )
    rows = 2 * rng.randn(20, 5)
    expected = [
        np.log(weight) + multivariate_normal(mean, covariance).logpdf(rows)
        for weight, mean, covariance in zip(
            mixture.weights, mixture.means, _covariances(mixture), strict=True
        )
    ]
    np.testing.assert_allclose(mixture.log_joint(rows), np.transpose(expected), rtol=1e-10)


def test_a_single_chart_is_the_normal_distribution_of_the_rows():
    """Mean and maximum-likelihood covariance: with few columns the rows leave nothing to decide."""
    rng = np.random.RandomState(0)
    rows = rng.randn(500, 3) @ rng.randn(3, 3)
    mixture, shares = fit_mixture(rows, np.zeros(500, dtype=int), 1, 1e-3)
    np.testing.assert_allclose(mixture.means[0], rows.mean(0), atol=1e-12)
    np.testing.assert_allclose(next(_covariances(mixture)), np.cov(rows.T, bias=True), rtol=1e-10)
    np.testing.assert_array_equal(shares, 1)
    assert np.all(np.diff(mixture.scales) <= 0)


@pytest.mark.parametrize("n_charts", [2, 6])
def test_likelihood_does_not_fall_with_the_steps(monkeypatch, n_charts):
    """But for what holds charts with few rows back, which costs less than a thousandth of a nat."""
    rng = np.random.RandomState(0)
    angle = rng.uniform(0, 2 * np.pi, 1000)
    rows = np.column_stack([np.cos(angle), np.sin(2 * angle)]) + 0.1 * rng.randn(1000, 2)
    cells, _ = _mixture_of_pca.partition(rows, n_charts)
    scores = []
    for n_steps in range(21):
        monkeypatch.setattr(_mixture_of_pca, "_MAX_EM_STEPS", n_steps)
        mixture, _ = fit_mixture(rows, cells, n_charts, 1e-3)
        scores.append(logsumexp(mixture.log_joint(rows), axis=1).mean())
    assert np.diff(scores).min() > -1e-3
    assert scores[-1] > scores[0] + 0.01


def test_well_separated_blobs_are_found_as_scikit_learn_finds_them():
    rows, labels = _blobs([[0, 0, 0], [4, 0, 0], [0, 5, 0]], 200)
    mixture, shares = fit_mixture(rows, labels, 3, 1e-3)
    np.testing.assert_array_equal(shares.argmax(1), labels)
    np.testing.assert_allclose(shares.sum(1), 1)
    peer = GaussianMixture(3, means_init=mixture.means, reg_covar=0, tol=1e-6).fit(rows)
    # The spherical blobs are taken as such, which full covariances do not know.
    ours = logsumexp(mixture.log_joint(rows), axis=1).mean()
    assert ours == pytest.approx(peer.score(rows), abs=0.02)
    np.testing.assert_allclose(mixture.weights, 1 / 3, atol=1e-3)


@pytest.mark.parametrize("n_blobs", [1, 2, 4, 8])
def test_information_criterion_counts_blobs(n_blobs):
    centres = [[4 * i, 4 * (i % 3)] for i in range(n_blobs)]
    rows, _ = _blobs(centres, 800 // n_blobs)
    assert best_number_of_charts(rows, 1e-3) == n_blobs


def test_few_rows_get_one_chart():
    rows, _ = _blobs([[0, 0], [9, 9]], 3)
    assert best_number_of_charts(rows, 1e-3) == 1


def test_third_moments_are_positive():
    """Whatever the orientation of the rows."""
    rng = np.random.RandomState(0)
    skewed = np.column_stack([3 * rng.exponential(size=2000), rng.exponential(size=2000)])
    for rotation in (np.eye(2), -np.eye(2), np.linalg.qr(rng.randn(2, 2))[0]):
        rows = (skewed - skewed.mean(0)) @ rotation
        rows = np.concatenate([rows, rows + 40])
        cells = np.repeat([0, 1], len(skewed))
        mixture, _ = fit_mixture(rows, cells, 2, 1e-3)
        for k in range(2):
            mine = rows[cells == k]
            along = (mine - mine.mean(0)) @ mixture.axes[k]
            assert np.all((along**3).mean(0) > 0)


@pytest.mark.parametrize("n_features", [1, 3, 70])
def test_degenerate_rows_stay_finite(n_features):
    """Repeated rows, cells of one row, and an empty cell."""
    rng = np.random.RandomState(0)
    repeated = np.repeat(rng.randn(3, n_features), 20, axis=0)
    constant = np.ones((60, n_features))
    for rows in (repeated, constant, rng.randn(60, n_features)):
        cells = np.minimum(np.arange(60), 3)
        mixture, shares = fit_mixture(rows, cells, 5, 1e-2)
        assert all(np.isfinite(part).all() for part in mixture)
        assert np.isfinite(mixture.log_joint(rows)).all()
        assert np.isfinite(shares).all()
        assert min(mixture.scales.min(), mixture.rest.min()) >= 1e-2 * (1 - 1e-9)
        assert mixture.weights.sum() == pytest.approx(1)


def test_an_empty_cell_gets_the_distribution_of_all_rows():
    rng = np.random.RandomState(0)
    rows = rng.randn(300, 2) * [3.0, 1.0]
    mixture, _ = fit_mixture(rows, np.zeros(300, dtype=int), 2, 1e-3)
    np.testing.assert_allclose(mixture.means[1], rows.mean(0), atol=0.05)
    np.testing.assert_allclose(mixture.scales[1], rows.std(0), rtol=0.1)
    assert mixture.weights[1] < 0.05


def test_wide_rows_keep_some_axes():
    """Beyond 64 columns charts keep 16 axes: the first ones of PCA, the rest at their mean."""
    rng = np.random.RandomState(0)
    rows = rng.randn(500, 80) * np.r_[10.0 * np.ones(3), np.ones(77)]
    mixture, _ = fit_mixture(rows, np.zeros(500, dtype=int), 1, 1e-3)
    eigenvalues = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
    assert mixture.axes.shape == (1, 80, 16)
    np.testing.assert_allclose(mixture.scales[0, :3] ** 2, eigenvalues[:3], rtol=1e-9)
    np.testing.assert_allclose(mixture.rest[0] ** 2, eigenvalues[3:].mean(), rtol=1e-9)
    np.testing.assert_allclose(mixture.scales[0, 3:], mixture.rest[0, 0], rtol=1e-9)


def test_partition_is_one_by_nearest_means():
    rows, labels = _blobs([[0, 0], [5, 0], [0, 5]], 50)
    cells, means = _mixture_of_pca.partition(rows, 3, seed=1)
    distances = np.linalg.norm(rows[:, None] - means, axis=2)
    np.testing.assert_array_equal(cells, distances.argmin(1))
    # The same blobs under other names.
    assert len(set(zip(cells, labels, strict=True))) == 3


def test_partition_of_repeated_rows_says_nothing():
    cells, means = _mixture_of_pca.partition(np.ones((10, 2)), 3)
    np.testing.assert_array_equal(cells, cells[0])
    assert means.shape == (3, 2)
