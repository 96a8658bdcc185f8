"""Monotone maps of single columns, with the parameters that a conditioner gives them."""

from abc import ABC, abstractmethod
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from ..engine import NO_BUFFERS
from ..engine.kernels import AffineKernel, ElementwiseKernel, Entries, ShiftKernel

__all__ = ["AffineMap", "ElementwiseMap", "ShiftMap"]


class ElementwiseMap(nn.Module, ABC):
    """Monotone map of every entry of rows by `n_params` parameters of its own.

    With all parameters zero it is the identity. The kernel has the formulas. Where these are short,
    `map` states them once more for rows, which saves autograd the way to columns and back.
    """

    n_params: int
    #: Whether slopes differ from one.
    has_log_slopes = True

    @abstractmethod
    def kernel(self, entries: Entries) -> ElementwiseKernel:
        """Return the formulas."""

    @abstractmethod
    def structure(self) -> Hashable:
        """Return what two maps have in common that can be trained as one."""

    def map(self, v: Tensor, params: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Map rows (n, m) by parameters (n, n_params, m), data to latent unless `inverse`.

        Return the results and the log-determinants (n,) of the direction taken.
        """
        columns = params.permute(1, 2, 0).flatten(0, 1)[None]
        kernel = self.kernel(Entries(NO_BUFFERS, (v.shape[1], v.shape[0]), inverse, columns))
        mapped = kernel.forward(v.mT[None])[0].mT
        if kernel.log_slope is None:
            return mapped, v.new_zeros(len(v))
        return mapped, kernel.log_slope[0].sum(0)

    def inverse_map(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Map latent to data."""
        return self.map(z, params, inverse=True)


class ShiftMap(ElementwiseMap):
    """Shift z = x + t."""

    n_params = 1
    has_log_slopes = False

    def structure(self) -> Hashable:
        return "shift"

    def map(self, v: Tensor, params: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        shift = params[:, 0]
        return (v - shift if inverse else v + shift), v.new_zeros(len(v))

    def kernel(self, entries: Entries) -> ShiftKernel:
        return ShiftKernel(entries)


class AffineMap(ElementwiseMap):
    """Affine map z = x exp(s) + t.

    The log-scale is bounded softly, s = c tanh(r / 2) with c = 2, so that no row can overflow.

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
        self.has_log_slopes = not volume_preserving

    def structure(self) -> Hashable:
        return "affine", self.volume_preserving, self.max_log_scale

    def map(self, v: Tensor, params: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        shift, raw = params.unbind(dim=1)
        bound = self.max_log_scale
        log_scale = 2 * bound * torch.sigmoid(raw) - bound
        log_det = log_scale.sum(dim=1)
        if self.volume_preserving:
            log_scale = log_scale - log_scale.mean(dim=1, keepdim=True)
            log_det = v.new_zeros(len(v))
        if inverse:
            return (v - shift) * torch.exp(-log_scale), -log_det
        return torch.addcmul(shift, v, log_scale.exp()), log_det

    def kernel(self, entries: Entries) -> AffineKernel:
        return AffineKernel(entries, self.max_log_scale, self.volume_preserving)
