"""Composition of bijections."""

from collections.abc import Hashable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..engine import VJP, TrainedWeights, can_use_kernels, run_kernels
from .base import Bijection, KernelBijection

__all__ = ["Chain"]


class Chain(Bijection):
    """Bijections applied one after the other; an empty chain is the identity.

    Where all of them have kernels, the chain is one operation with its gradient in closed form, see
    `engine`. Gradients of gradients, and those of torch.func and of forward mode, are taken layer
    by layer.

    Parameters
    ----------
    bijections : iterable of Bijection
        In the data -> latent order.
    """

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        super().__init__()
        self.bijections = cast(Sequence[Bijection], nn.ModuleList(bijections))
        # Set while the weights are trained.
        self.trained: TrainedWeights | None = None

    def kernel_layers(self) -> list[KernelBijection]:
        """Return the layers, those of chains among them too; none if not all have kernels."""
        layers: list[KernelBijection] = []
        for bijection in self.bijections:
            if isinstance(bijection, KernelBijection):
                layers.append(bijection)
            elif isinstance(bijection, Chain) and (of_chain := bijection.kernel_layers()):
                layers += of_chain
            else:
                return []
        return layers

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if can_use_kernels(x, context) and self.kernel_layers():
            return run_kernels(self, x, context, inverse=False)
        return self.by_layer(x, context)

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if can_use_kernels(z, context) and self.kernel_layers():
            return run_kernels(self, z, context, inverse=True)
        return self.by_layer(z, context, inverse=True)

    def by_layer(
        self, x: Tensor, context: Tensor | None = None, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Map rows by the maps of the layers, data to latent unless `inverse`."""
        layers: Sequence[Bijection] = self.kernel_layers() or self.bijections
        total = x.new_zeros(len(x))
        for layer in layers[::-1] if inverse else layers:
            method = layer.inverse_and_log_det if inverse else layer.forward_and_log_det
            x, log_det = method(x, context)
            total = total + log_det
        return x, total

    @property
    def has_vjp(self) -> bool:
        return self.trained is not None

    def forward_with_vjp(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, VJP]:
        assert self.trained is not None
        if x.ndim == 3:
            return self.trained.vjp(x)
        z, log_det, log_prior, vjp = self.trained.vjp(x[None])
        return z[0], log_det[0], log_prior[0], vjp

    def structure(self) -> Hashable | None:
        structures = tuple(bijection.structure() for bijection in self.bijections)
        return None if None in structures else structures

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        for bijection in self.bijections:
            x = bijection.initialize(x)
        return x

    def parameter_log_prior(self) -> Tensor | float:
        return sum(bijection.parameter_log_prior() for bijection in self.bijections)
