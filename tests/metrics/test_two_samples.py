"""Comparisons of two sets of rows against closed forms and definitions."""

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import sqrtm
from scipy.stats import mannwhitneyu, norm, ortho_group
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from skmanifoldflow.metrics import classifier_two_sample_score, frechet_distance


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


# ------------------------------------------------------------------ classifier two-sample score


class Column(ClassifierMixin, BaseEstimator):
    """A classifier that learns nothing: the score of a row is its first column."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return X[:, 0]


def area_by_definition(x, y):
    """The share of pairs in the right order, ties by half, and the variance of DeLong et al."""
    psi = (x[:, None] < y) + 0.5 * (x[:, None] == y)
    variance = psi.mean(axis=1).var(ddof=1) / len(x) + psi.mean(axis=0).var(ddof=1) / len(y)
    return psi.mean(), variance


@pytest.mark.parametrize("n_digits", [0, 1, 8], ids="{} digits".format)
def test_two_sample_score_is_its_definition_fold_by_fold(n_digits):
    rng = np.random.RandomState(0)
    x, y = rng.normal(0, 1, 90).round(n_digits), rng.normal(0.7, 1.5, 60).round(n_digits)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    score = classifier_two_sample_score(x[:, None], y[:, None], classifier=Column(), cv=folds)
    both, is_y = np.r_[x, y], np.repeat([0, 1], [90, 60])
    areas, variances = [], []
    for _, test in folds.split(both[:, None], is_y):
        area, variance = area_by_definition(
            both[test][is_y[test] == 0], both[test][is_y[test] == 1]
        )
        assert area == pytest.approx(roc_auc_score(is_y[test], both[test]))
        areas.append(area)
        variances.append(variance)
    assert score.auc == pytest.approx(np.mean(areas), abs=1e-12)
    assert score.standard_error == pytest.approx(np.sqrt(np.mean(variances) / 3), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.8, 2.0])
def test_standard_error_is_that_of_a_bootstrap_and_of_new_rows(shift):
    """A classifier that is not trained has no other error than that of the rows judged."""
    rng = np.random.RandomState(1)

    def area(x, y):
        return mannwhitneyu(y, x, method="asymptotic").statistic / (len(x) * len(y))

    new = [area(rng.normal(0, 1, 600), rng.normal(shift, 1, 400)) for _ in range(400)]
    # Folds are so large that the mean of their areas is nearly that of all rows.
    X, Y = rng.normal(0, 1, (600, 1)), rng.normal(shift, 1, (400, 1))
    error = classifier_two_sample_score(X, Y, classifier=Column(), cv=2).standard_error
    again = [area(rng.choice(X[:, 0], 600), rng.choice(Y[:, 0], 400)) for _ in range(400)]
    assert error == pytest.approx(np.std(again), rel=0.15)
    assert error == pytest.approx(np.std(new), rel=0.25)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_standard_error_of_a_trained_classifier_is_rather_too_small(shift):
    """Folds are trained on the rows of each other: new rows spread by half as much again."""
    found = []
    for seed in range(80):
        rng = np.random.RandomState(seed)
        X, Y = rng.normal(0, 1, (60, 3)), rng.normal([shift, 0, 0], 1, (60, 3))
        options = {"classifier": GaussianNB(), "random_state": seed}
        found.append(classifier_two_sample_score(X, Y, **options))
    aucs, errors = np.array(found).T
    assert 1 < aucs.std() / errors.mean() < 1.7


def test_two_sample_score_of_shifted_normal_rows_is_the_closed_form():
    rng = np.random.RandomState(0)
    X, Y = rng.normal(0, 1, (3000, 2)), rng.normal([1, 0], 1, (2000, 2))
    score = classifier_two_sample_score(X, Y, classifier=LogisticRegression(), random_state=0)
    # Of two normal distributions of one covariance the best score is linear.
    assert score.auc == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=3 * score.standard_error)


def test_two_sample_score_of_equal_distributions_has_no_bias():
    """Pooled over folds, areas would be below .5."""
    scores = []
    for seed in range(30):
        X, Y = np.random.RandomState(seed).normal(size=(2, 40, 3))
        scores.append(
            classifier_two_sample_score(X, Y, classifier=GaussianNB(), random_state=seed).auc
        )
    assert abs(np.mean(scores) - 0.5) < 3 * np.std(scores) / np.sqrt(30)


def test_two_sample_score_sees_atoms_steps_and_dependence():
    rng = np.random.RandomState(0)
    X, Z = rng.normal(size=(2, 200, 2))
    others = {
        "atom": Z * np.c_[rng.rand(200) > 0.4, np.ones(200)],
        "steps": Z.round(1),
        "dependence": rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 200),
    }
    for name, Y in others.items():
        assert classifier_two_sample_score(X, Y, random_state=0).auc > 0.65, name
    # Units do not matter to trees.
    scores = [
        classifier_two_sample_score(c * X, c * others["steps"], random_state=0) for c in (1, 1024)
    ]
    assert scores[0] == scores[1]


def test_two_sample_score_of_rows_that_never_agree():
    X = np.arange(20.0)[:, None]
    score = classifier_two_sample_score(X, X + 100, classifier=DecisionTreeClassifier())
    assert score == (1.0, 0.0)


def test_two_sample_score_depends_on_the_seed_alone_and_takes_frames_with_holes():
    rng = np.random.RandomState(0)
    X = pd.DataFrame(rng.normal(size=(2, 60, 2))[0], columns=["a", "b"])
    Y = X.sample(frac=1, random_state=0).mask(rng.rand(60, 2) < 0.3)
    first, again, other = (classifier_two_sample_score(X, Y, random_state=s) for s in (3, 3, 4))
    assert first == again != other
    assert first == classifier_two_sample_score(X.to_numpy(), Y.to_numpy(), random_state=3)


@pytest.mark.parametrize(
    ("Y", "options", "message"),
    [
        (np.zeros((10, 3)), {}, "X and Y must have as many columns, got 2 and 3"),
        (np.full((10, 2), np.inf), {}, "Input Y contains infinity"),
        (pd.DataFrame({"b": [1.0], "a": [2.0]}), {}, "X and Y must have the same columns"),
        (np.zeros((3, 2)), {}, "cv=5 folds take as many rows of X and of Y, got 10 and 3"),
        (np.zeros((10, 2)), {"cv": KFold(2)}, "must hold rows of X and of Y"),
    ],
)
def test_two_sample_score_errors(Y, options, message):
    X = pd.DataFrame(np.zeros((10, 2)), columns=["a", "b"])
    with pytest.raises(ValueError, match=message):
        classifier_two_sample_score(X, Y, **options)
