"""The picture of the comparison report: embeddings above, samples below."""

import math

import numpy as np
from sklearn.decomposition import PCA

__all__ = ["draw"]

_WIDTH = 9.33  # inches: 1400 pixels at 150 dots per inch
_MAX_COLUMNS = 4
_MAX_POINTS = 1000
_IMAGE_GRID = 8, 10  # rows, columns
_DATA_COLOR, _SAMPLE_COLOR = "0.75", "#0072B2"
# Ten colours that stay apart with the common kinds of colour blindness (P. Tol's "muted", which has
# nine, and black).
_CLASS_COLORS = [
    "#332288",
    "#88CCEE",
    "#DDCC77",
    "#117733",
    "#CC6677",
    "#AA4499",
    "#44AA99",
    "#999933",
    "#882255",
    "#000000",
]


def draw(comparison, image_shape=None, title="", seed=0):
    """Return a matplotlib Figure of the embedded test rows and of samples of the models."""
    from matplotlib.figure import Figure

    embedders = [name for name, model in comparison.models.items() if hasattr(model, "transform")]
    samplers = [name for name, model in comparison.models.items() if _sampler(model)]
    n_above, n_below = len(embedders), 1 + len(samplers) if samplers else 0
    heights = [0.4 + 2.35 * math.ceil(n / _MAX_COLUMNS) for n in (n_above, n_below) if n]
    figure = Figure(figsize=(_WIDTH, 0.4 + sum(heights)), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    parts = iter(np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights)))
    if embedders:
        _draw_embeddings(next(parts), comparison, embedders)
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
    """Draw rows in data units, the same at every call."""
    sampler = _sampler(model)
    if hasattr(sampler, "weights_"):  # a mixture: its seed is a parameter, and it gives labels too
        rows = sampler.set_params(random_state=seed).sample(n)[0]
        rows = rows[np.random.RandomState(seed).permutation(n)]
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


def _bare(ax, title):
    """Title axes whose units mean nothing."""
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_color("0.7")


def _draw_embeddings(part, comparison, names):
    y = comparison.y_test
    colors, handles, note = _colors(comparison)
    part.suptitle(f"Test rows embedded{note}", fontsize=10, color="0.3")
    for ax, name in zip(_panels(part, len(names)), names, strict=True):
        Z = comparison.models[name].transform(comparison.X_test)
        if Z.shape[1] > 1:
            first, second = Z[:, 0], Z[:, 1]
            ax.set_xlabel("component 1", fontsize=8)
            ax.set_ylabel("component 2", fontsize=8)
        else:
            # One component is set against what it should follow.
            known = y is not None and y.dtype.kind in "iuf"
            first, second = Z[:, 0], y if known else comparison.X_test[:, 0]
            ax.set_xlabel("component 1", fontsize=8)
            ax.set_ylabel("label" if known else "first column", fontsize=8)
        ax.scatter(first, second, c=colors, s=9, linewidths=0)
        _bare(ax, name)
    if handles:
        part.legend(
            handles=handles,
            loc="outside lower center",
            ncols=len(handles),
            fontsize=8,
            frameon=False,
            handletextpad=0,
            columnspacing=1,
        )


def _colors(comparison):
    """Return a colour for each test row, legend handles if they mean classes, and a remark."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    y, note = comparison.y_test, ", colour: label"
    if y is None:
        y, note = comparison.X_test[:, 0], ", colour: first column"
    classes, codes = np.unique(y, return_inverse=True)
    if comparison.y_test is not None and len(classes) <= len(_CLASS_COLORS):
        handles = [
            Line2D([], [], marker="o", linestyle="none", color=color, markersize=5, label=str(name))
            for name, color in zip(classes, _CLASS_COLORS, strict=False)
        ]
        return np.array(_CLASS_COLORS)[codes], handles, note
    # By rank, so that a few far values do not take all colours.
    return colormaps["viridis"](codes / max(1, len(classes) - 1)), None, note


def _draw_sample_images(part, comparison, names, image_shape, seed):
    n_rows, n_columns = _IMAGE_GRID
    n = n_rows * n_columns
    low, high = comparison.X_train.min(), comparison.X_train.max()
    panels = [("Test rows", comparison.X_test[:n])]
    panels += [(name, _sample(comparison.models[name], n, seed)) for name in names]
    part.suptitle("Test rows, and samples of the models", fontsize=10, color="0.3")
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
    """Draw samples over data in two or three dimensions."""
    data = comparison.X_train[:_MAX_POINTS]
    n_columns = data.shape[1]
    project, what = np.asarray, "the columns of the data"
    if n_columns > 3:
        pca = PCA(2).fit(comparison.models[names[0]][0].transform(comparison.X_train))
        scaler = comparison.models[names[0]][0]
        project = lambda rows: pca.transform(scaler.transform(rows))  # noqa: E731
        what = "the first two principal components of the data"
    elif n_columns == 1:
        raise NotImplementedError
    part.suptitle(f"Training rows, and samples of the models, in {what}", fontsize=10, color="0.3")
    options = {"subplot_kw": {"projection": "3d"}} if n_columns == 3 else {}
    options |= {"sharex": True, "sharey": True}
    axes = _panels(part, 1 + len(names), **options)
    for ax, name in zip(axes, ["Training rows", *names], strict=True):
        rows = data
        _bare(ax, name)
