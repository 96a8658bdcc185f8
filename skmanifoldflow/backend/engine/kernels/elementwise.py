"""Shifts and affine maps of entries."""

from typing import Any

import torch
from torch import Tensor

from ...torch_private import sigmoid_backward
from .base import ElementwiseKernel, Entries

__all__ = ["AffineKernel", "ShiftKernel"]


class ShiftKernel(ElementwiseKernel):
    """z = x + t with parameters t."""

    def __init__(self, entries: Entries) -> None:
        space, self.sign = entries.space, -1 if entries.inverse else 1
        self.params = space.scratch(*entries.shape)
        if space.trains:
            self.grad_params = space.scratch(*entries.shape)

    def forward(self, v: Tensor) -> Tensor:
        return v.add_(self.params, alpha=self.sign)

    def backward(self, grad: Tensor) -> None:
        torch.mul(grad, self.sign, out=self.grad_params)


class AffineKernel(ElementwiseKernel):
    """z = x exp(s) + t with s = c tanh(r / 2), written s = 2 c sigmoid(r) - c: a fifth of the time.

    Parameters
    ----------
    entries : Entries
        With parameters t and r.
    bound : float
        c.
    is_centred : bool
        Whether the mean of s over the columns is taken off, so that volume is preserved.
    """

    shift: Tensor
    raw: Tensor
    grad_shift: Tensor
    grad_raw: Tensor
    log_scale: Any
    moved: Any

    def __init__(self, entries: Entries, bound: float, is_centred: bool) -> None:
        space, (m, n) = entries.space, entries.shape
        self.inverse, self.is_centred = entries.inverse, is_centred
        # Of the direction taken.
        self.bound = -bound if entries.inverse else bound
        self.params = space.scratch(2 * m, n)
        self.shift, self.raw = self.params.chunk(2, 1)
        self.offset, self.rate = (self.params.new_tensor(c * self.bound) for c in (-1, 2))
        self.sigmoid, self.scale = space.kept(m, n), space.kept(m, n)
        self.moved = None if entries.inverse else space.kept(m, n)
        self.log_slope = None if is_centred else entries.log_slope
        self.log_scale = self.scale if is_centred else entries.log_slope
        self.mean = space.scratch(1, n)
        if space.trains:
            self.grad_params = space.scratch(2 * m, n)
            self.grad_shift, self.grad_raw = self.grad_params.chunk(2, 1)
            self.grad_log_det = entries.grad_log_det

    def forward(self, v: Tensor) -> Tensor:
        log_scale = self.log_scale
        torch.sigmoid(self.raw, out=self.sigmoid)
        torch.add(self.offset, self.sigmoid, alpha=2 * self.bound, out=log_scale)
        if self.is_centred:
            torch.mean(log_scale, 1, keepdim=True, out=self.mean)
            log_scale.sub_(self.mean)
        torch.exp(log_scale, out=self.scale)
        if self.inverse:
            self.moved = v.sub_(self.shift).mul_(self.scale)
            return self.moved
        torch.mul(v, self.scale, out=self.moved)
        return torch.add(self.moved, self.shift, out=v)

    def backward(self, grad: Tensor) -> None:
        # d z / d log-scale is what has been scaled.
        if self.is_centred:
            torch.mul(grad, self.moved, out=self.grad_raw)
            torch.mean(self.grad_raw, 1, keepdim=True, out=self.mean)
            self.grad_raw.sub_(self.mean)
        else:
            torch.addcmul(self.grad_log_det, grad, self.moved, out=self.grad_raw)
        self.grad_raw.mul_(self.rate)
        sigmoid_backward(self.grad_raw, self.sigmoid, grad_input=self.grad_raw)
        if self.inverse:
            grad.mul_(self.scale)
            torch.neg(grad, out=self.grad_shift)
        else:
            self.grad_shift.copy_(grad)
            grad.mul_(self.scale)
