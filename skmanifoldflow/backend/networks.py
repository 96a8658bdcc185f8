"""Conditioner networks, initialised from their own generator and never from the global one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

__all__ = ["MLP"]


class MLP(nn.Module):
    """Multilayer perceptron with SiLU units whose last layer starts at zero.

    A zero last layer makes every coupling the identity at the start of a fit. SiLU is smooth, so
    the Jacobians of a flow, and with them its on-manifold density, are smooth too.

    Parameters
    ----------
    n_inputs : int
        Number of input columns; 0 gives a learned constant.
    hidden_layer_sizes : sequence of int
        Units of each hidden layer.
    n_outputs : int
        Number of output columns.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(
        self,
        n_inputs: int,
        hidden_layer_sizes: Sequence[int],
        n_outputs: int,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = [n_inputs, *hidden_layer_sizes, n_outputs]
        self.layers = nn.ModuleList(
            skip_init(nn.Linear, n_in, n_out) for n_in, n_out in zip(sizes[:-1], sizes[1:])
        )
        for layer in self.layers[:-1]:
            bound = math.sqrt(3.0 / max(1, layer.in_features))
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound / 3, bound / 3, generator=generator)
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x)
            # As a product SiLU trains twice as fast on a CPU as torch's silu, whose backward
            # computes a second exponential.
            x = x * torch.sigmoid(x)
        return self.layers[-1](x)
