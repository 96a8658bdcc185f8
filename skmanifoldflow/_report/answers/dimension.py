"""How many things vary: the dimension of the columns of numbers."""

import warnings

import numpy as np
from scipy.stats import norm, rankdata

from ..._checks import counted
from ..._columns import spacing, spread
from ..._dimension import intrinsic_dimension
from .answer import Answer

__all__ = ["about_dimension", "has_many_values", "steps_of_repeats"]

# Values from which on a column has a dimension, and rows with which that is a guess.
MANY_VALUES, _FEW_ROWS = 10, 100
# Rows that are looked at: readings take fewer.
_MAX_ROWS = 20_000
# Share of the rows from which on a value is more than one of a scale.
_SHARE_OF_SPIKE = 0.5


def about_dimension(data):
    """Return the report of the dimension, or None, and say how many numbers vary freely."""
    answer = Answer("How many things vary?")
    # Few values have no dimension, and are on their way to being categories.
    is_taken = has_many_values(data)
    some = np.random.RandomState(0).permutation(len(data.X))[:_MAX_ROWS]
    X, n_columns = data.X[np.ix_(np.sort(some), is_taken)], int(is_taken.sum())
    if not n_columns:
        answer.sentences.append("All columns are categories or have few values: no dimension.")
        return None, answer
    answer.code = "skmanifoldflow.intrinsic_dimension(X)"
    report = _reading(X)
    if n_columns == 1:
        name = data.encoder.names[int(is_taken.argmax())]
        answer.sentences.append(
            "One: there is a single column."
            if len(is_taken) == 1
            else f"Only {name} takes many values: of the other columns there is no dimension."
        )
        return report, answer
    readings = {min(report.dimension, n_columns)}
    # Values such as years put rows on lines and planes.
    if data.image_shape is None and steps_of_repeats(X).any():
        readings.add(min(_reading(_as_normal(X)).dimension, n_columns))
    low, high = min(readings), max(readings)
    of = "of numbers" if is_taken.all() else "that take many values"
    if low < high:
        answer.sentences += [
            f"Between {low} and {high}, of {n_columns} columns {of}.",
            "Values that repeat leave it open: the two are readings in the units of the columns, "
            "and of their ranks.",
        ]
        return report, answer
    if low == n_columns:
        answer.sentences.append(
            f"As many as there are columns {of}, {n_columns}: none of them follows from the others."
        )
    else:
        answer.sentences.append(
            f"About {low}: {counted(low, 'number')} would nearly tell all {n_columns} columns {of}."
        )
    answer.sentences.append(_how_sure(report, n_columns))
    return report, answer


def _reading(X):
    """Return the report of the dimension; the answer says what it would warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return intrinsic_dimension(X)


def _as_normal(X):
    """Return rows with other units, in which columns are normal: the dimension is the same.

    Values that repeat are spread over their steps, but for one that is most of a column.
    """
    steps = steps_of_repeats(X)
    for j, column in enumerate(X.T):
        if np.unique(column, return_counts=True)[1].max() > _SHARE_OF_SPIKE * len(X):
            steps[j] = 0.0
    ranks = rankdata(spread(X, steps, np.random.RandomState(0)), axis=0)
    return norm.ppf(ranks / (len(X) + 1))


def has_many_values(data):
    """Return which columns of numbers take so many values that they have a dimension."""
    return np.array(
        [
            part.kind != "category" and len(np.unique(data.X[:, j])) >= MANY_VALUES
            for j, part in enumerate(data.encoder.parts)
        ]
    )


def steps_of_repeats(X):
    """Return the spacing (D,) of the values of columns in which most repeat, 0 of the others."""
    distinct = [np.unique(column) for column in X.T]
    return np.array([spacing(values) if len(values) < len(X) // 2 else 0.0 for values in distinct])


def _how_sure(report, n_columns):
    if not report.neighbors or report.n_rows < _FEW_ROWS:
        return f"With {report.n_rows} different rows this is a guess."
    says = f"nearest neighbours say {report.estimate:.1f}"
    if report.estimate >= n_columns <= report.dimension:
        says = "nearest neighbours say no less"
    if report.agreement == "good" or says.endswith("less"):
        return f"That is rather sure: {says}, from {report.n_rows} different rows."
    if report.agreement == "fair":
        more = "one more or less" if report.dimension < n_columns else "one less"
        return f"It may be {more}: {says}, from {report.n_rows} different rows."
    return (
        f"That is a guess: {says}, which contradicts it. Values that repeat, clusters and few rows "
        "have no clear dimension."
    )
