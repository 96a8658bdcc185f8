"""Guides: methods whose coordinates those of the first stage are drawn to."""

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_array
from torch import Tensor

from .._linear import principal_axes
from .guide_term import GuidedRows

__all__ = ["GUIDES", "MAX_TSNE_COMPONENTS", "guide_rows", "most_rows", "new_guide"]

#: Guides that go by a name.
GUIDES = ("tsne", "isomap", "umap", "precomputed")

# Rows that a guide is fitted to: t-SNE of more takes longer than the flow, and Isomap has a matrix
# with a row and a column for each.
_MAX_ROWS, _MAX_ROWS_ISOMAP = 10_000, 4_000
#: Components of t-SNE at most: the approximation of Barnes and Hut, without which its time is
#: quadratic in the rows, is written for three.
MAX_TSNE_COMPONENTS = 3
# Share of them that is left out of the term.
_SHARE_LEFT_OUT = 0.1
# Nearest neighbours that a row is mixed with.
_N_NEIGHBORS = 5


def most_rows(guide: Any) -> int:
    """Return the number of training rows that a guide is fitted to at most."""
    # This import would be half of the time of `import skmanifoldflow`.
    from sklearn.manifold import Isomap

    is_isomap = isinstance(guide, Isomap) or (isinstance(guide, str) and guide == "isomap")
    return _MAX_ROWS_ISOMAP if is_isomap else _MAX_ROWS


def guide_rows(
    guide: Any,
    rows: Tensor,
    weights: Tensor | None,
    n_components: int,
    seed: int,
    coordinates: np.ndarray | None = None,
) -> GuidedRows:
    """Return rows with the coordinates of a guide; a tenth of them, the first ones, is left out.

    Parameters
    ----------
    guide : str or estimator instance
        One of `GUIDES`, or an estimator with `fit_transform`, which is cloned.
    rows : Tensor of shape (m, D)
        Standardised training rows in random order.
    weights : Tensor of shape (m,) or None
        How many rows each of them counts for in the term; the guide sees each once.
    n_components : int
        Number of coordinates d.
    seed : int
        Random state of the guide, for each `random_state` in it that is None.
    coordinates : ndarray of shape (m, d), default=None
        What "precomputed" takes.

    Raises
    ------
    ImportError
        If the guide is "umap" and umap-learn is not installed.
    ValueError
        If coordinates are not finite, all equal, or are not m rows and d columns.
    """
    from sklearn.neighbors import NearestNeighbors

    values = rows.numpy()
    if coordinates is None:
        coordinates = new_guide(guide, n_components, values, seed).fit_transform(values)
    coordinates = check_array(coordinates, dtype=np.float64, input_name="guide_coordinates")
    if coordinates.shape != (len(rows), n_components):
        raise ValueError(
            f"The guide gives coordinates of shape {coordinates.shape}, but {len(rows)} rows have "
            f"n_components={n_components} coordinates."
        )
    mean, axes, variances = principal_axes(coordinates)
    scale = math.sqrt(variances.mean())
    if not scale:
        raise ValueError("The guide gives the same coordinates to all rows.")
    turned = torch.tensor((coordinates - mean) @ axes / scale)
    n_out = round(_SHARE_LEFT_OUT * len(rows))
    values = values[n_out:]
    n_neighbors = min(_N_NEIGHBORS, len(values) - 1)
    distances, neighbors = NearestNeighbors(n_neighbors=n_neighbors).fit(values).kneighbors()
    return GuidedRows(
        rows[n_out:],
        turned[n_out:],
        None if weights is None else weights[n_out:],
        torch.from_numpy(neighbors),
        float(distances[:, 0].mean()),
        (rows[:n_out], turned[:n_out]),
    )


def new_guide(guide: Any, n_components: int, rows: np.ndarray, seed: int) -> Any:
    """Return an estimator that embeds so many rows, yet to be fitted."""
    if isinstance(guide, str):
        guide = _named_guide(guide, n_components, min(rows.shape))
    guide = clone(guide)
    n = len(rows)
    lowered: dict[str, Any] = {}
    for name, value in guide.get_params().items():
        kind = name.rpartition("__")[2]
        if kind == "random_state" and value is None:
            lowered[name] = seed
        elif kind == "perplexity" and isinstance(value, Real):
            lowered[name] = min(value, (n - 1) / 3)
        elif kind == "n_neighbors" and isinstance(value, Integral):
            lowered[name] = min(value, n - 1)
    return guide.set_params(**lowered)


def _named_guide(guide: str, n_components: int, rank: int) -> Any:
    """Return the estimator of a name; the rows have at most `rank` principal components."""
    from sklearn.manifold import TSNE, Isomap

    if guide == "tsne":
        return TSNE(n_components, init="pca" if n_components <= rank else "random")
    if guide == "isomap":
        return Isomap(n_neighbors=10, n_components=n_components)
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError('guide="umap" needs umap-learn: pip install umap-learn') from error
    # With a seed there is one job, and UMAP warns where it has to be told.
    return UMAP(n_components=n_components, n_jobs=1)
