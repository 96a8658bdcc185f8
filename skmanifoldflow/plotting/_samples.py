"""Rows drawn from a model."""

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_array, check_random_state

from ._base import (
    MAX_COLUMNS,
    Unwrapped,
    check_figure,
    check_matplotlib,
    panel_axes,
)
from ._colors import DATA_COLOR, SAMPLE_COLOR
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

__all__ = ["SampleDisplay"]

_MAX_POINTS = 1000
_N_IMAGES, _N_IMAGES_PER_STRIP = 48, 10
_IMAGE_COLUMNS = 8


class SampleDisplay:
    """Samples of a model, as points over the data or as images.

    There is one panel, or one for each value of an option of the model. Panels drawn by
    `from_estimator` start from the same random state, so that a row is the same latent draw in all
    of them, as in figures 1 and 5 of [1]_. They have the same axes, or the same range of values.

    Parameters
    ----------
    samples : array-like of shape (n_samples, n_features) or (n_panels, n_samples, n_features)
        Rows drawn.
    labels : list of str, default=None
        Title of each panel.
    title : str, default=None
        Title of the figure.
    data : array-like of shape (n_rows, n_features), default=None
        Rows of data. Points are drawn over at most 1000 of them, evenly spaced; images take their
        range of values.
    image_shape : tuple (C, H, W), default=None
        Channels, height and width of the images that rows are. C is 1, drawn in grey, or 3, red,
        green and blue. None draws points.
    column_names : array-like of shape (n_features,), default=None
        Names of the columns, on the axes of points of up to three columns.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, of shape (n_panels,)
        Axes of the panels.
    figure_ : matplotlib Figure or SubFigure
        Their figure.
    images_ : list of matplotlib AxesImage
        For images: each panel is one picture with all of them, a pixel apart.
    points_ : list of matplotlib artists
        For points: samples in each panel; PathCollection, or Polygon of a histogram if there is one
        column.
    data_points_ : list of matplotlib artists
        For points: rows of data in each panel, if they were given.

    Notes
    -----
    Points have the axes of the data up to three columns. More columns are projected on the first
    two principal components of the standardised data, or of the samples where there is no data.
    The axes contain all data and 98% of the samples.

    Without data the range of the images goes from the first to the 99th percentile of the samples.

    References
    ----------
    .. [1] Cunningham, E., Zabounidis, R., Agrawal, A., Fiterau, M., Sheldon, D. "Normalizing Flows
       Across Dimensions". 2020. arXiv:2006.13070.

    Examples
    --------
    >>> from skmanifoldflow import ManifoldPriorFlow
    >>> from skmanifoldflow.datasets import SCurve
    >>> from skmanifoldflow.plotting import SampleDisplay
    >>> X, _ = SCurve(noise=0.05).sample(200, random_state=0)
    >>> flow = ManifoldPriorFlow(n_layers=2, hidden_layer_sizes=(8,), max_iter=3, random_state=0)
    >>> display = SampleDisplay.from_estimator(
    ...     flow.fit(X), X, temperatures=(0.0, 0.5, 1.0), random_state=0
    ... )
    >>> [ax.get_title() for ax in display.axes_]
    ['t = 0', 't = 0.5', 't = 1']
    """

    def __init__(
        self,
        samples,
        *,
        labels=None,
        title=None,
        data=None,
        image_shape=None,
        column_names=None,
    ):
        self.samples = samples
        self.labels = labels
        self.title = title
        self.data = data
        self.image_shape = image_shape
        self.column_names = column_names

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X=None,
        *,
        n_samples=None,
        temperatures=None,
        manifold_deviations=None,
        image_shape=None,
        random_state=None,
        figure=None,
    ):
        """Draw rows from a fitted model and show them.

        Parameters
        ----------
        estimator : estimator instance
            Fitted model with a method `sample(n_samples, *, random_state)`, a
            :class:`~sklearn.pipeline.Pipeline` that ends in one, or a search over either, whose
            best estimator is drawn from. Samples are brought back into the units of X; where a step
            of the pipeline has no inverse, both are shown after the steps, and the title says so.
        X : array-like of shape (n_rows, n_features), default=None
            Training or test rows to compare with.
        n_samples : int, default=None
            Samples in each panel. None is the number of rows of data shown, 1000 without data, 48
            images, or 10 images for each value of an option.
        temperatures : list of float, default=None
            Values t of the parameter `temperature` of `sample`, each with a panel. None leaves the
            default of the model.
        manifold_deviations : list of float, default=None
            Values s of the parameter `manifold_deviation` of `sample`, how far samples are from the
            manifold, each with a panel. Not together with `temperatures`.
        image_shape : tuple (C, H, W), default=None
            Shape of the images that rows are. None is `image_shape` of the model where there is
            such a parameter, else rows are points.
        random_state : int, RandomState instance or None, default=None
            Source of the draw. Each panel starts from the same state.
        figure : matplotlib Figure or SubFigure, default=None
            Figure to draw on. None makes a new one.

        Returns
        -------
        display : SampleDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the estimator has no method `sample`, if both options are given, or if X or the shape
            of images does not fit the samples.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from skmanifoldflow import ManifoldPriorFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> from skmanifoldflow.plotting import SampleDisplay
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> flow = ManifoldPriorFlow(n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> len(SampleDisplay.from_estimator(flow, X, random_state=0).axes_)
        1
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        unwrapped = Unwrapped(estimator)
        unwrapped.need("sample")
        if temperatures is not None and manifold_deviations is not None:
            raise ValueError(
                "temperatures and manifold_deviations cannot both be given: each panel shows one "
                "value of one of them."
            )
        data = None if X is None else unwrapped.to_shown(X)
        image_shape = unwrapped.image_shape(image_shape)

        option, symbol, title = None, None, None
        values: Any = (None,)
        if temperatures is not None:
            option, symbol, values = "temperature", "t", temperatures
            title = "Samples at temperature t"
        elif manifold_deviations is not None:
            option, symbol, values = "manifold_deviation", "s", manifold_deviations
            title = "Samples at manifold deviation s"
        if unwrapped.units is not None:
            title = f"{title}, {unwrapped.units}" if title else f"Samples {unwrapped.units}"
        values = np.atleast_1d(values).tolist()
        if not values:
            raise ValueError(f"{option}s must hold at least one value, got none.")

        if n_samples is None:
            if image_shape is not None:
                n_samples = _N_IMAGES_PER_STRIP if option else _N_IMAGES
            else:
                n_samples = _MAX_POINTS if data is None else min(len(data), _MAX_POINTS)
        seed = random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31)
        options = [{option: value} if option else {} for value in values]
        samples = [unwrapped.draw(n_samples, seed, **o) for o in options]
        display = cls(
            np.stack([check_array(unwrapped.from_model(rows)) for rows in samples]),
            labels=[f"{symbol} = {value:g}" for value in values] if option else None,
            title=title,
            data=data,
            image_shape=image_shape,
            column_names=None if unwrapped.units else unwrapped.feature_names,
        )
        return display.plot(figure=figure)

    def plot(self, figure=None):
        """Show the samples.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, default=None
            Figure to draw on. None makes a new one.

        Returns
        -------
        display : SampleDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If data, labels or the shape of images do not fit the samples.

        Examples
        --------
        >>> from skmanifoldflow.plotting import SampleDisplay
        >>> display = SampleDisplay([[[0.0, 1.0], [2.0, 3.0]]]).plot()
        >>> len(display.axes_)
        1
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        samples = check_array(self.samples, allow_nd=True, input_name="samples")
        samples = samples[None] if samples.ndim == 2 else samples
        data = check_data(self.data, samples.shape[2], "samples")
        self._check(samples)
        if self.image_shape is None:
            self._plot_points(figure, samples, data)
        else:
            self._plot_images(figure, samples, data)
        if self.title:
            self.figure_.suptitle(self.title)
        return self

    def _check(self, samples):
        n_panels, _, n_features = samples.shape
        if self.labels is not None and len(self.labels) != n_panels:
            raise ValueError(
                f"labels must hold one string for each of the {n_panels} panels, got {self.labels}."
            )
        column_labels(self.column_names, n_features)
        check_image_shape(self.image_shape, n_features)

    def _plot_points(self, figure, samples, data):
        n_panels, n_features = len(samples), samples.shape[2]
        flat = samples.reshape(-1, n_features)
        names = column_labels(self.column_names, n_features)
        if n_features > 3:
            project = principal_plane(flat if data is None else data)
            samples = np.stack([project(rows) for rows in samples])
            flat = samples.reshape(-1, 2)
            data = None if data is None else project(data)
            names = ["principal component 1", "principal component 2"]
        n_dimensions = len(names)
        options: dict[str, Any] = {}
        if n_dimensions == 3:
            options["subplot_kw"] = {"projection": "3d"}
        else:
            options |= {"sharex": True, "sharey": True}

        n_columns = min(n_panels, MAX_COLUMNS)
        n_rows, side = -(-n_panels // n_columns), 3.2 if n_panels > 1 else 5
        self.figure_ = check_figure(figure, side * n_columns, side * n_rows + 0.6)
        self.axes_ = panel_axes(self.figure_, n_panels, **options)
        # A stray sample must not shrink the rest.
        low, high = np.percentile(flat, [1, 99], axis=0)
        if data is not None:
            low, high = np.minimum(low, data.min(axis=0)), np.maximum(high, data.max(axis=0))
            data = thin(data, _MAX_POINTS)
        self.points_, self.data_points_ = [], []
        for ax, rows, label in zip(self.axes_, samples, self._labels(n_panels), strict=True):
            if data is not None:
                self.data_points_.append(plot_cloud(ax, data, DATA_COLOR, size=2, label="data"))
            self.points_.append(plot_cloud(ax, rows, SAMPLE_COLOR, size=2, label="samples"))
            frame(ax, low, high, zoom=1.4)
            ax.set(title=label, xlabel=names[0])
            ax.set_ylabel(names[1] if n_dimensions > 1 else "density")
            if n_dimensions < 3:
                ax.label_outer()
        if data is not None:
            handles = [self.data_points_[0], self.points_[0]]
            self.figure_.legend(
                handles=handles,
                loc="outside lower center",
                ncols=2,
                frameon=False,
                markerscale=3,
            )

    def _plot_images(self, figure, samples, data):
        n_panels, n_samples, _ = samples.shape
        limits = np.percentile(samples, [1, 99]) if data is None else (data.min(), data.max())
        _, height, width = self.image_shape
        n_columns = n_samples if n_panels > 1 else min(n_samples, _IMAGE_COLUMNS)
        n_rows = n_panels * -(-n_samples // n_columns)
        size = 8, 0.4 + 7.5 * n_rows * height / (n_columns * width)
        self.figure_ = check_figure(figure, *size, h_pad=0.02)
        self.axes_ = self.figure_.subplots(n_panels, 1, squeeze=False).ravel()
        self.images_ = []
        for ax, images, label in zip(self.axes_, samples, self._labels(n_panels), strict=True):
            self.images_.append(show_images(ax, images, self.image_shape, n_columns, limits))
            name_strip(ax, label)

    def _labels(self, n_panels):
        return self.labels if self.labels is not None else [""] * n_panels
