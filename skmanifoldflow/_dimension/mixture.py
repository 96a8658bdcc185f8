"""A mixture of normal distributions whose parts show a dimension place by place."""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from .._mixture_of_pca import MAX_COMPLETE_FEATURES, fit_mixture, partition, spread_rows

__all__ = ["LocalMixture", "fit_local_mixture"]

# Numbers of parts that are compared, on so many rows.
_N_PARTS = (1, 2, 4, 8, 16, 32)
_MAX_MIXTURE_ROWS = 2500


class LocalMixture(NamedTuple):
    """A mixture of normal distributions with the principal axes of its parts.

    Weights (K,), means (K, D), axes (K, D, D) and variances (K, D) along these, descending.
    """

    weights: np.ndarray
    means: np.ndarray
    axes: np.ndarray
    variances: np.ndarray

    def log_joint(self, rows):
        """Return log p_k p(x|k), shape (n, K), up to a constant."""
        columns = [
            np.log(weight)
            - 0.5 * (np.square((rows - mean) @ axes) / variance).sum(1)
            - 0.5 * np.log(variance).sum()
            for weight, mean, axes, variance in zip(*self, strict=True)
        ]
        return np.stack(columns, axis=1)

    def spectra(self, slope):
        """Return the variances (K, D), descending, of rows whose columns are scaled by (K, D)."""
        factor = slope[:, :, None] * self.axes * np.sqrt(self.variances)[:, None, :]
        return np.square(np.linalg.svd(factor, compute_uv=False))

    def sample(self, n_samples, rng, noise, n_components=None, slope=None):
        """Draw rows, less noise of a standard deviation, along the leading axes of the parts.

        These are the longest after the columns are scaled by `slope` (K, D), if there is one.
        """
        parts = rng.choice(len(self.weights), size=n_samples, p=self.weights)
        factor = self.axes * np.sqrt(np.maximum(self.variances - noise**2, 0.0))[:, None, :]
        if n_components is not None and slope is not None:
            turned = np.linalg.svd(slope[:, :, None] * factor)[2]
            factor = factor @ turned.transpose(0, 2, 1)
        factor = factor[:, :, :n_components]
        normal = rng.standard_normal((n_samples, factor.shape[2]))
        rows = np.empty((n_samples, self.means.shape[1]))
        for k in range(len(self.weights)):
            rows[parts == k] = self.means[k] + normal[parts == k] @ factor[k].T
        return rows


def fit_local_mixture(rows, held_out, noise):
    """Fit a mixture of probabilistic PCAs whose number of parts held-out rows choose.

    It is the smallest number whose mean log-density is within a standard error of the best.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Rows with noise added, D up to 64.
    held_out : ndarray of shape (n_held_out, D)
        The same of other rows.
    noise : float
        Standard deviation of that noise.

    Returns
    -------
    mixture : LocalMixture or None
        None where there are too many columns or too few rows.
    score : float
        Mean log-density of the held-out rows.
    """
    n_features = rows.shape[1]
    if n_features > MAX_COMPLETE_FEATURES:
        return None, -np.inf
    rows = spread_rows(rows, _MAX_MIXTURE_ROWS)
    mixtures, scores = [], []
    for n_parts in _N_PARTS:
        if n_parts * (n_features + 1) > len(rows) / 2:
            break
        mixture, _ = fit_mixture(rows, partition(rows, n_parts)[0], n_parts, noise)
        mixtures.append(mixture)
        scores.append(logsumexp(mixture.log_joint(held_out), axis=1))
        best = max(scores, key=np.mean)
        errors = [(best - score).std() / np.sqrt(len(best)) for score in scores]
        is_near = [(best - s).mean() <= error for s, error in zip(scores, errors, strict=True)]
        # Numbers beyond two in a row that are clearly worse are taken to be worse still.
        if not any(is_near[-2:]):
            break
    if not mixtures:
        return None, -np.inf
    chosen = is_near.index(True)
    mixture = mixtures[chosen]
    weights = mixture.weights / mixture.weights.sum()
    return LocalMixture(weights, *mixture[1:3], mixture.scales**2), float(scores[chosen].mean())
