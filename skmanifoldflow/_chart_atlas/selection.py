"""What a fit reads from its rows before there are charts: dimension and numbers of charts."""

from dataclasses import replace

import numpy as np

from .._dimension import spectral_dimension
from .._geometry import noise_variance_read
from .._mixture_of_pca import best_number_of_charts, fit_mixture, partition
from .build import ChartAtlasConfig

__all__ = ["complete_image_config", "complete_table_config"]

# Numbers of charts that are tried beside that of the mixture with the best criterion.
_FEW_CHARTS = (8, 12, 16)
_MAX_IMAGE_CHARTS = 32
# Least number of rows of a cell in which the dimension is estimated, and of a chart of images.
_ROWS_PER_CELL = 50
# Most cells from which the dimension is estimated.
_MAX_CELLS = 64


def complete_image_config(choices: ChartAtlasConfig, n_trained: int) -> ChartAtlasConfig:
    """Return the choices for images with the number of charts, given that of training rows."""
    n_charts = max(1, min(_MAX_IMAGE_CHARTS, n_trained // _ROWS_PER_CELL))
    return replace(choices, n_charts=choices.n_charts or (n_charts,))


def complete_table_config(
    choices: ChartAtlasConfig, rows: np.ndarray, noise_floor: float
) -> ChartAtlasConfig:
    """Return the choices for a table with all that is read from its rows.

    Parameters
    ----------
    choices : ChartAtlasConfig
        Choices of the user, `FROM_ROWS` where a choice is left to the rows.
    rows : ndarray of shape (n, D)
        Standardised training rows.
    noise_floor : float
        Least standard deviation of the noise.
    """
    d, n_features = _rough_dimension(rows, noise_floor), choices.n_features
    return replace(
        choices,
        n_charts=choices.n_charts or _numbers_of_charts(rows, noise_floor),
        n_flat=min(d, n_features - 1),
        # Whitney: any manifold of dimension d embeds in 2 d + 1 dimensions.
        n_components=choices.n_components or min(n_features, 2 * d + 1),
        # d + 1 cells of dimension d meet in a corner, but a row has nearly all of its density from
        # no more than three of them.
        n_neighbors=choices.n_neighbors or min(d, 2) + 1,
    )


def _numbers_of_charts(rows: np.ndarray, noise_floor: float) -> tuple[int, ...]:
    """Return the number of charts of each atlas, ascending."""
    numbers = {best_number_of_charts(rows, noise_floor)}
    numbers |= {k for k in _FEW_CHARTS if k * (rows.shape[1] + 1) <= len(rows) / 2}
    return tuple(sorted(numbers))


def _rough_dimension(rows: np.ndarray, noise_floor: float) -> int:
    """Return the dimension that the mean spectrum of small cells of the rows shows."""
    n_cells = max(1, min(_MAX_CELLS, len(rows) // max(_ROWS_PER_CELL, 2 * rows.shape[1])))
    cells, _ = partition(rows, n_cells)
    mixture, _ = fit_mixture(rows, cells, n_cells, noise_floor)
    spectrum = np.exp(2 * (mixture.weights @ np.log(mixture.scales)) / mixture.weights.sum())
    return int(spectral_dimension(spectrum, noise_variance_read(noise_floor)))
