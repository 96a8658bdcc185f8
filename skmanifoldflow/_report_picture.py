"""The picture of the comparison report: embeddings above, samples below."""

import math

import numpy as np
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["draw"]

_WIDTH = 9.33  # inches: 1400 pixels at 150 dots per inch
_MAX_COLUMNS = 4
_MAX_POINTS = 1000
_IMAGE_GRID = 6, 8  # rows, columns
_DATA_COLOR, _SAMPLE_COLOR = "0.75", "#0072B2"
# Ten colours that stay apart with the common kinds of colour blindness (P. Tol's "muted", which has
# nine, and black).
_CLASS_COLORS = [
    "#332288",
    "#CC6677",
    "#DDCC77",
    "#117733",
    "#88CCEE",
    "#AA4499",
    "#44AA99",
    "#999933",
    "#882255",
    "#000000",
]


def draw(comparison, image_shape=None, y_name="label", seed=0):
    """Return a matplotlib Figure of the embedded test rows and of samples of the models."""
    from matplotlib.figure import Figure

    embedders = [name for name, model in comparison.models.items() if hasattr(model, "transform")]
    samplers = [name for name, model in comparison.models.items() if _sampler(model)]
    n_above, n_below = len(embedders), 1 + len(samplers) if samplers else 0
    heights = [0.5 + 2.4 * math.ceil(n / _MAX_COLUMNS) for n in (n_above, n_below) if n]
    figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    parts = iter(np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights)))
    if embedders:
        _draw_embeddings(next(parts), comparison, embedders, y_name)
    if samplers:
        part = next(parts)
        if image_shape is None:
            _draw_sample_points(part, comparison, samplers, seed)
        else:
            _draw_sample_images(part, comparison, samplers, image_shape, seed)
    return figure


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


def _panels(part, n, **options):
    """Return n axes in rows of at most `_MAX_COLUMNS`."""
    n_columns = min(n, _MAX_COLUMNS)
    axes = part.subplots(math.ceil(n / n_columns), n_columns, squeeze=False, **options).ravel()
    for ax in axes[n:]:
        ax.set_axis_off()
    return axes[:n]


def _head(part, text):
    part.suptitle(text, fontsize=11, fontweight="bold")


def _bare(ax, title):
    """Title axes whose units mean nothing."""
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_color("0.7")


def _draw_embeddings(part, comparison, names, y_name):
    y = comparison.y_test
    if y is None:
        y, y_name = comparison.X_test[:, 0], "first column"
    colors, handles = _colors(y)
    _head(part, f"Embeddings of the test rows (colour: {y_name})")
    for ax, name in zip(_panels(part, len(names)), names, strict=True):
        Z = comparison.models[name].transform(comparison.X_test)
        if Z.shape[1] > 1:
            first, second = Z[:, 0], Z[:, 1]
            ax.set_xlabel("component 1", fontsize=8)
            ax.set_ylabel("component 2", fontsize=8)
        else:
            # One component is set against what the colour shows.
            first, second = Z[:, 0], y
            ax.set_xlabel("component 1", fontsize=8)
            ax.set_ylabel(y_name, fontsize=8)
        ax.scatter(first, second, c=colors, s=9, linewidths=0)
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


def _colors(y):
    """Return a colour for each value, and legend handles if the values are few."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    values, codes = np.unique(y, return_inverse=True)
    if len(values) > len(_CLASS_COLORS):
        # By rank, so that a few far values do not take all colours.
        return colormaps["viridis"](codes / (len(values) - 1)), None
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=color, markersize=5, label=str(value))
        for value, color in zip(values, _CLASS_COLORS, strict=False)
    ]
    return np.array(_CLASS_COLORS)[codes], handles


def _draw_sample_images(part, comparison, names, image_shape, seed):
    n_rows, n_columns = _IMAGE_GRID
    n = n_rows * n_columns
    low, high = comparison.X_train.min(), comparison.X_train.max()
    panels = [("Test rows", comparison.X_test[:n])]
    panels += [(name, _sample(comparison.models[name], n, seed)) for name in names]
    _head(part, "Samples")
    for ax, (title, images) in zip(_panels(part, len(panels)), panels, strict=True):
        ax.imshow(_mosaic(images, image_shape, n_columns, low), cmap="gray_r", vmin=low, vmax=high)
        _bare(ax, title)


def _mosaic(images, shape, n_columns, background):
    """Lay images out in a grid with a gap of one pixel."""
    height, width = shape
    n_rows = -(-len(images) // n_columns)
    canvas = np.full((n_rows * (height + 1) + 1, n_columns * (width + 1) + 1), background)
    for k, image in enumerate(images):
        top, left = 1 + k // n_columns * (height + 1), 1 + k % n_columns * (width + 1)
        canvas[top : top + height, left : left + width] = image.reshape(shape)
    return canvas


def _draw_sample_points(part, comparison, names, seed):
    """Draw samples over training rows: in their columns up to three, else in two components."""
    data, where, options = comparison.X_train[:_MAX_POINTS], "", {}
    if data.shape[1] == 3:
        options = {"subplot_kw": {"projection": "3d"}}
    elif data.shape[1] > 3:
        where = ", on the first two principal components"
        project = make_pipeline(StandardScaler(), PCA(2)).fit(comparison.X_train).transform
    _head(part, f"Samples{where}")
    axes = _panels(part, 1 + len(names), **options)
    panels = [("Training rows", None)]
    panels += [(name, _sample(comparison.models[name], len(data), seed)) for name in names]
    for ax, (title, rows) in zip(axes, panels, strict=True):
        clouds = [(data, _DATA_COLOR)] + ([] if rows is None else [(rows, _SAMPLE_COLOR)])
        for points, color in clouds:
            _draw_cloud(ax, project(points) if where else points, color)
        # A stray sample must not shrink the rest: the box is the one of the data and a margin.
        _frame(ax, project(data) if where else data)
        _bare(ax, title)


def _draw_cloud(ax, points, color):
    """Draw points in as many dimensions as they have, one to three."""
    if points.shape[1] == 1:
        ax.hist(points[:, 0], bins=40, density=True, histtype="step", color=color)
    elif points.shape[1] == 2:
        ax.scatter(*points.T, s=4, color=color, linewidths=0)
    else:
        ax.scatter(*points.T, s=2, color=color, linewidths=0, depthshade=False)
        ax.view_init(elev=10, azim=-75)
        ax.set_axis_off()


def _frame(ax, data):
    """Limit axes to the range of the data and a margin."""
    low, high = data.min(axis=0), data.max(axis=0)
    margin = 0.12 * (high - low)
    setters = [ax.set_xlim, ax.set_ylim, getattr(ax, "set_zlim", None)]
    if data.shape[1] == 3:
        ax.set_box_aspect(high - low, zoom=1.25)
    for setter, start, stop in zip(setters, low - margin, high + margin, strict=False):
        setter(start, stop)
