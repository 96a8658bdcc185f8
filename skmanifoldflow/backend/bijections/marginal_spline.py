"""Splines of single columns that are learned relative to the data."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ..engine import NO_BUFFERS
from ..engine.kernels import MarginalSplineKernel, MarginalTable, Wiring
from .base import KernelBijection
from .fixed_knot_spline import KnotSpline, merged_knots

__all__ = ["MarginalSpline"]


class MarginalSpline(KnotSpline, KernelBijection):
    """Monotone rational-quadratic spline of every column, with knots at quantiles of the data.

    Each bin holds about the same number of rows, so every parameter has a gradient of about the
    same size, also where most of a column lies in a thousandth of its range. What is learned is
    relative to the data: the logarithms of height over width of every bin, and of the slope at a
    knot over the geometric mean of the two ratios beside it. With all of them zero the map is the
    identity; they are bounded softly, c tanh(r / c) with c = 9 and c = 2.

    Beyond the outermost knots the map is linear with the slope at its end. A tail of slope 1 would
    give a row slightly outside the range of a heavy-tailed column a distance from the others that
    the rows inside never have.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    n_bins : int, default=32
        Number of bins K >= 2 per column.
    """

    is_in_place = True
    constant_names = ("knots", "is_free")
    max_log_ratio = 9.0
    max_log_slope = 2.0
    # A step of the optimiser moves a log-ratio this many times as far as the weight of a network:
    # heavy tails want log-ratios of 7.
    gain = 10.0
    # Mean absolute log-ratio under the prior.
    prior_scale = 0.1
    # Share of the range of a column; knots closer than that are merged.
    min_gap = 1e-6

    knots: Tensor
    is_free: Tensor

    def __init__(self, n_features: int, n_bins: int = 32) -> None:
        super().__init__()
        if n_bins < 2:
            raise ValueError(f"n_bins must be at least 2, got {n_bins}.")
        self.n_log_slopes = n_features
        knots = torch.linspace(-3.0, 3.0, n_bins + 1).repeat(n_features, 1)
        self.register_buffer("knots", knots)
        self.register_buffer("is_free", torch.ones(n_features, 1))
        self.log_ratios = nn.Parameter(torch.zeros(n_features, n_bins))
        self.log_slopes = nn.Parameter(torch.zeros(n_features, n_bins + 1))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Put the knots at quantiles of the rows and learn anew from the identity; return `x`.

        A constant column stays as it is for good.
        """
        values = x.double().sort(dim=0).values
        n_knots = self.knots.shape[1]
        position = torch.linspace(0, len(values) - 1, n_knots, dtype=torch.float64, device=x.device)
        before = position.long().clamp(max=max(0, len(values) - 2))
        after = (before + 1).clamp(max=len(values) - 1)
        weight = (position - before)[:, None]
        quantiles = torch.lerp(values[before], values[after], weight).T.cpu()
        span = quantiles[:, -1] - quantiles[:, 0]
        # Knots are trained in float32, where those of one column must differ too.
        rounding = 4 * torch.finfo(torch.float32).eps * quantiles.abs().amax(dim=1)
        is_free = span > rounding
        unit = torch.linspace(-1.0, 1.0, n_knots, dtype=torch.float64)
        columns = [
            merged_knots(column, max(self.min_gap * float(width), float(least)))
            if free
            else unit + column.mean()
            for column, width, least, free in zip(quantiles, span, rounding, is_free, strict=True)
        ]
        self.knots.copy_(torch.stack(columns))
        self.is_free.copy_(is_free[:, None])
        self.log_ratios.zero_()
        self.log_slopes.zero_()
        return x

    def _numbers(self) -> dict[str, Any]:
        bounds = self.max_log_ratio, self.max_log_slope
        return {"gain": self.gain, "bounds": bounds, "prior_scale": self.prior_scale}

    def _table(self, of_prior: bool = False) -> Tensor:
        knots, is_free = self.knots[None], self.is_free[None]
        weights = self.log_ratios[None], self.log_slopes[None]
        table = MarginalTable(NO_BUFFERS, knots, is_free, weights, **self._numbers())
        return (table.parameter_log_prior() if of_prior else table.forward())[0]

    def parameter_log_prior(self) -> Tensor:
        return self._table(of_prior=True)

    def structure(self) -> Hashable:
        return "marginal spline", *self._numbers().values()

    def weights(self) -> list[Tensor]:
        return [self.log_ratios, self.log_slopes]

    def kernel(self, wiring: Wiring) -> MarginalSplineKernel:
        return MarginalSplineKernel(wiring, **self._numbers())
