"""Dimension from the distances to nearest neighbours, scale by scale."""

import numpy as np
from scipy.special import digamma

__all__ = ["SCALES", "nearest_neighbors", "neighbor_dimensions", "neighbor_distances"]

#: A scale is that of the neighbours of order k and 2k.
SCALES = (1, 2, 4, 8, 16, 32)
# Share of the rows, those in the densest places, that are used: a row far outside has all its
# neighbours on one side, which biases the estimate downwards.
_DENSE_SHARE = 0.75
# Share of the median distance to the nearest neighbour below which a neighbour is a copy.
_COPY = 1e-3
# Largest estimate, in numbers of columns.
_MOST = 2.0
# Largest number of columns for which neighbours are searched in a tree.
_MAX_TREE_FEATURES = 8


def nearest_neighbors(rows, n_neighbors):
    """Return distances of each row to its nearest neighbours, ascending, and which rows these are.

    Both have the shape (n, n_neighbors).
    """
    # At the top of the module these imports would take half of the time of the package's.
    from scipy.spatial import KDTree
    from sklearn.neighbors import NearestNeighbors

    if rows.shape[1] <= _MAX_TREE_FEATURES:
        distances, index = KDTree(rows, leafsize=16).query(rows, k=n_neighbors + 1)
        return distances[:, 1:], index[:, 1:]
    return NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(rows).kneighbors()


def neighbor_distances(rows, n_neighbors):
    """Return the distances (n, n_neighbors) of each row to its nearest neighbours, ascending."""
    return nearest_neighbors(rows, n_neighbors)[0]


def neighbor_dimensions(rows, n_scales=6):
    """Dimension of rows from the ratios of the distances to neighbours k and 2k, for some k.

    If rows are uniform on d dimensions at the scale of the neighbours, the logarithm of the ratio
    has the mean (digamma(2k) - digamma(k)) / d, so that means of logarithms give d (Denti, Doimo,
    Laio & Mira, Scientific Reports 12, 2022). High dimension biases the estimate downwards, noise
    upwards at the scales that it fills, and bends upwards at larger ones, so it should be compared
    with its value for samples of a model.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Different rows, more than 2k of them.
    n_scales : int
        Number of scales k = 1, 2, 4, ..., at most six.

    Returns
    -------
    dimensions : ndarray of shape (n_scales,)
        One for each scale.
    """
    scales = np.array(SCALES[:n_scales])
    distances = neighbor_distances(rows, 2 * int(scales[-1]))
    dense = np.argsort(distances[:, -1], kind="stable")[: max(1, int(_DENSE_SHARE * len(rows)))]
    # A copy that was not found, or rounding, would decide alone.
    dense = dense[distances[dense, 0] > _COPY * np.median(distances[:, 0])]
    if not len(dense):
        return np.ones(n_scales)
    ratios = distances[dense][:, 2 * scales - 1] / distances[dense][:, scales - 1]
    means = np.log(ratios).mean(axis=0)
    dimensions = (digamma(2 * scales) - digamma(scales)) / np.maximum(means, 1e-9)
    # On a grid all neighbours are equally far, at which no number would be too large.
    return np.minimum(dimensions, _MOST * rows.shape[1])
