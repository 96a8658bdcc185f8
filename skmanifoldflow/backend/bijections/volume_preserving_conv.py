"""Volume-preserving convolutional couplings of flattened images."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .base import Bijection
from .channel_split import squeezed_shapes
from .glow import ChannelRotation, ConvCoupling, Squeeze, even_part

__all__ = ["VolumePreservingConv"]

_MAX_SQUEEZES = 2


class VolumePreservingConv(Bijection):
    """Rows (n, C * H * W) of images to rows of squeezed images, log-determinant zero.

    The image is squeezed up to twice, and after each squeeze come couplings, each after a fixed
    random rotation of the channels. A last row or column of an odd size passes as it is, and comes
    last. Before the first step the map is an isometry.

    Parameters
    ----------
    image_shape : tuple of three ints
        (C, H, W).
    n_layers : int
        Number of couplings, the odd one at the finer scale.
    hidden_channels : int
        Hidden channels of the conditioners.
    log_scales : {"centred", "none"}
        Affine couplings of unit volume, or additive ones.
    generator : torch.Generator
        Source of rotations and initial weights.
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_layers: int,
        hidden_channels: int,
        *,
        log_scales: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.shape, order = even_part(image_shape)
        self.register_buffer("order", order)
        self.register_buffer("inverse_order", torch.argsort(order))
        self.n_inner = math.prod(self.shape)
        # Of a single pixel with several channels there is nothing to squeeze.
        shapes = squeezed_shapes(self.shape)[:_MAX_SQUEEZES]
        layers: list[Bijection] = []
        before = [self.shape, *shapes]
        for i, (c, h, w) in enumerate(shapes):
            layers.append(Squeeze(*before[i][1:]))
            for j in range(i, n_layers, len(shapes)):
                layers.append(ChannelRotation(c, generator=generator))
                layers.append(
                    ConvCoupling(
                        c,
                        c // 2 if j // len(shapes) % 2 else c - c // 2,
                        (h, w),
                        hidden_channels,
                        generator=generator,
                        log_scales=log_scales,
                    )
                )
        self.layers = cast(Sequence[Bijection], nn.ModuleList(layers))
        self.squeezed_shape = before[-1]

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        rows = x[:, self.order]
        image = rows[:, : self.n_inner].unflatten(1, self.shape)
        for layer in self.layers:
            image, _ = layer.forward_and_log_det(image)
        return torch.cat([image.flatten(1), rows[:, self.n_inner :]], dim=1), x.new_zeros(len(x))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        image = z[:, : self.n_inner].unflatten(1, self.squeezed_shape)
        for layer in reversed(self.layers):
            image, _ = layer.inverse_and_log_det(image)
        rows = torch.cat([image.flatten(1), z[:, self.n_inner :]], dim=1)
        return rows[:, self.inverse_order], z.new_zeros(len(z))
