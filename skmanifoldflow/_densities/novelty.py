"""NoveltyDetector: which rows are strange, how sure that is, and which columns make them so."""

from functools import partial
from numbers import Integral, Real

import numpy as np
from sklearn.base import OutlierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from .._checks import check_rows, warn
from .._folds import split_folds, takes_groups
from ..model_selection import cross_val_score_samples
from .base import (
    DENSITY,
    SMOOTH,
    DocumentedEstimator,
    log_crowding,
    new_density,
    novelty_scores,
    without_crowding,
)
from .explanation import column_candidates, column_contributions

__all__ = ["NoveltyDetector", "p_values"]


class NoveltyDetector(OutlierMixin, DocumentedEstimator):
    r"""Detector of strange rows by a density, with a known rate of false alarms.

    It is made for novelty: the training rows are taken for normal, and new rows are judged. A row
    is strange if its score, a log-density, is below those of all but a share `false_positive_rate`
    of normal rows. Training rows do not tell where that is, since a density is too high at the rows
    that it was fitted to: a fifth of new rows may lie below the 5 % quantile of the training rows.
    So each row is scored by a density that was fitted without it, in five folds, and the threshold
    and the p-values are those of conformal prediction [1]_ with these scores. The density of
    the detector is then fitted to all rows.

    A flow maps columns whose values recur or crowd, such as those with many zeros or a long tail,
    to nearly normal ones. Its density in units of the data is high wherever values are close to
    each other, however strange a row is there. Rows are therefore scored by the density of such
    columns after their maps, and by the probability of a value that recurs.

    Parameters
    ----------
    density : estimator instance, default=None
        Density with `fit` and `score_samples`; None is
        ``NoisyInjectiveFlow(noise_floor=0.1)``. Noise of a tenth of the standard deviation of a
        column washes out the streaks and spikes of a density, within which strange rows often are.
    false_positive_rate : float, default=0.05
        Share of new normal rows that are taken for strange, between 0 and 1. It is a rate that
        is wanted, not a share of outliers among the training rows.
    cv : int, splitter or iterable, default=None
        Folds in which the rows of the threshold are scored, as in scikit-learn. None is five
        shuffled folds, in which a row and its copies, or the rows of a group, stay together.
    n_jobs : int, default=None
        Folds fitted at the same time.
    random_state : int, RandomState instance or None, default=None
        Source of the folds, and of every random state of the density that is None.

    Attributes
    ----------
    density_ : estimator instance
        The density, fitted to all rows.
    training_scores_ : ndarray of shape (n_samples,)
        `score_samples` of the training rows out of fold, in their order, in nats: which of them are
        the strangest.
    calibration_scores_ : ndarray of shape (n_samples,)
        The same, ascending.
    offset_ : float
        Score below which a row is strange. It is -inf, and no row is strange, where there are
        too few rows for the rate, or more of them than the rate have no density out of fold.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X had any.

    See Also
    --------
    sklearn.neighbors.LocalOutlierFactor : Density by the distances of neighbours.
    sklearn.ensemble.IsolationForest : Rows that random splits separate from the others early.

    Notes
    -----
    The score of a row is

    .. math:: \log p(x) - \sum_j c_j(x_j),

    where :math:`c_j` tells how close the values of column j are to each other. It is the
    log-derivative of the map of the column, so that the score is the log-density of the mapped
    column; of a value that is spread over an interval, minus the logarithm of the width, so that it
    is the log-probability of the value; towards a bound that at the inner end of the interval; and
    where no rows are that of a straight line through the column. It is 0 for columns without a map.
    Maps are those of `density_`, a flow of this package, also at the end of a pipeline or within
    another density of it. Other densities have none, and their score is the log-density.

    A fit takes six fits of the density, `n_jobs` of them at the same time. The rate is that of rows
    like the training rows; with n of them it is known to a standard error of
    :math:`\sqrt{\alpha (1 - \alpha) / n}`. The density of all rows is a little better than those of
    the folds, so that with some hundred rows there are rather fewer false alarms than asked for.

    References
    ----------
    .. [1] Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", Springer 2005.

    Examples
    --------
    >>> from sklearn.mixture import GaussianMixture
    >>> from skmanifoldflow import NoveltyDetector
    >>> from skmanifoldflow.datasets import SCurve
    >>> X, _ = SCurve(noise=0.05).sample(1000, random_state=0)
    >>> detector = NoveltyDetector(GaussianMixture(10, random_state=0), random_state=0).fit(X)
    >>> detector.predict([[0.0, 1.0, 0.0], [0.0, 1.0, 2.5]])
    array([ 1, -1])
    >>> bool(detector.p_value([[0.0, 1.0, 2.5]])[0] < 0.01)
    True
    >>> detector.explain([[0.0, 1.0, 2.5]]).argmax(axis=1)  # the third column is the odd one
    array([2])
    """

    _parameter_constraints: dict = {
        "density": DENSITY,
        "false_positive_rate": [Interval(Real, 0, 1, closed="neither")],
        "cv": ["cv_object"],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        density=None,
        *,
        false_positive_rate=0.05,
        cv=None,
        n_jobs=None,
        random_state=None,
    ):
        self.density = density
        self.false_positive_rate = false_positive_rate
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, groups=None):
        """Fit the density, and find its threshold on rows out of fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Normal rows.
        y : Ignored
            Not used, present for API consistency by convention.
        groups : array-like of shape (n_samples,), default=None
            Labels of groups of rows that depend on each other, which stay in one fold; the density
            gets them too where its `fit` has a parameter of that name.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If rows are not finite, fewer than two, or all of one group, or if the folds do not have
            each row exactly once.

        Warns
        -----
        UserWarning
            If no row will be called strange: there are fewer than 1 / `false_positive_rate` - 1
            training rows, or more of them than the rate allows have no density out of fold.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import NoveltyDetector
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
        >>> NoveltyDetector(GaussianMixture(8), random_state=0).fit(X).calibration_scores_.shape
        (300,)
        """
        X = check_rows(self, X, ensure_min_samples=2)
        rng = check_random_state(self.random_state)
        density = new_density(self.density, rng, **SMOOTH)
        folds = split_folds(X, self.cv, groups, rng)
        has_groups = groups is not None and takes_groups(density)
        params = {"groups": np.asarray(groups)} if has_groups else {}
        scores = cross_val_score_samples(density, X, cv=folds, n_jobs=self.n_jobs, params=params)
        self.density_ = density.fit(X, **params)
        # The same for all: in each fold other columns may have maps.
        self.training_scores_ = without_crowding(scores, log_crowding(self.density_, X))
        self.calibration_scores_ = np.sort(self.training_scores_)
        self.offset_ = self._threshold(len(X))
        self._candidates = column_candidates(X)
        return self

    def _threshold(self, n):
        """Return the score below which a new row lies with the wanted rate, at most."""
        # By symmetry a new row is below the k-th smallest of n scores with probability k / (n + 1).
        # The product may be rounded to just below a whole number.
        k = int(self.false_positive_rate * (n + 1) + 1e-9)
        if k:
            offset = float(self.calibration_scores_[k - 1])
            if offset == -np.inf:
                share = (self.calibration_scores_ == -np.inf).mean()
                warn(
                    f"{share:.1%} of the rows have no density out of fold, more than a rate of "
                    f"false alarms of {self.false_positive_rate:g} allows: no row will be called "
                    "strange. Give a density that is positive everywhere, or a higher rate."
                )
            return offset
        warn(
            f"{n} rows are too few for a rate of false alarms of {self.false_positive_rate:g}, "
            f"which takes {int(np.ceil(1 / self.false_positive_rate)) - 1}: no row will be called "
            "strange."
        )
        return -np.inf

    def score_samples(self, X):
        """Log-density of rows, without what values gain by crowding.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats, low for strange rows; see the notes of the class. The log-density in the units of
            X is ``density_.score_samples(X)``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import NoveltyDetector
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
        >>> detector = NoveltyDetector(GaussianMixture(8, random_state=0), random_state=0).fit(X)
        >>> detector.score_samples(X[:3]).shape
        (3,)
        """
        X = self._check_rows(X)
        return novelty_scores(self.density_, X)

    def decision_function(self, X):
        """Score of rows above the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            ``score_samples(X) - offset_`` in nats, negative for strange rows.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import NoveltyDetector
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
        >>> detector = NoveltyDetector(GaussianMixture(8, random_state=0), random_state=0).fit(X)
        >>> bool(detector.decision_function([[9.0, 9.0, 9.0]])[0] < 0)
        True
        """
        scores = self.score_samples(X)
        # Both are infinite where rows of the calibration have no density either.
        with np.errstate(invalid="ignore"):
            return np.where(scores == self.offset_, 0.0, scores - self.offset_)

    def predict(self, X):
        """Tell which rows are strange.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        is_normal : ndarray of int of shape (n_samples,)
            -1 for strange rows, 1 for the others.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import NoveltyDetector
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
        >>> detector = NoveltyDetector(GaussianMixture(8, random_state=0), random_state=0).fit(X)
        >>> detector.predict([[9.0, 9.0, 9.0]])
        array([-1])
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_value(self, X):
        """Return how often a normal row is at least as strange as each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        p : ndarray of shape (n_samples,)
            (1 + r) / (1 + n) with r the number of the n training rows that have, out of fold, a
            score no higher. Of normal rows about a share p has a p-value of p or less.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import NoveltyDetector
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
        >>> detector = NoveltyDetector(GaussianMixture(8, random_state=0), random_state=0).fit(X)
        >>> f"{detector.p_value([[9.0, 9.0, 9.0]])[0]:.4f}"  # 1 / 301
        '0.0033'
        """
        scores = self.score_samples(X)
        return p_values(self.calibration_scores_, scores)

    def explain(self, X):
        r"""Return the share of each column in the strangeness of each row, in nats.

        It is what the score gains if the column is drawn anew given the other columns,

        .. math:: E[s(x_j', x_{-j}) \mid x_{-j}] - s(x),

        the surprise at the value in excess of what there is to expect. The conditional density of
        the column is that of the model, by quadrature over quantiles of the training rows and finer
        values around the best one. The shares are about zero on average over normal rows; a wrong
        value has a large share, and so has each of two values that only together are odd. They do
        not add up.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows. Each costs the scores of 64 rows per column.

        Returns
        -------
        shares : ndarray of shape (n_samples, n_features)
            Nats, infinite where the row has no density without the column drawn anew.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import NoveltyDetector
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
        >>> detector = NoveltyDetector(GaussianMixture(8, random_state=0), random_state=0).fit(X)
        >>> detector.explain([[0.0, 1.0, 4.0]]).argmax(axis=1)
        array([2])
        """
        X = self._check_rows(X).astype(np.float64)
        density = self.density_
        crowding = partial(log_crowding, density)
        return column_contributions(density.score_samples, X, self._candidates, crowding)


def p_values(calibration_scores, scores):
    """Return conformal p-values of scores, given ascending scores of other rows."""
    n_below = np.searchsorted(calibration_scores, scores, side="right")
    return (1 + n_below) / (1 + len(calibration_scores))
