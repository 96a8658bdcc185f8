"""Dimension as the place of the widest gap in the spectrum of a covariance."""

from typing import NamedTuple

import numpy as np

__all__ = ["LEAST_GAP", "Reading", "read_spectra", "read_spectrum", "spectral_dimension"]

# Two neighbouring eigenvalues with a smaller ratio than this are of one kind.
LEAST_GAP = 8.0


def spectral_dimension(spectrum, noise_variance):
    """Number of eigenvalues before the widest gap of a spectrum, on a log scale.

    The noise that was added to the data is appended as a last eigenvalue, so that a spectrum
    without a gap, far above the noise everywhere, reads as full-dimensional.

    Parameters
    ----------
    spectrum : ndarray of shape (..., n_features)
        Variances in descending order.
    noise_variance : float
        Variance of the noise added to the data, in the units of `spectrum`. Eigenvalues below
        twice this value count as noise.

    Returns
    -------
    dimension : ndarray of int of shape (...)
        Between 1 and n_features.
    """
    floor = 2 * noise_variance
    floored = np.maximum(spectrum, floor)
    noise = np.full((*floored.shape[:-1], 1), floor)
    gaps = -np.diff(np.log(np.concatenate([floored, noise], axis=-1)), axis=-1)
    return 1 + np.argmax(gaps, axis=-1)


def _widest_gap(spectrum, noise_variance):
    """Return the number of eigenvalues before the widest gap, and the ratio of those at the gap.

    Where none is as small as the noise that was added, and no gap is wide, all of them count.
    """
    floor = 2 * noise_variance
    n_features = spectrum.shape[-1]
    is_noise = spectrum <= floor
    if n_features == 1:
        return np.ones(spectrum.shape[:-1], dtype=int), np.ones(spectrum.shape[:-1])
    spectrum = np.maximum(spectrum, floor)
    ratios = spectrum[..., :-1] / spectrum[..., 1:]
    widest = ratios.max(axis=-1)
    is_full = (widest < LEAST_GAP) & ~is_noise.any(axis=-1)
    return np.where(is_full, n_features, 1 + ratios.argmax(axis=-1)), widest


class Reading(NamedTuple):
    """The dimension read from spectra of local covariances, and in what units it was.

    `units` is "standardised" or "data"; `spectrum` (D,) is the geometric mean of the spectra.
    """

    dimension: int
    units: str
    spectrum: np.ndarray


def read_spectra(spectra, noise_variance, weights=None):
    """Read the dimension from local covariances, in the units that show it more clearly.

    A column of nothing but noise is small in units of the data, and like all others after
    standardisation; a column in which a curved manifold varies little is the other way round.

    Parameters
    ----------
    spectra : dict of str to ndarray of shape (n, D)
        Eigenvalues in descending order at each of n places, by the name of their units.
    noise_variance : float
        Variance of the noise that was added.
    weights : ndarray of shape (n,), default=None
        Weights of the places, summing to 1; None for equal ones.

    Returns
    -------
    reading : Reading
    """
    best = None
    for units, values in spectra.items():
        logs = np.log(np.maximum(values, np.finfo(float).tiny))
        spectrum = np.exp(np.average(logs, axis=0, weights=weights))
        dimension, gap = _widest_gap(spectrum, noise_variance)
        if best is None or gap > best[0]:
            best = gap, Reading(int(dimension), units, spectrum)
    return best[1]


def read_spectrum(spectrum, noise_variance):
    """Return the number of eigenvalues before the widest gap of one spectrum or of each of many.

    Unlike `spectral_dimension` it does not take the noise that was added for an eigenvalue: where
    none is as small as that, and no two neighbours differ by a factor of 8, all of them count.
    """
    return _widest_gap(spectrum, noise_variance)[0]
