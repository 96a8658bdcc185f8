"""Fits to few rows of many columns: shrunk covariances, against scikit-learn and scipy."""

import numpy as np
import pytest
import torch
from helpers import every_estimator
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score

from skmanifoldflow import JointManifoldFlow, NoisyInjectiveFlow
from skmanifoldflow._few_rows import (
    FewRows,
    Shrinkage,
    _held_out,
    are_few,
    required_errors,
    shrinkage_of,
)
from skmanifoldflow.backend.device import make_generator


def standardized(X):
    scale = X.std(axis=0)
    return (X - X.mean(axis=0)) / scale, scale


def shrunk_normal(X, test):
    """Log-densities of the Ledoit-Wolf normal of the rows."""
    model = LedoitWolf().fit(X)
    return multivariate_normal(model.location_, model.covariance_).logpdf(test)


@pytest.fixture
def rows():
    rng = np.random.RandomState(0)
    return rng.standard_normal((25, 12)) @ rng.standard_normal((12, 12))


def covariance(rows, share, d):
    """The shrunk covariance of rows, written with those of scikit-learn."""
    pca = PCA().fit(rows)
    axes, n_features = pca.components_, rows.shape[1]
    variances = np.zeros(n_features)
    variances[: len(axes)] = pca.explained_variance_
    variances = (1 - share) * variances + share * variances.mean()
    complete = np.linalg.qr(np.concatenate([axes, np.eye(n_features)]).T)[0]
    variances[d:] = variances[d:].mean()
    return (complete * variances) @ complete.T


@pytest.mark.parametrize(
    ("n", "share", "d"), [(25, 0.2, 3), (25, 1.0, 1), (8, 0.05, 11), (8, 0.3, 5)]
)
def test_draws_have_the_shrunk_covariance(rows, n, share, d):
    rows = rows[:n]
    few = FewRows(Shrinkage(share, d, d), torch.tensor(rows))
    expected = covariance(rows, share, d)
    sample = few.sample(torch.tensor(rows), make_generator(0)).numpy()
    assert len(sample) >= 2048
    np.testing.assert_allclose(np.cov(sample.T), expected, atol=1e-8 * expected.max())
    np.testing.assert_allclose(sample.mean(0), rows.mean(0), atol=1e-8)
    # Single draws have it in the mean.
    drawn = few.draw(torch.tensor(np.tile(rows, (4000, 1))), make_generator(1)).numpy()
    # The covariance of copies lacks the factor n / (n - 1).
    inflated = (1 - share) * (np.cov(rows.T) - np.cov(rows.T, bias=True))
    assert np.abs(np.cov(drawn.T) - expected).max() < 0.03 * expected.max() + np.abs(inflated).max()


def test_draws_lie_beside_their_rows(rows):
    """With little noise a draw is the row itself, not just any row of the distribution."""
    few = FewRows(Shrinkage(1e-6, 11, 11), torch.tensor(rows))
    drawn = few.draw(torch.tensor(rows), make_generator(0)).numpy()
    assert np.abs(drawn - rows).max() < 0.05 * rows.std()


def test_held_out_likelihood_is_that_of_scipy(rows):
    fold, left_out = rows[:9], rows[9:]
    scores = _held_out(fold, left_out)
    for i, share in ((8, 1e-4), (20, 0.1), (24, 1.0)):
        for d in (1, 5, 11):
            normal = multivariate_normal(fold.mean(0), covariance(fold, share, d))
            expected = normal.logpdf(left_out).sum() + 0.5 * left_out.size * np.log(2 * np.pi)
            np.testing.assert_allclose(scores[i, d - 1], expected, rtol=1e-8)


def test_rows_without_structure_are_shrunk_to_one_variance():
    rng = np.random.RandomState(1)
    found = shrinkage_of(*standardized(rng.standard_normal((40, 30))))
    assert found.share > 0.5
    assert found.pooling == 1.0


def test_columns_in_different_units_keep_them():
    rng = np.random.RandomState(1)
    found = shrinkage_of(*standardized(rng.standard_normal((40, 30)) * np.logspace(-6, 6, 30)))
    assert found.pooling == 0.0
    assert found.share > 0.5


def test_a_thin_sheet_is_not_inflated():
    """The shrinkage of Ledoit and Wolf would cover the noise of a plane in many columns."""
    rng = np.random.RandomState(2)
    frame = np.linalg.qr(rng.standard_normal((40, 2)))[0]
    rows, fresh = (
        rng.standard_normal((n, 2)) @ frame.T + 1e-3 * rng.standard_normal((n, 40))
        for n in (60, 500)
    )
    found = shrinkage_of(*standardized(rows))
    assert found is None or found.share * 40 < 1e-2
    assert found is None or found.n_components == 2
    model = NoisyInjectiveFlow(n_layers=2, max_iter=5, noise_floor=1e-4, random_state=0).fit(rows)
    assert model.n_components_ == 2
    assert model.score(fresh) > shrunk_normal(rows, fresh).mean() + 20


def test_rows_on_a_plane_are_not_shrunk():
    rng = np.random.RandomState(3)
    rows = rng.standard_normal((20, 2)) @ rng.standard_normal((2, 10))
    assert shrinkage_of(*standardized(rows)) is None


@pytest.mark.parametrize("rows", [np.zeros((5, 4)), np.ones((2, 3))])
def test_equal_rows_are_not_shrunk(rows):
    assert shrinkage_of(rows, np.ones(rows.shape[1])) is None


def test_two_rows_have_one_variance():
    assert shrinkage_of(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]), np.ones(3)).share == 1.0


def test_what_is_few():
    assert are_few(99, 10)
    assert not are_few(100, 10)
    assert not are_few(5, 1)


def test_required_errors_are_those_of_a_t_test():
    from scipy.stats import t

    np.testing.assert_allclose(required_errors(10), t(9).isf(1e-3))


@every_estimator
@pytest.mark.parametrize(
    ("n", "n_features", "slack"), [(10, 10, 0.5), (30, 40, 1.0), (12, 60, 1.0)]
)
def test_scores_are_close_to_the_shrunk_normal(Estimator, n, n_features, slack):
    rng = np.random.RandomState(0)
    X, fresh = rng.standard_normal((n, n_features)), rng.standard_normal((500, n_features))
    scores = Estimator(random_state=0).fit(X).score_samples(fresh)
    expected = shrunk_normal(X, fresh)
    assert scores.mean() > expected.mean() - slack
    assert scores.min() > expected.min() - 10


@every_estimator
def test_validated_fits_are_close_to_the_shrunk_normal(Estimator):
    X = load_wine().data
    rng = np.random.RandomState(0)
    X = X[rng.permutation(len(X))]
    train, test = X[:60], X[60:]
    own = {"n_init": 1} if Estimator is JointManifoldFlow else {}
    model = Estimator(n_layers=2, hidden_layer_sizes=(16,), max_iter=10, random_state=0, **own)
    _, scale = standardized(train)
    expected = shrunk_normal(train / scale, test / scale) - np.log(scale).sum()
    scores = model.fit(train).score_samples(test)
    assert scores.mean() > expected.mean() - 0.2
    assert scores.min() > -100


@every_estimator
def test_draws_have_the_covariance_of_the_rows(Estimator):
    """What is drawn from a model of few rows is what it scores highly."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((30, 12)) * np.linspace(1, 3, 12)
    model = Estimator(random_state=0).fit(X)
    drawn = model.sample(4000, random_state=0)
    _, theirs = np.linalg.slogdet(np.cov(drawn.T))
    _, exact = np.linalg.slogdet(np.diag(np.linspace(1, 3, 12) ** 2))
    assert abs(theirs - exact) < 5


@every_estimator
def test_a_fit_that_keeps_its_start_says_so(Estimator):
    rng = np.random.RandomState(3)
    own = {"n_init": 1} if Estimator is JointManifoldFlow else {}
    model = Estimator(n_layers=2, hidden_layer_sizes=(16,), max_iter=4, random_state=0, **own)
    assert clone(model).fit(rng.standard_normal((20, 5))).kept_start_ is True
    assert clone(model).fit(rng.standard_normal((60, 20))).kept_start_ is True


def test_a_fit_that_betters_its_start_says_so():
    rng = np.random.RandomState(0)
    t = rng.uniform(-2, 2, 500)
    curve = np.c_[t, np.sin(3 * t)] + 0.03 * rng.standard_normal((500, 2))
    model = NoisyInjectiveFlow(n_layers=2, hidden_layer_sizes=(16,), max_iter=15, random_state=0)
    assert model.fit(curve).kept_start_ is False


def test_left_out_scores_of_few_rows_are_finite():
    """A search scores folds of ever fewer rows."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((12, 20))
    scores = cross_val_score(NoisyInjectiveFlow(n_layers=2, random_state=0), X, cv=3)
    assert (scores > -60).all()
