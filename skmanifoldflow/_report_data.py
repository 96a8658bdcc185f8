"""The data that the comparison report is about: built-in sets and files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from .datasets import SCurve, SinCurve, SwissRoll

__all__ = ["BUILT_IN", "Data", "load"]

_N_TOY_ROWS = 2500


@dataclass(frozen=True)
class Data:
    """Rows with all that the report has to know about them."""

    name: str
    X: np.ndarray
    y: np.ndarray | None = None
    y_name: str = "label"
    n_components: int = 2
    value_step: str | float = "auto"
    image_shape: tuple[int, int] | None = None
    # Sentence on the units, and the exact log-density where it is known.
    units: str = ""
    log_density: Callable | None = None


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


def _toy(name, law, n_components):
    def make(seed):
        X, coordinates = law.sample(_N_TOY_ROWS, random_state=seed)
        return Data(
            name,
            X,
            coordinates[:, 0],
            "position on the manifold",
            n_components=n_components,
            value_step=None,
            units=f"Rows lie near the manifold, with normal noise of deviation {law.noise:g}.",
            log_density=law.log_density,
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


def load(source, target=None, seed=0):
    """Return a built-in data set, or the rows of a file; `target` names its column of labels.

    Raises ValueError, FileNotFoundError or ImportError with a message for the user.
    """
    if source in BUILT_IN:
        if target is not None:
            raise ValueError(f"A target column can be named for files only, not for {source!r}.")
        return BUILT_IN[source](seed)
    path = Path(source)
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npy": _read_npy}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"Unknown data {source!r}: expected one of {', '.join(BUILT_IN)}, or a path that ends "
            f"in {', '.join(readers)}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {source!r}.")
    columns = readers[path.suffix.lower()](path)
    y = None
    if target is not None:
        if target not in columns:
            raise ValueError(f"There is no column {target!r} in {source}: it has {list(columns)}.")
        y = _labels(columns.pop(target), target)
    X = _numeric(columns)
    return Data(path.stem, X, y, target or "label", n_components=max(1, min(2, X.shape[1] - 1)))


def _read_npy(path):
    try:
        rows = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as an array of numbers: {error}") from error
    if rows.ndim != 2:
        raise ValueError(f"{path} must hold an array of shape (rows, columns), got {rows.shape}.")
    return {str(j): column for j, column in enumerate(rows.T)}


def _read_csv(path):
    pandas = _pandas(path)
    try:
        first = pandas.read_csv(path, header=None, nrows=1)
        # Names are text: a first line of numbers is a row already.
        has_names = any(dtype.kind not in "iuf" for dtype in first.dtypes)
        columns = _columns(pandas.read_csv(path, header="infer" if has_names else None))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as comma-separated values: {error}") from error
    # pandas writes the index of a frame as a first column without a name.
    columns.pop("Unnamed: 0", None)
    return columns


def _read_parquet(path):
    pandas = _pandas(path)
    try:
        return _columns(pandas.read_parquet(path))
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs pyarrow beside pandas: pip install pyarrow"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as parquet: {error}") from error


def _pandas(path):
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"Reading {path} needs pandas: pip install pandas") from error
    return pandas


def _columns(frame):
    """Return the columns of a frame as arrays, by name."""
    return {str(name): frame.iloc[:, j].to_numpy() for j, name in enumerate(frame.columns)}


def _labels(values, name):
    """Return labels that scikit-learn takes: numbers as they are, all else as text."""
    if any(value is None or value != value for value in values.tolist()):
        raise ValueError(f"Values are missing in the target column {name!r}.")
    return values if values.dtype.kind in "iuf" else values.astype(str)


def _numeric(columns):
    """Return columns as one float64 array, or a ValueError that names those that cannot be."""
    text = [name for name, values in columns.items() if values.dtype.kind not in "biuf"]
    if text:
        raise ValueError(
            f"Columns that are not numeric: {text}. Leave them out, encode them as numbers, or "
            "name the column of labels with --target."
        )
    if not columns:
        raise ValueError("There are no columns besides the target.")
    X = np.column_stack(list(columns.values())).astype(np.float64)
    broken = ~np.isfinite(X)
    if broken.any():
        names = [name for name, bad in zip(columns, broken.any(axis=0), strict=True) if bad]
        raise ValueError(
            f"NaN or infinite values in columns {names}, in {int(broken.any(axis=1).sum())} of "
            f"{len(X)} rows: leave these rows out or fill the values in first."
        )
    return X
