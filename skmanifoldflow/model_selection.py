"""Search over parameters of a flow, with the fits of all candidates and folds trained as one."""

import time

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv

from ._noisy_injective import NoisyInjectiveFlow
from .backend.device import single_threaded
from .backend.stacked import train_all

__all__ = ["StackedSearchCV"]


class StackedSearchCV(GridSearchCV):
    """`GridSearchCV` over a flow, several times as fast.

    A step of a small flow costs calls rather than arithmetic. Candidates and folds whose flows and
    rows have the same shapes are trained as one stack of flows, in this process; the others one by
    one. Each has the random numbers, the learning rate and the early stop that it would have alone,
    so scores differ from those of `GridSearchCV` by rounding only, as far as training amplifies it.

    Stacked are fits of `NoisyInjectiveFlow` that differ in `learning_rate_init`, `weight_decay`,
    `noise_start`, `n_iter_no_change`, `tol` or `random_state`, and all folds of a candidate. With
    another estimator, such as a pipeline, with `scoring` or with invalid candidates the search is
    that of `GridSearchCV`.

    Parameters are those of `sklearn.model_selection.GridSearchCV`. `n_jobs` and `pre_dispatch` are
    not used by the stack, and `mean_fit_time` is the share of a fit in the time of all. The fits of
    the search raise no ConvergenceWarning; that of `best_estimator_` does.

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
            As for `GridSearchCV`; with any, fits are not stacked.

        Returns
        -------
        self : object
            The fitted search.
        """
        candidates = list(ParameterGrid(self.param_grid))
        is_plain = isinstance(self.estimator, NoisyInjectiveFlow) and self.scoring is None
        if not is_plain or params or callable(self.refit) or not candidates:
            return super().fit(X, y, **params)
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        rows = np.asarray(X) if not hasattr(X, "iloc") else X
        folds = list(splitter.split(rows, y))
        try:
            out = self._fit_and_score(rows, candidates, folds)
        except (ValueError, FloatingPointError):
            # A candidate that fails is dealt with as `error_score` wants it.
            return super().fit(X, y, **params)
        self.multimetric_ = False
        self.scorer_ = _score
        self.n_splits_ = len(folds)
        self.cv_results_ = self._format_results(candidates, len(folds), out)
        if self.refit:
            self.best_index_ = int(self.cv_results_["rank_test_score"].argmin())
            self.best_score_ = self.cv_results_["mean_test_score"][self.best_index_]
            self.best_params_ = candidates[self.best_index_]
            start = time.time()
            self.best_estimator_ = clone(self.estimator).set_params(**self.best_params_).fit(X, y)
            self.refit_time_ = time.time() - start
            if hasattr(self.best_estimator_, "feature_names_in_"):
                self.feature_names_in_ = self.best_estimator_.feature_names_in_
        return self

    def _fit_and_score(self, X, candidates, folds):
        """Return what scikit-learn's function of that name does, for each candidate and fold."""
        begin = time.time()
        fits = []
        for candidate in candidates:
            for train, test in folds:
                model = clone(self.estimator).set_params(**candidate)
                model._validate_params()
                plan = model._plan(_take(X, train))
                fits.append((model, plan, train, test))
        starts = []
        work = max(plan.work for _, plan, _, _ in fits)
        with single_threaded(work):
            for model, plan, _, _ in fits:
                if len(plan.seeds) > 1:
                    raise ValueError("n_init must be 1.")
                starts.append(model._start_fit(plan, plan.seeds[0], None))
            train_all([start.job for start in starts])
        fit_time = (time.time() - begin) / len(fits)
        out = []
        for (model, plan, train, test), start in zip(fits, starts, strict=True):
            model._adopt(plan, start)
            begin = time.time()
            result = {
                "test_scores": model.score(_take(X, test)),
                "fit_error": None,
                "fit_time": fit_time,
                "n_test_samples": len(test),
            }
            result["score_time"] = time.time() - begin
            if self.return_train_score:
                result["train_scores"] = model.score(_take(X, train))
            out.append(result)
        return out


def _take(X, index):
    return X.iloc[index] if hasattr(X, "iloc") else X[index]


def _score(estimator, X, y=None):
    """The estimator's own score, as scikit-learn's scorer for `scoring=None` has it."""
    return estimator.score(X)
