"""DensityClassifier: a density for each class, and the rule of Bayes."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets

from .._checks import check_rows, list_names, warn
from .._duplicates import find_duplicates
from .base import (
    DENSITY,
    SMOOTH,
    DocumentedEstimator,
    log_crowding,
    new_density,
    novelty_scores,
    without_crowding,
)
from .calibration import (
    best_calibration,
    class_folds,
    fitted_to_classes,
    log_posterior,
    scores_out_of_fold,
    with_pooled_noise,
)
from .members import scores_of
from .novelty import p_values

__all__ = ["DensityClassifier"]

# A class of fewer distinct rows is not split: its density is fitted, but has no part in the
# temperature.
_MIN_ROWS_SPLIT = 6


class DensityClassifier(ClassifierMixin, DocumentedEstimator):
    r"""Classifier by one density for each class, which also knows rows of no class.

    By the rule of Bayes the class k of a row x has the probability

    .. math::

        P(k \mid x) = (1 - w) \frac{(\pi_k \, p_k(x))^{1/T}}{\sum_j (\pi_j \, p_j(x))^{1/T}}
        + w \pi_k

    with the priors :math:`\pi_k` and the densities :math:`p_k` of the classes. Log-densities of
    many columns add up the errors of all of them, and with T = 1 and w = 0, the rule of Bayes
    itself, the probabilities would be too sure of themselves. The temperature T, 1 at least, makes
    all rows less sure [1]_; the weight w is the share of rows that the densities say nothing of, so
    that a few rows in which they err by far do not set the temperature of all. Both are the ones
    that fit held-out rows best: rows are scored in three folds by densities that were fitted
    without them. The same scores give the p-values.

    Where a column is constant within a class, as pixels and dummies are, its rows do not tell how
    far a new one may be, and their density has no scale that those of other classes can be compared
    with. What is common to all classes has: the densities are fitted to rows with normal noise, of
    `noise_floor` times the standard deviation of each column within classes, pooled over all of
    them. For normal densities it is a form of regularised discriminant analysis [2]_.

    Parameters
    ----------
    density : estimator instance, default=None
        Density with `fit` and `score_samples`, a copy of which is fitted to the rows of each class;
        None is ``NoisyInjectiveFlow(noise_floor=0.1)``, as in :class:`NoveltyDetector`.
    noise_floor : float, default=0.1
        Standard deviation of the noise in the training rows of the densities, in standard
        deviations within classes. 0 leaves rows as they are.
    priors : array-like of shape (n_classes,), default=None
        Probabilities of the classes, in the order of `classes_`; None takes their shares of the
        training rows.
    cv : int, splitter or iterable, default=None
        Folds by which rows are held out, each row in one of them. None is three stratified folds,
        shuffled, in which a row and its copies stay together.
    n_jobs : int, default=None
        Folds fitted at the same time.
    random_state : int, RandomState instance or None, default=None
        Source of the folds, of the noise, and of every random state of the density that is None.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    densities_ : list of estimator instances
        The density of each class, fitted to all of its rows.
    class_prior_ : ndarray of shape (n_classes,)
        Probability of each class.
    temperature_ : float
        The temperature T. It is that of the classes with at least six rows that are no copies; 1
        where there are no two of these.
    prior_weight_ : float
        The weight w, of the same classes.
    calibration_scores_ : list of ndarray
        Scores of the rows of each class out of fold as `NoveltyDetector` has them, ascending, in
        nats; empty for a class with fewer than six rows that are no copies, which are not split.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X had any.

    See Also
    --------
    sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis : Normal distributions as densities.
    NoveltyDetector : Strange rows where there are no classes.

    Notes
    -----
    A fit takes four fits of each class. Where the classes matter and what lies between them does
    not, a classifier that is trained to tell them apart is often the better one.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks", ICML 2017,
           https://arxiv.org/abs/1706.04599.
    .. [2] Friedman, "Regularized discriminant analysis", Journal of the American Statistical
           Association 84, 1989.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skmanifoldflow import DensityClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = DensityClassifier(GaussianMixture(reg_covar=0.01), random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.95)
    True
    >>> model.predict([[5.0, 3.4, 1.4, 0.2]])
    array([0])
    >>> bool(model.p_value([[5.0, 3.4, 6.0, 0.2]]).max() < 0.03)  # this is no iris
    True
    """

    _parameter_constraints: dict = {
        "density": DENSITY,
        "noise_floor": [Interval(Real, 0, None, closed="left")],
        "priors": ["array-like", None],
        "cv": ["cv_object"],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        density=None,
        *,
        noise_floor=0.1,
        priors=None,
        cv=None,
        n_jobs=None,
        random_state=None,
    ):
        self.density = density
        self.noise_floor = noise_floor
        self.priors = priors
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y):
        """Fit the density of each class, and how sure it is to be on rows out of fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Class of each row.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If rows are not finite, if a class has a single row, if the priors are not one
            probability for each class, if the folds do not have each row exactly once, or if a
            class has no rows in the training part of one.

        Warns
        -----
        UserWarning
            If a class has fewer than six rows that are no copies: it is not calibrated.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import DensityClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> len(DensityClassifier(GaussianMixture(reg_covar=0.01)).fit(X, y).densities_)
        3
        """
        X, y = check_rows(self, X, y=y)
        check_classification_targets(y)
        self.classes_, y = np.unique(y, return_inverse=True)
        counts = np.bincount(y)
        if counts.min() < 2:
            raise ValueError(
                f"Class '{self.classes_[counts.argmin()]}' has 1 sample, and a density takes at "
                "least 2."
            )
        self.class_prior_ = self._priors(counts)
        rng = check_random_state(self.random_state)
        density, n_classes = new_density(self.density, rng, **SMOOTH), len(self.classes_)
        self.temperature_, self.prior_weight_ = 1.0, 0.0
        self.calibration_scores_ = [np.empty(0)] * n_classes
        groups = find_duplicates(X).groups
        noisy = with_pooled_noise(X, y, groups, self.noise_floor, rng)
        n_distinct = np.array([len(np.unique(groups[y == k])) for k in range(n_classes)])
        kept = np.flatnonzero(n_distinct >= _MIN_ROWS_SPLIT)
        if len(kept) < n_classes:
            few = np.setdiff1d(range(n_classes), kept)
            names = list_names(f"{self.classes_[k]!s} ({n_distinct[k]})" for k in few)
            warn(
                f"Classes with fewer than {_MIN_ROWS_SPLIT} rows that are no copies are not "
                f"calibrated: {names}. The temperature is that of the others, and the p-values of "
                "these classes are 1."
            )
        if len(kept):
            folds = class_folds(X, y, groups, kept, self.cv, rng)
            scores = scores_out_of_fold(
                density, noisy, X, y, self.classes_, kept, folds, self.n_jobs
            )
            is_kept = np.isin(y, kept)
            self.temperature_, self.prior_weight_ = best_calibration(
                scores[is_kept][:, kept], np.searchsorted(kept, y[is_kept]), self.class_prior_[kept]
            )
        self.densities_ = fitted_to_classes(density, noisy, y, range(n_classes))
        for k in kept:
            own = y == k
            crowding = log_crowding(self.densities_[k], X[own])
            self.calibration_scores_[k] = np.sort(without_crowding(scores[own, k], crowding))
        return self

    def _priors(self, counts):
        """Return the probabilities of the classes."""
        if self.priors is None:
            return counts / counts.sum()
        priors = np.asarray(self.priors, dtype=np.float64)
        if priors.shape != counts.shape or priors.min() < 0 or not np.isclose(priors.sum(), 1):
            raise ValueError(
                f"priors must hold a probability for each of the {len(counts)} classes, which sum "
                f"to 1, got {self.priors!r}."
            )
        return priors

    def predict_log_proba(self, X):
        """Logarithm of the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import DensityClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = DensityClassifier(GaussianMixture(reg_covar=0.01), random_state=0).fit(X, y)
        >>> model.predict_log_proba(X[:2]).shape
        (2, 3)
        """
        X = self._check_rows(X)
        scores = scores_of(self.densities_, X)
        return log_posterior(scores, self.class_prior_, self.temperature_, self.prior_weight_)

    def predict_proba(self, X):
        """Probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`; the priors where a row has no density under any class.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import DensityClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = DensityClassifier(GaussianMixture(reg_covar=0.01), random_state=0).fit(X, y)
        >>> model.predict_proba(X[:1]).round(3)
        array([[1., 0., 0.]])
        """
        return np.exp(self.predict_log_proba(X))

    def predict(self, X):
        """Return the most probable class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import DensityClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = DensityClassifier(GaussianMixture(reg_covar=0.01), random_state=0).fit(X, y)
        >>> model.predict(X[:2])
        array([0, 0])
        """
        best = self.predict_log_proba(X).argmax(axis=1)
        return self.classes_[best]

    def score(self, X, y, sample_weight=None):
        """Return the share of rows whose most probable class is the right one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Their classes.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; None weighs all alike.

        Returns
        -------
        accuracy : float
            Between 0 and 1.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import DensityClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = DensityClassifier(GaussianMixture(reg_covar=0.01), random_state=0).fit(X, y)
        >>> bool(model.score(X, y) > 0.95)
        True
        """
        return super().score(X, y, sample_weight)

    def p_value(self, X):
        """Return how often a row of each class is at least as strange to it as each row.

        A row whose largest p-value is small belongs to no class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            (1 + r) / (1 + n) with r the number of the n training rows of the class that have, out
            of fold, a score under it no higher; 1 for a class that is not calibrated.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import DensityClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = DensityClassifier(GaussianMixture(reg_covar=0.01), random_state=0).fit(X, y)
        >>> model.p_value(X[:2]).shape
        (2, 3)
        """
        X = self._check_rows(X)
        pairs = zip(self.calibration_scores_, self.densities_, strict=True)
        return np.column_stack([p_values(c, novelty_scores(d, X)) for c, d in pairs])
