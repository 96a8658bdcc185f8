"""Paths between two places that keep to where rows are dense."""

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra, minimum_spanning_tree
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from ._rows import thin

__all__ = ["dense_path", "evenly"]

_MAX_PLACES, _N_NEIGHBORS = 800, 12
# Power of the distance in Fermat distances; 1 is the straight line.
_POWER = 3.0
# Nats by which densities count at most.
_MOST_NATS = 40.0
_N_FINE = 200


def dense_path(log_density, places, start, stop, n_steps):
    """Return places (n_steps, d) from start to stop along high density, evenly spaced.

    It is the shortest path in a graph of nearest neighbours whose edges have the length of the
    curve in the metric p^((1 - a) / d) times that of the coordinates, which is the limit of Fermat
    distances with the power a; then it is smoothed.

    Parameters
    ----------
    log_density : callable
        Log-densities of places (n, d).
    places : ndarray of shape (n, d)
        Where the path may go.
    start, stop : ndarray of shape (d,)
        Its ends.
    n_steps : int
        Number of places.
    """
    nodes = np.unique(np.vstack([thin(places, _MAX_PLACES), start, stop]), axis=0)
    ends = [int((np.abs(nodes - end).sum(axis=1)).argmin()) for end in (start, stop)]
    if ends[0] == ends[1]:
        return np.tile(start, (n_steps, 1))
    i, j = _edges(nodes)
    at_nodes, between = log_density(nodes), log_density((nodes[i] + nodes[j]) / 2)
    top = max(at_nodes.max(), between.max())
    slope = (_POWER - 1) / nodes.shape[1]

    def cost(nats):
        return np.exp(slope * np.minimum(top - nats, _MOST_NATS))

    lengths = np.linalg.norm(nodes[i] - nodes[j], axis=1)
    # Simpson's rule.
    weights = lengths * (cost(at_nodes[i]) + 4 * cost(between) + cost(at_nodes[j])) / 6
    graph = coo_array((weights, (i, j)), shape=(len(nodes), len(nodes))).tocsr()
    previous = dijkstra(graph, directed=False, indices=ends[0], return_predecessors=True)[1]
    path = [ends[1]]
    while path[-1] != ends[0]:
        path.append(previous[path[-1]])
    fine = evenly(nodes[path[::-1]], _N_FINE)
    # Odd reflection keeps the ends where they are.
    width = max(1.0, _N_FINE / (2 * len(path)))
    n_pad = int(4 * width)
    before, after = 2 * fine[0] - fine[n_pad:0:-1], 2 * fine[-1] - fine[-2 : -n_pad - 2 : -1]
    smooth = gaussian_filter1d(np.vstack([before, fine, after]), width, axis=0)
    smooth = smooth[n_pad:-n_pad]
    smooth[0], smooth[-1] = start, stop
    return evenly(smooth, n_steps)


def evenly(path, n_steps):
    """Return places at equal distances along a path."""
    along = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)))
    t = np.linspace(0, along[-1], n_steps)
    return np.stack([np.interp(t, along, column) for column in path.T], axis=1)


def _edges(nodes):
    """Return the ends of edges between nearest neighbours, and of those that join the parts."""
    k = min(_N_NEIGHBORS, len(nodes) - 1)
    neighbors = NearestNeighbors(n_neighbors=k).fit(nodes).kneighbors(return_distance=False)
    i, j = np.repeat(np.arange(len(nodes)), k), neighbors.ravel()
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(len(nodes), len(nodes)))
    if connected_components(graph, directed=False)[0] > 1:
        tree = minimum_spanning_tree(cdist(nodes, nodes)).tocoo()
        i, j = np.append(i, tree.row), np.append(j, tree.col)
    # Each edge once: entries of a sparse matrix would be added.
    pairs = np.unique(np.sort(np.stack([i, j]), axis=0), axis=1)
    return pairs[0], pairs[1]
