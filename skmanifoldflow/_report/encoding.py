"""Columns of a table as numbers: what each is taken for, and back from numbers to the table."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from .text_format import HOLES, NONE, columns_of

__all__ = ["Encoder", "Part", "at_or_below", "category_parts", "dates_of", "days_of", "numbers_of"]

# Values of a category, each of at least so many rows; others are joined.
MAX_LEVELS, _MIN_ROWS_OF_LEVEL = 20, 5
# Share of the known values of a column of text that are numbers or dates if it is one of them.
_MOST = 0.9
# Part of a step by which values may miss it.
_ROUNDING_OF_STEPS = 1e-7
OTHER, MISSING = "other", "missing"

# How dates are written; the first that most values follow counts. A clock may come behind.
_DATE_FORMATS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y"),
    *("%m/%d/%y", "%d/%m/%y", "%d.%m.%y"),
    *("%b %d %Y", "%b %d, %Y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%B %d, %Y"),
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_IS_DATE_LIKE = re.compile(r"\w+[-/. ,]+\w+[-/. ,]+\d+(?:[T ]\d.*)?")
_DAY = np.timedelta64(1, "D")
_DATE_NAME = re.compile(r"(.*[\W_])?(date|day|datum|yymmdd)", re.IGNORECASE)
# A word of letters and digits.
_CODE = re.compile(r"(?=.*\d)(?=.*[^\W\d_])\w+")


@dataclass(frozen=True)
class Part:
    """One column of numbers, and the column of the table that it comes from.

    Attributes
    ----------
    column : str
        Name of the column of the table.
    kind : {"number", "date", "category"}
        What that is taken for. A date is a number of days since `origin`.
    level : str or None
        Value of a category that this column is 1 for.
    levels : tuple of str
        All values of the category, the first of them without a column of its own where there are
        two.
    origin : numpy.datetime64 or None
        First date.
    step : float
        Spacing of the values, 0 where there is none.
    digits : int
        Digits behind the point that the values have, at most 6.
    start : float
        A value, from which the others are whole steps away.
    values : ndarray or None
        All values in order, where these are few or no whole steps apart.
    """

    column: str
    kind: str
    level: str | None = None
    levels: tuple[str, ...] = ()
    origin: np.datetime64 | None = None
    step: float = 0.0
    digits: int = 6
    start: float = 0.0
    values: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def name(self):
        """The name of the column of numbers."""
        return self.column if self.level is None else f"{self.column}={self.level}"


# ------------------------------------------------------------------ recognition


def numbers_of(values):
    """Return a column of text as numbers, NaN where a value is none, or None if most are none.

    With codes among them, such as 136A, the numbers are codes too.
    """
    numbers, n_known = np.full(len(values), np.nan), 0
    for i, value in enumerate(values.tolist()):
        if is_hole(value):
            continue
        n_known += 1
        try:
            numbers[i] = float(value)
        except (TypeError, ValueError):
            if _CODE.fullmatch(str(value).strip()):
                return None
    n_numbers = np.count_nonzero(~np.isnan(numbers))
    return numbers if n_known and n_numbers >= _MOST * n_known else None


def dates_of(values):
    """Return a column as datetime64, NaT where a value is no date, or None if most are none."""
    if values.dtype.kind == "M":
        return values.astype("datetime64[s]")
    if values.dtype.kind in "iuf":
        return days_of("date", values)
    known = [value for value in values.tolist() if not is_hole(value)]
    if not known:
        return None
    is_text = isinstance(known[0], str)
    if is_text:
        some = known[:: max(1, len(known) // 1000)]
        n_like = sum(bool(_IS_DATE_LIKE.fullmatch(str(value).strip())) for value in some)
        if n_like < _MOST * len(some):
            return None
    elif not hasattr(known[0], "year"):
        return None
    from pandas import to_datetime

    clocked = [day + clock for day in _DATE_FORMATS for clock in _CLOCKS]
    formats = ["ISO8601", *clocked] if is_text else [None]
    best, n_best = None, _MOST * len(known)
    texts = [None if is_hole(value) else value for value in values.tolist()]
    some = texts[:: max(1, len(texts) // 1000)]
    for form in formats:
        n_some = to_datetime(some, format=form, errors="coerce", utc=True).notna().sum()
        if n_some < _MOST * sum(value is not None for value in some):
            continue
        found = to_datetime(texts, format=form, errors="coerce", utc=True)
        if found.notna().sum() >= n_best:
            best = found.tz_localize(None).to_numpy().astype("datetime64[s]")
            if form is not None and "%y" in form:
                best = _past(best)
            break
    return best


def days_of(name, values):
    """Return whole numbers such as 20240131, or 240131 in a column of dates, as dates, or None."""
    known = values[np.isfinite(values)]
    if len(known) < 2 or not (known == np.round(known)).all():
        return None
    if 18_000_000 < known.min() and known.max() < 21_000_000:
        form = "%Y%m%d"
    elif 0 < known.min() and known.max() < 1_000_000 and _DATE_NAME.fullmatch(str(name)):
        form = "%y%m%d"
    else:
        return None
    from pandas import to_datetime

    digits = 8 if form[1] == "Y" else 6
    texts = [f"{value:0{digits}.0f}" if np.isfinite(value) else None for value in values]
    dates = to_datetime(texts, format=form, errors="coerce").to_numpy().astype("datetime64[s]")
    if np.isnat(dates).sum() > len(values) - len(known):
        return None
    return dates if digits == 8 else _past(dates)


def _past(dates):
    """Return dates whose years were written with two digits, none of them in the future."""
    is_late = dates > np.datetime64("now") + 365 * _DAY
    years = dates.astype("datetime64[Y]")
    earlier = (years - 100).astype("datetime64[s]") + (dates - years.astype("datetime64[s]"))
    return np.where(is_late, earlier, dates)


def category_parts(name, values):
    """Return the parts of a column of text with few values, or an empty list if there are many.

    Missing values are a value of their own.
    """
    counts = Counter(_level_of(value) for value in values.tolist())
    n = len(values)
    if not 2 <= len(counts) <= min(MAX_LEVELS, n // 4):
        return []
    rare = [level for level, count in counts.items() if count < min(_MIN_ROWS_OF_LEVEL, n / 10)]
    levels = sorted(level for level in counts if level not in rare)
    if len(rare) == 1 or (rare and sum(counts[level] for level in rare) >= _MIN_ROWS_OF_LEVEL):
        levels.append(rare[0] if len(rare) == 1 else OTHER)
    elif rare:
        levels.append(OTHER)
    if len(levels) < 2:
        return []
    shown = levels[1:] if len(levels) == 2 else levels
    return [Part(name, "category", level, tuple(levels), step=1.0) for level in shown]


def _level_of(value):
    """Return the value of a category that a cell has."""
    # The word None may be an answer, such as that to "which airbags?".
    is_answer = isinstance(value, str) and value.strip() == NONE
    return str(value) if is_answer or not is_hole(value) else MISSING


def is_hole(value):
    """Return whether a cell holds nothing."""
    if value is None or value != value:
        return True
    return isinstance(value, str) and value.strip() in HOLES


# ------------------------------------------------------------------ there and back


class Encoder:
    """What turns tables into rows of numbers and back, as the report did.

    Parameters
    ----------
    parts : sequence of Part
        The columns of numbers.
    """

    def __init__(self, parts):
        self.parts = list(parts)

    @property
    def names(self):
        """Names of the columns of numbers."""
        return [part.name for part in self.parts]

    @property
    def columns(self):
        """Names of the columns of the table, each once."""
        return list(dict.fromkeys(part.column for part in self.parts))

    def parts_of(self, column):
        """Return the indices of the columns of numbers that come from a column of the table."""
        return [j for j, part in enumerate(self.parts) if part.column == column]

    def transform(self, table):
        """Return the rows of a table as numbers.

        Parameters
        ----------
        table : DataFrame or dict of str to ndarray
            With the columns of the table that was encoded, others are ignored.

        Returns
        -------
        X : ndarray of shape (n_rows, n_parts)
            NaN where a cell is missing.
        """
        columns = table if isinstance(table, dict) else columns_of(table)
        missing = [name for name in self.columns if name not in columns]
        if missing:
            raise ValueError(f"The table lacks columns: {', '.join(missing)}.")
        encoded = [encode(part, columns[part.column]) for part in self.parts]
        return np.column_stack(encoded)

    def inverse_transform(self, X):
        """Return rows of numbers as a table: a dict of str to list.

        Values of columns that have a spacing are those of it at or below the numbers, since what is
        spread uniformly over a step begins at the value. Where few values are known it is one of
        them. Dates and categories are text.
        """
        table = {}
        for column in self.columns:
            indices = self.parts_of(column)
            part, values = self.parts[indices[0]], X[:, indices]
            if part.kind == "category":
                table[column] = _levels([self.parts[j] for j in indices], values)
            elif part.kind == "date":
                assert part.origin is not None
                days, unit = at_or_below(part, values[:, 0]), "s"
                if part.digits == 0:
                    days, unit = np.floor(days + 1e-9), "D"
                seconds = np.round(days * 86400).astype("timedelta64[s]")
                table[column] = (part.origin + seconds).astype(f"datetime64[{unit}]").astype(str)
                table[column] = table[column].tolist()
            else:
                numbers = at_or_below(part, values[:, 0])
                table[column] = [_plain(number, part.digits) for number in numbers]
        return table

    def keep(self, indices):
        """Return an encoder of some of the columns of numbers."""
        return Encoder([self.parts[j] for j in indices])

    def with_steps(self, steps, X):
        """Return an encoder that knows the spacing of the values of its columns, those of X."""
        parts = [
            _with_step(part, float(step), X[:, j])
            for j, (part, step) in enumerate(zip(self.parts, steps, strict=True))
        ]
        return Encoder(parts)


def _with_step(part, step, values):
    if not step or part.kind == "category":
        return replace(part, step=step)
    values = np.unique(values)
    n_steps = (values - values[0]) / step
    is_even = np.abs(n_steps - np.round(n_steps)).max() < _ROUNDING_OF_STEPS
    if is_even and len(values) > MAX_LEVELS:
        return replace(part, step=step, start=float(values[0]))
    return replace(part, step=step, values=values)


def at_or_below(part, numbers):
    """Return the values of a column that begin the steps in which numbers lie."""
    if not part.step:
        return numbers
    if part.values is None:
        n_steps = np.floor((numbers - part.start) / part.step + _ROUNDING_OF_STEPS)
        return part.start + part.step * n_steps
    n_below = np.searchsorted(part.values, numbers + _ROUNDING_OF_STEPS * part.step, side="right")
    below = part.values[np.maximum(n_below - 1, 0)]
    # Between the steps of few values, such as 4, 6 and 8, there is none.
    between = numbers
    if len(part.values) <= MAX_LEVELS:
        above = part.values[np.minimum(n_below, len(part.values) - 1)]
        between = np.where(numbers - below - part.step < above - numbers, below, above)
    return np.where(np.abs(numbers - below) <= part.step, below, between)


def encode(part, values):
    """Return a column of the table as numbers."""
    if part.kind == "category":
        texts = [_level_of(value) for value in values.tolist()]
        if part.level == OTHER:
            named = set(part.levels) - {OTHER}
            return np.array([text == OTHER or text not in named for text in texts], dtype=float)
        return np.array([text == part.level for text in texts], dtype=float)
    if part.kind == "date":
        dates = dates_of(values)
        if dates is None:
            raise ValueError(f"The column {part.column!r} holds no dates.")
        days = (dates - part.origin) / _DAY
        return np.where(np.isnat(dates), np.nan, days)
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    numbers = numbers_of(values)
    if numbers is None:
        raise ValueError(f"The column {part.column!r} holds no numbers.")
    return numbers


def _levels(parts, values):
    if len(parts) == 1:
        other = next(level for level in parts[0].levels if level != parts[0].level)
        return [parts[0].level if value >= 1 else other for value in values[:, 0]]
    return [parts[j].level for j in values.argmax(axis=1)]


def digits_of(values, most=6):
    """Return how many digits behind the point numbers have, at most so many."""
    for digits in range(most):
        if np.allclose(values, np.round(values, digits), rtol=1e-12, atol=0):
            return digits
    return most


def _plain(number, digits=6):
    number = round(float(f"{number:.6g}"), digits)
    return int(number) if number == round(number) and abs(number) < 1e15 else number
