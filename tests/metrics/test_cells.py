"""Bits and masses of values on a grid against closed forms."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA, FastICA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)

from skmanifoldflow import NoisyInjectiveFlow
from skmanifoldflow.metrics import bits_per_dim, log_mass


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


# ------------------------------------------------------------------ mass of a cell


def normal_mass(low, high, mean, covariance):
    """The probability of a box, from the distribution function at its corners."""
    distribution = multivariate_normal(mean, covariance)
    (a, b), (c, d) = low, high
    corners = distribution.cdf([[c, d], [a, d], [c, b], [a, b]])
    return corners @ [1, -1, -1, 1]


def test_mass_of_a_normal_distribution():
    mean, covariance = np.array([0.3, -1.0]), np.array([[2.0, 1.2], [1.2, 1.5]])
    normal = Density(multivariate_normal(mean, covariance).logpdf)
    points, widths = np.array([[0, 0], [1, -2], [3, 0.5], [-4, 2]]), np.array([1.0, 0.5])
    expected = [normal_mass(p - widths / 2, p + widths / 2, mean, covariance) for p in points]
    estimate, std = log_mass(
        normal, points, widths=widths, n_draws=256, random_state=0, return_std=True
    )
    assert (np.abs(estimate - np.log(expected)) < 4 * std).all()
    assert (std < 2e-3).all()


def test_masses_of_all_cells_add_up_to_one():
    values = np.stack(np.meshgrid(np.arange(-12, 13), 0.5 * np.arange(-10, 11)), -1)
    normal = Density(lambda rows: norm(0.4, [1.5, 0.6]).logpdf(rows).sum(axis=1))
    masses = np.exp(log_mass(normal, values.reshape(-1, 2), widths=[1, 0.5], random_state=0))
    assert masses.sum() == pytest.approx(1, abs=1e-4)


def test_columns_without_a_width_keep_their_density():
    normal = Density(lambda rows: norm([1.0, 3.0], [2.0, 0.1]).logpdf(rows).sum(axis=1))
    points = np.array([[0.0, 3.0], [2.0, 2.9]])
    mass = norm(1, 2).cdf(points[:, 0] + 0.5) - norm(1, 2).cdf(points[:, 0] - 0.5)
    expected = np.log(mass) + norm(3, 0.1).logpdf(points[:, 1])
    found = log_mass(normal, points, widths=[1, 0], n_draws=256, random_state=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # Of no column at all it is the density.
    np.testing.assert_allclose(
        log_mass(normal, points, widths=[0, 0]), normal.score_samples(points), rtol=1e-12
    )


def test_each_point_may_have_widths_of_its_own():
    """As atoms in a continuous column have, and the other values have not."""
    normal = Density(lambda rows: norm(0, [1, 2]).logpdf(rows).sum(axis=1))
    points, widths = np.array([[0.0, 1.0], [0.7, 1.0]]), np.array([[0.01, 1.0], [0.0, 1.0]])
    found = log_mass(normal, points, widths=widths, n_draws=256, random_state=0)
    second = norm(0, 2).cdf(1.5) - norm(0, 2).cdf(0.5)
    first = norm.cdf(0.005) - norm.cdf(-0.005), norm.pdf(0.7)
    np.testing.assert_allclose(found, np.log(first) + np.log(second), atol=1e-4)


def test_standard_errors_are_those_of_other_seeds():
    """A narrow ridge within cells, which few draws meet."""
    narrow = Density(multivariate_normal([0, 0], [[1, 0.97], [0.97, 1]]).logpdf)
    points = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 1.0]])
    runs = [
        log_mass(narrow, points, widths=[2, 2], n_draws=4, random_state=seed, return_std=True)
        for seed in range(60)
    ]
    estimates, errors = (np.array(values) for values in zip(*runs, strict=True))
    spread = np.median(np.abs(estimates - np.median(estimates, axis=0)), axis=0) / norm.ppf(0.75)
    np.testing.assert_allclose(np.median(errors, axis=0), spread, rtol=0.5)
    expected = [normal_mass(p - 1, p + 1, [0, 0], [[1, 0.97], [0.97, 1]]) for p in points]
    error = estimates.std(axis=0) / np.sqrt(60)
    assert (np.abs(np.exp(estimates).mean(axis=0) / expected - 1) < 4 * error).all()


@pytest.mark.parametrize(("n_features", "most"), [(5, 0.002), (10, 0.007), (30, 0.06)])
def test_error_of_the_default_number_of_draws(n_features, most):
    X = np.random.RandomState(0).normal(size=(200, n_features)).round()
    expected = np.log(norm.cdf(X + 0.5) - norm.cdf(X - 0.5)).sum(axis=1)
    normal = Density(lambda rows: norm.logpdf(rows).sum(axis=1))
    widths = np.ones(n_features)
    found, std = log_mass(normal, X, widths=widths, random_state=0, return_std=True)
    error, stated = (np.sqrt(np.mean(e**2)) for e in (found - expected, std))
    assert error < most
    assert 0.5 < error / stated < 2


def test_draws_are_common_to_all_points():
    """A ratio of masses is less noisy than each of them: here it is known but for the points."""
    waves = Density(lambda rows: np.sin(40 * rows).sum(axis=1) - 3 * rows[:, 0])
    points = np.array([[0.0, 0.0], [2 * np.pi, 4 * np.pi]])
    low, high = log_mass(waves, points, widths=[1, 1], n_draws=1, random_state=0)
    assert high - low == pytest.approx(-6 * np.pi, rel=1e-9)


def test_no_density_is_no_mass():
    empty = Density(lambda rows: np.where(rows[:, 0] < 1, -np.inf, 0.0))
    mass, std = log_mass(empty, [[0.0], [1.0], [9.0]], widths=[1], return_std=True, random_state=0)
    assert mass[0] == -np.inf
    assert std[0] == np.inf
    # Half of the cell around 1 has a density.
    assert mass[1] == pytest.approx(np.log(0.5), abs=0.02)
    assert (mass[2], std[2]) == (0, 0)


def test_many_points_are_scored_in_parts(monkeypatch):
    normal = Density(lambda rows: norm(0, [1, 2]).logpdf(rows).sum(axis=1))
    points = np.random.RandomState(0).randint(-3, 4, (50, 2))
    at_once = log_mass(normal, points, widths=[1, 1], random_state=0)
    monkeypatch.setattr("skmanifoldflow.metrics._cells._MAX_VALUES", 1000)
    np.testing.assert_allclose(log_mass(normal, points, widths=[1, 1], random_state=0), at_once)


def test_widths_are_the_steps_of_the_columns():
    rng = np.random.RandomState(0)
    X = np.c_[rng.poisson(3, 300), 0.25 * rng.randint(0, 9, 300), rng.normal(size=300)]
    model = NoisyInjectiveFlow(
        n_layers=1, max_iter=2, discrete_features=[0, 1], random_state=0
    ).fit(X)
    options = {"n_draws": 8, "random_state": 0}
    found = log_mass(model, X[:20], **options)
    np.testing.assert_array_equal(found, log_mass(model, X[:20], widths=[1, 0.25, 0], **options))
    search = GridSearchCV(model, {"n_layers": [1]}, cv=2).fit(X)
    assert np.isfinite(log_mass(search, X[:20], **options)).all()
    pipeline = make_pipeline(StandardScaler(), model).fit(X)
    with pytest.raises(ValueError, match="no columns_ in the units of X"):
        log_mass(pipeline, X)
    with pytest.raises(ValueError, match="points has 2 features, but NoisyInjectiveFlow is expect"):
        log_mass(model, X[:, :2])


def test_names_of_a_frame_reach_the_model(integers):
    """Warnings are errors here, and a model that was fitted to a frame warns of an array."""
    frame = pd.DataFrame(integers, columns=["a", "b", "c"])
    for steps in ([], [StandardScaler()], [PowerTransformer(), StandardScaler()]):
        pipeline = make_pipeline(*steps, GaussianMixture(random_state=0))
        with_names, without = (clone(pipeline).fit(X + 0.5) for X in (frame, integers))
        for figure in (bits_per_dim, partial(log_mass, widths=[1, 1, 1])):
            found = figure(with_names, frame, random_state=0)
            expected = figure(without, integers, random_state=0)
            np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [1]}, r"widths must have shape \(2,\) or \(3, 2\), got \(1,\)"),
        ({"widths": [1, -1]}, "widths must be finite and >= 0"),
        ({"widths": [1, np.nan]}, "widths must be finite and >= 0"),
        ({"widths": [1, 1], "n_draws": 12}, "n_draws must be a power of 2, got 12"),
        ({"widths": [1, 1], "n_draws": 0}, "n_draws must be a power of 2, got 0"),
        ({"widths": [1, 1], "n_draws": 2.0}, "n_draws must be a power of 2, got 2.0"),
        ({}, "Density has no columns_ in the units of X: give the widths"),
    ],
)
def test_mass_errors(options, message):
    with pytest.raises(ValueError, match=message):
        log_mass(Density(lambda rows: np.zeros(len(rows))), np.zeros((3, 2)), **options)
