"""Whether two sets of rows come from one distribution."""

from numbers import Integral
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.utils import check_random_state

from ._tables import check_tables

__all__ = ["TwoSampleScore", "classifier_two_sample_score", "frechet_distance"]


class TwoSampleScore(NamedTuple):
    """How well a classifier tells two sets of rows apart.

    Attributes
    ----------
    auc : float
        Area under the ROC curve of rows out of fold, the probability that the classifier ranks a
        row of Y above one of X: 0.5 where it sees no difference, 1 where it always does. By chance
        it may be below 0.5.
    standard_error : float
        Standard error of `auc`; 0 where the two sets are told apart without fail.
    """

    auc: float
    standard_error: float


def classifier_two_sample_score(X, Y, *, classifier=None, cv=5, random_state=None):
    r"""Tell how well a classifier tells the rows of two sets apart.

    A classifier is trained to tell rows of X from rows of Y, and judged on rows that it has not
    seen [1]_. Where X are samples of a model and Y rows that it was not fitted to, this is how real
    the samples are: 0.5 says that the classifier sees no difference.

    The figure is the mean over folds of the area under the ROC curve. Within a fold of m rows of X
    and n rows of Y, with s the score of the classifier,

    .. math::

        \widehat{A} = \frac1{mn} \sum_{i=1}^m \sum_{j=1}^n \psi(x_i, y_j), \qquad
        \psi(x, y) = [s(x) < s(y)] + \tfrac12 [s(x) = s(y)],

    and its variance is that of DeLong et al. [2]_, :math:`S_x / m + S_y / n`, with :math:`S_x` and
    :math:`S_y` the variances over the rows of X and of Y of the mean of :math:`\psi` over the rows
    of the other set. Folds have rows of their own, so the variance of the mean over K folds is the
    mean of these variances over K [3]_.

    Parameters
    ----------
    X, Y : array-like of shape (n_samples, n_features)
        Rows, whose numbers may differ. Cells may be missing (NaN) where the classifier allows it.
    classifier : estimator instance, default=None
        Classifier with `predict_proba` or `decision_function`; it is cloned. None is
        `HistGradientBoostingClassifier`, which sees steps, atoms and bounds of columns as well as
        their dependence, whatever their units.
    cv : int, splitter or iterable, default=5
        Folds, as in scikit-learn. A number is that of stratified and shuffled ones.
    random_state : int, RandomState instance or None, default=None
        Source of the folds, where `cv` is a number, and of the default classifier.

    Returns
    -------
    score : TwoSampleScore
        `auc` and its `standard_error`.

    Raises
    ------
    ValueError
        If X and Y have different columns, entries that are infinite, or fewer rows than there are
        folds, or if a fold does not hold rows of both.

    Notes
    -----
    The figure depends on the classifier and on the number of rows: more rows, or a better
    classifier, tell more apart. Compare models by the same fresh rows and as many samples.

    The standard error is that of the rows judged. It leaves out that other rows would have trained
    other classifiers, and that each fold is trained on the others: over new draws of both sets the
    figure spreads up to half as much again.

    Rows that depend on each other, such as repeated rows of a table, are recognised where their
    copies are trained on. Give folds that keep them together.

    References
    ----------
    .. [1] Lopez-Paz & Oquab, "Revisiting classifier two-sample tests", ICLR 2017,
           https://arxiv.org/abs/1610.06545.
    .. [2] DeLong, DeLong & Clarke-Pearson, "Comparing the areas under two or more correlated
           receiver operating characteristic curves: a nonparametric approach", Biometrics 44, 1988.
    .. [3] LeDell, Petersen & van der Laan, "Computationally efficient confidence intervals for
           cross-validated area under the ROC curve estimates", Electronic Journal of Statistics 9,
           2015.

    Examples
    --------
    >>> import numpy as np
    >>> from skmanifoldflow.metrics import classifier_two_sample_score
    >>> rng = np.random.RandomState(0)
    >>> rows, rounded = rng.normal(size=(500, 2)), rng.normal(size=(500, 2)).round(1)
    >>> score = classifier_two_sample_score(rng.normal(size=(500, 2)), rows, random_state=0)
    >>> bool(abs(score.auc - 0.5) < 3 * score.standard_error)
    True
    >>> bool(classifier_two_sample_score(rounded, rows, random_state=0).auc > 0.9)
    True
    """
    X, Y = check_tables(X=X, Y=Y, ensure_all_finite="allow-nan")
    random_state = check_random_state(random_state)
    rows, is_of_y = np.r_[X, Y], np.repeat([0, 1], [len(X), len(Y)])
    if classifier is None:
        classifier = HistGradientBoostingClassifier(random_state=random_state.randint(2**31))
    if isinstance(cv, Integral):
        if min(len(X), len(Y)) < int(cv):
            raise ValueError(
                f"cv={cv} folds take as many rows of X and of Y, got {len(X)} and {len(Y)}."
            )
        cv = StratifiedKFold(cv, shuffle=True, random_state=random_state.randint(2**31))
    areas, variances = [], []
    for train, test in check_cv(cv, is_of_y, classifier=True).split(rows, is_of_y):
        if min(len(np.unique(is_of_y[part])) for part in (train, test)) < 2:
            raise ValueError("Each fold, and what is left beside it, must hold rows of X and of Y.")
        fitted = clone(classifier).fit(rows[train], is_of_y[train])
        scores, of_y = _scores(fitted, rows[test]), is_of_y[test] == 1
        area, variance = _area_and_variance(scores[~of_y], scores[of_y])
        areas.append(area)
        variances.append(variance)
    n_folds = len(areas)
    return TwoSampleScore(float(np.mean(areas)), float(np.sqrt(np.sum(variances)) / n_folds))


def _scores(classifier, rows):
    """Return a number for each row that is larger the more it looks like one of Y."""
    if hasattr(classifier, "decision_function"):
        return classifier.decision_function(rows)
    return classifier.predict_proba(rows)[:, 1]


def _area_and_variance(scores_x, scores_y):
    """Return the area under the ROC curve and its variance, after DeLong et al."""
    m, n = len(scores_x), len(scores_y)
    ranks = rankdata(np.r_[scores_x, scores_y])
    # A rank among all less that among its own is the number of rows of the other set below.
    below_y = (ranks[m:] - rankdata(scores_y)) / m
    above_x = 1 - (ranks[:m] - rankdata(scores_x)) / n
    # With a single row of a set nothing is known of its variance.
    variance = above_x.var(ddof=1) / m if m > 1 else np.nan
    variance += below_y.var(ddof=1) / n if n > 1 else np.nan
    return below_y.mean(), variance


def frechet_distance(features_a, features_b):
    r"""Return the Frechet distance between the normal distributions of two sets of rows.

    With means :math:`\mu` and covariances :math:`\Sigma` of the rows [1]_,

    .. math::

        d^2 = \|\mu_a - \mu_b\|^2 + \operatorname{tr}\left(\Sigma_a + \Sigma_b
        - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}\right),

    the square of the distance that the name promises, as the literature has it: with features of an
    Inception network it is the "FID" [2]_ by which images are judged. It is 0 for equal moments.

    Parameters
    ----------
    features_a, features_b : array-like of shape (n_samples, n_features)
        Rows, at least two each: features of images, or any others. The numbers of rows may differ.

    Returns
    -------
    distance : float
        At least 0, in squared units of the features.

    Raises
    ------
    ValueError
        If the two have different numbers of columns, fewer than two rows, or entries that are not
        finite.

    Notes
    -----
    With few rows the distance is biased upwards. Compare equal numbers of rows, and look at the
    distance between two halves of the same data first.

    References
    ----------
    .. [1] Dowson & Landau, "The Frechet distance between multivariate normal distributions",
           Journal of Multivariate Analysis 12, 1982.
    .. [2] Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
           equilibrium", NeurIPS 2017, https://arxiv.org/abs/1706.08500.

    Examples
    --------
    >>> import numpy as np
    >>> from skmanifoldflow.metrics import frechet_distance
    >>> rng = np.random.RandomState(0)
    >>> a, b = rng.normal(0, 1, (5000, 4)), rng.normal(1, 2, (5000, 4))
    >>> f"{frechet_distance(a, b):.1f}"  # exactly 4 (0 - 1)^2 + 4 (1 - 2)^2 = 8
    '8.1'
    """
    a, b = check_tables(features_a=features_a, features_b=features_b, ensure_min_samples=2)
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    # With Sigma = R'R the trace of the root is the sum of the singular values of R_a R_b'. No
    # covariance is formed, so singular ones cost no digits.
    root_a = np.linalg.qr(a - mean_a, mode="r") / np.sqrt(len(a) - 1)
    root_b = np.linalg.qr(b - mean_b, mode="r") / np.sqrt(len(b) - 1)
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    squared = ((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * overlap
    return float(max(squared, 0.0))
