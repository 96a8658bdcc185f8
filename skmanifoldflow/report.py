"""The report of the command line from Python: what is in a table, in six answers.

`skmanifoldflow table.csv` is this module on the command line.
"""

import os
import time
from numbers import Real
from pathlib import Path

from ._checks import warn
from ._report.data import BUILT_IN, drawn, load, read_columns, table_of
from ._report.files import Files, write_pictures
from ._report.run import Report, run, told

__all__ = ["Report", "make_report", "read_table"]


def make_report(
    X,
    y=None,
    *,
    output=None,
    max_time=180.0,
    estimators=None,
    n_components=None,
    max_rows=None,
    name="table",
    random_state=0,
    verbose=0,
):
    """Answer what a person asks of a table, in words and figures.

    The six answers: what the columns are taken for; how many things vary; which density fits best,
    beside a mixture of Gaussians; which rows are strange, and which columns make them so; which
    groups of rows there are, on a map; whether new rows look real.

    Parameters
    ----------
    X : DataFrame, array-like of shape (n_rows, n_columns), or str or path of a file
        The table, of at least 12 rows. Dates become days, text of few values a column for each
        value; other text, names and numbers of the rows, and rows with missing cells are left out,
        each with a sentence in the first answer. Of the built-in data sets the name will do.
    y : array-like of shape (n_rows,), default=None
        Labels, which no model sees: they colour the map, and embeddings are judged by them.
    output : str or path, default=None
        Folder that report.html, report.png, results.csv, rows.csv, new_rows.csv and model.joblib
        are written to, each as soon as it is known. None writes nothing.
    max_time : float, default=180.0
        Seconds of wall time for all. Models are fitted to as many rows as they allow: in three
        minutes to 250 000 cells and 20 000 rows, and always to 1000 rows.
    estimators, n_components
        As in :func:`skmanifoldflow.compare.compare`.
    max_rows : int, default=None
        Rows that are drawn at random and used, whatever the time; None uses all.
    name : str, default="table"
        What the table is called in the report.
    random_state : int, default=0
        Seed of everything random.
    verbose : int, default=0
        If positive, answers are printed as they are found, with the progress between them.

    Returns
    -------
    report : Report
        Its `answers`, and what they are taken from. ``print(report)`` shows the answers. After
        Ctrl-C it holds those that were found.

    Raises
    ------
    ValueError
        If fewer than 12 complete rows, or no columns that vary, are left; if `max_time` is no
        positive number.
    OSError
        If a file cannot be read, or the folder cannot be made.

    Warns
    -----
    UserWarning
        What the fits warn of; if the report was interrupted; if the page or the picture lacks a
        package, or a file cannot be written.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skmanifoldflow.report import make_report
    >>> X, y = load_wine(return_X_y=True, as_frame=True)
    >>> report = make_report(X, y, estimators=["GaussianMixture", "PCA"], max_time=1)
    >>> print(report.answers[0].sentences[0])
    178 rows; 13 columns of numbers, 2 of them whole numbers.
    >>> report.log_density.shape, report.coordinates.shape
    ((178,), (178, 2))
    """
    began = time.monotonic()
    if not isinstance(max_time, Real) or not float(max_time) > 0:
        raise ValueError(f"max_time must be a number > 0, got {max_time!r}.")
    if isinstance(X, str | os.PathLike):
        source = os.fspath(X)
        if y is not None:
            raise ValueError("y is for a table of its own: a file has its labels in a column.")
        data = load(source, seed=random_state)
        data = data if source in BUILT_IN or name == "table" else data.named(name)
    else:
        data = table_of(X, y, name)
    data = drawn(data, max_rows, random_state)
    files = Files(None if output is None else Path(output), warn)
    files.make_folder()
    say = _print if verbose else _say_nothing
    report = run(
        data,
        files=files,
        say=say,
        budget=float(max_time),
        began=began,
        estimators=estimators,
        n_components=n_components,
        max_rows=max_rows,
        seed=random_state,
        verbose=verbose,
    )
    for message in told(report.warnings):
        warn(message)
    if output is not None:
        for message in write_pictures(report, files, random_state):
            warn(message)
    if not report.is_complete:
        warn(f"The report was interrupted after {len(report.answers)} of 6 answers.")
    return report


def read_table(path, *, sep=None, encoding=None):
    """Read a table from a file as the report does.

    Parameters
    ----------
    path : str or path
        File of text (.csv, .tsv, .txt, .dat, .data, each also compressed), .xlsx, .json, .parquet,
        .feather or .npy. Separator, header, decimal mark and encoding of text are recognised.
    sep, encoding : str, default=None
        What overrules that.

    Returns
    -------
    table : pandas.DataFrame
        With all columns of the file.

    Raises
    ------
    ValueError, OSError, ImportError
        If the file cannot be read, with the reason.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from skmanifoldflow.report import read_table
    >>> prices = pd.DataFrame({"price": [1.5, 2.5, 3.25], "size": [20, 30, 40]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "prices.csv"
    ...     prices.to_csv(path, sep=";", decimal=",", index=False)
    ...     table = read_table(path)
    >>> table["price"].tolist()
    [1.5, 2.5, 3.25]
    """
    from pandas import DataFrame

    return DataFrame(read_columns(os.fspath(path), sep, encoding)[0])


def _print(text):
    print(text, flush=True)


def _say_nothing(text):
    """Take an answer that nobody wants to see yet."""
