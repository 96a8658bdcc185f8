"""Monotone rational-quadratic splines."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tape import Pass
from .coupling import Coupling
from .elementwise import ElementwiseMap, MapTape

__all__ = ["SplineCoupling", "SplineMap", "curve_parts", "curve_value"]


class _Parts(NamedTuple):
    """What value, log-slope and gradient of a rational-quadratic curve are made of."""

    start: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor
    s: Tensor
    d0: Tensor
    d1: Tensor
    xi: Tensor
    rest: Tensor
    square: Tensor
    other: Tensor
    q: Tensor
    t: Tensor
    denominator: Tensor
    numerator: Tensor
    level: Tensor
    log_slope: Tensor


def curve_parts(v: Tensor, corner: Tensor, size: Tensor, slopes: Tensor, inverse: bool) -> _Parts:
    """Evaluate eq. 4 and 5, or for the inverse eq. 29, of Durkan et al. (NeurIPS 2019).

    Of the bin of each entry: the lower left `corner`, width and height, and the slopes at its ends,
    each stacked along the first dimension.
    """
    start, bottom = corner.unbind()
    width, height = size.unbind()
    d0, d1 = slopes.unbind()
    s = height / width
    t = torch.sub(d0 + d1, s, alpha=2)
    if inverse:
        rise = v - bottom
        bend = rise * t
        a = height * (s - d0) + bend
        b = height * d0 - bend
        c = s * rise
        # The root in the bin, in the form that does not cancel; rounding can make the discriminant
        # negative where it vanishes.
        xi = 2 * c / (b + (b * b + 4 * a * c).clamp(min=0).sqrt())
    else:
        xi = (v - start) / width
    rest = 1 - xi
    square, other, q = xi * xi, rest * rest, xi * rest
    denominator = torch.addcmul(s, t, q)
    numerator = torch.addcmul(d0 * other, d1, square).addcmul(s, q, value=2)
    level = torch.addcmul(s * square, d0, q) / denominator
    # Two logarithms, since the square of a ratio of slopes may underflow.
    log_slope = torch.add(numerator.log(), (s / denominator).log(), alpha=2)
    return _Parts(
        start, bottom, width, height, s, d0, d1, xi, rest, square, other, q, t,
        denominator, numerator, level, log_slope,
    )  # fmt: skip


def curve_value(parts: _Parts, inverse: bool) -> Tensor:
    """Return the abscissa or the ordinate of the point."""
    if inverse:
        return torch.addcmul(parts.start, parts.width, parts.xi)
    return torch.addcmul(parts.bottom, parts.height, parts.level)


def _curve_gradient(
    parts: _Parts, grad: Tensor, grad_log: Tensor, inverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient with respect to values, corners and slopes of a curve."""
    _, _, width, height, s, d0, d1, xi, rest, square, other, q, t = parts[:13]
    denominator, numerator, level, log_slope = parts[13:]
    double = 2 * grad_log
    # Derivative of half the log-slope along the bin.
    twist = rest - xi
    bend = torch.addcmul(d1 * xi, s, twist).addcmul(d0, rest, value=-1) / numerator
    bend = bend - t * twist / denominator
    grad_bend = double * bend / width
    slope = log_slope.exp()
    if inverse:
        # x = f^-1(z; p) has dx = (dz - f_p dp) / f', and the log-slope is that of f at x.
        grad_v = (grad + grad_bend) / slope
        grad_x, grad_z = -grad, -grad_v
    else:
        grad_v = grad_x = torch.addcmul(grad_bend, grad, slope)
        grad_z = grad
    over = grad_z * height / denominator
    under = torch.addcmul(double / denominator, over, level)
    top = grad_log / numerator
    grad_s = torch.addcmul(over * square, under + top, q, value=2) - under + double / s
    grad_s = grad_s / width
    grad_width = torch.addcmul(grad_x * xi, grad_s, s)
    grad_height = torch.addcmul(grad_s, grad_z, level)
    grad_corners = torch.stack(
        [grad_width - grad_x, -grad_width, grad_z - grad_height, grad_height]
    ).unflatten(0, (2, 2))
    grad_d0 = torch.addcmul(top * other, over - under, q)
    grad_d1 = torch.addcmul(top * square, under, q, value=-1)
    return grad_v, grad_corners, torch.stack([grad_d0, grad_d1])


class _Bins(NamedTuple):
    """Bins of every entry and where its value falls."""

    inside: Tensor
    shares: Tensor
    k: Tensor
    slopes: Tensor


class _ClosedForm(torch.autograd.Function):
    """A `SplineMap` with its gradient in closed form.

    The number of operations decides how long a step takes, and automatic differentiation visits
    twice as many.
    """

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, table: Tensor, spline: "SplineMap", inverse: bool
    ) -> tuple[Tensor, Tensor]:
        located = spline.locate(v, table, inverse)
        ctx.spline, ctx.inverse, ctx.located = spline, inverse, located
        ctx.save_for_backward(v, table)
        return spline.join(v, *located, inverse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        v, table = ctx.saved_tensors
        spline: SplineMap = ctx.spline
        located = ctx.located
        if torch.is_grad_enabled():
            # The gradient will itself be differentiated, so it has to start from the inputs.
            located = spline.locate(v, table, ctx.inverse)
        return *spline.gradient(v, *located, *grads, ctx.inverse), None, None


class SplineMap(ElementwiseMap):
    """Monotone rational-quadratic spline on [-B, B], the identity outside.

    Parameters of an entry are the logarithms of the relative widths and heights of the K bins, from
    which a softmax makes shares of the interval, and the slopes at the K - 1 inner knots before a
    softplus. The slope is 1 at both ends, so the map is continuously differentiable.

    Parameters
    ----------
    n_bins : int, default=8
        Number of bins K >= 2.
    bound : float, default=5.0
        B, in standardised units.
    """

    # Shares of the interval and slopes that no bin and no knot can fall below: without them a bin
    # may vanish in float32, and the inverse with it.
    min_share = 1e-3
    min_slope = 1e-3

    cumulate: Tensor
    steps: Tensor
    neighbours: Tensor

    def __init__(self, n_bins: int = 8, bound: float = 5.0) -> None:
        super().__init__()
        if not 2 <= n_bins < 1 / self.min_share:
            raise ValueError(f"n_bins must be between 2 and 999, got {n_bins}.")
        self.n_bins = n_bins
        self.n_params = 3 * n_bins - 1
        self.bound = float(bound)
        self.min_size = 2 * self.bound * self.min_share
        self.free_size = 2 * self.bound - n_bins * self.min_size
        # softplus(offset) + min_slope = 1
        self.offset = math.log(math.expm1(1 - self.min_slope))
        # Edge j lies at (j - K / 2) min_size + (sum of the shares before it - 1 / 2) free_size, and
        # the shares add up to 1. These constants are exact in every dtype.
        ones = torch.ones(2, n_bins + 1, n_bins).tril(-1)
        self.register_buffer("cumulate", ones - 0.5, persistent=False)
        steps = torch.arange(n_bins + 1)[:, None] - n_bins / 2
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("neighbours", torch.tensor([[0], [1]]), persistent=False)

    def locate(self, v: Tensor, table: Tensor, inverse: bool) -> tuple[_Bins, _Parts]:
        """Find the bin of every value of (n,) and evaluate its curve.

        A column of the table (3 K, n) holds 0, which stands for the slope at both ends, and the
        parameters of a value. Bins come first: reductions over a short last dimension take twenty
        times as long.
        """
        n_bins = self.n_bins
        knots, logits = table.split([n_bins, 2 * n_bins])
        shares = logits.view(2, n_bins, len(v)).softmax(dim=1)
        # As a product with a constant triangle the cumulated sum costs half.
        edges = torch.baddbmm(
            self.steps, self.cumulate, shares, beta=self.min_size, alpha=self.free_size
        )
        # Clamped, no row can leave the bins and bring in NaN.
        inside = v.clamp(-self.bound, self.bound)
        k = (edges[int(inverse), 1:-1] <= inside).sum(dim=0) + self.neighbours
        corners = edges.gather(1, k.expand(2, 2, -1))
        slopes = F.softplus(knots.gather(0, k % n_bins) + self.offset) + self.min_slope
        lower, upper = corners.unbind(1)
        parts = curve_parts(inside, lower, upper - lower, slopes, inverse)
        return _Bins(inside, shares, k, slopes), parts

    @staticmethod
    def join(v: Tensor, bins: _Bins, parts: _Parts, inverse: bool) -> tuple[Tensor, Tensor]:
        """Return v mapped and the log-slopes dz/dx there; beyond the ends v moves by zero."""
        return curve_value(parts, inverse) + (v - bins.inside), parts.log_slope

    def gradient(
        self,
        v: Tensor,
        bins: _Bins,
        parts: _Parts,
        grad: Tensor,
        grad_log_slope: Tensor,
        inverse: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of values and table, given those of values and log-slopes."""
        _, shares, k, slopes = bins
        grad_v, grad_corners, grad_slopes = _curve_gradient(parts, grad, grad_log_slope, inverse)
        grad_v = torch.where(v.abs() <= self.bound, grad_v, grad)
        grad_edges = shares.new_zeros(2, self.n_bins + 1, len(v))
        grad_edges.scatter_(1, k.expand(2, 2, -1), self.free_size * grad_corners)
        weighted = torch.bmm(self.cumulate.mT, grad_edges) * shares
        grad_logits = torch.addcmul(weighted, shares, weighted.sum(1, keepdim=True), value=-1)
        # The softplus has the derivative 1 - exp(-softplus).
        grad_knots = -torch.expm1(self.min_slope - slopes) * grad_slopes
        grad_knots = torch.zeros_like(shares[0]).scatter(0, k % self.n_bins, grad_knots)
        return grad_v, torch.cat([grad_knots, grad_logits.flatten(0, 1)])

    def curve(
        self, v: Tensor, params: Tensor, inverse: bool, *, closed_form: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return rows mapped and the log-slopes dz/dx there, each (n, m).

        Without the closed form the gradient is left to automatic differentiation.
        """
        table = torch.constant_pad_nd(params.movedim(1, 0), (0, 0, 0, 0, 1, 0)).flatten(1)
        flat = v.flatten()
        # torch.func cannot look into the closed form.
        if closed_form and not torch._C._are_functorch_transforms_active():
            mapped, log_slope = _ClosedForm.apply(flat, table, self, inverse)
        else:
            mapped, log_slope = self.join(flat, *self.locate(flat, table, inverse), inverse)
        return mapped.view(v.shape), log_slope.view(v.shape)

    def map(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = self.curve(x, params, inverse=False)
        return z, log_slope.sum(dim=1)

    def inverse_map(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x, log_slope = self.curve(z, params, inverse=True)
        return x, -log_slope.sum(dim=1)

    def tape(self, run: Pass, n_columns: int) -> "_SplineTape":
        return _SplineTape(self, run, n_columns)


class _SplineTape(MapTape):
    def __init__(self, spline: SplineMap, run: Pass, n_columns: int) -> None:
        self.spline, self.inverse = spline, run.inverse
        rows = run.columns(3 * spline.n_bins * n_columns)
        rows[:n_columns].zero_()
        self.params = rows[n_columns:]
        self.table = rows.view(3 * spline.n_bins, -1)
        self.log_det = run.columns(1)[0]
        if run.keeps:
            grad_rows = torch.empty_like(rows)
            self.grad_params = grad_rows[n_columns:]
            self.grad_table = grad_rows.view_as(self.table)

    def forward(self, v: Tensor, out: Tensor) -> None:
        self.flat = v.reshape(-1)
        self.bins, self.parts = self.spline.locate(self.flat, self.table, self.inverse)
        mapped, log_slope = self.spline.join(self.flat, self.bins, self.parts, self.inverse)
        out.copy_(mapped.view_as(out))
        assert self.log_det is not None
        torch.sum(log_slope.view_as(v), 0, out=self.log_det)
        if self.inverse:
            self.log_det.neg_()

    def backward(self, grad: Tensor, grad_log_det: Tensor, out: Tensor) -> None:
        if self.inverse:
            grad_log_det = -grad_log_det
        grad_log_slope = grad_log_det.expand_as(grad).reshape(-1)
        grad_v, grad_table = self.spline.gradient(
            self.flat, self.bins, self.parts, grad.reshape(-1), grad_log_slope, self.inverse
        )
        out.copy_(grad_v.view_as(out))
        self.grad_table.copy_(grad_table)


class SplineCoupling(Coupling):
    """Spline coupling (neural spline flow, Durkan et al., NeurIPS 2019), see `SplineMap`.

    Parameters are those of `Coupling`, and:

    n_bins : int, default=8
        Number of bins.
    bound : float, default=5.0
        The map is the identity outside [-bound, bound].
    """

    def __init__(
        self,
        n_features: int,
        n_transformed: int,
        hidden_layer_sizes: Sequence[int],
        *,
        generator: torch.Generator,
        n_context: int = 0,
        n_bins: int = 8,
        bound: float = 5.0,
    ) -> None:
        super().__init__(
            n_features,
            n_transformed,
            SplineMap(n_bins, bound),
            hidden_layer_sizes,
            generator=generator,
            n_context=n_context,
        )
