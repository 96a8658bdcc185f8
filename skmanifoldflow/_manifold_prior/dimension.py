"""The dimension of a fitted flow, read beside that of a mixture of probabilistic PCAs.

docs/user_guide/intrinsic_dimension.rst explains the readings and how they are combined.
"""

import numpy as np
import torch

from .._dimension import Candidate, fit_local_mixture, read_dimension, read_spectra, read_spectrum
from .._mixture_of_pca import MAX_COMPLETE_FEATURES
from ..backend.device import randn, to_host
from ..backend.flow import chunks

__all__ = ["read_flow_dimension"]

# Rows whose nearest neighbours calibrate a reading.
_MAX_NEIGHBOR_ROWS = 5000


def read_flow_dimension(objective, rows, x, units, reading, lengths, score, order, n_held_out):
    """Read the dimension of rows from a flow that was fitted to them, or from a mixture.

    Parameters
    ----------
    objective : SpreadLikelihood
        The objective of the fit, with the fitted flow.
    rows : Tensor of shape (n, D)
        Standardised rows.
    x : ndarray of shape (n, D)
        The same rows in units of the data and in random order.
    units : DataUnits
        Units of the data.
    reading : Reading
        Reading of the local covariance of the flow.
    lengths : Tensor of shape (D,)
        Lengths of the axes of the prior in units of the data.
    score : float
        Mean log-likelihood of the rows set aside, under the flow; NaN where none were.
    order : Tensor of int of shape (n,)
        Order of `rows` in the fit: the rows set aside come first.
    n_held_out : int
        Number of rows set aside.

    Returns
    -------
    report : DimensionReport
        All readings, and the dimension.
    better : tuple of LocalMixture and ndarray of int of shape (K,), or None
        The mixture and the dimensions of its parts, where it is the better model.
    """
    noise, generator = objective.noise_floor, objective.generator
    x = x[:_MAX_NEIGHBOR_ROWS]
    flow, prior = _flow_candidate(objective, units, reading, lengths, score, len(x))
    candidates, fitted = [flow], None
    if n_held_out and rows.shape[1] <= MAX_COMPLETE_FEATURES:
        noisy = rows + noise * randn(rows.shape, rows, generator)
        z = to_host(noisy[order.to(rows.device)]).numpy()
        mixture, score = fit_local_mixture(z[n_held_out:], z[:n_held_out], noise)
        if mixture is not None:
            candidate, dimensions = _mixture_candidate(
                mixture, score, units, noise, generator, len(x)
            )
            candidates.append(candidate)
            fitted = mixture, dimensions
    report = read_dimension(x, candidates, prior, int(units.varies.sum()), noise**2)
    return report, fitted if report.model == "mixture" else None


def _flow_candidate(objective, units, reading, lengths, score, n_samples):
    """Return the flow as a candidate, and the dimension read from its prior alone."""
    flow, latent, noise_variance = objective.flow, objective.latent, objective.noise_floor**2
    variances = latent.spectrum.cpu()
    if reading.units == "data":
        variances = variances * lengths.to(variances).square() / units.mean_variance
    variances, leading = variances.sort(descending=True, stable=True)
    prior = int(read_spectrum(variances.numpy(), noise_variance))
    leading = leading.to(latent.spectrum.device)

    def sample(n_components):
        variances = (latent.spectrum - noise_variance).clamp_min(0.0)
        if n_components is not None:
            variances[leading[n_components:]] = 0.0
        normal = randn((n_samples, len(variances)), variances, objective.generator)
        z = latent.mean + normal * variances.sqrt() @ latent.eigenvectors.T
        parts = [flow.decode(z[chunk]) for chunk in chunks(n_samples, z.shape[1])]
        return units.standardizer.inverse(to_host(torch.cat(parts))).numpy()

    return Candidate("flow", reading, sample, score), prior


def _mixture_candidate(mixture, score, units, noise, generator, n_samples):
    """Return a mixture as a candidate, and the dimensions (K,) of its parts."""
    rng = np.random.RandomState(int(torch.randint(2**31, (1,), generator=generator)))
    spectra, slope = {"standardised": mixture.variances}, None
    if units.mean_variance > 0:
        slope = units.slope(torch.tensor(mixture.means)).numpy() / units.mean_variance**0.5
        spectra["data"] = mixture.spectra(slope)
    reading = read_spectra(spectra, noise**2, mixture.weights)
    scaled = slope if reading.units == "data" else None

    def sample(n_components):
        drawn = torch.tensor(mixture.sample(n_samples, rng, noise, n_components, scaled))
        return units.standardizer.inverse(drawn).numpy()

    dimensions = read_spectrum(spectra[reading.units], noise**2)
    return Candidate("mixture", reading, sample, score), dimensions
