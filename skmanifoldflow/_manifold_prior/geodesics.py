"""Distances along the data, which the isometry penalty compares with latent distances."""

import numpy as np
import torch
from scipy.sparse.csgraph import shortest_path

from .objective import Geodesics

__all__ = ["geodesic_distances", "unrolled"]

# With fewer rows a neighbourhood graph says nothing about a shape.
_MIN_ROWS = 100
# Largest number of rows in the graph, and of rows between which distances are taken.
_MAX_GRAPH_ROWS = 4000
_MAX_LANDMARKS = 500
_N_NEIGHBORS = 10
# Share of the variance of the distances that a sheet without curvature leaves unexplained, at most.
# Swiss rolls and S-curves have .001, surfaces that are curved .005 and more, digits .09.
_MAX_RESIDUAL = 0.003
# Dimensions of such a sheet at most.
_MAX_SHEET = 10


def geodesic_distances(rows, generator):
    """Return rows and the distances between them along the graph of nearest neighbours.

    These are the distances of Isomap (Tenenbaum, de Silva & Langford, Science 290, 2000).

    Parameters
    ----------
    rows : Tensor of shape (n, D)
        Standardised rows; the graph is that of at most 4000 of them.
    generator : torch.Generator
        Source of the choice.

    Returns
    -------
    geodesics : Geodesics or None
        None with a single column, with fewer than 100 rows, and where all rows are equal.
    """
    # This import would be half of the time of `import skmanifoldflow`.
    from sklearn.neighbors import kneighbors_graph

    n = len(rows)
    if n < _MIN_ROWS or rows.shape[1] == 1:
        return None
    picked = torch.randperm(n, generator=generator)[:_MAX_GRAPH_ROWS].to(rows.device)
    graph_rows = rows[picked]
    graph = kneighbors_graph(graph_rows.cpu().numpy(), _N_NEIGHBORS, mode="distance")
    n_landmarks = min(len(picked), _MAX_LANDMARKS)
    distances = shortest_path(graph, directed=False, indices=np.arange(n_landmarks))
    distances = torch.tensor(distances[:, :n_landmarks], dtype=rows.dtype)
    mean_square = float(distances[torch.isfinite(distances)].square().mean())
    if mean_square == 0.0:
        return None
    return Geodesics(graph_rows[:n_landmarks], distances.to(rows.device), mean_square)


def unrolled(geodesics, latents):
    """Return geodesics with the places of an unrolled sheet, if their rows lie on one.

    The places are those of classical multidimensional scaling (Torgerson, 1952) of the distances,
    turned to the latent rows by the closest orthogonal map. Rows lie on such a sheet if all are
    connected, and if fewer dimensions than columns have a residual variance below .003, one minus
    the squared correlation of distances (Tenenbaum, de Silva & Langford, 2000).

    Parameters
    ----------
    geodesics : Geodesics
        Rows (m, D) and distances.
    latents : Tensor of shape (m, D)
        Latent rows at the start.

    Returns
    -------
    geodesics : Geodesics
    """
    distances = geodesics.distances.cpu().double()
    m, n_features = geodesics.rows.shape
    if not bool(distances.isfinite().all()):
        return geodesics
    squares = distances.square()
    centred = squares - squares.mean(0) - squares.mean(1, keepdim=True) + squares.mean()
    variances, vectors = torch.linalg.eigh(-0.5 * centred)
    n_places = min(n_features, m)
    places = (vectors * variances.clamp_min(0).sqrt()).flip(1)[:, :n_places]
    i, j = torch.triu_indices(m, m, offset=1)
    given = distances[i, j]

    def residual(k):
        found = torch.nn.functional.pdist(places[:, :k])
        return 1 - float(torch.corrcoef(torch.stack([found, given]))[0, 1]) ** 2

    if not any(residual(k) <= _MAX_RESIDUAL for k in range(1, min(n_features - 1, _MAX_SHEET) + 1)):
        return geodesics
    shift = latents.cpu().double().mean(0)
    places = torch.nn.functional.pad(places, (0, n_features - n_places))
    left, _, right = torch.linalg.svd(places.T @ (latents.cpu().double() - shift))
    places = places @ left @ right + shift
    return geodesics._replace(places=places.to(geodesics.rows))
