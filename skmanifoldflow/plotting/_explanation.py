"""Which columns make rows strange."""

import numpy as np
from sklearn.utils import check_array

from ._base import Unwrapped, check_matplotlib, new_axes
from ._rows import finite_shares, wrap

__all__ = ["ExplanationDisplay"]

_MAX_NAMES = 32


class ExplanationDisplay:
    """Share of each column in the strangeness of rows, as a map of colours.

    Parameters
    ----------
    shares : array-like of shape (n_samples, n_features)
        Nats that each column has a part of, as `NoveltyDetector.explain` returns them.
    feature_names : array-like of shape (n_features,), default=None
        Names of the columns; None numbers them.
    row_names : array-like of shape (n_samples,), default=None
        Names of the rows; None numbers them.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Its figure.
    image_ : matplotlib AxesImage
        The map. Negative shares, of values that are more common than expected, have the colour of
        zero.
    colorbar_ : matplotlib Colorbar
        Its scale.

    Examples
    --------
    >>> from skmanifoldflow.plotting import ExplanationDisplay
    >>> display = ExplanationDisplay([[0.2, 9.0], [7.0, 8.0]], ["height", "weight"]).plot()
    >>> [label.get_text() for label in display.ax_.get_xticklabels()]
    ['height', 'weight']
    """

    def __init__(self, shares, feature_names=None, row_names=None):
        self.shares = shares
        self.feature_names = feature_names
        self.row_names = row_names

    @classmethod
    def from_estimator(cls, estimator, X, *, image_kw=None, ax=None):
        """Draw which columns make rows strange.

        Parameters
        ----------
        estimator : estimator instance
            Fitted :class:`~skmanifoldflow.NoveltyDetector`, or a
            :class:`~sklearn.pipeline.Pipeline` that ends in one, whose columns are those of its
            last step, or a search over either.
        X : array-like of shape (n_samples, n_features)
            Rows, some tens of them at most. The index of a frame names them.
        image_kw : dict, default=None
            Options of matplotlib's `imshow`.
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        Returns
        -------
        display : ExplanationDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the estimator has no method `explain`.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import NoveltyDetector
        >>> from skmanifoldflow.datasets import SCurve
        >>> from skmanifoldflow.plotting import ExplanationDisplay
        >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
        >>> detector = NoveltyDetector(GaussianMixture(8), random_state=0).fit(X)
        >>> ExplanationDisplay.from_estimator(detector, X[:5]).shares.shape
        (5, 3)
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        unwrapped = Unwrapped(estimator)
        unwrapped.need("explain")
        model = unwrapped.model
        row_names = list(X.index) if hasattr(X, "iloc") else None
        shares = model.explain(unwrapped.to_model(X))
        # Scalers keep the columns, and forget their names.
        names = getattr(model, "feature_names_in_", unwrapped.feature_names)
        if names is not None and len(names) != shares.shape[1]:
            names = None
        return cls(shares, names, row_names).plot(ax=ax, image_kw=image_kw)

    def plot(self, ax=None, *, image_kw=None):
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.
        image_kw : dict, default=None
            Options of matplotlib's `imshow`.

        Returns
        -------
        display : ExplanationDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If shares are not a table, or names not one for each column and row.

        Examples
        --------
        >>> from skmanifoldflow.plotting import ExplanationDisplay
        >>> ExplanationDisplay([[0.2, 9.0]]).plot().image_.get_array().shape
        (1, 2)
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        shares = check_array(self.shares, ensure_all_finite=False, input_name="shares")
        columns = _names(self.feature_names, shares.shape[1], "feature_names")
        rows = _names(self.row_names, shares.shape[0], "row_names")
        if ax is None:
            width = np.clip(2.5 + 0.35 * len(columns), 6.4, 12)
            ax = new_axes(width, np.clip(2 + 0.25 * len(rows), 3.2, 10))
        drawn = finite_shares(shares)
        # Where all shares are negative nothing has a colour.
        most = max(float(drawn.max()), 1e-9)
        style = {"cmap": "Reds", "vmin": 0, "vmax": most, "aspect": "auto"}
        self.image_ = ax.imshow(drawn, **style | (image_kw or {}))
        # Of very many columns or rows only some can be named.
        shown = range(0, len(columns), -(-len(columns) // _MAX_NAMES))
        rotation = "vertical" if len(shown) > 5 else 0
        ax.set_xticks(shown, [wrap(columns[k]) for k in shown], rotation=rotation)
        shown = range(0, len(rows), -(-len(rows) // _MAX_NAMES))
        ax.set_yticks(shown, [rows[k] for k in shown])
        ax.set(xlabel="column", ylabel="row")
        self.colorbar_ = ax.figure.colorbar(self.image_, ax=ax, label="share in nats")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _names(names, n, parameter):
    """Return names as text, by default numbers from 0 on."""
    names = range(n) if names is None else names
    if len(names) != n:
        raise ValueError(f"{parameter} must hold {n} names, got {len(names)}.")
    return [str(name) for name in names]
