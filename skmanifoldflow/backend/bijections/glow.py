"""Layers of convolutional flows (GLOW, Kingma & Dhariwal, NeurIPS 2018).

They map images (n, C, H, W) and, like every bijection, return the log-determinant per image.
Channels lie last in memory, where convolutions on a CPU are up to three times as fast.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks import ConvNet
from .actnorm import ActNorm
from .base import Bijection
from .linear import Orthogonal

__all__ = ["ChannelRotation", "ConvCoupling", "GlowStep", "InvertibleConv", "Squeeze", "even_part"]


def even_part(image_shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], Tensor]:
    """Return the shape of an image without a last row or column of an odd size, and an order.

    The order of the flattened pixels puts those of the part first and the others last.
    """
    n_channels, height, width = image_shape
    height, width = (size - size % 2 if size > 1 else 1 for size in (height, width))
    index = torch.arange(math.prod(image_shape)).view(image_shape)
    is_inner = torch.zeros(image_shape, dtype=torch.bool)
    is_inner[:, :height, :width] = True
    order = torch.cat([index[is_inner], index[~is_inner]])
    return (n_channels, height, width), order


class Squeeze(Bijection):
    """Space to depth: (n, C, H, W) to (n, 4C, H/2, W/2), log-determinant zero.

    The channels of the first half are one colour of a checkerboard, those of the second half the
    other: pixels (0, 0), (1, 1), then (0, 1), (1, 0) of each block. An axis of length 1 is left as
    it is, so that there are 2C channels.

    Parameters
    ----------
    height, width : int
        Size of the images, each even or 1.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        if any(size != 1 and size % 2 for size in (height, width)):
            raise ValueError(f"height and width must be even or 1, got {height} and {width}.")
        rows, columns = min(height, 2), min(width, 2)
        self.block = rows, columns
        offsets = [(i, j) for i in range(rows) for j in range(columns)]
        self.offsets = sorted(offsets, key=lambda offset: sum(offset) % 2)
        self._order = [self.offsets.index(offset) for offset in offsets]

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        rows, columns = self.block
        pixels = x.permute(0, 2, 3, 1)
        parts = [pixels[:, i::rows, j::columns] for i, j in self.offsets]
        return torch.cat(parts, dim=3).permute(0, 3, 1, 2), x.new_zeros(len(x))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        rows, columns = self.block
        n, _, height, width = z.shape
        parts = z.permute(0, 2, 3, 1).chunk(len(self.offsets), dim=3)
        # (n, H, W, blocks, C), the blocks in row-major order.
        blocks = torch.stack([parts[i] for i in self._order], dim=3)
        blocks = blocks.view(n, height, width, rows, columns, -1).permute(0, 5, 1, 3, 2, 4)
        return blocks.reshape(n, -1, height * rows, width * columns), z.new_zeros(n)


class InvertibleConv(Bijection):
    """Invertible 1x1 convolution z = W x with W = P L (U + diag(s)).

    P is a fixed permutation, L and U are triangular with unit and zero diagonal, and the signs of s
    are fixed, so that log|det W| = sum log|s| is exact and W can never become singular. W starts as
    a random rotation.

    Parameters
    ----------
    n_channels : int
        Number of channels C.
    generator : torch.Generator
        Source of the rotation.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, n_channels: int, *, generator: torch.Generator) -> None:
        super().__init__()
        rotation = Orthogonal(n_channels, generator=generator).q.double()
        permutation, lower, upper = torch.linalg.lu(rotation)
        dtype = torch.float32
        self.register_buffer("permutation", permutation.to(dtype))
        self.register_buffer("sign", upper.diagonal().sign().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.log_scale = nn.Parameter(upper.diagonal().abs().log().to(dtype))

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Return L and U + diag(s)."""
        eye = torch.eye(len(self.sign), dtype=self.sign.dtype, device=self.sign.device)
        diagonal = torch.diag(self.sign * self.log_scale.exp())
        return self.lower.tril(-1) + eye, self.upper.triu(1) + diagonal

    def matrix(self) -> Tensor:
        """Return W (C, C)."""
        lower, upper = self._factors()
        return self.permutation @ lower @ upper

    def inverse_matrix(self) -> Tensor:
        """Return the inverse of W (C, C)."""
        lower, upper = self._factors()
        right = torch.linalg.solve_triangular(
            lower, self.permutation.T, upper=False, unitriangular=True
        )
        return torch.linalg.solve_triangular(upper, right, upper=True)

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        log_det = self.log_scale.sum() * x[0, 0].numel()
        return _mix(x, self.matrix()), log_det.expand(len(x))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        log_det = -self.log_scale.sum() * z[0, 0].numel()
        return _mix(z, self.inverse_matrix()), log_det.expand(len(z))


def _mix(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 1x1 convolution; as a matrix product it is the faster the fewer the channels."""
    return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def _bounded(x: Tensor, bound: float) -> Tensor:
    """Bound values softly, with slope 1 at 0."""
    return bound * torch.tanh(x / bound)


class ChannelRotation(Bijection):
    """Fixed orthogonal mixing of the channels of every pixel, log-determinant zero.

    Parameters
    ----------
    n_channels : int
        Number of channels C.
    generator : torch.Generator
        Source of the matrix, drawn from the Haar measure.
    """

    def __init__(self, n_channels: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.rotation = Orthogonal(n_channels, generator=generator)

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return _mix(x, self.rotation.q.T), x.new_zeros(len(x))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return _mix(z, self.rotation.q), z.new_zeros(len(z))


class ConvCoupling(Bijection):
    """Coupling of channels with a convolutional conditioner.

    The first C - `n_transformed` channels pass unchanged and give shift t and log-scale s of
    the others, z_b = x_b exp(s(x_a)) + t(x_a). Inputs, shifts and log-scales are bounded softly.

    Parameters
    ----------
    n_channels : int
        Number of channels C.
    n_transformed : int
        Number of channels that are mapped, 1 <= n_transformed < C.
    size : tuple of two ints
        Height and width of the images.
    hidden_channels : int
        Hidden channels of the conditioner.
    generator : torch.Generator
        Source of the initial weights.
    n_context : int, default=0
        Number of context columns, which the conditioner sees too.
    log_scales : {"free", "centred", "none"}, default="free"
        "centred" subtracts their mean over channels and pixels, which makes the log-determinant
        zero (Sorrenson et al., ICLR 2020); "none" leaves an additive coupling.
    """

    max_log_scale = 2.0
    # Of what the conditioner sees and of the shifts, in standard deviations. Without these bounds
    # an outlier grows from step to step with the slopes of the networks, until one image spoils a
    # fit.
    max_input = 5.0
    max_shift = 10.0

    def __init__(
        self,
        n_channels: int,
        n_transformed: int,
        size: tuple[int, int],
        hidden_channels: int,
        *,
        generator: torch.Generator,
        n_context: int = 0,
        log_scales: str = "free",
    ) -> None:
        super().__init__()
        if not 1 <= n_transformed < n_channels:
            raise ValueError(
                f"n_transformed must be between 1 and n_channels - 1 = {n_channels - 1}, "
                f"got {n_transformed}."
            )
        self.n_passed = n_channels - n_transformed
        self.log_scales = log_scales
        self.conditioner = ConvNet(
            self.n_passed,
            hidden_channels,
            n_transformed if log_scales == "none" else 2 * n_transformed,
            size,
            generator=generator,
            n_context=n_context,
        )

    def _split(
        self, images: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return passed channels, the others, their shifts and bounded log-scales, if any."""
        passed, moved = images[:, : self.n_passed], images[:, self.n_passed :]
        params = self.conditioner(_bounded(passed, self.max_input), context)
        if self.log_scales == "none":
            return passed, moved, _bounded(params, self.max_shift), None
        shift, raw = params.chunk(2, dim=1)
        log_scale = _bounded(raw, self.max_log_scale)
        if self.log_scales == "centred":
            log_scale = log_scale - log_scale.mean(dim=(1, 2, 3), keepdim=True)
        return passed, moved, _bounded(shift, self.max_shift), log_scale

    def _log_det(self, log_scale: Tensor | None, images: Tensor) -> Tensor:
        if log_scale is None or self.log_scales == "centred":
            return images.new_zeros(len(images))
        return log_scale.sum(dim=(1, 2, 3))

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        passed, moved, shift, log_scale = self._split(x, context)
        scale = 1.0 if log_scale is None else log_scale.exp()
        moved = shift + moved * scale
        return torch.cat([passed, moved], dim=1), self._log_det(log_scale, x)

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        passed, moved, shift, log_scale = self._split(z, context)
        scale = 1.0 if log_scale is None else torch.exp(-log_scale)
        moved = (moved - shift) * scale
        return torch.cat([passed, moved], dim=1), -self._log_det(log_scale, z)


class GlowStep(Bijection):
    """One step of GLOW: ActNorm, invertible 1x1 convolution, affine coupling.

    Parameters are those of `ConvCoupling`, whose `n_transformed` is half of the channels.
    """

    def __init__(
        self,
        n_channels: int,
        size: tuple[int, int],
        hidden_channels: int,
        *,
        generator: torch.Generator,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        self.norm = ActNorm(n_channels)
        self.mixing = InvertibleConv(n_channels, generator=generator)
        self.coupling = ConvCoupling(
            n_channels,
            n_channels // 2,
            size,
            hidden_channels,
            generator=generator,
            n_context=n_context,
        )

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Start the ActNorm from a batch and return the batch mapped."""
        self.norm.initialize(x)
        return self.forward_and_log_det(x)[0]

    def _log_det(self, x: Tensor) -> Tensor:
        return (self.norm.log_scale + self.mixing.log_scale).sum() * x[0, 0].numel()

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        # The two linear maps are one: W (exp(s) x + t) = (W exp(s)) x + W t.
        matrix = self.mixing.matrix()
        mixed = _mix(x, matrix * self.norm.log_scale.exp(), matrix @ self.norm.shift)
        z, log_det = self.coupling.forward_and_log_det(mixed, context)
        return z, log_det + self._log_det(x)

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        mixed, log_det = self.coupling.inverse_and_log_det(z, context)
        x = _mix(mixed, self.mixing.inverse_matrix())
        x, _ = self.norm.inverse_and_log_det(x)
        return x, log_det - self._log_det(x)
