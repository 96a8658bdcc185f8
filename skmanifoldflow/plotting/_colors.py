"""Colours that say which row is which."""

import numpy as np

__all__ = [
    "ACCENT_COLOR",
    "CLASS_COLORS",
    "DATA_COLOR",
    "SAMPLE_COLOR",
    "class_colors",
    "class_handles",
]

DATA_COLOR, SAMPLE_COLOR, ACCENT_COLOR = "0.75", "#0072B2", "#D55E00"
# Ten colours that stay apart with the common kinds of colour blindness (P. Tol's "muted", which has
# nine, and black).
CLASS_COLORS = [
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


def class_colors(y):
    """Return the distinct values in y, their colours (RGBA) and the number of each row's value.

    Colours follow the order of the values where these are too many to be told apart.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba_array

    values, codes = np.unique(y, return_inverse=True)
    if len(values) > len(CLASS_COLORS):
        return values, colormaps["viridis"](np.linspace(0, 1, len(values))), codes
    return values, to_rgba_array(CLASS_COLORS[: len(values)]), codes


def class_handles(values, colors):
    """Return what a legend shows for each value."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], marker="o", linestyle="none", color=color, markersize=5, label=str(value))
        for value, color in zip(values, colors, strict=True)
    ]
