"""Monotone maps of single columns, with the parameters that a conditioner gives them."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..tape import Pass

__all__ = ["AffineMap", "ElementwiseMap", "MapTape", "ShiftMap"]

_tanh_backward = torch.ops.aten.tanh_backward.grad_input


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

    @abstractmethod
    def tape(self, run: Pass, n_columns: int) -> "MapTape":
        """Return a tape for m = `n_columns` columns."""


class MapTape(ABC):
    """An `ElementwiseMap` in one pass.

    Attributes
    ----------
    params : Tensor of shape (`n_params` * m, n)
        Memory for the parameters, set before each use.
    grad_params : Tensor of the same shape
        Memory for their gradient.
    log_det : Tensor of shape (n,) or None
        Log-determinants, None where they are zero.
    """

    params: Tensor
    grad_params: Tensor
    log_det: Tensor | None = None

    @abstractmethod
    def forward(self, v: Tensor, out: Tensor) -> None:
        """Map columns (m, n) into `out`."""

    @abstractmethod
    def backward(self, grad: Tensor, grad_log_det: Tensor, out: Tensor) -> None:
        """Put the gradient of the columns into `out`, given those of the results."""


class ShiftMap(ElementwiseMap):
    """Shift z = x + t."""

    n_params = 1

    def map(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return x + params[:, 0], x.new_zeros(len(x))

    def inverse_map(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return z - params[:, 0], z.new_zeros(len(z))

    def tape(self, run: Pass, n_columns: int) -> "_ShiftTape":
        return _ShiftTape(run, n_columns)


class _ShiftTape(MapTape):
    def __init__(self, run: Pass, n_columns: int) -> None:
        self.sign = -1 if run.inverse else 1
        self.params = run.columns(n_columns)
        if run.keeps:
            self.grad_params = run.columns(n_columns)

    def forward(self, v: Tensor, out: Tensor) -> None:
        torch.add(v, self.params, alpha=self.sign, out=out)

    def backward(self, grad: Tensor, grad_log_det: Tensor, out: Tensor) -> None:
        out.copy_(grad)
        torch.mul(grad, self.sign, out=self.grad_params)


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

    def tape(self, run: Pass, n_columns: int) -> "_AffineTape":
        return _AffineTape(self, run, n_columns)


class _AffineTape(MapTape):
    """The log-scale is that of the direction taken."""

    def __init__(self, affine: AffineMap, run: Pass, n_columns: int) -> None:
        self.volume_preserving = affine.volume_preserving
        self.bound = run.constant(affine.max_log_scale)
        self.signed_bound = -self.bound if run.inverse else self.bound
        self.inverse = run.inverse
        self.params = run.columns(2 * n_columns)
        self.shift, self.raw = self.params.split(n_columns)
        self.tanh, self.scale = run.columns(n_columns), run.columns(n_columns)
        self.log_det = None if self.volume_preserving else run.columns(1)[0]
        if run.keeps:
            self.grad_params = run.columns(2 * n_columns)
            self.grad_shift, self.grad_raw = self.grad_params.split(n_columns)

    def forward(self, v: Tensor, out: Tensor) -> None:
        torch.div(self.raw, self.bound, out=self.tanh).tanh_()
        log_scale = torch.mul(self.tanh, self.signed_bound, out=self.scale)
        if self.log_det is None:
            log_scale.sub_(log_scale.mean(0))
        else:
            torch.sum(log_scale, 0, out=self.log_det)
        scale = log_scale.exp_()
        if self.inverse:
            torch.sub(v, self.shift, out=out).mul_(scale)
            self.scaled = out
        else:
            torch.addcmul(self.shift, v, scale, out=out)
            self.scaled = v

    def backward(self, grad: Tensor, grad_log_det: Tensor, out: Tensor) -> None:
        torch.mul(grad, self.scale, out=out)
        # d z / d log-scale is v exp(log-scale), or (z - shift) exp(log-scale), which is the result.
        of_log_scale = torch.mul(grad if self.inverse else out, self.scaled, out=self.grad_raw)
        if self.log_det is None:
            of_log_scale.sub_(of_log_scale.mean(0))
        else:
            of_log_scale.add_(grad_log_det)
        _tanh_backward(of_log_scale, self.tanh, grad_input=of_log_scale)
        if self.inverse:
            of_log_scale.neg_()
            torch.neg(out, out=self.grad_shift)
        else:
            self.grad_shift.copy_(grad)
