"""Figures of merit against their definitions and closed forms."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal, norm, ortho_group
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA, FastICA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from skmanifoldflow.metrics import bits_per_dim, continuity, frechet_distance


def continuity_by_definition(X, X_embedded, k):
    """Sum of Venna & Kaski (2001), row by row."""
    n = len(X)
    distance, distance_embedded = cdist(X, X), cdist(X_embedded, X_embedded)
    total = 0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        neighbors = sorted(others, key=lambda j: distance[i, j])[:k]
        ranks = {
            j: rank + 1 for rank, j in enumerate(sorted(others, key=distance_embedded[i].item))
        }
        total += sum(ranks[j] - k for j in neighbors if ranks[j] > k)
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * total


@pytest.mark.parametrize("n_neighbors", [1, 5, 14])
def test_continuity_is_its_definition(n_neighbors):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((30, 4))
    expected = continuity_by_definition(X, X[:, :1], n_neighbors)
    assert expected < 0.95
    assert continuity(X, X[:, :1], n_neighbors=n_neighbors) == pytest.approx(expected, abs=1e-12)


def test_continuity_of_an_isometry_is_one():
    X = np.random.RandomState(0).standard_normal((60, 3))
    assert continuity(X, 3 * X @ ortho_group.rvs(3, random_state=0) + 1) == 1


def test_continuity_sees_tears_and_not_folds():
    t = np.linspace(0, 1, 200)[:, None]
    torn = np.where(t < 0.5, t, t + 100 + 7 * np.sin(40 * t))
    circle = np.column_stack([np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)])
    # Closing a line to a circle keeps all neighbours and adds false ones, opening it loses some.
    assert continuity(t, circle) > 0.999
    assert continuity(circle, t) < 0.99
    assert continuity(t, torn) < 0.99


def test_continuity_refuses_too_many_neighbors():
    X = np.zeros((10, 2))
    with pytest.raises(ValueError, match="n_neighbors"):
        continuity(X, X, n_neighbors=5)


class Density:
    """A model with a given log-density."""

    def __init__(self, function):
        self.score_samples = function


@pytest.mark.parametrize("n_levels", [2, 16, 256])
def test_bits_of_the_uniform_distribution(n_levels):
    X = np.random.RandomState(0).randint(n_levels, size=(20, 3))
    uniform = Density(lambda rows: np.full(len(rows), -3 * np.log(n_levels)))
    bits = bits_per_dim(uniform, X, n_levels=n_levels, n_draws=2, random_state=0)
    assert bits == pytest.approx(np.log2(n_levels))


def test_bits_of_a_distribution_constant_on_cells_are_its_cross_entropy():
    probabilities = np.array([0.5, 0.25, 0.125, 0.125])
    table = Density(lambda rows: np.log(probabilities)[rows.astype(int)].sum(axis=1))
    X = np.array([[0, 0], [1, 3], [2, 1]])
    # -log2 p is 1, 2, 3, 3.
    assert bits_per_dim(table, X, n_levels=4, random_state=0) == pytest.approx(
        (1 + 1 + 2 + 3 + 3 + 2) / 6
    )


def test_bits_of_a_normal_distribution_and_the_jensen_bound():
    mean, deviation = 4.3, 1.7
    distribution = norm(mean, deviation)
    normal = Density(lambda rows: distribution.logpdf(rows).sum(axis=1))
    X = np.random.RandomState(0).randint(9, size=(50, 2))
    # Mean over u of (x + u - mean)^2 is (x + 1/2 - mean)^2 + 1/12.
    nats = 0.5 * np.log(2 * np.pi * deviation**2) + ((X + 0.5 - mean) ** 2 + 1 / 12) / (
        2 * deviation**2
    )
    bits = bits_per_dim(normal, X, n_levels=9, n_draws=4000, random_state=1)
    assert bits == pytest.approx(nats.mean() / np.log(2), abs=2e-3)
    exact = -np.log2(distribution.cdf(X + 1) - distribution.cdf(X)).mean()
    assert exact < bits < exact + 0.1


def test_bits_depend_on_the_seed_alone():
    X = np.arange(12).reshape(6, 2)
    normal = Density(lambda rows: norm(5, 4).logpdf(rows).sum(axis=1))
    first, again, other = (bits_per_dim(normal, X, random_state=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_bits_are_infinite_outside_the_support():
    empty = Density(lambda rows: np.where(rows[:, 0] < 1, -np.inf, 0.0))
    assert bits_per_dim(empty, [[0, 0], [1, 1]]) == np.inf


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        ([[0.5]], {}, "integers from 0 to 255"),
        ([[-1]], {}, "integers from 0 to 255"),
        ([[4]], {"n_levels": 4}, "integers from 0 to 3, got values from 4 to 4"),
        ([[0]], {"n_levels": 1}, "n_levels must be an integer >= 2"),
        ([[0]], {"n_draws": 0}, "n_draws must be an integer >= 1"),
        ([[0]], {"n_draws": 1.5}, "n_draws must be an integer >= 1"),
        ([[np.nan]], {}, "NaN"),
    ],
)
def test_bits_errors(X, options, message):
    with pytest.raises(ValueError, match=message):
        bits_per_dim(Density(lambda rows: np.zeros(len(rows))), X, **options)


class NormalDistribution(BaseEstimator):
    """The normal distribution of the mean and the covariance of the rows, wherever they are."""

    def fit(self, X, y=None):
        self.distribution_ = multivariate_normal(X.mean(axis=0), np.cov(X.T))
        return self

    def score_samples(self, X):
        return self.distribution_.logpdf(X)

    def score(self, X, y=None):
        return self.score_samples(X).mean()


@pytest.fixture(scope="module")
def integers():
    rng = np.random.RandomState(0)
    return rng.binomial([15, 255, 60], [0.3, 0.5, 0.1], size=(200, 3))


@pytest.mark.parametrize(
    "steps",
    [
        [StandardScaler()],
        [StandardScaler(with_std=False)],
        [MinMaxScaler((-1, 4))],
        [MaxAbsScaler()],
        [RobustScaler(quantile_range=(10, 70))],
        [RobustScaler(with_scaling=False)],
        [PCA(whiten=True)],
        ["passthrough"],
        [MinMaxScaler(), make_pipeline(MaxAbsScaler(), "passthrough"), StandardScaler()],
    ],
    ids=str,
)
def test_bits_do_not_depend_on_the_units_of_a_pipeline(steps, integers):
    Y = integers + np.random.RandomState(1).uniform(size=integers.shape)
    # The normal distribution goes with the units, so that the model is the same in all of them.
    expected = bits_per_dim(NormalDistribution().fit(Y), integers, random_state=0)
    pipeline = make_pipeline(*steps, NormalDistribution()).fit(Y)
    assert bits_per_dim(pipeline, integers, random_state=0) == pytest.approx(expected)
    search = GridSearchCV(pipeline, {"normaldistribution": [NormalDistribution()]}, cv=2).fit(Y)
    assert bits_per_dim(search, integers, random_state=0) == pytest.approx(expected)
    nested = make_pipeline(StandardScaler(), pipeline).fit(Y)
    assert bits_per_dim(nested, integers, random_state=0) == pytest.approx(expected)


class Uniform(BaseEstimator):
    """The uniform distribution on the unit cube."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        return np.where(((X >= 0) & (X <= 1)).all(axis=1), 0.0, -np.inf)


def test_bits_of_the_uniform_distribution_behind_a_scaler():
    X = np.array([[0, 0], [15, 15], [3, 8]])
    uniform = make_pipeline(MinMaxScaler(), Uniform()).fit(np.array([[0, 0], [16, 16]]))
    assert bits_per_dim(uniform, X, n_levels=16, random_state=0) == pytest.approx(4)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (FastICA(), "behind FastICA cannot be brought into the units of X"),
        (make_pipeline(StandardScaler(), PCA(2)), "no density behind PCA with 2 components of 3"),
        (MinMaxScaler(clip=True), r"no density behind MinMaxScaler\(clip=True\)"),
    ],
)
def test_bits_behind_steps_of_unknown_jacobian(step, message, integers):
    pipeline = make_pipeline(step, NormalDistribution()).fit(integers)
    with pytest.raises(ValueError, match=message):
        bits_per_dim(pipeline, integers)


def rows_with_moments(mean, covariance, n, seed):
    """Rows whose sample mean and covariance are the given ones, up to rounding."""
    X = np.random.RandomState(seed).standard_normal((n, len(mean)))
    X -= X.mean(axis=0)
    X = X @ np.linalg.inv(np.linalg.cholesky(np.cov(X.T))).T
    return X @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_is_the_closed_form_of_two_normal_distributions():
    rng = np.random.RandomState(0)
    mean_a, mean_b = rng.standard_normal((2, 5))
    root_a, root_b = rng.standard_normal((2, 5, 5))
    a, b = root_a @ root_a.T, root_b @ root_b.T
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    # Numbers of rows may differ.
    A, B = rows_with_moments(mean_a, a, 40, 1), rows_with_moments(mean_b, b, 70, 2)
    assert frechet_distance(A, B) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(B, A) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_commuting_covariances():
    # Diagonal covariances: the sum of squared differences of means and standard deviations.
    deviations_a, deviations_b = np.array([1.0, 3.0, 0.5]), np.array([2.0, 1.0, 0.5])
    A = rows_with_moments(np.zeros(3), np.diag(deviations_a**2), 20, 0)
    B = rows_with_moments(np.array([0.0, 0.0, 2.0]), np.diag(deviations_b**2), 20, 1)
    assert frechet_distance(A, B) == pytest.approx(1 + 4 + 4)


def test_frechet_distance_of_equal_rows_is_zero_and_of_moved_rows_the_move():
    X = np.random.RandomState(0).standard_normal((50, 6)) + 1000
    assert frechet_distance(X, X) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(X, X[::-1] + 3) == pytest.approx(6 * 9)
    turn = ortho_group.rvs(6, random_state=0)
    other = X**2 / 1000
    assert frechet_distance(X @ turn, other @ turn) == pytest.approx(frechet_distance(X, other))


def test_frechet_distance_of_singular_covariances():
    rng = np.random.RandomState(0)
    line = np.outer(rng.standard_normal(30), [1.0, 0.0, 0.0])
    across = np.outer(rng.standard_normal(30), [0.0, 1.0, 0.0])
    # Orthogonal lines share nothing, so the variances add up.
    means = ((line.mean(0) - across.mean(0)) ** 2).sum()
    expected = means + line.var(axis=0, ddof=1).sum() + across.var(axis=0, ddof=1).sum()
    assert frechet_distance(line, across) == pytest.approx(expected)
    # Fewer rows than columns, and constant columns.
    few = rng.standard_normal((3, 8))
    few[:, 2] = 7
    assert frechet_distance(few, few[[2, 0, 1]]) == pytest.approx(0, abs=1e-12)
    assert np.isfinite(frechet_distance(few, np.zeros((2, 8))))


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (np.zeros((4, 3)), "as many columns, got 2 and 3"),
        (np.zeros((1, 2)), "minimum of 2"),
        (np.full((4, 2), np.nan), "NaN"),
    ],
)
def test_frechet_distance_errors(b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(np.zeros((4, 2)), b)
