"""Comparison of the flows with scikit-learn's own models on one data set.

`python -m skmanifoldflow` is this module on the command line.
"""

import csv
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.manifold import Isomap, trustworthiness
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.multiclass import type_of_target

from ._chart_atlas import ChartAtlasFlow
from ._joint_manifold import JointManifoldFlow
from ._manifold_prior import ManifoldPriorFlow
from ._noisy_injective import NoisyInjectiveFlow

__all__ = ["ESTIMATORS", "Comparison", "Result", "compare"]

_TEST_FRACTION = 0.2
# With fewer rows the test part says nothing, and has no ten neighbours.
_MIN_ROWS = 50
_MIXTURE_SIZES = (1, 2, 4, 7, 10, 14, 20, 30)
# Variances added to standardised columns; with many columns and few rows the large one wins.
_MIXTURE_REGULARIZATIONS = (1e-4, 1e-2, 1e-1)


def _mixture(shape, seed):
    """Return a Gaussian mixture of full covariances, cross-validated by held-out likelihood."""
    # A component needs rows for its covariance.
    largest = max(1, shape[0] // (2 * shape[1]))
    return GridSearchCV(
        GaussianMixture(random_state=seed),
        {
            "n_components": [size for size in _MIXTURE_SIZES if size <= largest],
            "reg_covar": _MIXTURE_REGULARIZATIONS,
        },
        cv=3,
    )


#: Builders of the estimators that are compared, from the number of components, the shape of the
#: training rows and a seed.
ESTIMATORS: dict[str, Callable[[int, tuple[int, int], int], BaseEstimator]] = {
    "ManifoldPriorFlow": lambda d, shape, seed: ManifoldPriorFlow(d, random_state=seed),
    # Embeddings are compared too, and the likelihood alone leaves the manifold open.
    "NoisyInjectiveFlow": lambda d, shape, seed: NoisyInjectiveFlow(
        d, reconstruction=1.0, random_state=seed
    ),
    "ChartAtlasFlow": lambda d, shape, seed: ChartAtlasFlow(d, random_state=seed),
    "JointManifoldFlow": lambda d, shape, seed: JointManifoldFlow(d, random_state=seed),
    "PCA": lambda d, shape, seed: PCA(d, random_state=seed),
    "FactorAnalysis": lambda d, shape, seed: FactorAnalysis(d, random_state=seed),
    "Isomap": lambda d, shape, seed: Isomap(n_components=d, n_neighbors=10),
    "GaussianMixture": lambda d, shape, seed: _mixture(shape, seed),
}


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
        Dimension found in the data, whatever `n_components` is. None if none is looked for.
    fit_seconds : float
        Wall time of the fit.
    """

    estimator: str
    log_density: float | None
    reconstruction_error: float | None
    trustworthiness: float | None
    knn_accuracy: float | None
    n_components: int | None
    intrinsic_dimension: int | None
    fit_seconds: float


_HEADINGS = {
    "estimator": ("estimator", "{}"),
    "log_density": ("nats/row", "{:.2f}"),
    "reconstruction_error": ("rec. error", "{:.3f}"),
    "trustworthiness": ("trustworthy", "{:.3f}"),
    "knn_accuracy": ("5-NN acc.", "{:.3f}"),
    "n_components": ("dim. used", "{}"),
    "intrinsic_dimension": ("dim. found", "{}"),
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
        The fitted models, each a `StandardScaler` followed by the estimator.
    X_train, X_test : ndarray of shape (n_rows, n_kept_columns)
        Rows of the split, in the units of the data and spread over `value_step`.
    y_train, y_test : ndarray of shape (n_rows,) or None
        Labels of the split.
    value_step : ndarray of shape (n_kept_columns,)
        Width of the uniform noise that was added to each column; 0 where none was.
    kept_columns : ndarray of int of shape (n_kept_columns,)
        Columns of the data that are compared: those that vary.
    """

    results: list[Result]
    models: dict[str, Pipeline]
    X_train: np.ndarray
    X_test: np.ndarray
    y_train: np.ndarray | None
    y_test: np.ndarray | None
    value_step: np.ndarray
    kept_columns: np.ndarray

    def table(self):
        """Return the results as lines of aligned text.

        Returns
        -------
        table : str
            A heading and a line for each estimator; "-" stands for None.
        """
        lines = [[heading for heading, _ in _HEADINGS.values()]]
        for result in self.results:
            values = zip(astuple(result), _HEADINGS.values(), strict=True)
            lines.append(["-" if v is None else form.format(v) for v, (_, form) in values])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
            for line in lines
        )

    def to_csv(self, path):
        """Write the results, in full precision, as comma-separated values.

        Parameters
        ----------
        path : str or path-like
            File to write. Its columns are the attributes of `Result`; None is an empty cell.
        """
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(field.name for field in fields(Result))
            writer.writerows(astuple(result) for result in self.results)


def compare(
    X,
    y=None,
    *,
    estimators=None,
    n_components=2,
    value_step="auto",
    random_state=None,
    verbose=0,
):
    """Fit flows and scikit-learn's own models to the same rows and measure them on the same others.

    A fifth of the rows, drawn at random, is the test part. Each estimator follows a
    `StandardScaler` in a pipeline. Log-densities are given in the units of the data.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows, at least 50. Columns that are constant in the training part are left out.
    y : array-like of shape (n_samples,), default=None
        Labels, which no estimator sees. If they are classes, embeddings are judged by a
        nearest-neighbour classifier.
    estimators : list of str or dict of str to estimator, default=None
        Names among `ESTIMATORS`, or unfitted estimators under names of your own. None compares all
        of `ESTIMATORS`.
    n_components : int, default=2
        Dimension of the embeddings: 2, because they are mostly looked at. The flows find the
        dimension of the data besides. Not used where `estimators` is a dict.
    value_step : "auto", float or None, default="auto"
        Spacing of the values of the columns. A density of values that repeat can grow without
        bound, so every value is spread uniformly over the step above it, once, for all
        estimators. "auto": 1 in columns of integers, the smallest spacing in other columns with
        fewer than half as many values as rows, 0 elsewhere. None spreads nothing.
    random_state : int, RandomState instance or None, default=None
        Source of the split, of the spreading and of the seed that every estimator gets.
    verbose : int, default=0
        If positive, one line is printed for each estimator.

    Returns
    -------
    comparison : Comparison
        Its `results` are the figures, a `Result` for each estimator.

    Raises
    ------
    ValueError
        If there are fewer than 50 rows, if X has NaN or infinite entries, if `n_components` is not
        between 1 and the number of columns that vary, or if an estimator or `value_step` is
        unknown.

    Warns
    -----
    UserWarning
        If columns are left out because they are constant.

    Notes
    -----
    The reconstruction error and the trustworthiness are measured in standardised columns.
    Trustworthiness looks at 10 neighbours, at fewer where the test part has fewer than 21 rows.
    Size, 30 components at most, and regularisation of the Gaussian mixture are cross-validated.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skmanifoldflow.compare import compare
    >>> X, y = load_wine(return_X_y=True)
    >>> comparison = compare(X, y, estimators=["PCA", "Isomap"], random_state=0)
    >>> for result in comparison.results:
    ...     print(result.estimator, result.n_components, f"{result.knn_accuracy:.2f}")
    PCA 2 0.97
    Isomap 2 1.00
    """
    X = check_array(X, dtype=np.float64, ensure_min_samples=_MIN_ROWS)
    check_consistent_length(X, y)
    rng = check_random_state(random_state)
    order = rng.permutation(len(X))
    steps = _value_steps(X, value_step)
    X = X + steps * rng.random_sample(X.shape)
    n_test = round(_TEST_FRACTION * len(X))
    test, train = order[:n_test], order[n_test:]

    kept = np.flatnonzero(np.ptp(X[train], axis=0) > 0)
    if len(kept) < X.shape[1]:
        left_out = np.setdiff1d(np.arange(X.shape[1]), kept).tolist()
        warnings.warn(f"Constant columns are left out: {left_out}.", UserWarning, stacklevel=2)
    X_train, X_test = X[np.ix_(train, kept)], X[np.ix_(test, kept)]
    y_train, y_test = (None, None) if y is None else (np.asarray(y)[train], np.asarray(y)[test])

    seed = rng.randint(2**31 - 1)
    chosen = _choose(estimators, n_components, X_train.shape, seed)
    results, models = [], {}
    for i, (name, estimator) in enumerate(chosen.items()):
        if verbose:
            print(f"[{i + 1}/{len(chosen)}] {name} ... ", end="", flush=True)
        model = make_pipeline(StandardScaler(), clone(estimator))
        seconds = _fit(name, model, X_train)
        models[name] = model
        results.append(_measure(name, model, X_train, X_test, y_train, y_test, seconds))
        if verbose:
            picked = getattr(model[-1], "best_params_", {})
            note = "".join(f", {key}={value}" for key, value in picked.items())
            print(f"{seconds:.1f} s{note}", flush=True)
    return Comparison(results, models, X_train, X_test, y_train, y_test, steps[kept], kept)


def _choose(estimators, n_components, shape, seed):
    """Return the unfitted estimators by name."""
    if isinstance(estimators, Mapping):
        return dict(estimators)
    names = list(ESTIMATORS) if estimators is None else estimators
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise ValueError(f"estimators must be a list of names, a dict or None, got {estimators!r}.")
    unknown = [name for name in names if name not in ESTIMATORS]
    if unknown:
        raise ValueError(
            f"Unknown estimators {unknown!r}: expected names among {list(ESTIMATORS)}."
        )
    if not isinstance(n_components, Integral) or not 1 <= n_components <= shape[1]:
        raise ValueError(
            f"n_components must be an integer between 1 and {shape[1]}, the number of columns that "
            f"vary, got {n_components!r}."
        )
    return {name: ESTIMATORS[name](n_components, shape, seed) for name in names}


def _value_steps(X, value_step):
    """Return the width of the uniform noise of each column."""
    if value_step is None:
        return np.zeros(X.shape[1])
    if isinstance(value_step, Real) and 0 < value_step < np.inf:
        return np.full(X.shape[1], float(value_step))
    if not isinstance(value_step, str) or value_step != "auto":
        raise ValueError(f"value_step must be 'auto', a number > 0 or None, got {value_step!r}.")
    steps = np.zeros(X.shape[1])
    for j, column in enumerate(X.T):
        values = np.unique(column)
        if len(values) == 1:
            continue
        if np.array_equal(values, np.round(values)):
            steps[j] = 1.0
        elif len(values) < len(X) // 2:
            steps[j] = np.diff(values).min()
    return steps


def _fit(name, model, X):
    """Fit a pipeline, put its name before its warnings, and return the seconds."""
    with warnings.catch_warnings(record=True) as caught:
        start = time.perf_counter()
        model.fit(X)
        seconds = time.perf_counter() - start
    for warning in caught:
        warnings.warn(f"{name}: {warning.message}", warning.category, stacklevel=3)
    return seconds


def _measure(name, model, X_train, X_test, y_train, y_test, seconds):
    """Return the figures of a fitted pipeline."""
    scaler, estimator = model
    density = error = trust = accuracy = n_components = None
    if hasattr(model, "score_samples"):
        # The estimator's density is one of standardised rows.
        density = float(np.mean(model.score_samples(X_test)) - np.log(scaler.scale_).sum())
    if hasattr(model, "transform"):
        Z_train, Z_test = model.transform(X_train), model.transform(X_test)
        scaled, n_components = scaler.transform(X_test), Z_test.shape[1]
        n_neighbors = min(10, (len(X_test) - 1) // 2)
        trust = float(trustworthiness(scaled, Z_test, n_neighbors=n_neighbors))
        if hasattr(estimator, "inverse_transform"):
            error = float(np.mean((estimator.inverse_transform(Z_test) - scaled) ** 2))
        if y_train is not None and type_of_target(y_train) in ("binary", "multiclass"):
            classifier = KNeighborsClassifier(n_neighbors=5).fit(Z_train, y_train)
            accuracy = float(classifier.score(Z_test, y_test))
    return Result(
        estimator=name,
        log_density=density,
        reconstruction_error=error,
        trustworthiness=trust,
        knn_accuracy=accuracy,
        n_components=n_components,
        intrinsic_dimension=getattr(estimator, "intrinsic_dimension_", None),
        fit_seconds=seconds,
    )
