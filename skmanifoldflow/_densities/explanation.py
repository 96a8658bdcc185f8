"""Which columns make a row strange: what the log-density gains where one of them is drawn anew."""

import numpy as np
from scipy.special import logsumexp

from .base import without_crowding

__all__ = ["column_candidates", "column_contributions"]

# Values of a column among which it is drawn anew: quantiles of the training rows, evenly spaced
# values for its tails, and values around the best of these, since the others may leave little room.
_N_QUANTILES, _N_EVEN, _N_FINE = 32, 16, 16
# Rows that are scored at once.
_N_AT_ONCE = 20_000


def column_candidates(X):
    """Return values (m, D) of the columns of training rows, ascending."""
    quantiles = np.quantile(X, np.linspace(0, 1, _N_QUANTILES), axis=0, method="nearest")
    even = np.linspace(X.min(axis=0), X.max(axis=0), _N_EVEN + 2)[1:-1]
    return np.sort(np.concatenate([quantiles, even]), axis=0)


def column_contributions(score_samples, X, candidates, crowding=None):
    r"""Return the expected gain in score (n, D) if a column is drawn anew given the others.

    For column j it is :math:`E[s(x_j', x_{-j}) \mid x_{-j}] - s(x)`, where the score s is the
    log-density less what values gain by crowding, if that is given. The conditional density of
    :math:`x_j'` is found by quadrature over the candidates, finer values around the best one, and
    the value that the row has.

    Parameters
    ----------
    score_samples : callable
        Log-densities of rows.
    X : ndarray of shape (n, D)
        Rows.
    candidates : ndarray of shape (m, D)
        Values of each column, ascending.
    crowding : callable or None
        Nats of rows that are taken from their log-densities; None takes none.
    """

    def scored(rows):
        """Return the log-densities of rows, and their scores."""
        log_density = score_samples(rows)
        if crowding is None:
            return np.stack([log_density, log_density])
        return np.stack([log_density, without_crowding(log_density, crowding(rows))])

    own = scored(X)
    contributions = np.empty(X.shape)
    n_at_once = max(1, _N_AT_ONCE // len(candidates))
    for j in range(X.shape[1]):
        for start in range(0, len(X), n_at_once):
            rows = slice(start, start + n_at_once)
            coarse = np.broadcast_to(candidates[:, j], (len(X[rows]), len(candidates)))
            of_coarse = _with_values(scored, X[rows], j, coarse)
            fine = _around_best(coarse, of_coarse[1])
            of_fine = _with_values(scored, X[rows], j, fine)
            values = np.hstack([coarse, fine, X[rows, j, None]])
            all_scores = np.concatenate([of_coarse, of_fine, own[:, rows, None]], axis=2)
            with np.errstate(invalid="ignore"):
                contributions[rows, j] = _expected(values, *all_scores) - own[1, rows]
    # Where no value of one column alone gives a density nothing is gained.
    return np.where(np.isnan(contributions), 0.0, contributions)


def _with_values(scored, X, j, values):
    """Return what is scored (2, n, m) of rows that have other values (n, m) in column j."""
    rows = np.repeat(X, values.shape[1], axis=0)
    rows[:, j] = values.ravel()
    return scored(rows).reshape(2, *values.shape)


def _around_best(values, scores):
    """Return values (n, k) between the neighbours of the best one of each row."""
    best, rows = scores.argmax(axis=1), np.arange(len(values))
    low = values[rows, np.maximum(best - 1, 0)]
    high = values[rows, np.minimum(best + 1, values.shape[1] - 1)]
    shares = np.linspace(0, 1, _N_FINE + 2)[1:-1]
    return low[:, None] + (high - low)[:, None] * shares


def _expected(values, log_density, scores):
    """Return the means (n,) of scores (n, m) under densities at values (n, m)."""
    order = values.argsort(axis=1)
    values, log_density, scores = (
        np.take_along_axis(a, order, axis=1) for a in (values, log_density, scores)
    )
    # Each value stands for half of the way to its neighbours.
    widths = np.zeros(values.shape)
    widths[:, :-1] += np.diff(values, axis=1) / 2
    widths[:, 1:] += np.diff(values, axis=1) / 2
    # A constant column has no other value to be drawn.
    widths[widths.sum(axis=1) == 0] = 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = log_density + np.log(widths)
        total = logsumexp(weights, axis=1, keepdims=True)
        weights = np.exp(weights - total)
        means = np.where(weights > 0, weights * scores, 0.0).sum(axis=1)
    return np.where(total[:, 0] > -np.inf, means, -np.inf)
