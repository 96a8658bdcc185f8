"""Splines of columns with fixed abscissae, by a table of their knots."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...torch_private import tanh_backward
from ..workspace import Workspace
from .base import Kernel, Wiring
from .rational_quadratic import RationalQuadratic

__all__ = ["KnotMap", "MarginalSplineKernel", "MarginalTable"]


class KnotMap:
    """Columns mapped by curves through knots, linear beyond the outermost ones, and the gradient.

    Parameters
    ----------
    space : Workspace
        Gives out the buffers; with `NO_BUFFERS` there is no `backward`.
    table : Tensor of shape (K, 6, m, n_knots)
        Abscissa, width, height, ordinate, slope of each knot and slope of the next one. The last
        width, height and next slope are not used.
    shape : tuple of two ints
        m and n.
    inverse : bool
        Whether abscissae are asked for.
    log_slope : Tensor of shape (K, m, n) or None
        Buffer for the log-derivatives of the direction taken.
    """

    def __init__(
        self,
        space: Workspace,
        table: Tensor,
        shape: Sequence[int],
        *,
        inverse: bool,
        log_slope: Tensor | None = None,
    ) -> None:
        self.space, self.table, self.inverse = space, table, inverse
        self.log_slope: Any = log_slope
        self.edges = table[:, 3 if inverse else 0]
        self.lowest, self.highest = self.edges[:, :, :1], self.edges[:, :, -1:]
        self.has_buffers = space.has_buffers
        # Without gaps between fits, which a search does not like; nothing is rounded here.
        self.inside = table.new_empty(len(table), *shape) if space.has_buffers else None
        self.found = space.kept(6, *shape)
        self.beyond, self.slope = space.kept(*shape), space.kept(*shape)
        if not self.has_buffers:
            return
        self.inner_edges = self.edges[:, :, 1:-1]
        self.inner = self.inner_edges.contiguous()
        self.bin = table.new_empty(len(table), *shape, dtype=torch.long)
        self.bins = self.bin[:, None].expand(-1, 6, -1, -1)
        self.curve = RationalQuadratic(space, *_bins(self.found), inverse, log_slope)

    def forward(self, v: Tensor) -> Tensor:
        """Return columns (K, m, n) mapped, which are in their own place if there are buffers."""
        inside = torch.maximum(v, self.lowest, out=self.inside)
        inside = torch.minimum(inside, self.highest, out=self.inside)
        if self.has_buffers:
            if self.inverse:
                self.inner.copy_(self.inner_edges)
            torch.searchsorted(self.inner, inside, right=True, out=self.bin)
            found = torch.gather(self.table, 3, self.bins, out=self.found)
            curve = self.curve
        else:
            inner = self.edges[:, :, 1:-1].detach().contiguous()
            k = torch.searchsorted(inner, inside.detach().contiguous(), right=True)
            found = torch.gather(self.table, 3, k[:, None].expand(-1, 6, -1, -1))
            curve = RationalQuadratic(self.space, *_bins(found), self.inverse)
        mapped = curve.forward(inside)
        self.log_slope = curve.log_slope
        # Beyond the ends the map is linear with the slope at its end.
        beyond = torch.sub(v, inside, out=self.beyond)
        slope = torch.exp(curve.log_slope, out=self.slope)
        return torch.addcmul(mapped, beyond, slope, out=v if self.has_buffers else None)

    def prepare_backward(self) -> None:
        """Allocate the buffers of `backward`."""
        space, shape = self.space, self.beyond.shape[1:]
        self.tail, self.grad_log = space.scratch(*shape), space.scratch(*shape)
        # Of width, height, ordinate, slope and next slope.
        self.grad_found = space.scratch(5, *shape)
        parts = self.grad_found[:, :2], self.grad_found[:, 3:]
        self.curve.prepare_backward(space, self.grad_log, *parts)
        self.grad_ordinate = self.grad_found[:, 2]
        #: Gradient (K, 4, m, n_knots) of the heights, ordinates, slopes and next slopes.
        self.grad_table = space.scratch(4, *self.table.shape[2:])
        self.grad_last = self.grad_found[:, 1:]
        self.last_bins = self.bin[:, None].expand(-1, 4, -1, -1)
        self.is_beyond = space.scratch(*shape, dtype=torch.bool)
        self.grad_end, self.part = space.scratch(*shape), space.scratch(*shape)
        self.total = space.scratch(shape[0])
        self.zero = self.table.new_tensor(0.0)
        self.ends = [
            (torch.lt, self.grad_table[:, 1, :, 0]),
            (torch.gt, self.grad_table[:, 1, :, -1]),
        ]

    def backward(self, grad: Tensor, grad_log_slope: Tensor) -> None:
        """Turn the gradient (K, m, n) of the results, in its place, into that of the columns.

        Given is also that of the log-derivatives; the gradient of the table is written.
        """
        curve, tail = self.curve, self.tail
        torch.mul(grad, self.slope, out=tail)
        # Beyond the ends a value moves with the slope of the end.
        torch.addcmul(grad_log_slope, self.beyond, tail, out=self.grad_log)
        if self.inverse:
            self.grad_log.neg_()
        curve.backward(grad)
        self.grad_ordinate.copy_(curve.grad_z)
        self.grad_table.zero_()
        self.grad_table.scatter_add_(3, self.last_bins, self.grad_last)
        if self.inverse:
            self._add_ends()
        torch.ne(self.beyond, self.zero, out=self.is_beyond)
        torch.where(self.is_beyond, tail, curve.grad_v, out=grad)

    def _add_ends(self) -> None:
        """Add the gradients of the ordinates of the ends, from which values beyond are mapped."""
        torch.sub(self.curve.grad_v, self.tail, out=self.grad_end)
        for compare, grad_ordinate in self.ends:
            compare(self.beyond, self.zero, out=self.is_beyond)
            torch.where(self.is_beyond, self.grad_end, self.zero, out=self.part)
            torch.sum(self.part, 2, out=self.total)
            grad_ordinate.add_(self.total)


def _bins(found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return corners, sizes and slopes (K, 2, m, n) of what was found in a table."""
    return found[:, 0:4:3], found[:, 1:3], found[:, 4:]


class MarginalTable:
    """The table of a `KnotMap` from what is learned relative to the data.

    Log-ratios of height over width of every bin, and logarithms of the slope at a knot over the
    geometric mean of the ratios beside it, are both bounded softly: c tanh(gain r / c).

    Parameters
    ----------
    space : Workspace
        Gives out the buffers; with `NO_BUFFERS` there is no `backward`.
    knots, is_free : Tensor of shape (K, m, n_knots) and (K, m, 1)
        Abscissae, and whether a column is mapped at all.
    weights : sequence of two Tensors
        r of the log-ratios (K, m, n_knots - 1) and of the log-slopes (K, m, n_knots).
    gain : float
        The gain.
    bounds : tuple of two floats
        c of both.
    prior_scale : float
        Mean absolute value of both under a Laplace prior.
    """

    def __init__(
        self,
        space: Workspace,
        knots: Tensor,
        is_free: Tensor,
        weights: Sequence[Tensor],
        *,
        gain: float,
        bounds: tuple[float, float],
        prior_scale: float,
    ) -> None:
        n_fits, m, n_knots = knots.shape
        self.space, self.knots, self.weights = space, knots, weights
        self.rate = -1 / prior_scale
        self.inner = [knots.new_tensor(gain / bound) for bound in bounds]
        self.outer = [is_free * bound for bound in bounds]
        self.widths = knots.diff(dim=2)
        # Sums of bins that give the distance of each knot from the one in the middle, which stays,
        # so that a tail that is drawn in does not shift the rest; and means of the two bins beside
        # each knot.
        places = torch.arange(n_knots, device=knots.device)
        bins = places[:-1, None]
        middle = (n_knots - 1) // 2
        before = (bins < places).int() - (bins < middle).int()
        beside = (bins == places).int() + (bins + 1 == places).int()
        beside[0, 0] = beside[-1, -1] = 2
        self.before = before.to(knots).expand(n_fits, -1, -1)
        self.beside = (0.5 * beside).to(knots).expand(n_fits, -1, -1)
        self.tanh, self.bounded = [], []
        for weight in weights:
            self.tanh.append(space.kept(*weight.shape[1:]))
            self.bounded.append(space.kept(*weight.shape[1:]))
        self.has_buffers = space.has_buffers
        self.size_by_part, self.log_prior = [space.kept(), space.kept()], space.kept()
        self.growth, self.heights = space.scratch(m, n_knots - 1), space.kept(m, n_knots - 1)
        self.parts: Any = [None] * 6
        if self.has_buffers:
            # Written once, in parts: neither kept nor scratch.
            self.table = space.new(6, m, n_knots)
            self.table.zero_()
            self.parts = self.table.unbind(1)
            self.parts[0].copy_(knots)
            self.parts[1][:, :, :-1] = self.widths
            self.inner_heights, self.inner_next = (self.table[:, i, :, :-1] for i in (2, 5))
            self.later_slopes = self.table[:, 4, :, 1:]

    def _bounded(self, i: int) -> Tensor:
        tanh = torch.tanh(
            torch.mul(self.weights[i], self.inner[i], out=self.tanh[i]), out=self.tanh[i]
        )
        return torch.mul(tanh, self.outer[i], out=self.bounded[i])

    def parameter_log_prior(self) -> Tensor:
        """Return the log-density (K,) of the weights, but for a constant.

        Laplace: with a hundred rows in a bin their number varies by a tenth by chance, and that is
        not to be learned, while a heavy tail may have what it needs.
        """
        bounded = self.bounded if self.has_buffers else [self._bounded(0), self._bounded(1)]
        parts = zip(bounded, self.size_by_part, strict=True)
        sizes = [torch.linalg.vector_norm(part, 1, (1, 2), out=out) for part, out in parts]
        total = torch.add(*sizes, out=self.log_prior)
        return torch.mul(total, self.rate, out=self.log_prior)

    def forward(self) -> Tensor:
        """Return the table (K, 6, m, n_knots)."""
        _, _, _, of_ordinates, of_slopes, _ = self.parts
        log_ratios, log_slopes = self._bounded(0), self._bounded(1)
        growth = torch.expm1(log_ratios, out=self.growth)
        growth = torch.mul(growth, self.widths, out=self.growth)
        ordinates = torch.baddbmm(self.knots, growth, self.before, out=of_ordinates)
        slopes = torch.baddbmm(log_slopes, log_ratios, self.beside, out=of_slopes)
        slopes = torch.exp(slopes, out=of_slopes)
        heights = torch.exp(log_ratios, out=self.heights)
        heights = torch.mul(heights, self.widths, out=self.heights)
        if self.has_buffers:
            self.inner_heights.copy_(heights)
            self.inner_next.copy_(self.later_slopes)
            return self.table
        return knot_table(self.knots, self.widths, heights, ordinates, slopes)

    def prepare_backward(self, grad_table: Tensor, gradients: Sequence[Tensor]) -> None:
        """Take the gradient (K, 4, m, n_knots) of the table and where that of the weights goes."""
        self.grad_heights, self.grad_ordinates, self.grad_slopes, grad_next = grad_table.unbind(1)
        self.grad_heights, self.grad_next = self.grad_heights[:, :, :-1], grad_next[:, :, :-1]
        self.later_grad_slopes = self.grad_slopes[:, :, 1:]
        self.slopes = self.table[:, 4]
        self.grad_ratios = self.space.scratch(*self.heights.shape[1:])
        self.signs = [self.space.scratch(*bounded.shape[1:]) for bounded in self.bounded]
        self.gradients = gradients
        self.factors = [outer * inner for outer, inner in zip(self.outer, self.inner, strict=True)]
        self.log_prior_rate = self.space.scratch(1, 1)

    def backward(self, grad_log_prior: Tensor) -> None:
        """Write the gradients of the weights, given that (K, 1, 1) of the log-prior."""
        self.later_grad_slopes.add_(self.grad_next)
        self.grad_slopes.mul_(self.slopes)
        grad_ratios = self.grad_ratios
        torch.baddbmm(self.grad_heights, self.grad_ordinates, self.before.mT, out=grad_ratios)
        grad_ratios.mul_(self.heights)
        grad_ratios.baddbmm_(self.grad_slopes, self.beside.mT)
        torch.mul(grad_log_prior, self.rate, out=self.log_prior_rate)
        for i, grad in enumerate((grad_ratios, self.grad_slopes)):
            torch.sign(self.bounded[i], out=self.signs[i])
            grad.addcmul_(self.signs[i], self.log_prior_rate)
            tanh_backward(grad, self.tanh[i], grad_input=grad)
            torch.mul(grad, self.factors[i], out=self.gradients[i])


def knot_table(
    knots: Tensor, widths: Tensor, heights: Tensor, ordinates: Tensor, slopes: Tensor
) -> Tensor:
    """Return the table of a `KnotMap` from its rows, (..., m, n_knots) and one less for bins."""
    pad, end = torch.constant_pad_nd, (0, 1)
    later = pad(slopes[..., 1:], end)
    return torch.stack([knots, pad(widths, end), pad(heights, end), ordinates, slopes, later], -3)


class MarginalSplineKernel(Kernel):
    """All columns mapped by splines of their own, in place.

    Parameters
    ----------
    wiring : Wiring
        With knots and `is_free` as constants.
    **numbers : Any
        Those of a `MarginalTable`.
    """

    def __init__(self, wiring: Wiring, **numbers: Any) -> None:
        space = wiring.space
        self.z, self.grad_z = wiring.x, wiring.grad_x
        knots, is_free = wiring.constants
        self.table = MarginalTable(space, knots, is_free, wiring.weights, **numbers)
        given = space, self.table.table, self.z.shape[1:]
        self.map = KnotMap(*given, inverse=wiring.inverse, log_slope=wiring.log_slopes)
        self.trains = space.trains
        if self.trains:
            self.log_prior = self.table.log_prior
            self.map.prepare_backward()
            self.table.prepare_backward(self.map.grad_table, wiring.gradients)
            self.grad_log_det, self.grad_log_prior = wiring.grad_log_det, wiring.grad_log_prior

    def forward(self) -> None:
        self.table.forward()
        if self.trains:
            self.table.parameter_log_prior()
        self.map.forward(self.z)

    def backward(self) -> None:
        self.map.backward(self.grad_z, self.grad_log_det)
        self.table.backward(self.grad_log_prior)
