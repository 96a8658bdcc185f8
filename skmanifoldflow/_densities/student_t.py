"""A multivariate t distribution: the background of rows that no other density expects."""

import numpy as np
from scipy.special import gammaln
from sklearn.covariance import ledoit_wolf

from .._checks import check_rows
from .base import BaseDensity

__all__ = ["StudentT"]

# Degrees of freedom: the least whole number for which there is a covariance.
_NU = 3.0
_N_STEPS = 50


class StudentT(BaseDensity):
    r"""Multivariate t distribution with 3 degrees of freedom and a shrunk covariance.

    .. math:: p(x) \propto |S|^{-1/2} (1 + (x - m)^T S^{-1} (x - m) / \nu)^{-(\nu + D) / 2}

    with m the mean of the rows and S their covariance, shrunk after Ledoit & Wolf (2004), times the
    factor of the highest likelihood. Its log-density falls with the logarithm of the distance.

    Attributes
    ----------
    location_ : ndarray of shape (n_features,)
        The mean m.
    scale_ : ndarray of shape (n_features, n_features)
        The matrix S.
    """

    def fit(self, X, y=None):
        """Fit the distribution to rows (n, D); y is ignored."""
        X = check_rows(self, X, ensure_min_samples=2).astype(np.float64)
        n_features = X.shape[1]
        self.location_ = X.mean(axis=0)
        # Columns may have any units; one that is constant has its own as its scale.
        deviations = X.std(axis=0)
        deviations[deviations <= 1e-12 * np.abs(self.location_)] = 1.0
        covariance = ledoit_wolf((X - self.location_) / deviations)[0]
        covariance[np.diag_indices(n_features)] += 1e-6
        self.scale_ = covariance * np.outer(deviations, deviations)
        distances, factor = self._squared_distances(X), 1.0
        for _ in range(_N_STEPS):
            # The EM step of the factor alone.
            weights = (_NU + n_features) / (_NU + distances / factor)
            factor = max(float((weights * distances).mean()) / n_features, 1e-9)
        self.scale_ = factor * self.scale_
        return self

    def _squared_distances(self, X):
        self._root = np.linalg.cholesky(self.scale_)
        return np.square(np.linalg.solve(self._root, (X - self.location_).T)).sum(axis=0)

    def score_samples(self, X):
        """Return the log-density (n,) of rows, in nats in the units of X."""
        X = self._check_rows(X)
        n_features = X.shape[1]
        distances = self._squared_distances(X.astype(np.float64))
        constant = gammaln((_NU + n_features) / 2) - gammaln(_NU / 2)
        constant -= n_features / 2 * np.log(_NU * np.pi) + np.log(np.diag(self._root)).sum()
        return (constant - (_NU + n_features) / 2 * np.log1p(distances / _NU)).astype(X.dtype)

    def sample(self, n_samples=1, *, random_state=None):
        """Draw rows (n_samples, D)."""
        rng = self._check_sample(n_samples, random_state)
        z = rng.standard_normal((n_samples, self.n_features_in_))
        scale = np.sqrt(_NU / rng.chisquare(_NU, size=(n_samples, 1)))
        return self.location_ + scale * (z @ np.linalg.cholesky(self.scale_).T)
