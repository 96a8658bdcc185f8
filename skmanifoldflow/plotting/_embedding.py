"""Rows in the coordinates that a model gives them."""

from numbers import Integral
from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.preprocessing import StandardScaler
from sklearn.utils import (
    assert_all_finite,
    check_array,
    check_consistent_length,
    check_random_state,
    column_or_1d,
)
from sklearn.utils.validation import check_is_fitted

from .._joint_manifold.guides import new_guide
from ._base import Unwrapped, check_matplotlib, new_axes, new_figure
from ._colors import CLASS_COLORS, SAMPLE_COLOR, class_colors, class_handles
from ._places import plane, robust_range
from ._rows import check_image_shape, column_labels, show_images, thin

__all__ = ["EmbeddingDisplay"]

_MAX_LEGEND_ROWS = 16
# Ratio of the ranges of two components beyond which one scale would leave nothing to see.
_MOST_UNEQUAL = 8
# Cells of the shade along each axis, and rows whose densities set its range.
_N_SHADES, _MAX_SCORED = 80, 500
# Share of the rows' places that is less dense than what is shown.
_SHARE_WHITE = 0.05
# Opacity of decoded rows where no row is near, and bars of the others.
_FAINT, _MAX_BARS = 0.2, 6
# Length of the shorter side of a plane that is shaded, in those of the longer one.
_LEAST_HEIGHT = 0.5


class EmbeddingDisplay:
    """Rows embedded by a transformer, coloured by a class or a quantity.

    Two components are scattered, with one scale for both unless one is more than eight times as
    long as the other. A single one is counted in a histogram, or set against `y` if that is a
    quantity. On request the density of a model lies behind the rows as a shade, and beside them are
    the rows that the places of a grid stand for, and the picture of a guide.

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
    log_density : array-like of shape (n_y, n_x), default=None
        Log-densities, in nats, at the places of a grid over `extent`, from below.
    log_density_range : tuple of two floats, default=None
        Log-densities of the lightest and of the darkest shade. None is the range of the grid.
    decoded : array-like of shape (k, k, n_features), default=None
        Rows at the centres of k x k cells of `extent`, from below: images, or columns in units that
        can be compared, such as standard deviations from the mean, which are drawn as bars.
    is_near : array-like of bool of shape (k, k), default=None
        Which of these rows are as dense as rows of data are. The others are faint.
    extent : tuple of four floats, default=None
        Left, right, lower and upper end of the grids; None is the range of the embedding.
    image_shape : tuple (C, H, W), default=None
        Channels (1 or 3), height and width of the images that decoded rows are. None draws, of
        more than six columns, those that vary most.
    column_names : array-like of shape (n_features,), default=None
        Names of the columns of decoded rows.
    guide : array-like of shape (n_samples, 2), default=None
        Coordinates of the same rows by another method. They are drawn turned and reflected so that
        they lie as the embedding does.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the rows.
    axes_ : ndarray of matplotlib Axes
        All axes: of the rows and, on request, of the decoded rows and of the guide.
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
    shade_ : matplotlib QuadMesh or None
        The density.
    shade_colorbar_ : matplotlib Colorbar or None
        Its scale.
    images_ : list of matplotlib AxesImage
        Decoded images.
    profiles_ : matplotlib PolyCollection or None
        Decoded columns.
    guide_ : matplotlib PathCollection or None
        Rows in the coordinates of the guide.

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

    def __init__(
        self,
        embedding,
        y=None,
        *,
        components=None,
        y_name=None,
        log_density=None,
        log_density_range=None,
        decoded=None,
        is_near=None,
        extent=None,
        image_shape=None,
        column_names=None,
        guide=None,
    ):
        self.embedding = embedding
        self.y = y
        self.components = components
        self.y_name = y_name
        self.log_density = log_density
        self.log_density_range = log_density_range
        self.decoded = decoded
        self.is_near = is_near
        self.extent = extent
        self.image_shape = image_shape
        self.column_names = column_names
        self.guide = guide

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        components=None,
        y_name=None,
        density=False,
        grid=None,
        guide=None,
        image_shape=None,
        random_state=0,
        scatter_kw=None,
        ax=None,
    ):
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
        density : bool, default=False
            Whether to shade the plane by the log-density of the rows that its places stand for, by
            `score_samples_manifold` where the model has it, else by `score_samples`. Places that
            are less dense than 95 % of the rows' places are white.
        grid : int, default=None
            Draw the rows that the centres of so many by so many cells stand for, beside the picture
            of the rows. Those whose log-density is below that of 95 % of the rows' places, if the
            model has one, are faint: no row is near. Columns that are no images are bars, up to
            six that vary most over the map, of standard deviations from the mean. Components other
            than the two are at their medians.
        guide : True, estimator or array-like of shape (n_samples, 2), default=None
            Picture beside that of the model: coordinates of the rows of X, those that an estimator
            with `fit_transform` gives to the standardised rows, or, if True, those of a guide as
            the model had, which is fitted to these rows since a model does not keep it.
        image_shape : tuple (C, H, W), default=None
            Shape of the images that decoded rows are. None is `image_shape` of the model where
            there is such a parameter.
        random_state : int, RandomState instance or None, default=0
            Random state of the guide.
        scatter_kw : dict, default=None
            Options of matplotlib's `scatter` for the rows.
        ax : matplotlib Axes or array of these, default=None
            Axes to draw on, one for each picture. None makes a new figure.

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
            If density or grid is asked for and the estimator has no `inverse_transform`, no
            `score_samples`, or one component is drawn; if there is no guide.
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
        embedding = unwrapped.embed(X)
        display = cls(
            embedding, None if y is None else np.asarray(y), components=components, y_name=y_name
        )
        if density or grid is not None:
            display._look_back(unwrapped, X, density, grid, unwrapped.image_shape(image_shape))
        if guide is not None and guide is not False:
            display.guide = _guide_coordinates(guide, unwrapped, X, random_state)
        return display.plot(ax=ax, scatter_kw=scatter_kw)

    def _look_back(self, unwrapped, X, density, n_cells, image_shape):
        """Find the densities of places, and the rows that they stand for."""
        unwrapped.need("inverse_transform", *(["score_samples"] if density else []))
        places = self.embedding
        chosen = self._check_components(places.shape[1])
        if len(chosen) < 2:
            raise ValueError("density and grid need two components to be drawn.")
        ranges = _alike([robust_range(places[:, k]) for k in chosen])
        self.extent = tuple(float(end) for limits in ranges for end in limits)
        least: Any = None
        if hasattr(unwrapped.model, "score_samples"):
            few = thin(places, _MAX_SCORED)
            # As on the grid, other components are at their medians.
            whole = np.tile(np.median(places, axis=0), (len(few), 1))
            whole[:, chosen] = few[:, chosen]
            least = np.quantile(unwrapped.score_decoded(whole), _SHARE_WHITE, method="lower")
        if density:
            axes = [_centers(limits, _N_SHADES) for limits in ranges]
            nats = unwrapped.score_decoded(plane(places, chosen, axes))
            self.log_density = nats.reshape(_N_SHADES, _N_SHADES)
            self.log_density_range = float(least), float(max(nats.max(), least))
        if n_cells is None:
            return
        if not isinstance(n_cells, Integral) or n_cells < 1:
            raise ValueError(f"grid must be a positive integer, got {n_cells!r}.")
        cells = plane(places, chosen, [_centers(limits, n_cells) for limits in ranges])
        rows, data = unwrapped.from_model(unwrapped.decode(cells)), unwrapped.to_shown(X)
        if image_shape is None:
            scale = data.std(axis=0)
            rows = (rows - data.mean(axis=0)) / np.where(scale > 0, scale, np.inf)
        else:
            rows = np.clip(rows, data.min(), data.max())
        self.decoded = rows.reshape(n_cells, n_cells, -1)
        self.image_shape = image_shape
        self.column_names = unwrapped.column_names(rows.shape[1])
        if least is not None:
            self.is_near = (unwrapped.score_decoded(cells) >= least).reshape(n_cells, n_cells)

    def plot(self, ax=None, *, scatter_kw=None):
        """Draw the rows.

        Parameters
        ----------
        ax : matplotlib Axes or array of these, default=None
            Axes to draw on, one for each picture. None makes a new figure.
        scatter_kw : dict, default=None
            Options of matplotlib's `scatter` for the rows.

        Returns
        -------
        display : EmbeddingDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If components or y do not fit the rows, or what else is given does not fit together.

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
        guide = None
        if self.guide is not None:
            guide = check_array(self.guide, input_name="guide")
            check_consistent_length(embedding, guide)
            if guide.shape[1] != 2 or len(components) != 2:
                raise ValueError("A guide and the embedding beside it must both have two columns.")
        axes = self._new_axes(ax, 1 + (self.decoded is not None) + (guide is not None))
        ax = axes[0]
        self.ax_, self.axes_, self.figure_ = ax, axes, ax.figure
        self.scatter_ = self.bars_ = self.legend_ = self.colorbar_ = None
        self.shade_ = self.shade_colorbar_ = self.profiles_ = self.guide_ = None
        self.images_: list = []
        names = [f"component {component + 1}" for component in components]
        drawn = embedding[:, components]
        extent = self._check_extent(drawn)
        if len(components) == 2 or (y is not None and not _is_class(y)):
            are_lengths = len(components) == 2
            if len(components) == 1:
                drawn, y = np.column_stack([drawn, y]), None
                names.append(self.y_name or "y")
            self.scatter_ = self._scatter(ax, drawn, y, scatter_kw or {})
            self._add_key(ax, y)
            ax.set(xlabel=names[0], ylabel=names[1])
            if self.log_density is not None:
                self._shade(ax, extent)
            if are_lengths:
                _equalize(ax, drawn, extent if self.log_density is not None else None)
        else:
            self._count(ax, drawn[:, 0], y)
            ax.set(xlabel=names[0], ylabel="rows")
        if self.decoded is not None:
            self._draw_decoded(axes[1], extent, names)
        if guide is not None:
            turned = _turned(guide, drawn)
            self.guide_ = self._scatter(axes[-1], turned, y, scatter_kw or {})
            axes[-1].set(title="guide", xticks=[], yticks=[])
            _equalize(axes[-1], turned, None)
            ax.set_title("model")
        if self.log_density is not None:
            # The layout knows the height of axes of one scale only after a first drawing.
            ax.figure.canvas.figure.draw_without_rendering()
        return self

    def _new_axes(self, ax, n):
        if ax is None:
            if n == 1:
                return np.array([new_axes()])
            return new_figure(1 + 4.9 * n, 5).subplots(1, n)
        axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
        if len(axes) != n:
            raise ValueError(f"ax must hold axes for each of {n} pictures, got {len(axes)}.")
        return axes

    def _check_extent(self, points):
        if self.extent is not None:
            return tuple(float(end) for end in self.extent)
        low, high = points.min(axis=0), points.max(axis=0)
        return tuple(float(end) for pair in zip(low, high, strict=True) for end in pair)

    def _shade(self, ax, extent):
        density = np.asarray(self.log_density, dtype=float)
        if density.ndim != 2 or np.isnan(density).any():
            raise ValueError("log_density must be numbers on a grid of two dimensions.")
        x, y = (
            np.linspace(low, high, n + 1)
            for low, high, n in zip(extent[::2], extent[1::2], density.shape[::-1], strict=True)
        )
        low, high = self.log_density_range or (density.min(), density.max())
        drawn = np.ma.masked_less(density, low)
        style = {"cmap": _greys(), "vmin": low, "vmax": high, "zorder": 0, "rasterized": True}
        self.shade_ = ax.pcolormesh(x, y, drawn, **style)
        # Beneath the axes, whose height is known only when they are drawn.
        below = ax.inset_axes([0.1, -0.27, 0.8, 0.035])
        self.shade_colorbar_ = ax.figure.colorbar(
            self.shade_, cax=below, orientation="horizontal", label="log-density in nats"
        )

    def _draw_decoded(self, ax, extent, names):
        decoded = np.asarray(self.decoded, dtype=float)
        if decoded.ndim != 3 or decoded.shape[0] != decoded.shape[1]:
            raise ValueError(
                f"decoded must have the shape (k, k, n_features), got {decoded.shape}."
            )
        k, _, n_features = decoded.shape
        is_near = np.ones((k, k), dtype=bool) if self.is_near is None else np.asarray(self.is_near)
        if is_near.shape != (k, k):
            raise ValueError(f"is_near must have the shape {(k, k)}, got {is_near.shape}.")
        check_image_shape(self.image_shape, n_features)
        if self.image_shape is not None:
            _, height, width = self.image_shape
            # From above, as images are.
            faint = np.where(is_near[::-1], 1.0, _FAINT)
            alpha = np.repeat(np.repeat(faint, height, axis=0), width, axis=1)
            images = decoded[::-1].reshape(-1, n_features)
            style = {"gap": 0, "extent": extent, "alpha": alpha}
            self.images_ = [show_images(ax, images, self.image_shape, k, **style)]
        else:
            self._draw_profiles(ax, decoded, is_near, extent)
        ax.set(xlabel=names[0], ylabel=names[1], title="rows decoded")
        # Cells are as wide and as high as images, whatever the range of the coordinates.
        ax.set(xlim=extent[:2], ylim=extent[2:], aspect="auto")
        width, height = 1, 1
        if self.image_shape is not None:
            _, height, width = self.image_shape
        ax.set_box_aspect(height / width)

    def _draw_profiles(self, ax, decoded, is_near, extent):
        from matplotlib.collections import LineCollection, PolyCollection

        names = column_labels(self.column_names, decoded.shape[2])
        near = decoded[is_near] if is_near.any() else decoded.reshape(-1, len(names))
        kept = np.sort(np.argsort(-near.std(axis=0), kind="stable")[:_MAX_BARS])
        # A bar that fills its half of a cell is as long as few are.
        most = np.quantile(np.abs(near[:, kept]), 0.99) or 1.0
        heights = np.clip(decoded[..., kept] / most, -1, 1)
        k, n = len(decoded), len(kept)
        left, right, bottom, top = extent
        cell = np.array([(right - left) / k, (top - bottom) / k])
        j, i, column = np.meshgrid(np.arange(k), np.arange(k), np.arange(n))
        x = left + cell[0] * (j + 0.1 + 0.8 * column / n)
        base = bottom + cell[1] * (i + 0.5)
        tip, width = base + 0.45 * cell[1] * heights, 0.8 * cell[0] / n
        corners = [(x, base), (x + width, base), (x + width, tip), (x, tip)]
        bars = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=-2)
        colors = CLASS_COLORS[:n]
        alpha = np.where(is_near, 1.0, _FAINT)[:, :, None]
        style: dict[str, Any] = {
            "facecolors": np.array(colors)[column].ravel(),
            "alpha": np.broadcast_to(alpha, bars.shape[:3]).ravel(),
        }
        self.profiles_ = PolyCollection(list(bars.reshape(-1, 4, 2)), linewidths=0, **style)
        ax.add_collection(self.profiles_)
        ends = np.stack([x[..., 0], base[..., 0], x[..., -1] + width, base[..., 0]], axis=-1)
        lines = ends.reshape(-1, 2, 2)
        ax.add_collection(LineCollection(list(lines), colors="0.8", linewidths=0.5, zorder=0.5))
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "frameon": False}
        handles = class_handles([names[column] for column in kept], colors)
        ax.legend(handles=handles, ncols=2 if n > 3 else n, handletextpad=0, **where)

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

    def _scatter(self, ax, points, y, scatter_kw):
        # Many points are small, so that they do not hide each other.
        style = {"s": np.clip(20_000 / len(points), 4, 30), "linewidths": 0}
        if y is None:
            style["color"] = SAMPLE_COLOR
        elif _is_class(y):
            _, colors, codes = class_colors(y)
            style["color"] = colors[codes]
        else:
            style["c"] = y
        return ax.scatter(*points.T, **style | scatter_kw)

    def _add_key(self, ax, y):
        """Draw the legend of classes, or the colour bar of a quantity."""
        if y is None:
            return
        if _is_class(y):
            values, colors, _ = class_colors(y)
            self._add_legend(ax, values, colors)
        else:
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


def _alike(ranges):
    """Return two ranges the shorter of which is widened, unless it is much shorter."""
    lengths = [high - low for low, high in ranges]
    if max(lengths) > _MOST_UNEQUAL * min(lengths):
        return ranges
    more = [max(0.0, _LEAST_HEIGHT * max(lengths) - length) / 2 for length in lengths]
    return [(low - by, high + by) for (low, high), by in zip(ranges, more, strict=True)]


def _centers(limits, n):
    """Return the centres of n cells between two ends."""
    low, high = limits
    return low + (high - low) * (np.arange(n) + 0.5) / n


def _greys():
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    # Dark enough to be seen, light enough for points upon it.
    return ListedColormap(colormaps["Greys"](np.linspace(0.05, 0.55, 256)))


def _equalize(ax, points, extent):
    """Give both axes one scale, unless the points are much longer than wide."""
    low, high = points.min(axis=0), points.max(axis=0)
    if extent is not None:
        low, high = np.array(extent[::2]), np.array(extent[1::2])
        ax.set(xlim=extent[:2], ylim=extent[2:])
    longer, shorter = max(high - low), min(high - low)
    if longer <= _MOST_UNEQUAL * shorter:
        shared = ax.get_shared_x_axes(), ax.get_shared_y_axes()
        free = extent is None and all(len(axes.get_siblings(ax)) == 1 for axes in shared)
        ax.set_aspect("equal", adjustable="datalim" if free else "box")


def _turned(guide, embedding):
    """Return coordinates turned, reflected and scaled to lie as the embedding does."""
    guide, embedding = guide - guide.mean(axis=0), embedding - embedding.mean(axis=0)
    turn, scale = orthogonal_procrustes(guide, embedding)
    size = (guide**2).sum()
    return guide @ turn * (scale / size if size else 1.0)


def _guide_coordinates(guide, unwrapped, X, random_state):
    """Return the coordinates that a guide gives to rows."""
    if guide is True:
        guide = getattr(unwrapped.model, "guide", None)
        if guide is None or (isinstance(guide, str) and guide == "precomputed"):
            raise ValueError(
                f"{type(unwrapped.model).__name__} has no guide that can be fitted again: give its "
                "coordinates of the rows."
            )
    if not isinstance(guide, str) and not hasattr(guide, "fit_transform"):
        return np.asarray(guide, dtype=float)
    rows = StandardScaler().fit_transform(check_array(unwrapped.to_model(X)))
    seed = check_random_state(random_state).randint(2**31)
    return np.asarray(new_guide(guide, 2, rows, seed).fit_transform(rows))
