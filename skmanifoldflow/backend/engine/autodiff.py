"""Gradients that are known, and gradients that are themselves differentiated."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["KnownLoss", "differentiable_gradient", "known_gradient"]


class _Weighted(torch.autograd.Function):
    """The sum of a tensor times weights; the gradient of the weights is left out."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return (tensor * weights).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * grads[0], None


def differentiable_gradient(
    results: Sequence[Tensor], grads: Sequence[Tensor], inputs: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Return the gradients of inputs, given those of results, with a graph of their own.

    None for inputs that are None or need none. The gradients of the results may have graphs, which
    are part of that of the returned ones. What `torch.autograd.grad` makes of them, but for a third
    of a second that its handling of given gradients takes a process to import.

    Parameters
    ----------
    results : sequence of Tensor
        Functions of the inputs, or constants.
    grads : sequence of Tensor
        The gradient of each.
    inputs : sequence of Tensor or None
        What to differentiate by.
    """
    # Results that need no gradient are constants.
    pairs = [(r, g) for r, g in zip(results, grads, strict=True) if r.requires_grad]
    total = torch.stack([_Weighted.apply(*pair) for pair in pairs]).sum()
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    found = iter(torch.autograd.grad(total, wanted, create_graph=True, materialize_grads=True))
    return [next(found) if t is not None and t.requires_grad else None for t in inputs]


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


class KnownLoss(NamedTuple):
    """Losses of one or more fits whose gradient is declared with them.

    Attributes
    ----------
    value : Tensor of shape () or (K,)
        The losses, without a graph.
    backward : callable
        Adds the gradients to those of the parameters, as `Tensor.backward` does; once.
    """

    value: Tensor
    backward: Callable[[], None]

    def detach(self) -> Tensor:
        """Return the losses."""
        return self.value
