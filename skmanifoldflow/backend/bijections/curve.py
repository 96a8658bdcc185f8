"""Rational-quadratic curves through the bins of splines (Durkan et al., NeurIPS 2019)."""

import torch
from torch import Tensor

from ..tape import Calls

__all__ = ["CurveTape", "curve"]

# As tensors they cost half of the call that numbers cost; they are exact in every dtype.
_ONE = torch.tensor(1.0)


def curve(
    v: Tensor, corner: Tensor, size: Tensor, slopes: Tensor, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Return values and log-derivatives of eq. 4 and 5 of the source, or for the inverse eq. 29.

    Of the bin of each entry: the lower left `corner`, width and height, and the slopes at its ends,
    each stacked along the first dimension. The log-derivatives are those of the direction taken.
    """
    start, bottom = corner.unbind()
    width, height = size.unbind()
    d0, d1 = slopes.unbind()
    s = height / width
    t = d0 + d1 - 2 * s
    if inverse:
        rise = v - bottom
        bend = rise * t
        a = height * (s - d0) + bend
        b = height * d0 - bend
        c = s * rise
        # The root in the bin, in the form that does not cancel; rounding can make the discriminant
        # negative where it vanishes.
        xi = 2 * c / (b + (b * b + 4 * a * c).clamp(min=0).sqrt())
    else:
        xi = (v - start) / width
    rest = 1 - xi
    q = xi * rest
    denominator = s + t * q
    square = xi * xi
    numerator = d0 * (rest * rest) + d1 * square + 2 * s * q
    # Logarithms of the parts, since the square of a ratio of slopes may underflow.
    log_slope = numerator.log() + 2 * (s.log() - denominator.log())
    if inverse:
        return start + width * xi, -log_slope
    return bottom + height * (s * square + d0 * q) / denominator, log_slope


class CurveTape:
    """`curve` for entries of one shape, with its gradient in closed form.

    Parameters
    ----------
    calls : Calls
        What makes the calls.
    corner, size, slopes : Tensor of shape (2, ...)
        Memory for the bins, set before each use.
    log_slope : Tensor of shape (...)
        Memory for the log-derivatives of the direction taken.
    """

    def __init__(
        self, calls: Calls, corner: Tensor, size: Tensor, slopes: Tensor, log_slope: Tensor
    ) -> None:
        self.calls = calls
        self.corner, self.size, self.slopes = corner, size, slopes
        self.log_slope = log_slope
        shape = log_slope.shape
        # The rest to the right of the point and the share xi to its left, and their squares.
        self.shares, self.squares = (calls.memory(2, *shape) for _ in range(2))
        # Numerator and denominator of the slope, and height over width.
        self.terms = calls.memory(3, *shape)
        self.t, self.q, self.level = (calls.memory(*shape) for _ in range(3))

    def _scratch(self, *stacked: int) -> Tensor:
        return self.calls.scratch(*stacked, *self.log_slope.shape)

    def forward(self, v: Tensor) -> Tensor:
        """Return the values of entries, which are in their bins."""
        call, inverse = self.calls.call, self.calls.inverse
        (start, bottom), (width, height), (d0, d1) = self.corner, self.size, self.slopes
        numerator, denominator, s = self.terms
        rest, xi = self.shares
        t, q, level = self.t, self.q, self.level
        call(torch.div, height, width, out=s)
        call(torch.add, d0, d1, out=t)
        call(t.sub_, s, alpha=2)
        if inverse:
            self._solve(v, xi)
        else:
            call(torch.sub, v, start, out=xi)
            call(xi.div_, width)
        call(torch.sub, _ONE, xi, out=rest)
        call(torch.mul, self.shares, self.shares, out=self.squares)
        call(torch.mul, xi, rest, out=q)
        call(torch.addcmul, s, t, q, out=denominator)
        weighted = self._scratch(2)
        call(torch.mul, self.slopes, self.squares, out=weighted)
        call(torch.add, *weighted, out=numerator)
        call(numerator.addcmul_, s, q, value=2)
        logs = self._scratch(3)
        call(torch.log, self.terms, out=logs)
        call(torch.sub, logs[2], logs[1], out=self.log_slope)
        call(torch.add, logs[0], self.log_slope, alpha=2, out=self.log_slope)
        value = self._scratch()
        if inverse:
            call(self.log_slope.neg_)
            call(torch.addcmul, start, width, xi, out=value)
        call(torch.mul, s, self.squares[1], out=level)
        call(level.addcmul_, d0, q)
        call(level.div_, denominator)
        if not inverse:
            call(torch.addcmul, bottom, height, level, out=value)
        return value

    def _solve(self, v: Tensor, xi: Tensor) -> None:
        """Find the share xi of the bin at which the curve has a value, as `curve` does."""
        call, s = self.calls.call, self.terms[2]
        (_, bottom), (_, height), (d0, _) = self.corner, self.size, self.slopes
        rise, bend, a, b = (self._scratch() for _ in range(4))
        call(torch.sub, v, bottom, out=rise)
        call(torch.mul, rise, self.t, out=bend)
        call(torch.sub, s, d0, out=a)
        call(torch.addcmul, bend, height, a, out=a)
        call(torch.mul, height, d0, out=b)
        call(b.sub_, bend)
        c = rise
        call(c.mul_, s)
        root = bend
        call(torch.mul, b, b, out=root)
        call(root.addcmul_, a, c, value=4)
        call(root.clamp_, min=0)
        call(root.sqrt_)
        call(root.add_, b)
        call(torch.div, c, root, out=xi)
        call(torch.add, xi, xi, out=xi)

    def backward(
        self, grad: Tensor, grad_log: Tensor, of_size: Tensor, of_slopes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradient of the entries, and those of x and z if dz = f'(x) dx.

        Of `corner` the gradients are minus that of x and plus that of z; those of sizes and slopes
        go into memory of shape (2, ...). Given are the gradients of the values and of log f'.
        """
        call = self.calls.call
        width, height = self.size
        rest, xi = self.shares
        _, denominator, s = self.terms
        q, level = self.q, self.level
        parts = self._scratch(3)
        top, side, of_log_s = parts
        call(torch.div, grad_log, self.terms, out=parts)
        # Half the derivatives of numerator and denominator along the bin.
        twist, bend, slope = (self._scratch() for _ in range(3))
        call(torch.sub, rest, xi, out=twist)
        weighted = self._scratch(2)
        call(torch.mul, self.slopes, self.shares, out=weighted)
        call(torch.sub, weighted[1], weighted[0], out=bend)
        call(bend.addcmul_, s, twist)
        call(bend.mul_, top)
        call(twist.mul_, self.t)
        call(bend.addcmul_, side, twist, value=-1)
        call(bend.div_, width)
        call(torch.exp, self.log_slope, out=slope)
        grad_v = self._scratch()
        if self.calls.inverse:
            # x = f^-1(z; p) has dx = (dz - f_p dp) / f', and the log-slope is that of f at x.
            call(torch.add, grad, bend, alpha=2, out=grad_v)
            call(grad_v.mul_, slope)
            grad_x, grad_z = self._scratch(), self._scratch()
            call(torch.neg, grad, out=grad_x)
            call(torch.neg, grad_v, out=grad_z)
        else:
            call(torch.mul, grad, slope, out=grad_v)
            call(grad_v.add_, bend, alpha=2)
            grad_x, grad_z = grad_v, grad
        over, under, of_s = (self._scratch() for _ in range(3))
        call(torch.mul, grad_z, height, out=over)
        call(over.div_, denominator)
        call(torch.mul, over, level, out=under)
        call(under.add_, side, alpha=2)
        call(torch.mul, self.squares, top, out=of_slopes)
        call(of_slopes.addcmul_, q, under, value=-1)
        call(of_slopes[0].addcmul_, q, over)
        call(torch.mul, self.squares[1], over, out=of_s)
        call(of_s.sub_, under)
        call(of_s.add_, of_log_s, alpha=2)
        call(under.add_, top)
        call(of_s.addcmul_, q, under, value=2)
        call(of_s.div_, width)
        of_width, of_height = of_size
        call(torch.addcmul, of_s, grad_z, level, out=of_height)
        call(torch.mul, grad_x, xi, out=of_width)
        call(of_width.addcmul_, of_s, s)
        call(of_width.neg_)
        return grad_v, grad_x, grad_z
