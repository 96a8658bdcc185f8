"""Monotone maps of single columns, with the parameters that a conditioner gives them."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AffineMap", "ElementwiseMap", "ShiftMap"]

_tanh_backward = torch.ops.aten.tanh_backward.default


class ElementwiseMap(nn.Module, ABC):
    """Monotone map of every entry of rows (n, m) by parameters (n, `n_params`, m) of its own.

    Both methods return the mapped rows and the log-determinant per row, shape (n,). With all
    parameters zero the map is the identity.
    """

    n_params: int
    # Rows of zeros, for each column, that `evaluate` wants before the parameters.
    n_padding = 0

    @abstractmethod
    def map(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to latent."""

    @abstractmethod
    def inverse_map(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Map latent to data."""

    @abstractmethod
    def evaluate(
        self, v: Tensor, params: Tensor, inverse: bool
    ) -> tuple[Tensor, Tensor | None, Any]:
        """Map columns (m, n) by parameters (`n_params` * m, n), or back.

        Returns the columns mapped, their log-determinants (n,), None for zero, and what `pullback`
        needs.
        """

    @abstractmethod
    def pullback(
        self, kept: Any, grad: Tensor, grad_log_det: Tensor, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of columns and parameters, given those of the results."""


class ShiftMap(ElementwiseMap):
    """Shift z = x + t."""

    n_params = 1

    def map(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return x + params[:, 0], x.new_zeros(len(x))

    def inverse_map(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return z - params[:, 0], z.new_zeros(len(z))

    def evaluate(self, v: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, None, None]:
        return torch.add(v, params, alpha=-1 if inverse else 1), None, None

    def pullback(
        self, kept: None, grad: Tensor, grad_log_det: Tensor, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        return grad, -grad if inverse else grad


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

    def evaluate(
        self, v: Tensor, params: Tensor, inverse: bool
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        shift, raw = params[: len(v)], params[len(v) :]
        tanh = (raw / self.max_log_scale).tanh_()
        sign = -1.0 if inverse else 1.0
        # Of the direction taken.
        log_scale = sign * self.max_log_scale * tanh
        log_det = None
        if self.volume_preserving:
            log_scale = log_scale - log_scale.mean(0)
        else:
            log_det = log_scale.sum(0)
        scale = log_scale.exp_()
        if inverse:
            mapped = (v - shift).mul_(scale)
            return mapped, log_det, (mapped, tanh, scale)
        return torch.addcmul(shift, v, scale), log_det, (v, tanh, scale)

    def pullback(
        self, kept: tuple[Tensor, ...], grad: Tensor, grad_log_det: Tensor, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        rows, tanh, scale = kept
        grad_v = grad * scale
        # Of the log-scale of the direction taken.
        grad_log_scale = (grad if inverse else grad_v) * rows
        if self.volume_preserving:
            grad_log_scale = grad_log_scale - grad_log_scale.mean(0)
        else:
            grad_log_scale = grad_log_scale.add_(grad_log_det)
        grad_raw = _tanh_backward(grad_log_scale, tanh)
        if inverse:
            return grad_v, torch.cat([grad_v, grad_raw]).neg_()
        return grad_v, torch.cat([grad, grad_raw])
