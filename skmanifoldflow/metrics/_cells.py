"""What a density gives to values on a grid: bits per dimension, and the mass of a cell."""

from numbers import Integral

import numpy as np
from scipy.special import logsumexp
from scipy.stats import qmc
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_array, check_random_state

from .._columns import spread
from .._densities import log_abs_det_jacobian
from .._unwrap import unwrap

__all__ = ["bits_per_dim", "log_mass"]

# Sequences of draws whose means tell the error of an estimate.
_N_SEQUENCES = 8
# Values of rows that are scored at a time.
_MAX_VALUES = 2**20


def bits_per_dim(model, X, *, n_levels=256, n_draws=1, random_state=None):
    r"""Return the bits per dimension that a density model needs for rows of integers.

    A density p on the cube of side `n_levels` gives integers x the probability
    :math:`P(x) = \int_{[0,1)^D} p(x + u)\,du`. By Jensen's inequality

    .. math::

        -\tfrac1D \log_2 P(x) \le -\tfrac1D \, E_{u \sim U[0,1)^D} \log_2 p(x + u),

    and the right side, averaged over rows and draws of u, is what is returned: an upper bound [1]_
    on the bits per dimension of the integers themselves. More draws make the estimate of the bound
    less noisy; they do not tighten it.

    Parameters
    ----------
    model : estimator instance
        Fitted model with `score_samples`, the log-density in nats of rows in the units of X plus
        uniform noise: fitted to ``X + u``, or to X with ``dequantize=True``. The density of a
        :class:`~sklearn.pipeline.Pipeline`, or of a search over one, is brought into the units of X
        by the log-Jacobian of its steps before the model
        (:func:`~skmanifoldflow.log_abs_det_jacobian`).
    X : array-like of shape (n_samples, n_features)
        Integers from 0 to ``n_levels - 1``.
    n_levels : int, default=256
        Number of values that a cell can take; the default is that of images of 8 bits. The uniform
        distribution needs ``log2(n_levels)`` bits per dimension.
    n_draws : int, default=1
        Number of draws of u for each row. The mean over many rows needs no more than one.
    random_state : int, RandomState instance or None, default=None
        Source of the draws.

    Returns
    -------
    bits : float
        Bits per dimension; lower is better. Infinite if a row has density 0.

    Raises
    ------
    ValueError
        If X holds anything but integers from 0 to ``n_levels - 1``, if `n_levels` or `n_draws` is
        not an integer of at least 2 or 1, or if the Jacobian of a step is not known.

    References
    ----------
    .. [1] Theis, van den Oord & Bethge, "A note on the evaluation of generative models",
           ICLR 2016, https://arxiv.org/abs/1511.01844.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skmanifoldflow.metrics import bits_per_dim
    >>> rng = np.random.RandomState(0)
    >>> X = rng.binomial(15, 0.3, size=(1000, 2))  # entropy: 2.87 bits
    >>> model = GaussianMixture(random_state=0).fit(X + rng.random_sample(X.shape))
    >>> bits = bits_per_dim(model, X, n_levels=16, n_draws=10, random_state=1)
    >>> f"{bits:.2f}"
    '2.93'
    """
    for name, value, least in (("n_levels", n_levels, 2), ("n_draws", n_draws, 1)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}.")
    table, X = X, check_array(X, dtype=np.float64)
    if X.min() < 0 or X.max() > n_levels - 1 or not np.array_equal(X, np.round(X)):
        raise ValueError(
            f"X must hold integers from 0 to {n_levels - 1}, got values from {X.min():g} to "
            f"{X.max():g}."
        )
    rng, nats = check_random_state(random_state), []
    for _ in range(n_draws):
        nats.append(np.mean(_log_density(model, spread(X, 1.0, rng), table)))
    return float(-np.mean(nats) / (X.shape[1] * np.log(2)))


def log_mass(model, points, *, widths=None, n_draws=128, random_state=None, return_std=False):
    r"""Estimate the log-probability that a density model gives to points of a grid.

    Values such as whole numbers have a probability, and a density only around them. The cell of a
    point x is the box with x in its middle whose sides are the widths :math:`w_j` of the columns,
    and what is estimated is

    .. math::

        \log P(x) = \log \int_{\prod_j [x_j - w_j / 2,\, x_j + w_j / 2)} p(u)\,du
        = \log E_{u \sim U[-1/2,\, 1/2)^D}\, p(x + w u) + \sum_j \log w_j .

    A column without a width is one of a density: over the others the mass is taken, and along it
    the density at the point. The expectation is a mean over quasi-random draws, scrambled Sobol
    sequences [1]_, that are the same for all points, so that differences between points are less
    noisy than each estimate.

    Parameters
    ----------
    model : estimator instance
        Fitted model with `score_samples`. A :class:`~sklearn.pipeline.Pipeline`, or a search over
        one, is scored in the units of X, as by :func:`bits_per_dim`.
    points : array-like of shape (n_points, n_features)
        Points in the units of X.
    widths : array-like of shape (n_features,) or (n_points, n_features), default=None
        Sides of the cells in the units of X, 0 for columns of a density. None takes the `step` of
        discrete columns from `columns_` of the model, and 0 for all others.
    n_draws : int, default=128
        Draws in each of 8 sequences, a power of 2. For independent normal columns whose standard
        deviation is a step, the default is off by 0.002 nats with five columns, by 0.007 with ten
        and by 0.06 with thirty; where columns depend on each other it is off by more.
    random_state : int, RandomState instance or None, default=None
        Source of the draws.
    return_std : bool, default=False
        Whether to return the standard errors too.

    Returns
    -------
    log_mass : ndarray of shape (n_points,)
        Estimates in nats: of log-probabilities where all columns have a width, of the log of a
        probability times a density in the units of the columns without one otherwise. -inf where no
        draw has a density.
    std : ndarray of shape (n_points,)
        Their standard errors in nats, from the differences of the sequences; infinite where no
        draw has a density. Only returned if `return_std`.

    Raises
    ------
    ValueError
        If points are not finite, if `widths` is negative or does not fit their shape, or is not
        given and the model has no `columns_` in the units of X, if `n_draws` is not a power of 2,
        or if the Jacobian of a step is not known.

    Notes
    -----
    This is an estimate. Its logarithm is too low on average, and where the density is much
    narrower than a cell few draws, or none, meet it: the standard error is too small then too. Ask
    for it, and take more draws.

    A model of X + U with U in [0, step), which ``dequantize=True`` fits, has the value in the
    lower corner of the cell: ask for ``points + widths / 2``.

    References
    ----------
    .. [1] Owen, "Scrambling Sobol' and Niederreiter-Xing points", Journal of Complexity 14, 1998.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skmanifoldflow.metrics import log_mass
    >>> rng = np.random.RandomState(0)
    >>> X = rng.binomial(20, 0.5, size=(5000, 1))
    >>> model = GaussianMixture(random_state=0).fit(X + rng.uniform(-0.5, 0.5, X.shape))
    >>> mass = np.exp(log_mass(model, [[10], [11]], widths=[1.0], random_state=0))
    >>> bool(np.abs(mass - [0.1762, 0.1602]).max() < 0.01)  # the probabilities of the binomial
    True
    """
    table, points = points, check_array(points, dtype=np.float64)
    if not isinstance(n_draws, Integral) or n_draws < 1 or n_draws & (n_draws - 1):
        raise ValueError(f"n_draws must be a power of 2, got {n_draws!r}.")
    if widths is None:
        widths = _steps_of_columns(model, points.shape[1])
    widths = np.asarray(widths, dtype=np.float64)
    if widths.shape not in (points.shape[1:], points.shape):
        raise ValueError(
            f"widths must have shape {points.shape[1:]} or {points.shape}, got {widths.shape}."
        )
    if not (np.isfinite(widths) & (widths >= 0)).all():
        raise ValueError("widths must be finite and >= 0.")
    widths = np.broadcast_to(widths, points.shape)
    offsets = _offsets(widths.any(axis=0), n_draws, check_random_state(random_state))
    log_density = np.empty((len(points), len(offsets)))
    n_points = max(1, _MAX_VALUES // offsets.size)
    for start in range(0, len(points), n_points):
        part = slice(start, start + n_points)
        rows = points[part, None] + widths[part, None] * offsets
        scores = _log_density(model, rows.reshape(-1, points.shape[1]), table)
        log_density[part] = scores.reshape(-1, len(offsets))
    log_volume = np.log(np.where(widths > 0, widths, 1.0)).sum(axis=1)
    by_sequence = log_density.reshape(len(points), _N_SEQUENCES, -1)
    means = logsumexp(by_sequence, axis=2) - np.log(by_sequence.shape[2])
    estimate = logsumexp(means, axis=1) - np.log(_N_SEQUENCES)
    if not return_std:
        return estimate + log_volume
    # To first order the error of a logarithm is the relative one.
    relative = np.exp(means - np.where(np.isfinite(estimate), estimate, 0.0)[:, None])
    std = relative.std(axis=1, ddof=1) / np.sqrt(_N_SEQUENCES)
    return estimate + log_volume, np.where(np.isfinite(estimate), std, np.inf)


def _log_density(model, rows, table):
    """Return the log-densities (n,) of rows in the units of X, with the names of a table."""
    if hasattr(table, "iloc"):
        # A model that was fitted to a frame warns of rows without names.
        rows = type(table)(rows, columns=table.columns)
    return model.score_samples(rows) + log_abs_det_jacobian(make_pipeline(*unwrap(model)[1]), rows)


def _steps_of_columns(model, n_features):
    """Return the steps of the columns that a model has seen, 0 where there are none."""
    inner, steps = unwrap(model)
    if steps or not hasattr(inner, "columns_"):
        raise ValueError(
            f"{type(model).__name__} has no columns_ in the units of X: give the widths of the "
            "cells."
        )
    if len(inner.columns_) != n_features:
        raise ValueError(
            f"points has {n_features} features, but {type(inner).__name__} is expecting "
            f"{len(inner.columns_)} features as input."
        )
    return [column.step or 0.0 for column in inner.columns_]


def _offsets(is_wide, n_draws, random_state):
    """Return draws (8 n_draws, D) of the cube [-1/2, 1/2)^D, 0 in columns that are not wide."""
    offsets = np.zeros((_N_SEQUENCES * n_draws, len(is_wide)))
    if is_wide.any():
        for draws in np.split(offsets, _N_SEQUENCES):
            sobol = qmc.Sobol(is_wide.sum(), seed=random_state.randint(2**31))
            draws[:, is_wide] = sobol.random(n_draws) - 0.5
    return offsets
