"""What all displays need: matplotlib, axes to draw on, and the model in a pipeline or a search."""

import math
import warnings

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
)
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from .._densities.base import draw_by_seed
from .._densities.explanation import column_contributions
from .._unwrap import unwrap

__all__ = [
    "MAX_COLUMNS",
    "Unwrapped",
    "check_figure",
    "check_matplotlib",
    "new_axes",
    "new_figure",
    "panel_axes",
]

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
    steps : list of estimator instances
        The transformers before the model, in order.
    units : str or None
        Which units rows are shown in; None are those of the user.
    """

    def __init__(self, estimator):
        self.feature_names = getattr(estimator, "feature_names_in_", None)
        self.model, self.steps = unwrap(estimator)
        self.units = None
        if not all(map(_has_inverse, self.steps)):
            self.units = f"after {type(self.steps[-1]).__name__}"

    def to_model(self, X):
        """Return rows of the user as those of the model."""
        for step in self.steps:
            X = step.transform(X)
        return X

    def to_shown(self, X):
        """Return rows of the user in the units that are shown."""
        return check_array(X if self.units is None else self.to_model(X), input_name="X")

    def from_model(self, rows):
        """Return rows of the model in the units that are shown."""
        if self.units is None:
            for step in reversed(self.steps):
                rows = step.inverse_transform(rows)
        # After `set_output` they may be a frame.
        return np.asarray(rows)

    def need(self, *methods):
        """Raise a ValueError if the model lacks a method, a NotFittedError if it is not fitted."""
        for method in methods:
            if not hasattr(self.model, method):
                raise ValueError(f"{type(self.model).__name__} has no method {method}.")
        check_is_fitted(self.model)

    def embed(self, X):
        """Return the coordinates of rows of the user."""
        return check_array(self.model.transform(self.to_model(X)))

    def embed_rows(self, rows):
        """Return the coordinates of rows of the model."""
        return _unnamed(self.model.transform, rows)

    def decode(self, coordinates):
        """Return the rows of the model that coordinates stand for."""
        return np.asarray(self.model.inverse_transform(coordinates))

    def score(self, rows):
        """Return the log-densities of rows of the model, of a detector those of its density."""
        is_detector = hasattr(self.model, "p_value") and hasattr(self.model, "density_")
        model = self.model.density_ if is_detector else self.model
        return _unnamed(model.score_samples, rows)

    def explain(self, rows, candidates):
        """Return the shares of columns in the strangeness of rows of the model."""
        if hasattr(self.model, "explain"):
            return _unnamed(self.model.explain, rows)
        return column_contributions(self.score, rows, candidates)

    def score_decoded(self, coordinates):
        """Return the log-densities at coordinates: on the manifold where the model has such."""
        on_manifold = getattr(self.model, "score_samples_manifold", self.model.score_samples)
        return _unnamed(on_manifold, self.decode(coordinates))

    def draw(self, n_samples, seed, **options):
        """Draw rows of the model."""
        return draw_by_seed(self.model, n_samples, seed, **options)

    def image_shape(self, given):
        """Return the shape of images that is given, else that of the model, or None."""
        return getattr(self.model, "image_shape", None) if given is None else given

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


def _unnamed(function, rows):
    """Return a function of rows that have lost the names that the model was fitted with."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        return np.asarray(function(rows))


def check_matplotlib(caller):
    """Raise an ImportError that names the extra to install where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib. It comes with the extra [plot], "
            "pip install 'skmanifoldflow[plot]', or alone, pip install matplotlib."
        ) from error


def new_axes(width=6.4, height=4.8):
    """Return the axes of a new figure of a size in inches."""
    return new_figure(width, height).subplots()


def new_figure(width, height):
    """Return a new figure of a size in inches."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(width, height), layout="constrained")


def check_figure(figure, width, height, h_pad=None):
    """Return the figure that is given, or a new one with such a space between rows of axes."""
    if figure is not None:
        return figure
    figure = new_figure(width, height)
    if h_pad is not None:
        figure.get_layout_engine().set(h_pad=h_pad)
    return figure


def panel_axes(figure, n, n_columns=MAX_COLUMNS, **options):
    """Return n axes in rows of at most `n_columns`."""
    n_columns = min(n, n_columns)
    axes = figure.subplots(math.ceil(n / n_columns), n_columns, squeeze=False, **options).ravel()
    for ax in axes[n:]:
        ax.set_axis_off()
    return axes[:n]
