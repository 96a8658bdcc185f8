"""Charts of an atlas over the rows that they cover."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from ._base import Unwrapped, check_matplotlib, new_axes
from ._colors import class_handles
from ._rows import frame, plot_cloud, principal_plane

__all__ = ["AtlasDisplay"]

# P. Tol's "vibrant" colours, yellow and indigo: small points need more of a colour than classes do.
_PALETTE = [
    "#0077BB",
    "#EE7733",
    "#009988",
    "#EE3377",
    "#DDBB22",
    "#332288",
    "#33BBEE",
    "#CC3311",
]
_MAX_LEGEND_CHARTS = 10
# Times that every chart chooses its colour anew.
_COLOR_SWEEPS = 5
# What a colour that stands between two charts is mixed with.
_BETWEEN = 0.9


class AtlasDisplay:
    """Rows in the colours of their charts, in the space of the data or in the embedding.

    Each row has the colour of its most probable chart. Where no chart is certain, colours fade to
    grey, so that the borders show. Eight colours serve any number of charts; charts that lie close
    to each other have colours that are far apart.

    Parameters
    ----------
    points : array-like of shape (n_samples, n_columns)
        What is drawn of the rows: themselves, or their codes.
    probabilities : array-like of shape (n_samples, n_charts)
        Probability of each chart given each row; rows sum to 1.
    entries : array-like of shape (n_charts, n_columns), default=None
        Points that are drawn over the rows, one for each chart, such as the entries of a codebook.
    colors : list of n_charts colours, default=None
        Colour of each chart. None chooses them by the mean points of the charts.
    shade : bool, default=True
        Whether colours fade where no chart is certain.
    components : tuple of two or three ints, or int, default=None
        Columns of `points` to draw, counted from 0. None draws all columns if there are up to
        three, else the first two. A single column is set against the probability of the most
        probable chart.
    name : str, default="column"
        What a column is called on the axes, before its number.
    column_names : array-like of shape (n_columns,), default=None
        Names of the columns on the axes, in place of `name` and a number.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Its figure.
    points_ : matplotlib PathCollection
        The rows.
    entries_ : matplotlib PathCollection or None
        The entries.
    legend_ : matplotlib Legend or None
        Numbers of the charts, from 0; None if there are more than ten.
    chart_colors_ : ndarray of shape (n_charts, 4)
        Colour of each chart, RGBA.

    Examples
    --------
    >>> from skmanifoldflow import ChartAtlasFlow
    >>> from skmanifoldflow.datasets import LinkedCircles
    >>> from skmanifoldflow.plotting import AtlasDisplay
    >>> X, _ = LinkedCircles(noise=0.05).sample(500, random_state=0)
    >>> atlas = ChartAtlasFlow(n_charts=8, max_iter=2, random_state=0).fit(X)
    >>> display = AtlasDisplay.from_estimator(atlas, X, space="embedding")
    >>> display.chart_colors_.shape
    (8, 4)
    """

    def __init__(
        self,
        points,
        probabilities,
        *,
        entries=None,
        colors=None,
        shade=True,
        components=None,
        name="column",
        column_names=None,
    ):
        self.points = points
        self.probabilities = probabilities
        self.entries = entries
        self.colors = colors
        self.shade = shade
        self.components = components
        self.name = name
        self.column_names = column_names

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        space="data",
        partition=None,
        shade=True,
        components=None,
        scatter_kw=None,
        ax=None,
    ):
        """Draw rows and the charts of a fitted atlas.

        Parameters
        ----------
        estimator : ChartAtlasFlow
            Fitted atlas, a :class:`~sklearn.pipeline.Pipeline` that ends in one, or a search over
            either, whose best estimator is drawn.
        X : array-like of shape (n_samples, n_features)
            Rows.
        space : {"data", "embedding"}, default="data"
            What is drawn: the columns of X, of more than three the first two principal components
            of the standardised columns, or the codes of the rows with the entries of the codebook
            over them. A chart has the same colour in both. Columns have the names of the
            data frame that the estimator was fitted to. Where a step of a pipeline has no inverse,
            X is shown after the steps, and the axes say so.
        partition : int, default=None
            Which of several partitions into charts is drawn, counted from 0. Each covers all rows.
            None takes the one of the largest weight.
        shade : bool, default=True
            Whether colours fade where no chart is certain.
        components : tuple of two or three ints, or int, default=None
            Columns to draw, counted from 0; see :class:`AtlasDisplay`.
        scatter_kw : dict, default=None
            Options of matplotlib's `scatter` for the rows.
        ax : matplotlib Axes, default=None
            Axes to draw on, three-dimensional for three columns. None makes a new figure.

        Returns
        -------
        display : AtlasDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the estimator has no charts, or if space, partition or components do not fit.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from skmanifoldflow import ChartAtlasFlow
        >>> from skmanifoldflow.datasets import LinkedCircles
        >>> from skmanifoldflow.plotting import AtlasDisplay
        >>> X, _ = LinkedCircles(noise=0.05).sample(100, random_state=0)
        >>> atlas = ChartAtlasFlow(n_charts=4, max_iter=1, random_state=0).fit(X)
        >>> AtlasDisplay.from_estimator(atlas, X).chart_colors_.shape
        (4, 4)
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        unwrapped = Unwrapped(estimator)
        model = unwrapped.model
        check_is_fitted(model)
        if not hasattr(model, "codebook_"):
            raise ValueError(f"{type(model).__name__} has no charts.")
        if space not in ("data", "embedding"):
            raise ValueError(f"space must be 'data' or 'embedding', got {space!r}.")
        charts = _charts_of(model, partition)
        rows = unwrapped.to_model(X)
        probabilities = model.predict_proba(rows)[:, charts]
        total = probabilities.sum(axis=1, keepdims=True)
        # A row that is all of another partition has no probability left here.
        weights = model.chart_weights_[charts]
        probabilities = np.where(
            total > 0, probabilities / np.where(total > 0, total, 1), weights / weights.sum()
        )
        if space == "embedding":
            points = check_array(model.transform(rows))
            entries, name, column_names = model.codebook_[charts], "component", None
        else:
            points, entries, name = unwrapped.to_shown(X), None, "column"
            column_names = unwrapped.column_names(points.shape[1])
            if components is None and points.shape[1] > 3:
                points, name, column_names = _principal(points), "principal component", None
        display = cls(
            points,
            probabilities,
            entries=entries,
            colors=_spread_colors(_standardized(model.chart_centers_[charts])),
            shade=shade,
            components=components,
            name=name,
            column_names=column_names,
        )
        return display.plot(ax=ax, scatter_kw=scatter_kw)

    def plot(self, ax=None, *, scatter_kw=None):
        """Draw the rows.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on, three-dimensional for three columns. None makes a new figure.
        scatter_kw : dict, default=None
            Options of matplotlib's `scatter` for the rows.

        Returns
        -------
        display : AtlasDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If what is given does not fit together, or the axes do not have a dimension for each
            column.

        Examples
        --------
        >>> import numpy as np
        >>> from skmanifoldflow.plotting import AtlasDisplay
        >>> points, probabilities = np.array([[0.0, 1.0], [2.0, 3.0]]), np.eye(2)
        >>> AtlasDisplay(points, probabilities).plot().chart_colors_.shape
        (2, 4)
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        points = check_array(self.points, input_name="points")
        probabilities = check_array(self.probabilities, input_name="probabilities")
        check_consistent_length(points, probabilities)
        n_charts = probabilities.shape[1]
        entries = None if self.entries is None else check_array(self.entries, input_name="entries")
        if entries is not None and entries.shape != (n_charts, points.shape[1]):
            raise ValueError(
                f"entries must have the shape {(n_charts, points.shape[1])}, a row for each chart, "
                f"got {entries.shape}."
            )
        if self.column_names is not None and len(self.column_names) != points.shape[1]:
            raise ValueError(
                f"column_names must hold one for each of {points.shape[1]} columns, got "
                f"{len(self.column_names)}."
            )
        colors = self._colors(points, probabilities)
        components = self._check_components(points.shape[1], ax)
        ax = _new_axes(len(components)) if ax is None else ax
        self.ax_, self.figure_, self.chart_colors_ = ax, ax.figure, colors
        self.entries_ = self.legend_ = None

        charts, certainty = probabilities.argmax(axis=1), probabilities.max(axis=1)
        of_rows = colors[charts]
        if self.shade:
            of_rows = _fade(of_rows, certainty, n_charts)
        drawn = points[:, components]
        names = [f"{self.name} {component + 1}" for component in components]
        if self.column_names is not None:
            names = [str(self.column_names[component]) for component in components]
        if len(components) == 1:
            drawn = np.column_stack([drawn, certainty])
            names.append("probability of the chart")
        # Many points are small; on surfaces in space those in front should hide those behind.
        size = np.clip(20_000 / len(points), 4, 30) / (1.5 if len(components) == 3 else 4)
        self.points_ = plot_cloud(ax, drawn, of_rows, size=size, **scatter_kw or {})
        if entries is not None and len(components) > 1:
            # On rows of their own colour they show by their edge.
            self.entries_ = ax.scatter(
                *entries[:, components].T,
                s=100,
                color=colors,
                edgecolors="white",
                linewidths=1.8,
                **({"depthshade": False} if len(components) == 3 else {}),
            )
        if len(components) == 3:
            shown = drawn if entries is None else np.vstack([drawn, entries[:, components]])
            frame(ax, shown.min(axis=0), shown.max(axis=0))
        else:
            ax.set(xlabel=names[0], ylabel=names[1])
        if n_charts <= _MAX_LEGEND_CHARTS:
            self._add_legend(ax, colors)
        return self

    def _colors(self, points, probabilities):
        from matplotlib.colors import to_rgba_array

        if self.colors is None:
            total = probabilities.sum(axis=0)[:, None]
            means = probabilities.T @ points / np.where(total > 0, total, 1)
            return to_rgba_array(_spread_colors(means))
        colors = to_rgba_array(self.colors)
        if len(colors) != probabilities.shape[1]:
            raise ValueError(
                f"colors must hold one for each of {probabilities.shape[1]} charts, got "
                f"{len(colors)}."
            )
        return colors

    def _check_components(self, n, ax):
        """Return the columns to draw as a list."""
        n_dimensions = None if ax is None else 3 if ax.name == "3d" else 2
        if self.components is None:
            components: list = list(range(n if n <= 3 else 2))
            if n_dimensions == 2:
                components = components[:2]
        else:
            components = list(np.atleast_1d(self.components))
            are_columns = all(isinstance(c, Integral) and 0 <= int(c) < n for c in components)
            if not 1 <= len(components) <= 3 or not are_columns:
                raise ValueError(
                    f"components must be one to three integers between 0 and {n - 1}, the last "
                    f"column, got {self.components!r}."
                )
        if n_dimensions is not None and n_dimensions != max(2, len(components)):
            raise ValueError(
                f"{len(components)} columns cannot be drawn on axes of {n_dimensions} dimensions."
            )
        return components

    def _add_legend(self, ax, colors):
        style = {"handles": class_handles(range(len(colors)), colors), "title": "chart"}
        style |= {"handletextpad": 0}
        # Only a layout engine makes room beside the axes.
        if ax.figure.get_layout_engine() is not None:
            style |= {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}
        self.legend_ = ax.legend(**style)


def _charts_of(estimator, partition):
    """Return the slice of the charts of a partition."""
    slices = estimator._flow.slices
    if partition is None:
        return max(slices, key=lambda own: estimator.chart_weights_[own].sum())
    if not isinstance(partition, Integral) or not 0 <= int(partition) < len(slices):
        raise ValueError(
            f"partition must be an integer between 0 and {len(slices) - 1}, got {partition!r}."
        )
    return slices[partition]


def _spread_colors(centers):
    """Return a colour for each centre, far from the colours of the centres nearby.

    Equal charges in the product of the two spaces would do so: the potential of two of them is
    large only where centres and colours are both close.
    """
    from matplotlib.colors import to_rgb

    if len(centers) <= len(_PALETTE):
        return _PALETTE[: len(centers)]
    palette = np.array([to_rgb(color) for color in _PALETTE])
    likeness = 1 / (0.02 + ((palette[:, None] - palette) ** 2).sum(axis=2))
    distances = ((centers[:, None] - centers) ** 2).sum(axis=2)
    # Relative to their mean, so that squares neither overflow nor vanish.
    closeness = 1 / (distances / (distances.mean() or 1) + 1e-3) ** 2
    np.fill_diagonal(closeness, 0)
    chosen = np.zeros((len(centers), len(palette)))
    for _ in range(_COLOR_SWEEPS):
        for k in range(len(centers)):
            # In the first sweep only those before it have a colour.
            potential = closeness[k] @ chosen @ likeness
            chosen[k] = np.arange(len(palette)) == potential.argmin()
    return [_PALETTE[color] for color in chosen.argmax(axis=1)]


def _standardized(centers):
    """Return centres in columns of unit variance; constant columns are left as they are."""
    scale = centers.std(axis=0)
    return centers / np.where(scale > 0, scale, 1)


def _principal(points):
    return principal_plane(points)(points)


def _fade(colors, certainty, n_charts):
    """Mix colours with grey, the more the less certain a chart is."""
    certainty = (certainty - 1 / n_charts) / (1 - 1 / n_charts) if n_charts > 1 else certainty
    faded = colors.copy()
    faded[:, :3] = _BETWEEN + certainty[:, None] * (colors[:, :3] - _BETWEEN)
    return np.clip(faded, 0, 1)


def _new_axes(n_components):
    """Return the axes of a new figure."""
    if n_components < 3:
        return new_axes()
    import matplotlib.pyplot as plt

    return plt.figure(layout="constrained").add_subplot(projection="3d")
