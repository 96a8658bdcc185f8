"""Densities of classes on rows they were not fitted to, and the temperature that these tell."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.utils.parallel import Parallel, delayed

from .._folds import check_partition
from .members import scores_of

__all__ = [
    "best_temperature",
    "class_folds",
    "fitted_to_classes",
    "log_posterior",
    "scores_out_of_fold",
]

_N_FOLDS = 3
# Range of the temperature. Below 1 it would make classes that never meet ever surer.
_TEMPERATURES = 1.0, 1e4


def class_folds(X, y, groups, classes, cv, rng):
    """Return the training and test rows of each fold, of the rows of some classes only.

    By default there are three stratified folds, in which groups (n,) of copies stay together.
    """
    is_kept = np.isin(y, classes)
    if cv is not None:
        folds = list(check_cv(cv, y, classifier=True).split(X, y))
        check_partition(folds, len(X))
        parts = [(train[is_kept[train]], test[is_kept[test]]) for train, test in folds]
        return [(train, test) for train, test in parts if len(test)]
    rows = np.flatnonzero(is_kept)
    groups = groups[rows]
    if len(np.unique(groups)) < len(rows):
        splitter = StratifiedGroupKFold(_N_FOLDS, shuffle=True, random_state=rng)
        folds = splitter.split(rows, y[rows], groups)
    else:
        folds = StratifiedKFold(_N_FOLDS, shuffle=True, random_state=rng).split(rows, y[rows])
    return [(rows[train], rows[test]) for train, test in folds]


def fitted_to_classes(density, X, y, classes):
    """Return copies of a density that are fitted to the rows of each of some classes."""
    return [clone(density).fit(X[y == k]) for k in classes]


def scores_out_of_fold(density, X, y, labels, classes, folds, n_jobs):
    """Return the log-densities (n, n_classes) of rows under classes, fitted without the rows.

    They are NaN but for some of the classes, whose labels the error has, and their rows.
    """

    def score(train, test):
        is_absent = ~np.isin(classes, y[train])
        if is_absent.any():
            raise ValueError(
                f"Class '{labels[classes[is_absent.argmax()]]}' has no rows in the training part "
                "of a fold of cv: give stratified folds, such as StratifiedKFold."
            )
        return test, scores_of(fitted_to_classes(density, X[train], y[train], classes), X[test])

    scores = np.full((len(X), len(labels)), np.nan)
    for test, of_fold in Parallel(n_jobs=n_jobs)(delayed(score)(*fold) for fold in folds):
        scores[np.ix_(test, classes)] = of_fold
    return scores


def log_posterior(scores, priors, temperature):
    """Return the log-probabilities (n, n_classes) of the classes."""
    # Where a row has no density under any class nothing is told of it.
    scores = np.where((scores == -np.inf).all(axis=1, keepdims=True), 0.0, scores)
    with np.errstate(divide="ignore"):
        return log_softmax(scores / temperature + np.log(priors), axis=1)


def best_temperature(scores, y, priors):
    """Return the temperature at which rows (n, n_classes) have the most probable classes y."""
    if (priors > 0).sum() < 2:
        # A single class is certain at any temperature.
        return 1.0

    def loss(log_temperature):
        log_proba = log_posterior(scores, priors, np.exp(log_temperature))[np.arange(len(y)), y]
        # A row that is impossible under its class is so at any temperature.
        return -log_proba[np.isfinite(log_proba)].mean()

    bounds = tuple(np.log(_TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
