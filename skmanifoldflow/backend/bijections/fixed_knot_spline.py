"""Splines of single columns whose knots lie at quantiles of the data."""

import math
from abc import abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..engine import NO_BUFFERS, Workspace, can_use_kernels, differentiable_gradient
from ..engine.kernels import KnotMap, knot_table
from .base import Bijection

__all__ = ["KnotSpline", "PooledSpline", "QuantileSpline", "merged_knots"]


class _KnotNode(torch.autograd.Function):
    """`KnotMap` as one operation of autograd, given values (1, m, n) and a table."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, table: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        space = Workspace(v, 1, trains=True)
        ctx.map = KnotMap(space, table, v.shape[1:], inverse=inverse)
        ctx.save_for_backward(v, table)
        mapped = v.clone(memory_format=torch.contiguous_format)
        return ctx.map.forward(mapped), ctx.map.log_slope.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        v, table = ctx.saved_tensors
        if torch.is_grad_enabled():
            results = _by_operations(v, table, ctx.map.inverse)
            return *differentiable_gradient(results, grads, [v, table]), None
        ctx.map.prepare_backward()
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        ctx.map.backward(grad, grads[1])
        # Abscissae, and with them widths, are constants.
        of_heights, *of_others = ctx.map.grad_table.unbind(1)
        nothing = torch.zeros_like(of_heights)
        return grad, torch.stack([nothing, nothing, of_heights, *of_others], 1), None


def _by_operations(v: Tensor, table: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    spline = KnotMap(NO_BUFFERS, table, v.shape[1:], inverse=inverse)
    mapped = spline.forward(v)
    return mapped, cast(Tensor, spline.log_slope)


class KnotSpline(Bijection):
    """Monotone rational-quadratic spline of every column (Durkan et al., NeurIPS 2019).

    The abscissae of the knots are fixed, ordinates and slopes are learned. Beyond the outermost
    knots the map is linear with the slope at its end.
    """

    @abstractmethod
    def _table(self) -> Tensor:
        """Return the table (6, m, K + 1) of a `KnotMap`: a curve for each of m columns, or one.

        Heights of bins come apart from ordinates: the difference of two ordinates has lost the
        height of a flat bin between steep ones.
        """

    def _map(self, v: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Return v mapped and the log-derivatives of the direction taken there."""
        table = self._table()
        shape = v.T.shape
        v = v.T.reshape(1, table.shape[1], -1)
        apply = _KnotNode.apply if can_use_kernels(v, None) else _by_operations
        mapped, log_slope = apply(v, table[None], inverse)
        return mapped.view(shape).T, log_slope.view(shape).T

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        z, log_slope = self._map(x, inverse=False)
        return z, log_slope.sum(dim=1)

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x, log_slope = self._map(z, inverse=True)
        return x, log_slope.sum(dim=1)


class QuantileSpline(KnotSpline):
    """Monotone rational-quadratic spline that maps the quantiles of columns to normal ones.

    In closed form, nothing is learned: the knots of a column are at so many of its quantiles, the
    outermost at its ends, and the slope at a knot is the geometric mean of those of the chords
    beside it. What Chen & Gopinath (NIPS 2000) call marginal Gaussianisation. The identity until
    `fit`.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    n_bins : int, default=12
        Number of bins K >= 2 per column, of equal numbers of rows.
    """

    knots: Tensor
    heights: Tensor
    slopes: Tensor
    # Share of the range of a column; knots closer than that are merged.
    min_gap = 1e-6

    def __init__(self, n_features: int, n_bins: int = 12) -> None:
        super().__init__()
        self.n_bins = n_bins
        unit = torch.linspace(-1.0, 1.0, n_bins + 1, dtype=torch.float64).repeat(n_features, 1)
        self.register_buffer("knots", unit)
        self.register_buffer("heights", unit.clone())
        self.register_buffer("slopes", torch.ones_like(unit))

    def reset(self) -> None:
        """Become the identity again."""
        self.keep(torch.zeros(len(self.knots), dtype=torch.bool))

    def keep(self, columns: Tensor) -> None:
        """Make all columns the identity but those where a mask (D,) is true."""
        identity = QuantileSpline(len(self.knots), self.n_bins).to(self.knots)
        columns = columns[:, None].to(self.knots.device)
        for name, buffer in identity.named_buffers():
            setattr(self, name, torch.where(columns, getattr(self, name), buffer))

    def fit(self, x: Tensor) -> None:
        """Take the quantiles of rows (n, D), n > K, of which no column is constant."""
        values = x.to(self.knots)
        n, n_bins = len(values), self.n_bins
        share = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)
        knots = torch.quantile(values, share.to(values), dim=0).T.cpu()
        gaps = self.min_gap * (knots[:, -1] - knots[:, 0])
        knots = torch.stack(
            [merged_knots(column, float(gap)) for column, gap in zip(knots, gaps, strict=True)]
        )
        heights = torch.special.ndtri(share.clamp(0.5 / n, 1 - 0.5 / n)).expand_as(knots)
        chords = heights.diff(dim=1) / knots.diff(dim=1)
        inner = (chords[:, 1:] * chords[:, :-1]).sqrt()
        slopes = torch.cat([chords[:, :1], inner, chords[:, -1:]], dim=1)
        self.knots, self.heights, self.slopes = (
            table.to(self.knots).contiguous() for table in (knots, heights, slopes)
        )

    def log_slopes_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-slopes and mapped values, both (n, D), column by column."""
        z, log_slope = self._map(x, inverse=False)
        return log_slope, z

    def _table(self) -> Tensor:
        sizes = self.knots.diff(dim=1), self.heights.diff(dim=1)
        return knot_table(self.knots, *sizes, self.heights, self.slopes)


class PooledSpline(KnotSpline):
    """Monotone rational-quadratic spline of pooled values, the same for every column.

    The abscissae of the knots are quantiles of the data and stay fixed, heights and slopes are
    learned; outside the knots the map is linear. Grey values pile up at black and white. Where half
    of the pixels are black, an interval of a 256th of the range holds half of the mass, with an
    edge that no affine map of a normal distribution can render and one spline can.

    Parameters
    ----------
    n_bins : int, default=32
        Number of intervals between knots.
    """

    knots: Tensor

    def __init__(self, n_bins: int = 32) -> None:
        super().__init__()
        self.register_buffer("knots", torch.linspace(-1.0, 1.0, n_bins + 1))
        self.first = nn.Parameter(torch.full((1,), -1.0))
        self.log_heights = nn.Parameter(torch.full((n_bins,), math.log(2 / n_bins)))
        self.log_slopes = nn.Parameter(torch.zeros(n_bins + 1))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Map the pooled values of a batch to a normal distribution; return the batch mapped."""
        n_bins = len(self.log_heights)
        values = x.double().flatten().sort().values
        position = torch.linspace(0, len(values) - 1, n_bins + 1, dtype=torch.float64)
        knots = values[position.round().long()]
        # Ties would give bins of no width.
        width = knots[-1] - knots[0]
        width = torch.where(width > 0, width, 1.0)
        step = width * 1e-4 * torch.arange(n_bins + 1, dtype=torch.float64)
        knots = (knots - step).cummax(0).values + step
        # Of equal mass, the outer bins reaching to where a normal distribution has a hundredth of
        # theirs.
        share = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)
        share = share.clamp(0.01 / n_bins, 1 - 0.01 / n_bins)
        heights = math.sqrt(2) * torch.erfinv(2 * share - 1)
        slopes = heights.diff() / knots.diff()
        inner = (slopes[1:] * slopes[:-1]).sqrt()
        self.knots.copy_(knots)
        self.first.copy_(heights[:1])
        self.log_heights.copy_(heights.diff().log())
        self.log_slopes.copy_(torch.cat([slopes[:1], inner, slopes[-1:]]).log())
        return self.forward_and_log_det(x)[0]

    def _table(self) -> Tensor:
        heights = self.log_heights.exp()
        ordinates = torch.cat([self.first, self.first + heights.cumsum(0)])
        parts = self.knots, self.knots.diff(), heights, ordinates, self.log_slopes.exp()
        return knot_table(*(part[None] for part in parts))


def merged_knots(values: Tensor, gap: float) -> Tensor:
    """Return as many increasing values, those closer than `gap` taken as one."""
    ordered = values.tolist()
    kept = ordered[:1]
    for value in ordered[1:]:
        if value - kept[-1] > gap:
            kept.append(value)
    # Both ends of the range stay where they are.
    if len(kept) > 1:
        kept[-1] = ordered[-1]
    unique = torch.tensor(kept, dtype=values.dtype)
    if len(unique) == len(values):
        return unique
    position = torch.linspace(0, len(unique) - 1, len(values), dtype=values.dtype)
    before = position.long().clamp(max=len(unique) - 2)
    return torch.lerp(unique[before], unique[before + 1], position - before)
