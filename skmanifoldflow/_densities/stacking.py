"""StackingDensity: a mixture of different densities, with weights that fit rows left out."""

import time
from numbers import Integral, Real

import numpy as np
from scipy.special import logsumexp
from sklearn.base import _fit_context
from sklearn.utils import Bunch, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval
from sklearn.utils.parallel import Parallel, delayed

from .._checks import check_rows
from .._folds import split_folds
from .base import BaseDensity, draw, log_crowding, new_density
from .members import default_members, exchangeable, fit_members, scores_of
from .mixing import log_mixture, mixing_weights

__all__ = ["StackingDensity"]

# Members of less weight are not fitted again to all rows: they would not be noticed.
_LEAST_WEIGHT = 0.02
# Share of the rows that is left out by default, and how many tell weights well enough: of less than
# so many rows in a fold more folds are left out.
_SHARE_LEFT_OUT, _ENOUGH_LEFT_OUT = 0.2, 100


class StackingDensity(BaseDensity):
    r"""Linear stack of densities: the mixture of them that is best on rows left out.

    Which density is best depends on the table. Averaged with the right weights,

    .. math:: p(x) = \sum_m w_m \, p_m(x),

    they are nearly as good as the best of them anywhere, and better where each has rows of its own
    [1]_. The weights have the highest likelihood, by EM, of rows that no member was trained on, and
    of a prior that counts as one row and keeps them from zero. Members that differ in their random
    states alone have equal weights: which of them is ahead is chance, and another one may be after
    the members are fitted again to all rows. Those with next to no weight are not.

    Parameters
    ----------
    estimators : list of (str, estimator) tuples, default=None
        Names and densities, with `fit` and `score_samples`. None takes three
        :class:`NoisyInjectiveFlow`, from 5000 rows on two, which are trained as one stack; a
        Gaussian mixture, full or diagonal, whose size and regularisation are chosen on rows left
        out; the same behind normal scores of the columns; a multivariate t distribution, which
        bounds the loss of rows far away; and a :class:`ChartAtlasFlow`, for clusters and closed
        curves, which is not trained to the end where it is far behind the others after some epochs.
    cv : int, splitter or iterable, default=None
        Folds in which rows are scored out of fold for the weights, as in scikit-learn. Each costs a
        fit of every member, so that None leaves a fifth of the rows out once where these are at
        least 100, and otherwise up to five fifths in turn, until there are so many.
    max_time : float or None, default=None
        Seconds of wall time for the fit, which members with a parameter of that name share: one
        half for the weights, what is left for the members fitted again. None sets no limit.
        Mixtures, and what else has no limit of its own, take the time that they need.
    n_jobs : int, default=None
        Folds fitted at the same time.
    random_state : int, RandomState instance or None, default=None
        Source of the rows left out, and of every random state of the members that is None.

    Attributes
    ----------
    estimators_ : list of estimator instances
        The fitted members.
    named_estimators_ : Bunch
        The same by their names.
    weights_ : ndarray of shape (n_members,)
        Weight of each member; they sum to 1.
    scores_ : ndarray of shape (n_members,)
        Mean log-density of the rows left out under each member, in nats in the units of X.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X had any.

    See Also
    --------
    sklearn.ensemble.StackingRegressor : The same for regressions.

    Notes
    -----
    By default a fit takes as long as six to eight of one flow, and more where the atlas is good;
    with fewer than 500 rows up to three times as long.

    Columns with ties, as integers have, let some members grow without bound: spread the values over
    their spacing first, or choose members that do.

    References
    ----------
    .. [1] Smyth & Wolpert, "Linearly combining density estimators via stacking", Machine Learning
           36, 1999.

    Examples
    --------
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.neighbors import KernelDensity
    >>> from skmanifoldflow import StackingDensity
    >>> from skmanifoldflow.datasets import SCurve
    >>> X, _ = SCurve(noise=0.05).sample(500, random_state=0)
    >>> members = [("mixture", GaussianMixture(10)), ("kernel", KernelDensity(bandwidth=0.2))]
    >>> model = StackingDensity(members, random_state=0).fit(X)
    >>> bool(model.weights_.min() > 0)
    True
    >>> model.sample(3, random_state=0).shape
    (3, 3)
    """

    _parameter_constraints: dict = {
        "estimators": [list, None],
        "cv": ["cv_object"],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
    }

    def __init__(self, estimators=None, *, cv=None, max_time=None, n_jobs=None, random_state=None):
        self.estimators = estimators
        self.cv = cv
        self.max_time = max_time
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, groups=None):
        """Fit the members, their weights, and the members once more.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : Ignored
            Not used, present for API consistency by convention.
        groups : array-like of shape (n_samples,), default=None
            Labels of groups of rows that depend on each other, which are left out together; members
            get them too where their `fit` takes them. By default a row and its copies are.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If rows are not finite, fewer than four, or all of one group; if names of members are
            not distinct, or a member has no `fit` or `score_samples`.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from sklearn.neighbors import KernelDensity
        >>> from skmanifoldflow import StackingDensity
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
        >>> members = [("mixture", GaussianMixture(10)), ("kernel", KernelDensity(bandwidth=0.2))]
        >>> StackingDensity(members, random_state=0).fit(X).weights_.shape
        (2,)
        """
        began = time.monotonic()
        X = check_rows(self, X, ensure_min_samples=4)
        rng = check_random_state(self.random_state)
        names, members = self._members(rng, len(X))
        folds = split_folds(X, self.cv, groups, rng)
        if self.cv is None:
            # Groups may be of any size. Folds that differ by the rounding of a row are alike.
            wanted = _SHARE_LEFT_OUT * len(X)
            folds = sorted(folds, key=lambda fold: int(abs(len(fold[1]) - wanted)))
            left_out = np.cumsum([len(test) for _, test in folds])
            folds = folds[: 1 + int(np.searchsorted(left_out, _ENOUGH_LEFT_OUT))]
        if groups is not None:
            groups = column_or_1d(groups)

        of_folds = None if self.max_time is None else self.max_time / 2 / len(folds)

        def scored(train, test):
            of_fold = None if groups is None else groups[train]
            fitted = fit_members(members, X[train], of_fold, X_left_out=X[test], max_time=of_folds)
            return fitted, scores_of(fitted, X[test])

        parts = Parallel(n_jobs=self.n_jobs)(delayed(scored)(*fold) for fold in folds)
        scores = np.concatenate([of_fold for _, of_fold in parts])
        self.scores_ = scores.mean(axis=0)
        kinds = exchangeable(members)
        self.weights_ = _weights(scores, kinds)
        of_kinds = np.bincount(kinds, weights=self.weights_)
        kept = np.flatnonzero(of_kinds[kinds] >= _LEAST_WEIGHT)
        self.estimators_ = list(parts[0][0])
        left = None if self.max_time is None else self.max_time + began - time.monotonic()
        again = fit_members([members[k] for k in kept], X, groups, max_time=left)
        for k, member in zip(kept, again, strict=True):
            self.estimators_[k] = member
        self.named_estimators_ = Bunch(**dict(zip(names, self.estimators_, strict=True)))
        # The first member that has maps of columns.
        has_maps = (k for k, member in enumerate(self.estimators_) if log_crowding(member, X).any())
        self._with_maps = next(has_maps, None)
        return self

    def _members(self, rng, n_rows):
        """Return the names and unfitted copies of the members."""
        pairs = default_members(n_rows) if self.estimators is None else self.estimators
        if not pairs:
            raise ValueError("estimators must hold at least one (name, density) pair.")
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"Names of estimators must be distinct, got {names}.")
        for name, member in pairs:
            if not (hasattr(member, "fit") and hasattr(member, "score_samples")):
                raise ValueError(
                    f"Estimator {name!r} must have fit and score_samples, got {member!r}."
                )
        return names, [new_density(member, rng) for _, member in pairs]

    def score_samples(self, X):
        """Log-density of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Natural logarithm of the density with respect to Lebesgue measure, in the units of X.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from sklearn.neighbors import KernelDensity
        >>> from skmanifoldflow import StackingDensity
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
        >>> members = [("mixture", GaussianMixture(10)), ("kernel", KernelDensity(bandwidth=0.2))]
        >>> StackingDensity(members, random_state=0).fit(X).score_samples(X[:4]).shape
        (4,)
        """
        X = self._check_rows(X)
        return log_mixture(scores_of(self.estimators_, X), self.weights_).astype(X.dtype)

    def _log_crowding(self, X):
        """Return what values gain by crowding (n,), as a member with maps of columns has it."""
        X = self._check_rows(X)
        if self._with_maps is None:
            return np.zeros(len(X))
        return log_crowding(self.estimators_[self._with_maps], X)

    def sample(self, n_samples=1, *, random_state=None):
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Source of the draw; pass an int for the same rows at every call.

        Returns
        -------
        X : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units, in random order.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If `n_samples` is not an integer >= 1.
        AttributeError
            If a member that is drawn from has no method `sample`.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from sklearn.neighbors import KernelDensity
        >>> from skmanifoldflow import StackingDensity
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
        >>> members = [("mixture", GaussianMixture(10)), ("kernel", KernelDensity(bandwidth=0.2))]
        >>> StackingDensity(members, random_state=0).fit(X).sample(3, random_state=0).shape
        (3, 3)
        """
        rng = self._check_sample(n_samples, random_state)
        counts = rng.multinomial(n_samples, self.weights_)
        pairs = zip(self.estimators_, counts, strict=True)
        rows = [draw(member, int(count), rng) for member, count in pairs if count]
        return np.concatenate(rows)[rng.permutation(n_samples)]


def _weights(scores, groups):
    """Return the weights (m,) of members, those of one group alike, given scores (n, m)."""
    sizes = np.bincount(groups)
    means = [
        logsumexp(scores[:, groups == g], axis=1) - np.log(size) for g, size in enumerate(sizes)
    ]
    return (mixing_weights(np.column_stack(means)) / sizes)[groups]
