"""What all displays need: matplotlib, and axes to draw on."""

import math

__all__ = ["MAX_COLUMNS", "check_matplotlib", "new_axes", "panel_axes"]

MAX_COLUMNS = 4


def check_matplotlib(caller):
    """Raise an ImportError that names the extra to install where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib. It comes with the extra [plot], "
            "pip install 'skmanifoldflow[plot]', or alone, pip install matplotlib."
        ) from error


def new_axes():
    """Return the axes of a new figure."""
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def panel_axes(figure, n, n_columns=MAX_COLUMNS, **options):
    """Return n axes in rows of at most `n_columns`."""
    n_columns = min(n, n_columns)
    axes = figure.subplots(math.ceil(n / n_columns), n_columns, squeeze=False, **options).ravel()
    for ax in axes[n:]:
        ax.set_axis_off()
    return axes[:n]
