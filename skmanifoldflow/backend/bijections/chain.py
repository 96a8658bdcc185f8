"""Composition of bijections."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .base import Bijection

__all__ = ["Chain"]


class Chain(Bijection):
    """Bijections applied one after the other; an empty chain is the identity.

    Parameters
    ----------
    bijections : iterable of Bijection
        In the data -> latent order.
    """

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        super().__init__()
        self.bijections = cast(Sequence[Bijection], nn.ModuleList(bijections))

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for bijection in self.bijections:
            x, log_det = bijection.forward_and_log_det(x, context)
            total = total + log_det
        return x, total

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
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
