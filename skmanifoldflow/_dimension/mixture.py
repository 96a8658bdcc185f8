"""A mixture of normal distributions, each part of which shows the dimension in its place."""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from .._mixture_of_pca import MAX_COMPLETE_FEATURES, MixtureOfPCA, fit_mixtures, spread_rows

__all__ = ["LocalMixture", "fit_local_mixture", "fit_local_mixtures", "near_the_best"]

# Numbers of parts that are compared, and largest number of rows that they are fitted to.
_N_PARTS = (1, 2, 4, 8, 16, 32)
_MAX_MIXTURE_ROWS = 2500


class LocalMixture(NamedTuple):
    """A mixture of normal distributions with the principal axes of its parts.

    Weights (K,), means (K, D), axes (K, D, D) and variances (K, D) along the axes, descending.
    """

    weights: np.ndarray
    means: np.ndarray
    axes: np.ndarray
    variances: np.ndarray

    def log_joint(self, rows):
        """Return log p_k p(x|k), shape (n, K)."""
        weights, means, axes, variances = self
        # The axes are complete, so the deviation in other directions is never used.
        unused = np.ones((len(weights), 1))
        return MixtureOfPCA(weights, means, axes, np.sqrt(variances), unused).log_joint(rows)

    def spectra(self, slope):
        """Return the variances (K, D), descending, after columns are scaled by `slope` (K, D)."""
        factor = slope[:, :, None] * self.axes * np.sqrt(self.variances)[:, None, :]
        return np.square(np.linalg.svd(factor, compute_uv=False))

    def sample(self, n_samples, rng, noise, n_components=None):
        """Return rows drawn without noise of a standard deviation, along the leading axes of parts.

        All axes are used where `n_components` is None.
        """
        parts = rng.choice(len(self.weights), size=n_samples, p=self.weights)
        factor = self.axes * np.sqrt(np.maximum(self.variances - noise**2, 0.0))[:, None, :]
        factor = factor[:, :, :n_components]
        normal = rng.standard_normal((n_samples, factor.shape[2]))
        rows = np.empty((n_samples, self.means.shape[1]))
        for k in range(len(self.weights)):
            rows[parts == k] = self.means[k] + normal[parts == k] @ factor[k].T
        return rows


def fit_local_mixture(rows, held_out, noise):
    """Fit a mixture of probabilistic PCAs, with the number of parts chosen on held-out rows.

    The smallest number is chosen whose mean log-density of the held-out rows is within one standard
    error of the best.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Rows with noise added, D up to 64.
    held_out : ndarray of shape (n_held_out, D)
        Rows that were set aside, with the same noise added.
    noise : float
        Standard deviation of that noise.

    Returns
    -------
    mixture : LocalMixture or None
        None where there are too many columns or too few rows.
    score : float
        Mean log-density of the held-out rows.
    """
    mixtures, scores = fit_local_mixtures(rows, held_out, noise)
    if not mixtures:
        return None, -np.inf
    chosen = near_the_best(scores).index(True)
    return mixtures[chosen], float(scores[chosen].mean())


def fit_local_mixtures(rows, held_out, noise):
    """Fit mixtures of ascending numbers of parts; return them, and log-densities held out.

    The arguments are those of `fit_local_mixture`. Both lists are empty where there are too many
    columns or too few rows.
    """
    mixtures: list[LocalMixture] = []
    scores: list[np.ndarray] = []
    if rows.shape[1] > MAX_COMPLETE_FEATURES:
        return mixtures, scores
    rows = spread_rows(rows, _MAX_MIXTURE_ROWS)
    for mixture in fit_mixtures(rows, _N_PARTS, noise):
        weights = mixture.weights / mixture.weights.sum()
        mixtures.append(LocalMixture(weights, mixture.means, mixture.axes, mixture.scales**2))
        scores.append(logsumexp(mixture.log_joint(held_out), axis=1))
        # After two numbers in a row that are clearly worse, larger ones are taken to be worse too.
        if not any(near_the_best(scores)[-2:]):
            break
    return mixtures, scores


def near_the_best(scores, n_errors=1.0):
    """Tell which scores, each (n,), are within some standard errors of the best mean."""
    best = max(scores, key=np.mean)
    errors = [n_errors * (best - s).std() / np.sqrt(len(best)) for s in scores]
    return [bool((best - s).mean() <= error) for s, error in zip(scores, errors, strict=True)]
