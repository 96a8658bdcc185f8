"""Folds in which rows are scored by a density that was fitted without them."""

from contextlib import contextmanager
from contextvars import ContextVar
from inspect import Parameter, signature

import numpy as np
from sklearn.model_selection import GroupKFold, check_cv
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import _routing_enabled

from ._duplicates import find_duplicates

__all__ = [
    "check_partition",
    "copies_of",
    "only_scores",
    "scores_suffice",
    "split_folds",
    "takes_groups",
]

_N_FOLDS = 5
_ONLY_SCORES = ContextVar("only_scores", default=False)


@contextmanager
def only_scores():
    """Fit models that are asked for log-densities and no more.

    What else a flow reads from what it has learned may take longer than a short training.
    """
    token = _ONLY_SCORES.set(True)
    try:
        yield
    finally:
        _ONLY_SCORES.reset(token)


def scores_suffice():
    """Return whether a fitted model will be asked for log-densities only."""
    return _ONLY_SCORES.get()


def split_folds(X, cv, groups, random_state):
    """Return folds of rows; by default five, in which a row and its copies stay together.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows.
    cv : int, splitter or iterable
        Folds, as in scikit-learn; None is five shuffled folds, or as many as there are groups.
    groups : array-like of shape (n_samples,) or None
        Labels of groups that stay together; None is those of copies.
    random_state : int, RandomState instance or None
        Source of the default folds.

    Returns
    -------
    folds : list of (ndarray, ndarray)
        Training and test rows of each fold.
    """
    if cv is not None:
        return list(check_cv(cv).split(X, groups=groups))
    groups = copies_of(X) if groups is None else groups
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise ValueError(
            "All rows are of one group, or copies of each other: none can be left out. Give at "
            "least two groups, or folds as cv."
        )
    seed = check_random_state(random_state).randint(2**31)
    splitter = GroupKFold(min(_N_FOLDS, n_groups), shuffle=True, random_state=seed)
    return list(splitter.split(X, groups=groups))


def copies_of(X):
    """Return the group (n,) of copies of each row; rows that are not all finite numbers have none.

    Such rows are for a pipeline that encodes them or fills their holes.
    """
    rows = np.asarray(X)
    if rows.ndim == 2 and rows.dtype.kind in "fiub" and np.isfinite(rows).all():
        rows = rows if rows.dtype.kind == "f" else rows.astype(np.float64)
        return find_duplicates(rows).groups
    return np.arange(len(rows))


def check_partition(folds, n_rows):
    """Raise an error unless each row is in exactly one test part; return these, joined."""
    order = np.concatenate([test for _, test in folds])
    if not np.array_equal(np.sort(order), np.arange(n_rows)):
        raise ValueError(
            "Scoring rows out of fold only works for partitions: each row must be in the test part "
            "of exactly one fold of cv."
        )
    return order


def takes_groups(density):
    """Tell whether `fit` of a density has a parameter `groups`, or hands it on to one that has."""
    parameters = signature(density.fit).parameters.values()
    if any(parameter.name == "groups" for parameter in parameters):
        return True
    hands_on = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)
    if not hands_on or not hasattr(density, "density"):
        return False
    if _routing_enabled():
        # Then it hands on what is asked for.
        return bool(density.get_metadata_routing().consumes("fit", ["groups"]))
    # By default the density within is a flow, which has it.
    return density.density is None or takes_groups(density.density)
