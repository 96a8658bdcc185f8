"""A Gaussian mixture whose size, shape and regularisation are chosen on rows left out."""

import time
import warnings

import numpy as np
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from .._checks import check_rows
from .base import BaseDensity, draw

__all__ = ["ValidatedMixture"]

_SIZES = (1, 2, 4, 8, 16, 32)
# Variances added to standardised columns; the first is that of the search over sizes.
_REGULARIZATIONS = (1e-2, 1e-4, 5e-2)
# Rows that the choices are made on, and how many of them are left out.
_MAX_ROWS, _SHARE_LEFT_OUT = 5000, 0.2


class ValidatedMixture(BaseDensity):
    """Gaussian mixture with the size, the shape and the regularisation of the best held-out score.

    Sizes are doubled, with full and with diagonal covariances, until the score has fallen twice;
    then other regularisations are tried. Columns are standardised.

    Parameters
    ----------
    max_time : float or None, default=None
        Seconds after half of which no more are tried; None tries all.
    random_state : int, RandomState instance or None, default=None
        Source of the rows that are left out, and of the starts.

    Attributes
    ----------
    mixture_ : GaussianMixture
        The mixture of standardised rows, fitted to all of them.
    """

    def __init__(self, max_time=None, random_state=None):
        self.max_time = max_time
        self.random_state = random_state

    def fit(self, X, y=None):
        """Choose and fit the mixture of rows (n, D); y is ignored."""
        # The best one is fitted to all rows after the search.
        end = np.inf if self.max_time is None else time.monotonic() + self.max_time / 2
        X = check_rows(self, X, ensure_min_samples=2)
        self._scaler = StandardScaler().fit(X)
        rng = check_random_state(self.random_state)
        Z = self._scaler.transform(X).astype(np.float64)
        picked = Z[rng.permutation(len(Z))[:_MAX_ROWS]]
        n_left_out = max(1, round(_SHARE_LEFT_OUT * len(picked)))
        left_out, rest = picked[:n_left_out], picked[n_left_out:]
        seed = rng.randint(2**31)

        def fitted(rows, size, shape, regularization):
            mixture = GaussianMixture(
                size, covariance_type=shape, reg_covar=regularization, random_state=seed
            )
            # With dispatch to other arrays a mixture cannot start from clusters.
            with warnings.catch_warnings(), config_context(array_api_dispatch=False):
                warnings.simplefilter("ignore", ConvergenceWarning)
                return mixture.fit(rows)

        scores: dict[tuple, float] = {}
        if len(rest) >= 2:
            for shape in ("full", "diag"):
                n_fallen, previous = 0, -np.inf
                for size in _SIZES:
                    is_late = bool(scores) and time.monotonic() > end
                    if n_fallen == 2 or size > len(rest) // 2 or is_late:
                        break
                    choice = size, shape, _REGULARIZATIONS[0]
                    scores[choice] = fitted(rest, *choice).score(left_out)
                    n_fallen = 0 if scores[choice] > previous else n_fallen + 1
                    previous = max(previous, scores[choice])
            size, shape, _ = max(scores, key=scores.__getitem__)
            for regularization in _REGULARIZATIONS[1:]:
                if time.monotonic() > end:
                    break
                choice = size, shape, regularization
                scores[choice] = fitted(rest, *choice).score(left_out)
        best = max(scores, key=scores.__getitem__) if scores else (1, "diag", _REGULARIZATIONS[0])
        self.mixture_ = fitted(Z, *best)
        return self

    def score_samples(self, X):
        """Return the log-density (n,) of rows, in nats in the units of X."""
        X = self._check_rows(X)
        log_density = self.mixture_.score_samples(self._scaler.transform(X))
        return (log_density - np.log(self._scaler.scale_).sum()).astype(X.dtype)

    def sample(self, n_samples=1, *, random_state=None):
        """Draw rows (n_samples, D)."""
        rng = self._check_sample(n_samples, random_state)
        return self._scaler.inverse_transform(draw(self.mixture_, n_samples, rng))
