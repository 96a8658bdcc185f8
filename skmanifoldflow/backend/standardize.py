"""Standardisation of rows, with the log-determinant of its Jacobian."""

import torch
from torch import Tensor, nn

__all__ = ["Standardizer"]

# Rows on the boundary of a bounded column are moved inside by this share of its width, where the
# logit is finite.
_BOUNDARY = 1e-6


class Standardizer(nn.Module):
    """Centre and scale each column, or channel of images, after a logit where they are bounded.

    Computes in float64 on the CPU, whatever the dtype and device of the flow: a column far from
    zero keeps its digits, and a common factor of a power of two changes nothing but the Jacobian.

    Parameters
    ----------
    n_features : int
        Number of columns.
    bounds : tuple of two floats or None, default=None
        Interval that contains every value; None for the whole line.
    image_shape : tuple of three ints or None, default=None
        (C, H, W) of rows that are images, each channel of which has one mean and one scale.
    isotropic : bool, default=False
        One scale for all columns, which keeps angles.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        n_features: int,
        bounds: tuple[float, float] | None = None,
        image_shape: tuple[int, int, int] | None = None,
        isotropic: bool = False,
    ) -> None:
        super().__init__()
        self.bounds = bounds
        self.isotropic = isotropic
        self.n_channels = image_shape[0] if image_shape else None
        self.register_buffer("mean", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_features, dtype=torch.float64))

    def fit(self, rows: Tensor) -> "Standardizer":
        """Take mean and scale from float64 rows of shape (n, D).

        The scale of a constant column with value c is max(|c|, 1).
        """
        rows, _ = self._unbound(rows)
        n_features = rows.shape[1]
        if self.n_channels is not None:
            rows = rows.view(len(rows), self.n_channels, -1).transpose(1, 2)
            rows = rows.reshape(-1, self.n_channels)
        mean = rows.mean(0)
        variance = (rows - mean).square().mean(0)
        eps = torch.finfo(torch.float64).eps
        # A few units in the last place of the values are rounding, not variation.
        is_constant = (rows - rows[0]).abs().amax(0) <= 4 * eps * rows.abs().amax(0)
        # Where all values are equal their mean can still be off by a rounding error.
        mean = torch.where(is_constant, rows[0], mean)
        scale = torch.where(is_constant, mean.abs().clamp_min(1.0), variance.sqrt())
        if self.isotropic and not bool(is_constant.all()):
            scale = variance.mean().sqrt().expand(len(mean))
        self.mean = mean.repeat_interleave(n_features // len(mean))
        self.scale = scale.repeat_interleave(n_features // len(scale))
        return self

    def _unbound(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Map the box to R^D; return the rows and the log-determinant, -inf outside the box."""
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

    def inverse(self, rows: Tensor) -> Tensor:
        """Return float64 rows (n, D) in data units."""
        rows = rows * self.scale + self.mean
        if self.bounds is None:
            return rows
        low, high = self.bounds
        return low + (high - low) * torch.sigmoid(rows)

    def inverse_slope(self, rows: Tensor) -> Tensor:
        """Return the derivative (n, D) of each column of `inverse` at standardised rows."""
        if self.bounds is None:
            return self.scale.expand_as(rows)
        low, high = self.bounds
        share = torch.sigmoid(rows * self.scale + self.mean)
        return (high - low) * share * (1 - share) * self.scale
