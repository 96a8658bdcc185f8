"""The function that reads the intrinsic dimension of rows."""

import hashlib

import numpy as np
import torch
from sklearn.utils import check_array, check_random_state

from .._checks import warn
from .._duplicates import distinct_rows, row_keys, row_ranks
from .._signed_order import signed_order
from .._table import ENOUGH_ROWS
from .calibration import calibrate
from .neighbors import SCALES
from .report import DimensionReport
from .units import prepare_rows

__all__ = ["intrinsic_dimension", "read_distinct_rows"]

# Rows that are read, at most, and in the other units, where the reading is for comparison.
_MAX_ROWS, _MAX_COMPARED_ROWS = 2500, 1000
# Sets of samples over which estimates are averaged: of fewer rows more, unless they are so few that
# a fit of them takes no longer than this.
_N_DRAWS, _MAX_DRAWS, _MIN_ROWS_OF_MORE = 3, 8, 200
# Largest ratio of the spreads of columns that counts as equal.
_EQUAL_SPREAD = 2.0
# The last readings, by what was read.
_MAX_KNOWN = 8
_known: dict[tuple, DimensionReport] = {}


def intrinsic_dimension(X, *, scale=True, random_state=0):
    """Read the intrinsic dimension of rows: how many numbers it takes to describe one.

    Distances to nearest neighbours at scales of 2 to 64 neighbours are compared with those among
    samples of a reference whose dimension is known, a mixture of probabilistic PCAs [2]_ of the
    rows. What noise, curvature and high dimension do to the estimate [1]_, they do to both. Of the
    dimensions near the calibrated estimate the one is taken after which the variances in the parts
    of the mixture fall most, other than by bends.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows. Copies, exact or nearly so, count once.
    scale : bool, default=True
        Whether to standardise the columns, by the standard deviation of values clipped to the
        quantiles .01 and .99, and to map those that are skewed or have long tails to normal scores.
        The dimension then does not depend on units. Columns keep their units where they have noise
        of one size in common, which shows that they share a unit. False takes the units of the
        data: columns that are far smaller than others then count as noise.
    random_state : int, RandomState instance or None, default=0
        Source of the rows that are read where there are more than 2500, and of the samples. The
        default gives the same rows the same number at every call.

    Returns
    -------
    report : DimensionReport
        The dimension and the readings behind it.

    Raises
    ------
    ValueError
        If rows are not finite, or fewer than two.

    Warns
    -----
    UserWarning
        If nearest neighbours contradict the dimension, so that no reading can be trusted.

    References
    ----------
    .. [1] Denti, F., Doimo, D., Laio, A., Mira, A. "The generalized ratios intrinsic dimension
       estimator". Scientific Reports 12, 2022.
    .. [2] Tipping, M. E., Bishop, C. M. "Mixtures of probabilistic principal component analyzers".
       Neural Computation 11, 1999.

    Examples
    --------
    >>> from skmanifoldflow import intrinsic_dimension
    >>> from skmanifoldflow.datasets import Sphere
    >>> X, _ = Sphere(2, 10, noise=0.02).sample(1000, random_state=0)
    >>> intrinsic_dimension(X).dimension
    2
    """
    X = check_array(X, dtype=np.float64, ensure_min_samples=2)
    if len(X) <= ENOUGH_ROWS:
        # The same number in whatever order they come.
        X = X[np.argsort(row_ranks(_ordered(X)), kind="stable")]
    report = read_distinct_rows(distinct_rows(X), bool(scale), random_state)
    if report.neighbors and report.agreement == "poor":
        warn(
            f"Nearest neighbours say {report.estimate:.1f} of a dimension that reads "
            f"{report.dimension}: no reading can be trusted."
        )
    return report


def read_distinct_rows(rows, scale=True, random_state=0):
    """Return the report of rows (n, D) without copies among them."""
    rng = check_random_state(random_state)
    rows = rows[np.sort(rng.permutation(len(rows))[:_MAX_ROWS])].astype(np.float64)
    # Rows of whole numbers are equal by chance, and such neighbours tell nothing.
    rows = rows[np.sort(np.unique(row_keys(rows), return_index=True)[1])]
    rows = _ordered(rows)
    seed = rng.randint(2**31)
    # Several estimators are often fitted to the same rows.
    digest = hashlib.sha256(rows.tobytes()).digest()
    key = digest, rows.shape, bool(scale), seed
    if key not in _known:
        while len(_known) >= _MAX_KNOWN:
            del _known[next(iter(_known))]
        _known[key] = _read(rows, scale, seed)
    return _known[key]


def _ordered(rows):
    """Return rows with their columns in an order that does not depend on where they stood."""
    return signed_order(rows).forward(torch.from_numpy(rows)).numpy()


def _read(rows, scale, seed):
    """Return the report of all these rows."""
    prepared = prepare_rows(rows, scale)
    if len(rows) < 3 or not prepared.rows.shape[1]:
        return DimensionReport(1, n_rows=len(rows), scale=scale)
    n_draws = _N_DRAWS
    if len(rows) >= _MIN_ROWS_OF_MORE:
        n_draws = min(_N_DRAWS * _MAX_ROWS // len(rows), _MAX_DRAWS)
    found = calibrate(prepared, n_draws, seed)
    other = None
    if not _has_equal_spread(rows):
        few = prepare_rows(rows[:: -(-len(rows) // _MAX_COMPARED_ROWS)], not scale)
        other = calibrate(few, 1, seed).dimension
    gaps = found.spectrum[:-1] / found.spectrum[1:]
    return DimensionReport(
        dimension=found.dimension,
        neighbors=tuple(2 * k for k in SCALES[: len(found.by_scale)]),
        rows_by_scale=tuple(found.by_scale[:, 0].tolist()),
        calibrated_by_scale=tuple(found.by_scale[:, 1].tolist()),
        estimate=float(found.estimate),
        spectrum=tuple(found.spectrum.tolist()),
        n_parts=found.n_parts,
        gap=int(gaps.argmax()) + 1 if len(gaps) else 1,
        noise=prepared.noise_in_data,
        n_rows=len(rows),
        other_units=other,
        scale=scale,
    )


def _has_equal_spread(rows):
    """Tell whether columns that vary have about the same standard deviation."""
    spread = (rows / max(float(np.abs(rows).max()), np.finfo(float).tiny)).std(axis=0)
    spread = spread[spread > 0]
    return not len(spread) or spread.max() <= _EQUAL_SPREAD * spread.min()
