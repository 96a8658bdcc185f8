"""Which rows are copies, against tables that are made of copies and tables that are not."""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import norm

from skmanifoldflow import NoisyInjectiveFlow, intrinsic_dimension
from skmanifoldflow._duplicates import _equal_rows, distinct_rows, find_duplicates

N, D = 400, 6


@pytest.fixture
def rng():
    return np.random.RandomState(0)


def same_partition(one, other):
    """Tell whether two labellings of rows are the same but for the numbers of the labels."""
    pairs = np.unique(np.column_stack([one, other]), axis=0)
    return len(pairs) == len(np.unique(one)) == len(np.unique(other))


@pytest.mark.parametrize("times", [2, 5, 10])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_features", [2, 6, 100])
def test_rows_that_repeat(rng, times, dtype, n_features):
    order = rng.permutation(times * N)
    X = np.repeat(rng.standard_normal((N, n_features)), times, axis=0).astype(dtype)[order]
    duplicates = find_duplicates(X)
    assert duplicates.kind == "equal"
    assert duplicates.n_repeated == times * N
    assert same_partition(duplicates.groups, np.repeat(np.arange(N), times)[order])
    first = np.sort(np.unique(X, axis=0, return_index=True)[1])
    np.testing.assert_array_equal(duplicates.first, first)
    assert len(distinct_rows(X)) == N


def test_groups_are_numbered_by_their_first_rows(rng):
    X = rng.standard_normal((50, 4))
    X = np.r_[X[[2, 0, 2, 1, 0]], X[3:]]
    assert find_duplicates(X).groups.tolist() == [0, 1, 0, 2, 1, *range(3, 50)]


def test_signs_of_zero_and_single_bits():
    X = np.array([[0.0, 1e300], [-0.0, 1e300], [0.0, np.nextafter(1e300, 0)], [1e-320, 1e300]])
    assert _equal_rows(np.concatenate([X, X[:1]])).tolist() == [0, 0, 1, 2, 0]


@pytest.mark.parametrize("units", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("distance", [1e-12, 1e-9, 1e-6, 1e-4])
@pytest.mark.parametrize("share", [1.0, 0.1], ids=["all rows", "a tenth"])
def test_near_copies(rng, units, distance, share):
    X = rng.standard_normal((N, D))
    n = int(share * N)
    labels = np.concatenate([np.arange(N), np.tile(np.arange(n), 4)])
    copies = X[labels] + distance * rng.standard_normal((len(labels), D))
    duplicates = find_duplicates(units * (copies + 3))
    assert duplicates.kind == "near"
    assert same_partition(duplicates.groups, labels)


@pytest.mark.parametrize(("n_places", "n_readings"), [(150, 20), (500, 3), (60, 45)])
@pytest.mark.parametrize("jitter", [0.002, 0.02])
def test_readings_of_places(rng, n_places, n_readings, jitter):
    labels = np.repeat(np.arange(n_places), n_readings)
    X = rng.standard_normal((n_places, D))[labels]
    X = X + jitter * rng.standard_normal(X.shape)
    duplicates = find_duplicates(X)
    assert duplicates.kind == "near"
    # Single linkage of all rows, cut where that many are left.
    expected = fcluster(linkage(X, "single"), n_places, "maxclust")
    assert same_partition(duplicates.groups, expected)
    assert same_partition(duplicates.groups, labels)


def test_readings_that_are_not_apart_are_suspected(rng):
    places = np.repeat(rng.standard_normal((150, D)), 20, axis=0)
    duplicates = find_duplicates(places + 0.05 * rng.standard_normal(places.shape))
    assert duplicates.kind == "suspected"
    assert duplicates.n_repeated == 0
    with pytest.warns(UserWarning, match="Give the place of each row as groups"):
        NoisyInjectiveFlow(n_layers=2, max_iter=1, random_state=0).fit(
            places + 0.05 * rng.standard_normal(places.shape)
        )
    wide = find_duplicates(places + 0.3 * rng.standard_normal(places.shape))
    assert wide.kind == "none"


@pytest.mark.parametrize(("n_rows", "times"), [(50, 2), (50, 60), (30, 10)])
def test_copies_of_few_rows(rng, n_rows, times):
    labels = np.repeat(np.arange(n_rows), times)
    X = rng.standard_normal((n_rows, 4))[labels]
    assert same_partition(find_duplicates(X).groups, labels)
    near = find_duplicates(X + 1e-9 * rng.standard_normal(X.shape))
    assert near.kind == "near"
    assert same_partition(near.groups, labels)


@pytest.mark.parametrize("n_features", [1, 30, 300])
def test_readings_in_any_number_of_columns(rng, n_features):
    labels = np.repeat(np.arange(200), 4)
    jitter = 1e-6 if n_features == 1 else 0.05
    X = rng.standard_normal((200, n_features))[labels]
    duplicates = find_duplicates(X + jitter * rng.standard_normal(X.shape))
    if n_features == 1:
        # In one column chance always gives as many pairs.
        assert duplicates.kind == "suspected"
    else:
        assert same_partition(duplicates.groups, labels)


def test_copies_beside_a_cluster(rng):
    """Rows that are all near each other are a cluster, and are left alone."""
    X = rng.standard_normal((1000, 5))
    X[:100] = 1 + 1e-6 * rng.standard_normal((100, 5))
    duplicates = find_duplicates(np.r_[X, X[200:300] + 1e-9])
    assert duplicates.n_repeated == 200
    np.testing.assert_array_equal(duplicates.groups[-100:], np.arange(200, 300))


@pytest.mark.parametrize("share", [0.05, 0.7])
@pytest.mark.parametrize("times", [1, 5])
def test_a_point_of_many_rows_is_part_of_the_distribution(rng, share, times):
    X = rng.standard_normal((400, 6))
    n_others = 400 * times
    n_zeros = round(n_others * share / (1 - share))
    X = np.concatenate([np.repeat(X, times, axis=0), np.zeros((n_zeros, 6))])
    found = find_duplicates(X)
    assert found.kind == ("none" if times == 1 else "equal")
    assert len(found.first) == 400 + n_zeros


@pytest.mark.filterwarnings("ignore:Nearest neighbours say.*:UserWarning")
@pytest.mark.parametrize("n_levels", [7, 9])
def test_dimension_of_integers_counts_different_rows(n_levels):
    """The number is that of the different rows, whatever chance explains."""
    X = np.random.RandomState(1).randint(n_levels, size=(3000, 3)).astype(float)
    different = np.unique(X, axis=0)
    assert intrinsic_dimension(X).dimension == intrinsic_dimension(different).dimension


def test_few_levels_are_trained_on(rng):
    X = TABLES["dependent integers"](rng).astype(float)
    model = NoisyInjectiveFlow(n_layers=2, max_iter=2, dequantize=True, random_state=0).fit(X)
    assert len(model.validation_scores_) == 2


def dummies(rng, n, n_levels):
    return np.eye(n_levels)[rng.randint(n_levels, size=n)]


TABLES = {
    "normal": lambda rng: rng.standard_normal((1000, D)),
    "one column": lambda rng: rng.standard_normal((1000, 1)),
    "heavy tails": lambda rng: rng.standard_cauchy((1000, 2)),
    "log-normal": lambda rng: np.exp(3 * rng.standard_normal((1000, 2))),
    "few rows": lambda rng: rng.standard_normal((5, 2)),
    "time stamps": lambda rng: 1.7e12 + 5 * rng.standard_normal((20_000, 1)),
    "time stamps, float32": lambda rng: (1e6 + 5 * rng.standard_normal((5000, 2))).astype(
        np.float32
    ),
    "more columns than rows": lambda rng: rng.standard_normal((100, 300)),
    "random walk": lambda rng: np.cumsum(rng.standard_normal((3000, 2)), axis=0),
    "curve": lambda rng: np.sin(np.outer(rng.uniform(0, 3, 1000), [1, 2, 3])),
    "6 clusters": lambda rng: (
        rng.standard_normal((6, 5))[rng.randint(6, size=600)]
        + 0.001 * rng.standard_normal((600, 5))
    ),
    "30 clusters": lambda rng: (
        rng.standard_normal((30, 5))[rng.randint(30, size=3000)]
        + 0.001 * rng.standard_normal((3000, 5))
    ),
    "huge value": lambda rng: np.r_[[[1e20, 0, 0]], rng.standard_normal((1000, 3))],
    "sensor at rest": lambda rng: np.where(
        rng.uniform(size=(1000, 1)) < 0.3,
        1 + 1e-4 * rng.standard_normal((1000, 5)),
        rng.standard_normal((1000, 5)),
    ),
    # Of these many rows are equal.
    "dependent integers": lambda rng: (
        rng.randint(9, size=(3000, 1)) + [0, 1, -1] * rng.randint(2, size=(3000, 3))
    ),
    "logarithms of integers": lambda rng: np.log(rng.randint(1, 300, size=(5000, 2))),
    "hundredths in float32": lambda rng: (
        (0.5 * rng.standard_normal((3000, 2)) + 20).round(2).astype(np.float32)
    ),
    "integers": lambda rng: rng.binomial(6, 0.4, (1000, 3)).astype(float),
    "one column of hundredths": lambda rng: rng.standard_normal((1000, 1)).round(2),
    "dummies": lambda rng: dummies(rng, 1000, 3),
    "two sets of dummies": lambda rng: np.c_[dummies(rng, 1000, 3), dummies(rng, 1000, 8)],
    "standardised dummies": lambda rng: (dummies(rng, 1000, 8) - 0.125) / 0.33,
    "dummies and zeros": lambda rng: np.c_[
        dummies(rng, 1000, 3), np.where(rng.uniform(size=1000) < 0.7, 0, rng.uniform(size=1000))
    ],
    "integers with jitter": lambda rng: (
        rng.binomial(3, 0.4, (1600, 3)) + 1e-3 * rng.uniform(size=(1600, 3))
    ),
    "dummies beside columns": lambda rng: np.c_[
        dummies(rng, 1000, 8), rng.standard_normal((1000, 2)), rng.randint(5, size=1000)
    ],
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("seed", range(3))
def test_tables_without_copies(name, seed):
    X = TABLES[name](np.random.RandomState(seed))
    duplicates = find_duplicates(X)
    if name == "curve":
        # On a line a thousandth of the distances is below a thousandth of the typical one.
        assert duplicates.n_repeated < 0.01 * len(X)
        return
    assert duplicates.kind == "none"
    np.testing.assert_array_equal(duplicates.groups, np.arange(len(X)))
    np.testing.assert_array_equal(distinct_rows(X), X)


@pytest.mark.parametrize("name", ["integers", "dummies beside columns", "dummies and zeros"])
def test_copies_among_discrete_columns(name, rng):
    X = TABLES[name](rng)
    if name == "integers":
        # With as many columns chance does not give a row twice.
        X = np.c_[X, rng.binomial(20, 0.5, (len(X), 5))]
    if name == "dummies and zeros":
        X = np.c_[X[X[:, 3] > 0], rng.uniform(size=(X[:, 3] > 0).sum())]
    duplicates = find_duplicates(np.concatenate([X, X[:100]]))
    assert duplicates.kind == "equal"
    np.testing.assert_array_equal(duplicates.groups[len(X) :], np.arange(100))


@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize("distance", [0.0, 1e-6])
def test_a_density_of_copies_is_that_of_the_rows(rng, times, distance):
    X = np.repeat(rng.standard_normal((200, 4)), times, axis=0)
    X += distance * rng.standard_normal(X.shape)
    fresh = rng.standard_normal((2000, 4))
    model = NoisyInjectiveFlow(n_layers=4, max_iter=20, random_state=0)
    with pytest.warns(UserWarning, match="2000 of 2000 rows are") if times > 1 else no_warning():
        model.fit(X)
    gap = norm.logpdf(fresh).sum(axis=1).mean() - model.score(fresh)
    # Of 14 parameters of a normal distribution 200 rows leave .035 nats.
    assert 0 <= gap < 0.12


@pytest.mark.parametrize("kind", ["none", "few"])
def test_nobody_is_told_of_few_copies(rng, kind):
    X = rng.standard_normal((200, 3))
    X = X if kind == "none" else np.r_[X, X[:2]]
    with no_warning():
        NoisyInjectiveFlow(n_layers=2, max_iter=12, random_state=0).fit(X)


@contextmanager
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield
