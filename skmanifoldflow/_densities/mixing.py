"""Weights of a mixture of given densities."""

import numpy as np
from scipy.special import logsumexp

__all__ = ["log_mixture", "mixing_weights"]

_N_STEPS = 2000
# Change of the weights that ends the steps.
_TOLERANCE = 1e-7


def mixing_weights(log_densities, total_prior=1.0):
    r"""Return the weights (m,) of the mixture under which rows have the highest density.

    By EM: the responsibilities :math:`r_{im} \propto w_m p_m(x_i)`, and from them
    :math:`w_m = (\sum_i r_{im} + a / M) / (n + a)`, the mode under a Dirichlet distribution
    that counts as a rows which say nothing. It keeps all weights positive.

    Parameters
    ----------
    log_densities : ndarray of shape (n, m)
        Log-densities of rows under each member, on which no member was trained.
    total_prior : float, default=1.0
        Number a of rows that the prior counts for.
    """
    n_members = log_densities.shape[1]
    # Rows without density under any member tell nothing.
    known = log_densities[(log_densities > -np.inf).any(axis=1)]
    weights = np.full(n_members, 1 / n_members)
    for _ in range(_N_STEPS):
        joint = known + np.log(weights)
        shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True)).sum(axis=0)
        new = (shares + total_prior / n_members) / (len(known) + total_prior)
        change, weights = np.abs(new - weights).max(), new
        if change < _TOLERANCE:
            break
    return weights


def log_mixture(log_densities, weights):
    """Return the log-density (n,) of the mixture."""
    return logsumexp(log_densities + np.log(weights), axis=1)
