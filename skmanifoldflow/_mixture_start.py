"""Mixtures of probabilistic PCAs, from which atlases start (Tipping & Bishop, 1999)."""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from ._linear_start import supported_components

__all__ = [
    "MAX_COMPLETE_FEATURES",
    "MixtureOfPCA",
    "best_number_of_charts",
    "fit_mixture",
    "n_axes",
    "partition",
    "spread_rows",
]

# Steps of expectation maximisation: the start needs no more, the flow goes on from there.
_MAX_EM_STEPS = 20
# Beyond this many columns a step costs too much, and charts keep some of their axes only.
MAX_COMPLETE_FEATURES = 64
_MAX_AXES = 16
# Numbers of charts whose mixtures are compared, on so many rows.
_N_CHARTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 100)
_MAX_COMPARED_ROWS = 10_000


class MixtureOfPCA(NamedTuple):
    """K normal laws with principal axes of their own.

    Weights (K,), means (K, D), axes (K, D, q), standard deviations along these (K, q) and in all
    other directions (K, 1); the axes are complete where q = D.
    """

    weights: np.ndarray
    means: np.ndarray
    axes: np.ndarray
    scales: np.ndarray
    rest: np.ndarray

    def log_joint(self, rows):
        """Return log p_k p(x|k), shape (n, K)."""
        n_features, n_axes = self.axes.shape[1:]
        columns = []
        for weight, mean, axes, scale, rest in zip(*self, strict=True):
            centred = rows - mean
            along = centred @ axes
            square = np.square(along / scale).sum(1)
            log_det = np.log(scale).sum() + (n_features - n_axes) * np.log(rest[0])
            if n_axes < n_features:
                across = np.square(centred).sum(1) - np.square(along).sum(1)
                square = square + np.maximum(across, 0.0) / rest[0] ** 2
            log_normal = -0.5 * (square + n_features * np.log(2 * np.pi)) - log_det
            with np.errstate(divide="ignore"):
                columns.append(np.log(weight) + log_normal)
        return np.stack(columns, axis=1)


def n_axes(n_features):
    """Return the number of axes that a chart keeps."""
    return n_features if n_features <= MAX_COMPLETE_FEATURES else _MAX_AXES


def spread_rows(rows, n):
    """Return at most n rows, from all parts of a table that may be in some order."""
    return rows[:: max(1, -(-len(rows) // n))]


def partition(rows, n_charts, seed=0, init="k-means++"):
    """Return the cell of each row in a partition by k-means, and the means of the cells.

    It starts at given means, or at rows drawn far from each other.
    """
    with warnings.catch_warnings():
        # Repeated rows may leave fewer cells than were asked for.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(n_charts, init=init, n_init=1, random_state=seed).fit(rows)
    return model.labels_, model.cluster_centers_


def fit_mixture(rows, cells, n_charts, noise):
    """Fit a mixture of probabilistic PCAs by expectation maximisation from a partition.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Standardised rows.
    cells : ndarray of int of shape (n,)
        Cell of each row.
    n_charts : int
        Number of cells K; an empty one gets the law of all rows and little weight.
    noise : float
        Least standard deviation.

    Returns
    -------
    mixture : MixtureOfPCA
        Axes by descending variance, each with the sign that makes the third moment of its chart
        positive: bent charts then all bend to the same side.
    shares : ndarray of shape (n, K)
        p(k|x).
    """
    shares = np.zeros((len(rows), n_charts))
    shares[np.arange(len(rows)), cells] = 1.0
    mixture = _maximise(rows, shares, noise)
    is_small = rows.shape[1] <= MAX_COMPLETE_FEATURES
    for _ in range(_MAX_EM_STEPS if is_small and n_charts > 1 else 0):
        shares = _shares(mixture, rows)
        mixture = _maximise(rows, shares, noise)
    mixture = mixture._replace(axes=mixture.axes * _signs(rows, mixture, shares)[:, None, :])
    return mixture, shares


def _shares(mixture, rows):
    """Return p(k|x), shape (n, K)."""
    log_joint = mixture.log_joint(rows)
    return np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))


def _maximise(rows, shares, noise):
    """Return the mixture that is best for given probabilities of charts."""
    n_features = rows.shape[1]
    parts = []
    spread = np.atleast_2d(np.cov(rows.T, bias=True))
    for share in shares.T:
        n_rows = share.sum()
        # Half a row of the whole data keeps a chart with few rows from becoming degenerate; one
        # with none has the law of all rows.
        mean = (share @ rows + 0.5 * rows.mean(0)) / (n_rows + 0.5)
        mine = share > 1e-6
        centred = (rows[mine] - mean) * np.sqrt(share[mine])[:, None]
        covariance = centred.T @ centred / max(n_rows, 1.0)
        if n_rows < 1:
            covariance = (centred.T @ centred + 0.5 * spread) / (n_rows + 0.5)
        parts.append((mean, *_principal(covariance, n_rows, n_axes(n_features), noise)))
    means, axes, scales, rest = (np.stack(part) for part in zip(*parts, strict=True))
    weights = (shares.sum(0) + 0.5) / (len(rows) + 0.5 * shares.shape[1])
    return MixtureOfPCA(weights, means, axes, scales, rest)


def _principal(covariance, n_rows, n_kept, noise):
    """Return axes, their standard deviations and that of the rest, as far as rows support them."""
    eigenvalues, axes = np.linalg.eigh(covariance)
    eigenvalues, axes = np.maximum(eigenvalues[::-1], noise**2), axes[:, ::-1]
    n_features = len(eigenvalues)
    n_free = min(supported_components(eigenvalues, n_rows), n_kept)
    rest = eigenvalues[n_free:].mean() if n_free < n_features else eigenvalues[-1]
    eigenvalues[n_free:] = rest
    return axes[:, :n_kept], np.sqrt(eigenvalues[:n_kept]), np.sqrt([rest])


def _signs(rows, mixture, shares):
    """Return the signs (K, q) of the third moments of the charts along their axes."""
    moments = [
        share @ ((rows - mean) @ axes / scale) ** 3
        for share, mean, axes, scale in zip(
            shares.T, mixture.means, mixture.axes, mixture.scales, strict=True
        )
    ]
    return np.where(np.stack(moments) < 0, -1.0, 1.0)


def best_number_of_charts(rows, noise):
    """Return the number of charts whose mixture has the best Bayesian information criterion."""
    rows = spread_rows(rows, _MAX_COMPARED_ROWS)
    n, n_features = rows.shape
    best, best_score = 1, -np.inf
    for n_charts in _N_CHARTS:
        if n_charts * (n_features + 1) > n / 2:
            break
        mixture, _ = fit_mixture(rows, partition(rows, n_charts)[0], n_charts, noise)
        log_likelihood = logsumexp(mixture.log_joint(rows), axis=1).sum()
        n_free = (mixture.scales > mixture.rest * (1 + 1e-9)).sum(1)
        per_chart = n_features + n_free * n_features - n_free * (n_free - 1) / 2 + 1
        score = log_likelihood - 0.5 * (per_chart.sum() + n_charts - 1) * np.log(n)
        if score > best_score:
            best, best_score = n_charts, score
    return best
