"""DensityClassifier: a density for each class, and the rule of Bayes."""

from numbers import Integral

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin, _fit_context, clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.parallel import Parallel, delayed

from .._checks import check_rows
from .._duplicates import find_duplicates
from .base import DENSITY, DocumentedEstimator, new_density
from .novelty import p_values

__all__ = ["DensityClassifier"]

# Fewer rows of a class are not split: their density is fitted, but not tempered.
_N_FOLDS, _MIN_ROWS_SPLIT = 3, 6
# Range of the temperature. Below 1 it would make classes that never meet ever surer.
_TEMPERATURES = 1.0, 1e4


class DensityClassifier(ClassifierMixin, DocumentedEstimator):
    r"""Classifier by one density for each class, which also knows rows of no class.

    By the rule of Bayes the class k of a row x has the probability

    .. math:: P(k \mid x) \propto \pi_k \, p_k(x)^{1/T}

    with the priors :math:`\pi_k` and the densities :math:`p_k` of the classes. Log-densities of
    many columns add up the errors of all of them, and with T = 1 the probabilities would be too
    sure of themselves. The temperature T is the one of 1 and more that fits held-out rows best
    [1]_: rows are scored in three folds by densities that were fitted without them. The same scores
    give the p-values.

    Parameters
    ----------
    density : estimator instance, default=None
        Density with `fit` and `score_samples`, a copy of which is fitted to the rows of each class;
        None is :class:`NoisyInjectiveFlow`.
    priors : array-like of shape (n_classes,), default=None
        Probabilities of the classes, in the order of `classes_`; None takes their shares of the
        training rows.
    cv : int, splitter or iterable, default=None
        Folds by which rows are held out. None is three stratified folds, shuffled, in which a row
        and its copies stay together.
    n_jobs : int, default=None
        Folds fitted at the same time.
    random_state : int, RandomState instance or None, default=None
        Source of the folds, and of every random state of the density that is None.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    densities_ : list of estimator instances
        The density of each class, fitted to all of its rows.
    class_prior_ : ndarray of shape (n_classes,)
        Probability of each class.
    temperature_ : float
        The temperature T; 1 where a class has fewer than six rows, which are not split.
    calibration_scores_ : list of ndarray
        Log-densities of the rows of each class out of fold, ascending, in nats in the units of X.
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
    A column that is constant within a class and not within others, as pixels are, makes the density
    of a flow sharper than it ought to be, and new rows of the class impossible: `temperature_` is
    then large. Add noise to the training rows, some tenths of the standard deviation of each
    column, or take a density that is regularised, such as ``GaussianMixture(reg_covar=...)``.

    A fit takes four fits of each class. Where the classes matter and what lies between them does
    not, a classifier that is trained to tell them apart is often the better one.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks", ICML 2017,
           https://arxiv.org/abs/1706.04599.

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
        "priors": ["array-like", None],
        "cv": ["cv_object"],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
    }

    def __init__(self, density=None, *, priors=None, cv=None, n_jobs=None, random_state=None):
        self.density = density
        self.priors = priors
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y):
        """Fit the density of each class, and the temperature on rows out of fold.

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
            If rows are not finite, if a class has a single row, or if the priors are not one
            probability for each class.

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
        density, n_classes = new_density(self.density, rng), len(self.classes_)
        self.temperature_ = 1.0
        self.calibration_scores_ = [np.empty(0)] * n_classes
        if counts.min() >= _MIN_ROWS_SPLIT:
            scores = self._scores_out_of_fold(density, X, y, rng)
            self.calibration_scores_ = [np.sort(scores[y == k, k]) for k in range(n_classes)]
            self.temperature_ = _temperature(scores, y, self.class_prior_)
        self.densities_ = _fitted(density, X, y)
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

    def _scores_out_of_fold(self, density, X, y, rng):
        """Return the log-density (n, n_classes) of each row under each class, without the row."""
        groups = find_duplicates(X).groups
        if self.cv is not None:
            folds = check_cv(self.cv, y, classifier=True).split(X, y)
        elif groups.max() + 1 < len(X):
            folds = StratifiedGroupKFold(_N_FOLDS, shuffle=True, random_state=rng).split(
                X, y, groups
            )
        else:
            folds = StratifiedKFold(_N_FOLDS, shuffle=True, random_state=rng).split(X, y)

        def score(train, test):
            return test, _scores(_fitted(density, X[train], y[train]), X[test])

        scores = np.full((len(X), len(self.classes_)), np.nan)
        parts = Parallel(n_jobs=self.n_jobs)(delayed(score)(*fold) for fold in folds)
        for test, of_fold in parts:
            scores[test] = of_fold
        return scores

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
        return _log_posterior(_scores(self.densities_, X), self.class_prior_, self.temperature_)

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
            of fold, a density under it no higher.

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
        scores = _scores(self.densities_, X)
        pairs = zip(self.calibration_scores_, scores.T, strict=True)
        return np.column_stack([p_values(calibration, s) for calibration, s in pairs])


def _fitted(density, X, y):
    """Return the density of each class."""
    return [clone(density).fit(X[y == k]) for k in range(y.max() + 1)]


def _scores(densities, X):
    """Return the log-density (n, n_classes) of rows under each class, in float64."""
    return np.column_stack([d.score_samples(X).astype(np.float64) for d in densities])


def _log_posterior(scores, priors, temperature):
    """Return the log-probabilities (n, n_classes) of the classes."""
    # Where a row has no density under any class nothing is told of it.
    scores = np.where((scores == -np.inf).all(axis=1, keepdims=True), 0.0, scores)
    with np.errstate(divide="ignore"):
        return log_softmax(scores / temperature + np.log(priors), axis=1)


def _temperature(scores, y, priors):
    """Return the temperature at which rows (n, n_classes) have the most probable classes y."""

    def loss(log_temperature):
        log_posterior = _log_posterior(scores, priors, np.exp(log_temperature))[
            np.arange(len(y)), y
        ]
        # A row that is impossible under its class is so at any temperature.
        return -log_posterior[np.isfinite(log_posterior)].mean()

    bounds = tuple(np.log(_TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
