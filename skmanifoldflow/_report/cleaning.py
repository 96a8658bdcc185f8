"""What of a table can be compared: rows of finite numbers in columns that vary."""

import numpy as np

from .._checks import counted, list_names

__all__ = ["MAX_NAMES", "MIN_ROWS", "clean"]

# Names that R and pandas give to row names.
_ROW_NAMES = {"Unnamed: 0", "rownames", "row.names"}
# Names of columns in one line of the report.
MAX_NAMES = 12
# With fewer, four test rows are too many to be left out.
MIN_ROWS = 12


def clean(columns, y, target):
    """Return rows of finite numbers, their labels, and sentences on what was left out.

    Left out are columns of row names, text, dates, row numbers, with more than half of the values
    missing or without two different ones; rows without a label; then, while fewer than half of the
    rows (or too few) are complete, the column with the most holes; and the other rows with holes.
    """
    notes: list[str] = []
    if not columns:
        raise ValueError(_nothing_left(notes))
    n_rows = len(next(iter(columns.values())) if y is None else y)
    if n_rows < MIN_ROWS:
        raise ValueError(_too_few(n_rows, notes))

    def leave_out(names, reason):
        if names:
            notes.append(f"Left out, {reason}: {list_names(names, MAX_NAMES)}.")
        return names

    columns = _numeric_columns(columns, leave_out)
    names = np.array(list(columns), dtype=object)
    if not len(names):
        raise ValueError(_nothing_left(notes))
    X = np.column_stack([columns[name] for name in names]).astype(np.float64)
    del columns

    if y is not None:
        has_label = np.array([_is_known(value) for value in y.tolist()], dtype=bool)
        if not has_label.all():
            n_missing = np.count_nonzero(~has_label)
            notes.append(f"Left out: {counted(n_missing, 'row')} without {target!r}.")
        X, y = X[has_label], _labels(y[has_label])
    if not len(X):
        raise ValueError(_too_few(0, notes))
    is_hole = ~np.isfinite(X)
    is_kept = _kept_columns(X, is_hole, names, leave_out)
    if not is_kept.any():
        raise ValueError(" ".join(["No column is left that varies.", *notes]))

    is_complete = ~is_hole[:, is_kept].any(axis=1)
    n_broken = len(X) - np.count_nonzero(is_complete)
    if n_broken:
        where = names[is_kept & is_hole.any(axis=0)]
        notes.append(
            f"Left out: {n_broken} of {len(X)} rows, with missing or infinite values in "
            f"{list_names(where, MAX_NAMES)}."
        )
    if len(X) - n_broken < MIN_ROWS:
        raise ValueError(_too_few(len(X) - n_broken, notes))
    y = y if y is None else y[is_complete]
    return X[np.ix_(is_complete, is_kept)], y, notes


def _numeric_columns(columns, leave_out):
    """Return the columns that hold numbers, and not the numbers of the rows."""
    first = next(iter(columns), None)
    if first in _ROW_NAMES:
        del columns[first]
        leave_out([first], "row names")
    is_number = {name: values.dtype.kind in "biuf" for name, values in columns.items()}
    leave_out([name for name, flag in is_number.items() if not flag], "not numeric")
    columns = {name: columns[name] for name, flag in is_number.items() if flag}
    counters = leave_out([n for n, v in columns.items() if _counts(v)], "numbers of the rows")
    return {name: values for name, values in columns.items() if name not in counters}


def _kept_columns(X, is_hole, names, leave_out):
    """Return which columns vary and have so few holes that enough rows are complete."""
    n_holes = is_hole.sum(axis=0)
    is_kept = 2 * n_holes <= len(X)
    leave_out(list(names[~is_kept]), "more than half missing")
    for j in np.flatnonzero(is_kept):
        values = X[~is_hole[:, j], j]
        is_kept[j] = values.min() < values.max()
    leave_out(list(names[~is_kept & (2 * n_holes <= len(X))]), "the same in all rows")
    enough, dropped = max(MIN_ROWS, len(X) / 2), []
    # Something must be left, and a column without holes costs no rows.
    while is_kept.sum() > 1 and n_holes[is_kept].any():
        if np.count_nonzero(~is_hole[:, is_kept].any(axis=1)) >= enough:
            break
        worst = np.argmax(np.where(is_kept, n_holes, -1))
        is_kept[worst] = False
        dropped.append(names[worst])
    leave_out(dropped, "so that half of the rows are complete")
    return is_kept


def _counts(values):
    """Return whether values number the rows."""
    if values.dtype.kind == "b" or len(values) < 2:
        return False
    steps = np.diff(values)
    return abs(steps[0]) == 1 and bool((steps == steps[0]).all()) and values[0] == round(values[0])


def _is_known(value):
    return value is not None and value not in (np.inf, -np.inf) and value == value


def _labels(values):
    """Return labels that scikit-learn takes: numbers as they are, all else as text."""
    if values.dtype.kind == "f" and np.array_equal(values, np.round(values)):
        return values.astype(np.int64)
    if values.dtype.kind in "iuf":
        return values
    # As objects: arrays of text are as wide as the longest of all labels.
    return np.array([str(value) for value in values.tolist()], dtype=object)


def _nothing_left(notes):
    return " ".join(["No column of numbers is left: encode columns as numbers first.", *notes])


def _too_few(n_rows, notes):
    few = f"{counted(n_rows, 'row')} to compare: at least {MIN_ROWS} are needed."
    return " ".join([few, *notes])
