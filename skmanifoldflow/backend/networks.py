"""Conditioner networks, initialised from their own generator and never from the global one."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "ConvNet",
    "Linear",
    "MaskedMLP",
    "filters",
    "weight_matrices",
]


class Linear(nn.Linear):
    """Linear layer in float32 whose weights are left to its owner, who has the generator."""

    def __init__(self, n_inputs: int, n_outputs: int, bias: bool = True) -> None:
        super().__init__(n_inputs, n_outputs, bias, dtype=torch.float32)

    def reset_parameters(self) -> None:
        pass


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
        layers = [Linear(n_in, n_out) for n_in, n_out in pairwise(sizes)]
        for layer in layers[:-1]:
            bound = math.sqrt(3.0 / max(1, layer.in_features))
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound / 3, bound / 3, generator=generator)
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.silu(layer(x))
        return last(x)

    def weights(self) -> list[Tensor]:
        """Return weight and bias of one layer after the other."""
        return [p for layer in self.layers for p in layer.parameters()]


def weight_matrices(module: nn.Module) -> list[list[nn.Parameter]]:
    """Return the weights of the layers, first to last, of every `MLP` in a module."""
    networks = [part for part in module.modules() if isinstance(part, MLP)]
    return [cast(list[nn.Parameter], network.weights()[::2]) for network in networks]


def filters(module: nn.Module) -> list[nn.Parameter]:
    """Return the weights of the convolutions and linear maps of every `ConvNet` in a module."""
    networks = [part for part in module.modules() if isinstance(part, ConvNet)]
    parameters = [p for network in networks for p in network.named_parameters()]
    return [p for name, p in parameters if name.endswith("weight")]


class MaskedMLP(nn.Module):
    """Multilayer perceptron whose outputs for column i see columns 1 to i - 1 only.

    Masked autoencoder (MADE, Germain et al., ICML 2015): every unit has a degree and sees units of
    at most that degree. Like `MLP` it has SiLU units and a last layer that starts at zero.

    Parameters
    ----------
    n_features : int
        Number of input columns D.
    hidden_layer_sizes : sequence of int
        Units of each hidden layer.
    n_params : int
        Outputs per column.
    generator : torch.Generator
        Source of the initial weights.
    n_context : int, default=0
        Number of context columns, which every unit may see.
    """

    def __init__(
        self,
        n_features: int,
        hidden_layer_sizes: Sequence[int],
        n_params: int,
        *,
        generator: torch.Generator,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_params = n_params
        columns = torch.arange(n_features)
        # A unit of degree 0 sees the context alone; without context it would be a constant.
        lowest = 0 if n_context or n_features == 1 else 1
        degrees = [torch.cat([columns + 1, torch.zeros(n_context, dtype=torch.long)])]
        for size in hidden_layer_sizes:
            degrees.append(lowest + torch.arange(size) * (n_features - lowest) // size)
        degrees.append(columns.repeat(n_params))
        layers = [Linear(len(a), len(b)) for a, b in pairwise(degrees)]
        for i, (before, after) in enumerate(pairwise(degrees)):
            mask = (before <= after[:, None]).to(torch.float32)
            self.register_buffer(f"mask_{i}", mask, persistent=False)
        for i, layer in enumerate(layers[:-1]):
            fan_in = self.get_buffer(f"mask_{i}").sum(dim=1).clamp(min=1)
            bound = torch.sqrt(3 / fan_in)
            nn.init.uniform_(layer.weight, -1.0, 1.0, generator=generator)
            nn.init.uniform_(layer.bias, -1 / 3, 1 / 3, generator=generator)
            with torch.no_grad():
                layer.weight.mul_(bound[:, None])
                layer.bias.mul_(bound)
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of every column, shape (n, n_params, D)."""
        if context is not None:
            x = torch.cat([x, context], dim=1)
        for i, layer in enumerate(self.layers):
            if i:
                x = x * torch.sigmoid(x)
            weight = cast(Tensor, layer.weight) * self.get_buffer(f"mask_{i}")
            x = F.linear(x, weight, cast(Tensor, layer.bias))
        return x.unflatten(1, (self.n_params, self.n_features))


class _Conv2d(nn.Conv2d):
    """Padded convolution in float32 whose weights are left to its owner, who has the generator."""

    def __init__(self, n_inputs: int, n_outputs: int, kernel_size: int, stride: int = 1) -> None:
        padding, dtype = kernel_size // 2, torch.float32
        super().__init__(n_inputs, n_outputs, kernel_size, stride, padding=padding, dtype=dtype)

    def reset_parameters(self) -> None:
        pass


class ConvNet(nn.Module):
    """Convolutions 3x3, 1x1 and 3x3 with SiLU units, the last of which starts at zero.

    To the first hidden layer is added a bias per pixel, since where something is matters in images
    that are aligned, and one per channel that a small perceptron gives of the whole input, since
    three convolutions see no farther than two pixels. Both cost little.

    Parameters
    ----------
    n_inputs, hidden_channels, n_outputs : int
        Number of channels of the input, of both hidden layers and of the output.
    size : tuple of two ints
        Height and width of the images.
    generator : torch.Generator
        Source of the initial weights.
    n_context : int, default=0
        Number of context columns, of which a linear map is added per channel as well. No context
        is the same as one of zeros.
    """

    def __init__(
        self,
        n_inputs: int,
        hidden_channels: int,
        n_outputs: int,
        size: tuple[int, int],
        *,
        generator: torch.Generator,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        height, width = size
        self.first = _Conv2d(n_inputs, hidden_channels, 3)
        self.place = nn.Parameter(torch.zeros(height, width, hidden_channels, dtype=torch.float32))
        self.summary = Linear(n_inputs * height * width, hidden_channels)
        self.broadcast = Linear(hidden_channels, hidden_channels)
        self.second = _Conv2d(hidden_channels, hidden_channels, 1)
        self.last = _Conv2d(hidden_channels, n_outputs, 3)
        for layer in (self.first, self.summary, self.broadcast, self.second):
            bound = math.sqrt(3.0 / layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(cast(Tensor, layer.bias), -bound / 3, bound / 3, generator=generator)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))
        self.context = None
        if n_context:
            self.context = Linear(n_context, hidden_channels, bias=False)
            bound = math.sqrt(3.0 / n_context)
            nn.init.uniform_(self.context.weight, -bound, bound, generator=generator)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        everywhere = self.broadcast(torch.tanh(self.summary(x.flatten(1))))
        if self.context is not None and context is not None:
            everywhere = everywhere + self.context(context)
        hidden = self.first(x) + self.place.permute(2, 0, 1) + everywhere[:, :, None, None]
        return self.last(F.silu(self.second(F.silu(hidden))))


def _halvings(size: tuple[int, int], n: int) -> list[tuple[int, int]]:
    """Return a size and what n convolutions of stride 2 make of it, one after the other."""
    sizes = [size]
    for _ in range(n):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def _initialize_network(layers: Sequence[nn.Module], generator: torch.Generator) -> None:
    """Draw the weights of layers with SiLU units between them, the last of which starts at zero."""
    for layer in layers:
        weight, bias = cast(Tensor, layer.weight), cast(Tensor, layer.bias)
        bound = 0.0 if layer is layers[-1] else math.sqrt(3.0 / weight[0].numel())
        nn.init.uniform_(weight, -bound, bound, generator=generator)
        nn.init.uniform_(bias, -bound / 3, bound / 3, generator=generator)


class ConvEncoder(nn.Module):
    """Flattened images to codes: 3x3 convolutions of stride 2, then a linear map from zero.

    Parameters
    ----------
    image_shape : tuple of three ints
        Channels, height and width (C, H, W).
    hidden_channels : sequence of int
        Channels after each convolution.
    n_outputs : int
        Length of a code.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        hidden_channels: Sequence[int],
        n_outputs: int,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.shape = image_shape
        n_channels, *size = image_shape
        height, width = _halvings((size[0], size[1]), len(hidden_channels))[-1]
        channels = [n_channels, *hidden_channels]
        self.convolutions = nn.ModuleList(_Conv2d(a, b, 3, 2) for a, b in pairwise(channels))
        self.last = Linear(channels[-1] * height * width, n_outputs)
        _initialize_network([*self.convolutions, self.last], generator)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, self.shape)
        for layer in self.convolutions:
            x = F.silu(layer(x))
        return self.last(x.flatten(1))


class ConvDecoder(nn.Module):
    """Codes to flattened images: the mirror of `ConvEncoder`.

    Pixels are doubled before each convolution, which leaves no chequered pattern behind.
    The last convolution starts at zero. Parameters are those of `ConvEncoder`, and:

    n_inputs : int
        Length of a code.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        hidden_channels: Sequence[int],
        n_inputs: int,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        n_channels, *size = image_shape
        *larger, smallest = _halvings((size[0], size[1]), len(hidden_channels))
        self.sizes = larger[::-1]
        channels = [n_channels, *hidden_channels][::-1]
        self.shape = (channels[0], *smallest)
        self.first = Linear(n_inputs, math.prod(self.shape))
        self.convolutions = nn.ModuleList(_Conv2d(a, b, 3) for a, b in pairwise(channels))
        _initialize_network([self.first, *self.convolutions], generator)

    def forward(self, code: Tensor) -> Tensor:
        x = self.first(code).unflatten(1, self.shape)
        for size, layer in zip(self.sizes, self.convolutions, strict=True):
            # Copies of the pixels cut to size, where torch would interpolate one by one.
            x = F.silu(x).repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = layer(x[:, :, : size[0], : size[1]])
        return x.flatten(1)
