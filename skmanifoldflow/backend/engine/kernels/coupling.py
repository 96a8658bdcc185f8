"""Coupling layers."""

from torch import Tensor

from .base import ElementwiseKernel, Kernel, Wiring
from .mlp import MLPKernel

__all__ = ["CouplingKernel"]


class CouplingKernel(Kernel):
    """The first columns pass and parametrise an elementwise map of the others, in place.

    Parameters
    ----------
    wiring : Wiring
        With the weights of the conditioner.
    n_passed : int
        Number of columns that pass.
    elementwise : ElementwiseKernel
        The map, built from `entries`.
    """

    reads_z = True

    def __init__(self, wiring: Wiring, n_passed: int, elementwise: ElementwiseKernel) -> None:
        space, x, context = wiring.space, wiring.x, wiring.context
        self.z, self.grad_z = x, wiring.grad_x
        inputs, self.moved = x[:, :n_passed], x[:, n_passed:]
        # Columns of the context beside those that pass, and where all of them go.
        self.copies: list[tuple[Tensor, Tensor]] = []
        if context is not None:
            passed, inputs = inputs, space.kept(n_passed + context.shape[1], x.shape[2])
            places = inputs.tensor_split([n_passed], 1)
            self.copies = [(places[0], passed), (places[1], context)]
        self.map = elementwise
        parts = inputs, self.map.params, self.map.grad_params
        self.network = MLPKernel(space, wiring.weights, wiring.gradients, *parts)
        if not space.trains:
            return
        grad_passed, self.grad_moved = wiring.grad_x.tensor_split([n_passed], 1)
        # Columns to which parts of the gradient of the inputs are added.
        of_passed, of_context = self.network.grad_inputs.tensor_split([n_passed], 1)
        self.adds: list[tuple[Tensor, Tensor]] = []
        if context is not None:
            self.adds = [(grad_passed, of_passed), (wiring.grad_context, of_context)]
        elif wiring.needs_grad_x:
            self.adds = [(grad_passed, of_passed)]

    def forward(self) -> None:
        for place, columns in self.copies:
            place.copy_(columns)
        self.network.forward()
        self.map.forward(self.moved)

    def backward(self) -> None:
        self.map.backward(self.grad_moved)
        self.network.backward()
        if self.adds:
            self.network.write_input_gradient()
        for grad, part in self.adds:
            grad.add_(part)
