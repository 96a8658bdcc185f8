"""Multi-scale convolutional flow on flattened images."""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .actnorm import ActNorm
from .base import Bijection
from .coupling import AffineCoupling
from .fixed_knot_spline import PooledSpline
from .glow import ConvCoupling, GlowStep, Squeeze, even_part

__all__ = ["MultiScale", "PixelOrder"]


def _can_squeeze(shape: Sequence[int]) -> bool:
    """Return whether both sides are even or 1, and not both 1."""
    _, height, width = shape
    return height * width > 1 and all(size == 1 or size % 2 == 0 for size in (height, width))


class _Scale(Bijection):
    """Squeeze, steps of GLOW, and factor-out of half of the channels given the others."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        n_layers: int,
        hidden_channels: int,
        *,
        is_last: bool,
        generator: torch.Generator,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        n_channels, height, width = shape
        self.squeeze = Squeeze(height, width)
        rows, columns = self.squeeze.block
        n_channels, size = n_channels * rows * columns, (height // rows, width // columns)
        self.shape = (n_channels, *size)
        is_last = is_last or not _can_squeeze(self.shape)
        if n_channels == 1:
            n_layers = 0
        common: dict[str, Any] = {"generator": generator, "n_context": n_context}
        self.steps = cast(
            Sequence[GlowStep],
            nn.ModuleList(
                GlowStep(n_channels, size, hidden_channels, **common) for _ in range(n_layers)
            ),
        )
        self.norm = ActNorm(n_channels)
        self.n_kept = n_channels if is_last else n_channels - n_channels // 2
        self.n_done = (n_channels - self.n_kept) * math.prod(size)
        self.factor = (
            None
            if is_last
            else ConvCoupling(n_channels, n_channels // 2, size, hidden_channels, **common)
        )

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        for layer in self._layers():
            x = layer.initialize(x)
        return x

    def _layers(self) -> list[Bijection]:
        last = [] if self.factor is None else [self.factor]
        return [self.squeeze, *self.steps, self.norm, *last]

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for layer in self._layers():
            x, log_det = layer.forward_and_log_det(x, context)
            total = total + log_det
        return x, total

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(len(z))
        for layer in reversed(self._layers()):
            z, log_det = layer.inverse_and_log_det(z, context)
            total = total + log_det
        return z, total


class MultiScale(Bijection):
    """Multi-scale flow of flattened images: rows (n, C * H * W) to rows of the same length.

    A monotone spline for all pixels comes first. Each scale squeezes, takes its steps and gives
    half of its channels away: these become standard normal given the other half, by an affine map
    that a convolutional network of that half parametrises. There are as many scales as the size
    can be halved, at most `max_scales`. A last row or column of an odd size is set apart before
    them and mapped given the rest.

    Parameters
    ----------
    image_shape : tuple of three ints
        Channels, height and width (C, H, W).
    n_layers : sequence of int
        Steps of the scales, from the finest; the last entry counts for all further scales.
    hidden_channels : sequence of int
        Hidden channels of the conditioners, likewise.
    generator : torch.Generator
        Source of the initial weights.
    max_scales : int, default=3
        Largest number of scales.
    n_context : int, default=0
        Number of context columns.
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_layers: Sequence[int],
        hidden_channels: Sequence[int],
        *,
        generator: torch.Generator,
        max_scales: int = 3,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        self.n_context = n_context
        self.max_scales = max_scales
        self.shape, order = even_part(image_shape)
        self.n_inner = math.prod(self.shape)
        self.register_buffer("order", order)
        self.register_buffer("inverse_order", torch.argsort(order))
        n_outer = len(order) - self.n_inner
        self.spline = PooledSpline()
        self.margin = (
            AffineCoupling(
                len(order),
                n_outer,
                hidden_channels[:1],
                generator=generator,
                n_context=n_context,
            )
            if n_outer
            else None
        )
        scales: list[_Scale] = []
        shape = self.shape
        while not scales or (len(scales) < self.max_scales and _can_squeeze(shape)):
            i = len(scales)
            scale = _Scale(
                shape,
                n_layers[min(i, len(n_layers) - 1)],
                hidden_channels[min(i, len(hidden_channels) - 1)],
                is_last=i + 1 == self.max_scales,
                generator=generator,
                n_context=n_context,
            )
            scales.append(scale)
            shape = (scale.n_kept, *scale.shape[1:])
        self.scales = cast(Sequence[_Scale], nn.ModuleList(scales))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Start every layer from the rows mapped by those before it; return them mapped.

        The context counts as zero: before the first step no layer depends on it.
        """
        rows = self.spline.initialize(x)
        if self.margin is not None:
            rows = rows[:, self.order]
        image = rows[:, : self.n_inner].unflatten(1, self.shape)
        for scale in self.scales:
            image = scale.initialize(image)[:, : scale.n_kept]
        context = x.new_zeros(len(x), self.n_context) if self.n_context else None
        return self.forward_and_log_det(x, context)[0]

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x, total = self.spline.forward_and_log_det(x)
        if self.margin is not None:
            x, log_det = self.margin.forward_and_log_det(x[:, self.order], context)
            total = total + log_det
        image, done = x[:, : self.n_inner].unflatten(1, self.shape), [x[:, self.n_inner :]]
        for scale in self.scales:
            image, log_det = scale.forward_and_log_det(image, context)
            total = total + log_det
            done.append(image[:, scale.n_kept :].flatten(1))
            image = image[:, : scale.n_kept]
        return torch.cat([*done, image.flatten(1)], dim=1), total

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(len(z))
        lengths = [z.shape[1] - self.n_inner, *(scale.n_done for scale in self.scales)]
        outer, *done, last = z.split([*lengths, z.shape[1] - sum(lengths)], dim=1)
        image = last.unflatten(1, (-1, *self.scales[-1].shape[1:]))
        for scale, part in zip(reversed(self.scales), reversed(done), strict=True):
            part = part.reshape(len(z), -1, *scale.shape[1:])
            image, log_det = scale.inverse_and_log_det(torch.cat([image, part], dim=1), context)
            total = total + log_det
        x = torch.cat([image.flatten(1), outer], dim=1)
        if self.margin is not None:
            x, log_det = self.margin.inverse_and_log_det(x, context)
            total = total + log_det
            x = x[:, self.inverse_order]
        x, log_det = self.spline.inverse_and_log_det(x)
        return x, total + log_det


class PixelOrder(Bijection):
    """Rows of squeezed images to rows in the order of their pixels.

    Parameters
    ----------
    image_shape : tuple of three ints
        Channels, height and width (C, H, W), these even or 1.
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = image_shape
        self.squeeze = Squeeze(*image_shape[1:])

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        _, height, width = self.shape
        rows, columns = self.squeeze.block
        image = x.view(len(x), -1, height // rows, width // columns)
        image, log_det = self.squeeze.inverse_and_log_det(image)
        return image.flatten(1), log_det

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        image, log_det = self.squeeze.forward_and_log_det(z.view(len(z), *self.shape))
        return image.flatten(1), log_det
