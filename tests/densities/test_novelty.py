"""Strange rows, the rate of false alarms, and the columns that are to blame."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmanifoldflow import (
    NoisyInjectiveFlow,
    NoveltyDetector,
    StackingDensity,
    TransformedDensity,
)
from skmanifoldflow._densities.base import log_crowding, novelty_scores
from skmanifoldflow._densities.explanation import column_candidates, column_contributions

SMALL = {"n_layers": 1, "hidden_layer_sizes": (4,), "max_iter": 2}
COVARIANCE = np.array([[1.0, 0.7, 0.0], [0.7, 1.0, 0.3], [0.0, 0.3, 1.0]])


def normal_rows(n, seed=0):
    return np.random.RandomState(seed).multivariate_normal(np.zeros(3), COVARIANCE, n)


@pytest.fixture(scope="module")
def detector():
    return NoveltyDetector(GaussianMixture(), random_state=0).fit(normal_rows(1000))


# ------------------------------------------------------------------ threshold and p-values


@pytest.mark.parametrize("density", [GaussianMixture(15), KernelDensity(bandwidth=0.2)], ids=str)
@pytest.mark.parametrize("rate", [0.1])
def test_rate_of_false_alarms_is_kept_by_densities_that_overfit(density, rate):
    new = normal_rows(4000, seed=99)
    shares, naive = [], []
    for seed in range(4):
        X = normal_rows(500, seed=seed)
        detector = NoveltyDetector(density, false_positive_rate=rate, random_state=0).fit(X)
        scores = detector.score_samples(new)
        shares.append((scores < detector.offset_).mean())
        naive.append((scores < np.quantile(detector.score_samples(X), rate)).mean())
    # 2000 rows in all know the rate to .005 and .009; the density of all rows is better.
    assert rate - 0.025 < np.mean(shares) < rate + 0.02
    assert np.mean(naive) > rate + 0.02


def test_threshold_is_a_quantile_of_scores_out_of_fold():
    X, cv = normal_rows(99), KFold(3)
    detector = NoveltyDetector(GaussianMixture(reg_covar=0), cv=cv).fit(X)
    scores = np.empty(99)
    for train, test in cv.split(X):
        normal = multivariate_normal(X[train].mean(axis=0), np.cov(X[train].T, bias=True))
        scores[test] = normal.logpdf(X[test])
    np.testing.assert_allclose(detector.calibration_scores_, np.sort(scores), rtol=1e-8)
    # Of 100 exchangeable scores the new one is among the lowest five in a twentieth of the cases.
    assert detector.offset_ == detector.calibration_scores_[4]


def test_p_values_are_uniform_and_agree_with_predict(detector):
    new = normal_rows(5000, seed=1)
    p = detector.p_value(new)
    for level in (0.02, 0.05, 0.3, 0.8):
        assert (p <= level).mean() == pytest.approx(level, abs=0.03)
    np.testing.assert_array_equal(p <= 0.05, detector.predict(new) == -1)
    np.testing.assert_array_equal(
        detector.decision_function(new), detector.score_samples(new) - detector.offset_
    )


def test_copies_are_scored_together_and_groups_too():
    """Of rows that are there ten times a kernel density would know the copies."""
    X = np.repeat(normal_rows(60), 10, axis=0)
    kernel = KernelDensity(bandwidth=0.1)
    apart = NoveltyDetector(kernel, random_state=0, cv=KFold(5, shuffle=True, random_state=0))
    together = NoveltyDetector(kernel, random_state=0).fit(X)
    by_groups = NoveltyDetector(kernel, random_state=0).fit(X, groups=np.arange(600) // 10)
    assert together.offset_ < apart.fit(X).offset_ - 10
    assert by_groups.offset_ == together.offset_
    flow = NoisyInjectiveFlow(2, **SMALL)
    detector = NoveltyDetector(flow, random_state=0).fit(
        normal_rows(120), groups=np.arange(120) // 6
    )
    assert np.isfinite(detector.offset_)


def test_too_few_rows_for_the_rate():
    detector = NoveltyDetector(GaussianMixture(), random_state=0)
    with pytest.warns(UserWarning, match=r"18 rows are too few .* 0.05, which takes 19"):
        detector.fit(normal_rows(18))
    assert (detector.predict([[1e3, 0, 0]]) == 1).all()
    assert NoveltyDetector(GaussianMixture(), random_state=0).fit(normal_rows(19)).offset_ > -np.inf


def test_random_state_is_that_of_the_density_too():
    X = normal_rows(80)
    one, again, other = (
        NoveltyDetector(NoisyInjectiveFlow(2, **SMALL), cv=2, random_state=seed).fit(X)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.calibration_scores_, again.calibration_scores_)
    np.testing.assert_array_equal(one.score_samples(X), again.score_samples(X))
    assert not np.array_equal(one.score_samples(X), other.score_samples(X))
    kept = NoveltyDetector(NoisyInjectiveFlow(2, random_state=7, **SMALL), cv=2, random_state=0)
    alone = NoisyInjectiveFlow(2, random_state=7, **SMALL).fit(X)
    np.testing.assert_array_equal(kept.fit(X).score_samples(X), alone.score_samples(X))


def test_rows_without_density_are_strange():
    detector = NoveltyDetector(KernelDensity(kernel="tophat", bandwidth=2), random_state=0)
    detector.fit(normal_rows(500))
    far = [[1e3, 0.0, 0.0]]
    assert detector.decision_function(far)[0] == -np.inf
    assert detector.predict(far)[0] == -1
    assert detector.p_value(far)[0] == pytest.approx(1 / 501)


def test_more_rows_without_density_than_the_rate():
    """A tenth of the rows lie alone, where a kernel of bounded width has no density out of fold."""
    X = np.r_[normal_rows(450) * 0.1, 100.0 * np.arange(1, 51)[:, None] * np.ones(3)]
    kernel = KernelDensity(kernel="tophat", bandwidth=1)
    detector = NoveltyDetector(kernel, random_state=0)
    with pytest.warns(UserWarning, match=r"^10.0% of the rows have no density .* 0.05 allows"):
        detector.fit(X)
    assert detector.offset_ == -np.inf
    assert (detector.predict([[0.0, 0, 0], [1e6, 0, 0]]) == 1).all()
    enough = NoveltyDetector(kernel, false_positive_rate=0.15, random_state=0).fit(X)
    np.testing.assert_array_equal(enough.predict([[0.0, 0, 0], [1e6, 0, 0]]), [1, -1])


def test_the_rank_of_the_threshold_is_not_rounded_down():
    """29 hundredths of 100 are 29, and a little less in floating point."""
    assert int(0.29 * 100) == 28
    detector = NoveltyDetector(GaussianMixture(), false_positive_rate=0.29, random_state=0)
    detector.fit(normal_rows(99))
    assert detector.offset_ == detector.calibration_scores_[28]


class GroupsRecorder(GaussianMixture):
    """Keeps the groups that `fit` was given."""

    def fit(self, X, y=None, groups=None):
        self.groups_ = groups
        return super().fit(X)


def test_groups_reach_a_density_behind_a_transformer():
    X, groups = normal_rows(100), np.arange(100) // 5
    density = TransformedDensity(TransformedDensity(GroupsRecorder()))
    inner = NoveltyDetector(density, random_state=0).fit(X, groups=groups).density_.density_
    np.testing.assert_array_equal(inner.density_.groups_, groups)
    plain = NoveltyDetector(TransformedDensity(GaussianMixture()), random_state=0)
    assert plain.fit(X, groups=groups).offset_ > -np.inf
    with config_context(enable_metadata_routing=True):
        asks = TransformedDensity(GroupsRecorder().set_fit_request(groups=True))
        for density, given in ((asks, groups), (TransformedDensity(GroupsRecorder()), None)):
            fitted = NoveltyDetector(density, random_state=0).fit(X, groups=groups)
            np.testing.assert_array_equal(fitted.density_.density_.groups_, given)


def test_folds_have_each_row_once():
    detector = NoveltyDetector(GaussianMixture(), cv=ShuffleSplit(3, random_state=0))
    with pytest.raises(ValueError, match="only works for partitions"):
        detector.fit(normal_rows(50))
    with pytest.raises(ValueError, match="All rows are of one group"):
        NoveltyDetector(GaussianMixture()).fit(normal_rows(50), groups=np.ones(50))


def test_bad_parameters():
    X = normal_rows(50)
    for settings in ({"false_positive_rate": 1.0}, {"density": "flow"}, {"cv": "five"}):
        with pytest.raises(ValueError, match=f"The '{next(iter(settings))}' parameter"):
            NoveltyDetector(**settings).fit(X)


# ------------------------------------------------------------------ mapped columns


def rows_with_zeros(n, seed=0):
    """Rows of a column that is mostly 0, a skewed one, and a normal one."""
    rng = np.random.RandomState(seed)
    spent = np.where(rng.uniform(size=n) < 0.6, 0.0, rng.exponential(1.0, n))
    return np.c_[spent, np.exp(1.5 * rng.standard_normal(n)), rng.standard_normal(n)]


@pytest.fixture(scope="module")
def of_zeros():
    density = NoisyInjectiveFlow(2, n_layers=1, max_iter=8, noise_floor=0.1)
    return NoveltyDetector(density, cv=3, random_state=0).fit(rows_with_zeros(600))


def test_scores_are_the_density_of_mapped_columns(of_zeros):
    """The derivative of the map is that by central differences, and zeros have a width."""
    flow, X = of_zeros.density_, rows_with_zeros(40, seed=1)
    # Away from zero, where the map has a jump.
    X = X[(X[:, 0] == 0) | (X[:, 0] > 0.1)]
    h = 1e-6 * X.std(axis=0)

    def mapped(rows):
        return flow._standardizer._mapped(torch.from_numpy(rows))[0].numpy()

    slope = (mapped(X + h) - mapped(X - h)) / (2 * h)
    is_zero = X[:, 0] == 0
    maps = flow._standardizer.maps
    cell = maps.is_cell[0].nonzero().item()
    slope[is_zero, 0] = 1 / (maps.knots[0, cell + 1] - maps.knots[0, cell]).item()
    expected = flow.score_samples(X) - np.log(slope).sum(axis=1)
    np.testing.assert_allclose(of_zeros.score_samples(X), expected, atol=0.05)


def test_zeros_do_not_hide_strange_rows(of_zeros):
    """The third column is five standard deviations off, at zeros and elsewhere."""
    rows = rows_with_zeros(500, seed=2)
    strange = rows + np.array([0, 0, 5])
    at_zero = strange[rows[:, 0] == 0]
    for found in (strange, at_zero):
        is_normal = np.r_[np.ones(len(rows)), np.zeros(len(found))]
        assert roc_auc_score(is_normal, of_zeros.score_samples(np.r_[rows, found])) > 0.99
    assert abs((of_zeros.predict(rows) < 0).mean() - 0.05) < 0.04
    assert (of_zeros.explain(strange[:100]).argmax(axis=1) == 2).mean() > 0.95


def detector_of(X, **params):
    flow = NoisyInjectiveFlow(1, n_layers=1, hidden_layer_sizes=(8,), max_iter=8, noise_floor=0.1)
    return NoveltyDetector(flow, cv=3, random_state=0, **params).fit(X)


def test_values_where_no_rows_are_are_strange():
    rng = np.random.RandomState(0)
    grade = rng.choice([1.0, 2.0, 3.0, 8.0, 9.0, 10.0], 600)
    spent = np.where(rng.uniform(size=600) < 0.6, 0.0, 10 + rng.exponential(5.0, 600))
    detector = detector_of(np.c_[grade, spent])
    usual = [[2.0, 0.0], [9.0, 12.0]]
    assert detector.p_value(usual).min() > 0.05
    assert detector.p_value([[5.0, 0.0], [2.0, 5.0]]).max() < 0.02
    assert detector.explain([[5.0, 0.0], [2.0, 5.0]]).argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize("rare", range(3))
def test_a_rare_category_is_strange_wherever_its_column_is(rare):
    """One row in a hundred has it."""
    rng = np.random.RandomState(0)
    order = np.roll(np.arange(3), rare)
    dummies = np.eye(3)[rng.choice(3, 900, p=[0.01, 0.5, 0.49])]
    detector = detector_of(np.c_[dummies[:, order], rng.standard_normal(900)])
    rows = np.c_[np.eye(3)[:, order], np.zeros(3)]
    p_values = detector.p_value(rows)
    assert p_values[0] < 0.03
    assert p_values[1:].min() > 0.3


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_rate_is_kept_where_folds_have_other_maps(unit):
    """Forty integers have a map in 900 rows, and none in the 600 of a fold."""
    rng = np.random.RandomState(0)

    def draw(n):
        integers = unit * rng.randint(40, size=n)
        return np.c_[integers, rng.standard_normal(n)]

    detector = detector_of(draw(900))
    assert abs((detector.predict(draw(2000)) < 0).mean() - 0.05) < 0.04


def test_maps_of_columns_are_found_within_other_estimators():
    train, X = rows_with_zeros(200), rows_with_zeros(50, seed=1)
    scaler = StandardScaler().fit(train)
    params = {**SMALL, "random_state": 0}
    inner = NoisyInjectiveFlow(**params).fit(scaler.transform(train))
    expected = log_crowding(inner, scaler.transform(X))
    assert np.ptp(expected) > 1
    pipe = make_pipeline(scaler, inner)
    np.testing.assert_array_equal(log_crowding(pipe, X), expected)
    search = GridSearchCV(make_pipeline(StandardScaler(), NoisyInjectiveFlow(**params)), {}, cv=2)
    np.testing.assert_allclose(log_crowding(search.fit(train), X), expected)
    model = TransformedDensity(NoisyInjectiveFlow(**params)).fit(train)
    np.testing.assert_allclose(log_crowding(model, X), expected)
    members = [("mixture", GaussianMixture()), ("flow", NoisyInjectiveFlow(**params))]
    stack = StackingDensity(members, cv=2).fit(train)
    mixture, flow = stack.estimators_
    np.testing.assert_array_equal(log_crowding(stack, X), log_crowding(flow, X))
    # Others have none.
    np.testing.assert_array_equal(novelty_scores(mixture, X), mixture.score_samples(X))


def test_contributions_do_not_depend_on_maps_of_columns():
    """Those of exp(x) without the log-Jacobian of the logarithm are those of x."""
    train, X = normal_rows(20_000), normal_rows(40, seed=1)
    X[:10, 1] += 3
    normal = multivariate_normal(np.zeros(3), COVARIANCE)

    def log_det(rows):
        return -np.log(rows).sum(axis=1)

    def score(rows):
        return normal.logpdf(np.log(rows)) + log_det(rows)

    candidates = np.exp(column_candidates(train))
    found = column_contributions(score, np.exp(X), candidates, log_det)
    for j in range(3):
        np.testing.assert_allclose(found[:, j], expected_gain(X, j), rtol=0.05, atol=0.05)


# ------------------------------------------------------------------ columns


def expected_gain(X, j):
    """E[log p(x_j', x_-j)] - log p(x) of the normal distribution with COVARIANCE."""
    others = np.delete(np.arange(3), j)
    slope = np.linalg.solve(COVARIANCE[np.ix_(others, others)], COVARIANCE[others, j])
    variance = COVARIANCE[j, j] - COVARIANCE[others, j] @ slope
    residual = X[:, j] - X[:, others] @ slope
    # Minus the conditional entropy against minus the log of the conditional density.
    return 0.5 * (residual**2 / variance - 1)


def test_contributions_are_those_of_the_normal_distribution():
    train, X = normal_rows(20_000), normal_rows(40, seed=1)
    X[:10, 1] += 3
    score = multivariate_normal(np.zeros(3), COVARIANCE).logpdf
    found = column_contributions(score, X, column_candidates(train))
    for j in range(3):
        np.testing.assert_allclose(found[:, j], expected_gain(X, j), rtol=0.03, atol=0.03)


def test_narrow_conditionals_are_found():
    """The second column is the first but for a thousandth, far less than a quantile."""
    rng = np.random.RandomState(0)
    z = rng.standard_normal((2000, 2))
    X = np.c_[z[:, 0], z[:, 0] + 1e-3 * z[:, 1]]
    score = multivariate_normal(np.zeros(2), [[1, 1], [1, 1 + 1e-6]]).logpdf
    rows = np.array([[0.5, 0.5], [0.5, 0.52]])
    gains = column_contributions(score, rows, column_candidates(X))
    assert np.abs(gains[0]).max() < 1
    np.testing.assert_allclose(gains[1], 0.5 * (400 - 1), rtol=0.1)


def test_a_wrong_cell_and_an_odd_pair_are_found(detector):
    rng = np.random.RandomState(1)
    X, train = normal_rows(300, seed=1), normal_rows(1000)
    columns = rng.randint(3, size=300)
    cells = X.copy()
    cells[np.arange(300), columns] = train[rng.randint(1000, size=300), columns] + 5
    found = detector.explain(cells)
    assert found.shape == (300, 3)
    assert (found.argmax(axis=1) == columns).mean() > 0.95
    # Each of the two values is common, but not beside the other.
    pair = np.array([[1.3, -1.3, 0.0], [-1.5, 1.2, 0.1]])
    np.testing.assert_array_equal(np.sort(np.argsort(-detector.explain(pair))[:, :2]), [[0, 1]] * 2)
    # On average normal rows are not strange at all.
    assert np.abs(detector.explain(normal_rows(2000, seed=2)).mean(axis=0)).max() < 0.08


def test_a_constant_column_is_to_blame_where_it_is_not():
    X = np.c_[normal_rows(300)[:, :2], np.ones(300)]
    detector = NoveltyDetector(GaussianMixture(), random_state=0).fit(X)
    shares = detector.explain([[0.0, 0.0, 1.0], [0.0, 0.0, 3.0]])
    assert shares[0, 2] == pytest.approx(0, abs=1e-9)
    assert shares[1].argmax() == 2


def test_rows_of_no_density_are_explained_by_what_gives_them_one():
    detector = NoveltyDetector(KernelDensity(kernel="tophat", bandwidth=2), random_state=0)
    shares = detector.fit(normal_rows(500)).explain([[0.0, 50.0, 0.0], [50.0, 50.0, 0.0]])
    np.testing.assert_array_equal(shares, [[0, np.inf, 0], [0, 0, 0]])


# ------------------------------------------------------------------ contract


@parametrize_with_checks(
    [
        NoveltyDetector(GaussianMixture(init_params="random_from_data")),
        NoveltyDetector(NoisyInjectiveFlow(early_stopping=False, **SMALL), cv=2),
    ]
)
@pytest.mark.filterwarnings("ignore:.*rows are too few for a rate.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*(equal to others|readings of the same).*:UserWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_names_of_columns_are_kept():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(normal_rows(100), columns=["a", "b", "c"])
    detector = clone(NoveltyDetector(GaussianMixture(), random_state=0)).fit(frame)
    assert list(detector.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        detector.predict(frame[["b", "a", "c"]])
