"""Monotone rational-quadratic splines."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tape import Pass
from .coupling import Coupling
from .curve import CurveTape, curve
from .elementwise import ElementwiseMap, MapTape

__all__ = ["SplineCoupling", "SplineMap"]

_softplus = torch._C._nn.softplus
_softmax_backward = torch.ops.aten._softmax_backward_data.out
_softplus_backward = torch.ops.aten.softplus_backward.grad_input


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
    ends: Tensor

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
        # Rows of a table at both ends of a bin: of abscissae and ordinates, and of slopes, where
        # that at both ends of the curve comes first.
        lower = torch.arange(n_bins)
        ends = torch.stack([lower, lower + 1])
        self.register_buffer("ends", torch.stack([ends, ends, ends % n_bins]), persistent=False)

    def _curve(self, v: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        n_bins = self.n_bins
        flat = v.flatten()
        # Bins come first: reductions over a short last dimension take twenty times as long.
        params = params.movedim(1, 0).flatten(1)
        slopes, logits = params.split([n_bins - 1, 2 * n_bins])
        shares = logits.view(2, n_bins, -1).softmax(dim=1)
        edges = self.min_size * self.steps + self.free_size * (self.cumulate @ shares)
        # Clamped, no row can leave the bins and bring in NaN.
        inside = flat.clamp(-self.bound, self.bound)
        ends = self.ends.index_select(2, (edges[int(inverse), 1:-1] <= inside).sum(dim=0))
        lower, upper = edges.gather(1, ends[:2]).unbind(1)
        raw_slopes = torch.constant_pad_nd(slopes, (0, 0, 1, 0)).gather(0, ends[2])
        slopes = F.softplus(raw_slopes + self.offset) + self.min_slope
        mapped, log_slope = curve(inside, lower, upper - lower, slopes, inverse)
        # Beyond the ends v moves by zero.
        return (mapped + (flat - inside)).view(v.shape), log_slope.view(v.shape)

    def map(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = self._curve(x, params, inverse=False)
        return z, log_slope.sum(dim=1)

    def inverse_map(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x, log_slope = self._curve(z, params, inverse=True)
        return x, log_slope.sum(dim=1)

    def tape(self, run: Pass, n_columns: int) -> "_SplineTape":
        return _SplineTape(self, run, n_columns)


class _SplineTape(MapTape):
    """Abscissae, ordinates and slopes of the knots are one table (3, K + 1, m n).

    The row of the last slope is not used: that at both ends of the curve comes first, and is where
    the parameters of the slopes end.
    """

    def __init__(self, spline: SplineMap, run: Pass, n_columns: int) -> None:
        self.spline, self.run = spline, run
        self.shape = (n_columns, run.n_rows)
        self.memory = self._memory()
        n_edges = 2 * (spline.n_bins + 1)
        run.call(self.memory[n_edges].zero_)
        self.params = self._params(self.memory)
        self.log_slope = run.take_log_slopes(n_columns)

    def _memory(self) -> Tensor:
        """Return rows (5 K + 2, m n) for edges, the slope at the ends, and parameters."""
        return self.run.scratch(5 * self.spline.n_bins + 2, math.prod(self.shape))

    def _table(self, memory: Tensor) -> Tensor:
        n_knots = self.spline.n_bins + 1
        return memory[: 3 * n_knots].view(3, n_knots, -1)

    def _params(self, memory: Tensor) -> Tensor:
        return memory[2 * self.spline.n_bins + 3 :].view(-1, self.shape[1])

    def _logits(self, memory: Tensor) -> Tensor:
        return memory[3 * self.spline.n_bins + 2 :].view(2, self.spline.n_bins, -1)

    def forward(self, v: Tensor) -> None:
        spline, run, call = self.spline, self.run, self.run.call
        table, logits = self._table(self.memory), self._logits(self.memory)
        flat = v.view(-1)
        self.shares = run.like(logits)
        call(torch.softmax, logits, 1, out=self.shares)
        # As a product with a constant triangle the cumulated sum costs half.
        factors = {"beta": spline.min_size, "alpha": spline.free_size}
        call(torch.baddbmm, spline.steps, spline.cumulate, self.shares, out=table[:2], **factors)
        inside = run.scratch(len(flat))
        call(torch.clamp, flat, -spline.bound, spline.bound, out=inside)
        edges = table[int(run.inverse), 1:-1]
        is_beyond = run.scratch(*edges.shape, dtype=torch.bool)
        call(torch.le, edges, inside, out=is_beyond)
        k = run.scratch(len(flat), dtype=torch.long)
        call(torch.sum, is_beyond, 0, out=k)
        # In a third of the time of a look-up.
        self.ends = run.memory(3, 2, len(flat), dtype=torch.long)
        call(torch.add, spline.ends[:, :, :1], k, out=self.ends)
        call(self.ends[2, 1].remainder_, spline.n_bins)
        ends = run.memory(3, 2, len(flat))
        call(torch.gather, table, 1, self.ends, out=ends)
        size, slopes = run.like(ends[:2, 1]), run.like(ends[2])
        call(torch.sub, ends[:2, 1], ends[:2, 0], out=size)
        self.raw_slopes = ends[2]
        call(self.raw_slopes.add_, run.constant(spline.offset))
        call(_softplus, self.raw_slopes, 1, 20, out=slopes)
        call(slopes.add_, run.constant(spline.min_slope))
        corner, size, slopes = (part.view(2, *self.shape) for part in (ends[:2, 0], size, slopes))
        self.curve = CurveTape(run, corner, size, slopes, self.log_slope)
        mapped = self.curve.forward(inside.view_as(v))
        self.is_inside = run.like(v, torch.bool)
        call(torch.eq, v, inside.view_as(v), out=self.is_inside)
        call(torch.where, self.is_inside, mapped, v, out=v)

    def backward(self, grad: Tensor) -> Tensor:
        spline, run, call = self.spline, self.run, self.run.call
        memory = self._memory()
        table = self._table(memory)
        of_ends = run.memory(3, 2, table.shape[2])
        (of_left, of_right), (of_bottom, of_top), of_slopes = of_ends.view(3, 2, *self.shape)
        grad_v, grad_x, grad_z = self.curve.backward(
            grad,
            run.times_grad_log_det(-1.0) if run.inverse else run.grad_log_det,
            of_ends[:2, 1].view(2, *self.shape),
            of_slopes,
        )
        call(torch.add, grad_x, of_right, out=of_left)
        call(of_left.neg_)
        call(torch.sub, grad_z, of_top, out=of_bottom)
        call(_softplus_backward, of_ends[2], self.raw_slopes, 1, 20, grad_input=of_ends[2])
        call(table.zero_)
        call(table.scatter_, 1, self.ends, of_ends)
        of_shares = run.like(self.shares)
        cumulate = spline.cumulate.mT * spline.free_size
        call(torch.bmm, cumulate, table[:2], out=of_shares)
        logits = self._logits(memory)
        call(_softmax_backward, of_shares, self.shares, 1, memory.dtype, grad_input=logits)
        call(torch.where, self.is_inside, grad_v, grad, out=grad)
        return self._params(memory)


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
