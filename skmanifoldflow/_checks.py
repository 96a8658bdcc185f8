"""Checks of rows and parameters, with messages that name the column and the remedy."""

import math
import sys
import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

__all__ = [
    "DTYPES",
    "as_array",
    "check_coordinates",
    "check_image_shape",
    "check_parameters",
    "check_rows",
    "check_within_bounds",
    "column_bounds",
    "column_names",
    "counted",
    "discrete_features_mask",
    "is_pair",
    "list_names",
    "warn",
]

DTYPES = [np.float64, np.float32]

# Columns that vary by less have variances near the smallest numbers there are.
_SMALLEST_RANGE = 1e-150
# Rows that are squared at a time.
_BLOCK_ROWS = 8192
# Ends of a column without bounds.
_OPEN = (-math.inf, math.inf)
# Channels that images have: gray, colours, and colours with opacity.
_N_COLORS = (1, 3, 4)

# Packages whose frames lie between a line of the user's and the one that warns.
_INNER = {"skmanifoldflow", "sklearn", "contextlib", "joblib"}


def warn(message, category=UserWarning):
    """Warn at the line, of the user's code, that called this library or scikit-learn."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _package(frame) in _INNER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _package(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0]


def list_names(names, most=5):
    """Return names as text, only the first ones of many."""
    names = [str(name) for name in names]
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def counted(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


# Tables of numbers


def as_array(X):
    """Return a tensor, which may be on any device, as an array; anything else as it is."""
    if not isinstance(X, torch.Tensor):
        return X
    X = X.detach().cpu()
    # Numpy has no such numbers.
    return (X.float() if X.dtype == torch.bfloat16 else X).numpy()


def check_coordinates(estimator, coordinates, n_columns, method, name="X"):
    """Return coordinates as an array of floats with so many columns, as input of a method."""
    coordinates = check_array(as_array(coordinates), dtype=DTYPES)
    if coordinates.shape[1] != n_columns:
        raise ValueError(
            f"{name} has {coordinates.shape[1]} features, but {type(estimator).__name__} is "
            f"expecting {n_columns} features as input of {method}."
        )
    return coordinates


def check_rows(estimator, X, **options):
    """Return rows as `validate_data` does; where it fails, the message says what to do.

    Parameters
    ----------
    estimator : estimator instance
        Whose rows they are.
    X : array-like of shape (n_samples, n_features)
        Rows; a tensor on any device as well.
    **options : dict
        For `sklearn.utils.validation.validate_data`.

    Raises
    ------
    ValueError, TypeError
        As in scikit-learn, which also sees to the type.
    """
    X = as_array(X)
    try:
        return validate_data(estimator, X, dtype=DTYPES, **options)
    except (ValueError, TypeError) as error:
        # Those about the names and the number of columns say it all.
        said = str(error).splitlines()[0]
        is_about_columns = said.startswith("The feature names") or " features, but " in said
        remedy = "" if is_about_columns else _remedy(X, said)
        if not remedy:
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        # Scikit-learn's first sentence stays: its lines after that recommend other estimators.
        # Numpy's on the dtypes of a table with dates helps nobody.
        raise kind(remedy if "DType" in said else f"{said.rstrip('.')}. {remedy}") from error


def _remedy(X, message):
    """Return what to do about rows that cannot be used, or an empty text."""
    if "Found array with dim" in message:
        return (
            "Rows of images are flattened ones, X.reshape(len(X), -1), whose (channels, height, "
            "width) can be given as image_shape."
        )
    kinds: dict[str, list[str]] = {}
    for name, values in _columns(X):
        kind = _kind(values)
        if kind:
            kinds.setdefault(kind, []).append(name)
    sentences = []
    for kind, names in kinds.items():
        one = len(names) == 1
        which = f"{'Column' if one else 'Columns'} {list_names(names)} {_HOLDS[kind][not one]}"
        sentences.append(f"{which}: {_REMEDIES[kind]}.")
    return " ".join(sentences)


_HOLDS = {
    "text": ("holds text", "hold text"),
    "dates": ("holds dates", "hold dates"),
    "missing": ("has missing cells", "have missing cells"),
    "infinite": ("has infinite values", "have infinite values"),
}
_REMEDIES = {
    "text": "encode it as numbers, for instance with sklearn.preprocessing.OneHotEncoder, or leave "
    "it out",
    "dates": "turn them into numbers, such as days since the first one, or leave them out",
    "missing": "leave these rows out, or fill the cells in first, for instance with "
    "sklearn.impute.SimpleImputer",
    "infinite": "leave these rows out, or replace the values first",
}


def _columns(X):
    """Yield the columns of a table by name or number; of anything else none."""
    names = getattr(X, "columns", None)
    if names is not None:
        try:
            columns = [(repr(name), np.asarray(X[name])) for name in names]
        except (KeyError, IndexError, TypeError, ValueError):
            columns = []
        yield from columns
        return
    try:
        array = np.asarray(X)
    except ValueError:
        return
    if array.ndim == 2:
        yield from enumerate(array.T)


def _kind(values):
    """Return what keeps a column from being used, or None."""
    if values.ndim != 1:
        return None
    if values.dtype.kind in "Mm":
        return "dates"
    if values.dtype.kind in "biu":
        return None
    if values.dtype.kind in "fc":
        return (
            "missing" if np.isnan(values).any() else "infinite" if np.isinf(values).any() else None
        )
    is_missing = np.array([_is_missing(value) for value in values], dtype=bool)
    for value in values[~is_missing]:
        if isinstance(value, (str, bytes)):
            try:
                float(value)
            except ValueError:
                return "text"
        elif hasattr(value, "year") or isinstance(value, np.datetime64):
            return "dates"
    return "missing" if is_missing.any() else None


def _is_missing(value):
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def column_names(estimator):
    """Return the names of the columns, or their numbers."""
    return np.asarray(getattr(estimator, "feature_names_in_", range(estimator.n_features_in_)))


def check_parameters(estimator, X):
    """Check the common parameters, as far as `_parameter_constraints` cannot express it."""
    n_components, n_features = estimator.n_components, X.shape[1]
    discrete_features_mask(estimator, n_features)
    if n_components is not None and n_components > n_features:
        raise ValueError(
            f"n_components={n_components} must be between 1 and n_features={n_features}, or None."
        )
    sizes = estimator.hidden_layer_sizes
    if not isinstance(sizes, Integral) and any(
        not isinstance(size, Integral) or size < 1 for size in sizes
    ):
        raise ValueError(f"hidden_layer_sizes must hold integers >= 1, got {sizes!r}.")
    if estimator.noise_start is not None and estimator.noise_start < estimator.noise_floor:
        raise ValueError(
            f"noise_start={estimator.noise_start} must not be below "
            f"noise_floor={estimator.noise_floor}."
        )
    check_within_bounds(estimator, X)
    with np.errstate(over="ignore"):
        blocks = (X[i : i + _BLOCK_ROWS] for i in range(0, len(X), _BLOCK_ROWS))
        sum_of_squares = sum(float(np.square(rows, dtype=np.float64).sum()) for rows in blocks)
    if not math.isfinite(sum_of_squares):
        raise ValueError(
            "The variance of X overflows: its values are too large. Rescale the columns."
        )
    low, high = X.min(axis=0).astype(np.float64), X.max(axis=0).astype(np.float64)
    # A few units in the last place of the values are rounding, not variation.
    rounding = 4 * np.finfo(np.float64).eps * np.maximum(-low, high)
    is_small = (high - low > rounding) & (high - low < _SMALLEST_RANGE)
    if is_small.any():
        raise ValueError(
            f"The variance of X underflows in columns "
            f"{list_names(column_names(estimator)[is_small])}: their values are too small. "
            "Rescale the columns."
        )


def column_bounds(estimator, n_features):
    """Return the ends of each column by `bounded`, infinite where there are none; None if nowhere.

    Raises
    ------
    ValueError
        If they are not ends, in order, of all columns or of each.
    """
    given = estimator.bounded
    if given is None:
        return None
    if isinstance(given, dict):
        names = column_names(estimator).tolist()
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(
                f"bounded has the keys {list_names(unknown)}, which are not columns of the "
                f"training data: {list_names(names)}."
            )
        pairs = [given.get(name) for name in names]
    elif is_pair(given):
        return [_checked_ends("bounded", given, is_finite=True)] * n_features
    else:
        pairs = list(given)
        if len(pairs) != n_features:
            raise ValueError(
                f"bounded must be (low, high), finite, with low < high, or such a pair or None for "
                f"each of the {n_features} columns, got {given}."
            )
    names = column_names(estimator)
    return [
        (-math.inf, math.inf) if pair is None else _checked_ends(f"bounded of column {name}", pair)
        for name, pair in zip(names, pairs, strict=True)
    ]


def is_pair(bounded):
    """Tell whether `bounded` is one pair of ends for all columns."""
    if isinstance(bounded, dict) or bounded is None:
        return False
    return len(bounded) == 2 and all(isinstance(end, Real) for end in bounded)


def _checked_ends(name, pair, is_finite=False):
    """Return two ends as floats, infinite where they are None."""
    try:
        ends = [e if end is None else float(end) for end, e in zip(pair, _OPEN, strict=True)]
        is_valid = ends[0] < ends[1] and not (is_finite and math.inf in map(abs, ends))
    except (TypeError, ValueError):
        is_valid = False
    if not is_valid:
        kind = "finite, " if is_finite else "None for an open end, "
        raise ValueError(f"{name} must be (low, high), {kind}with low < high, got {pair}.")
    return tuple(ends)


def check_within_bounds(estimator, X):
    """Raise ValueError where rows are outside the bounds of their columns."""
    bounds = column_bounds(estimator, X.shape[1])
    if bounds is None:
        return
    low, high = X.min(axis=0), X.max(axis=0)
    if is_pair(estimator.bounded):
        if low.min() < bounds[0][0] or high.max() > bounds[0][1]:
            raise ValueError(
                f"bounded={estimator.bounded} must contain every value of X, got values between "
                f"{low.min()} and {high.max()}."
            )
        return
    for j, (name, ends) in enumerate(zip(column_names(estimator), bounds, strict=True)):
        if low[j] < ends[0] or high[j] > ends[1]:
            raise ValueError(
                f"bounded={ends} must contain every value of column {name}, got values between "
                f"{low[j]} and {high[j]}."
            )


def discrete_features_mask(estimator, n_features):
    """Return which columns `dequantize` and `discrete_features` say to spread, as booleans.

    Raises
    ------
    ValueError
        If they contradict each other, or name columns that do not exist.
    """
    given, name = estimator.discrete_features, "discrete_features"
    is_keyword = given is None or isinstance(given, str)
    if estimator.dequantize and not (is_keyword and given in ("auto", "all")):
        raise ValueError(
            f"dequantize=True spreads the values of all columns, which discrete_features={given!r} "
            "contradicts. Leave one of both at its default."
        )
    if is_keyword:
        return np.full(n_features, estimator.dequantize or given == "all")
    if estimator.image_shape is not None:
        raise ValueError(
            f"With image_shape all pixels are of one kind: {name} must be 'auto', 'all' or None."
        )
    features = np.asarray(given)
    mask = np.zeros(n_features, dtype=bool)
    if features.size == 0:
        return mask
    kinds = {type(item).__name__ for item in features.ravel().tolist()}
    if features.ndim != 1 or len(kinds) > 1 or not kinds <= {"bool", "int", "str"}:
        raise ValueError(
            f"{name} must be an array-like of bool, int or str in one dimension, got {given!r}."
        )
    if features.dtype.kind == "b":
        if len(features) != n_features:
            raise ValueError(
                f"{name} set as a boolean mask must have shape (n_features,) = ({n_features},), "
                f"got {features.shape}."
            )
        return mask | features
    if features.dtype.kind in "iu":
        if features.min() < 0 or features.max() >= n_features:
            raise ValueError(
                f"{name} set as integer indices must be in [0, n_features - 1] = "
                f"[0, {n_features - 1}], got {list_names(features)}."
            )
        mask[features] = True
        return mask
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        raise ValueError(
            f"{name} should be passed as an array of integers or as a boolean mask when the model "
            "is fitted on data without feature names."
        )
    unknown = sorted(set(features) - set(names))
    if unknown:
        raise ValueError(
            f"{name} has the items {list_names(unknown)}, which are not feature names of the "
            f"training data: {list_names(names)}."
        )
    return np.array([name in features for name in names])


def check_image_shape(estimator, n_features):
    """Check the `image_shape` of a method that has one."""
    shape = tuple(estimator.image_shape)
    if len(shape) != 3 or any(not isinstance(k, Integral) or k < 1 for k in shape):
        raise ValueError(f"image_shape must be (C, H, W), got {estimator.image_shape!r}.")
    if np.prod(shape) != n_features:
        raise ValueError(
            f"image_shape={shape} has {np.prod(shape)} pixels, but X has {n_features} features."
        )
    last = shape[2]
    if last in _N_COLORS and shape[0] not in _N_COLORS[:2] and min(shape[:2]) > last:
        warn(
            f"image_shape is (channels, height, width), and {shape} looks like (height, width, "
            f"channels). If it is, give X.reshape(-1, *{shape}).transpose(0, 3, 1, 2)"
            f".reshape(len(X), -1) with image_shape=({last}, {shape[0]}, {shape[1]})."
        )
