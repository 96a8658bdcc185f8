"""Tables written as text: encoding, separator, numbers and header are read from the table."""

import codecs
import csv
import functools
import io
import itertools
import re
import statistics
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from .._checks import counted

__all__ = ["HOLES", "NONE", "columns_of", "pandas_for", "read_text"]

_SEPARATORS = ("\t", ",", ";", "|", " ")
# Longer marks first: the one of UTF-32 begins as the one of UTF-16 does.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What stands for a missing value: the usual marks of pandas, R, SAS and older files. The word None
# may be a value, too.
NONE = "None"
HOLES = {
    *("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", NONE),
    *("?", ".", "-", "--"),
}
# The head of a file that its format is recognised from.
_HEAD_BYTES = 2**22
_HEAD_ROWS = 1000


def pandas_for(path):
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs pandas. It comes with the extra [plot], "
            "pip install 'skmanifoldflow[plot]', or alone, pip install pandas."
        ) from error
    return pandas


def columns_of(frame):
    """Return the columns of a frame by name, arrays of numbers where they hold numbers."""
    return {str(name): _column(frame.iloc[:, j]) for j, name in enumerate(frame.columns)}


def _column(series):
    if series.dtype == "category":
        series = series.astype(series.cat.categories.dtype)
    if series.dtype.kind in "biuf":
        is_plain = isinstance(series.dtype, np.dtype)
        return series.to_numpy() if is_plain else series.to_numpy(float, na_value=np.nan)
    values = series.to_numpy(dtype=object, na_value=None)
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool) for value in known):
        # Holes among booleans.
        return series.astype(float).to_numpy()
    return values


class _Format(NamedTuple):
    """How a table is written as text."""

    encoding: str
    separator: str  # one of _SEPARATORS, or the one that was given
    decimal: str
    thousands: str | None
    has_header: bool
    n_skipped: int  # lines before the first row of values
    names: list[str]
    ends_in_separator: bool
    n_title: int  # lines above the table

    def __str__(self):
        separator = {"\t": "tabs", " ": "white space"}.get(self.separator, repr(self.separator))
        parts = [f"separated by {separator}"] if len(self.names) > 1 else []
        if self.decimal == ",":
            parts.append("decimal comma")
        if self.thousands is not None:
            parts.append(f"thousands by {self.thousands!r}")
        parts.append(f"encoding {self.encoding}")
        parts.append("header" if self.has_header else "no header")
        if self.n_title:
            parts.append(f"{counted(self.n_title, 'line')} above the table left out")
        return ", ".join(parts)


def read_text(path, separator=None, encoding=None):
    pandas = pandas_for(path)
    from pandas.errors import ParserWarning

    encodings = _encodings(path) if encoding is None else [encoding]
    for encoding in encodings:
        try:
            form = _recognise(path, encoding, separator)
        except LookupError as error:
            raise ValueError(f"There is no encoding {encoding!r}.") from error
        except UnicodeError:
            continue
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ParserWarning)
                options: dict[str, Any] = dict(
                    sep=r"\s+" if form.separator == " " else form.separator,
                    header=None,
                    names=form.names,
                    index_col=False,
                    skiprows=form.n_skipped,
                    encoding=form.encoding,
                    decimal=form.decimal,
                    thousands=form.thousands,
                    skipinitialspace=True,
                    low_memory=False,
                )
                frame = pandas.read_csv(path, na_values=list(HOLES), on_bad_lines="warn", **options)
                _restore_none(frame, functools.partial(pandas.read_csv, path, **options))
            break
        except UnicodeError:
            # Beyond the head of the file.
            continue
        except Exception as error:
            raise ValueError(f"{path} cannot be read as a table: {error}") from error
    else:
        asked = f" in the encoding {encodings[0]!r}" if len(encodings) == 1 else ""
        raise ValueError(f"{path} cannot be read as text{asked}: save it as CSV in UTF-8.")
    if form.ends_in_separator:
        frame = frame.iloc[:, :-1]
    recognised = [str(form)]
    messages = [str(warning.message) for warning in caught]
    n_bad = sum(message.count("Skipping line") for message in messages)
    if n_bad > len(frame):
        raise ValueError(_ragged(path))
    if n_bad:
        recognised.append(f"{counted(n_bad, 'line')} with too many fields left out")
    if any("loss of data" in message for message in messages):
        recognised.append("fields beyond the last column left out")
    return columns_of(frame), recognised


def _restore_none(frame, read):
    """Put the word None back where it is among text: there it may be a value."""
    is_text = frame.dtypes.map(lambda dtype: dtype.kind == "O") & frame.isna().any()
    names = list(frame.columns[is_text])
    if not names:
        return
    raw = read(usecols=names, dtype=str, keep_default_na=False, on_bad_lines="skip")
    for name in names:
        frame.loc[(raw[name].str.strip() == NONE) & frame[name].isna(), name] = NONE


def _read_head(path):
    """Return the first bytes of the content, and whether they are all."""
    from pandas.io.common import get_handle

    try:
        with get_handle(path, "rb", compression="infer", is_text=False) as handles:
            head = handles.handle.read(_HEAD_BYTES + 1)
    except ImportError as error:
        raise ImportError(f"Reading {path} needs zstandard: pip install zstandard") from error
    except Exception as error:
        # Every kind of compression has errors of its own.
        raise ValueError(f"{path} cannot be read: {error}") from error
    return head[:_HEAD_BYTES], len(head) <= _HEAD_BYTES


def _encodings(path):
    """Return the encodings to try, by the mark of a Unicode file or in the order of their use."""
    head, _ = _read_head(path)
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return [encoding]
    if b"\0" in head:
        raise ValueError(f"{path} is no text: expected a table saved as CSV.")
    return ["utf-8", "cp1252", "latin-1"]


def _recognise(path, encoding, separator=None):
    """Return the format of a table from the head of its file."""
    head, is_all = _read_head(path)
    # A character or a line that the head cuts in two is no part of it.
    text = codecs.getincrementaldecoder(encoding)().decode(head, final=is_all)
    if not is_all:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    separator, rows = _separate(text) if separator is None else (separator, _parse(text, separator))
    if not rows:
        raise ValueError(f"{path} is empty.")
    width = _usual_width(rows[1:] or rows)
    # What comes before the first row of the usual width, or before names of all columns but the one
    # of the row names, is a title.
    while len(rows) > 1 and len(rows[0].fields) not in (width, width - 1):
        rows = rows[1:]
    first, body = rows[0].fields, [row.fields for row in rows[1:] if len(row.fields) == width]
    decimal, thousands = _number_format(body or [first], separator)
    number = _number(decimal, thousands)
    if len(first) == width - 1 and len(body) > 1 and rows[1].fields == body[0]:
        is_text = not any(map(number.fullmatch, body[0]))
        if is_text and _is_header(body[0], body[1:], number):
            rows, first, body = rows[1:], body[0], body[1:]
    # A column of text that is full of separators is no column.
    texts = [row[0] for row in body if not number.fullmatch(row[0])]
    if width == 1 and 2 * sum(bool(re.search(r"[,;\t|]", text)) for text in texts) > len(body):
        raise ValueError(_ragged(path))
    has_header = len(first) < width or _is_header(first, body, number)
    if has_header and len(rows) == 1:
        raise ValueError(f"{path} has a header, and no rows below it.")
    last_is_empty = width > 1 and not any(row[-1] for row in body or [first])
    if not has_header:
        names = [str(j) for j in range(width)]
    elif len(first) == width:
        names = first
    else:
        # Either the rows end in a separator and the header does not, or it has no name for the row
        # names.
        names = [*first, ""] if last_is_empty else ["", *first]
    return _Format(
        encoding,
        separator,
        decimal,
        thousands,
        has_header,
        rows[0].end if has_header else rows[0].start,
        _unique(names),
        last_is_empty and not (has_header and names[-1]),
        rows[0].start,
    )


def _ragged(path):
    return (
        f"The lines of {path} have different numbers of fields: save it as CSV with as many fields "
        "in every line."
    )


class _Row(NamedTuple):
    """Fields of a row, and the lines of the file before and up to it."""

    start: int
    end: int
    fields: list[str]


def _parse(text, separator):
    """Return the first rows of a table."""
    lines: Iterable[str] = io.StringIO(text, newline="")
    if separator == " ":
        lines = (line.replace("\t", " ").strip(" ") for line in lines)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    rows, start = [], 0
    for fields in itertools.islice(reader, _HEAD_ROWS):
        if fields:
            rows.append(_Row(start, reader.line_num, [field.strip() for field in fields]))
        start = reader.line_num
    return rows


def _usual_width(rows):
    return statistics.mode(len(row.fields) for row in rows)


def _separate(content):
    """Return the separator and the first rows of a table.

    The separator is the one that gives most rows the same width and makes most fields numbers.
    """
    best: tuple[str, list[_Row]] = (",", [])
    best_score, is_whole = -2.0, False
    for separator in _SEPARATORS:
        if separator == " " and is_whole:
            # The white space is within fields.
            continue
        try:
            rows = _parse(content, separator)
        except csv.Error:
            # A field that is too long: this separator is the wrong one.
            continue
        if not rows:
            continue
        width = _usual_width(rows)
        # A table of one column has none; with ";" its decimal commas stay whole.
        if width == 1 and separator not in ",;":
            continue
        usual = [row.fields for row in rows if len(row.fields) == width]
        known = [field for fields in usual[1:] for field in fields if field not in HOLES]
        text = [field for field in known if not _is_any_number(field)]
        # Commas belong to texts; other separators hardly do, nor is a text a row of numbers.
        n_torn = sum(
            bool(re.search(r"[;\t|]", field)) or all(map(_is_any_number, field.split()))
            for field in text
        )
        share = len(usual) / len(rows)
        score = share + 1 - (len(text) + n_torn) / max(1, len(known))
        if score > best_score:
            best_score, best = score, (separator, rows)
            is_whole = width > 1 and not n_torn and share > 0.9
    return best


@functools.cache
def _number(decimal, thousands=None):
    """Return the regular expression of a number."""
    point, whole = re.escape(decimal), r"\d+"
    if thousands is not None:
        whole = rf"(?:\d+|[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+)"
    return re.compile(rf"[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?")


def _is_any_number(field):
    """Return whether a field is a number by itself: a zero in front is what follows a point."""
    if re.match(r"[+-]?0\d", field):
        return False
    return bool(_number(".", ",").fullmatch(field) or _number(",", ".").fullmatch(field))


def _number_format(rows, separator):
    """Return the decimal mark and the mark of thousands, or None, that fit the most fields."""
    # What fits as many comes first: a comma before three digits is one of thousands, unless the
    # semicolon shows that it is in the place of the point.
    forms = [(".", None), (".", ","), (",", None), (",", ".")]
    if separator == ";":
        forms = [(".", None), (",", None), (",", "."), (".", ",")]
    fields = [field for row in rows for field in row]
    return max(forms, key=lambda form: sum(map(bool, map(_number(*form).fullmatch, fields))))


def _is_header(first, body, number):
    """Return whether the first row of a table holds names, judged by the rows below."""
    columns = list(zip(*body, strict=True))
    known = [[field for field in column if field not in HOLES] for column in columns]
    is_number = [
        2 * sum(map(bool, map(number.fullmatch, fields))) > len(fields) for fields in known
    ]
    if not any(is_number):
        return not any(map(number.fullmatch, first))
    names = first[1:]
    if not first[0] and len(known[0]) == len(body) and len(set(names) - HOLES) == len(names) > 0:
        # The column of row names has no name.
        return True
    above = [name for name, flag in zip(first, is_number, strict=True) if flag]
    text = [name for name in above if name not in HOLES and not number.fullmatch(name)]
    numbers = [name for name in above if number.fullmatch(name)]
    if not numbers:
        return bool(text) or not any(above)
    if len(text) > len(numbers):
        return True
    below = [
        fields
        for name, flag, fields in zip(first, is_number, known, strict=True)
        if flag and number.fullmatch(name)
    ]
    # One text may be a hole among numbers.
    return _are_names(numbers, below, body) or (bool(text) and _are_beyond(numbers, below))


def _are_beyond(numbers, below):
    """Return whether integers are outside the range of those below."""
    for name, column in zip(numbers, below, strict=True):
        values = [int(field) for field in column if field.isdecimal()]
        if not name.isdecimal() or (values and min(values) <= int(name) <= max(values)):
            return False
    return True


def _are_names(numbers, below, body):
    """Return whether numbers above columns of numbers are names, such as years."""
    if len(numbers) > 4 and _is_rising(numbers):
        # By chance one row in 120 is.
        return sum(map(_is_rising, zip(*below, strict=False))) <= len(body) / 50
    if not all(map(str.isdecimal, numbers)):
        return False
    values = [int(number) for number in numbers]
    if sorted(set(values)) != values:
        return False
    fields = [field for column in below for field in column]
    if len(body) > 4 and sum(map(str.isdecimal, fields)) < len(fields) / 20:
        # The rows below hardly hold an integer.
        return True
    if not _is_run(values):
        return False
    rows = [row for row in zip(*below, strict=False) if all(map(str.isdecimal, row))]
    if sum(_is_run(list(map(int, row))) for row in rows) > len(body) / 50:
        # So do the rows below.
        return False
    # Numbers of columns, or many that are a run by chance; else years, which no row below holds.
    return (
        (values[0] in (0, 1) and values[1] == values[0] + 1)
        or len(values) > 3
        or not any(n in column for n, column in zip(numbers, below, strict=True))
    )


def _is_rising(numbers):
    """Return whether numbers, as text, grow."""
    if any(number.count(".") + number.count(",") > 1 for number in numbers):
        return False
    values = [float(number.replace(",", ".")) for number in numbers]
    return all(before < after for before, after in itertools.pairwise(values))


def _is_run(values):
    """Return whether integers count, in steps of one or, where there are more, of any size."""
    steps = {after - before for before, after in itertools.pairwise(values)}
    return steps == {1} or (len(values) > 2 and len(steps) == 1 and min(steps) > 0)


def _unique(names):
    """Return names without repetitions or gaps, as pandas makes them."""
    unique: dict[str, None] = {}
    for j, name in enumerate(names):
        name = base = name or f"Unnamed: {j}"
        n = 0
        while name in unique:
            n += 1
            name = f"{base}.{n}"
        unique[name] = None
    return list(unique)
