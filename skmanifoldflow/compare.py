"""Comparison of the flows with scikit-learn's own models on one data set.

`python -m skmanifoldflow` is this module on the command line.
"""

import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA, FactorAnalysis, KernelPCA
from sklearn.manifold import Isomap, trustworthiness
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_consistent_length, check_random_state, gen_batches
from sklearn.utils.multiclass import type_of_target

from ._chart_atlas import ChartAtlasFlow
from ._columns import spacing, spread
from ._densities import StackingDensity
from ._densities.members import few_members
from ._joint_manifold import JointManifoldFlow
from ._manifold_prior import ManifoldPriorFlow
from ._noisy_injective import NoisyInjectiveFlow
from ._progress import listening
from ._report.cleaning import MIN_ROWS
from ._report.results import Comparison, Result

__all__ = ["ESTIMATORS", "Comparison", "Result", "compare"]

_TEST_FRACTION = 0.2
# Trustworthiness needs two rows besides the nearest neighbour of a row.
_MIN_TEST_ROWS = 4
# Rows for what keeps a number for every pair of rows, or compares a row with all others: the
# trustworthiness, and the fits of these estimators.
_MAX_PAIRED_ROWS = 3000
_PAIRED = (Isomap, KernelPCA, KernelDensity)
# Rows that are embedded to be measured, of the training and of the test part; and the rows of a
# batch, whose distances to the fitted rows Isomap holds at once.
_MAX_EMBEDDED_ROWS = 10_000
_EMBEDDED_AT_ONCE = 1000
_MAX_SEARCH_ROWS = 10_000
# Cells, and rows, that the mixture is cross-validated on in a second of the time for all, and the
# least rows.
_CELLS_PER_SECOND, _ROWS_PER_SECOND, _MIN_TIMED_ROWS = 1000, 60, 300
# Rows for what compares each with all others, so that it takes a twentieth of the time for all: the
# square of them goes with the time.
_PAIRED_ROWS_OF_A_SECOND = 460
# Order in which they are fitted where time is limited: first what the others are measured by, then
# the best densities.
_TIMED_ORDER = (
    *("PCA", "FactorAnalysis", "GaussianMixture", "Isomap", "NoisyInjectiveFlow"),
    *("StackingDensity", "ManifoldPriorFlow", "JointManifoldFlow", "ChartAtlasFlow"),
)
# Time that these get for each second of another flow: the best densities are not cut short first.
_FAVOURED, _TIME_OF_FAVOURED = (NoisyInjectiveFlow, StackingDensity), 2
_MIXTURE_SIZES = (1, 2, 4, 7, 10, 14, 20, 30)
# Variances added to standardised columns; with many columns and few rows the large one wins.
_MIXTURE_REGULARIZATIONS = (1e-4, 1e-2, 1e-1)
# Where there are fewer seconds for all, half of the sizes are tried with one of them.
_SHORT_TIME, _USUAL_REGULARIZATION = 20.0, 1e-2


class _FirstRows(KFold):
    """Folds of the first rows, where all would take long: training rows are in random order."""

    #: Rows at most; None is the usual number.
    n_rows: int | None = None

    def of(self, n_rows):
        """Return how many rows of so many are used."""
        return min(n_rows, self.n_rows or _MAX_SEARCH_ROWS)

    def split(self, X, y=None, groups=None):
        return super().split(range(self.of(len(X))))


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
        cv=_FirstRows(3),
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
    # One flow and no atlas: the default ones take six times as long as a flow.
    "StackingDensity": lambda d, shape, seed: StackingDensity(few_members(), random_state=seed),
    "PCA": lambda d, shape, seed: PCA(d, random_state=seed),
    "FactorAnalysis": lambda d, shape, seed: FactorAnalysis(d, random_state=seed),
    "Isomap": lambda d, shape, seed: Isomap(n_components=d, n_neighbors=min(10, shape[0] - 1)),
    "GaussianMixture": lambda d, shape, seed: _mixture(shape, seed),
}


def compare(
    X,
    y=None,
    *,
    estimators=None,
    n_components=None,
    value_step="auto",
    max_time=None,
    random_state=None,
    verbose=0,
    callback=None,
):
    """Fit flows and scikit-learn's own models to the same rows and measure them on the same others.

    A fifth of the rows, at least four, drawn at random, is the test part. Each estimator follows a
    `StandardScaler` in a pipeline. Log-densities are given in the units of the data. An estimator
    that raises an error is reported as failed, and the others are compared.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows of numbers, at least 12. Columns that are constant in the training part are left out.
        `make_report` in `skmanifoldflow.report` takes tables with text, dates and holes.
    y : array-like of shape (n_samples,), default=None
        Labels, which no estimator sees. If they are classes, embeddings are judged by a
        nearest-neighbour classifier.
    estimators : list of str or dict of str to estimator, default=None
        Names among `ESTIMATORS`, or unfitted estimators under names of your own. None compares all
        of `ESTIMATORS`.
    n_components : int, default=None
        Dimension of the embeddings. None is 2, because they are mostly looked at, and 1 where
        fewer than three columns vary. The flows find the dimension of the data besides. Not used
        where `estimators` is a dict.
    value_step : "auto", float or None, default="auto"
        Spacing of the values of the columns. A density of values that repeat can grow without
        bound, so every value is spread uniformly over the step above it, once, for all
        estimators. "auto": 1 in columns of integers, the smallest spacing in other columns with
        fewer than half as many values as rows, 0 elsewhere. None spreads nothing.
    max_time : float or None, default=None
        Seconds of wall time that all fits with a parameter of that name share; None sets no limit.
        The mixture and the best densities come first, whatever the order of names.
        The mixture is then cross-validated on as many rows as there is time for, with fewer choices
        where these are less than 20 seconds, and `Isomap` is fitted to as many. What cannot begin
        before the time is over is reported as skipped, but for models that take no time.
    random_state : int, RandomState instance or None, default=None
        Source of the split, of the spreading and of the seed that every estimator gets.
    verbose : int, default=0
        If positive, one line is printed for each estimator. A terminal shows in it how far the
        fit of a flow is.
    callback : callable, default=None
        Called with the `Comparison` so far: once before the first fit, and after each estimator.

    Returns
    -------
    comparison : Comparison
        Its `results` are the figures, a `Result` for each estimator.

    Raises
    ------
    ValueError
        If there are fewer than 12 rows, if X has NaN or infinite entries, if `n_components` is not
        between 1 and the number of columns that vary, if none does, or if the name of an estimator
        or `value_step` is unknown; if `max_time` is no positive number.

    Warns
    -----
    UserWarning
        If columns are left out because they are constant, or if an estimator failed.

    Notes
    -----
    The reconstruction error and the trustworthiness are measured in standardised columns.
    Trustworthiness looks at 10 neighbours, at fewer where the test part has fewer than 21 rows.
    The accuracy needs at least two classes, and at most half as many as training rows. Size, 30
    components at most, and regularisation of the Gaussian mixture are cross-validated.

    Memory grows as the number of rows does, because some things are done with a part of them, drawn
    by `random_state`; `Comparison.notes` says where that happened. Trustworthiness is measured on
    at most 3000 test rows; `Isomap`, `KernelPCA` and `KernelDensity`, also as the last step of a
    pipeline or within a search, are fitted to at most 3000 training rows. Reconstruction error and
    accuracy are measured on at most 10 000 test rows, with neighbours from as many training rows.
    The Gaussian mixture is cross-validated on at most 10 000 rows, and the best fitted to all.

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
    columns = [str(name) for name in X.columns] if hasattr(X, "columns") else None
    X = check_array(X, dtype=np.float64)
    if len(X) < MIN_ROWS:
        raise ValueError(f"There are {len(X)} rows, and at least {MIN_ROWS} are needed.")
    check_consistent_length(X, y)
    rng = check_random_state(random_state)
    order = rng.permutation(len(X))
    steps = _value_steps(X, value_step)
    X = spread(X, steps, rng)
    n_test = max(_MIN_TEST_ROWS, round(_TEST_FRACTION * len(X)))
    test, train = order[:n_test], order[n_test:]

    kept = _varying(X[train], columns)
    X_train, X_test = X[np.ix_(train, kept)], X[np.ix_(test, kept)]
    del X
    y_train, y_test = (None, None) if y is None else (np.asarray(y)[train], np.asarray(y)[test])

    seed = rng.randint(2**31 - 1)
    chosen = _choose(estimators, n_components, X_train.shape, seed)
    kept_names = [f"x{j}" if columns is None else columns[j] for j in kept.tolist()]
    comparison = Comparison(
        [], {}, X_train, X_test, y_train, y_test, steps[kept], kept, names=kept_names
    )
    deadline = _deadline(max_time, chosen, len(kept))
    n_paired = _MAX_PAIRED_ROWS
    if max_time is not None:
        n_affordable = int(_PAIRED_ROWS_OF_A_SECOND * np.sqrt(max_time))
        n_paired = min(n_paired, max(_MIN_TIMED_ROWS, n_affordable))
    has_classes = y_train is not None and _are_classes(y_train[:_MAX_EMBEDDED_ROWS])
    if callback is not None:
        callback(comparison)
    names = list(chosen)
    if deadline is not None and not isinstance(estimators, Mapping):
        names.sort(key=lambda name: (*_TIMED_ORDER, name).index(name))
    for i, name in enumerate(names):
        estimator = chosen[name]
        line = Line(f"[{i + 1}/{len(chosen)}] {name} ... ") if verbose else None
        left = np.inf if deadline is None else deadline - time.monotonic()
        if _takes_time(estimator) and left < np.inf:
            estimator = _timed(estimator, [chosen[name] for name in names[i:]], left)
        with listening(line.show) if line else nullcontext():
            if (
                left <= 0
                and comparison.models
                and (_takes_time(chosen[name]) or _is_paired(estimator))
            ):
                result, model, scores = (
                    _no_result(name, 0.0, "skipped: no time was left"),
                    None,
                    None,
                )
            else:
                result, model, scores = _run(name, estimator, comparison, has_classes, n_paired)
        comparison.results.append(result)
        if scores is not None:
            comparison.test_scores[name] = scores
        if model is not None:
            comparison.models[name] = model
            notes = _notes(result, model, len(X_train), len(X_test), n_paired)
            comparison.notes.extend(note for note in notes if note not in comparison.notes)
        if line:
            line.end(_end_of_line(result, model))
        comparison.sort(list(chosen))
        if callback is not None:
            callback(comparison)
    return comparison


class Line:
    """A line of standard output whose end a terminal shows anew."""

    def __init__(self, head):
        self._head, self._width = head, 0
        print(head, end="", flush=True)

    def show(self, text):
        """Replace what follows the head, on a terminal only."""
        if sys.stdout.isatty():
            # A line that is broken in two cannot be written over.
            line = f"{self._head}{text}"[: shutil.get_terminal_size().columns - 1]
            print("\r" + line.ljust(self._width), end="", flush=True)
            self._width = len(line)

    def end(self, text):
        """Replace what follows the head for good."""
        shown = f"\r{self._head}{text}".ljust(self._width + 1) if self._width else text
        print(shown, flush=True)


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
    if n_components is None:
        n_components = 2 if shape[1] > 2 else 1
    if not isinstance(n_components, Integral) or not 1 <= int(n_components) <= shape[1]:
        raise ValueError(
            f"n_components must be an integer between 1 and {shape[1]}, the number of columns that "
            f"vary, got {n_components!r}."
        )
    return {name: ESTIMATORS[name](int(n_components), shape, seed) for name in names}


def _deadline(max_time, chosen, n_columns):
    """Return the `time.monotonic` when the time is over, or None; limit what has no time."""
    if max_time is None:
        return None
    if not isinstance(max_time, Real) or not float(max_time) > 0:
        raise ValueError(f"max_time must be a number > 0 or None, got {max_time!r}.")
    n_affordable = min(_CELLS_PER_SECOND / n_columns, _ROWS_PER_SECOND) * max_time
    n_searched = int(max(_MIN_TIMED_ROWS, n_affordable))
    for estimator in chosen.values():
        if isinstance(getattr(estimator, "cv", None), _FirstRows):
            estimator.cv.n_rows = min(_MAX_SEARCH_ROWS, n_searched)
            if max_time < _SHORT_TIME:
                # A search of a second is no small part of it.
                sizes = estimator.param_grid["n_components"][::2]
                estimator.param_grid = {"n_components": sizes, "reg_covar": [_USUAL_REGULARIZATION]}
    return time.monotonic() + max_time


def _end_of_line(result, model):
    """Return what the line of an estimator ends in."""
    picked = getattr(model[-1], "best_params_", {}) if model is not None else {}
    end = "".join(f", {key}={value}" for key, value in picked.items())
    return result.error or f"{result.fit_seconds:.1f} s{end}"


def _timed(estimator, waiting, seconds):
    """Return an estimator with its share of the seconds left for those that wait, it first."""
    weights = [
        _TIME_OF_FAVOURED if isinstance(e, _FAVOURED) else 1 for e in waiting if _takes_time(e)
    ]
    # What comes late is fitted all the same, as fast as it can be.
    share = max(weights[0] / sum(weights) * seconds, 1e-3)
    return clone(estimator).set_params(max_time=share)


def _takes_time(estimator):
    """Return whether a limit of time can be set, and is not."""
    return hasattr(estimator, "get_params") and estimator.get_params().get("max_time", 0) is None


def _varying(X, names):
    """Return the indices of the columns that are not constant."""
    kept = np.flatnonzero(np.ptp(X, axis=0) > 0)
    if not len(kept):
        raise ValueError("All columns are constant: there is nothing to compare.")
    if len(kept) < X.shape[1]:
        left_out = np.setdiff1d(np.arange(X.shape[1]), kept).tolist()
        left_out = left_out if names is None else [names[j] for j in left_out]
        warnings.warn(f"Constant columns are left out: {left_out}.", UserWarning, stacklevel=3)
    return kept


def _value_steps(X, value_step):
    """Return the width of the uniform noise of each column."""
    if value_step is None:
        return np.zeros(X.shape[1])
    if isinstance(value_step, Real) and 0 < float(value_step) < np.inf:
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
            steps[j] = spacing(values)
    return steps


def _are_classes(y):
    """Return whether labels are classes that neighbours can have in common."""
    # More classes than half the rows are names of rows.
    if not 2 <= len(np.unique(y)) <= len(y) // 2:
        return False
    return type_of_target(y) in ("binary", "multiclass")


def _is_paired(estimator):
    """Return whether a fit goes with the square of the rows, or a density with all of them."""
    while isinstance(estimator, Pipeline) or hasattr(estimator, "estimator"):
        estimator = estimator[-1] if isinstance(estimator, Pipeline) else estimator.estimator
    return isinstance(estimator, _PAIRED)


def _run(name, estimator, comparison, has_classes, n_paired):
    """Fit and measure an estimator; return its figures, the pipeline and log-densities.

    The last two are None if it failed, and the last one without a density.
    """
    start, scores = time.perf_counter(), None
    with warnings.catch_warnings(record=True) as caught:
        try:
            model = make_pipeline(StandardScaler(), clone(estimator))
            model.fit(comparison.X_train[: n_paired if _is_paired(estimator) else None])
            seconds = time.perf_counter() - start
            scores = _log_densities(model, comparison.X_test)
            result = _measure(name, model, comparison, has_classes, seconds, scores)
        except Exception as error:
            model, scores, failure = None, None, error
            seconds = time.perf_counter() - start
            sentence = f"failed: {first_sentence(error)}"
            result = _no_result(name, seconds, sentence)
    # The name of the estimator comes before its warnings.
    for warning in caught:
        warnings.warn(f"{name}: {warning.message}", warning.category, stacklevel=3)
    if model is None:
        text = f"{name} failed with {type(failure).__name__}: {failure}"
        warnings.warn(text, UserWarning, stacklevel=3)
    return result, model, scores


def _no_result(name, seconds, reason):
    """Return the figures of an estimator that has none."""
    return Result(name, None, None, None, None, None, None, seconds, reason)


def first_sentence(error):
    """Return the first sentence of the message of an error, or its type where there is none."""
    words = " ".join(str(error).split())
    return re.split(r"(?<=[.!?])\s", words)[0] or type(error).__name__


def _embed(model, X):
    """Return the embedding of rows, a batch at a time."""
    batches = gen_batches(len(X), _EMBEDDED_AT_ONCE)
    return np.concatenate([model.transform(X[batch]) for batch in batches])


def _log_densities(model, X):
    """Return the log-densities of rows in the units of the data, or None without a density."""
    if not hasattr(model, "score_samples"):
        return None
    # The estimator's density is one of standardised rows.
    return model.score_samples(X) - np.log(model[0].scale_).sum()


def _measure(name, model, comparison, has_classes, seconds, scores):
    """Return the figures of a fitted pipeline."""
    scaler, estimator = model
    density = spread = error = trust = accuracy = n_components = None
    if scores is not None:
        density = float(np.mean(scores))
        spread = float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
    if hasattr(model, "transform"):
        # Rows are in random order already: any part of them is drawn at random.
        X_test = comparison.X_test[:_MAX_EMBEDDED_ROWS]
        Z_test = _embed(model, X_test)
        scaled, n_components = scaler.transform(X_test), Z_test.shape[1]
        pairs = slice(_MAX_PAIRED_ROWS)
        n_neighbors = min(10, (len(scaled[pairs]) - 1) // 2)
        trust = float(trustworthiness(scaled[pairs], Z_test[pairs], n_neighbors=n_neighbors))
        if hasattr(estimator, "inverse_transform"):
            error = float(np.mean((estimator.inverse_transform(Z_test) - scaled) ** 2))
        if has_classes:
            part = slice(_MAX_EMBEDDED_ROWS)
            Z_train = _embed(model, comparison.X_train[part])
            classifier = KNeighborsClassifier(n_neighbors=5).fit(Z_train, comparison.y_train[part])
            accuracy = float(classifier.score(Z_test, comparison.y_test[part]))
    return Result(
        estimator=name,
        log_density=density,
        reconstruction_error=error,
        trustworthiness=trust,
        knn_accuracy=accuracy,
        n_components=n_components,
        intrinsic_dimension=getattr(estimator, "intrinsic_dimension_", None),
        fit_seconds=seconds,
        log_density_error=spread,
    )


def _notes(result, model, n_train, n_test, n_paired):
    """Return sentences on figures that not all rows had a part in."""
    notes = []
    if result.trustworthiness is not None and n_test > _MAX_PAIRED_ROWS:
        notes.append(
            f"Trustworthiness is measured on {_MAX_PAIRED_ROWS} of the {n_test} test rows."
        )
    if result.reconstruction_error is not None and n_test > _MAX_EMBEDDED_ROWS:
        notes.append(
            f"Reconstruction is measured on {_MAX_EMBEDDED_ROWS} of the {n_test} test rows."
        )
    if result.knn_accuracy is not None and n_train > _MAX_EMBEDDED_ROWS:
        notes.append(
            f"5-NN accuracy is measured on {min(n_test, _MAX_EMBEDDED_ROWS)} of the {n_test} test "
            f"rows, with neighbours from {_MAX_EMBEDDED_ROWS} of the {n_train} training rows."
        )
    if _is_paired(model) and n_train > n_paired:
        notes.append(f"{result.estimator} is fitted to {n_paired} of the {n_train} training rows.")
    folds = getattr(model[-1], "cv", None)
    if isinstance(folds, _FirstRows) and folds.of(n_train) < n_train:
        notes.append(
            f"{result.estimator} is cross-validated on {folds.of(n_train)} of the {n_train} "
            "training rows, and the best is fitted to all."
        )
    return notes
