"""Reading a dimension from a spectrum."""

import numpy as np

__all__ = ["spectral_dimension"]


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
