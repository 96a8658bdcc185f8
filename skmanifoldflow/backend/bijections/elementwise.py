"""Monotone maps of single columns, with the parameters that a conditioner gives them."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["AffineMap", "ElementwiseMap", "ShiftMap"]


class ElementwiseMap(nn.Module, ABC):
    """Monotone map of every entry of rows (n, m) by parameters (n, `n_params`, m) of its own.

    Both methods return the mapped rows and the log-determinant per row, shape (n,). With all
    parameters zero the map is the identity.
    """

    n_params: int

    @abstractmethod
    def map(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to latent."""

    @abstractmethod
    def inverse_map(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Map latent to data."""


class ShiftMap(ElementwiseMap):
    """Shift z = x + t."""

    n_params = 1

    def map(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return x + params[:, 0], x.new_zeros(len(x))

    def inverse_map(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return z - params[:, 0], z.new_zeros(len(z))


class AffineMap(ElementwiseMap):
    """Affine map z = x exp(s) + t.

    The log-scale is bounded softly, s = c tanh(r / c) with c = 2, so that no row can overflow.

    Parameters
    ----------
    volume_preserving : bool, default=False
        Subtract from the log-scales their mean over the columns.
    """

    n_params = 2
    max_log_scale = 2.0

    def __init__(self, volume_preserving: bool = False) -> None:
        super().__init__()
        self.volume_preserving = volume_preserving

    def _constants(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the shifts, the bounded log-scales and the sum of these per row."""
        shift, raw = params.unbind(dim=1)
        log_scale = self.max_log_scale * torch.tanh(raw / self.max_log_scale)
        if self.volume_preserving:
            log_scale = log_scale - log_scale.mean(dim=1, keepdim=True)
            return shift, log_scale, raw.new_zeros(len(raw))
        return shift, log_scale, log_scale.sum(dim=1)

    def map(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale, log_det = self._constants(params)
        return torch.addcmul(shift, x, log_scale.exp()), log_det

    def inverse_map(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale, log_det = self._constants(params)
        return (z - shift) * torch.exp(-log_scale), -log_det
