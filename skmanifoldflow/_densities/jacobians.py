"""By how much transformers of scikit-learn stretch space: what a density in data units needs."""

import warnings
from inspect import getattr_static

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

__all__ = ["has_inverse", "in_domain", "log_abs_det_jacobian", "reaches_all", "transformed"]

#: Logarithms of the derivatives of functions of one variable.
_LOG_DERIVATIVES = {
    np.log: lambda x: -np.log(x),
    np.log1p: lambda x: -np.log1p(x),
    np.exp: lambda x: x,
    np.expm1: lambda x: x,
    np.sqrt: lambda x: -0.5 * np.log(4 * x),
    np.arcsinh: lambda x: -0.5 * np.log1p(x * x),
    np.sinh: lambda x: np.logaddexp(x, -x) - np.log(2),
    logit: lambda x: -np.log(x) - np.log1p(-x),
    expit: lambda x: -np.logaddexp(0, x) - np.logaddexp(0, -x),
}


# Distance of the ends of a column within which `QuantileTransformer` of normal output moves values
# to the ends, and the largest share of the rows that may be moved.
_BOUNDS_THRESHOLD, _MOST_AT_BOUNDS = 1e-7, 1e-3


def log_abs_det_jacobian(transformer, X):
    r"""Return the log of the volume that a fitted transformer gives a unit volume at each row.

    If z = T(x) has the density :math:`p_z`, then x has the density

    .. math:: \log p_x(x) = \log p_z(T(x)) + \log |\det J_T(x)|.

    Known are `StandardScaler`, `MinMaxScaler`, `MaxAbsScaler`, `RobustScaler`, `PowerTransformer`,
    `QuantileTransformer`, `PCA` with all components, `FunctionTransformer`, and pipelines of these.
    A transformer of your own has a method `log_abs_det_jacobian` of rows that returns one number
    each. It goes before what is known of the class that it derives from.

    Parameters
    ----------
    transformer : estimator instance
        Fitted transformer whose map of rows is one to one.
    X : ndarray of shape (n_samples, n_features)
        Rows before the transformation.

    Returns
    -------
    log_det : ndarray of shape (n_samples,)
        Logarithm of the absolute value of the determinant of the Jacobian; -inf where a
        `QuantileTransformer` has seen no rows and is constant.

    Raises
    ------
    ValueError
        If the Jacobian is not known, as that of a class which overrides `transform` of a known one
        without a Jacobian of its own; or if the map is not one to one: a `MinMaxScaler` that clips,
        a `PCA` that leaves components out, a `QuantileTransformer` of a column with ties, or of
        one whose values are so near each other that it moves many of them to its ends.

    Notes
    -----
    The function of a `FunctionTransformer` may be numpy's log, log1p, exp, expm1, sqrt, arcsinh or
    sinh, or scipy's logit or expit. Any other has to carry its Jacobian as an attribute
    `log_abs_det_jacobian`, a function of rows that returns one number each.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import FunctionTransformer, StandardScaler
    >>> from skmanifoldflow import log_abs_det_jacobian
    >>> X = np.array([[0.0, 0.0], [2.0, 8.0]])
    >>> log_abs_det_jacobian(StandardScaler().fit(X), X)  # standard deviations of 1 and 4
    array([-1.38629436, -1.38629436])

    A function of one's own:

    >>> def cube(X):
    ...     return X**3
    >>> cube.log_abs_det_jacobian = lambda X: np.log(3 * X**2).sum(axis=1)
    >>> log_abs_det_jacobian(FunctionTransformer(cube, np.cbrt).fit(X), [[1.0, 1.0]])
    array([2.19722458])

    A transformer of one's own:

    >>> class Doubled(StandardScaler):
    ...     def transform(self, X):
    ...         return 2 * super().transform(X)
    ...
    ...     def log_abs_det_jacobian(self, X):
    ...         return np.full(len(X), np.log(2 / self.scale_).sum())
    >>> log_abs_det_jacobian(Doubled().fit(X), X)
    array([0., 0.])
    """
    if hasattr(transformer, "log_abs_det_jacobian"):
        log_det = transformer.log_abs_det_jacobian(X)
    else:
        known = _known(transformer)
        if known is None:
            raise ValueError(
                f"The density behind {type(transformer).__name__} cannot be brought into the units "
                "of X: its Jacobian is not known. Give the class a method log_abs_det_jacobian, a "
                "function of rows that returns one number each."
            )
        log_det = _JACOBIANS[known](transformer, X)
    log_det = np.asarray(log_det)
    if log_det.shape != (len(X),):
        raise ValueError(
            f"The Jacobian of {type(transformer).__name__} must be one number for each of "
            f"{len(X)} rows, got an array of shape {log_det.shape}."
        )
    return log_det


def _known(transformer):
    """Return the class whose Jacobian is that of a transformer, or None."""
    known = next((kind for kind in type(transformer).__mro__ if kind in _JACOBIANS), None)
    if known is None:
        return None
    # Another `transform` has another Jacobian.
    own = getattr_static(type(transformer), "transform")
    return known if own is getattr_static(known, "transform") else None


def transformed(transformer, X):
    """Return transformed rows; those given stay as they are."""
    # With `copy=False` a transformer writes into its input. After `set_output` there are frames.
    return np.asarray(transformer.transform(X.copy()))


#: Transformers that map the rows of the whole space to the whole space.
_ONTO = StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PCA


def reaches_all(transformer):
    """Tell whether a transformer is known to map rows to the whole space."""
    if _known(transformer) is Pipeline:
        return all(reaches_all(step) for step in _steps(transformer))
    return getattr(transformer, "reaches_all", False) or _known(transformer) in _ONTO


def in_domain(transformer, X):
    """Tell which rows (n,) a transformer maps to finite ones."""
    is_inside = np.ones(len(X), dtype=bool)
    if _known(transformer) is Pipeline:
        for step in _steps(transformer):
            is_known_inside = in_domain(step, X)
            is_inside[is_inside] = is_known_inside
            if not is_inside.any():
                break
            X = transformed(step, X[is_known_inside])
        return is_inside
    if _known(transformer) is PowerTransformer:
        # Other values are an error there.
        return (X > 0).all(axis=1) if transformer.method == "box-cox" else is_inside
    if _known(transformer) not in (FunctionTransformer, None):
        return is_inside
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return np.isfinite(transformed(transformer, X)).all(axis=1)


def has_inverse(transformer):
    """Tell whether a transformer brings rows back into the units of its input."""
    if isinstance(transformer, Pipeline):
        return all(has_inverse(step) for step in _steps(transformer))
    if isinstance(transformer, FunctionTransformer):
        # Without an inverse it returns what it is given.
        return transformer.func is None or transformer.inverse_func is not None
    return hasattr(transformer, "inverse_transform")


def _steps(pipeline):
    return [s for _, s in pipeline.steps if s is not None and s != "passthrough"]


def _pipeline(transformer, X):
    log_det = np.zeros(len(X))
    for step in _steps(transformer):
        log_det = log_det + log_abs_det_jacobian(step, X)
        X = transformed(step, X)
    return log_det


def _scaler(transformer, X):
    if getattr(transformer, "clip", False):
        name = type(transformer).__name__
        raise ValueError(f"There is no density behind {name}(clip=True), which is not one to one.")
    if transformer.scale_ is None:
        return np.zeros(len(X))
    log_scale = float(np.log(transformer.scale_).sum())
    # This one multiplies by its scale, the others divide.
    is_factor = isinstance(transformer, MinMaxScaler)
    return np.full(len(X), log_scale if is_factor else -log_scale)


def _pca(transformer, X):
    n_components, n_features = transformer.components_.shape
    if n_components < n_features:
        raise ValueError(
            f"There is no density behind PCA with {n_components} components of {n_features} "
            "columns, which is not one to one."
        )
    if not transformer.whiten:
        return np.zeros(len(X))
    scale = np.sqrt(transformer.explained_variance_)
    # As PCA does, which divides by no smaller number.
    scale = np.maximum(scale, np.finfo(scale.dtype).eps)
    return np.full(len(X), -float(np.log(scale).sum()))


def _power(transformer, X):
    X, powers = np.asarray(X, dtype=np.float64), transformer.lambdas_ - 1
    # Yeo-Johnson is Box-Cox of 1 + x, of -x with the power 2 - lambda on the other side of zero.
    logs = np.log(X) if transformer.method == "box-cox" else np.sign(X) * np.log1p(np.abs(X))
    log_det = (powers * logs).sum(axis=1)
    if transformer.standardize:
        log_det = log_det - np.log(transformer._scaler.scale_).sum()
    return log_det


def _quantiles(transformer, X):
    X, references = np.asarray(X, dtype=np.float64), transformer.references_
    if len(references) < 2:
        raise ValueError(
            "There is no density behind QuantileTransformer with a single quantile: it takes "
            "n_quantiles of 2 or more, and as many rows."
        )
    is_normal = transformer.output_distribution == "normal"
    log_det = np.zeros(len(X))
    for j, (x, quantiles) in enumerate(zip(X.T, transformer.quantiles_.T, strict=True)):
        widths = np.diff(quantiles)
        if not (widths > 0).all():
            raise ValueError(
                f"There is no density behind QuantileTransformer: quantiles of column {j} are "
                "equal, as those of ties are. Spread the values over their spacing first, or take "
                "fewer n_quantiles."
            )
        slopes = np.diff(references) / widths
        if is_normal and _BOUNDS_THRESHOLD * (slopes[0] + slopes[-1]) > _MOST_AT_BOUNDS:
            raise ValueError(
                f"There is no density behind QuantileTransformer: it moves values within "
                f"{_BOUNDS_THRESHOLD:g} of the ends of a column to the ends, and the values of "
                f"column {j} are too near them. Scale the columns first, for instance with "
                "make_pipeline(StandardScaler(), QuantileTransformer(...))."
            )
        piece = np.clip(np.searchsorted(quantiles, x, side="right") - 1, 0, len(widths) - 1)
        log_det += np.log(slopes[piece])
        log_det[(x < quantiles[0]) | (x > quantiles[-1])] = -np.inf
    if is_normal:
        log_det -= norm.logpdf(transformed(transformer, X)).sum(axis=1)
    return log_det


def _function(transformer, X):
    function, options = transformer.func, transformer.kw_args or {}
    if function is None:
        return np.zeros(len(X))
    X = np.asarray(X, dtype=np.float64)
    if hasattr(function, "log_abs_det_jacobian"):
        return np.asarray(function.log_abs_det_jacobian(X, **options))
    if function in _LOG_DERIVATIVES and not options:
        return _LOG_DERIVATIVES[function](X).sum(axis=1)
    raise ValueError(
        f"The density behind FunctionTransformer of {getattr(function, '__name__', function)} "
        "cannot be brought into the units of X: give the function an attribute "
        "log_abs_det_jacobian, a function of rows that returns one number each."
    )


_JACOBIANS = {
    Pipeline: _pipeline,
    StandardScaler: _scaler,
    MinMaxScaler: _scaler,
    MaxAbsScaler: _scaler,
    RobustScaler: _scaler,
    PCA: _pca,
    PowerTransformer: _power,
    QuantileTransformer: _quantiles,
    FunctionTransformer: _function,
}
