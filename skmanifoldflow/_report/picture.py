"""The picture of the comparison report: embeddings above, samples below."""

import math
import warnings

import numpy as np
from sklearn.mixture import GaussianMixture

from ..plotting._base import panel_axes
from ..plotting._colors import CLASS_COLORS, DATA_COLOR, SAMPLE_COLOR, class_colors, class_handles
from ..plotting._rows import frame, mosaic, plot_cloud, principal_plane

__all__ = ["report_figure"]

_WIDTH = 9.33  # inches: 1400 pixels at 150 dots per inch
_MAX_COLUMNS = 5
_MAX_POINTS = 1000
_MAX_EMBEDDED = 2000
_IMAGE_GRID = 6, 8  # rows, columns
_TITLE = 0.2  # inches


def report_figure(comparison, image_shape=None, y_name="label", seed=0):
    """Return a matplotlib Figure of the embedded test rows and of samples of the models."""
    from matplotlib.figure import Figure

    embedders = [name for name, model in comparison.models.items() if hasattr(model, "transform")]
    samplers = [name for name, model in comparison.models.items() if _sampler(model)]
    n_above, n_below = len(embedders), 1 + len(samplers) if samplers else 0
    heights = [_height(n_above)] if n_above else []
    if n_below:
        heights.append(_height(n_below, image_shape))
    figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    parts = iter(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights).flat)
    if embedders:
        _plot_embeddings(next(parts), comparison, embedders, y_name)
    if samplers:
        part = next(parts)
        if image_shape is None:
            _plot_sample_points(part, comparison, samplers, seed)
        else:
            _plot_sample_images(part, comparison, samplers, image_shape, seed)
    return figure


def _n_columns(n):
    """Return the number of columns that leaves the fewest gaps in as few rows as can be."""
    return math.ceil(n / math.ceil(n / _MAX_COLUMNS))


def _height(n, image_shape=None):
    """Return the inches that n panels need, with their head; of a mosaic of images no more."""
    n_columns = _n_columns(n)
    height = min(2.4, 9.6 / n_columns)
    if image_shape is not None:
        n_high, n_wide = (k * size for k, size in zip(_IMAGE_GRID, image_shape, strict=True))
        height = min(height, _TITLE + _WIDTH / n_columns * n_high / n_wide)
    return 0.5 + math.ceil(n / n_columns) * height


def _axes(part, n, **options):
    return panel_axes(part, n, _n_columns(n), **options)


def _sampler(model):
    """Return the part of a pipeline that draws standardised rows, or None."""
    estimator = getattr(model[-1], "best_estimator_", model[-1])
    return estimator if hasattr(estimator, "sample") else None


def _sample(model, n, seed):
    """Draw rows in data units."""
    sampler = _sampler(model)
    if isinstance(sampler, GaussianMixture):
        # Its seed is a parameter, and its rows come ordered by mixture component.
        rows = np.random.RandomState(seed).permutation(sampler.sample(n)[0])
    else:
        rows = sampler.sample(n, random_state=seed)
    return model[0].inverse_transform(rows)


def _rows_of(name, function, *arguments):
    """Return what a function of a model gives, or None, with a warning, where it fails."""
    try:
        rows = function(*arguments)
        if not np.isfinite(rows).all():
            raise ValueError("not all values are finite.")
    except Exception as error:
        warnings.warn(f"{name} failed in the picture: {error}", UserWarning, stacklevel=2)
        return None
    return rows


def _head(part, text):
    part.suptitle(text, fontsize=11, fontweight="bold")


def _bare(ax, title):
    """Title axes whose units mean nothing."""
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_color("0.7")


def _plot_embeddings(part, comparison, names, y_name):
    X_test, y = comparison.X_test[:_MAX_EMBEDDED], comparison.y_test
    if y is None:
        y, y_name = X_test[:, 0], "first column"
    y = y[:_MAX_EMBEDDED]
    values, colors, codes = class_colors(y)
    handles = class_handles(values, colors) if len(values) <= len(CLASS_COLORS) else None
    _head(part, f"Embeddings of the test rows (colour: {y_name})")
    for ax, name in zip(_axes(part, len(names)), names, strict=True):
        Z = _rows_of(name, comparison.models[name].transform, X_test)
        if Z is None:
            _bare(ax, f"{name}: failed")
            continue
        if Z.shape[1] > 1:
            first, second = Z[:, 0], Z[:, 1]
            ax.set_xlabel("component 1", fontsize=8)
            ax.set_ylabel("component 2", fontsize=8)
        else:
            # One component is set against what the colour shows.
            first, second = Z[:, 0], y
            ax.set_xlabel("component 1", fontsize=8)
            ax.set_ylabel(y_name, fontsize=8)
        ax.scatter(first, second, c=colors[codes], s=9, linewidths=0)
        _bare(ax, name)
    if handles:
        longest = max(len(handle.get_label()) for handle in handles)
        part.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(len(handles), max(1, 120 // (longest + 4))),
            fontsize=8,
            frameon=False,
            handletextpad=0,
            columnspacing=1,
        )


def _plot_sample_images(part, comparison, names, image_shape, seed):
    n_rows, n_columns = _IMAGE_GRID
    n = n_rows * n_columns
    low, high = comparison.X_train.min(), comparison.X_train.max()
    panels = [("Test rows", comparison.X_test[:n])]
    panels += [(name, _rows_of(name, _sample, comparison.models[name], n, seed)) for name in names]
    _head(part, "Samples")
    for ax, (title, images) in zip(_axes(part, len(panels)), panels, strict=True):
        if images is None:
            _bare(ax, f"{title}: failed")
            continue
        ax.imshow(mosaic(images, image_shape, n_columns, low), cmap="gray_r", vmin=low, vmax=high)
        _bare(ax, title)


def _plot_sample_points(part, comparison, names, seed):
    """Draw samples over training rows: in their columns up to three, else in two components."""
    data, where, options = comparison.X_train[:_MAX_POINTS], "", {}
    if data.shape[1] == 3:
        options = {"subplot_kw": {"projection": "3d"}}
    elif data.shape[1] > 3:
        where = ", on the first two principal components"
        project = principal_plane(comparison.X_train)
    box = project(data) if where else data
    _head(part, f"Samples{where}")
    axes = _axes(part, 1 + len(names), **options)
    for ax, name in zip(axes, [None, *names], strict=True):
        title, clouds = name or "Training rows", [(data, DATA_COLOR)]
        if name is not None:
            rows = _rows_of(name, _sample, comparison.models[name], len(data), seed)
            if rows is None:
                title = f"{name}: failed"
            else:
                clouds.append((rows, SAMPLE_COLOR))
        for points, color in clouds:
            plot_cloud(ax, project(points) if where else points, color)
        # A stray sample must not shrink the rest: the box is the one of the data and a margin.
        frame(ax, box.min(axis=0), box.max(axis=0))
        _bare(ax, title)
