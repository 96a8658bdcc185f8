"""Sets of rows that are compared with each other."""

import numpy as np
from sklearn.utils import check_array

from .._checks import list_names

__all__ = ["check_tables"]


def check_tables(*, ensure_all_finite=True, ensure_min_samples=1, **tables):
    """Return sets of rows, given by the names of the parameters that they are, as arrays.

    Raises
    ------
    ValueError
        As scikit-learn's `check_array`, and where their columns differ in number or name.
    """
    named = [
        (name, list(rows.columns)) for name, rows in tables.items() if hasattr(rows, "columns")
    ]
    for name, columns in named[1:]:
        first, expected = named[0]
        if columns != expected:
            raise ValueError(
                f"{first} and {name} must have the same columns in the same order, got "
                f"{list_names(expected)} and {list_names(columns)}."
            )
    arrays = [
        check_array(
            rows,
            dtype=np.float64,
            ensure_all_finite=ensure_all_finite,
            ensure_min_samples=ensure_min_samples,
            input_name=name,
        )
        for name, rows in tables.items()
    ]
    widths = [rows.shape[1] for rows in arrays]
    if len(set(widths)) > 1:
        raise ValueError(
            f"{_listed(tables)} must have as many columns, got {_listed(map(str, widths))}."
        )
    return arrays


def _listed(words):
    *before, last = words
    return f"{', '.join(before)} and {last}"
