"""What of a table can be modelled: rows of finite numbers in columns that vary."""

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .._checks import counted, list_names
from .encoding import (
    MAX_LEVELS,
    Encoder,
    Part,
    category_parts,
    dates_of,
    days_of,
    digits_of,
    encode,
    is_hole,
    numbers_of,
)

__all__ = ["MAX_NAMES", "MIN_ROWS", "Cleaned", "clean"]

# Names that R and pandas give to row names.
_ROW_NAMES = {"Unnamed: 0", "rownames", "row.names", "index"}
_ID_NAME = re.compile(
    r"(.*[\W_])?(?i:seq|serial|case|subject|record|row)?"
    r"((?i:id|key|uuid|index|idx|number|code)|[Nn][or])"
    r"|.*[a-z]I[dD]|[CPSU]ID",
    re.ASCII,
)
# Names of whole numbers that are ids also where several rows have the same.
_ALWAYS_ID_NAME = re.compile(r"(.*[\W_])?(id|ID|Id|uuid)|.*[a-z]I[dD]", re.ASCII)
# Names of whole numbers that are counts of rows also where they begin anew in each group.
_INDEX_NAME = re.compile(r"(?i:(.*[\W_])?(index|idx))", re.ASCII)
_TIME_NAME = re.compile(r"(.*[\W_])?(time|date|year|month|week|day|hour)", re.IGNORECASE)
# Why numbers are left out.
_COUNTED = "numbers that go by the same step from row to row"
_DIFFERENT = "whole numbers that are different in every row, as ids and ranks are"
_IDS = "ids"
_BEGIN_ANEW = "numbers of rows that begin anew in each group"
# Distance from a line, in half of a range, that rounded logarithms may have.
_ROUNDING_OF_LOGS = 1e-4
# Times such as years with months are rounded.
_ROUNDING_OF_TIME = 0.02
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
    wanted = set(wanted)

    rows = np.arange(n_rows)
    if y is not None:
        has_label = np.array([_is_known(value) for value in y.tolist()], dtype=bool)
        if not has_label.all():
            n_missing = np.count_nonzero(~has_label)
            notes.append(f"Left out: {counted(n_missing, 'row')} without {target!r}.")
        rows, X, y = rows[has_label], X[has_label], labels_of(y[has_label])
    if not len(X):
        raise ValueError(_too_few(0, notes))
    X = np.where(np.isfinite(X), X, np.nan)
    X, parts = _without_empty(X, parts, wanted, notes)
    X, parts = _without_constants(X, parts, notes, "rows")
    # Before rows with holes go: a copy may have holes where the other column has none.
    X, parts = _without_copies(X, parts, wanted, notes)
    if not impute:
        X, parts = _without_costly(X, parts, wanted, notes)
    is_hole_ = np.isnan(X)
    names = np.array([part.name for part in parts], dtype=object)

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
        X, parts = _without_constants(X, parts, notes, "complete rows")
        X, parts = _without_copies(X, parts, wanted, notes)
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
    numbers, dates, categories, orders = [], [], [], []
    numbered: dict[str, list[str]] = {
        reason: [] for reason in (_COUNTED, _DIFFERENT, _IDS, _BEGIN_ANEW)
    }
    unique: list[str] = []
    texts: list[str] = []
    for name, values in list(columns.items()):
        found = days_of(name, values) if values.dtype.kind in "iuf" else None
        if found is None and values.dtype.kind in "biuf":
            is_free = name not in wanted and values.dtype.kind != "b"
            reason = _reason_of_numbers(name, values) if is_free else None
            if reason is None:
                taken[name] = [Part(name, "number")]
            else:
                numbered[reason].append(name)
            continue
        found = dates_of(values) if found is None else found
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
    for reason, names in numbered.items():
        notes.leave_out(names, reason)
    notes.leave_out(orders, "dates in the order of the rows")
    parts = [part for of_column in taken.values() for part in of_column]
    if not parts:
        raise ValueError(_nothing_left(notes))
    of_text = _names_of_rows([columns[name] for name in unique[:1] or texts[:2]])
    return parts, np.column_stack([encode(p, columns[p.column]) for p in parts]), of_text


def _names_of_rows(columns):
    """Return the names that columns of text give to the rows, or None."""
    if not columns:
        return None
    rows = zip(*(values.tolist() for values in columns), strict=True)
    names = [", ".join(str(value) for value in row if not is_hole(value)) for row in rows]
    return np.array(names, dtype=object)


def _without_empty(X, parts, wanted, notes):
    """Leave out columns with more than half of the values missing."""
    n_holes = np.isnan(X).sum(axis=0)
    is_wanted = np.array([part.name in wanted for part in parts], dtype=bool)
    is_kept = (2 * n_holes <= len(X)) | (is_wanted & (n_holes < len(X)))
    return _kept(X, parts, is_kept, notes, "more than half missing")


def _without_costly(X, parts, wanted, notes):
    """Leave out columns with many holes until enough rows are complete."""
    is_hole_ = np.isnan(X)
    n_holes = is_hole_.sum(axis=0)
    is_free = np.array([part.name not in wanted for part in parts], dtype=bool)
    is_kept, enough = np.ones(len(parts), dtype=bool), max(MIN_ROWS, len(X) / 2)
    # Something must be left, and a column without holes costs no rows.
    while is_kept.sum() > 1 and n_holes[is_kept & is_free].any():
        if np.count_nonzero(~is_hole_[:, is_kept].any(axis=1)) >= enough:
            break
        is_kept[np.argmax(np.where(is_kept & is_free, n_holes, -1))] = False
    return _kept(X, parts, is_kept, notes, "so that half of the rows are complete")


def _kept(X, parts, is_kept, notes, reason):
    """Return the columns that are kept; the names of the others are said, the most holes first."""
    others = np.flatnonzero(~is_kept)
    others = others[np.argsort(-np.isnan(X[:, others]).sum(axis=0), kind="stable")]
    notes.leave_out([parts[j].name for j in others], reason)
    if not is_kept.any():
        raise ValueError(" ".join(["No column is left that varies.", *notes]))
    return X[:, is_kept], [part for part, flag in zip(parts, is_kept, strict=True) if flag]


def _without_constants(X, parts, notes, which):
    """Leave out columns that do not vary, and values of categories that none of the rows has."""
    varies = np.nanmin(X, axis=0) < np.nanmax(X, axis=0)
    constant: list[str] = []
    gone: list[str] = []
    parts = list(parts)
    for column in dict.fromkeys(part.column for part in parts):
        indices = [j for j, part in enumerate(parts) if part.column == column]
        left = [j for j in indices if varies[j]]
        if not left:
            constant.append(column)
        elif len(left) < len(indices):
            # Each value has a column, and those that are left are all that the rows have.
            gone.extend(parts[j].name for j in indices if not varies[j])
            levels = tuple(str(parts[j].level) for j in left)
            for j in left:
                parts[j] = replace(parts[j], levels=levels)
            # The second of two values needs no column of its own.
            varies[left[0]] &= len(left) > 2
    notes.leave_out(constant, f"the same in all {which}")
    notes.say(gone, f"Values that none of the {which} has")
    if not varies.any():
        raise ValueError(" ".join(["No column is left that varies.", *notes]))
    return X[:, varies], [part for part, flag in zip(parts, varies, strict=True) if flag]


def _without_copies(X, parts, wanted, notes):
    """Leave out columns that are others in other units: a density would have no bound.

    Of two the one with fewer holes stays. A category is a copy if each of its values is.
    """
    is_known = ~np.isnan(X)
    kept: list[int] = []
    of: dict[int, int] = {}
    for j in np.argsort(-is_known.sum(axis=0), kind="stable").tolist():
        others = [k for k in kept if parts[k].column != parts[j].column]
        if parts[j].column not in wanted:
            rows = is_known[:, j]
            others = [k for k in others if rows.all() or is_known[rows, k].all()]
            original = _original(X[rows, j], X[:, others] if rows.all() else X[rows][:, others])
            if original is not None:
                of[j] = others[original]
                continue
        kept.append(j)
    copies, is_kept = [], np.ones(len(parts), dtype=bool)
    for column in dict.fromkeys(parts[j].column for j in sorted(of)):
        indices = [j for j, part in enumerate(parts) if part.column == column]
        if all(j in of for j in indices):
            is_kept[indices] = False
            originals = dict.fromkeys(
                parts[of[j]].name if len(indices) == 1 else parts[of[j]].column for j in indices
            )
            copies.append(f"{column} (as {' and '.join(originals)})")
    notes.leave_out(copies, "the same as another column, or in other units")
    return X[:, is_kept], [part for part, flag in zip(parts, is_kept, strict=True) if flag]


def _original(values, others):
    """Return the index of the column that values are the same as in other units, or None.

    Other units are those of a straight line, or of logarithms, which are mostly rounded.
    """
    if not others.shape[1]:
        return None
    found = _on_a_line(values, others, 1e-6)
    if found is None and values.min() > 0:
        found = _on_a_line(np.log(values), others, _ROUNDING_OF_LOGS)
    is_positive = np.flatnonzero(others.min(axis=0) > 0)
    if found is None and len(is_positive):
        found = _on_a_line(values, np.log(others[:, is_positive]), _ROUNDING_OF_LOGS)
        found = None if found is None else int(is_positive[found])
    return found


def _on_a_line(values, others, tolerance):
    """Return the index of the column that values are a linear function of, or None."""
    values, others = values - values.mean(), others - others.mean(axis=0)
    values = values / np.abs(values).max()
    size = np.abs(others).max(axis=0)
    # Of rows with a value only, another column may be constant.
    others = others / np.where(size > 0, size, 1)
    norms = np.linalg.norm(others, axis=0)
    near = np.abs(values @ others) / (np.linalg.norm(values) * np.where(norms > 0, norms, 1))
    best = int(near.argmax())
    if near[best] <= 1 - tolerance**1.5:
        return None
    sign = np.sign(values @ others[:, best])
    return best if np.abs(values - sign * others[:, best]).max() < tolerance else None


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


def _reason_of_numbers(name, values):
    """Return why numbers are those of the rows and nothing to compare them by, or None."""
    if _counts(name, values):
        return _COUNTED
    if _is_id(name, values):
        return _DIFFERENT
    if _is_repeated_id(name, values):
        return _IDS
    return _BEGIN_ANEW if _INDEX_NAME.fullmatch(str(name)) and _begins_anew(values) else None


def _counts(name, values):
    """Return whether values number the rows, or are times at regular intervals."""
    if len(values) < 2 or not np.isfinite(values).all():
        return False
    with np.errstate(over="ignore"):
        steps = np.diff(values.astype(np.float64))
    if (values == np.round(values)).all():
        return bool(steps[0] != 0 and (steps == steps[0]).all())
    middle = float(np.median(steps))
    is_even = np.abs(steps - middle).max() <= _ROUNDING_OF_TIME * abs(middle)
    return bool(middle != 0 and is_even and _TIME_NAME.fullmatch(str(name)))


def _begins_anew(values):
    """Return whether values count from the first one on, again and again."""
    begins = values == values[0]
    return bool((begins[1:] | (np.diff(values.astype(np.float64)) == 1)).all()) and not begins.all()


def _is_id(name, values):
    """Return whether integers are different in every row, and fill a range or are called ids."""
    distinct, n_known = _whole_numbers(values)
    if len(distinct) < n_known or 2 * n_known < len(values) or n_known < 2:
        return False
    return distinct[-1] - distinct[0] == n_known - 1 or bool(_ID_NAME.fullmatch(str(name)))


def _is_repeated_id(name, values):
    """Return whether integers are many, and called ids."""
    return len(_whole_numbers(values)[0]) > MAX_LEVELS and bool(
        _ALWAYS_ID_NAME.fullmatch(str(name))
    )


def _whole_numbers(values):
    """Return the different values, if all are whole numbers, and how many are not missing."""
    known = values[np.isfinite(values)]
    if not (known == np.round(known)).all():
        return known[:0], len(known)
    return np.unique(known), len(known)


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
