"""Rows of a table as points, rows of pixels as images."""

import re

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array

__all__ = [
    "check_data",
    "check_image_shape",
    "column_labels",
    "finite_shares",
    "frame",
    "mosaic",
    "name_strip",
    "plot_cloud",
    "principal_plane",
    "show_images",
    "thin",
    "wrap",
]


def principal_plane(rows):
    """Return the map of rows to the first two principal components of standardised `rows`."""
    return make_pipeline(StandardScaler(), PCA(2)).fit(rows).transform


def plot_cloud(ax, points, color, size=1, **options):
    """Draw points in as many dimensions as they have, one to three, and return the artist."""
    if points.shape[1] == 1:
        style = {"bins": 40, "density": True, "histtype": "step", "color": color}
        return ax.hist(points[:, 0], **style | options)[2][0]
    style = (
        {"linewidths": 0} if options.keys() & {"c", "cmap"} else {"linewidths": 0, "color": color}
    )
    if points.shape[1] == 2:
        return ax.scatter(*points.T, **{"s": 4 * size} | style | options)
    # What is drawn last lies on top, whatever its mean distance from the eye.
    ax.computed_zorder = False
    ax.view_init(elev=10, azim=-75)
    ax.set_axis_off()
    return ax.scatter(*points.T, **{"s": 2 * size, "depthshade": False} | style | options)


def frame(ax, low, high, zoom=1.25):
    """Limit axes to the box from `low` to `high` and a margin; enlarge three dimensions."""
    # A constant column has no range.
    low, high = np.where(high > low, [low, high], [low - 0.5, high + 0.5])
    margin = 0.12 * (high - low)
    if len(low) == 3:
        ax.set_box_aspect(high - low, zoom=zoom)
    setters = [ax.set_xlim, ax.set_ylim, getattr(ax, "set_zlim", None)]
    for setter, start, stop in zip(setters, low - margin, high + margin, strict=False):
        setter(start, stop)


def column_labels(names, n_columns):
    """Return names of columns as text, numbers from 1 where there are none."""
    if names is None:
        return [f"column {column + 1}" for column in range(n_columns)]
    if len(names) != n_columns:
        raise ValueError(
            f"column_names must hold one for each of {n_columns} columns, got {len(names)}."
        )
    return [str(name) for name in names]


def wrap(name, width=18):
    """Break a long name into lines, behind spaces and marks within it."""
    lines = [""]
    for part in re.findall(r"[^\s_/.-]+[\s_/.-]*|[\s_/.-]+", str(name)):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def check_data(data, n_columns, others):
    """Return rows of data that have as many columns as others, or None."""
    if data is None:
        return None
    data = check_array(data, input_name="data")
    if data.shape[1] != n_columns:
        raise ValueError(f"data has {data.shape[1]} columns, but {others} have {n_columns}.")
    return data


def thin(rows, n_rows):
    """Return at most so many of the rows, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), n_rows)).astype(int)]


def finite_shares(shares):
    """Return shares of which infinite ones are a little above the largest finite one."""
    finite = shares[np.isfinite(shares)]
    largest = max(float(finite.max()) if len(finite) else 0.0, 1.0)
    return np.where(shares == np.inf, 1.2 * largest, shares)


def check_image_shape(shape, n_columns):
    """Raise a ValueError if rows of so many columns are no images (C, H, W), grey or coloured.

    None is the shape of rows that are not meant as images.
    """
    if shape is None:
        return
    if len(shape) != 3 or shape[0] not in (1, 3) or np.prod(shape) != n_columns:
        raise ValueError(
            f"image_shape must be (C, H, W) with C = 1 or 3 and C * H * W = {n_columns}, the "
            f"number of columns, got {shape}."
        )


def mosaic(images, image_shape, n_columns, background, gap=1):
    """Lay flat images out in a grid with a gap of so many pixels.

    `image_shape` is (height, width), preceded by the number of channels if there are any; the
    result has the same axes.
    """
    *channels, height, width = image_shape
    n_rows = -(-len(images) // n_columns)
    size = n_rows * (height + gap) + gap, n_columns * (width + gap) + gap
    canvas = np.full((*channels, *size), background, dtype=float)
    for k, image in enumerate(images):
        top = gap + k // n_columns * (height + gap)
        left = gap + k % n_columns * (width + gap)
        canvas[..., top : top + height, left : left + width] = image.reshape(image_shape)
    return canvas


def show_images(ax, images, image_shape, n_columns, limits=None, gap=1, background=None, **options):
    """Draw flat images in a grid on bare axes, and return the artist.

    Grey images whose background is dark, where most pixels are in the lower quarter of `limits`,
    are drawn dark on light. The gaps are white unless a value is given as their background.
    """
    low, high = (images.min(), images.max()) if limits is None else limits
    high = high if high > low else low + 1
    is_dark = np.median(images) < low + (high - low) / 4
    inverted = image_shape[0] == 1 and is_dark
    if background is None:
        background = low if inverted else high
    picture = mosaic(images, image_shape, n_columns, background, gap)
    if image_shape[0] == 1:
        options = {"cmap": "gray_r" if inverted else "gray", "vmin": low, "vmax": high} | options
        picture = picture[0]
    else:
        picture = np.clip((np.moveaxis(picture, 0, -1) - low) / (high - low), 0, 1)
    image = ax.imshow(picture, **{"interpolation": "nearest"} | options)
    ax.set(xticks=[], yticks=[])
    ax.set_frame_on(False)
    return image


def name_strip(ax, name):
    """Write a name at the left of a strip of images."""
    ax.set_ylabel(name, rotation=0, ha="right", va="center")
