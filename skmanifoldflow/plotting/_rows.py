"""Rows of a table as points, rows of pixels as images."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["frame", "mosaic", "plot_cloud", "principal_plane"]


def principal_plane(rows):
    """Return the map of rows to the first two principal components of standardised `rows`."""
    return make_pipeline(StandardScaler(), PCA(2)).fit(rows).transform


def plot_cloud(ax, points, color, size=1, **options):
    """Draw points in as many dimensions as they have, one to three, and return the artist."""
    if points.shape[1] == 1:
        style = {"bins": 40, "density": True, "histtype": "step", "color": color}
        return ax.hist(points[:, 0], **style, **options)[2][0]
    if points.shape[1] == 2:
        return ax.scatter(*points.T, s=4 * size, color=color, linewidths=0, **options)
    # What is drawn last lies on top, whatever its mean distance from the eye.
    ax.computed_zorder = False
    ax.view_init(elev=10, azim=-75)
    ax.set_axis_off()
    return ax.scatter(*points.T, s=2 * size, color=color, linewidths=0, depthshade=False, **options)


def frame(ax, low, high, zoom=1.25):
    """Limit axes to the box from `low` to `high` and a margin; enlarge three dimensions."""
    margin = 0.12 * (high - low)
    if len(low) == 3:
        ax.set_box_aspect(high - low, zoom=zoom)
    setters = [ax.set_xlim, ax.set_ylim, getattr(ax, "set_zlim", None)]
    for setter, start, stop in zip(setters, low - margin, high + margin, strict=False):
        setter(start, stop)


def mosaic(images, image_shape, n_columns, background):
    """Lay flat images out in a grid with a gap of one pixel.

    `image_shape` is (height, width), preceded by the number of channels if there are any; the
    result has the same axes.
    """
    *channels, height, width = image_shape
    n_rows = -(-len(images) // n_columns)
    size = n_rows * (height + 1) + 1, n_columns * (width + 1) + 1
    canvas = np.full((*channels, *size), background, dtype=float)
    for k, image in enumerate(images):
        top, left = 1 + k // n_columns * (height + 1), 1 + k % n_columns * (width + 1)
        canvas[..., top : top + height, left : left + width] = image.reshape(image_shape)
    return canvas
