"""The mixture of probabilistic PCAs that local dimensions are read from where it is better."""

import torch

from .._dimension import fit_local_mixture, read_spectra, read_spectrum
from .._mixture_of_pca import MAX_COMPLETE_FEATURES
from ..backend.device import randn, to_host

__all__ = ["better_mixture"]


def better_mixture(objective, rows, units, score, order, n_held_out):
    """Fit a mixture beside a flow, and return it where it is the better model of the rows.

    A flow is one continuous map, which parts of different dimension, and closed shapes, are not the
    image of.

    Parameters
    ----------
    objective : SpreadLikelihood
        The objective of the fit, with the fitted flow.
    rows : Tensor of shape (n, D)
        Standardised rows.
    units : DataUnits
        Units of the data.
    score : float
        Mean log-likelihood of the rows set aside, under the flow; NaN where none were.
    order : Tensor of int of shape (n,)
        Order of `rows` in the fit: the rows set aside come first.
    n_held_out : int
        Number of rows set aside.

    Returns
    -------
    better : tuple of LocalMixture and ndarray of int of shape (K,), or None
        The mixture and the dimensions of its parts.
    """
    noise = objective.noise_floor
    if not n_held_out or rows.shape[1] > MAX_COMPLETE_FEATURES:
        return None
    noisy = rows + noise * randn(rows.shape, rows, objective.generator)
    z = to_host(noisy[order.to(rows.device)]).numpy()
    mixture, mixture_score = fit_local_mixture(z[n_held_out:], z[:n_held_out], noise)
    if mixture is None or not mixture_score > score:
        return None
    spectra = {"standardised": mixture.variances}
    if units.mean_variance > 0:
        slope = units.slope(torch.tensor(mixture.means)).numpy() / units.mean_variance**0.5
        spectra["data"] = mixture.spectra(slope)
    reading = read_spectra(spectra, noise**2, mixture.weights)
    return mixture, read_spectrum(spectra[reading.units], noise**2)
