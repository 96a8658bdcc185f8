"""Dimension from the distances to nearest neighbours, and what it says of a model."""

import numpy as np

from .spectra import LEAST_GAP

__all__ = ["calibrate", "neighbor_dimension"]

# Fewer different rows say nothing about their neighbours.
_MIN_ROWS = 100
# Neighbours of a row that count, and the share of the rows, those in the densest places, that do:
# rows far outside have their neighbours all on one side, and read low.
_N_NEIGHBORS = 10
_DENSE_SHARE = 0.75
# Up to so many columns they are found by a tree.
_MAX_TREE_FEATURES = 15
# Draws over which the value of a model is averaged.
_N_DRAWS = 3
# Readings that differ by no more than this agree; where a spectrum has a gap, which is evidence of
# its own, by this share of the dimension, about the error of nearest neighbours.
_TOLERANCE = 0.5
_TOLERANCE_WITH_GAP = 0.1
# A gap is near a rough dimension if it is off by no more than this factor.
_NEAR = 1.5
# A reference of many more dimensions than the data is replaced by one of the calibrated dimension.
_LARGE_CORRECTION = 0.8


def neighbor_dimension(rows):
    """Maximum-likelihood dimension of rows from the distances to their nearest neighbours.

    Levina & Bickel, NIPS 2004, with the average of inverses that MacKay and Ghahramani proposed,
    over the three quarters of the rows whose neighbours are nearest. Biased downwards in high
    dimension, and upwards by noise: to be compared with the value for samples of a model. Repeated
    rows count once.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Rows.

    Returns
    -------
    dimension : float
        NaN where there are fewer than 100 different rows.
    """
    # Half of the time of `import skmanifoldflow`, if they were there.
    from scipy.spatial import KDTree
    from sklearn.neighbors import NearestNeighbors

    # Far from zero distances would lose their digits.
    rows = np.unique(rows - rows.mean(axis=0), axis=0)
    if len(rows) < _MIN_ROWS:
        return np.nan
    if rows.shape[1] <= _MAX_TREE_FEATURES:
        distances = KDTree(rows, leafsize=16).query(rows, k=_N_NEIGHBORS + 1)[0][:, 1:]
    else:
        neighbors = NearestNeighbors(n_neighbors=_N_NEIGHBORS, algorithm="brute").fit(rows)
        distances = neighbors.kneighbors()[0]
    farthest = distances[:, -1]
    dense = np.argsort(farthest, kind="stable")[: int(_DENSE_SHARE * len(rows))]
    # Different rows may still be at distance zero after rounding.
    dense = dense[distances[dense, 0] > 0]
    mean = np.log(farthest[dense, None] / distances[dense, :-1]).mean() if len(dense) else 0.0
    return (_N_NEIGHBORS - 2) / (_N_NEIGHBORS - 1) / mean if mean > 0 else np.nan


def _next_gap(reading, noise_variance, dimension):
    """Return the widest gap behind that of a reading that is near a rough, larger dimension.

    None where what is behind the gap is noise, alike in all directions.
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

    The statistic of the data is compared with that of samples of the model, whose dimension d is
    known: bias cancels, and so does noise that the model has learned. Samples on the manifold of
    the model, without noise, give d * data / samples = `on_manifold`, samples with it
    `with_noise`. Where `on_manifold` is not above d, the data show no noise, whatever the model
    believes, and it is the calibrated value; else `with_noise` is. A reading within 0.5 of the
    calibrated value stands, one from a spectrum with a gap within a tenth.

    Noise is alike in all directions. Where `on_manifold` is above d and the eigenvalues behind the
    gap are not, there are dimensions among them, and the widest gap near `on_manifold` behind the
    first is read before.

    Parameters
    ----------
    reading : Reading
        Dimension of the model and the spectrum it was read from.
    noise_variance : float
        Variance of the noise that was added.
    data : float
        `neighbor_dimension` of the data.
    sample : callable
        Returns samples of the model, with its leading coordinates only if their number is given.
    n_features : int
        Largest possible dimension.

    Returns
    -------
    dimension : int
        The calibrated dimension.
    with_noise, on_manifold : float
        The two values before rounding; NaN where there are too few rows.
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
