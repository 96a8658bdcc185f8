"""Dimension from the distances to nearest neighbours, and calibration of a model by it."""

import numpy as np

from .._duplicates import distinct_rows
from .spectra import LEAST_GAP

__all__ = ["calibrate", "neighbor_dimension"]

# Least number of different rows for an estimate.
_MIN_ROWS = 100
# Number of neighbours of a row, and share of the rows, those in the densest places, that are used:
# a row far outside has all its neighbours on one side, which biases the estimate downwards.
_N_NEIGHBORS = 10
_DENSE_SHARE = 0.75
# Largest number of columns for which neighbours are searched in a tree.
_MAX_TREE_FEATURES = 15
# Number of samples of a model over which its estimate is averaged.
_N_DRAWS = 3
# Readings that differ by no more than this agree. A gap in the spectrum is evidence of its own, so
# with a gap they may differ by a share of the dimension, about the error of nearest neighbours.
_TOLERANCE = 0.5
_TOLERANCE_WITH_GAP = 0.1
# A gap is near a rough dimension if the two differ by no more than this factor.
_NEAR = 1.5
# Where the calibrated dimension is below this share of that of the samples, it is calibrated again
# with samples of the lower dimension.
_LARGE_CORRECTION = 0.8


def neighbor_dimension(rows):
    """Maximum-likelihood dimension of rows from the distances to their nearest neighbours.

    The estimator is that of Levina & Bickel, NIPS 2004, with the average of inverses that MacKay
    and Ghahramani proposed, over the three quarters of the rows whose neighbours are nearest. High
    dimension biases it downwards and noise upwards, so it should be compared with its value for
    samples of a model. Equal rows and near copies count once.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Rows.

    Returns
    -------
    dimension : float
        NaN where there are fewer than 100 different rows.
    """
    # At the top of the module these imports would take half of the time of the package's.
    from scipy.spatial import KDTree
    from sklearn.neighbors import NearestNeighbors

    # Distances between rows far from zero would lose digits.
    rows = distinct_rows(np.unique(rows - rows.mean(axis=0), axis=0))
    if len(rows) < _MIN_ROWS:
        return np.nan
    if rows.shape[1] <= _MAX_TREE_FEATURES:
        distances = KDTree(rows, leafsize=16).query(rows, k=_N_NEIGHBORS + 1)[0][:, 1:]
    else:
        neighbors = NearestNeighbors(n_neighbors=_N_NEIGHBORS, algorithm="brute").fit(rows)
        distances = neighbors.kneighbors()[0]
    farthest = distances[:, -1]
    dense = np.argsort(farthest, kind="stable")[: int(_DENSE_SHARE * len(rows))]
    # Rounding may leave different rows at distance zero.
    dense = dense[distances[dense, 0] > 0]
    mean = np.log(farthest[dense, None] / distances[dense, :-1]).mean() if len(dense) else 0.0
    return (_N_NEIGHBORS - 2) / (_N_NEIGHBORS - 1) / mean if mean > 0 else np.nan


def _next_gap(reading, noise_variance, dimension):
    """Return the dimension at the widest gap near a rough dimension, after the gap of a reading.

    None where the eigenvalues after the gap of the reading are nearly equal, as those of noise.
    """
    rest = np.maximum(reading.spectrum[reading.dimension :], 2 * noise_variance)
    if len(rest) < 2 or rest[0] <= LEAST_GAP * np.quantile(rest, 0.25):
        return None
    k = reading.dimension + np.arange(1, len(rest))
    is_near = (k >= dimension / _NEAR) & (k <= dimension * _NEAR)
    if not is_near.any():
        return None
    return int(k[np.argmax(np.where(is_near, rest[:-1] / rest[1:], 0.0))])


def calibrate(reading, noise_variance, data, sample, n_features):
    """Calibrate the dimension of a model by nearest neighbours.

    `neighbor_dimension` of the data is compared with that of samples of the model, whose dimension
    d is known. The bias of the estimator cancels, and so does noise that the model has learned. The
    ratio d * data / samples is called `with_noise` for samples with the noise of the model, and
    `on_manifold` for samples on its manifold. If `on_manifold` is at most d + 0.5, the data look
    noise-free and `on_manifold` is the calibrated value; otherwise `with_noise` is. The reading of
    the model is kept if it is within 0.5 of the calibrated value, or, where its spectrum has a gap,
    within a tenth of d. Otherwise the calibrated value is rounded.

    Noise has equal variance in every direction. If `on_manifold` exceeds d + 0.5 and the
    eigenvalues after the gap are unequal, some of them belong to the manifold: d is then read at
    the widest later gap near `on_manifold`, and calibrated again.

    Parameters
    ----------
    reading : Reading
        Dimension of the model and the spectrum it was read from.
    noise_variance : float
        Variance of the noise that was added.
    data : float
        `neighbor_dimension` of the data.
    sample : callable
        Takes a number of leading coordinates and returns samples (n, D) on them, without noise.
        Takes None for samples of all coordinates with noise.
    n_features : int
        Largest possible dimension.

    Returns
    -------
    dimension : int
        The calibrated dimension.
    with_noise, on_manifold : float
        The two ratios; NaN where there are too few rows.
    """

    def ratio(d, n_components):
        samples = [neighbor_dimension(sample(n_components)) for _ in range(_N_DRAWS)]
        return d * data / np.mean(samples)

    def ratios(d):
        return ratio(d, None), ratio(d, d)

    if not np.isfinite(data):
        return reading.dimension, np.nan, np.nan
    reading = reading._replace(spectrum=reading.spectrum[:n_features])
    has_gap = reading.dimension < n_features
    with_noise, on_manifold = ratios(reading.dimension)
    while on_manifold > reading.dimension + _TOLERANCE:
        found = _next_gap(reading, noise_variance, on_manifold)
        if found is None:
            break
        reading = reading._replace(dimension=found)
        with_noise, on_manifold = ratios(found)
    dimension = reading.dimension
    value = on_manifold if on_manifold <= dimension + _TOLERANCE else with_noise
    tolerance = max(_TOLERANCE, _TOLERANCE_WITH_GAP * dimension if has_gap else 0.0)
    if not np.isfinite(value) or abs(value - dimension) <= tolerance:
        return dimension, with_noise, on_manifold
    is_hull, reference = on_manifold <= dimension, dimension
    while is_hull and 1 <= round(value) < reference and value < _LARGE_CORRECTION * reference:
        reference = round(value)
        value = ratio(reference, reference)
    return max(1, min(round(value), n_features)), with_noise, on_manifold
