"""Classes by the density of each, and rows of no class."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.calibration import calibration_curve
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.metrics import log_loss
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, PredefinedSplit, RepeatedKFold, ShuffleSplit
from sklearn.neighbors import KernelDensity
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmanifoldflow import DensityClassifier, NoisyInjectiveFlow


def three_classes(n, seed=0):
    """Rows of three normal distributions of 40, 40 and 20 percent."""
    rng = np.random.RandomState(seed)
    y = rng.choice(3, n, p=[0.4, 0.4, 0.2])
    means = np.array([[0, 0, 0, 0], [1.5, 0, 0, 0], [0, 2, 1, 0]])
    scales = np.array([[1, 1, 1, 1], [1, 0.5, 1, 1], [1, 1, 1, 2]])
    return means[y] + scales[y] * rng.standard_normal((n, 4)), np.array(["a", "b", "c"])[y]


@pytest.fixture(scope="module")
def rows():
    return three_classes(1500)


def test_is_quadratic_discriminant_analysis_but_for_the_temperature(rows):
    X, y = rows
    new = three_classes(500, seed=1)[0]
    model = DensityClassifier(GaussianMixture(reg_covar=0), random_state=0).fit(X, y)
    # Normal distributions of normal rows are calibrated.
    assert model.temperature_ == pytest.approx(1, abs=0.1)
    model.temperature_ = 1.0
    # Its covariances have the divisor n - 1.
    theirs = QuadraticDiscriminantAnalysis(store_covariance=True).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(new), theirs.predict_proba(new), atol=0.01)
    assert (model.predict(new) == theirs.predict(new)).mean() > 0.99
    np.testing.assert_allclose(model.class_prior_, theirs.priors_)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(new)), model.predict_proba(new))


def test_priors_move_the_odds(rows):
    X, y = rows
    priors = [0.8, 0.1, 0.1]
    own, given = (
        DensityClassifier(GaussianMixture(), priors=p, cv=3).fit(X, y) for p in (None, priors)
    )
    own.temperature_ = given.temperature_ = 1.0
    odds = [m.predict_proba(X)[:, 0] / m.predict_proba(X)[:, 1] for m in (given, own)]
    shares = own.class_prior_
    np.testing.assert_allclose(odds[0] / odds[1], 8 * shares[1] / shares[0], rtol=1e-6)


def test_temperature_calibrates_densities_that_are_too_sure():
    """Each column ten times with a little noise of its own: a density of independent columns."""

    def repeated(X, seed):
        noise = np.random.RandomState(seed).standard_normal((len(X), 40))
        return np.repeat(X, 10, axis=1) + 0.05 * noise

    (X, y), (T, t) = three_classes(800), three_classes(4000, seed=1)
    diagonal = GaussianMixture(covariance_type="diag")
    model = DensityClassifier(diagonal, random_state=0).fit(repeated(X, 2), y)
    T = repeated(T, 3)
    # Every column tells what ten of them tell.
    assert 5 < model.temperature_ < 20
    proba = model.predict_proba(T)
    found, expected = calibration_curve(t == "a", proba[:, 0], n_bins=5)
    np.testing.assert_allclose(found, expected, atol=0.06)
    tempered = log_loss(t, proba)
    model.temperature_ = 1.0
    assert tempered < log_loss(t, model.predict_proba(T)) - 0.3


def test_temperature_is_that_of_rows_out_of_fold(rows):
    X, y = (part[:300] for part in rows)
    kernel, cv = KernelDensity(bandwidth=0.3), KFold(3)
    model = DensityClassifier(kernel, cv=cv).fit(X, y)
    scores, classes = np.empty((300, 3)), np.unique(y)
    for train, test in cv.split(X):
        for k, label in enumerate(classes):
            members = train[y[train] == label]
            scores[test, k] = KernelDensity(bandwidth=0.3).fit(X[members]).score_samples(X[test])
    shares = np.array([(y == label).mean() for label in classes])

    def loss(inverse):
        weights = np.exp(scores * inverse) * shares
        return log_loss(y, weights / weights.sum(axis=1, keepdims=True))

    best = minimize_scalar(loss, bounds=(1e-3, 2), method="bounded").x
    assert model.temperature_ == pytest.approx(1 / best, rel=1e-2)
    for k, label in enumerate(classes):
        np.testing.assert_allclose(model.calibration_scores_[k], np.sort(scores[y == label, k]))


def test_p_values_say_which_rows_are_of_no_class(rows):
    X, y = rows
    new, labels = three_classes(3000, seed=1)
    model = DensityClassifier(GaussianMixture(), random_state=0).fit(X, y)
    p = model.p_value(new)
    for k, label in enumerate(model.classes_):
        assert (p[labels == label, k] <= 0.1).mean() == pytest.approx(0.1, abs=0.035)
    assert model.p_value([[9.0, -9.0, 9.0, 0.0]]).max() < 0.01
    # By the rule of Bayes such a row is of one class almost surely.
    assert model.predict_proba([[9.0, -9.0, 9.0, 0.0]]).max() > 0.99


def test_rows_without_density_have_the_priors(rows):
    X, y = rows
    model = DensityClassifier(KernelDensity(kernel="tophat", bandwidth=2)).fit(X, y)
    np.testing.assert_allclose(model.predict_proba([[99.0] * 4])[0], model.class_prior_)
    assert model.p_value([[99.0] * 4]).max() < 0.02


def test_copies_stay_on_one_side():
    X, y = (np.repeat(part, 8, axis=0) for part in three_classes(120))
    kernel, cv = KernelDensity(bandwidth=0.1), KFold(3, shuffle=True, random_state=0)
    together = DensityClassifier(kernel, random_state=0).fit(X, y)
    apart = DensityClassifier(kernel, cv=cv).fit(X, y)
    assert together.temperature_ > 2 * apart.temperature_


def test_random_state_is_that_of_the_densities_too(rows):
    X, y = (part[:90] for part in rows)
    flow = NoisyInjectiveFlow(2, n_layers=1, hidden_layer_sizes=(4,), max_iter=1)
    one, again, other = (DensityClassifier(flow, random_state=s).fit(X, y) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.predict_proba(X), again.predict_proba(X))
    assert not np.array_equal(one.predict_proba(X), other.predict_proba(X))


def test_bad_input(rows):
    X, y = rows
    for priors in ([0.5, 0.5], [0.5, 0.6, -0.1], [1, 1, 1]):
        with pytest.raises(ValueError, match="priors must hold a probability for each of the 3"):
            DensityClassifier(GaussianMixture(), priors=priors).fit(X, y)
    with pytest.raises(ValueError, match="Class 'd' has 1 sample"):
        DensityClassifier(GaussianMixture()).fit(X[:300], np.r_[y[:299], ["d"]])


# ------------------------------------------------------------------ folds and rare classes


@pytest.mark.parametrize("cv", [ShuffleSplit(3, random_state=0), RepeatedKFold(n_splits=3)])
def test_folds_have_each_row_once(cv, rows):
    X, y = (part[:90] for part in rows)
    with pytest.raises(ValueError, match="only works for partitions"):
        DensityClassifier(GaussianMixture(), cv=cv).fit(X, y)


@pytest.mark.parametrize("label", ["a", "b", "c"])
def test_each_class_is_in_each_training_part(label, rows):
    X, y = (part[:90] for part in rows)
    is_absent = np.r_[np.flatnonzero(y == label), np.flatnonzero(y != label)[:20]]
    cv = PredefinedSplit(np.isin(np.arange(90), is_absent).astype(int))
    with pytest.raises(ValueError, match=f"Class '{label}' has no rows in the training part"):
        DensityClassifier(GaussianMixture(), cv=cv).fit(X, y)


def test_a_class_of_copies_of_a_single_row(rows):
    X, y = (part[:200] for part in rows)
    X, y = np.r_[X, np.full((9, 4), 30.0)], np.r_[y, ["d"] * 9]
    model = DensityClassifier(KernelDensity(), random_state=0)
    with pytest.warns(UserWarning, match=r"are not calibrated: d \(1\). The temperature"):
        model.fit(X, y)
    assert model.predict([[30.0] * 4])[0] == "d"


@pytest.mark.parametrize("cv", [None, KFold(3)])
def test_a_rare_class_leaves_the_others_calibrated(cv, rows):
    X, y = (part[:300] for part in rows)
    model = DensityClassifier(GaussianMixture(reg_covar=0.1), cv=cv, random_state=0)
    alone = clone(model).fit(X, y)
    rare = X[:3] + 20.0
    with pytest.warns(UserWarning, match=r"are not calibrated: 0 rare \(3\)"):
        model.fit(np.r_[X, rare], np.r_[y, ["0 rare"] * 3])
    if cv is None:
        # The same rows in the same folds.
        assert model.temperature_ == pytest.approx(alone.temperature_)
        for own, other in zip(
            model.calibration_scores_[1:], alone.calibration_scores_, strict=True
        ):
            np.testing.assert_array_equal(own, other)
    assert [len(s) for s in model.calibration_scores_] == [0, *np.unique(y, return_counts=True)[1]]
    assert np.isfinite(np.concatenate(model.calibration_scores_)).all()
    p = model.p_value(X)
    np.testing.assert_array_equal(p[:, 0], 1)
    assert (p[y == "a", 1] <= 0.1).mean() == pytest.approx(0.1, abs=0.06)
    assert (model.predict(rare) == "0 rare").all()


def test_without_classes_that_can_be_split_nothing_is_calibrated(rows):
    model = DensityClassifier(GaussianMixture(reg_covar=0.1))
    with pytest.warns(UserWarning, match=r"not calibrated: a \(4\), b \(4\)"):
        model.fit(rows[0][:8], ["a", "b"] * 4)
    assert model.temperature_ == 1


@parametrize_with_checks(
    [
        DensityClassifier(GaussianMixture(init_params="random_from_data", reg_covar=1e-3)),
        DensityClassifier(KernelDensity(), cv=2),
    ]
)
@pytest.mark.filterwarnings("ignore:Classes with fewer than:UserWarning")
@pytest.mark.filterwarnings("ignore:.*(equal to others|readings of the same).*:UserWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)
