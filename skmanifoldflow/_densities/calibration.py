"""Densities of classes on rows they were not fitted to, and how sure these may be."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.utils.parallel import Parallel, delayed

from .._folds import check_partition
from .members import scores_of

__all__ = [
    "best_calibration",
    "class_folds",
    "fitted_to_classes",
    "log_posterior",
    "scores_out_of_fold",
    "with_pooled_noise",
]

_N_FOLDS = 3
# Range of the temperature. Below 1 it would make classes that never meet ever surer.
_TEMPERATURES = (1.0, 1e4)
# Temperatures that are compared before the best is refined.
_N_TEMPERATURES = 30


def with_pooled_noise(X, y, groups, deviation, rng):
    """Return rows (n, D) with normal noise of a multiple of the standard deviations within classes.

    These are of the rows about the means of their classes y. Noise is the same for the rows of one
    of the groups (n,) of copies.
    """
    if not deviation:
        return X
    counts = np.bincount(y)
    centred = X.astype(np.float64)
    for k in range(len(counts)):
        centred[y == k] -= centred[y == k].mean(axis=0)
    scale = np.sqrt(np.square(centred).sum(axis=0) / max(1, len(X) - len(counts)))
    noise = rng.standard_normal((groups.max() + 1, X.shape[1]))
    return X + (deviation * scale * noise[groups]).astype(X.dtype)


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


def scores_out_of_fold(density, noisy, X, y, labels, classes, folds, n_jobs):
    """Return the log-densities (n, n_classes) of rows under classes, fitted without the rows.

    The densities are fitted to noisy rows. Scores are NaN but for some of the classes, whose labels
    the error has, and their rows.
    """

    def score(train, test):
        is_absent = ~np.isin(classes, y[train])
        if is_absent.any():
            raise ValueError(
                f"Class '{labels[classes[is_absent.argmax()]]}' has no rows in the training part "
                "of a fold of cv: give stratified folds, such as StratifiedKFold."
            )
        return test, scores_of(fitted_to_classes(density, noisy[train], y[train], classes), X[test])

    scores = np.full((len(X), len(labels)), np.nan)
    for test, of_fold in Parallel(n_jobs=n_jobs)(delayed(score)(*fold) for fold in folds):
        scores[np.ix_(test, classes)] = of_fold
    return scores


def log_posterior(scores, priors, temperature, prior_weight):
    """Return the log-probabilities (n, n_classes) of the classes."""
    with np.errstate(divide="ignore"):
        log_priors = np.log(priors)
        logits = (scores + log_priors) / temperature
        # Where a row has no density under any class nothing is told of it.
        logits = np.where((scores == -np.inf).all(axis=1, keepdims=True), log_priors, logits)
        told = np.log1p(-prior_weight) + log_softmax(logits, axis=1)
        return np.logaddexp(told, np.log(prior_weight) + log_priors)


def best_calibration(scores, y, priors):
    """Return the temperature and the prior weight at which rows have the most probable classes y.

    `scores` (n, n_classes) are their log-densities.
    """
    if (priors > 0).sum() < 2:
        # A single class is certain at any temperature.
        return 1.0, 0.0
    # Classes that are impossible are so with any of them.
    rows = np.flatnonzero(priors[y] > 0)
    scores, y = scores[rows], y[rows]
    untold, index = priors[y], np.arange(len(y))

    def best_weight(log_temperature):
        told = np.exp(log_posterior(scores, priors, np.exp(log_temperature), 0.0)[index, y])

        def loss(weight):
            return -np.log((1 - weight) * told + weight * untold).mean()

        # It is convex in the weight.
        return minimize_scalar(loss, bounds=(0, 1), method="bounded")

    def loss(log_temperature):
        return best_weight(log_temperature).fun

    grid = np.log(np.geomspace(*_TEMPERATURES, _N_TEMPERATURES))
    k = int(np.argmin([loss(t) for t in grid]))
    bounds = grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]
    best = minimize_scalar(loss, bounds=bounds, method="bounded").x
    return float(np.exp(best)), float(best_weight(best).x)
