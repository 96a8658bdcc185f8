"""What an objective of a fit implements."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..flow import FlowModel

__all__ = ["Objective", "known_gradient"]


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, n: int, *args: Tensor) -> Tensor:
        ctx.save_for_backward(*args[n:])
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        return None, None, *(g * grad for g in gradients), *(None for _ in gradients)


def known_gradient(value: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Return a value whose gradients are known, as one node of the graph.

    Parameters
    ----------
    value : Tensor of shape ()
        Computed without a graph.
    *pairs : tuple of two Tensors
        What the value depends on, and the gradient with respect to it.
    """
    tensors, gradients = zip(*pairs, strict=True)
    return _KnownGradient.apply(value, len(pairs), *tensors, *gradients)


class Objective(nn.Module, ABC):
    """Loss of a flow, and the closed-form steps between gradient steps."""

    flow: FlowModel
    # Share of the training that must pass before it may stop early.
    annealing: float = 0.0
    # Share of the steps over which weights are averaged.
    averaging: float = 0.0
    # Standard deviations between which the noise on the rows falls.
    noise_start: float = 0.0
    noise_floor: float = 0.0

    @abstractmethod
    def loss(self, batch: Tensor, progress: float) -> Tensor:
        """Return the loss of a batch of standardised rows; `progress` runs from 0 to 1."""

    def add_gradient(self, batch: Tensor, progress: float) -> Tensor:
        """Add the gradient of the loss of a batch to those of the parameters; return the loss."""
        loss = self.loss(batch, progress)
        loss.backward()
        return loss.detach()

    @abstractmethod
    def refresh(self, rows: Tensor) -> None:
        """Set what has a closed form, given the bijection, from all training rows."""

    def calibrate(self, rows: Tensor) -> None:  # noqa: B027
        """Set the few figures that are chosen on validation rows, where there are such rows."""

    @abstractmethod
    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Return the log-likelihood (n,) of rows, by whose mean the best weights are chosen."""

    def noise(self, progress: float) -> float:
        """Return the noise at a share of the training: it falls geometrically while it anneals."""
        remaining = max(0.0, 1.0 - progress / self.annealing)
        return self.noise_floor * max(1.0, self.noise_start / self.noise_floor) ** remaining

    def undecayed_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that weight decay must not touch."""
        return []

    def forget_batches(self) -> None:  # noqa: B027
        """Drop what was pooled over earlier batches: they came from weights that were lost."""
