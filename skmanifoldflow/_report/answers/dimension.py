"""How many things vary: the dimension of the columns of numbers."""

import numpy as np

from ..._checks import counted
from ..._dimension import intrinsic_dimension
from .answer import Answer

__all__ = ["about_dimension"]

# Values from which on a column has a dimension, and rows with which that is a guess.
_MANY_VALUES, _FEW_ROWS = 10, 50


def about_dimension(data):
    """Return the report of the dimension, or None, and say how many numbers vary freely."""
    answer = Answer("How many things vary?")
    # Few values have no dimension, and are on their way to being categories.
    is_taken = np.array(
        [
            part.kind != "category" and len(np.unique(data.X[:, j])) >= _MANY_VALUES
            for j, part in enumerate(data.encoder.parts)
        ]
    )
    X = data.X[:, is_taken]
    n_columns = X.shape[1]
    if not n_columns:
        answer.sentences.append("All columns are categories or have few values: no dimension.")
        return None, answer
    report = intrinsic_dimension(X)
    d = report.dimension
    columns = "column" if n_columns == 1 else f"{n_columns} columns"
    of = "of numbers" if is_taken.all() else "that take many values"
    if d >= n_columns:
        answer.sentences.append(
            "As many as there are columns: none of them follows from the others."
            if n_columns > 1
            else "One: there is a single column that takes many values."
        )
    else:
        answer.sentences.append(
            f"About {d}: {counted(d, 'number')} would nearly tell all {columns} {of}."
        )
    if n_columns > 1:
        answer.sentences.append(_how_sure(report))
    answer.code = "skmanifoldflow.intrinsic_dimension(X)"
    return report, answer


def _how_sure(report):
    if not report.neighbors or report.n_rows < _FEW_ROWS:
        return f"With {report.n_rows} different rows this is a guess."
    says = f"nearest neighbours say {report.estimate:.1f}"
    if report.agreement == "good":
        return f"That is rather sure: {says}, from {report.n_rows} different rows."
    if report.agreement == "fair":
        return f"It may be one more or less: {says}, from {report.n_rows} different rows."
    return (
        f"That is a guess: {says}, which contradicts it. Values that repeat, clusters and few rows "
        "have no clear dimension."
    )
