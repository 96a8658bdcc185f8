"""Monotone rational-quadratic splines."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tape import Pass
from .coupling import Coupling
from .elementwise import ElementwiseMap, MapTape

__all__ = ["SplineCoupling", "SplineMap", "curve_gradient", "curve_parts", "curve_value"]


_softmax_backward = torch.ops.aten._softmax_backward_data.out
_softplus_backward = torch.ops.aten.softplus_backward.grad_input


# As tensors they cost half of the call that numbers cost; they are exact in every dtype.
_ONE, _TWO = torch.tensor(1.0), torch.tensor(2.0)


class CurveParts(NamedTuple):
    """What value, log-slope and gradient of a rational-quadratic curve are made of."""

    start: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor
    s: Tensor
    slopes: Tensor
    # The rest to the right of the point and the share xi to its left, (2, ...), and their squares.
    shares: Tensor
    squares: Tensor
    q: Tensor
    t: Tensor
    denominator: Tensor
    numerator: Tensor
    level: Tensor
    log_slope: Tensor


def curve_parts(
    v: Tensor, corner: Tensor, size: Tensor, slopes: Tensor, inverse: bool
) -> CurveParts:
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
    rest = _ONE - xi
    shares = torch.stack([rest, xi])
    squares = shares * shares
    other, square = squares.unbind()
    q = xi * rest
    denominator = torch.addcmul(s, t, q)
    numerator = torch.addcmul(d0 * other, d1, square).addcmul(s, q, value=2)
    level = torch.addcmul(s * square, d0, q) / denominator
    # Two logarithms, since the square of a ratio of slopes may underflow.
    log_slope = torch.add(numerator.log(), (s / denominator).log(), alpha=2)
    return CurveParts(
        start, bottom, width, height, s, slopes, shares, squares, q, t,
        denominator, numerator, level, log_slope,
    )  # fmt: skip


def curve_value(parts: CurveParts, inverse: bool) -> Tensor:
    """Return the abscissa or the ordinate of the point."""
    if inverse:
        return torch.addcmul(parts.start, parts.width, parts.shares[1])
    return torch.addcmul(parts.bottom, parts.height, parts.level)


def curve_gradient(
    parts: CurveParts, grad: Tensor, grad_log: Tensor, inverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of values, and, stacked, of corners, sizes and slopes of a curve.

    Given are those of the mapped values and of the log-slopes.
    """
    _, _, width, height, s, slopes, shares, squares, q, t = parts[:10]
    denominator, numerator, level, log_slope = parts[10:]
    rest, xi = shares.unbind()
    top = grad_log / numerator
    side = grad_log / denominator
    # Half the derivatives of numerator and denominator along the bin.
    twist = rest - xi
    d0, d1 = slopes.unbind()
    steepening = torch.addcmul(d1 * xi, s, twist).addcmul_(d0, rest, value=-1)
    bend = torch.addcmul(steepening.mul_(top), side, twist.mul_(t), value=-1)
    bend = bend.mul_(_TWO).div_(width)
    slope = log_slope.exp()
    if inverse:
        # x = f^-1(z; p) has dx = (dz - f_p dp) / f', and the log-slope is that of f at x.
        grad_v = bend.add_(grad).div_(slope)
        grad_x, grad_z = -grad, -grad_v
    else:
        grad_v = grad_x = torch.addcmul(bend, grad, slope)
        grad_z = grad
    over = grad_z * height / denominator
    under = torch.addcmul(side.mul_(_TWO), over, level)
    grad_slopes = torch.stack([over - under, -under]).mul_(q).addcmul_(squares, top)
    grad_s = torch.addcmul(over * squares[1], under + top, q, value=2).sub_(under)
    grad_s = torch.add(grad_s, grad_log / s, alpha=2).div_(width)
    grad_width = torch.addcmul(grad_x * xi, grad_s, s).neg_()
    grad_height = torch.addcmul(grad_s, grad_z, level)
    corners = torch.stack([-grad_x, grad_z])
    return grad_v, corners, torch.stack([grad_width, grad_height]), grad_slopes


class _Bins(NamedTuple):
    """Bins of every value and where it falls."""

    inside: Tensor
    shares: Tensor
    k: Tensor
    raw_slopes: Tensor


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
    knots: Tensor
    bins: Tensor

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
        bins = torch.arange(n_bins)
        self.register_buffer("bins", bins[:, None], persistent=False)
        # Edges and slopes at both ends of a bin; the slopes at both ends of the curve are one.
        neighbours = torch.stack([bins, bins + 1])
        self.register_buffer("neighbours", neighbours, persistent=False)
        self.register_buffer("knots", neighbours % n_bins, persistent=False)

    def locate(self, v: Tensor, table: Tensor, inverse: bool) -> tuple[_Bins, CurveParts]:
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
        k = (edges[int(inverse), 1:-1] <= inside).sum(dim=0)
        neighbours = self.neighbours.index_select(1, k)
        lower, upper = edges.gather(1, neighbours.expand(2, 2, -1)).unbind(1)
        raw_slopes = knots.gather(0, self.knots.index_select(1, k)) + self.offset
        slopes = F.softplus(raw_slopes) + self.min_slope
        parts = curve_parts(inside, lower, upper - lower, slopes, inverse)
        return _Bins(inside, shares, k, raw_slopes), parts

    @staticmethod
    def join(v: Tensor, bins: _Bins, parts: CurveParts, inverse: bool) -> tuple[Tensor, Tensor]:
        """Return v mapped and the log-slopes dz/dx there; beyond the ends v moves by zero."""
        return curve_value(parts, inverse) + (v - bins.inside), parts.log_slope

    def _curve(self, v: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        table = torch.constant_pad_nd(params.movedim(1, 0), (0, 0, 0, 0, 1, 0)).flatten(1)
        flat = v.flatten()
        mapped, log_slope = self.join(flat, *self.locate(flat, table, inverse), inverse)
        return mapped.view(v.shape), log_slope.view(v.shape)

    def map(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = self._curve(x, params, inverse=False)
        return z, log_slope.sum(dim=1)

    def inverse_map(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x, log_slope = self._curve(z, params, inverse=True)
        return x, -log_slope.sum(dim=1)

    def tape(self, run: Pass, n_columns: int) -> "_SplineTape":
        return _SplineTape(self, run, n_columns)


class _SplineTape(MapTape):
    def __init__(self, spline: SplineMap, run: Pass, n_columns: int) -> None:
        self.spline, self.inverse = spline, run.inverse
        n_bins = spline.n_bins
        rows = run.columns(3 * n_bins * n_columns)
        rows[:n_columns].zero_()
        self.params = rows[n_columns:]
        self.table = rows.view(3 * n_bins, -1)
        self.log_det = run.columns(1)[0]
        if run.keeps:
            grad_rows = torch.empty_like(rows)
            self.grad_params = grad_rows[n_columns:]
            self.grad_knots, grad_logits = grad_rows.view_as(self.table).split([n_bins, 2 * n_bins])
            self.grad_logits = grad_logits.view(2, n_bins, -1)

    def forward(self, v: Tensor, out: Tensor) -> None:
        flat = v.reshape(-1)
        self.bins, self.parts = self.spline.locate(flat, self.table, self.inverse)
        mapped, log_slope = self.spline.join(flat, self.bins, self.parts, self.inverse)
        self.is_inside = flat == self.bins.inside
        out.copy_(mapped.view_as(out))
        assert self.log_det is not None
        torch.sum(log_slope.view_as(v), 0, out=self.log_det)
        if self.inverse:
            self.log_det.neg_()

    def backward(self, grad: Tensor, grad_log_det: Tensor, out: Tensor) -> None:
        if self.inverse:
            grad_log_det = -grad_log_det
        grad_log_slope = grad_log_det.expand_as(grad).reshape(-1)
        flat, spline, (_, shares, k, raw_slopes) = grad.reshape(-1), self.spline, self.bins
        grad_v, corners, sizes, slopes = curve_gradient(
            self.parts, flat, grad_log_slope, self.inverse
        )
        torch.where(self.is_inside, grad_v, flat, out=out.view(-1))
        # Of a share: it moves the corners of the bins after it, and makes its own bin larger. What
        # is the same for all shares has no part in the gradient, since they add up to 1.
        of_shares = torch.where(spline.bins < k, corners[:, None], 0.0)
        of_shares.scatter_add_(1, k.expand(2, 1, -1), sizes[:, None]).mul_(spline.free_size)
        _softmax_backward(of_shares, shares, 1, shares.dtype, grad_input=self.grad_logits)
        _softplus_backward(slopes, raw_slopes, 1, 20, grad_input=slopes)
        self.grad_knots.zero_().scatter_(0, spline.knots.index_select(1, k), slopes)


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
