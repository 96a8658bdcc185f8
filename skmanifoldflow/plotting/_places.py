"""Places on a grid, in columns or on the map of a model."""

import numpy as np

__all__ = ["at_places", "grid", "plane", "robust_axis", "robust_range"]


def robust_range(values, share=0.99, margin=0.15):
    """Return limits around most of the values: a few that lie far away do not count."""
    tail = (1 - share) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    width = margin * (high - low) or 0.5
    lowest, highest = values.min() - width / 2, values.max() + width / 2
    return max(low - width, lowest), min(high + width, highest)


def robust_axis(values, n):
    """Return n evenly spaced values over a robust range."""
    low, high = robust_range(values)
    return np.linspace(low, high, n)


def grid(*axes):
    """Return the points (n, k) of a grid, the first column running fastest."""
    mesh = np.meshgrid(*axes, indexing="ij")
    return np.stack([one.ravel(order="F") for one in mesh], axis=1)


def plane(places, components, axes):
    """Return coordinates (n, d) on a grid in some components, with the medians of the others."""
    points = grid(*axes)
    whole = np.tile(np.median(places, axis=0), (len(points), 1))
    whole[:, components] = points
    return whole


def at_places(values, axes, points):
    """Return the values (n_y, n_x) or (n_x,) of a grid nearest to points; the least outside."""
    index, is_inside = [], np.ones(len(points), dtype=bool)
    for axis, column in zip(axes, points.T, strict=True):
        k = np.rint((column - axis[0]) / (axis[1] - axis[0]))
        is_inside &= (k >= 0) & (k < len(axis))
        index.append(np.clip(k, 0, len(axis) - 1).astype(int))
    return np.where(is_inside, values[tuple(index[::-1])], values.min())
