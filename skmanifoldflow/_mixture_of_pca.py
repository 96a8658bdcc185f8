"""Mixtures of probabilistic PCAs (Tipping & Bishop, 1999).

A chart atlas starts at one, and one stands beside the flow where a dimension is read.
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from ._linear import supported_components

__all__ = [
    "MAX_COMPLETE_FEATURES",
    "MixtureOfPCA",
    "best_number_of_charts",
    "fit_mixture",
    "fit_mixtures",
    "n_axes",
    "partition",
    "spread_rows",
]

# Steps of expectation maximisation: enough for a start, which the training of a flow refines.
_MAX_EM_STEPS = 20
# Beyond this many columns a step costs too much, and charts keep some of their axes only.
MAX_COMPLETE_FEATURES = 64
_MAX_AXES = 16
# Monomials of rows that are in memory at a time.
_MAX_MONOMIALS = 2**18
# Numbers of charts whose mixtures are compared, and largest number of rows for the comparison.
_N_CHARTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 100)
_MAX_COMPARED_ROWS = 10_000


class MixtureOfPCA(NamedTuple):
    """K normal distributions with principal axes of their own.

    Weights (K,), means (K, D), axes (K, D, q), standard deviations along the axes (K, q) and in
    all other directions (K, 1). With q = D there are no other directions.
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

    k-means starts at given means, or, with "k-means++", at rows that are far from each other.
    """
    # At the top of the module this import would take half of the time of the package's.
    from sklearn.cluster import KMeans

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
        Number of cells K; an empty one gets the distribution of all rows and little weight.
    noise : float
        Least standard deviation.

    Returns
    -------
    mixture : MixtureOfPCA
        Axes by descending variance. The sign of an axis makes the third moment of the chart along
        it positive, so that bent charts all bend to the same side.
    shares : ndarray of shape (n, K)
        p(k|x).
    """
    centre = rows.mean(0, dtype=np.float64)
    centred = rows - centre
    spread = centred.T @ centred / len(rows)
    # Wide charts one by one: their covariances together may not fit into memory.
    parts = []
    for k in range(n_charts):
        own = centred[cells == k]
        sums, products = own.sum(0)[None], (own.T @ own)[None]
        parts.append(_maximise(np.array([len(own)]), sums, products, spread, noise))
    mixture = MixtureOfPCA(*map(np.concatenate, zip(*parts, strict=True)))
    shares = np.eye(n_charts)[cells]
    if rows.shape[1] <= MAX_COMPLETE_FEATURES and n_charts > 1:
        for _ in range(_MAX_EM_STEPS):
            shares, (counts, sums, products) = _expect(mixture, centred)
            mixture = _maximise(counts, sums, products, spread, noise)
    mixture = mixture._replace(
        weights=mixture.weights / mixture.weights.sum(),
        means=mixture.means + centre,
        axes=mixture.axes * _signs(centred, mixture, shares)[:, None, :],
    )
    return mixture, shares


def _expect(mixture, rows):
    """Return p(k|x), shape (n, K), and the moments with these weights: sums of 1, x and x x'.

    The axes are complete. A log-density is then linear in the monomials of the rows up to the
    second degree, and the moments are weighted sums of these monomials.
    """
    n_charts, n_features = mixture.means.shape
    first, second = np.triu_indices(n_features)
    whitening = mixture.axes / mixture.scales[:, None, :]
    precisions = whitening @ whitening.transpose(0, 2, 1)
    slopes = (precisions @ mixture.means[:, :, None])[:, :, 0]
    constants = np.log(mixture.weights) - np.log(mixture.scales).sum(1)
    constants -= 0.5 * (slopes * mixture.means).sum(1)
    halves = np.where(first == second, -0.5, -1.0)
    coefficients = np.column_stack([halves * precisions[:, first, second], slopes, constants])
    n_monomials = coefficients.shape[1]
    sums, shares = np.zeros(coefficients.shape), []
    n_rows = min(len(rows), max(1, _MAX_MONOMIALS // n_monomials))
    table = np.ones((n_monomials, n_rows))
    for start in range(0, len(rows), n_rows):
        x = np.ascontiguousarray(rows[start : start + n_rows].T)
        monomials = table[:, : x.shape[1]]
        for j, begin in enumerate(np.flatnonzero(first == second)):
            np.multiply(x[j], x[j:], out=monomials[begin : begin + n_features - j])
        monomials[len(first) : -1] = x
        share = coefficients @ monomials
        share -= share.max(0)
        np.exp(share, out=share)
        share /= share.sum(0)
        sums += share @ monomials.T
        shares.append(share)
    products = np.empty((n_charts, n_features, n_features))
    products[:, first, second] = products[:, second, first] = sums[:, : len(first)]
    return np.concatenate(shares, axis=1).T, (sums[:, -1], sums[:, len(first) : -1], products)


def _maximise(counts, sums, products, spread, noise):
    """Return the mixture, its weights in rows, that is best for given moments of the charts.

    The moments are weighted sums of ones (K,), of rows (K, D) whose mean over all charts is 0, and
    of products x x' (K, D, D). `spread` is the covariance of all rows.
    """
    # Each mean takes half a row at the mean of all rows, and the covariance of a chart with less
    # than one row takes half a row with the covariance of all rows. So no chart is degenerate, and
    # a chart without rows has the distribution of all rows.
    means = sums / (counts[:, None] + 0.5)
    n = counts[:, None, None]
    products = products - (n + 1) * means[:, :, None] * means[:, None, :]
    is_empty = n < 1
    covariances = (products + 0.5 * spread * is_empty) / np.where(is_empty, n + 0.5, n)
    return MixtureOfPCA(counts + 0.5, means, *_principal(covariances, counts, noise))


def _principal(covariances, counts, noise):
    """Return the axes that the rows support, and standard deviations along them and elsewhere."""
    eigenvalues, axes = np.linalg.eigh(covariances)
    eigenvalues, axes = np.maximum(eigenvalues[:, ::-1], noise**2), axes[:, :, ::-1]
    n_features = eigenvalues.shape[1]
    n_kept = n_axes(n_features)
    n_free = np.minimum(supported_components(eigenvalues, counts), min(n_kept, n_features - 1))
    is_rest = np.arange(n_features) >= n_free[:, None]
    rest = (eigenvalues * is_rest).sum(1, keepdims=True) / is_rest.sum(1, keepdims=True)
    eigenvalues = np.where(is_rest, rest, eigenvalues)
    # A copy does not keep the other axes in memory.
    return axes[:, :, :n_kept].copy(), np.sqrt(eigenvalues[:, :n_kept]), np.sqrt(rest)


def _signs(rows, mixture, shares):
    """Return the signs (K, q) of the third moments of the charts along their axes."""
    moments = []
    for share, mean, axes in zip(shares.T, mixture.means, mixture.axes, strict=True):
        along = (rows - mean) @ axes
        moments.append(share @ (along * along * along))
    return np.where(np.stack(moments) < 0, -1.0, 1.0)


def fit_mixtures(rows, numbers, noise):
    """Yield mixtures of ascending numbers of charts, as many as the rows can support.

    Each fit starts at a partition by k-means. K charts need at least 2 K (D + 1) rows.
    """
    for n_charts in numbers:
        if n_charts * (rows.shape[1] + 1) > len(rows) / 2:
            return
        yield fit_mixture(rows, partition(rows, n_charts)[0], n_charts, noise)[0]


def best_number_of_charts(rows, noise):
    """Return the number of charts whose mixture has the best Bayesian information criterion."""
    rows = spread_rows(rows, _MAX_COMPARED_ROWS)
    n, n_features = rows.shape
    best, best_score = 1, -np.inf
    for mixture in fit_mixtures(rows, _N_CHARTS, noise):
        n_charts = len(mixture.weights)
        log_likelihood = logsumexp(mixture.log_joint(rows), axis=1).sum()
        n_free = (mixture.scales > mixture.rest * (1 + 1e-9)).sum(1)
        per_chart = n_features + n_free * n_features - n_free * (n_free - 1) / 2 + 1
        score = log_likelihood - 0.5 * (per_chart.sum() + n_charts - 1) * np.log(n)
        if score > best_score:
            best, best_score = n_charts, score
    return best
