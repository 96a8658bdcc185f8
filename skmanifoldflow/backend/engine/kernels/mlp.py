"""Multilayer perceptrons."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...torch_private import silu, silu_backward
from ..workspace import Workspace, without_gaps

__all__ = ["MLPKernel"]


class MLPKernel:
    """Multilayer perceptron with SiLU units, and its gradient.

    Inputs and outputs are columns, and so is what lies in between, unless gradients are to come:
    those of weights are faster where each row lies by itself.

    Parameters
    ----------
    space : Workspace
        Gives out the buffers.
    weights, gradients : sequence of Tensor
        Weight (K, n_out, n_in) and bias (K, n_out) of one layer after the other, and the views that
        receive their gradients.
    inputs, outputs : Tensor of shape (K, n_inputs, n) and (K, n_outputs, n)
        Buffers that `forward` reads and writes.
    grad_outputs : Tensor of shape (K, n_outputs, n) or None
        Buffer that `backward` reads.
    """

    def __init__(
        self,
        space: Workspace,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        inputs: Tensor,
        outputs: Tensor,
        grad_outputs: Tensor | None,
    ) -> None:
        n_rows = inputs.shape[2]
        *hidden_weights, self.weight = weights[::2]
        *hidden_biases, bias = weights[1::2]
        self.bias, (self.outputs, self.copies) = bias[:, :, None], without_gaps(outputs)
        rows, columns = inputs.mT, inputs
        self.hidden = []
        for weight, bias in zip(hidden_weights, hidden_biases, strict=True):
            if space.trains:
                raw, activation = (space.kept(n_rows, bias.shape[1]) for _ in range(2))
                self.hidden.append((bias[:, None], rows, weight.mT, raw, activation))
                rows, columns = activation, activation.mT
            else:
                # In place, which leaves more of the cache to the rest.
                raw = space.scratch(bias.shape[1], n_rows)
                self.hidden.append((bias[:, :, None], weight, columns, raw, raw))
                columns = raw
        self.last = columns
        if grad_outputs is None:
            return
        self.grad_outputs, self.last_rows = grad_outputs, rows
        own, self.copies_back = [], []
        for view in gradients[::2]:
            memory, copies = without_gaps(view)
            own.append(memory)
            self.copies_back += copies
        *grad_hidden, self.grad_weight = own
        *grad_biases, self.grad_bias = gradients[1::2]
        self.hidden_backward = []
        self.grad_columns = grad_outputs
        for i in reversed(range(len(self.hidden))):
            _, rows, _, raw, _ = self.hidden[i]
            grad_rows, grad_raw = self.grad_columns.mT, space.scratch(*raw.shape[1:])
            self.grad_columns = grad_raw.mT
            of_layer = grad_rows, weights[2 * i + 2], raw, grad_raw
            of_weight = grad_hidden[i]
            # As in `forward`: with one input no product.
            of_weight = of_weight[:, :, 0] if rows.shape[2] == 1 else of_weight
            into = self.grad_columns, rows, of_weight, grad_biases[i]
            self.hidden_backward.append((*of_layer, *into))
        self.first_weight = weights[0].mT
        self.grad_inputs = space.scratch(*inputs.shape[1:])

    def forward(self) -> None:
        """Write the outputs."""
        for bias, left, right, raw, activation in self.hidden:
            # With one input some processors round a product of several fits in another way.
            product = torch.addcmul if left.shape[2] == 1 else torch.baddbmm
            product(bias, left, right, out=raw)
            silu(raw, out=activation)
        torch.baddbmm(self.bias, self.weight, self.last, out=self.outputs)
        for view, memory in self.copies:
            view.copy_(memory)

    def backward(self) -> None:
        """Write the gradients of the weights."""
        torch.bmm(self.grad_outputs, self.last_rows, out=self.grad_weight)
        torch.sum(self.grad_outputs, 2, out=self.grad_bias)
        for grad, weight, raw, grad_raw, columns, rows, of_weight, of_bias in self.hidden_backward:
            torch.bmm(grad, weight, out=grad_raw)
            silu_backward(grad_raw, raw, grad_input=grad_raw)
            if rows.shape[2] == 1:
                # What `raw` holds is not read again.
                torch.mul(grad_raw, rows, out=raw)
                torch.sum(raw, 1, out=of_weight)
            else:
                torch.bmm(columns, rows, out=of_weight)
            torch.sum(grad_raw, 1, out=of_bias)
        for view, memory in self.copies_back:
            view.copy_(memory)

    def write_input_gradient(self) -> None:
        """Write the gradient of the inputs to `grad_inputs` (K, n_inputs, n), after `backward`."""
        torch.bmm(self.first_weight, self.grad_columns, out=self.grad_inputs)
