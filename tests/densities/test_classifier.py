"""Classes by the density of each, and rows of no class."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.calibration import calibration_curve
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.metrics import log_loss
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, PredefinedSplit, RepeatedKFold, ShuffleSplit
from sklearn.neighbors import KernelDensity
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmanifoldflow import DensityClassifier, NoisyInjectiveFlow
from skmanifoldflow._densities.calibration import (
    best_calibration,
    log_posterior,
    with_pooled_noise,
)


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
    density = GaussianMixture(reg_covar=0)
    model = DensityClassifier(density, noise_floor=0, random_state=0).fit(X, y)
    # Normal distributions of normal rows are calibrated.
    assert model.temperature_ == pytest.approx(1, abs=0.1)
    assert model.prior_weight_ < 0.03
    model.temperature_, model.prior_weight_ = 1.0, 0.0
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
        DensityClassifier(GaussianMixture(), priors=p, cv=3, random_state=0).fit(X, y)
        for p in (None, priors)
    )
    own.temperature_ = given.temperature_ = 1.0
    own.prior_weight_ = given.prior_weight_ = 0.0
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
    model.temperature_, model.prior_weight_ = 1.0, 0.0
    assert tempered < log_loss(t, model.predict_proba(T)) - 0.3


def test_temperature_and_weight_are_those_of_rows_out_of_fold(rows):
    X, y = (part[:300].copy() for part in rows)
    # Some labels are wrong, so that densities say nothing of their rows.
    y[::10] = np.random.RandomState(0).permutation(y[::10])
    kernel, cv = KernelDensity(bandwidth=0.3), KFold(3)
    model = DensityClassifier(kernel, noise_floor=0, cv=cv).fit(X, y)
    scores, classes = np.empty((300, 3)), np.unique(y)
    for train, test in cv.split(X):
        for k, label in enumerate(classes):
            members = train[y[train] == label]
            scores[test, k] = KernelDensity(bandwidth=0.3).fit(X[members]).score_samples(X[test])
    shares = np.array([(y == label).mean() for label in classes])

    def loss(parameters):
        inverse, weight = parameters
        odds = (np.exp(scores) * shares) ** inverse
        told = odds / odds.sum(axis=1, keepdims=True)
        return log_loss(y, (1 - weight) * told + weight * shares)

    bounds = [(1e-3, 1), (1e-9, 1)]
    best = minimize(loss, [0.5, 0.05], bounds=bounds, method="Nelder-Mead")
    assert loss([1 / model.temperature_, model.prior_weight_]) < best.fun + 1e-5
    assert 0.01 < model.prior_weight_ == pytest.approx(best.x[1], rel=0.1)
    for k, label in enumerate(classes):
        np.testing.assert_allclose(model.calibration_scores_[k], np.sort(scores[y == label, k]))


def test_wrong_labels_do_not_set_the_temperature():
    """Of two normal distributions, whose log-densities are three times too large."""
    rng = np.random.RandomState(0)
    z = rng.randint(2, size=20_000)
    x = rng.standard_normal(len(z)) + np.where(z, 1.5, -1.5)
    scores = -1.5 * np.square(x[:, None] - [-1.5, 1.5])
    y = np.where(rng.uniform(size=len(z)) < 0.1, 1 - z, z)
    temperature, weight = best_calibration(scores, y, np.array([0.5, 0.5]))
    assert temperature == pytest.approx(3, rel=0.1)
    # A row of unknown class has the right label all the same in half of the cases.
    assert weight == pytest.approx(0.2, abs=0.02)
    posterior = np.exp(log_posterior(scores, [0.5, 0.5], temperature, weight)[:, 1])
    found, expected = calibration_curve(y, posterior, n_bins=8, strategy="quantile")
    np.testing.assert_allclose(found, expected, atol=0.03)


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


# ------------------------------------------------------------------ noise


def test_noise_adds_the_pooled_variances_to_those_of_each_class():
    """Regularised discriminant analysis (Friedman, 1989), with the formula of scikit-learn."""
    X, y = three_classes(10_000)
    X[:, 3] += X[:, 0]
    theirs = QuadraticDiscriminantAnalysis(store_covariance=True).fit(X, y)
    pooled = LinearDiscriminantAnalysis(store_covariance=True).fit(X, y).covariance_
    model = DensityClassifier(GaussianMixture(), noise_floor=0.7, random_state=0).fit(X, y)
    for density, covariance in zip(model.densities_, theirs.covariance_, strict=True):
        expected = covariance + 0.7**2 * np.diag(np.diag(pooled))
        np.testing.assert_allclose(density.covariances_[0], expected, atol=0.2)


def test_dummies_that_are_constant_in_a_class():
    """Their zeros are evidence for the class as strong as they are rare in the other one."""
    rng = np.random.RandomState(0)
    y = np.repeat([0, 1], 500)
    dummies = rng.uniform(size=(1000, 2)) < np.where(y, 0.5, 0.0)[:, None]
    X, new = np.c_[rng.standard_normal(1000), dummies], rng.standard_normal((500, 3)) * [1, 0, 0]
    density = GaussianMixture(4, reg_covar=1e-12, random_state=0)
    odd = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    for units in [1, 1, 1], [1, 1e-3, 1e3]:
        model = DensityClassifier(density, random_state=0).fit(X * units, y)
        # Of the rows of the other class a quarter has two zeros.
        assert model.predict_proba(new * units)[:, 0].mean() == pytest.approx(0.8, abs=0.06)
        assert model.predict_proba(odd * units)[:, 1].min() > 0.95


def test_copies_have_the_same_noise():
    X, y = three_classes(40)
    labels = np.unique(y, return_inverse=True)[1]
    groups = np.tile(np.arange(40), 3)
    rng = np.random.RandomState(0)
    noisy = with_pooled_noise(np.tile(X, (3, 1)), np.tile(labels, 3), groups, 0.5, rng)
    np.testing.assert_array_equal(noisy, np.tile(noisy[:40], (3, 1)))
    assert (np.std(noisy[:40] - X, axis=0) > 0.2).all()


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
    density = GaussianMixture(reg_covar=0.1)
    model = DensityClassifier(density, noise_floor=0, cv=cv, random_state=0)
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
