"""Rows in units in which their dimension is read, and the noise that their columns share."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from .._linear import principal_axes, supported_components
from .neighbors import nearest_neighbors, neighbor_distances
from .spectra import LEAST_GAP

__all__ = ["LEAST_NOISE", "Prepared", "prepare_rows"]

# Noise below this share of the spread of the rows is left out of account.
LEAST_NOISE = 0.02
# Quantiles to which values are clipped before a column is measured.
_CLIPPED = 0.01, 0.99
# Distance of the 5 % and the 95 % quantile from the median, the larger in the smaller, of columns
# that are skewed; distance of the outer hundredths, in that of the quarters, of those with long
# tails; and standard deviation in that of clipped values. Exponential columns have 3.6, 4.1, 1.1.
_SKEWED, _LONG_TAILED, _GROSS = 3.0, 8.0, 1.5
# Rows between the knots of the map to normal scores.
_ROWS_PER_KNOT = 32
# Share of its length that is left of a column that repeats others, and share of the largest
# variance along an axis that is rounding.
_REPEATED = 1e-7
_ROUNDING = 1e-10
# Noise of one size in all columns: variances along at least three axes that are equal up to
# sampling and this factor, a quarter of the others or less, and normal. Bends of a curved sheet
# can be so too, but are much the same in rows that are near each other.
_MIN_NOISE_AXES = 3
_FLAT = 1.2
_BELOW = 4.0
_SHARE_OF_AXES = 0.25
_EXCESS_KURTOSIS = 0.3
# Correlation, beyond five standard errors, of what counts as noise in a row with that in the row
# nearest in the hull: of noise it is 0.
_TOLD_BY_THE_PLACE = 0.1
# Lower edge in the upper one, by its root, from which on the least variances say nothing.
_NEARLY_SQUARE = 0.8
# Standard deviation, in that of noise, of columns that are not standardised to more.
_LEAST_SPREAD = 5.0
# Share of the hull that lies in as many columns from which on the others are columns of noise, and
# the nats per row by which the columns of the hull then have to depend on each other.
_WITHIN_COLUMNS = 0.98
_DEPENDENCE = 0.25
# Values of standardised columns count as this at most where their squares are compared.
_FAR = 3.0
# Rows per column from which on correlations of squares say something.
_ROWS_PER_SQUARE = 10


class Prepared(NamedTuple):
    """Rows (n, q) along the principal axes of their linear hull, with variances of mean 1.

    `noise` is the standard deviation of the noise that all columns share, in units of these rows,
    and `noise_in_data` in units of the data; 0 where none was found.
    """

    rows: np.ndarray
    noise: float
    noise_in_data: float


def prepare_rows(rows, scale):
    """Express rows in units that do not depend on those of their columns.

    Columns are standardised robustly, those that are constant or repeat others are left out, and so
    are the directions in which probabilistic PCA finds noise alone. Columns that are skewed or have
    long tails become normal ones. Where columns share noise of one size they share a unit too,
    which is kept.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Rows, float64.
    scale : bool
        Whether to standardise columns.

    Returns
    -------
    prepared : Prepared
        Without columns where all rows are equal.
    """
    # Squares of very large or very small values would leave the range of numbers.
    largest = max(float(np.abs(rows).max()), np.finfo(float).tiny)
    rows = rows / largest
    rows = rows - rows.mean(axis=0)
    rows = rows[:, np.ptp(rows, axis=0) > 1e-14]
    standardised = _standardised(rows)
    kept = ~_repeats(standardised)
    rows, standardised = rows[:, kept], standardised[:, kept]
    hull, found = _noise_hull(rows)
    n_axes, noise = None, found
    if hull is not None:
        n_axes = hull.shape[1]
        rows = (rows @ hull) @ hull.T
        if noise < LEAST_NOISE * np.sqrt(rows.var(axis=0).sum() / n_axes):
            # So little noise says that columns share a unit, but not that it is a good one.
            noise = 0.0
            rows = rows[:, rows.std(axis=0) > _ROUNDING * rows.std()]
            standardised = _standardised(rows, _LEAST_SPREAD * found)
    if scale and noise == 0.0:
        rows = standardised
        if hull is None:
            rows = _with_normal_scores(rows)
    rows, variances = _along_axes(rows, n_axes)
    unit = np.sqrt(variances.mean()) if len(variances) else 1.0
    return Prepared(rows / unit, float(noise / unit), float(noise * largest))


def _standardised(rows, least=0.0):
    """Return rows with columns of mean 0 and, but for extreme values, of variance 1.

    A standard deviation counts as `least` where it is less.
    """
    largest = np.maximum(np.abs(rows).max(axis=0, initial=0.0), np.finfo(float).tiny)
    rows = rows / largest
    low, high = np.quantile(rows, _CLIPPED, axis=0)
    clipped = np.clip(rows, low, high)
    # The bulk of a column of rare values may be constant.
    deviation = rows.std(axis=0)
    bulk = clipped.std(axis=0)
    deviation = np.where(bulk > 1e-3 * deviation, bulk, deviation)
    return (rows - clipped.mean(axis=0)) / np.maximum(deviation, least / largest)


def _with_normal_scores(rows):
    """Return rows with the columns mapped to normal ones that are skewed or have long tails."""
    rows = rows.copy()
    for j in np.flatnonzero(_is_far_from_normal(rows)):
        rows[:, j] = _normal_scores(rows[:, j])
    return rows


def _is_far_from_normal(rows):
    """Tell which standardised columns (D,) are skewed or have long tails."""
    quantiles = np.quantile(rows, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99], axis=0)
    low, below, lower, middle, upper, above, high = quantiles
    sides = np.sort([middle - below, above - middle], axis=0)
    is_skewed = sides[1] > _SKEWED * sides[0]
    return is_skewed | (high - low > _LONG_TAILED * (upper - lower)) | (rows.std(axis=0) > _GROSS)


def _normal_scores(column):
    """Return a column mapped to a nearly normal one, of variance 1.

    The map is linear between every 32nd value, and the second, fourth, ... at the ends, so that
    neighbours on a curve stay as they are.
    """
    n = len(column)
    values, counts = np.unique(column, return_counts=True)
    if len(values) < 2:
        return column
    ranks = np.cumsum(counts) - 0.5 * counts
    places = np.r_[1, 2, 4, 8, 16, np.arange(_ROWS_PER_KNOT, n / 2, _ROWS_PER_KNOT)]
    inner = np.searchsorted(ranks, np.r_[0, places, n - places]).clip(max=len(values) - 1)
    knots = np.union1d(inner, len(values) - 1)
    scores = np.interp(column, values[knots], ndtri(ranks[knots] / n))
    return (scores - scores.mean()) / scores.std()


def _repeats(rows):
    """Tell which columns (D,) are linear functions of the columns before them."""
    n, n_features = rows.shape
    if n <= n_features:
        return np.zeros(n_features, dtype=bool)
    triangle = np.asarray(np.linalg.qr(rows - rows.mean(axis=0), mode="r"))
    left = np.abs(np.diag(triangle))
    return left <= _REPEATED * np.sqrt(n)


def _along_axes(rows, n_axes):
    """Return rows along the axes of their hull, and the variances along these, descending.

    Without a number of axes it is that of probabilistic PCA, or all of them where what is left is
    not far below the axes of the hull.
    """
    mean, axes, variances = principal_axes(rows) if rows.shape[1] else (0.0, rows[:0], rows[0])
    is_rounding = variances <= _ROUNDING * variances.max(initial=0.0)
    n_varying = int((~is_rounding).sum())
    if n_axes is None:
        n_axes = n_varying
        if n_varying > 1:
            supported = int(supported_components(np.maximum(variances, 0.0), len(rows)))
            rest = variances[supported:].mean()
            is_noise = supported <= len(variances) - _MIN_NOISE_AXES
            if is_noise and variances[supported - 1] >= LEAST_GAP * rest:
                n_axes = min(supported, n_varying)
    n_axes = min(n_axes, n_varying)
    return (rows - mean) @ axes[:, :n_axes], variances[:n_axes]


def _noise_hull(rows):
    """Return an orthonormal basis (D, q) of what is above noise of one size, and its deviation.

    The basis is None where no such noise is found.
    """
    n, n_features = rows.shape
    n_axes = min(n_features, n - 1)
    if n_axes <= _MIN_NOISE_AXES:
        return None, 0.0
    mean, axes, variances = principal_axes(rows)
    q = _first_flat(variances, n)
    if q is None:
        return None, 0.0
    n_noise, noise_variance = n_axes - q, variances[q:].mean()
    hull, noise_axes = axes[:, :q], axes[:, q:n_axes]
    is_above = np.exp(np.log(variances[:q]).mean()) >= _BELOW * noise_variance
    is_gap = variances[q - 1] >= _BELOW * variances[q]
    if not is_above or not (is_gap or n_noise >= _SHARE_OF_AXES * n_axes):
        return None, 0.0
    whitened = (rows - mean) @ noise_axes / np.sqrt(variances[q:n_axes])
    kurtosis = (whitened**4).mean() - 3
    if abs(kurtosis) > _EXCESS_KURTOSIS + 5 * np.sqrt(24 / (n * n_noise)):
        return None, 0.0
    nearest = nearest_neighbors((rows - mean) @ hull, 1)[1][:, 0]
    correlation = (whitened * whitened[nearest]).mean()
    if correlation > _TOLD_BY_THE_PLACE + 5 / np.sqrt(n * n_noise):
        return None, 0.0
    # Small columns beside large ones are noise only if the large ones are no other quantities.
    share = np.square(hull).sum(axis=1)
    columns = np.argsort(-share, kind="stable")[:q]
    if share[columns].sum() > _WITHIN_COLUMNS * q and _dependence(rows[:, columns]) < _DEPENDENCE:
        return None, 0.0
    return hull, float(np.sqrt(noise_variance))


def _first_flat(variances, n):
    """Return the first axis from which on all variances (D,) are equal up to sampling, or None.

    The edges are those of Marchenko & Pastur (1967). Of fewer rows than columns the variances that
    are not zero are looked at, and where these are about as many the upper edge alone.
    """
    n_axes = min(len(variances), n - 1)
    for q in range(1, n_axes - _MIN_NOISE_AXES + 1):
        rest, aspect = variances[q:n_axes], (len(variances) - q) / (n - 1 - q)
        edge = np.sqrt(min(aspect, 1 / aspect))
        if rest[-1] <= _ROUNDING**2 * variances[0]:
            continue
        if edge < _NEARLY_SQUARE:
            is_flat = rest[0] <= _FLAT * ((1 + edge) / (1 - edge)) ** 2 * rest[-1]
        else:
            is_flat = rest[0] <= _FLAT * (1 + np.sqrt(aspect)) ** 2 * variances[q:].mean()
        if is_flat:
            return q
    return None


def _dependence(rows):
    """Return the total correlation of columns in nats per row, by nearest neighbours.

    The entropy estimate of Kozachenko & Leonenko (1987) is the mean of the log-distances and what
    does not depend on the rows; it is compared with that of columns in random order. In many
    dimensions neighbours are too far away to tell a sphere from a ball, and it is at least that of
    normal variables with the correlations of the squares.
    """
    rng = np.random.RandomState(0)
    rows = _standardised(rows)
    shuffled = np.column_stack([rng.permutation(column) for column in rows.T])
    logs = []
    for one in (shuffled, rows):
        farthest = neighbor_distances(one, 5)[:, -1]
        logs.append(np.log(farthest[farthest > 0]).mean())
    return max(rows.shape[1] * (logs[0] - logs[1]), _dependence_of_squares(rows))


def _dependence_of_squares(rows):
    """Return the total correlation of normal variables with the correlations of the squares."""
    squares = np.square(rows.clip(-_FAR, _FAR))
    # Those of two values have the same square.
    squares = squares[:, squares.std(axis=0) > _REPEATED]
    n, n_columns = squares.shape
    if n_columns < 2 or n < _ROWS_PER_SQUARE * n_columns:
        return 0.0
    _, log_det = np.linalg.slogdet(np.corrcoef(squares.T))
    # Chance makes it so large.
    return -0.5 * log_det - n_columns * (n_columns - 1) / (4 * n)
