"""Splines of single columns that are learned relative to the data."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..tape import Pass, Tape
from .curve import CurveTape
from .fused import FusedLayer
from .knot_spline import KnotSpline, merged_knots

__all__ = ["MarginalSpline"]

_tanh_backward = torch.ops.aten.tanh_backward.grad_input


class MarginalSpline(KnotSpline, FusedLayer):
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
    def start(self, x: Tensor) -> Tensor:
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

    def _bounded(self, raw: Tensor, bound: float) -> Tensor:
        return self.is_free * bound * torch.tanh(self.gain * raw / bound)

    def _log_ratios(self) -> Tensor:
        return self._bounded(self.log_ratios, self.max_log_ratio)

    def _log_slopes(self) -> Tensor:
        return self._bounded(self.log_slopes, self.max_log_slope)

    def parameter_log_prior(self) -> Tensor:
        # Laplace: with a hundred rows in a bin their number varies by a tenth by chance, and that
        # is not to be learned, while a heavy tail may have what it needs.
        size = self._log_ratios().abs().sum() + self._log_slopes().abs().sum()
        return -size / self.prior_scale

    def _table(self) -> tuple[Tensor, Tensor]:
        log_ratios, log_slopes = self._log_ratios(), self._log_slopes()
        ends = torch.cat([log_ratios[:, :1], log_ratios, log_ratios[:, -1:]], dim=1)
        log_slopes = (ends[:, 1:] + ends[:, :-1]) / 2 + log_slopes
        widths = self.knots.diff(dim=1)
        growth = (widths * torch.expm1(log_ratios)).cumsum(dim=1)
        # The knot in the middle stays, so that a tail that is drawn in does not shift the rest.
        middle = growth.shape[1] // 2
        growth = torch.constant_pad_nd(growth, (1, 0))
        ordinates = self.knots + (growth - growth[:, middle : middle + 1])
        table = torch.stack([self.knots, ordinates, log_slopes.exp()])
        return table, torch.stack([widths, widths * log_ratios.exp()])

    def weights(self) -> list[Tensor]:
        return [self.log_ratios, self.log_slopes]

    def tape(
        self, run: Pass, weights: Sequence[Tensor], grad_weights: Sequence[Tensor]
    ) -> "_MarginalTape":
        return _MarginalTape(self, run, weights, grad_weights)


class _MarginalTape(Tape):
    """The knots are a table (6, m, K + 1) of what is looked up for the bin of a value.

    Abscissa, width, height, ordinate, slope and the slope at the next knot.
    """

    in_place = True

    def __init__(
        self,
        spline: MarginalSpline,
        run: Pass,
        weights: Sequence[Tensor],
        grad_weights: Sequence[Tensor],
    ) -> None:
        self.run = run
        self.weights, self.grad_weights = weights, grad_weights
        # With a stack the curves of the fits for a column come one after the other.
        self.shape = (run.columns.shape[0], run.n_stack, run.n_rows // run.n_stack)
        knots, is_free = (self._by_column(t).flatten(0, 1) for t in (spline.knots, spline.is_free))
        m, n_knots = knots.shape
        self.table = knots.new_zeros(6, m, n_knots)
        self.table[0] = knots
        self.table[1, :, :-1] = knots.diff(dim=1)
        self.factors = [
            (spline.gain / bound, is_free * bound)
            for bound in (spline.max_log_ratio, spline.max_log_slope)
        ]
        # Sums of bins that give the distance of each knot from the one in the middle, and means of
        # the two bins beside each knot.
        bins, places = torch.arange(n_knots - 1)[:, None], torch.arange(n_knots)
        middle = (n_knots - 1) // 2
        before = (bins < places).int() - (bins < middle).int()
        beside = (bins == places).int() + (bins + 1 == places).int()
        beside[0, 0] = beside[-1, -1] = 2
        self.before, self.beside = before.to(knots), 0.5 * beside.to(knots)
        self.prior_scale = spline.prior_scale
        self.log_slope = run.take_log_slopes(self.shape[0]).view(m, -1)

    def _by_column(self, tensor: Tensor) -> Tensor:
        """Return a tensor of all fits (K, D, ...), or of one (D, ...), as (D, K, ...)."""
        return tensor.view(self.run.n_stack, self.shape[0], -1).transpose(0, 1)

    def _write_table(self) -> None:
        run, call = self.run, self.run.call
        knots, _, heights, ordinates, slopes, next_slopes = self.table
        self.tanh, self.bounded = [], []
        for raw, (inner, outer) in zip(self.weights, self.factors, strict=True):
            tanh, result = (run.memory(len(outer), raw.shape[-1]) for _ in range(2))
            by_column = tanh.view(*self.shape[:2], -1)
            call(torch.mul, self._by_column(raw), run.constant(inner), out=by_column)
            call(tanh.tanh_)
            call(torch.mul, tanh, outer, out=result)
            self.tanh.append(tanh)
            self.bounded.append(result)
        if run.trains:
            sizes = run.memory(2, run.n_stack)
            for bounded, size in zip(self.bounded, sizes, strict=True):
                by_fit = bounded.view(*self.shape[:2], -1)
                call(torch.linalg.vector_norm, by_fit, 1, (0, 2), out=size)
            self.log_prior = run.memory(run.n_stack)
            call(torch.sum, sizes, 0, out=self.log_prior)
            call(self.log_prior.mul_, -1 / self.prior_scale)
        log_ratios, log_slopes = self.bounded
        widths = self.table[1, :, :-1]
        growth = run.scratch(*log_ratios.shape)
        call(torch.expm1, log_ratios, out=growth)
        call(growth.mul_, widths)
        call(torch.addmm, knots, growth, self.before, out=ordinates)
        call(torch.addmm, log_slopes, log_ratios, self.beside, out=slopes)
        call(slopes.exp_)
        call(next_slopes[:, :-1].copy_, slopes[:, 1:])
        self.heights = run.like(log_ratios)
        call(torch.exp, log_ratios, out=self.heights)
        call(self.heights.mul_, widths)
        call(heights[:, :-1].copy_, self.heights)

    def forward(self, x: Tensor) -> Tensor:
        run, call = self.run, self.run.call
        self._write_table()
        columns, x = x, x.view(len(self.log_slope), -1)
        edges = self.table[3 if run.inverse else 0]
        inside = run.scratch(*x.shape)
        call(torch.maximum, x, edges[:, :1], out=inside)
        call(torch.minimum, inside, edges[:, -1:], out=inside)
        inner, self.k = edges[:, 1:-1].contiguous(), run.like(x, torch.long)
        if run.inverse:
            call(inner.copy_, edges[:, 1:-1])
        call(torch.searchsorted, inner, inside, right=True, out=self.k)
        found = run.memory(6, *x.shape)
        call(torch.gather, self.table, 2, self.k.expand(6, -1, -1), out=found)
        self.curve = CurveTape(run, found[0:4:3], found[1:3], found[4:], self.log_slope)
        mapped = self.curve.forward(inside)
        # Beyond the ends the map is linear with the slope at its end.
        self.beyond, self.slope = run.like(x), run.like(x)
        call(torch.sub, x, inside, out=self.beyond)
        call(torch.exp, self.log_slope, out=self.slope)
        call(torch.addcmul, mapped, self.beyond, self.slope, out=x)
        return columns

    def backward(self, grad: Tensor, needs_grad: bool) -> Tensor:
        run, call = self.run, self.run.call
        columns, grad = grad, grad.view_as(self.beyond)
        tail, grad_log = run.like(grad), run.like(grad)
        call(torch.mul, grad, self.slope, out=tail)
        beyond, of_log, of_log_det = (t.view(self.shape) for t in (self.beyond, grad_log, tail))
        of_rows = run.grad_log_det.view(self.shape[1:])
        call(torch.addcmul, of_rows, beyond, of_log_det, out=of_log)
        if run.inverse:
            call(grad_log.neg_)
        # Of width, height, ordinate, slope and next slope.
        of_bin = run.memory(5, *grad.shape)
        grad_v, _, grad_z = self.curve.backward(grad, grad_log, of_bin[:2], of_bin[3:])
        call(of_bin[2].copy_, grad_z)
        table = run.like(self.table[2:])
        call(table.zero_)
        call(table.scatter_add_, 2, self.k.expand(4, -1, -1), of_bin[1:])
        if run.inverse:
            self._add_ends(table[1], grad_v, tail)
        is_beyond = run.like(grad, torch.bool)
        call(torch.ne, self.beyond, run.constant(0.0), out=is_beyond)
        call(torch.where, is_beyond, tail, grad_v, out=grad)
        self._write_gradient(*table)
        return columns

    def _add_ends(self, of_ordinates: Tensor, grad_v: Tensor, tail: Tensor) -> None:
        """Add the gradients of the ends, from which values beyond are mapped."""
        run, call = self.run, self.run.call
        of_end, part = run.like(tail), run.like(tail)
        total, is_there = run.like(tail[:, 0]), run.like(tail, torch.bool)
        zero = run.constant(0.0)
        call(torch.sub, grad_v, tail, out=of_end)
        for compare, knot in ((torch.lt, 0), (torch.gt, -1)):
            call(compare, self.beyond, zero, out=is_there)
            call(torch.where, is_there, of_end, zero, out=part)
            call(torch.sum, part, 1, out=total)
            call(of_ordinates[:, knot].add_, total)

    def _write_gradient(
        self, of_heights: Tensor, of_ordinates: Tensor, of_slopes: Tensor, of_next: Tensor
    ) -> None:
        run, call = self.run, self.run.call
        call(of_slopes[:, 1:].add_, of_next[:, :-1])
        call(of_slopes.mul_, self.table[4])
        of_ratios = run.like(self.heights)
        call(torch.addmm, of_heights[:, :-1], of_ordinates, self.before.t(), out=of_ratios)
        call(of_ratios.mul_, self.heights)
        call(of_ratios.addmm_, of_slopes, self.beside.t())
        rate = run.memory()
        call(torch.mul, run.grad_log_prior, -1 / self.prior_scale, out=rate)
        for i, of_part in enumerate((of_ratios, of_slopes)):
            inner, outer = self.factors[i]
            sign = run.like(of_part)
            call(torch.sign, self.bounded[i], out=sign)
            call(of_part.addcmul_, sign, rate)
            call(_tanh_backward, of_part, self.tanh[i], grad_input=of_part)
            call(of_part.mul_, outer * inner)
            into = self._by_column(self.grad_weights[i])
            call(into.copy_, of_part.view_as(into))
