"""What of a table can be modelled: rows of finite numbers in columns that vary."""

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .._checks import counted, list_names
from .encoding import (
    Encoder,
    Part,
    category_parts,
    dates_of,
    digits_of,
    encode,
    is_hole,
    numbers_of,
)

__all__ = ["MAX_NAMES", "MIN_ROWS", "Cleaned", "clean"]

# Names that R and pandas give to row names.
_ROW_NAMES = {"Unnamed: 0", "rownames", "row.names", "index"}
_ID_NAME = re.compile(r"(.*[\W_])?(id|key|uuid|index|idx|no|nr|number|code)|.*[a-z]I[dD]", re.ASCII)
# Names of columns in one line of the report.
MAX_NAMES = 12
# With fewer, four test rows are too many to be left out.
MIN_ROWS = 12
# Rows that lend their values to rows with holes, and rows that are compared with them at once.
_MAX_DONORS, _AT_ONCE = 3000, 500


class Cleaned(NamedTuple):
    """Rows of numbers of a table, and what is known of them.

    Attributes
    ----------
    X : ndarray of shape (n_rows, n_parts)
        Finite numbers.
    y : ndarray of shape (n_rows,) or None
        Labels.
    encoder : Encoder
        What the columns of X are.
    rows : ndarray of int of shape (n_rows,)
        Places of the rows in the table, from 0.
    labels : ndarray of str of shape (n_rows,) or None
        Names of the rows, where the table has any.
    notes : list of str
        A sentence for each decision.
    """

    X: np.ndarray
    y: np.ndarray | None
    encoder: Encoder
    rows: np.ndarray
    labels: np.ndarray | None
    notes: list[str]


class _Notes(list):
    """Sentences, each of which names columns."""

    def say(self, names, what):
        if names:
            self.append(f"{what}: {list_names(names, MAX_NAMES)}.")

    def leave_out(self, names, reason):
        self.say(names, f"Left out, {reason}")


def clean(columns, y=None, target=None, wanted=(), impute=False):
    """Return the rows of a table as finite numbers, and a sentence for each decision.

    Dates become days, text of few values a column for each value. Left out are names and numbers of
    the rows, other text, columns with more than half of the values missing, without two different
    ones or equal to another; rows without a label; then, while fewer than half of the rows (or too
    few) are complete, the column with the most holes; and the other rows with holes.

    Parameters
    ----------
    columns : dict of str to ndarray
        The table.
    y : ndarray or None
        Labels.
    target : str or None
        Name of the labels.
    wanted : collection of str
        Columns that are kept although they look like numbers of the rows or copies.
    impute : bool
        Fill holes by the values of the most similar rows, in place of leaving rows out.
    """
    notes = _Notes()
    if not columns:
        raise ValueError(_nothing_left(notes))
    n_rows = len(next(iter(columns.values())) if y is None else y)
    if n_rows < MIN_ROWS:
        raise ValueError(_too_few(n_rows, notes))
    labels, columns = _row_names(columns, wanted, notes)
    parts, X, of_text = _encoded(columns, wanted, notes)
    labels = of_text if labels is None else labels
    names = np.array([part.name for part in parts], dtype=object)

    rows = np.arange(n_rows)
    if y is not None:
        has_label = np.array([_is_known(value) for value in y.tolist()], dtype=bool)
        if not has_label.all():
            n_missing = np.count_nonzero(~has_label)
            notes.append(f"Left out: {counted(n_missing, 'row')} without {target!r}.")
        rows, X, y = rows[has_label], X[has_label], labels_of(y[has_label])
    if not len(X):
        raise ValueError(_too_few(0, notes))
    is_hole_ = ~np.isfinite(X)
    is_kept = _kept_columns(X, is_hole_, names, notes, set(wanted), impute)
    if not is_kept.any():
        raise ValueError(" ".join(["No column is left that varies.", *notes]))
    X, is_hole_ = X[:, is_kept], is_hole_[:, is_kept]
    parts, names = [p for p, flag in zip(parts, is_kept, strict=True) if flag], names[is_kept]

    is_broken = is_hole_.any(axis=1)
    n_broken, where = (
        np.count_nonzero(is_broken),
        list_names(names[is_hole_.any(axis=0)], MAX_NAMES),
    )
    if n_broken and impute:
        X = _filled(X, is_hole_)
        notes.append(
            f"Filled in {n_broken} of {len(X)} rows, from the most similar rows: missing values in "
            f"{where}."
        )
    elif n_broken:
        notes.append(
            f"Left out: {n_broken} of {len(X)} rows, with missing or infinite values in {where} "
            "(--impute fills them in)."
        )
        if len(X) - n_broken < MIN_ROWS:
            raise ValueError(_too_few(len(X) - n_broken, notes))
        X, rows, y = X[~is_broken], rows[~is_broken], None if y is None else y[~is_broken]
    X, parts = _without_constants(X, parts, notes)
    X, parts = _without_copies(X, parts, set(wanted), notes)
    parts = [replace(part, digits=digits_of(X[:, j])) for j, part in enumerate(parts)]
    labels = None if labels is None else labels[rows]
    return Cleaned(X, y, Encoder(parts), rows, labels, list(notes))


def _row_names(columns, wanted, notes):
    """Return the names of the rows, or None, and the other columns."""
    first = next(iter(columns))
    if first in _ROW_NAMES and first not in wanted:
        values = columns[first]
        columns = {name: v for name, v in columns.items() if name != first}
        notes.leave_out([first], "row names")
        if values.dtype.kind in "biuf":
            return None, columns
        return np.array([str(value) for value in values.tolist()], dtype=object), columns
    return None, dict(columns)


def _encoded(columns, wanted, notes):
    """Return the parts, their numbers, and text that is left out and names rows, or None."""
    taken: dict[str, list[Part]] = {}
    numbers, dates, categories, counters, orders = [], [], [], [], []
    unique: list[str] = []
    texts: list[str] = []
    for name, values in list(columns.items()):
        if values.dtype.kind in "biuf":
            is_free = name not in wanted and values.dtype.kind != "b"
            if is_free and (_counts(values) or _is_id(name, values)):
                counters.append(name)
            else:
                taken[name] = [Part(name, "number")]
            continue
        found = dates_of(values)
        if found is not None:
            if name not in wanted and _is_order(found):
                orders.append(name)
                continue
            dates.append(name)
            taken[name] = [Part(name, "date", origin=_first_day(found))]
            continue
        as_numbers = numbers_of(values)
        if as_numbers is not None:
            numbers.append(name)
            columns[name] = as_numbers
            taken[name] = [Part(name, "number")]
            continue
        parts = category_parts(name, values)
        if parts:
            categories.append(f"{name} ({len(parts[0].levels)})")
            taken[name] = parts
            continue
        known = [str(value) for value in values.tolist() if not is_hole(value)]
        if len(set(known)) > 1:
            (unique if len(set(known)) == len(known) else texts).append(name)
        else:
            taken[name] = []
            notes.leave_out([name], "the same in all rows")
    notes.say(numbers, "Taken for numbers, other text for missing values")
    notes.say(dates, "Taken for dates, as days since the first")
    notes.say(categories, "Taken for categories, a column for each value (number of values)")
    notes.leave_out(unique, "text that is different in every row")
    notes.leave_out(texts, "text with many values")
    notes.leave_out(counters, "numbers of the rows, or ranks")
    notes.leave_out(orders, "dates in the order of the rows")
    parts = [part for of_column in taken.values() for part in of_column]
    if not parts:
        raise ValueError(_nothing_left(notes))
    named = next(iter([*unique, *texts]), None)
    of_text = None
    if named is not None:
        of_text = np.array([str(value) for value in columns[named].tolist()], dtype=object)
    return parts, np.column_stack([encode(p, columns[p.column]) for p in parts]), of_text


def _kept_columns(X, is_hole_, names, notes, wanted, impute):
    """Return which columns vary and have so few holes that enough rows are complete."""
    n_holes = is_hole_.sum(axis=0)
    is_wanted = np.array([name in wanted for name in names], dtype=bool)
    is_kept = (2 * n_holes <= len(X)) | (is_wanted & (n_holes < len(X)))
    notes.leave_out(list(names[~is_kept]), "more than half missing")
    is_full = is_kept.copy()
    for j in np.flatnonzero(is_kept):
        values = X[~is_hole_[:, j], j]
        is_kept[j] = values.min() < values.max()
    notes.leave_out(list(names[~is_kept & is_full]), "the same in all rows")
    enough, dropped = max(MIN_ROWS, len(X) / 2), []
    # Something must be left, and a column without holes costs no rows.
    while not impute and is_kept.sum() > 1 and n_holes[is_kept & ~is_wanted].any():
        if np.count_nonzero(~is_hole_[:, is_kept].any(axis=1)) >= enough:
            break
        worst = np.argmax(np.where(is_kept & ~is_wanted, n_holes, -1))
        is_kept[worst] = False
        dropped.append(names[worst])
    notes.leave_out(dropped, "so that half of the rows are complete")
    return is_kept


def _without_constants(X, parts, notes):
    """Leave out columns that vary in rows with holes only."""
    varies = X.min(axis=0) < X.max(axis=0)
    if varies.all():
        return X, parts
    notes.leave_out(
        [part.name for part, flag in zip(parts, varies, strict=True) if not flag],
        "the same in all complete rows",
    )
    if not varies.any():
        raise ValueError(" ".join(["No column is left that varies.", *notes]))
    return X[:, varies], [part for part, flag in zip(parts, varies, strict=True) if flag]


def _without_copies(X, parts, wanted, notes):
    """Leave out columns that are others in other units: a density would have no bound."""
    scaled = X - X.mean(axis=0)
    size = np.abs(scaled).max(axis=0)
    scaled = scaled / np.where(size > 0, size, 1)
    scaled /= np.linalg.norm(scaled, axis=0)
    kept: list[int] = []
    copies = []
    for j, part in enumerate(parts):
        of = None
        if kept and part.column not in wanted:
            near = np.abs(scaled[:, j] @ scaled[:, kept])
            best = int(near.argmax())
            if near[best] > 1 - 1e-9:
                sign = np.sign(scaled[:, j] @ scaled[:, kept[best]])
                off = np.abs(scaled[:, j] - sign * scaled[:, kept[best]]).max()
                of = kept[best] if off < 1e-6 * np.abs(scaled[:, j]).max() else None
        if of is None:
            kept.append(j)
        else:
            copies.append(f"{part.name} (as {parts[of].name})")
    notes.leave_out(copies, "the same as another column, or in other units")
    return X[:, kept], [parts[j] for j in kept]


def _filled(X, is_hole_):
    """Return rows without holes: each gets the value of the most similar row that has one."""
    X = X.copy()
    X[is_hole_] = np.nan
    with np.errstate(invalid="ignore"):
        Z = (X - np.nanmean(X, axis=0)) / np.nanstd(X, axis=0)
    filled = np.where(is_hole_, 0.0, Z)
    order = np.random.RandomState(0).permutation(len(X))
    # Rows with few holes lend most; each column has a donor among all rows.
    donors = order[np.argsort(is_hole_[order].sum(axis=1), kind="stable")][:_MAX_DONORS]
    lacking = np.flatnonzero(is_hole_[donors].all(axis=0))
    if len(lacking):
        donors = np.union1d(donors, [np.flatnonzero(~is_hole_[:, j])[0] for j in lacking])
    b, known_b = filled[donors], (~is_hole_[donors]).astype(float)
    broken = np.flatnonzero(is_hole_.any(axis=1))
    for start in range(0, len(broken), _AT_ONCE):
        rows = broken[start : start + _AT_ONCE]
        a, known_a = filled[rows], (~is_hole_[rows]).astype(float)
        n_common = known_a @ known_b.T
        squared = (a**2) @ known_b.T + known_a @ (b**2).T - 2 * a @ b.T
        distance = np.where(n_common > 0, squared / np.maximum(n_common, 1), np.inf)
        for j in np.flatnonzero(is_hole_[rows].any(axis=0)):
            lends = np.where(known_b[:, j] > 0, 0.0, np.inf)
            takes = np.flatnonzero(is_hole_[rows, j])
            nearest = np.minimum(distance[takes], 1e300) + lends
            X[rows[takes], j] = X[donors[nearest.argmin(axis=1)], j]
    return X


def _counts(values):
    """Return whether values number the rows."""
    if len(values) < 2:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.diff(values)
        return (
            abs(steps[0]) == 1 and bool((steps == steps[0]).all()) and values[0] == round(values[0])
        )


def _is_id(name, values):
    """Return whether integers are different in every row, and fill a range or are called ids."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or not (values == np.round(values)).all():
            return False
    distinct = np.unique(values)
    if len(distinct) < len(values):
        return False
    return distinct[-1] - distinct[0] == len(values) - 1 or bool(_ID_NAME.fullmatch(str(name)))


def _is_order(dates):
    """Return whether dates number the rows."""
    return not np.isnat(dates).any() and bool(
        (np.diff(dates).astype(int) > 0).all() or (np.diff(dates).astype(int) < 0).all()
    )


def _first_day(dates):
    return dates[~np.isnat(dates)].min().astype("datetime64[D]")


def _is_known(value):
    return value is not None and value not in (np.inf, -np.inf) and value == value


def labels_of(values):
    """Return labels that scikit-learn takes: numbers as they are, all else as text."""
    if values.dtype.kind == "f" and np.array_equal(values, np.round(values)):
        return values.astype(np.int64)
    if values.dtype.kind in "iuf":
        return values
    # As objects: arrays of text are as wide as the longest of all labels.
    return np.array([str(value) for value in values.tolist()], dtype=object)


def _nothing_left(notes):
    return " ".join(
        ["No column of numbers, dates or categories is left that rows can be compared by.", *notes]
    )


def _too_few(n_rows, notes):
    few = f"{counted(n_rows, 'row')} to compare: at least {MIN_ROWS} are needed."
    return " ".join([few, *notes])
