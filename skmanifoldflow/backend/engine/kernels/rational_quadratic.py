"""Rational-quadratic curves through the bins of splines (Durkan et al., NeurIPS 2019)."""

from typing import Any

import torch
from torch import Tensor

from ..workspace import Workspace

__all__ = ["RationalQuadratic"]


def _parts(buffer: Tensor | None, n: int) -> Any:
    """Return the buffers that one of shape (K, n, ...) holds, or n times None."""
    return (None,) * n if buffer is None else buffer.unbind(1)


def _stacked(buffer: Tensor | None, *parts: Tensor) -> Tensor:
    """Return the buffer whose parts have been written, or stack what has no buffer."""
    return torch.stack(parts, 1) if buffer is None else buffer


class RationalQuadratic:
    """Eq. 4 and 5 of the source, or for the inverse eq. 29, with their gradient.

    Each entry has a bin of its own: the lower left corner, width and height, and the slopes at its
    ends. With `NO_BUFFERS` the same formulas are for autograd, without `backward`.

    Parameters
    ----------
    space : Workspace
        Gives out the buffers.
    corner, size, slopes : Tensor of shape (K, 2, ...)
        The bins, which are there before each `forward`.
    inverse : bool
        Whether abscissae are asked for.
    log_slope : Tensor of shape (K, ...) or None
        Buffer for the log-derivatives of the direction taken.
    """

    def __init__(
        self,
        space: Workspace,
        corner: Tensor,
        size: Tensor,
        slopes: Tensor,
        inverse: bool,
        log_slope: Tensor | None = None,
    ) -> None:
        self.inverse = inverse
        (self.start, self.bottom), self.slopes = corner.unbind(1), slopes
        self.width, self.height = size.unbind(1)
        self.d0, self.d1 = slopes.unbind(1)
        shape = self.start.shape[1:]
        self.one = corner.new_tensor(1.0)
        # The rest to the right of the point and the share xi to its left, and their squares.
        self.shares, self.squares = space.kept(2, *shape), space.kept(2, *shape)
        self.rest, self.xi = _parts(self.shares, 2)
        self.square = _parts(self.squares, 2)[1]
        # Numerator and denominator of the slope, and height over width.
        self.terms = space.kept(3, *shape)
        self.numerator, self.denominator, self.s = _parts(self.terms, 3)
        self.t, self.q, self.level = space.kept(*shape), space.kept(*shape), space.kept(*shape)
        self.log_slope: Any = log_slope
        if log_slope is None:
            self.log_slope = space.kept(*shape)
        self.weighted, self.logs = space.scratch(2, *shape), space.scratch(3, *shape)
        self.weighted_parts, self.log_parts = _parts(self.weighted, 2), _parts(self.logs, 3)
        self.value, self.has_buffers = space.scratch(*shape), space.has_buffers
        self.work = []
        for _ in range(4):
            self.work.append(space.scratch(*shape))

    def forward(self, v: Tensor) -> Tensor:
        """Return the values of entries (K, ...) that are in their bins."""
        d0, width, height = self.d0, self.width, self.height
        s = torch.div(height, width, out=self.s)
        t = torch.add(d0, self.d1, out=self.t)
        t = torch.sub(t, s, alpha=2, out=self.t)
        if self.inverse:
            xi = self._share(v, s, t)
        else:
            xi = torch.sub(v, self.start, out=self.xi)
            xi = torch.div(xi, width, out=self.xi)
        rest = torch.sub(self.one, xi, out=self.rest)
        shares = _stacked(self.shares, rest, xi)
        squares = torch.mul(shares, shares, out=self.squares)
        q = torch.mul(xi, rest, out=self.q)
        denominator = torch.addcmul(s, t, q, out=self.denominator)
        weighted = torch.mul(self.slopes, squares, out=self.weighted)
        left, right = self.weighted_parts if self.has_buffers else weighted.unbind(1)
        numerator = torch.add(left, right, out=self.numerator)
        numerator = torch.addcmul(numerator, s, q, value=2, out=self.numerator)
        # Logarithms of the parts, since the square of a ratio of slopes may underflow.
        logs = torch.log(_stacked(self.terms, numerator, denominator, s), out=self.logs)
        log_numerator, log_denominator, log_s = (
            self.log_parts if self.has_buffers else logs.unbind(1)
        )
        log_slope = torch.sub(log_s, log_denominator, out=self.log_slope)
        log_slope = torch.add(log_numerator, log_slope, alpha=2, out=self.log_slope)
        if self.inverse:
            log_slope = torch.neg(log_slope, out=self.log_slope)
        self.log_slope = log_slope
        square = self.square if self.has_buffers else squares[:, 1]
        level = torch.mul(s, square, out=self.level)
        level = torch.addcmul(level, d0, q, out=self.level)
        level = torch.div(level, denominator, out=self.level)
        if self.inverse:
            return torch.addcmul(self.start, width, xi, out=self.value)
        return torch.addcmul(self.bottom, height, level, out=self.value)

    def _share(self, z: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return the share xi of the bin at which the curve has a value."""
        d0, height = self.d0, self.height
        of_rise, of_bend, of_a, of_b = self.work
        rise = torch.sub(z, self.bottom, out=of_rise)
        bend = torch.mul(rise, t, out=of_bend)
        a = torch.addcmul(bend, height, torch.sub(s, d0, out=of_a), out=of_a)
        b = torch.sub(torch.mul(height, d0, out=of_b), bend, out=of_b)
        c = torch.mul(rise, s, out=of_rise)
        # The root in the bin, in the form that does not cancel; rounding can make the discriminant
        # negative where it vanishes.
        root = torch.addcmul(torch.mul(b, b, out=of_bend), a, c, value=4, out=of_bend)
        root = torch.sqrt(torch.clamp(root, min=0, out=of_bend), out=of_bend)
        root = torch.add(root, b, out=of_bend)
        xi = torch.div(c, root, out=self.xi)
        xi = torch.add(xi, xi, out=self.xi)
        # Rounding can leave the bin, where a steep curve has no logarithm.
        if self.has_buffers:
            return torch.clamp(xi, 0, 1, out=self.xi)
        # What is added has no gradient of its own: that of the curve passes.
        return xi + (torch.clamp(xi, 0, 1) - xi).detach()

    def prepare_backward(
        self, space: Workspace, grad_log: Tensor, grad_size: Tensor, grad_slopes: Tensor
    ) -> None:
        """Take the buffers of the gradients.

        That of log f' has shape (K, ...); those of sizes and slopes have shape (K, 2, ...).
        """
        # Shape (K, 1, ...) against (K, 3, ...).
        self.grad_log = grad_log[:, None]
        shape = self.start.shape[1:]
        self.grad_width, self.grad_height = grad_size.unbind(1)
        self.grad_slopes, self.grad_d0 = grad_slopes, grad_slopes[:, 0]
        # What the logarithms were is not needed any more.
        self.top, self.side, self.grad_log_s = self.log_parts
        self.twist, self.bend, self.over, self.under = self.work
        self.slope, self.grad_s = space.scratch(*shape), space.scratch(*shape)
        self.grad_v = space.scratch(*shape)
        #: Gradients of x and z if dz = f'(x) dx: that of `corner` is minus the former, plus the
        #: latter.
        self.grad_x, self.grad_z = self.grad_v, self.grad_v
        if self.inverse:
            self.grad_x, self.grad_z = space.scratch(*shape), space.scratch(*shape)
        self.top_pair, self.q_pair = self.top[:, None], self.q[:, None]
        self.under_pair = self.under[:, None]

    def backward(self, grad: Tensor) -> None:
        """Write the gradient `grad_v` of entries, `grad_x` and `grad_z`, and those of the bins.

        Given is the gradient (K, ...) of the values.
        """
        s, q, level = self.s, self.q, self.level
        torch.div(self.grad_log, self.terms, out=self.logs)
        # Half the derivatives of numerator and denominator along the bin.
        twist, bend = self.twist, self.bend
        torch.sub(self.rest, self.xi, out=twist)
        torch.mul(self.slopes, self.shares, out=self.weighted)
        torch.sub(self.weighted_parts[1], self.weighted_parts[0], out=bend)
        bend.addcmul_(s, twist)
        bend.mul_(self.top)
        twist.mul_(self.t)
        bend.addcmul_(self.side, twist, value=-1)
        bend.div_(self.width)
        torch.exp(self.log_slope, out=self.slope)
        grad_v = self.grad_v
        if self.inverse:
            # x = f^-1(z; p) has dx = (dz - f_p dp) / f', and the log-slope is that of f at x.
            torch.add(grad, bend, alpha=2, out=grad_v)
            grad_v.mul_(self.slope)
            torch.neg(grad, out=self.grad_x)
            torch.neg(grad_v, out=self.grad_z)
        else:
            torch.mul(grad, self.slope, out=grad_v)
            grad_v.add_(bend, alpha=2)
            self.grad_z = grad
        over, under, grad_s = self.over, self.under, self.grad_s
        torch.mul(self.grad_z, self.height, out=over)
        over.div_(self.denominator)
        torch.mul(over, level, out=under)
        under.add_(self.side, alpha=2)
        torch.mul(self.squares, self.top_pair, out=self.grad_slopes)
        self.grad_slopes.addcmul_(self.q_pair, self.under_pair, value=-1)
        self.grad_d0.addcmul_(q, over)
        torch.mul(self.square, over, out=grad_s)
        grad_s.sub_(under)
        grad_s.add_(self.grad_log_s, alpha=2)
        under.add_(self.top)
        grad_s.addcmul_(q, under, value=2)
        grad_s.div_(self.width)
        torch.addcmul(grad_s, self.grad_z, level, out=self.grad_height)
        torch.mul(self.grad_x, self.xi, out=self.grad_width)
        self.grad_width.addcmul_(grad_s, s)
        self.grad_width.neg_()
