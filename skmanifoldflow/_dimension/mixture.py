"""A mixture of normal distributions, each part of which shows the dimension in its place."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from .._mixture_of_pca import MAX_COMPLETE_FEATURES, MixtureOfPCA, fit_mixtures, spread_rows

__all__ = ["LocalMixture", "fit_local_mixture", "fit_local_mixtures", "near_the_best"]

# Numbers of parts that are compared, and largest number of rows that they are fitted to.
_N_PARTS = (1, 2, 4, 8, 16, 32)
_MAX_MIXTURE_ROWS = 2500
# Monomials that the bends of a part are fitted with, at most, and in the number of its rows; share
# of a part in a row from which on the row counts; and penalty of the coefficients in the number of
# rows, for columns of two values, whose squares are all but constant.
_MAX_MONOMIALS, _MONOMIALS_PER_ROW = 300, 0.5
_LEAST_SHARE = 1e-3
_RIDGE = 0.01


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

    def bends(self, rows) -> "list[_Bends]":
        """Return of each part how its axes depend on those before, given rows."""
        log_joint = self.log_joint(rows)
        shares = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
        bends = []
        for k, share in enumerate(shares.T):
            kept = share >= min(_LEAST_SHARE, share.max())
            along = (rows[kept] - self.means[k]) @ self.axes[k] / np.sqrt(self.variances[k])
            bends.append(_Bends.fit(along, share[kept]))
        return bends

    def unbent_variances(self, bends):
        """Return the variances (K, D) along the axes that those before do not explain."""
        n_axes = range(self.variances.shape[1])
        return self.variances * [[one.left(d)[0] for d in n_axes] for one in bends]

    def sample(self, n_samples, rng, noise, n_components, bends, *, with_rest=False):
        """Return rows drawn without noise of a standard deviation, along the leading axes of parts.

        The other axes are the quadratic functions of these that `bends` says; what these leave of
        the variances is drawn too if `with_rest`.
        """
        d = n_components
        parts = rng.choice(len(self.weights), size=n_samples, p=self.weights)
        normal = rng.standard_normal((n_samples, self.means.shape[1] if with_rest else d))
        rows = np.empty((n_samples, self.means.shape[1]))
        for k in range(len(self.weights)):
            u = normal[parts == k]
            scales = np.sqrt(np.maximum(self.variances[k] - noise**2, 0.0))
            rest = bends[k].predict(u[:, :d])
            if with_rest:
                rest += np.sqrt(bends[k].left(d)) * u[:, d:]
            along = np.concatenate([u[:, :d], rest], axis=1) * scales
            rows[parts == k] = self.means[k] + along @ self.axes[k].T
        return rows


class _Bends(NamedTuple):
    """Axes of a part as quadratic functions of the axes before them, by least squares.

    The monomials of the first d axes are the first (d + 1)(d + 2) / 2, so that one QR decomposition
    serves all d. `triangle` (p, p) is its R, `targets` (p, D) are the axes in terms of its Q,
    `squares` (D,) their sums of squares, and `n_rows` the number of rows, by their shares.
    """

    triangle: np.ndarray
    targets: np.ndarray
    squares: np.ndarray
    n_rows: float

    @classmethod
    def fit(cls, along, share):
        """Fit to rows along the axes (n, D), of variance 1, that count by their share (n,)."""
        n_rows = share.sum()
        most = min(_MAX_MONOMIALS, _MONOMIALS_PER_ROW * n_rows)
        monomials = _monomials(along[:, :-1], most)
        size = monomials.shape[1]
        both = np.concatenate([monomials, along], axis=1) * np.sqrt(share)[:, None]
        ridge = np.sqrt(_RIDGE * n_rows) * np.eye(size, both.shape[1])
        triangle = np.asarray(np.linalg.qr(np.concatenate([both, ridge]), mode="r"))[:size]
        return cls(triangle[:, :size], triangle[:, size:], share @ np.square(along), n_rows)

    def left(self, d):
        """Return the shares (D - d,) of the variances that the first d axes leave of the others.

        They are adjusted for the number of monomials, and 1 where what is explained may be chance.
        """
        size = min(_n_monomials(d), len(self.triangle))
        left = (self.squares[d:] - self._explained(d)) / max(self.n_rows - size, 1.0)
        by_chance = 2 * np.sqrt(2 * size) / max(self.n_rows, 1.0)
        return np.where(left < 1 - by_chance, np.maximum(left, 0.0), 1.0)

    def predict(self, u):
        """Return the other axes (n, D - d) where the leading ones, of variance 1, are u (n, d).

        What is explained by chance is left out, axis by axis.
        """
        monomials = _monomials(u, len(self.triangle))
        d, size = u.shape[1], monomials.shape[1]
        share = np.maximum(self._explained(d) / self.n_rows, np.finfo(float).tiny)
        targets = self.targets[:size, d:] * np.minimum((1 - self.left(d)) / share, 1.0)
        return monomials @ solve_triangular(self.triangle[:size, :size], targets)

    def _explained(self, d):
        """Return the sums of squares (D - d,) of the other axes that the first d axes explain."""
        return np.square(self.targets[: _n_monomials(d), d:]).sum(axis=0)


def _n_monomials(d):
    """Return the number of monomials of degree two or less in d variables."""
    return (d + 1) * (d + 2) // 2


def _monomials(u, most):
    """Return the monomials of degree two or less in the columns (n, d), column by column.

    They are those of the leading columns that have no more than `most`.
    """
    columns = [np.ones((len(u), 1))]
    for j in range(u.shape[1]):
        if _n_monomials(j + 1) > most:
            break
        columns += [u[:, j : j + 1], u[:, j : j + 1] * u[:, : j + 1]]
    return np.concatenate(columns, axis=1)


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
