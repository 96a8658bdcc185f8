"""One monotone spline for all columns."""

import math

import torch
from torch import Tensor, nn

from .base import Bijection

__all__ = ["SharedSpline"]


class SharedSpline(Bijection):
    """Monotone rational-quadratic spline (Durkan et al., NeurIPS 2019), the same for every column.

    The abscissae of the knots are quantiles of the data and stay fixed, heights and slopes are
    learned; outside the knots the map is linear. Grey values pile up at black and white. Where half
    of the pixels are black, an interval of a 256th of the range holds half of the mass, with an
    edge that no affine map of a normal law can render and one spline can.

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
    def start(self, x: Tensor) -> Tensor:
        """Map the pooled values of a batch to a normal law; return the batch mapped."""
        n_bins = len(self.log_heights)
        values = x.double().flatten().sort().values
        position = torch.linspace(0, len(values) - 1, n_bins + 1, dtype=torch.float64)
        knots = values[position.round().long()]
        # Ties would give bins of no width.
        width = knots[-1] - knots[0]
        width = torch.where(width > 0, width, 1.0)
        step = width * 1e-4 * torch.arange(n_bins + 1, dtype=torch.float64)
        knots = (knots - step).cummax(0).values + step
        # Of equal mass, the outer bins reaching to where a normal law has a hundredth of theirs.
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

    def _table(self) -> tuple[Tensor, Tensor]:
        """Return the ordinates of the knots and the constants of the bins, a row for each."""
        heights, slopes = self.log_heights.exp(), self.log_slopes.exp()
        ordinates = torch.cat([self.first, self.first + heights.cumsum(0)])
        widths = self.knots.diff()
        columns = [self.knots[:-1], widths, ordinates[:-1], heights, slopes[:-1], slopes[1:]]
        return ordinates, torch.stack(columns, dim=1)

    @staticmethod
    def _curve(share: Tensor, constants: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return ordinates and log-slopes at a share of the bin."""
        _, width, start, height, left, right = constants
        slope = height / width
        product = share * (1 - share)
        denominator = slope + (left + right - 2 * slope) * product
        z = start + height * (slope * share.square() + left * product) / denominator
        numerator = right * share.square() + 2 * slope * product + left * (1 - share).square()
        return z, torch.log(numerator * (slope / denominator).square())

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        _, table = self._table()
        inner = x.clamp(self.knots[0], self.knots[-1])
        bins = torch.bucketize(inner, self.knots[1:-1], right=True)
        constants = table[bins].unbind(-1)
        z, log_slope = self._curve((inner - constants[0]) / constants[1], constants)
        z = z + (x - inner) * log_slope.exp()
        return z, log_slope.sum(dim=1)

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        ordinates, table = self._table()
        inner = torch.minimum(torch.maximum(z, ordinates[0]), ordinates[-1])
        bins = torch.bucketize(inner, ordinates[1:-1].detach(), right=True)
        constants = table[bins].unbind(-1)
        knot, width, start, height, left, right = constants
        slope = height / width
        rise = inner - start
        bend = rise * (left + right - 2 * slope)
        a = height * (slope - left) + bend
        b = height * left - bend
        c = -slope * rise
        root = (b.square() - 4 * a * c).clamp_min(0).sqrt()
        share = 2 * c / (-b - root)
        _, log_slope = self._curve(share, constants)
        x = knot + share * width + (z - inner) * torch.exp(-log_slope)
        return x, -log_slope.sum(dim=1)
