"""Dimension as the number of eigenvalues before the widest gap in a spectrum, or above a scale."""

from numbers import Real
from typing import NamedTuple

import numpy as np

__all__ = [
    "LEAST_GAP",
    "Reading",
    "check_scale",
    "dimension_at_scale",
    "read_spectra",
    "read_spectrum",
    "spectral_dimension",
]

# Two neighbouring eigenvalues with a smaller ratio than this have no gap between them.
LEAST_GAP = 8.0


def spectral_dimension(spectrum, noise_variance):
    """Return the number of eigenvalues before the widest gap of a spectrum, on a log scale.

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
    """Return the number of eigenvalues before the widest gap, and the ratio across that gap.

    All eigenvalues count where none is as small as the noise that was added and no two neighbours
    differ by a factor of 8.
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
    """The dimension read from spectra of local covariances.

    `units` names the units of the spectra, "standardised" or "data"; `spectrum` (D,) is their
    geometric mean.
    """

    dimension: int
    units: str
    spectrum: np.ndarray


def read_spectra(spectra, noise_variance, weights=None):
    """Read the dimension from local covariances, in the units that show the wider gap.

    A column of pure noise is small in units of the data, but as large as all others after
    standardisation. A column in which a curved manifold varies little is small in units of the
    data too, although it is part of the manifold; standardisation makes it as large as the others.

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
    readings = []
    for units, values in spectra.items():
        logs = np.log(np.maximum(values, np.finfo(float).tiny))
        spectrum = np.exp(np.average(logs, axis=0, weights=weights))
        dimension, gap = _widest_gap(spectrum, noise_variance)
        readings.append((gap, Reading(int(dimension), units, spectrum)))
    return max(readings, key=lambda one: one[0])[1]


def read_spectrum(spectrum, noise_variance):
    """Return the number of eigenvalues before the widest gap of one spectrum or of each of many.

    Unlike in `spectral_dimension` the noise that was added is no further eigenvalue. All
    eigenvalues count where none is as small as that noise and no two neighbours differ by a factor
    of 8.
    """
    return _widest_gap(spectrum, noise_variance)[0]


def check_scale(scale):
    """Return the scale of a local dimension as a float, or raise ValueError."""
    is_number = isinstance(scale, Real) and not isinstance(scale, bool)
    if not is_number or not 0 < float(scale) < np.inf:
        raise ValueError(f"scale must be a positive finite number, got {scale!r}.")
    return float(scale)


def dimension_at_scale(spectra, scale):
    """Return the numbers (n,) of eigenvalues (n, k) above the square of a scale, at least 1."""
    return np.maximum((np.asarray(spectra) > scale**2).sum(axis=1), 1)
