"""Figures of the estimators that are compared."""

import csv
import os
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline

__all__ = ["Comparison", "Result"]


@dataclass(frozen=True)
class Result:
    """Figures of one estimator; None where the estimator has no such figure.

    Attributes
    ----------
    estimator : str
        Name.
    log_density : float or None
        Mean log-density of the test rows in nats per row, in the units of the data. None without
        a density.
    reconstruction_error : float or None
        Mean squared difference between the test rows and their reconstructions, per cell, in
        units of the variance of the column. None without an inverse.
    trustworthiness : float or None
        Trustworthiness of the embedding of the test rows, from 0 to 1. None without an embedding.
    knn_accuracy : float or None
        Accuracy, on the embedded test rows, of a classifier by the 5 nearest embedded training
        rows. None without an embedding or without classes.
    n_components : int or None
        Dimension of the embedding.
    intrinsic_dimension : int or None
        Dimension found in the training rows, the same whichever flow is asked. None if none is
        looked for.
    fit_seconds : float
        Wall time of the fit, or until it failed.
    error : str or None
        "failed: " and the first sentence of the error that ended the fit or the measuring, or that
        it was skipped because the time was over. None if there was none.
    log_density_error : float or None
        Standard error of `log_density`, from the spread over the test rows.

    Examples
    --------
    >>> from skmanifoldflow.compare import Result
    >>> Result("PCA", None, 0.25, 0.9, None, 2, None, 0.1).reconstruction_error
    0.25
    """

    estimator: str
    log_density: float | None
    reconstruction_error: float | None
    trustworthiness: float | None
    knn_accuracy: float | None
    n_components: int | None
    intrinsic_dimension: int | None
    fit_seconds: float
    error: str | None = None
    log_density_error: float | None = None


_HEADINGS = {
    "estimator": ("estimator", "{}"),
    "log_density": ("nats/row", "{:.2f}"),
    "reconstruction_error": ("rec. error", "{:.3f}"),
    "trustworthiness": ("trustworthy", "{:.3f}"),
    "knn_accuracy": ("5-NN acc.", "{:.3f}"),
    "n_components": ("dim. used", "{}"),
    "fit_seconds": ("fit s", "{:.1f}"),
}


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns.

    Attributes
    ----------
    results : list of Result
        One for each estimator.
    models : dict of str to Pipeline
        The fitted models, each a `StandardScaler` followed by the estimator; those that failed are
        left out.
    X_train, X_test : ndarray of shape (n_rows, n_kept_columns)
        Rows of the split, in the units of the data and spread over `value_step`.
    y_train, y_test : ndarray of shape (n_rows,) or None
        Labels of the split.
    value_step : ndarray of shape (n_kept_columns,)
        Width of the uniform noise that was added to each column; 0 where none was.
    kept_columns : ndarray of int of shape (n_kept_columns,)
        Columns of the data that are compared: those that vary.
    notes : list of str
        Sentences that say for what not all rows were used.
    names : list of str
        Names of the kept columns: those of the DataFrame, or x0, x1 and so on.
    test_scores : dict of str to ndarray of shape (n_test,)
        Log-density of each test row under each model that has a density, in nats in the units of
        the data: differences between models, row by row, tell how sure the better one is.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skmanifoldflow.compare import compare
    >>> comparison = compare(load_iris().data, estimators=["PCA"], random_state=0)
    >>> [result.estimator for result in comparison.results], comparison.X_test.shape
    (['PCA'], (30, 4))
    """

    results: list[Result]
    models: dict[str, Pipeline]
    X_train: np.ndarray
    X_test: np.ndarray
    y_train: np.ndarray | None
    y_test: np.ndarray | None
    value_step: np.ndarray
    kept_columns: np.ndarray
    notes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    test_scores: dict[str, np.ndarray] = field(default_factory=dict)

    def sort(self, names):
        """Bring results and models into the order of names.

        Parameters
        ----------
        names : list of str
            Names of the estimators, in the order that is wanted.

        Examples
        --------
        >>> from skmanifoldflow.compare import Comparison, Result
        >>> results = [Result(name, *[None] * 6, 0.1) for name in ("PCA", "Isomap")]
        >>> comparison = Comparison(results, {}, None, None, None, None, None, None)
        >>> comparison.sort(["Isomap", "PCA"])
        >>> [result.estimator for result in comparison.results]
        ['Isomap', 'PCA']
        """
        self.results.sort(key=lambda result: names.index(result.estimator))
        for name in sorted(self.models, key=names.index):
            self.models[name] = self.models.pop(name)

    def to_frame(self):
        """Return the results as a DataFrame.

        Returns
        -------
        frame : pandas.DataFrame
            A row for each estimator, by its name; the columns are the other attributes of `Result`.

        Raises
        ------
        ImportError
            If pandas is not installed.

        Examples
        --------
        >>> from skmanifoldflow.compare import Comparison, Result
        >>> result = Result("PCA", None, 0.25, 0.9, None, 2, None, 0.1)
        >>> frame = Comparison([result], {}, None, None, None, None, None, None).to_frame()
        >>> frame.loc["PCA", "reconstruction_error"]
        np.float64(0.25)
        """
        from pandas import DataFrame

        frame = DataFrame([asdict(result) for result in self.results])
        frame = frame.reindex(columns=[field.name for field in fields(Result)])
        return frame.set_index("estimator")

    def table(self):
        """Return the results as lines of aligned text.

        Returns
        -------
        table : str
            A heading, a line for each estimator and, if there are any, the notes; "-" stands for
            None.

        Examples
        --------
        >>> from skmanifoldflow.compare import Comparison, Result
        >>> result = Result("PCA", None, 0.25, 0.9, None, 2, None, 0.1)
        >>> print(Comparison([result], {}, None, None, None, None, None, None).table())
        estimator  nats/row  rec. error  trustworthy  5-NN acc.  dim. used  fit s
        PCA               -       0.250        0.900          -          2    0.1
        """
        lines = [[heading for heading, _ in _HEADINGS.values()]]
        for result in self.results:
            if result.error is None:
                values = ((getattr(result, key), form) for key, (_, form) in _HEADINGS.items())
                lines.append(["-" if v is None else form.format(v) for v, form in values])
        columns = list(zip(*lines, strict=True))
        names = ["estimator", *(result.estimator for result in self.results)]
        widths = [max(map(len, names)), *(max(map(len, column)) for column in columns[1:])]
        aligned = iter(
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
            for line in lines
        )
        rows = [next(aligned)]
        for result in self.results:
            failed = f"{result.estimator.ljust(widths[0])}  {result.error}"
            rows.append(next(aligned) if result.error is None else failed)
        return "\n".join(rows + [""] * bool(self.notes) + self.notes)

    def to_csv(self, path):
        """Write the results, in full precision, as comma-separated values.

        Parameters
        ----------
        path : str or path-like
            File to write. Its columns are the attributes of `Result`; None is an empty cell.

        Raises
        ------
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from skmanifoldflow.compare import Comparison, Result
        >>> result = Result("PCA", None, 0.25, 0.9, None, 2, None, 0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "results.csv"
        ...     Comparison([result], {}, None, None, None, None, None, None).to_csv(path)
        ...     print(path.read_text().splitlines()[1])
        PCA,,0.25,0.9,,2,,0.1,,
        """
        path = os.fspath(path)
        part = f"{path}.part"
        try:
            with open(part, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(field.name for field in fields(Result))
                writer.writerows(astuple(result) for result in self.results)
            # The file is the old one or the new one, whenever the process ends.
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)
