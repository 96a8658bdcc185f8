"""The data that the report is about: built-in sets, files and tables."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from .._checks import counted, list_names
from ..datasets import SCurve, SinCurve, SwissRoll
from .cleaning import MAX_NAMES, MIN_ROWS, clean, labels_of
from .encoding import Encoder, Part, digits_of
from .names import FILES, TEXT_FILES
from .text_format import columns_of, pandas_for, read_text

__all__ = ["BUILT_IN", "MIN_ROWS", "Data", "drawn", "load", "read_columns", "table_of"]

_COMPRESSIONS = {".gz", ".bz2", ".xz", ".zip", ".zst"}
_N_TOY_ROWS = 2500


@dataclass(frozen=True)
class Data:
    """Rows with all that the report has to know about them."""

    name: str
    X: np.ndarray
    encoder: Encoder
    y: np.ndarray | None = None
    y_name: str = "label"
    n_components: int | None = None
    value_step: str | float | None = "auto"
    image_shape: tuple[int, int] | None = None
    # Sentence on the units, and the exact log-density where it is known.
    units: str = ""
    log_density: Callable | None = None
    # How a file was read, and what was left out.
    notes: list[str] = field(default_factory=list)
    # Places of the rows in the table, from 0, and their names.
    rows: np.ndarray | None = None
    labels: np.ndarray | None = None
    # What reads the same rows of numbers again, in Python.
    source: str = ""

    def row_name(self, i):
        """Return how a person finds a row: its name, or its number from 1."""
        number = i if self.rows is None else int(self.rows[i])
        if self.labels is not None:
            return f"{self.labels[i]} (row {number + 1})"
        return f"row {number + 1}"

    def named(self, name):
        """Return the same data under another name."""
        return replace(self, name=name)

    def take(self, index):
        """Return the same data with some rows."""
        rows = np.arange(len(self.X)) if self.rows is None else self.rows
        return replace(
            self,
            X=self.X[index],
            y=None if self.y is None else self.y[index],
            rows=rows[index],
            labels=None if self.labels is None else self.labels[index],
        )


def _numbers(names, X):
    parts = [Part(str(name), "number", digits=digits_of(X[:, j])) for j, name in enumerate(names)]
    return Encoder(parts)


def _digits(seed):
    X, y = load_digits(return_X_y=True)
    return Data(
        "digits",
        X / 16,
        _numbers([f"pixel {row},{column}" for row in range(8) for column in range(8)], X / 16),
        y,
        n_components=10,
        value_step=1 / 16,
        image_shape=(8, 8),
        units="Rows are images of 8 x 8 pixels, (pixel + u) / 16 with u drawn from U[0, 1).",
    )


def _table(name, loader):
    def make(seed):
        bunch = loader()
        names = _numbers(bunch.feature_names, bunch.data)
        return Data(name, bunch.data, names, bunch.target_names[bunch.target])

    return make


def _toy(name, distribution, n_components):
    def make(seed):
        X, coordinates = distribution.sample(_N_TOY_ROWS, random_state=seed)
        return Data(
            name,
            X,
            _numbers([f"x{j}" for j in range(X.shape[1])], X),
            coordinates[:, 0],
            "position on the manifold",
            n_components=n_components,
            value_step=None,
            units="Rows lie near the manifold, with normal noise of deviation "
            f"{distribution.noise:g}.",
            log_density=distribution.log_density,
        )

    return make


BUILT_IN: dict[str, Callable[[int], Data]] = {
    "digits": _digits,
    "iris": _table("iris", load_iris),
    "wine": _table("wine", load_wine),
    "breast_cancer": _table("breast_cancer", load_breast_cancer),
    "s_curve": _toy("s_curve", SCurve(), 2),
    "swiss_roll": _toy("swiss_roll", SwissRoll(), 2),
    "sin_curve": _toy("sin_curve", SinCurve(), 1),
}


def load(source, target=None, seed=0, drop=(), max_rows=None, **options):
    """Return a built-in data set, or the rows of a file that can be compared.

    Parameters
    ----------
    source : str
        Name of a built-in data set, or path of a file.
    target : str, default=None
        Column of a file that holds labels.
    seed : int, default=0
        Seed of the rows of the toys, and of those that `max_rows` draws.
    drop : sequence of str, default=()
        Columns of a file that are left out.
    max_rows : int, default=None
        Rows that are drawn at random where there are more.
    options : dict
        `columns`, the only ones of a file that are used; `impute`, whether to fill holes; `sep` and
        `encoding`, in place of those that are recognised.

    Returns
    -------
    data : Data
        Its `notes` say how the file was read and what was left out.

    Raises
    ------
    ValueError, OSError, ImportError
        With a message for the user.
    """
    if source in BUILT_IN:
        if target is not None or drop or any(options.values()):
            raise ValueError(f"Columns can be named for files only, not for {source!r}.")
        data = BUILT_IN[source](seed)
    else:
        data = _load_file(source, target, drop, **options)
    return drawn(data, max_rows, seed)


def drawn(data, max_rows, seed):
    """Return the data with at most so many rows, drawn at random."""
    n_rows = len(data.X)
    if max_rows is not None and max_rows < MIN_ROWS:
        raise ValueError(f"At least {MIN_ROWS} rows are needed, --max-rows allows {max_rows}.")
    if max_rows is None or max_rows >= n_rows:
        return data
    index = np.sort(np.random.RandomState(seed).choice(n_rows, max_rows, replace=False))
    note = f"Drawn at random: {max_rows} of {n_rows} rows."
    return replace(data.take(index), notes=[*data.notes, note])


def table_of(X, y=None, name="table"):
    """Return the data of a DataFrame or an array, cleaned as a file is.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n_rows, n_columns)
        Columns may hold numbers, text, dates and holes.
    y : array-like of shape (n_rows,), default=None
        Labels.
    name : str, default="table"
        Name of the data.
    """
    if hasattr(X, "columns"):
        columns, index = columns_of(X), np.asarray(X.index)
        is_counted = np.array_equal(index, np.arange(len(X)))
        names = None if is_counted else np.array([str(label) for label in index], dtype=object)
    else:
        rows, names = np.asarray(X), None
        if rows.ndim != 2:
            raise ValueError(f"Expected 2D array, got array of shape {rows.shape} instead.")
        columns = {f"x{j}": column for j, column in enumerate(rows.T)}
    y_name = str(getattr(y, "name", None) or "label")
    if y is not None:
        y = columns_of(y.to_frame())[str(y.name)] if hasattr(y, "to_frame") else np.asarray(y)
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} rows, and y has {len(y)}.")
        y = y if y.dtype.kind in "biuf" else labels_of(y)
    cleaned = clean(columns, y, y_name)
    labels = cleaned.labels if names is None else names[cleaned.rows]
    return Data(
        name,
        cleaned.X,
        cleaned.encoder,
        cleaned.y,
        y_name,
        notes=cleaned.notes,
        rows=cleaned.rows,
        labels=labels,
    )


def read_columns(source, sep=None, encoding=None):
    """Return the columns of a file by name, and words on how it was read."""
    path = Path(source)
    read = _reader(path)
    if read is None:
        raise ValueError(
            f"Unknown data {source!r}: expected one of {', '.join(BUILT_IN)}, or a path that ends "
            f"in {', '.join(FILES)}; text may be compressed, as in .csv.gz."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {source!r}.")
    if read is read_text:
        return read_text(path, _separator(sep), encoding)
    if sep is not None or encoding is not None:
        raise ValueError(f"--sep and --encoding are for text, not for {path.name}.")
    return read(path)


def _load_file(source, target, drop, columns=None, impute=False, sep=None, encoding=None):
    path, wanted = Path(source), columns or []
    table, recognised = read_columns(source, sep, encoding)
    recognised = ", ".join([*recognised, counted(len(table), "column")])
    for name in dict.fromkeys([*drop, *wanted, *([] if target is None else [target])]):
        if name not in table:
            known = list_names(table, MAX_NAMES)
            raise ValueError(f"There is no column {name!r} in {source}: it has {known}.")
    if target in drop:
        raise ValueError(f"The column {target!r} cannot be the target and be left out.")
    y = None if target is None else table.pop(target)
    table = {
        name: values
        for name, values in table.items()
        if name not in drop and (not wanted or name in wanted)
    }
    cleaned = clean(table, y, target, wanted, impute)
    notes = [f"Read {path.name}: {recognised}.", *cleaned.notes]
    return Data(
        _stem(path),
        cleaned.X,
        cleaned.encoder,
        cleaned.y,
        target or "label",
        notes=notes,
        rows=cleaned.rows,
        labels=cleaned.labels,
        source=str(source),
    )


def _separator(sep):
    """Return the separator that is meant by the text of an option."""
    if sep is None:
        return None
    sep = {"tab": "\t", "\\t": "\t", "space": " ", r"\s+": " "}.get(sep, sep)
    if len(sep) != 1:
        raise ValueError(f"A separator is one character, or 'tab' or 'space', got {sep!r}.")
    return sep


def _suffixes(path):
    """Return the suffix of the content, and the one of the compression or ""."""
    suffix = path.suffix.lower()
    if suffix in _COMPRESSIONS:
        return Path(path.stem).suffix.lower(), suffix
    return suffix, ""


def _stem(path):
    return Path(path.stem).stem if _suffixes(path)[1] else path.stem


def _reader(path):
    """Return the function that reads a file into columns and says how, or None."""
    content, compression = _suffixes(path)
    if content in TEXT_FILES:
        return read_text
    return None if compression else _READERS.get(content)


def _read_npy(path):
    try:
        rows = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an array of numbers: {error}") from error
    if getattr(rows, "ndim", None) != 2:
        raise ValueError(
            f"{path} must hold an array of shape (rows, columns), got {np.shape(rows)}."
        )
    return {str(j): column for j, column in enumerate(rows.T)}, ["array"]


def _read_json(path):
    """Read a list of records, one record a line, or columns by name."""
    pandas = pandas_for(path)
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    try:
        content = json.loads(text)
    except ValueError:
        try:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    is_records = isinstance(content, list) and all(isinstance(row, dict) for row in content)
    is_columns = isinstance(content, dict) and all(
        isinstance(column, list | dict) for column in content.values()
    )
    if not content or not (is_records or is_columns):
        raise ValueError(f"{path} must hold a list of records, with a value for each column.")
    try:
        frame = pandas.DataFrame(content)
    except ValueError as error:
        raise ValueError(f"{path} has columns of different lengths.") from error
    for name in frame.columns[[dtype.kind == "O" for dtype in frame.dtypes]]:
        # Records within records are text that is left out.
        is_nested = frame[name].map(lambda value: isinstance(value, list | dict))
        if is_nested.any():
            frame[name] = frame[name].map(str)
    return columns_of(frame), ["JSON"]


def _frame_reader(function, engine, what):
    def read(path):
        pandas = pandas_for(path)
        try:
            frame = getattr(pandas, function)(path)
        except ImportError as error:
            raise ImportError(
                f"Reading {path} needs {engine} beside pandas: pip install {engine}"
            ) from error
        except Exception as error:
            # Every engine has errors of its own.
            raise ValueError(f"{path} cannot be read as {what}: {error}") from error
        return columns_of(frame), [what]

    return read


_READERS = {
    ".feather": _frame_reader("read_feather", "pyarrow", "feather"),
    ".json": _read_json,
    ".npy": _read_npy,
    ".parquet": _frame_reader("read_parquet", "pyarrow", "parquet"),
    ".xlsx": _frame_reader("read_excel", "openpyxl", "Excel, first sheet"),
}
