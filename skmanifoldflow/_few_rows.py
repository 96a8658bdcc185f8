"""What stands for few rows of many columns: rows with noise, whose covariance is a shrunk one."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from ._linear import principal_axes, supported_components
from .backend.device import randn

__all__ = ["FewRows", "Shrinkage", "are_few", "n_supported", "required_errors", "shrinkage_of"]

# From so many rows per column nothing is shrunk.
_ENOUGH_ROWS_PER_FEATURE = 10
# Shares of the mean variance that are compared. The smallest one is no shrinkage.
_SHARES = np.logspace(-6, 0, 25)
# How far the logarithms of the scales of columns are drawn to their mean.
_POOLINGS = (0.0, 0.5, 1.0)
_N_FOLDS = 10
# Nats per row up to which numbers of components are as good as the best one.
_SLACK = 0.01
# Chance with which rows set aside may prefer a training to a start that is as good. It is small
# because they choose among epochs too, and because they are few themselves.
_LEVEL = 1e-3
# Most rows from which the share is chosen.
_MAX_COMPARED_ROWS = 1000
# Rows, and rows per column, that stand for few ones where a fit starts.
_MIN_SAMPLE, _SAMPLE_PER_FEATURE = 2048, 4


class Shrinkage(NamedTuple):
    """A covariance that few rows support: V L V', where V has their principal axes.

    The variances l of the rows along the axes become (1 - a) l + a mean(l) (Ledoit & Wolf, 2004),
    and those beyond the first d their mean, as in probabilistic PCA (Tipping & Bishop, 1999).

    Attributes
    ----------
    share : float
        a, between 0 and 1.
    n_components : int
        d.
    most_components : int
        The largest d that is as good.
    pooling : float
        How far the logarithms of the scales of columns are drawn to their mean before, from 0 to 1.
    """

    share: float
    n_components: int
    most_components: int
    pooling: float = 0.0

    def variances(self, eigenvalues: Tensor) -> Tensor:
        """Return the variances (D,) along the axes, given those of the rows, descending."""
        shrunk = torch.lerp(eigenvalues, eigenvalues.mean(), self.share)
        rest = shrunk[self.n_components :]
        return torch.cat([shrunk[: self.n_components], rest.mean().expand(len(rest))])


class FewRows:
    """Draws rows with the shrunk covariance of few rows: these rows, drawn together, with noise.

    A row x becomes m + T (sqrt(1 - a) (x - m) + sqrt(a mean(l)) e) with normal noise e, so that
    draws have the mean m of the rows and, but for chance, their covariance as `Shrinkage` has it;
    T gives the axes beyond the first d one variance.

    Parameters
    ----------
    shrinkage : Shrinkage
        What is shrunk, and how much.
    rows : Tensor of shape (n, D)
        Standardised rows, float64 on the CPU.
    """

    def __init__(self, shrinkage: Shrinkage, rows: Tensor) -> None:
        self.share = shrinkage.share
        self.mean = rows.mean(0)
        eigenvalues, axes = torch.linalg.eigh(rows.T.cov())
        eigenvalues, self.axes = eigenvalues.flip(0).clamp_min(0.0), axes.flip(1)
        self.noise = float(self.share * eigenvalues.mean()) ** 0.5
        self.variances = shrinkage.variances(eigenvalues)
        before = (1 - self.share) * eigenvalues + self.noise**2
        self.stretch = (self.axes * (self.variances / before).sqrt()) @ self.axes.T

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return a draw for each row (n, D), in float64 on the CPU."""
        noise = randn(tuple(rows.shape), rows, generator)
        drawn = (1 - self.share) ** 0.5 * (rows - self.mean) + self.noise * noise
        return self.mean + drawn @ self.stretch

    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return at least 2048 draws, and 4 for each column, whose moments are exact.

        Rows come in turns: the first n draws are one of each.
        """
        n = max(_MIN_SAMPLE, _SAMPLE_PER_FEATURE * rows.shape[1])
        drawn = self.draw(rows.repeat(-(-n // len(rows)), 1), generator)
        # The moments that the draws have by chance are replaced.
        eigenvalues, axes = torch.linalg.eigh(drawn.T.cov())
        whiten = (axes * eigenvalues.rsqrt()) @ axes.T
        return self.mean + (drawn - drawn.mean(0)) @ whiten @ self._root()

    def _root(self) -> Tensor:
        return (self.axes * self.variances.sqrt()) @ self.axes.T


def are_few(n_rows, n_features):
    """Tell whether rows are too few for their covariance."""
    return 1 < n_features and n_rows < _ENOUGH_ROWS_PER_FEATURE * n_features


def shrinkage_of(rows, scale):
    """Return the shrinkage under which rows left out have the highest likelihood.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Standardised rows in random order, none a copy of another.
    scale : ndarray of shape (D,)
        Scales by which their columns were divided.

    Returns
    -------
    shrinkage : Shrinkage or None
        None where nothing is to be shrunk: where all rows are equal, and where the least share is
        the best one, as that of rows which lie on a plane.
    """
    varies = np.ptp(rows, 0) > 0
    if not varies.any():
        return None
    if len(rows) < 3:
        # One of them without the other says nothing.
        return Shrinkage(1.0, 1, 1)
    rows = rows[:_MAX_COMPARED_ROWS]
    scores = np.zeros((len(_POOLINGS), len(_SHARES), rows.shape[1] - 1))
    for k in range(min(_N_FOLDS, len(rows))):
        is_left_out = np.arange(len(rows)) % _N_FOLDS == k
        fold, left_out = rows[~is_left_out], rows[is_left_out]
        # Scales are those of the fold, and pooled their product is the same.
        own = fold.std(0)
        own[own == 0] = 1.0
        log_scale = np.log(own * scale)
        departure = np.where(varies, log_scale - log_scale[varies].mean(), 0.0)
        for of_pooling, pooling in zip(scores, _POOLINGS, strict=True):
            unit = np.exp(pooling * departure) / own
            of_pooling += _held_out(fold * unit, left_out * unit)
    pooling, share, _ = map(int, np.unravel_index(scores.argmax(), scores.shape))
    if share == 0:
        return None
    good = 1 + np.flatnonzero(scores[pooling, share] >= scores.max() - _SLACK * len(rows))
    return Shrinkage(float(_SHARES[share]), int(good[0]), int(good[-1]), _POOLINGS[pooling])


def required_errors(n_validation):
    """Return the standard errors by which a training of few rows must better its start: a t-test.

    Scores are paired, on so many rows set aside.
    """
    return float(stdtrit(n_validation - 1, 1 - _LEVEL))


def n_supported(rows, shrinkage):
    """Return the number of components that rows support; the callable `rows` returns them."""
    if shrinkage is not None:
        return shrinkage.n_components
    rows = rows()
    return int(supported_components(principal_axes(rows)[2], len(rows)))


def _held_out(rows, left_out):
    """Return the log-likelihood of rows left out for each share and d = 1, ..., D - 1.

    It is up to a constant that all have in common.
    """
    n_features = rows.shape[1]
    mean = rows.mean(0)
    _, singular, axes = np.linalg.svd(rows - mean, full_matrices=False)
    eigenvalues = np.zeros(n_features)
    eigenvalues[: len(singular)] = singular**2 / max(1, len(rows) - 1)
    # Mean squares of the rows left out along the axes; those across all axes count as one number.
    centred = left_out - mean
    squares = np.zeros(n_features)
    squares[: len(singular)] = np.square(centred @ axes.T).mean(0)
    across = np.square(centred).sum(1).mean() - squares.sum()
    if len(singular) < n_features:
        squares[len(singular) :] = max(across, 0.0) / (n_features - len(singular))
    n_rest = np.arange(n_features - 1, 0, -1)
    scores = []
    for share in _SHARES:
        shrunk = (1 - share) * eigenvalues + share * eigenvalues.mean()
        log_det, square = np.log(shrunk).cumsum(), (squares / shrunk).cumsum()
        rest = shrunk[::-1].cumsum()[::-1][1:] / n_rest
        rest_square = squares[::-1].cumsum()[::-1][1:] / rest
        log_det = log_det[:-1] + n_rest * np.log(rest)
        scores.append(-0.5 * len(left_out) * (log_det + square[:-1] + rest_square))
    return np.stack(scores)
