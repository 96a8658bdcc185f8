"""Dimensions of the charts of a fitted atlas, read from spectra."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .._dimension import spectral_dimension
from .._geometry import affordable_rows, noise_variance_read
from .._mixture_of_pca import MAX_COMPLETE_FEATURES, spread_rows
from ..backend.device import to_host
from ..backend.flow import chunks
from ..backend.geometry import jacobian_columns
from .atlas import AtlasEnsemble
from .chart_maps import ConformalChartMap

__all__ = ["chart_dimensions"]

# Most rows that are assigned to charts, and most rows of a chart and entries of their Jacobians.
_MAX_COMPARED_ROWS = 4096
_MAX_ROWS_PER_CHART = 32
_MAX_ENTRIES = 2**18


def chart_dimensions(flow: AtlasEnsemble, rows: Tensor, noise_floor: float) -> np.ndarray:
    """Return the dimension (K,) of each chart, from the spectra of its map at some of its rows.

    Parameters
    ----------
    flow : AtlasEnsemble
        Fitted model.
    rows : Tensor of shape (n, D)
        Standardised rows.
    noise_floor : float
        Standard deviation of the noise on training rows.
    """
    chart_map = flow.partitions[0].chart_map
    if isinstance(chart_map, ConformalChartMap):
        return np.full(flow.n_charts, chart_map.n_components)
    if chart_map.frames_last:
        # Jacobians of images cost too much: count the latent axes that stand out from the rest.
        scales = torch.cat([chart_map.frames.scale, chart_map.frames.rest], dim=1)
        spectra = to_host(scales).square().numpy()
        return np.array([spectral_dimension(s[:-1], s[-1] / 2) for s in spectra])
    scales = torch.cat([atlas.chart_map.frames.scale for atlas in flow.partitions])
    spectra = to_host(scales).square().numpy()
    if flow.n_features <= MAX_COMPLETE_FEATURES:
        for k, spectrum in _mean_spectra(flow, rows):
            spectra[k] = spectrum
    return spectral_dimension(spectra, noise_variance_read(noise_floor))


def _mean_spectra(flow: AtlasEnsemble, rows: Tensor) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each chart that has rows, and the geometric mean (D,) of the spectra at some of them.

    A row belongs to its most probable chart. The spectrum at a row is that of J J', where J is the
    Jacobian of the inverse of the map of the chart.
    """
    n_features = flow.n_features
    n_rows = affordable_rows(n_features**2, _MAX_ROWS_PER_CHART, _MAX_ENTRIES)
    x = spread_rows(rows, _MAX_COMPARED_ROWS)
    with torch.no_grad():
        charts = torch.cat([flow.log_joint_of_all(x[c]).argmax(1) for c in chunks(len(x), 64)])
    directions = torch.eye(n_features, **flow.tensor_options)
    for k in charts.unique().tolist():
        rows_of_chart = x[charts == k][:n_rows]
        chart = torch.full((len(rows_of_chart),), k, device=x.device)
        to_latent = partial(flow.to_latent, charts=chart)
        _, jacobian = jacobian_columns(to_latent, rows_of_chart, directions)
        # The map goes to the normal distribution: its inverse has the inverse singular values.
        stretch = torch.linalg.svdvals(to_host(jacobian))
        yield k, stretch.flip(1).square().log().mean(0).neg().exp().numpy()
