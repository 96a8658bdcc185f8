"""A background of heavy tails behind a fitted flow: rows that it does not expect are rare there."""

import math

import torch
from torch import Tensor, nn

from .device import randn

__all__ = ["Background"]

# Degrees of freedom: the least whole number for which there is a covariance.
_NU = 3.0
_N_STEPS = 30
# Columns up to which they may be correlated.
_MAX_CORRELATED = 128
# Rows from which the distribution is fitted, and for each column where these are correlated.
_N_ROWS, _N_ROWS_PER_FEATURE = 2048, 10
# Rows that count as if the flow expected them, beside those that the weight is learned from.
_PRIOR_ROWS = 10.0


class Background(nn.Module):
    r"""Share w of standardised rows that have a multivariate t distribution, and not the flow's.

    .. math:: p(x) = (1 - w) p_{flow}(x) + w\, t_3(x; m, S)

    Its log-density falls with the logarithm of the distance only, so that a row far from all others
    does not cost a model more than all of them together. It computes in float64 on the CPU. In more
    than 128 columns S is diagonal.
    """

    location: Tensor
    root: Tensor
    weight: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        shape = (n_features, n_features) if n_features <= _MAX_CORRELATED else (n_features,)
        self.register_buffer("location", torch.zeros(n_features, dtype=torch.float64))
        # Lower triangular L with L L' = S, or the diagonal of L.
        self.register_buffer("root", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("weight", torch.tensor(0.0, dtype=torch.float64))

    @property
    def is_diagonal(self) -> bool:
        """Whether columns are uncorrelated."""
        return self.root.ndim == 1

    def fit(self, rows: Tensor, floor: float) -> "Background":
        """Take location and scale from rows (n, D) in random order, at maximum likelihood.

        These are the fixed point of Kent, Tyler & Vardi (1994). `floor` is the least scale.
        """
        n_rows = max(_N_ROWS, 0 if self.is_diagonal else _N_ROWS_PER_FEATURE * rows.shape[1])
        rows = rows[:n_rows]
        self.location = rows.mean(0)
        self._set_scatter(rows - self.location, torch.ones(len(rows), dtype=rows.dtype), floor)
        for _ in range(_N_STEPS):
            weights = 1 / (_NU + self._squared_distances(rows))
            weights = weights / weights.mean()
            self.location = (weights[:, None] * rows).mean(0)
            self._set_scatter(rows - self.location, weights, floor)
        return self

    def _set_scatter(self, centred: Tensor, weights: Tensor, floor: float) -> None:
        weighted = weights[:, None] * centred
        if self.is_diagonal:
            self.root = ((weighted * centred).mean(0) + floor**2).sqrt()
            return
        scatter = weighted.T @ centred / len(centred)
        scatter.diagonal().add_(floor**2)
        # Products have the bits of a stored model only in the same layout.
        self.root = torch.linalg.cholesky(scatter).contiguous()

    def _squared_distances(self, rows: Tensor) -> Tensor:
        centred = rows - self.location
        if self.is_diagonal:
            return (centred / self.root).square().sum(1)
        whitened = torch.linalg.solve_triangular(self.root, centred.T, upper=False)
        # Rows so far away that numbers overflow may be a difference of two infinities.
        return whitened.square().sum(0).nan_to_num(torch.inf, torch.inf)

    def log_prob(self, rows: Tensor) -> Tensor:
        """Return the log-density (n,) of rows under the t distribution alone."""
        n_features = rows.shape[1]
        half = (_NU + n_features) / 2
        diagonal = self.root if self.is_diagonal else self.root.diagonal()
        constant = math.lgamma(half) - math.lgamma(_NU / 2) - diagonal.log().sum()
        constant = constant - n_features / 2 * math.log(_NU * math.pi)
        return constant - half * torch.log1p(self._squared_distances(rows) / _NU)

    def learn_weight(self, rows: Tensor, log_prob: Tensor, n_rows: float) -> None:
        """Learn the weight from rows that nothing was fitted to, given their log-density.

        `n_rows` are those that were fitted to: see `set_weight`.
        """
        log_ratio, weight = self.log_prob(rows) - log_prob, self.weight.new_tensor(0.1)
        for _ in range(_N_STEPS):
            tail = torch.sigmoid(weight.logit() + log_ratio)
            weight = (tail.sum() / (len(rows) + _PRIOR_ROWS)).clamp_min(1e-12)
        self.set_weight(float(weight), n_rows)

    def set_weight(self, weight: float, n_rows: float) -> None:
        """Set the weight, which is at least that of one row beside the `n_rows` that are known.

        So many rows say no more of rows that are unlike them.
        """
        self.weight.fill_(max(weight, 1 / (n_rows + 1)))

    def mix(self, rows: Tensor, log_prob: Tensor) -> Tensor:
        """Return the log-density (n,) of rows, given that of the flow."""
        tail = self.weight.log() + self.log_prob(rows)
        return torch.logaddexp(torch.log1p(-self.weight) + log_prob, tail)

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draw rows (n, D) of the t distribution."""
        # A chi-squared variable of three degrees is the sum of as many squares.
        squares = randn((n_samples, int(_NU)), self.location, generator).square()
        noise = randn((n_samples, len(self.location)), self.location, generator)
        noise = noise * self.root if self.is_diagonal else noise @ self.root.T
        return self.location + noise * (_NU / squares.sum(1, keepdim=True)).sqrt()
