"""A transformer of columns to nearly normal ones that has no ends."""

import numpy as np
from scipy.stats import norm
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["NormalScores"]

# Rows of a piece of the map, and the largest number of pieces.
_ROWS_PER_PIECE, _MAX_PIECES = 32, 64


class NormalScores(TransformerMixin, BaseEstimator):
    """Map each column through quantiles of the rows to those of the normal distribution.

    The map is linear between the quantiles, of which there are so many that 32 rows lie between
    two of them, at most 64 pieces, and beyond the last ones it goes on with the same slope. Unlike
    `QuantileTransformer` it has a density beyond the training rows.

    Attributes
    ----------
    knots_ : list of ndarray of shape (2, n_knots)
        Values of each column and what they are mapped to, both ascending.
    """

    # For `jacobians.reaches_all`.
    reaches_all = True

    def fit(self, X, y=None):
        """Read the quantiles of rows (n, D); y is ignored."""
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        n = len(X)
        n_pieces = max(2, min(_MAX_PIECES, n // _ROWS_PER_PIECE))
        levels = np.linspace(0, 1, n_pieces + 1)
        # The least and the largest row are where those of n normal ones are.
        scores = norm.ppf(np.clip(levels, 0.5 / n, 1 - 0.5 / n))
        self.knots_ = [_distinct(np.quantile(column, levels), scores) for column in X.T]
        return self

    def transform(self, X):
        """Return the scores (n, D) of rows."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.column_stack([_map(x, *k) for x, k in zip(X.T, self.knots_, strict=True)])

    def inverse_transform(self, X):
        """Return the rows (n, D) of scores."""
        check_is_fitted(self)
        pairs = zip(np.asarray(X, dtype=np.float64).T, self.knots_, strict=True)
        return np.column_stack([_map(z, *knots[::-1]) for z, knots in pairs])

    def log_abs_det_jacobian(self, X):
        """Return the logarithm (n,) of the product of the slopes at each row."""
        log_det = np.zeros(len(X))
        for x, (before, after) in zip(np.asarray(X).T, self.knots_, strict=True):
            piece = np.clip(np.searchsorted(before, x, side="right") - 1, 0, len(before) - 2)
            log_det += np.log(np.diff(after) / np.diff(before))[piece]
        return log_det


def _distinct(values, scores):
    """Return the knots (2, k) without those that are as good as equal, at least two of them."""
    spread = values[-1] - values[0]
    if not spread > 0:
        return np.array([[values[0] - 1, values[0] + 1], [-1.0, 1.0]])
    least, kept = 1e-6 * spread, [0]
    for k in range(1, len(values)):
        if values[k] - values[kept[-1]] > least:
            kept.append(k)
    # Of equal values the last one is told by the first; the ends stay.
    if kept[-1] != len(values) - 1:
        kept[-1] = len(values) - 1
    return np.array([values[kept], scores[kept]])


def _map(x, before, after):
    """Return values on the line through the knots on either side of them."""
    piece = np.clip(np.searchsorted(before, x, side="right") - 1, 0, len(before) - 2)
    slopes = np.diff(after) / np.diff(before)
    return after[piece] + slopes[piece] * (x - before[piece])
