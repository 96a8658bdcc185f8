"""From the name of a flow to its chain of bijections."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch

from .bijections import (
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Chain,
    Coupling,
    MaskedAutoregressive,
    Orthogonal,
    Permutation,
    SplineCoupling,
)
from .bijections.in_principal_axes import InPrincipalAxes
from .bijections.multiscale import MultiScale, PixelOrder
from .bijections.volume_preserving_conv import VolumePreservingConv

__all__ = [
    "density_flow",
    "image_flow",
    "split_flow",
    "volume_preserving_flow",
    "volume_preserving_image_flow",
]

# A dense rotation costs D^2 per row, a coupling about D * W: beyond this many columns a permutation
# mixes well enough and costs nothing.
_MAX_FEATURES_ROTATED = 128

_COUPLINGS: dict[str, type[Coupling]] = {
    "spline": SplineCoupling,
    "affine": AffineCoupling,
    "additive": AdditiveCoupling,
}


def _mixing(n_features: int, generator: torch.Generator) -> Bijection:
    """Return a fixed random rotation, or a permutation where there are many columns."""
    if n_features <= _MAX_FEATURES_ROTATED:
        return Orthogonal(n_features, generator=generator)
    return Permutation(n_features, generator=generator)


def _volume_preserving_coupling(
    flow: str,
    n_features: int,
    n_transformed: int,
    hidden_layer_sizes: Sequence[int],
    generator: torch.Generator,
) -> Coupling:
    """Return an additive coupling, or an affine one with centred log-scales."""
    # One log-scale minus its mean is zero, so the affine layer is additive there.
    if flow == "additive" or n_transformed == 1:
        return AdditiveCoupling(n_features, n_transformed, hidden_layer_sizes, generator=generator)
    return AffineCoupling(
        n_features,
        n_transformed,
        hidden_layer_sizes,
        generator=generator,
        volume_preserving=True,
    )


def volume_preserving_flow(
    flow: str,
    n_features: int,
    n_layers: int,
    hidden_layer_sizes: Sequence[int],
    *,
    generator: torch.Generator,
) -> Chain:
    """Return couplings of unit volume with a fixed random mixing before each.

    The numbers of passed and of mapped columns swap from layer to layer: with D = 3 a layer that
    maps one column is additive, and the next one, which maps two, is not.

    Parameters
    ----------
    flow : {"affine", "additive"}
        Kind of coupling. At D <= 2 both are additive.
    n_features : int
        Number of columns D. At D = 1 the chain is empty: the volume-preserving maps of the line are
        shifts and reflections, which the latent distribution already contains.
    n_layers : int
        Number of couplings.
    hidden_layer_sizes : sequence of int
        Hidden layers of every conditioner.
    generator : torch.Generator
        Source of rotations and initial weights.
    """
    if n_features == 1:
        return Chain([])
    layers: list[Bijection] = []
    for i in range(n_layers):
        n_transformed = n_features // 2 if i % 2 else n_features - n_features // 2
        layers.append(_mixing(n_features, generator))
        layers.append(
            _volume_preserving_coupling(
                flow, n_features, n_transformed, hidden_layer_sizes, generator
            )
        )
    return Chain(layers)


def volume_preserving_image_flow(
    flow: str,
    image_shape: tuple[int, int, int],
    n_layers: int,
    hidden_layer_sizes: Sequence[int],
    *,
    floor: float,
    generator: torch.Generator,
) -> Chain:
    """Return couplings of unit volume for flattened images.

    Convolutional couplings, `n_layers` // 4 of them on images squeezed once and twice, are followed
    by `n_layers` fully connected ones (Zhang et al., appendix C.1). These work in the principal
    axes of the rows and map the deviations given the first k axes, with k falling to 2 and rising
    again by powers of two: 16, 8, 4, 2, 4, 8, 16, 32 for eight layers. Of rows near a manifold the
    small axes are functions of the large ones, which such splits say at once; halves of permuted
    pixels gain little more than half as many nats in as many steps. The first two axes are moved by
    the convolutions alone.

    Its `initialize(x)` wants training rows before the first step.

    Parameters
    ----------
    flow : {"affine", "additive"}
        Kind of coupling.
    image_shape : tuple of three ints
        Channels, height and width (C, H, W).
    n_layers : int
        Number of fully connected couplings.
    hidden_layer_sizes : sequence of int
        Hidden channels of the convolutional couplings, then the hidden layers of the others; a
        single entry is both.
    floor : float
        Smallest standard deviation that counts as the scale of a principal axis.
    generator : torch.Generator
        Source of rotations and initial weights.
    """
    n_features = math.prod(image_shape)
    convolutional = VolumePreservingConv(
        image_shape,
        n_layers // 4,
        hidden_layer_sizes[0],
        log_scales="none" if flow == "additive" else "centred",
        generator=generator,
    )
    lowest = (n_layers - 1) // 2
    layers = [
        _volume_preserving_coupling(
            flow,
            n_features,
            n_features - min(2 ** (1 + abs(i - lowest)), n_features // 2),
            hidden_layer_sizes[1:] or hidden_layer_sizes,
            generator,
        )
        for i in range(n_layers if n_features > 1 else 0)
    ]
    frame = InPrincipalAxes(n_features, Chain(layers), floor=floor)
    return Chain([convolutional, frame])


def _permutations(
    is_coupling: bool, n_features: int, n: int, generator: torch.Generator
) -> list[Permutation]:
    """Return n fixed permutations and a last one that undoes the product of them all."""
    permutations = []
    place = torch.arange(n_features)
    n_passed = n_features // 2
    for i in range(n):
        if i % 2:
            order = torch.randperm(n_features, generator=generator)
        elif is_coupling:
            # The next coupling maps what the one before has passed. Between such pairs any column
            # may come to stand beside any other.
            passed = torch.randperm(n_passed, generator=generator)
            moved = torch.randperm(n_features - n_passed, generator=generator) + n_passed
            order = torch.cat([moved, passed])
        else:
            order = torch.arange(n_features).flip(0)
        permutations.append(Permutation(n_features, order=order))
        place = place[order]
    return [*permutations, Permutation(n_features, order=torch.argsort(place))]


def density_flow(
    flow: str,
    n_features: int,
    n_layers: int,
    hidden_layer_sizes: Sequence[int],
    *,
    generator: torch.Generator,
    n_context: int = 0,
) -> Chain:
    """Return a flow of tables that starts as the identity map.

    The columns are permuted between two layers, and after the last layer a permutation undoes all
    of these, so the latent distribution can start in the coordinates of the data. Every second
    coupling maps what the one before has passed, every second autoregressive layer takes the
    columns in the opposite order. Permutations, since the columns of a table have a meaning of
    their own: rotations lose up to a nat on tables and gain nothing even on sheets that lie askew.

    Parameters
    ----------
    flow : {"spline", "affine", "additive", "autoregressive"}
        Kind of layer. A coupling maps half of the columns, an autoregressive layer all of them; its
        inverse takes `n_features` passes.
    n_features : int
        Number of columns D. At D = 1 every layer is an elementwise map with learned constants, or
        with parameters given by the context.
    n_layers : int
        Number of layers.
    hidden_layer_sizes : sequence of int
        Hidden layers of every conditioner.
    generator : torch.Generator
        Source of permutations and initial weights.
    n_context : int, default=0
        Number of context columns.
    """
    n_half = n_features // 2
    common: dict[str, Any] = {
        "hidden_layer_sizes": hidden_layer_sizes,
        "generator": generator,
        "n_context": n_context,
    }
    layers: list[Bijection] = []
    for i in range(n_layers):
        if flow == "autoregressive":
            layers.append(MaskedAutoregressive(n_features, **common))
        else:
            n_transformed = max(1, n_half) if i % 2 else n_features - n_half
            layers.append(_COUPLINGS[flow](n_features, n_transformed, **common))
    if n_features == 1 or n_layers < 2:
        return Chain(layers)
    permutations = _permutations(flow != "autoregressive", n_features, n_layers - 1, generator)
    return Chain(chain.from_iterable(zip(layers, permutations, strict=True)))


def image_flow(
    image_shape: tuple[int, int, int],
    n_layers: int,
    hidden_channels: int,
    *,
    generator: torch.Generator,
    keeps_layout: bool = False,
    n_context: int = 0,
) -> Bijection:
    """Return a convolutional flow of flattened images.

    Its `initialize(x)` wants some hundreds of training rows before the first step.

    Parameters
    ----------
    image_shape : tuple of three ints
        Channels, height and width (C, H, W).
    n_layers : int
        Steps of GLOW in every scale.
    hidden_channels : int
        Hidden channels of the conditioners.
    generator : torch.Generator
        Source of rotations and initial weights.
    keeps_layout : bool, default=False
        One scale whose latents are an image again, each in the place of its pixel, instead of
        several scales. Height and width are then even or 1.
    n_context : int, default=0
        Number of context columns.
    """
    flow = MultiScale(
        image_shape,
        (n_layers,),
        (hidden_channels,),
        generator=generator,
        max_scales=1 if keeps_layout else 3,
        n_context=n_context,
    )
    return Chain([flow, PixelOrder(image_shape)]) if keeps_layout else flow


def split_flow(
    flow: str,
    n_features: int,
    n_components: int,
    n_layers: int,
    hidden_layer_sizes: Sequence[int],
    *,
    generator: torch.Generator,
) -> Chain:
    """Return couplings between manifold coordinates and deviations, the identity at the start.

    The first `n_components` columns are the coordinates u. The layers map by turns u given the
    deviations v and v given u, the last one v: what a curved manifold needs first is that v is
    centred on a function of u, for which mixings by rotations or permutations of all columns take
    three times as long.

    Parameters
    ----------
    flow : {"affine", "spline", "additive"}
        Kind of coupling.
    n_features : int
        Number of columns D.
    n_components : int
        Number of coordinates d. Where d = D there is no split, and the layers are those of
        `density_flow`.
    n_layers : int
        Number of layers.
    hidden_layer_sizes : sequence of int
        Hidden layers of every conditioner.
    generator : torch.Generator
        Source of initial weights.
    """
    n_deviations = n_features - n_components
    if n_deviations == 0:
        return density_flow(flow, n_features, n_layers, hidden_layer_sizes, generator=generator)
    common: dict[str, Any] = {"hidden_layer_sizes": hidden_layer_sizes, "generator": generator}
    columns = torch.arange(n_features)
    order = torch.cat([columns[n_components:], columns[:n_components]])
    layers: list[Bijection] = []
    for i in range(n_layers):
        maps_deviations = (n_layers - 1 - i) % 2 == 0
        n_transformed = n_deviations if maps_deviations else n_components
        coupling = _COUPLINGS[flow](n_features, n_transformed, **common)
        if maps_deviations:
            layers.append(coupling)
            continue
        swap = Permutation(n_features, order=order)
        back = Permutation(n_features, order=torch.argsort(order))
        layers += [swap, coupling, back]
    return Chain(layers)
