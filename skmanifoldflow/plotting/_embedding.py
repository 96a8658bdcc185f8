"""Rows in the coordinates that a model gives them."""

from numbers import Integral

import numpy as np
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted

from ._base import Unwrapped, check_matplotlib, new_axes
from ._colors import CLASS_COLORS, SAMPLE_COLOR, class_colors, class_handles

__all__ = ["EmbeddingDisplay"]

_MAX_LEGEND_ROWS = 16


class EmbeddingDisplay:
    """Rows embedded by a transformer, coloured by a class or a quantity.

    Two components are scattered. A single one is counted in a histogram, or set against `y` if that
    is a quantity.

    Parameters
    ----------
    embedding : array-like of shape (n_samples, n_components)
        Coordinates of the rows.
    y : array-like of shape (n_samples,), default=None
        What colours the rows. Strings, booleans and up to ten different whole numbers are classes,
        with a legend; all other numbers are a quantity, with a colour bar. Numbers given as strings
        are classes. More than ten classes get colours in their order.
    components : int or tuple of one or two ints, default=None
        Columns of `embedding` to draw, counted from 0. None draws the first two, or the only one.
    y_name : str, default=None
        Name of y, above the legend or beside the colour bar.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Its figure.
    scatter_ : matplotlib PathCollection or None
        The rows; None where a histogram is drawn.
    bars_ : list of matplotlib BarContainer or None
        The stacked histograms, one for each class; None where points are drawn.
    legend_ : matplotlib Legend or None
        Names of the classes.
    colorbar_ : matplotlib Colorbar or None
        Scale of the quantity.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from skmanifoldflow.plotting import EmbeddingDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> display = EmbeddingDisplay.from_estimator(PCA(2).fit(X), X, y)
    >>> [text.get_text() for text in display.legend_.get_texts()]
    ['0', '1', '2']
    """

    def __init__(self, embedding, y=None, *, components=None, y_name=None):
        self.embedding = embedding
        self.y = y
        self.components = components
        self.y_name = y_name

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, components=None, y_name=None, ax=None):
        """Embed rows with a fitted transformer and draw them.

        Parameters
        ----------
        estimator : estimator instance
            Fitted transformer: one of this package, one of scikit-learn, a
            :class:`~sklearn.pipeline.Pipeline` that ends in one, or a search over either, whose
            best estimator embeds the rows.
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,), default=None
            Classes or a quantity; see :class:`EmbeddingDisplay`.
        components : int or tuple of one or two ints, default=None
            Components to draw, counted from 0. None draws the first two, or the only one.
        y_name : str, default=None
            Name of y. None takes the name of a pandas Series.
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        Returns
        -------
        display : EmbeddingDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the estimator has no method `transform`, or if components or y do not fit the rows.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.decomposition import PCA
        >>> from skmanifoldflow.plotting import EmbeddingDisplay
        >>> X, y = load_iris(return_X_y=True)
        >>> EmbeddingDisplay.from_estimator(PCA(2).fit(X), X, y).embedding.shape
        (150, 2)
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        unwrapped = Unwrapped(estimator)
        model = unwrapped.model
        if not hasattr(model, "transform"):
            raise ValueError(
                f"{type(model).__name__} has no method transform. If it has fit_transform, "
                f"draw {cls.__name__}(estimator.fit_transform(X), y).plot()."
            )
        check_is_fitted(model)
        if y_name is None:
            y_name = getattr(y, "name", None)
        display = cls(
            check_array(model.transform(unwrapped.to_model(X))),
            None if y is None else np.asarray(y),
            components=components,
            y_name=y_name,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw the rows.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        Returns
        -------
        display : EmbeddingDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If components or y do not fit the rows.

        Examples
        --------
        >>> from skmanifoldflow.plotting import EmbeddingDisplay
        >>> display = EmbeddingDisplay([[0.0, 1.0], [2.0, 3.0]]).plot()
        >>> display.scatter_.get_offsets().shape
        (2, 2)
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        embedding = check_array(self.embedding, input_name="embedding")
        components = self._check_components(embedding.shape[1])
        y = self._check_y(embedding)
        ax = new_axes() if ax is None else ax
        self.ax_, self.figure_ = ax, ax.figure
        self.scatter_ = self.bars_ = self.legend_ = self.colorbar_ = None
        names = [f"component {component + 1}" for component in components]
        drawn = embedding[:, components]
        if len(components) == 2 or (y is not None and not _is_class(y)):
            if len(components) == 1:
                drawn, y = np.column_stack([drawn, y]), None
                names.append(self.y_name or "y")
            self._scatter(ax, drawn, y)
            ax.set(xlabel=names[0], ylabel=names[1])
        else:
            self._count(ax, drawn[:, 0], y)
            ax.set(xlabel=names[0], ylabel="rows")
        return self

    def _check_components(self, n):
        """Return the columns to draw as a list."""
        if self.components is None:
            return list(range(min(n, 2)))
        components = list(np.atleast_1d(self.components))
        are_columns = all(isinstance(c, Integral) and 0 <= int(c) < n for c in components)
        if not 1 <= len(components) <= 2 or not are_columns:
            raise ValueError(
                f"components must be one or two integers between 0 and {n - 1}, the last column of "
                f"the embedding, got {self.components!r}."
            )
        return components

    def _check_y(self, embedding):
        if self.y is None:
            return None
        y = column_or_1d(self.y)
        check_consistent_length(embedding, y)
        # numpy cannot sort objects of several types.
        y = y.astype(str) if y.dtype == object else y
        assert_all_finite(y, input_name="y")
        return y

    def _scatter(self, ax, points, y):
        # Many points are small, so that they do not hide each other.
        style = {"s": np.clip(20_000 / len(points), 4, 30), "linewidths": 0}
        if y is None:
            style["color"] = SAMPLE_COLOR
        elif _is_class(y):
            values, colors, codes = class_colors(y)
            style["color"] = colors[codes]
        else:
            style["c"] = y
        self.scatter_ = ax.scatter(*points.T, **style)
        if y is not None and _is_class(y):
            self._add_legend(ax, values, colors)
        elif y is not None:
            self.colorbar_ = ax.figure.colorbar(self.scatter_, ax=ax, label=self.y_name)

    def _count(self, ax, coordinates, y):
        if y is None:
            self.bars_ = [ax.hist(coordinates, bins=40, color=SAMPLE_COLOR)[2]]
            return
        values, colors, codes = class_colors(y)
        parts = [coordinates[codes == k] for k in range(len(values))]
        bars = ax.hist(parts, bins=40, stacked=True, color=colors)[2]
        self.bars_ = list(bars) if len(values) > 1 else [bars]
        self._add_legend(ax, values, colors)

    def _add_legend(self, ax, values, colors):
        style = {"handles": class_handles(values, colors), "title": self.y_name}
        style |= {"ncols": -(-len(values) // _MAX_LEGEND_ROWS), "handletextpad": 0}
        # Only a layout engine makes room beside the axes.
        if ax.figure.get_layout_engine() is not None:
            style |= {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}
        self.legend_ = ax.legend(**style)


def _is_class(y):
    """Return whether values name classes, and do not measure a quantity."""
    if y.dtype.kind not in "iuf":
        return True
    values = np.unique(y)
    return len(values) <= len(CLASS_COLORS) and bool((values == np.round(values)).all())
