"""The data that the comparison report is about: built-in sets and files."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from .._checks import counted, list_names
from ..datasets import SCurve, SinCurve, SwissRoll
from .cleaning import MAX_NAMES, MIN_ROWS, clean
from .text_format import columns_of, pandas_for, read_text

__all__ = ["BUILT_IN", "MIN_ROWS", "TEXT_SUFFIXES", "Data", "load"]

_COMPRESSIONS = {".gz", ".bz2", ".xz", ".zip", ".zst"}
TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".data")
_N_TOY_ROWS = 2500


@dataclass(frozen=True)
class Data:
    """Rows with all that the report has to know about them."""

    name: str
    X: np.ndarray
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


def _digits(seed):
    X, y = load_digits(return_X_y=True)
    return Data(
        "digits",
        X / 16,
        y,
        n_components=10,
        value_step=1 / 16,
        image_shape=(8, 8),
        units="Rows are images of 8 x 8 pixels, (pixel + u) / 16 with u drawn from U[0, 1).",
    )


def _table(name, loader):
    def make(seed):
        bunch = loader()
        return Data(name, bunch.data, bunch.target_names[bunch.target])

    return make


def _toy(name, distribution, n_components):
    def make(seed):
        X, coordinates = distribution.sample(_N_TOY_ROWS, random_state=seed)
        return Data(
            name,
            X,
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


def load(source, target=None, seed=0, drop=(), max_rows=None):
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

    Returns
    -------
    data : Data
        Its `notes` say how the file was read and what was left out.

    Raises
    ------
    ValueError, OSError, ImportError
        With a message for the user.
    """
    if max_rows is not None and max_rows < MIN_ROWS:
        raise ValueError(f"At least {MIN_ROWS} rows are needed, --max-rows allows {max_rows}.")
    if source in BUILT_IN:
        if target is not None or drop:
            raise ValueError(f"Columns can be named for files only, not for {source!r}.")
        data = BUILT_IN[source](seed)
    else:
        data = _load_file(source, target, drop)
    n_rows = len(data.X)
    if max_rows is not None and max_rows < n_rows:
        drawn = np.sort(np.random.RandomState(seed).choice(n_rows, max_rows, replace=False))
        data = replace(
            data,
            X=data.X[drawn],
            y=None if data.y is None else data.y[drawn],
            notes=[*data.notes, f"Drawn at random: {max_rows} of {n_rows} rows."],
        )
    return data


def _load_file(source, target, drop):
    path = Path(source)
    read = _reader(path)
    if read is None:
        raise ValueError(
            f"Unknown data {source!r}: expected one of {', '.join(BUILT_IN)}, or a path that ends "
            f"in {', '.join([*TEXT_SUFFIXES, *_READERS])}; text may be compressed, as in .csv.gz."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {source!r}.")
    columns, recognised = read(path)
    n_columns = len(columns)
    recognised = ", ".join([*recognised, counted(n_columns, "column")])
    for name in dict.fromkeys([*drop, *([] if target is None else [target])]):
        if name not in columns:
            known = list_names(columns, MAX_NAMES)
            raise ValueError(f"There is no column {name!r} in {source}: it has {known}.")
    if target in drop:
        raise ValueError(f"The column {target!r} cannot be the target and be left out.")
    y = None if target is None else columns.pop(target)
    columns = {name: values for name, values in columns.items() if name not in drop}
    X, y, notes = clean(columns, y, target)
    notes = [f"Read {path.name}: {recognised}.", *notes]
    return Data(_stem(path), X, y, target or "label", n_components=None, notes=notes)


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
    if content in TEXT_SUFFIXES:
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


def _read_parquet(path):
    pandas = pandas_for(path)
    try:
        frame = pandas.read_parquet(path)
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs pyarrow beside pandas: pip install pyarrow"
        ) from error
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {error}") from error
    return columns_of(frame), ["parquet"]


_READERS = {".parquet": _read_parquet, ".npy": _read_npy}
