"""What rows become along a line of coordinates."""

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_array

from ._base import Unwrapped, check_figure, check_matplotlib
from ._colors import ACCENT_COLOR, CLASS_COLORS, DATA_COLOR, SAMPLE_COLOR
from ._paths import dense_path
from ._rows import (
    check_data,
    check_image_shape,
    column_labels,
    frame,
    name_strip,
    plot_cloud,
    principal_plane,
    show_images,
    thin,
)

__all__ = ["WalkDisplay"]

_N_IMAGES, _N_BETWEEN, _N_STEPS = 12, 10, 60
_MAX_POINTS, _MAX_PROFILES = 1000, 6
_COLORS = (SAMPLE_COLOR, ACCENT_COLOR, "#009E73", "0.3")


class WalkDisplay:
    r"""Rows along walks through the coordinates of a model, and how dense they are there.

    Images are shown in a strip for each walk. Rows of up to three columns are lines over the data.
    Of more columns, those that change most are drawn against the step, in standard deviations of
    the data. Beside or below are the log-densities.

    Parameters
    ----------
    walks : array-like of shape (n_walks, n_steps, n_features)
        Rows along each walk.
    log_density : array-like of shape (n_walks, n_places), default=None
        Log-densities at evenly spaced places of each walk, in nats.
    labels : list of str, default=None
        Name of each walk.
    data : array-like of shape (n_rows, n_features), default=None
        Rows of data: points behind the lines, the range of values of images, and the unit of the
        columns of tables. None takes these from the walks.
    position : tuple of two floats, default=(0, 1)
        Where walks start and end, on the horizontal axis.
    position_name : str, default="part of the way"
        Name of that axis.
    image_shape : tuple (C, H, W), default=None
        Channels (1 or 3), height and width of the images that rows are.
    column_names : array-like of shape (n_features,), default=None
        Names of the columns. None numbers them from 1.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Axes of the walks and, if there are any, of the log-densities, the last ones.
    figure_ : matplotlib Figure or SubFigure
        Their figure.
    images_ : list of matplotlib AxesImage
        Strips of images; empty for other rows.
    lines_ : list of matplotlib Line2D
        The walks over the data, or the columns of all walks; empty for images.
    density_lines_ : list of matplotlib Line2D
        Log-densities of the walks.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from skmanifoldflow.plotting import WalkDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> pca = PCA(5).fit(X)
    >>> display = WalkDisplay.from_estimator(pca, X, ends=(0, 1), image_shape=(1, 8, 8))
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['straight', 'along the density', 'log-density\nin nats']
    """

    def __init__(
        self,
        walks,
        log_density=None,
        *,
        labels=None,
        data=None,
        position=(0, 1),
        position_name="part of the way",
        image_shape=None,
        column_names=None,
    ):
        self.walks = walks
        self.log_density = log_density
        self.labels = labels
        self.data = data
        self.position = position
        self.position_name = position_name
        self.image_shape = image_shape
        self.column_names = column_names

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        component=0,
        ends=None,
        n_steps=None,
        image_shape=None,
        line_kw=None,
        figure=None,
    ):
        """Walk along a coordinate of a fitted model, or from one row to another.

        Parameters
        ----------
        estimator : estimator instance
            Fitted model with `transform` and `inverse_transform`, a
            :class:`~sklearn.pipeline.Pipeline` that ends in one, or a search over either. Where a
            step of a pipeline has no inverse, rows are shown after the steps. Densities are drawn
            if it has `score_samples`; they are those of `score_samples_manifold` where it has that.
        X : array-like of shape (n_samples, n_features)
            Rows, among which the walk is.
        component : int, default=0
            Coordinate along which to walk, from its 1 % quantile over the rows to its 99 %
            quantile; the others stay at their medians. Ignored if `ends` are given.
        ends : tuple of two ints, default=None
            Positions in X of the rows between which to walk: straight in the coordinates and, if
            the model has a density, along it too. That walk is the shortest one through the
            coordinates of rows where length counts the more the lower the density is, as in Fermat
            distances [1]_.
        n_steps : int, default=None
            Number of rows along a walk. None is 12 images, or 60 other rows.
        image_shape : tuple (C, H, W), default=None
            Shape of the images that rows are. None is `image_shape` of the model where there is
            such a parameter.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the lines.
        figure : matplotlib Figure or SubFigure, default=None
            Figure to draw on. None makes a new one.

        Returns
        -------
        display : WalkDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the model lacks a method, or has no such component, or there are no such rows.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        References
        ----------
        .. [1] Groisman, P., Jonckheere, M., Sapienza, F. "Nonhomogeneous Euclidean first-passage
           percolation and distance learning". Bernoulli 28, 2022.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.decomposition import PCA
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from skmanifoldflow.plotting import WalkDisplay
        >>> X = load_wine(as_frame=True).data
        >>> model = make_pipeline(StandardScaler(), PCA(2)).fit(X)
        >>> WalkDisplay.from_estimator(model, X, component=1).walks.shape
        (1, 60, 13)
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        unwrapped = Unwrapped(estimator)
        unwrapped.need("transform", "inverse_transform")
        image_shape = unwrapped.image_shape(image_shape)
        if n_steps is None:
            n_steps = _N_STEPS if image_shape is None else _N_IMAGES
        if not isinstance(n_steps, Integral) or int(n_steps) < 2:
            raise ValueError(f"n_steps must be an integer >= 2, got {n_steps!r}.")
        # Densities vary between images too.
        n_between = 1 if image_shape is None else _N_BETWEEN
        n_places = n_between * (int(n_steps) - 1) + 1
        data, places = unwrapped.to_shown(X), unwrapped.embed(X)
        has_density = hasattr(unwrapped.model, "score_samples")
        options: dict[str, Any] = {}
        if ends is None:
            walks, options["position"] = _along(places, component, n_places)
            options["position_name"] = f"component {component + 1}"
        else:
            start, stop = places[_check_ends(ends, len(places))]
            t = np.linspace(0, 1, n_places)[:, None]
            walks, options["labels"] = [start + t * (stop - start)], ["straight"]
            if has_density:
                walks.append(dense_path(unwrapped.score_decoded, places, start, stop, n_places))
                options["labels"].append("along the density")
        display = cls(
            np.stack([unwrapped.from_model(unwrapped.decode(walk[::n_between])) for walk in walks]),
            np.stack([unwrapped.score_decoded(walk) for walk in walks]) if has_density else None,
            data=data,
            image_shape=image_shape,
            column_names=unwrapped.column_names(data.shape[1]),
            **options,
        )
        return display.plot(figure=figure, line_kw=line_kw)

    def plot(self, figure=None, *, line_kw=None):
        """Draw the walks.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, default=None
            Figure to draw on. None makes a new one.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the lines.

        Returns
        -------
        display : WalkDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If what is given does not fit together.

        Examples
        --------
        >>> import numpy as np
        >>> from skmanifoldflow.plotting import WalkDisplay
        >>> t = np.linspace(0, 1, 20)
        >>> display = WalkDisplay([np.column_stack([t, t**2])]).plot()
        >>> display.lines_[0].get_xydata().shape
        (20, 2)
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        walks = check_array(self.walks, allow_nd=True, input_name="walks")
        if walks.ndim != 3:
            raise ValueError(
                f"walks must have the shape (n_walks, n_steps, n_features), got {walks.shape}."
            )
        n_walks, _, n_features = walks.shape
        data = check_data(self.data, n_features, "walks")
        names = column_labels(self.column_names, n_features)
        density = None
        if self.log_density is not None:
            density = np.asarray(self.log_density, dtype=float)
            if density.ndim != 2 or len(density) != n_walks:
                raise ValueError(
                    f"log_density must have a row for each of {n_walks} walks, got an array of "
                    f"shape {density.shape}."
                )
        labels = [""] * n_walks if self.labels is None else list(self.labels)
        if len(labels) != n_walks:
            raise ValueError(f"labels must hold one string for each of {n_walks} walks.")
        check_image_shape(self.image_shape, n_features)
        self.images_, self.lines_, self.density_lines_ = [], [], []
        style = {"linewidth": 2} | (line_kw or {})
        if self.image_shape is not None:
            self._plot_images(figure, walks, data, labels, density)
        elif n_features <= 3:
            self._plot_lines(figure, walks, data, names, labels, density, style)
        else:
            self._plot_profiles(figure, walks, data, names, labels, density, style)
        if density is not None:
            self._plot_density(self.axes_[-1], density, labels, style)
        return self

    def _plot_images(self, figure, walks, data, labels, density):
        n_walks, n_steps, _ = walks.shape
        _, height, width = self.image_shape
        strip = 7.2 * height / (n_steps * width)
        below = 0 if density is None else 1.7
        size = 8, 0.2 + (strip + 0.15) * n_walks + below
        self.figure_ = check_figure(figure, *size, h_pad=0.03)
        ratios = [strip] * n_walks + [below] * (density is not None)
        axes = self.figure_.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios)
        self.axes_ = axes.ravel()
        limits = np.percentile(walks, [1, 99]) if data is None else (data.min(), data.max())
        for ax, images, label in zip(self.axes_, walks, labels, strict=False):
            self.images_.append(show_images(ax, images, self.image_shape, n_steps, limits))
            name_strip(ax, label)

    def _plot_lines(self, figure, walks, data, names, labels, density, style):
        n_features = walks.shape[2]
        n_panels = 1 if density is None else 2
        self.figure_ = check_figure(figure, 4.8 * n_panels, 4.2)
        gridspec = self.figure_.add_gridspec(1, n_panels)
        options = {"projection": "3d"} if n_features == 3 else {}
        ax = self.figure_.add_subplot(gridspec[0], **options)
        panels = [ax] + [self.figure_.add_subplot(gridspec[k]) for k in range(1, n_panels)]
        self.axes_ = np.array(panels)
        flat = walks.reshape(-1, n_features)
        if data is not None:
            flat = np.vstack([flat, data])
        if n_features == 1:
            t = np.linspace(0, 1, walks.shape[1])
            drawn = [np.column_stack([t, walk[:, 0]]) for walk in walks]
            names, data = ["part of the way", names[0]], None
        else:
            drawn = list(walks)
            low, high = flat.min(axis=0), flat.max(axis=0)
            if data is not None:
                plot_cloud(ax, thin(data, _MAX_POINTS), DATA_COLOR, size=1.5)
            elif n_features == 3:
                ax.view_init(elev=10, azim=-75)
            frame(ax, low, high, zoom=1.2)
        for walk, label, color in zip(drawn, labels, _cycle(len(drawn)), strict=True):
            self.lines_ += ax.plot(*walk.T, **{"color": color, "label": label} | style)
            ax.scatter(*walk[[0, -1]].T, color=color, s=25, zorder=4)
        if n_features < 3:
            ax.set(xlabel=names[0], ylabel=names[1])

    def _plot_profiles(self, figure, walks, data, names, labels, density, style):
        n_walks, _, n_features = walks.shape
        reference = walks.reshape(-1, n_features) if data is None else data
        mean, scale = reference.mean(axis=0), reference.std(axis=0)
        profiles = (walks - mean) / np.where(scale > 0, scale, np.inf)
        # Those that change most along any of the walks.
        spread = np.ptp(profiles, axis=1).max(axis=0)
        kept = np.argsort(-spread, kind="stable")[:_MAX_PROFILES]
        has_plane = data is not None
        n_panels = n_walks + has_plane + (density is not None)
        self.figure_ = check_figure(figure, min(4.2 * n_panels, 14), 3.8)
        self.axes_ = self.figure_.subplots(1, n_panels, squeeze=False).ravel()
        panels = list(self.axes_)
        if has_plane:
            ax, project = panels.pop(0), principal_plane(data)
            points = project(data)
            plot_cloud(ax, thin(points, _MAX_POINTS), DATA_COLOR, size=2)
            frame(ax, points.min(axis=0), points.max(axis=0))
            for walk, color in zip(walks, _cycle(n_walks), strict=True):
                ax.plot(*project(walk).T, **{"color": color} | style)
                ax.scatter(*project(walk[[0, -1]]).T, color=color, s=25, zorder=4)
            ax.set(xlabel="principal component 1", ylabel="principal component 2")
        low, high = profiles[..., kept].min(), profiles[..., kept].max()
        margin = 0.05 * (high - low) or 0.5
        position = self._positions(walks.shape[1])
        for ax, profile, label in zip(panels, profiles, labels, strict=False):
            for column, color in zip(kept, CLASS_COLORS, strict=False):
                options = {"color": color, "label": names[column]} | style
                self.lines_ += ax.plot(position, profile[:, column], **options)
            ax.set(xlabel=self.position_name, title=label, ylim=(low - margin, high + margin))
        panels[0].set_ylabel("standard deviations from the mean")
        handles = self.lines_[: len(kept)]
        self.figure_.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(len(kept), 3 if n_panels < 3 else 6),
            frameon=False,
        )

    def _positions(self, n):
        start, stop = self.position
        return np.linspace(start, stop, n)

    def _plot_density(self, ax, density, labels, style):
        position = self._positions(density.shape[1])
        for values, label, color in zip(density, labels, _cycle(len(density)), strict=True):
            finite = np.where(np.isfinite(values), values, np.nan)
            options = {"color": color, "label": label} | style
            self.density_lines_ += ax.plot(position, finite, **options)
        name = "log-density in nats" if self.image_shape is None else "log-density\nin nats"
        ax.set(xlabel=self.position_name, ylabel=name)
        if any(labels):
            ax.legend()


def _cycle(n):
    return [_COLORS[k % len(_COLORS)] for k in range(n)]


def _check_ends(ends, n):
    ends = list(np.atleast_1d(ends))
    are_rows = all(isinstance(end, Integral) and -n <= int(end) < n for end in ends)
    if len(ends) != 2 or not are_rows:
        raise ValueError(f"ends must be positions of two of the {n} rows of X, got {ends}.")
    return ends


def _along(places, component, n_steps):
    """Return one walk along a component, and where it starts and ends."""
    n = places.shape[1]
    if not isinstance(component, Integral) or not 0 <= int(component) < n:
        raise ValueError(
            f"component must be an integer between 0 and {n - 1}, the last component, got "
            f"{component!r}."
        )
    low, high = np.quantile(places[:, component], [0.01, 0.99])
    position = np.linspace(low, high, n_steps)
    walk = np.tile(np.median(places, axis=0), (n_steps, 1))
    walk[:, component] = position
    return [walk], (position[0], position[-1])
