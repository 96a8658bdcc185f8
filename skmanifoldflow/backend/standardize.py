"""Standardisation of rows, with the log-determinant of its Jacobian."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .column_maps import ColumnMaps

__all__ = ["SignedOrder", "Standardizer"]

# Rows on the boundary of a bounded column are moved inside by this share of its width, where the
# logit is finite.
_BOUNDARY = 1e-6


class _Moments(NamedTuple):
    """Moments (D,) of rows that came in blocks, and what tells whether they vary.

    `departure` is the largest distance from the first row, `largest` the largest absolute value.
    """

    n: float
    mean: Tensor
    variance: Tensor
    first: Tensor
    departure: Tensor
    largest: Tensor

    @classmethod
    def of(cls, rows: Tensor, weights: Tensor | None, before: "_Moments | None") -> "_Moments":
        """Return the moments of rows and of those before (Chan, Golub & LeVeque, 1983)."""
        n = float(len(rows)) if weights is None else float(weights.sum())
        mean = rows.mean(0) if weights is None else weights @ rows / n
        squares = (rows - mean).square()
        variance = squares.mean(0) if weights is None else weights @ squares / n
        first = rows[0] if before is None else before.first
        departure, largest = (rows - first).abs().amax(0), rows.abs().amax(0)
        if before is None:
            return cls(n, mean, variance, first, departure, largest)
        total, difference = before.n + n, mean - before.mean
        share = n / total
        return cls(
            total,
            before.mean + share * difference,
            torch.lerp(before.variance, variance, share) + share * (1 - share) * difference**2,
            first,
            torch.maximum(before.departure, departure),
            torch.maximum(before.largest, largest),
        )


class SignedOrder(NamedTuple):
    """Another order of columns, some of which change their sign.

    Attributes
    ----------
    order : Tensor of int of shape (D,)
        Index of the column that takes each place.
    signs : Tensor of shape (D,)
        1 or -1, by place, in float64.
    """

    order: Tensor
    signs: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows (n, D) with their columns in this order and with these signs."""
        return rows[:, self.order] * self.signs

    def inverse(self, rows: Tensor) -> Tensor:
        """Return rows (n, D) with their columns in the original order, with their own signs."""
        return (rows * self.signs)[:, self.order.argsort()]

    def mirrored(self, uniform: Tensor) -> Tensor:
        """Return uniform numbers (n, D) in the original order, u as 1 - u where the sign is -1."""
        uniform = torch.where(self.signs < 0, 1 - uniform, uniform)
        return uniform[:, self.order.argsort()]


class Standardizer(nn.Module):
    """Centre and scale each column, or channel of images, after maps of single columns.

    Standardised rows may have their columns in an order of their own.

    Computes in float64 on the CPU, whatever the dtype and device of the flow: a column far from
    zero keeps its digits, and a common factor of a power of two changes nothing but the Jacobian.

    Parameters
    ----------
    n_features : int
        Number of columns.
    bounds : tuple of two floats or None, default=None
        Interval that contains every value, mapped by a logit; None for the whole line.
    image_shape : tuple of three ints or None, default=None
        (C, H, W) of rows that are images, each channel of which has one mean and one scale.
    isotropic : bool, default=False
        One scale for all columns, which keeps angles.
    maps : ColumnMaps or None, default=None
        Maps of columns that come first, in the place of `bounds`.
    signed_order : SignedOrder or None, default=None
        Order and signs of the columns of standardised rows; None leaves them as they are.

    Attributes
    ----------
    mean, scale : Tensor of shape (D,)
        Of mapped columns in their order within standardised rows.
    """

    mean: Tensor
    scale: Tensor
    order: Tensor | None
    signs: Tensor | None

    def __init__(
        self,
        n_features: int,
        bounds: tuple[float, float] | None = None,
        image_shape: tuple[int, int, int] | None = None,
        isotropic: bool = False,
        maps: ColumnMaps | None = None,
        signed_order: SignedOrder | None = None,
    ) -> None:
        super().__init__()
        self.maps = maps
        self.bounds = bounds
        self.isotropic = isotropic
        self.n_channels = image_shape[0] if image_shape else None
        self.register_buffer("order", signed_order and signed_order.order)
        self.register_buffer("signs", signed_order and signed_order.signs)
        self.register_buffer("mean", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_features, dtype=torch.float64))

    @property
    def signed_order(self) -> SignedOrder | None:
        """Order and signs of the columns of standardised rows, None where they are unchanged."""
        if self.order is None or self.signs is None:
            return None
        return SignedOrder(self.order, self.signs)

    def fit(self, rows: Tensor) -> "Standardizer":
        """Take mean and scale from float64 rows of shape (n, D).

        The scale of a constant column with value c is max(|c|, 1).
        """
        return self.fit_blocks([(rows, None)])

    def fit_blocks(
        self, blocks: Iterable[tuple[Tensor, Tensor | None]], pooling: float = 0.0
    ) -> "Standardizer":
        """Take mean and scale from rows block by block, with the weights (n,) of each or None.

        The logarithms of the scales of columns that vary are drawn to their mean by a share
        `pooling` of the way.
        """
        moments: _Moments | None = None
        for rows, weights in blocks:
            n_features = rows.shape[1]
            moments = _Moments.of(self._columns(rows), self._repeated(rows, weights), moments)
        assert moments is not None
        eps = torch.finfo(torch.float64).eps
        # A few units in the last place of the values are rounding, not variation.
        is_constant = moments.departure <= 4 * eps * moments.largest
        # Where all values are equal their mean can still be off by a rounding error.
        mean = torch.where(is_constant, moments.first, moments.mean)
        scale = torch.where(is_constant, mean.abs().clamp_min(1.0), moments.variance.sqrt())
        if self.isotropic and not bool(is_constant.all()):
            scale = moments.variance.mean().sqrt().expand(len(mean))
        if pooling:
            of_varying = scale[~is_constant].log()
            scale[~is_constant] = torch.lerp(of_varying, of_varying.mean(), pooling).exp()
        self.mean = mean.repeat_interleave(n_features // len(mean))
        self.scale = scale.repeat_interleave(n_features // len(scale))
        return self

    def _columns(self, rows: Tensor) -> Tensor:
        """Return rows without bounds, those of images as pixels (n H W, C)."""
        rows, _ = self._unbound(rows)
        if self.n_channels is None:
            return rows
        rows = rows.view(len(rows), self.n_channels, -1).transpose(1, 2)
        return rows.reshape(-1, self.n_channels)

    def _repeated(self, rows: Tensor, weights: Tensor | None) -> Tensor | None:
        """Return the weights of rows as those of `_columns`."""
        if weights is None or self.n_channels is None:
            return weights
        return weights.repeat_interleave(rows.shape[1] // self.n_channels)

    def _unbound(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows to R^D and put their columns in order; return the log-determinant too."""
        rows, log_det = self._mapped(rows)
        order = self.signed_order
        return rows if order is None else order.forward(rows), log_det

    def _mapped(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Map columns, or the box, to R^D; return rows and log-determinant, -inf outside of it."""
        if self.maps is not None:
            return self.maps.forward_and_log_det(rows)
        if self.bounds is None:
            return rows, rows.new_zeros(len(rows))
        low, high = self.bounds
        share = (rows - low) / (high - low)
        inside = ((share >= 0) & (share <= 1)).all(dim=1)
        share = share.clamp(_BOUNDARY, 1 - _BOUNDARY)
        log_det = -(torch.log(share * (1 - share) * (high - low))).sum(dim=1)
        return torch.logit(share), torch.where(inside, log_det, -torch.inf)

    def forward_and_log_det(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardised float64 rows (n, D) and the log-determinant (n,)."""
        rows, log_det = self._unbound(rows)
        return (rows - self.mean) / self.scale, log_det - self.scale.log().sum()

    def log_crowding(self, rows: Tensor) -> Tensor:
        """Return how close to each other the values of mapped columns are at rows, in nats (n,)."""
        return rows.new_zeros(len(rows)) if self.maps is None else self.maps.log_crowding(rows)

    def inverse(self, rows: Tensor) -> Tensor:
        """Return float64 rows (n, D) in data units."""
        rows = self._unscaled(rows)
        if self.maps is not None:
            return self.maps.inverse(rows)
        if self.bounds is None:
            return rows
        low, high = self.bounds
        return low + (high - low) * torch.sigmoid(rows)

    def _unscaled(self, rows: Tensor) -> Tensor:
        """Return mapped rows in the order of the data."""
        rows, order = rows * self.scale + self.mean, self.signed_order
        return rows if order is None else order.inverse(rows)

    def rounded(self, rows: Tensor) -> Tensor:
        """Return rows in data units with the values that discrete columns and atoms have."""
        return rows if self.maps is None else self.maps.rounded(rows)

    def inverse_slope(self, rows: Tensor) -> Tensor:
        """Return the derivatives (n, D) of columns in units of the data at standardised rows.

        Each is that of the column which takes a place, by the standardised one in that place.
        """
        if self.maps is not None:
            slope = self.maps.inverse_slope(self._unscaled(rows))
        elif self.bounds is None:
            slope = torch.ones_like(rows)
        else:
            low, high = self.bounds
            share = torch.sigmoid(self._unscaled(rows))
            slope = (high - low) * share * (1 - share)
        order = self.signed_order
        return (slope if order is None else order.forward(slope)) * self.scale
