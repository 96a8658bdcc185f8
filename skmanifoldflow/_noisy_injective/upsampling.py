"""Injection of a small image into a large one."""

import torch
from torch import Tensor, nn

from .injections import SMALLEST_COLUMN, GaussianInjection
from .precision import DiagonalPrecision, Precision

__all__ = ["UpsamplingInjection"]


class UpsamplingInjection(GaussianInjection):
    """A copies each pixel of a small image to a block of a large one (Cunningham et al., A.6).

    A = U diag(a) with U the nearest-neighbour upsampling and a a trained scale for each small
    pixel. Blocks do not overlap, so Lam is diagonal and everything costs O(D).

    Parameters
    ----------
    image_shape : tuple of int
        (C, H, W) of y.
    factor : int
        Height and width of a block; it divides H and W. The small image is (C, H / factor, W /
        factor).
    noise_covariance, noise_floor
        As in `GaussianInjection`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        factor: int,
        *,
        noise_covariance: str,
        noise_floor: float,
    ) -> None:
        c, h, w = image_shape
        super().__init__(
            c * h * w,
            c * (h // factor) * (w // factor),
            noise_covariance=noise_covariance,
            noise_floor=noise_floor,
        )
        self.blocks = (c, h // factor, factor, w // factor, factor)
        self.a = nn.Parameter(torch.ones(self.n_components))

    def _sum_blocks(self, y: Tensor) -> Tensor:
        return y.view(*y.shape[:-1], *self.blocks).sum((-3, -1)).flatten(-3)

    def _copy(self, small: Tensor) -> Tensor:
        c, h, factor, w, _ = self.blocks
        blocks = small.view(len(small), c, h, 1, w, 1)
        return blocks.expand(-1, -1, -1, factor, -1, factor).reshape(len(small), -1)

    def multiply(self, z: Tensor) -> Tensor:
        return self._copy(z * self.a)

    def multiply_transposed(self, y: Tensor) -> Tensor:
        return self._sum_blocks(y) * self.a

    def precision(self, variance: Tensor) -> Precision:
        return DiagonalPrecision(self.a.square() * self._sum_blocks(1 / variance))

    def initialize(self, y: Tensor, smallest: float = SMALLEST_COLUMN) -> None:
        """Take b, a and Sigma from rows y, a probabilistic PCA of every block by itself."""
        size = self.blocks[2] * self.blocks[4]
        mean = y.mean(0)
        centred = y - mean
        block_mean = self._sum_blocks(centred) / size
        residual = centred - self._copy(block_mean)
        noise = residual.square().mean(0) * size / (size - 1)
        self.initialize_noise(
            mean, noise if len(self.log_excess) > 1 else noise.mean(0, keepdim=True)
        )
        variances = block_mean.square().mean(0) - self._sum_blocks(noise) / size**2
        least = smallest**2 * self._sum_blocks(self.noise_variance().detach()) / size
        self.a.data = variances.to(self.a).maximum(least).sqrt()
