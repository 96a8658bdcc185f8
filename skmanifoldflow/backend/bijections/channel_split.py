"""Flow of flattened images whose manifold coordinates are channels of every pixel."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .base import Bijection
from .glow import ConvCoupling, Squeeze
from .linear import PrincipalAxes

__all__ = ["ChannelSplit", "squeezed_shapes"]


def squeezed_shapes(image_shape: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Return the shapes (C, H, W) that 1, 2, ... squeezes make of an image, as far as they go."""
    shapes = []
    c, h, w = image_shape
    while h * w > 1 and all(size == 1 or size % 2 == 0 for size in (h, w)):
        rows, columns = min(h, 2), min(w, 2)
        c, h, w = c * rows * columns, h // rows, w // columns
        shapes.append((c, h, w))
    return shapes


def _turned(image: Tensor, n: int) -> Tensor:
    """Return an image with its first n channels put last, or its last -n first."""
    return torch.cat([image[:, n:], image[:, :n]], dim=1)


class ChannelSplit(Bijection):
    """Rows (n, C * H * W) of images to rows whose first d columns are channels of a squeezed image.

    The image is squeezed, its channels are turned to their principal axes, pooled over the pixels,
    and convolutional couplings map by turns the first k channels given the others and these given
    the first: every pixel of the squeezed image keeps k coordinates, d = k H' W'. Besides the
    principal axes the flow starts as the identity.

    Parameters
    ----------
    image_shape : tuple of three ints
        (C, H, W).
    n_components : int
        Number of coordinates d, a multiple of the number of pixels of one of `squeezed_shapes`
        and less than C * H * W. The image is squeezed as little as possible.
    n_layers : int
        Number of couplings.
    hidden_channels : int
        Hidden channels of the conditioners.
    floor : float
        Smallest scale of an axis.
    generator : torch.Generator
        Source of initial weights.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_components: int,
        n_layers: int,
        hidden_channels: int,
        *,
        floor: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        shapes = squeezed_shapes(image_shape)
        n_squeezes = next(
            i + 1 for i, (_, h, w) in enumerate(shapes) if n_components % (h * w) == 0
        )
        before = [image_shape, *shapes][:n_squeezes]
        self.image_shape = image_shape
        self.squeezes = cast(Sequence[Squeeze], nn.ModuleList(Squeeze(h, w) for _, h, w in before))
        self.shape = shapes[n_squeezes - 1]
        n_channels, *size = self.shape
        self.n_pixels = math.prod(size)
        self.n_kept = n_components // self.n_pixels
        self.axes = PrincipalAxes(n_channels, self.n_kept, floor=floor)
        # By turns, so that the last one maps the deviations.
        self.maps_deviations = [(n_layers - i) % 2 == 1 for i in range(n_layers)]
        self.couplings = cast(
            Sequence[ConvCoupling],
            nn.ModuleList(
                ConvCoupling(
                    n_channels,
                    n_channels - self.n_kept if maps_deviations else self.n_kept,
                    (size[0], size[1]),
                    hidden_channels,
                    generator=generator,
                )
                for maps_deviations in self.maps_deviations
            ),
        )

    def scale(self) -> Tensor:
        """Return the scale (C * H * W,) by which each latent column was divided."""
        return self.axes.scale().repeat_interleave(self.n_pixels)

    def _squeeze(self, x: Tensor) -> Tensor:
        """Return the pixels (n * H' * W', C') of rows, squeezed."""
        image = x.unflatten(1, self.image_shape)
        for squeeze in self.squeezes:
            image, _ = squeeze.forward_and_log_det(image)
        return image.permute(0, 2, 3, 1).reshape(-1, self.shape[0])

    def _to_image(self, pixels: Tensor) -> Tensor:
        c, h, w = self.shape
        return pixels.view(-1, h, w, c).permute(0, 3, 1, 2)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        self.axes.initialize(self._squeeze(x))
        return self.forward_and_log_det(x)[0]

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        pixels, log_det = self.axes.forward_and_log_det(self._squeeze(x))
        image, total = self._to_image(pixels), log_det.view(len(x), -1).sum(1)
        for coupling, maps_deviations in zip(self.couplings, self.maps_deviations, strict=True):
            if maps_deviations:
                image, log_det = coupling.forward_and_log_det(image)
            else:
                image, log_det = coupling.forward_and_log_det(_turned(image, self.n_kept))
                image = _turned(image, -self.n_kept)
            total = total + log_det
        return image.flatten(1), total

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        image, total = z.unflatten(1, self.shape), z.new_zeros(len(z))
        layers = zip(self.couplings, self.maps_deviations, strict=True)
        for coupling, maps_deviations in reversed(list(layers)):
            if maps_deviations:
                image, log_det = coupling.inverse_and_log_det(image)
            else:
                image, log_det = coupling.inverse_and_log_det(_turned(image, self.n_kept))
                image = _turned(image, -self.n_kept)
            total = total + log_det
        pixels = image.permute(0, 2, 3, 1).reshape(-1, self.shape[0])
        pixels, log_det = self.axes.inverse_and_log_det(pixels)
        total = total + log_det.view(len(z), -1).sum(1)
        image = self._to_image(pixels)
        for squeeze in reversed(self.squeezes):
            image, _ = squeeze.inverse_and_log_det(image)
        return image.flatten(1), total
