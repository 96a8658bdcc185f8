"""Search over parameters of a flow, its fits trained as one; log-densities out of fold."""

import time

import numpy as np
from sklearn import get_config
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params, _num_samples

from ._base import BaseManifoldFlow
from ._folds import check_partition, only_scores, split_folds, takes_groups
from ._noisy_injective.estimator import NoisyInjectiveFlow
from .backend.device import single_threaded, standard_context
from .backend.training import train_all

__all__ = ["StackedSearchCV", "cross_val_score_samples"]


def cross_val_score_samples(estimator, X, *, cv=None, groups=None, n_jobs=None, params=None):
    """Return the log-density of each row under a density that was fitted without it.

    What :func:`sklearn.model_selection.cross_val_predict` is for `predict`: the log-densities of
    training rows are too high, those of rows out of fold are like the ones of new rows.

    Parameters
    ----------
    estimator : estimator instance
        Density with `fit` and `score_samples`; a copy is fitted for each fold.
    X : array-like of shape (n_samples, n_features)
        Rows.
    cv : int, splitter or iterable, default=None
        Folds, as in scikit-learn. None is five folds, shuffled with a fixed seed, or as many as
        there are groups, in which a row and its copies, or the rows of a group, stay together.
        Copies are looked for where all cells are finite numbers. Folds of an int are not shuffled:
        where the order of the rows tells something of them give ``KFold(shuffle=True)``.
    groups : array-like of shape (n_samples,), default=None
        Labels of groups of rows that depend on each other. The splitter gets them, and `fit` too
        where it has a parameter `groups`, or is :class:`~skmanifoldflow.TransformedDensity` around
        a density whose `fit` has one.
    n_jobs : int, default=None
        Folds fitted at the same time, as in scikit-learn.
    params : dict, default=None
        Parameters of `fit`; those with one value for each row are split with the rows.

    Returns
    -------
    log_density : ndarray of shape (n_samples,)
        Natural logarithm of the density of each row, in the units of X.

    Raises
    ------
    ValueError
        If the folds do not have each row exactly once, `X` and `groups` differ in length, or all
        rows are of one group.

    Examples
    --------
    >>> from sklearn.mixture import GaussianMixture
    >>> from skmanifoldflow.datasets import SinCurve
    >>> from skmanifoldflow.model_selection import cross_val_score_samples
    >>> X, _ = SinCurve(noise=0.05).sample(100, random_state=0)
    >>> model = GaussianMixture(10, random_state=0)
    >>> bool(cross_val_score_samples(model, X).mean() < model.fit(X).score(X))
    True
    """
    X, groups = indexable(X, groups)
    folds = split_folds(X, cv, groups, 0)
    order = check_partition(folds, _num_samples(X))
    params = dict(params or {})
    if groups is not None and takes_groups(estimator):
        params.setdefault("groups", groups)

    def score(train, test):
        with only_scores():
            model = clone(estimator).fit(
                _safe_indexing(X, train), **_check_method_params(X, params, indices=train)
            )
        return model.score_samples(_safe_indexing(X, test))

    scores = Parallel(n_jobs=n_jobs)(delayed(score)(train, test) for train, test in folds)
    log_density = np.concatenate(scores)
    result = np.empty_like(log_density)
    result[order] = log_density
    return result


class StackedSearchCV(GridSearchCV):
    """`GridSearchCV` over a flow, several times as fast.

    A step of a small flow costs calls rather than arithmetic. Candidates and folds whose flows and
    rows have the same shapes are trained as one stack of flows, in this process; the others one by
    one. Each has the random numbers, the learning rate and the early stop that it would have alone,
    so scores are those of `GridSearchCV`: to the last bit on an x86 CPU, else up to rounding as far
    as training amplifies it.

    Stacked are fits of `NoisyInjectiveFlow` that differ in `learning_rate_init`, `weight_decay`,
    `noise_start`, `n_iter_no_change`, `tol` or `random_state`, and all folds of a candidate; not
    those of images, with ``flow="autoregressive"``, or with batches of fewer than 16 rows. With
    another estimator, such as a pipeline, with `n_init` above 1, `scoring`, callbacks or parameters
    of `fit`, and with a candidate whose fit fails, the search is that of `GridSearchCV`.

    Parameters and attributes are those of `sklearn.model_selection.GridSearchCV`, but `n_jobs` and
    `pre_dispatch` are not used by the stack, and `mean_fit_time` is the share of a fit in the time
    of all. The scores that ``verbose=2`` prints come all at once, after the stack is trained. The
    fits of the search raise no ConvergenceWarning; that of `best_estimator_` does.

    Examples
    --------
    >>> from skmanifoldflow import NoisyInjectiveFlow
    >>> from skmanifoldflow.datasets import SinCurve
    >>> from skmanifoldflow.model_selection import StackedSearchCV
    >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
    >>> flow = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0)
    >>> search = StackedSearchCV(flow, {"learning_rate_init": [1e-3, 1e-2]}, cv=2).fit(X)
    >>> search.best_params_
    {'learning_rate_init': 0.01}
    """

    def fit(self, X, y=None, **params):
        """Run the search, and refit the best candidate on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,), default=None
            Used by the splitter only.
        **params : dict
            As for `GridSearchCV`; with any, fits are not stacked. `groups` needs metadata routing:
            without it the splitter alone would get them, and each fit would split the groups.

        Returns
        -------
        self : object
            The fitted search.

        Raises
        ------
        ValueError
            If the parameters of the search contradict each other, all fits fail, or `groups` are
            given without metadata routing.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> from skmanifoldflow.model_selection import StackedSearchCV
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> flow = NoisyInjectiveFlow(1, n_layers=2, max_iter=1, random_state=0)
        >>> StackedSearchCV(flow, {"weight_decay": [0.0, 0.1]}, cv=2).fit(X).n_splits_
        2
        """
        self._validate_params()
        is_plain = isinstance(self.estimator, NoisyInjectiveFlow) and self.scoring is None
        # Only from scikit-learn 1.9 on there are callbacks, which follow each fit.
        has_callbacks = bool(getattr(self, "_skl_callbacks", None))
        is_flow = isinstance(self.estimator, BaseManifoldFlow)
        is_routed = get_config()["enable_metadata_routing"]
        if is_flow and params.get("groups") is not None and not is_routed:
            raise ValueError(
                "Without metadata routing the splitter alone gets groups, and each fit splits them "
                "again. Use sklearn.set_config(enable_metadata_routing=True) and "
                "estimator.set_fit_request(groups=True), or False where that is wanted."
            )
        if not is_plain or params or callable(self.refit) or has_callbacks:
            return super().fit(X, y, **params)
        X, y = indexable(X, y)
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        folds = list(splitter.split(X, y))
        candidates = list(ParameterGrid(self.param_grid))
        try:
            out = self._fit_and_score(X, candidates, folds)
        except Exception as error:
            # Alone, a candidate that fails is dealt with as `error_score` wants it.
            if self.verbose > 0:
                print(f"Fits are not stacked: {type(error).__name__}: {error}")
            return self._fit_one_by_one(X, y, folds)
        self.multimetric_ = False
        self.scorer_ = check_scoring(self.estimator)
        self.n_splits_ = len(folds)
        self.cv_results_ = self._format_results(candidates, len(folds), out)
        self.best_index_ = self.cv_results_["rank_test_score"].argmin()
        self.best_score_ = self.cv_results_["mean_test_score"][self.best_index_]
        self.best_params_ = candidates[self.best_index_]
        if self.refit:
            self.best_estimator_ = self._new_model(self.best_params_)
            start = time.time()
            self.best_estimator_.fit(X, y)
            self.refit_time_ = time.time() - start
            if hasattr(self.best_estimator_, "feature_names_in_"):
                self.feature_names_in_ = self.best_estimator_.feature_names_in_
        return self

    def _fit_one_by_one(self, X, y, folds):
        """Search as `GridSearchCV` does, over folds that are already known."""
        cv = self.get_params(deep=False)["cv"]
        # An iterator of splits has nothing left, and a random splitter would draw others.
        self.cv = folds
        try:
            return super().fit(X, y)
        finally:
            self.cv = cv

    def _new_model(self, candidate):
        # A random state among the parameters must not be shared by several fits.
        return clone(self.estimator).set_params(**clone(candidate, safe=False))

    @standard_context()
    def _fit_and_score(self, X, candidates, folds):
        """Return what scikit-learn's function of that name does, for each candidate and fold."""
        begin = time.time()
        rows = X if hasattr(X, "iloc") else np.asarray(X)
        fits = []
        for candidate in candidates:
            for train, test in folds:
                model = self._new_model(candidate)
                model._validate_params()
                if model.n_init > 1:
                    raise ValueError("n_init must be 1.")
                fits.append((model, model._plan(_take(rows, train)), train, test))
        work = max(plan.work for _, plan, _, _ in fits)
        with single_threaded(work):
            restarts = [
                model._prepare_restart(plan, plan.seeds[0], None) for model, plan, _, _ in fits
            ]
            if self.verbose > 0:
                print(
                    f"Fitting {len(folds)} folds for each of {len(candidates)} candidates, "
                    f"totalling {len(fits)} fits"
                )
            reports = train_all([restart.job for restart in restarts])
        fit_time = (time.time() - begin) / len(fits)
        out = []
        for (model, plan, train, test), restart, report in zip(
            fits, restarts, reports, strict=True
        ):
            model._adopt(plan, model._refitted_start(plan, restart, report))
            model._learn_background(plan, restart)
            test_rows = _take(rows, test)
            begin = time.time()
            result = {
                "test_scores": model.score(test_rows),
                "fit_error": None,
                "fit_time": fit_time,
                "n_test_samples": len(test_rows),
            }
            result["score_time"] = time.time() - begin
            if self.return_train_score:
                result["train_scores"] = model.score(_take(rows, train))
            out.append(result)
        if self.verbose > 1:
            _print_scores(candidates, len(folds), out)
        return out


def _take(X, index):
    return X.iloc[index] if hasattr(X, "iloc") else X[index]


def _print_scores(candidates, n_folds, out):
    """Print a line for each candidate and fold, in the form that `GridSearchCV` has."""
    for i, result in enumerate(out):
        candidate, fold = candidates[i // n_folds], i % n_folds + 1
        parameters = ", ".join(f"{name}={candidate[name]}" for name in sorted(candidate))
        score = f"{result['test_scores']:.3f}"
        if "train_scores" in result:
            score = f"(train={result['train_scores']:.3f}, test={score})"
        print(f"[CV {fold}/{n_folds}] END {parameters}; score={score}")
