"""Rows, and what is left of them after the way to coordinates and back."""

import numpy as np
from sklearn.utils import check_array

from ._base import Unwrapped, check_figure, check_matplotlib
from ._colors import SAMPLE_COLOR
from ._rows import (
    check_image_shape,
    column_labels,
    frame,
    name_strip,
    plot_cloud,
    principal_plane,
    show_images,
    thin,
)

__all__ = ["ReconstructionDisplay"]

_MAX_POINTS, _N_IMAGES, _MAX_BARS = 300, 10, 15


class ReconstructionDisplay:
    """Rows beside their reconstructions from the coordinates of a model.

    Images are shown in three strips: as they are, rebuilt, and the difference. Other rows are
    points with a line to where they are rebuilt, beside the share of the variance of each column
    that is lost.

    Parameters
    ----------
    rows : array-like of shape (n_samples, n_features)
        Rows.
    rebuilt : array-like of shape (n_samples, n_features)
        The same rows rebuilt.
    image_shape : tuple (C, H, W), default=None
        Channels (1 or 3), height and width of the images that rows are. None draws points.
    column_names : array-like of shape (n_features,), default=None
        Names of the columns. None numbers them from 1.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Axes of the strips, or of the points and of the columns.
    figure_ : matplotlib Figure or SubFigure
        Their figure.
    images_ : list of matplotlib AxesImage
        The strips; empty for points.
    lines_ : matplotlib Line2D or None
        Lines from rows to where they are rebuilt, a broken one.
    bars_ : matplotlib BarContainer or None
        Unexplained variance of the columns.
    unexplained_variance_ : ndarray of shape (n_features,)
        Mean squared error of each column over its variance; nan for constant columns.

    Notes
    -----
    More than three columns are projected on the first two principal components of the standardised
    rows. Of more than 15 columns those that lose most have bars.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from skmanifoldflow.plotting import ReconstructionDisplay
    >>> X = load_iris(as_frame=True).data
    >>> display = ReconstructionDisplay.from_estimator(PCA(2).fit(X), X)
    >>> X.columns[display.unexplained_variance_.argmax()]
    'sepal width (cm)'
    """

    def __init__(self, rows, rebuilt, *, image_shape=None, column_names=None):
        self.rows = rows
        self.rebuilt = rebuilt
        self.image_shape = image_shape
        self.column_names = column_names

    @classmethod
    def from_estimator(cls, estimator, X, *, image_shape=None, line_kw=None, figure=None):
        """Rebuild rows from the coordinates of a fitted model, and draw both.

        Parameters
        ----------
        estimator : estimator instance
            Fitted model with `reconstruct`, or `transform` and `inverse_transform`, a
            :class:`~sklearn.pipeline.Pipeline` that ends in one, or a search over either. Where a
            step of a pipeline has no inverse, rows are shown after the steps.
        X : array-like of shape (n_samples, n_features)
            Rows. The first 10 images, or at most 300 points, evenly spaced, are drawn; the variance
            that is lost is that of all.
        image_shape : tuple (C, H, W), default=None
            Shape of the images that rows are. None is `image_shape` of the model where there is
            such a parameter.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the lines.
        figure : matplotlib Figure or SubFigure, default=None
            Figure to draw on. None makes a new one.

        Returns
        -------
        display : ReconstructionDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the model lacks a method, or rows are no images of that shape.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sklearn.decomposition import PCA
        >>> from skmanifoldflow.plotting import ReconstructionDisplay
        >>> X, _ = load_digits(return_X_y=True)
        >>> pca = PCA(10).fit(X)
        >>> display = ReconstructionDisplay.from_estimator(pca, X, image_shape=(1, 8, 8))
        >>> [ax.get_ylabel() for ax in display.axes_]
        ['rows', 'rebuilt', 'difference']
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        unwrapped = Unwrapped(estimator)
        unwrapped.need("transform", "inverse_transform")
        rows = unwrapped.to_shown(X)
        rebuilt = unwrapped.from_model(unwrapped.decode(unwrapped.embed(X)))
        display = cls(
            rows,
            rebuilt,
            image_shape=unwrapped.image_shape(image_shape),
            column_names=unwrapped.column_names(rows.shape[1]),
        )
        return display.plot(figure=figure, line_kw=line_kw)

    def plot(self, figure=None, *, line_kw=None):
        """Draw the rows.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, default=None
            Figure to draw on. None makes a new one.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the lines.

        Returns
        -------
        display : ReconstructionDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If rows, reconstructions, names and the shape of images do not fit together.

        Examples
        --------
        >>> from skmanifoldflow.plotting import ReconstructionDisplay
        >>> display = ReconstructionDisplay([[0.0, 1.0], [2.0, 3.0]], [[0.0, 2.0], [2.0, 2.0]])
        >>> display.plot().unexplained_variance_
        array([0., 1.])
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        rows = check_array(self.rows, input_name="rows")
        rebuilt = check_array(self.rebuilt, input_name="rebuilt")
        if rows.shape != rebuilt.shape:
            raise ValueError(
                f"rebuilt must have the shape of rows, {rows.shape}, got {rebuilt.shape}."
            )
        names = column_labels(self.column_names, rows.shape[1])
        check_image_shape(self.image_shape, rows.shape[1])
        variance = rows.var(axis=0)
        errors = ((rebuilt - rows) ** 2).mean(axis=0)
        self.unexplained_variance_ = np.divide(
            errors, variance, out=np.full(len(errors), np.nan), where=variance > 0
        )
        self.images_, self.lines_, self.bars_ = [], None, None
        if self.image_shape is not None:
            self._plot_images(figure, rows[:_N_IMAGES], rebuilt[:_N_IMAGES])
            return self
        self.figure_ = check_figure(figure, 9, 4.2)
        self._plot_points(rows, rebuilt, names, line_kw or {})
        self._plot_columns(self.axes_[1], names)
        return self

    def _plot_images(self, figure, rows, rebuilt):
        _, height, width = self.image_shape
        size = 8, 0.4 + 7.5 * 3 * height / (len(rows) * width)
        self.figure_ = check_figure(figure, *size, h_pad=0.02)
        self.axes_ = self.figure_.subplots(3, 1)
        limits = rows.min(), rows.max()
        strips = [(rows, "rows"), (rebuilt, "rebuilt")]
        for ax, (images, label) in zip(self.axes_, strips, strict=False):
            image = show_images(ax, images, self.image_shape, len(rows), limits)
            self.images_.append(image)
            name_strip(ax, label)
        # Too much is red, too little blue; the scale is that of the images.
        difference = (rebuilt - rows).reshape(len(rows), self.image_shape[0], -1).mean(axis=1)
        ax, most = self.axes_[2], max(limits[1] - limits[0], 1e-9)
        style = {"cmap": "RdBu_r", "background": 0}
        self.images_.append(
            show_images(ax, difference, (1, height, width), len(rows), (-most, most), **style)
        )
        name_strip(ax, "difference")

    def _plot_points(self, rows, rebuilt, names, line_kw):
        n = rows.shape[1]
        options = {"width_ratios": [1.2, 1]}
        if n > 3:
            project = principal_plane(rows)
            rows, rebuilt = project(rows), project(rebuilt)
            names = ["principal component 1", "principal component 2"]
        elif n == 1:
            # A single column is set against itself rebuilt.
            rows, rebuilt = np.hstack([rows, rows]), np.hstack([rows, rebuilt])
            names = [names[0], f"{names[0]}, rebuilt"]
        gridspec = self.figure_.add_gridspec(1, 2, **options)
        projection = {"projection": "3d"} if rows.shape[1] == 3 else {}
        left = self.figure_.add_subplot(gridspec[0], **projection)
        self.axes_ = np.array([left, self.figure_.add_subplot(gridspec[1])])
        rows, rebuilt = thin(rows, _MAX_POINTS), thin(rebuilt, _MAX_POINTS)
        # A line breaks at NaN.
        broken = np.stack([rows, rebuilt, np.full(rows.shape, np.nan)], axis=1)
        style = {"color": SAMPLE_COLOR, "linewidth": 0.8, "alpha": 0.6}
        size = 2.5 if projection else 2
        points = plot_cloud(left, rows, "0.55", size=size, label="rows")
        (self.lines_,) = left.plot(*broken.reshape(-1, rows.shape[1]).T, **style | line_kw)
        ends = plot_cloud(left, rebuilt, SAMPLE_COLOR, size=size, label="rebuilt")
        low, high = rows.min(axis=0), rows.max(axis=0)
        frame(left, low, high, zoom=1.2)
        if not projection:
            left.set(xlabel=names[0], ylabel=names[1])
        self.figure_.legend(
            handles=[points, ends],
            loc="outside lower center",
            ncols=2,
            frameon=False,
            markerscale=2,
        )

    def _plot_columns(self, ax, names):
        unexplained = np.nan_to_num(self.unexplained_variance_, nan=-1.0)
        shown = np.arange(len(names))
        if len(names) > _MAX_BARS:
            shown = np.sort(np.argsort(-unexplained, kind="stable")[:_MAX_BARS])
        values = np.maximum(unexplained[shown], 0)
        self.bars_ = ax.barh(np.arange(len(shown)), values, color=SAMPLE_COLOR)
        ax.set_yticks(np.arange(len(shown)), [names[column] for column in shown])
        # A few bars are not as high as the axes.
        ax.set_ylim(max(len(shown), 6) - 0.5, -0.5)
        title = (
            "" if len(shown) == len(names) else f"the {_MAX_BARS} of {len(names)} that lose most"
        )
        ax.set(xlabel="unexplained variance", xlim=(0, max(1.0, 1.05 * values.max())), title=title)
        ax.axvline(1, color="0.4", linestyle="--", linewidth=1)
