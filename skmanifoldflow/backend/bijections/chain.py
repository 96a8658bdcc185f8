"""Composition of bijections."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .base import Bijection, PullBack
from .fused import BoundWeights, FusedLayer, can_fuse, run_fused

__all__ = ["Chain"]


def _fused_layers(bijections: Iterable[Bijection]) -> list[FusedLayer] | None:
    """Return the layers, those of chains among them too, or None if not all are fused ones."""
    layers: list[FusedLayer] = []
    for bijection in bijections:
        if isinstance(bijection, FusedLayer) and bijection.is_fused:
            layers.append(bijection)
        elif isinstance(bijection, Chain):
            of_chain = _fused_layers(bijection.bijections)
            if of_chain is None:
                return None
            layers += of_chain
        else:
            return None
    return layers


class Chain(Bijection):
    """Bijections applied one after the other; an empty chain is the identity.

    Where all of them are couplings and fixed mixings, the chain is one operation with its gradient
    in closed form, see `fused`. Gradients of gradients, and those of torch.func and of forward
    mode, are taken layer by layer.

    Parameters
    ----------
    bijections : iterable of Bijection
        In the data -> latent order.
    """

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        super().__init__()
        self.bijections = cast(Sequence[Bijection], nn.ModuleList(bijections))
        self.fused_layers = tuple(_fused_layers(self.bijections) or ())
        # Columns of its widest tensor.
        self.fused_width = max(
            (size for layer in self.fused_layers for w in layer.weights() for size in w.shape),
            default=1,
        )
        # Set while the weights are trained.
        self.bound_weights: BoundWeights | None = None

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.fused_layers and can_fuse(x, context):
            return run_fused(self, x, context, inverse=False)
        return self.forward_by_layer(x, context)

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.fused_layers and can_fuse(z, context):
            return run_fused(self, z, context, inverse=True)
        return self.inverse_by_layer(z, context)

    def forward_with_pullback(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | float, PullBack]:
        if self.bound_weights is not None:
            return self.bound_weights.forward_with_pullback(x)
        return super().forward_with_pullback(x)

    def forward_by_layer(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data to latent by the maps of the layers."""
        total = x.new_zeros(len(x))
        for bijection in self.bijections:
            x, log_det = bijection.forward_and_log_det(x, context)
            total = total + log_det
        return x, total

    def inverse_by_layer(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map latent to data by the maps of the layers."""
        total = z.new_zeros(len(z))
        for bijection in reversed(self.bijections):
            z, log_det = bijection.inverse_and_log_det(z, context)
            total = total + log_det
        return z, total

    @torch.no_grad()
    def start(self, x: Tensor) -> Tensor:
        for bijection in self.bijections:
            x = bijection.start(x)
        return x

    def parameter_log_prior(self) -> Tensor | float:
        return sum(bijection.parameter_log_prior() for bijection in self.bijections)
