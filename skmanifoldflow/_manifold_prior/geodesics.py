"""Distances along the data, which the isometry penalty compares with latent distances."""

import numpy as np
import torch
from scipy.sparse.csgraph import shortest_path

from .objective import Geodesics

__all__ = ["geodesic_distances"]

# With fewer rows a neighbourhood graph says nothing about a shape.
_MIN_ROWS = 100
# Largest number of rows in the graph, and of rows between which distances are taken.
_MAX_GRAPH_ROWS = 4000
_MAX_LANDMARKS = 500
_N_NEIGHBORS = 10


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
