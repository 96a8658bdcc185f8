"""Rational-quadratic splines whose bins a conditioner gives."""

import math

import torch
from torch import Tensor

from ...torch_private import softmax_backward, softplus, softplus_backward
from .base import ElementwiseKernel, Entries
from .rational_quadratic import RationalQuadratic

__all__ = ["SplineKernel"]


class SplineKernel(ElementwiseKernel):
    """Monotone rational-quadratic splines of entries, the identity beyond the bound.

    Abscissae, ordinates and slopes of the knots are a table (K, 3, n_bins + 1, m n), of which the
    parameters are the last rows: the slope at both ends of the curve comes first, so the row of the
    last slope is not used. Edge j lies at (j - n_bins / 2) min_size + (sum of the shares before it
    - 1 / 2) free_size, and the shares add up to 1.

    Parameters
    ----------
    entries : Entries
        With parameters: slopes before a softplus, and logarithms of widths and heights before a
        softmax.
    n_bins : int
        Number of bins.
    bound : float
        Ends of the interval.
    min_share, min_slope : float
        Least share of a bin, and least slope.
    """

    def __init__(
        self, entries: Entries, n_bins: int, bound: float, min_share: float, min_slope: float
    ) -> None:
        space, shape, inverse = entries.space, entries.shape, entries.inverse
        b, (m, n) = n_bins, shape
        self.n_bins, self.bound, self.inverse = n_bins, bound, inverse
        self.space, self.shape = space, shape
        self.has_buffers, self.log_slope = space.has_buffers, entries.log_slope
        self.inside = space.scratch(*shape)
        self.is_beyond = space.scratch(b - 1, m * n, dtype=torch.bool)
        self.bin = space.scratch(m * n, dtype=torch.long)
        self.ends = space.kept(3, 2, m * n, dtype=torch.long)
        # Corners of the bins and raw slopes, each at both ends.
        self.at_ends = space.kept(3, 2, *shape)
        self.size, self.slopes = space.kept(2, *shape), space.kept(2, *shape)
        self.is_inside = space.kept(*shape, dtype=torch.bool)
        if entries.params is None:
            self.table, self.logits, self.params = self._views()
        else:
            self.params = entries.params
        # Constants, which are exact in every dtype: j - n_bins / 2, and what makes sums of shares,
        # less 1 / 2.
        min_size = 2 * bound * min_share
        self.factors = {"beta": min_size, "alpha": 2 * bound - b * min_size}
        like, first = self.params, torch.arange(b, device=self.params.device)
        self.steps = torch.arange(b + 1, device=like.device).to(like)[:, None] - b / 2
        cumulate = like.new_ones(b + 1, b).tril(-1) - 0.5
        # Slopes are softplus(raw + offset) + min_slope, and 1 where raw is zero.
        self.offset = like.new_tensor(math.log(math.expm1(1 - min_slope)))
        self.min_slope = like.new_tensor(min_slope)
        # Rows of the table at both ends of a bin: of abscissae, of ordinates, and of slopes.
        ends = torch.stack([first, first + 1])
        self.rows_at_ends = torch.stack([ends, ends, ends % b])
        if entries.params is not None:
            self.cumulate = cumulate.expand(2, -1, -1)
            return
        self.slope_at_ends = self.table[:, 2, 0]
        self.shares = space.kept(2, b, m * n)
        if space.n_fits > 1:
            # Products and softmax of all fits are one call where there are no gaps between them.
            self.shares = self.logits.new_empty(self.logits.shape)
        self.flat_shares = self.shares.flatten(0, 1)
        self.cumulate = cumulate.expand(len(self.flat_shares), -1, -1)
        self.edges, self.copies = self._batched(self.table[:, :2])
        self.inner_edges = self.table[:, int(inverse), 1:-1]
        self.first_ends, self.flat_at_ends = self.rows_at_ends[:, :, :1], self.at_ends.flatten(3)
        self.bin_of_ends, self.last_of_slopes = self.bin[:, None, None], self.ends[:, 2, 1]
        self.inside_of_edges = self.inside.flatten(1)[:, None]
        self.corner, self.far_corner = self.at_ends[:, :2].unbind(2)
        self.raw_slopes = self.at_ends[:, 2]
        bins = self.corner, self.size, self.slopes
        self.curve = RationalQuadratic(space, *bins, inverse, self.log_slope)
        if not space.trains:
            return
        self.grad_log_det = entries.grad_log_det
        # Of the curve, whatever the direction, and the same for all columns.
        self.grad_log = space.scratch(1, n) if inverse else self.grad_log_det
        self.grad_table, self.grad_logits, self.grad_params = self._views()
        self.grad_at_ends = space.scratch(3, 2, *shape)
        self.flat_grad_at_ends = self.grad_at_ends.flatten(3)
        grad_corner, grad_size = self.grad_at_ends[:, :2].unbind(2)
        self.grad_start, self.grad_bottom = grad_corner.unbind(1)
        self.grad_width, self.grad_height = grad_size.unbind(1)
        self.grad_slopes = self.grad_at_ends[:, 2]
        given = self.grad_log.expand(-1, m, -1), grad_size, self.grad_slopes
        self.curve.prepare_backward(space, *given)
        self.cumulate_back = self.cumulate.mT * self.factors["alpha"]
        self.grad_edges, self.copies_before = self._batched(self.grad_table[:, :2])
        self.flat_grad_logits, self.copies_after = self._batched(self.grad_logits)
        self.grad_shares = torch.empty_like(self.flat_shares)

    def _views(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return table, logits and parameters, which overlap in memory (K, 5 n_bins + 2, m n)."""
        b, (m, n) = self.n_bins, self.shape
        memory = self.space.scratch(5 * b + 2, m * n)
        table = memory[:, : 3 * (b + 1)].unflatten(1, (3, b + 1))
        logits = memory[:, 3 * b + 2 :].unflatten(1, (2, b))
        return table, logits, memory[:, 2 * b + 3 :].view(len(memory), (3 * b - 1) * m, n)

    @staticmethod
    def _batched(view: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return memory (2 K, ...) for a view (K, 2, ...), and what to copy between them."""
        if len(view) == 1:
            return view.flatten(0, 1), []
        memory = view.new_empty(view.shape)
        return memory.flatten(0, 1), [(view, memory)]

    def _cumulate(self, shares: Tensor, out: Tensor | None) -> Tensor:
        """Return edges (2 K, n_bins + 1, m n): as a product with a triangle the sum costs half."""
        return torch.baddbmm(self.steps, self.cumulate, shares, **self.factors, out=out)

    def forward(self, v: Tensor) -> Tensor:
        if self.has_buffers:
            torch.softmax(self.logits, 2, out=self.shares)
            self._cumulate(self.flat_shares, self.edges)
            for view, memory in self.copies:
                view.copy_(memory)
            self.slope_at_ends.zero_()
            table, inner_edges = self.table, self.inner_edges
        else:
            table = self._table_for_autograd()
            inner_edges = table[:, int(self.inverse), 1:-1]
        # Clamped, no row can leave the bins and bring in NaN.
        inside = torch.clamp(v, -self.bound, self.bound, out=self.inside)
        of_edges = self.inside_of_edges if self.has_buffers else inside.flatten(1)[:, None]
        is_beyond = torch.le(inner_edges, of_edges, out=self.is_beyond)
        k = torch.sum(is_beyond, 1, out=self.bin)
        if self.has_buffers:
            # In a third of the time of a look-up.
            torch.add(self.first_ends, self.bin_of_ends, out=self.ends)
            self.last_of_slopes.remainder_(self.n_bins)
            torch.gather(table, 2, self.ends, out=self.flat_at_ends)
            corner, far_corner, raw_slopes = self.corner, self.far_corner, self.raw_slopes
        else:
            ends = self.rows_at_ends.index_select(2, k.flatten())[None]
            at_ends = torch.gather(table, 2, ends).unflatten(3, self.shape)
            (corner, far_corner), raw_slopes = at_ends[:, :2].unbind(2), at_ends[:, 2]
        size = torch.sub(far_corner, corner, out=self.size)
        raw_slopes = torch.add(
            raw_slopes, self.offset, out=raw_slopes if self.has_buffers else None
        )
        slopes = softplus(raw_slopes, 1, 20, out=self.slopes)
        slopes = torch.add(slopes, self.min_slope, out=self.slopes)
        if not self.has_buffers:
            self.curve = RationalQuadratic(self.space, corner, size, slopes, self.inverse)
        curve = self.curve
        mapped = curve.forward(inside)
        self.log_slope = curve.log_slope
        is_inside = torch.eq(v, inside, out=self.is_inside)
        return torch.where(is_inside, mapped, v, out=v if self.has_buffers else None)

    def _table_for_autograd(self) -> Tensor:
        b, (m, n) = self.n_bins, self.shape
        slopes, logits = self.params.split([(b - 1) * m, 2 * b * m], 1)
        shares = torch.softmax(logits.reshape(2, b, m * n), 1)
        edges = self._cumulate(shares, None)[None]
        # Below the slope at the ends, and above the row that is not used.
        end = slopes.new_zeros(1, 1, m * n)
        slopes = torch.cat([end, slopes.reshape(1, b - 1, m * n), end], 1)
        return torch.cat([edges, slopes[:, None]], 1)

    def backward(self, grad: Tensor) -> None:
        curve, grad_slopes = self.curve, self.grad_slopes
        if self.inverse:
            torch.neg(self.grad_log_det, out=self.grad_log)
        curve.backward(grad)
        torch.add(curve.grad_x, self.grad_width, out=self.grad_start)
        self.grad_start.neg_()
        torch.sub(curve.grad_z, self.grad_height, out=self.grad_bottom)
        softplus_backward(grad_slopes, self.raw_slopes, 1, 20, grad_input=grad_slopes)
        self.grad_table.zero_()
        self.grad_table.scatter_(2, self.ends, self.flat_grad_at_ends)
        for view, memory in self.copies_before:
            memory.copy_(view)
        torch.bmm(self.cumulate_back, self.grad_edges, out=self.grad_shares)
        given = self.grad_shares, self.flat_shares, 1, self.shares.dtype
        softmax_backward(*given, grad_input=self.flat_grad_logits)
        for view, memory in self.copies_after:
            view.copy_(memory)
        torch.where(self.is_inside, curve.grad_v, grad, out=grad)
