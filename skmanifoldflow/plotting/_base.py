"""What all displays need: matplotlib, axes to draw on, and the model in a pipeline or a search."""

import math

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
)
from sklearn.utils import check_array

from .._unwrap import unwrap

__all__ = ["MAX_COLUMNS", "Unwrapped", "check_matplotlib", "new_axes", "panel_axes"]

MAX_COLUMNS = 4
# Their inverse takes codes, or indicators of missing values, and no samples between them.
_WITHOUT_INVERSE = (KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, SimpleImputer)


class Unwrapped:
    """The model at the end of a pipeline or within a search, and the steps before it.

    Parameters
    ----------
    estimator : estimator instance
        A model, a :class:`~sklearn.pipeline.Pipeline` that ends in one, or a search over either.

    Attributes
    ----------
    model : estimator instance
        The model itself, which need not be fitted unless it is that of a search.
    feature_names : ndarray of shape (n_features,) or None
        Names of the columns of a data frame that the estimator was fitted to.
    units : str or None
        Which units rows are shown in; None are those of the user.
    """

    def __init__(self, estimator):
        self.feature_names = getattr(estimator, "feature_names_in_", None)
        self.model, self._steps = unwrap(estimator)
        self.units = None
        if not all(map(_has_inverse, self._steps)):
            self.units = f"after {type(self._steps[-1]).__name__}"

    def to_model(self, X):
        """Return rows of the user as those of the model."""
        for step in self._steps:
            X = step.transform(X)
        return X

    def to_shown(self, X):
        """Return rows of the user in the units that are shown."""
        return check_array(X if self.units is None else self.to_model(X), input_name="X")

    def from_model(self, rows):
        """Return rows of the model in the units that are shown."""
        if self.units is None:
            for step in reversed(self._steps):
                rows = step.inverse_transform(rows)
        # After `set_output` they may be a frame.
        return np.asarray(rows)

    def column_names(self, n_columns):
        """Return the names of columns in the units that are shown, None if they have none."""
        if self.units is None:
            return self.feature_names
        return [f"column {column + 1} {self.units}" for column in range(n_columns)]


def _has_inverse(step):
    """Tell whether a transformer brings any rows back into the units of its input."""
    if isinstance(step, FunctionTransformer):
        # Without an inverse it returns what it is given.
        return step.func is None or step.inverse_func is not None
    if not getattr(step, "fit_inverse_transform", True):
        return False
    return hasattr(step, "inverse_transform") and not isinstance(step, _WITHOUT_INVERSE)


def check_matplotlib(caller):
    """Raise an ImportError that names the extra to install where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib. It comes with the extra [plot], "
            "pip install 'skmanifoldflow[plot]', or alone, pip install matplotlib."
        ) from error


def new_axes():
    """Return the axes of a new figure."""
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def panel_axes(figure, n, n_columns=MAX_COLUMNS, **options):
    """Return n axes in rows of at most `n_columns`."""
    n_columns = min(n, n_columns)
    axes = figure.subplots(math.ceil(n / n_columns), n_columns, squeeze=False, **options).ravel()
    for ax in axes[n:]:
        ax.set_axis_off()
    return axes[:n]
