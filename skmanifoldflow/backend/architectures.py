"""From the name of a flow to its chain of bijections."""

from collections.abc import Sequence

import torch

from .bijections import AdditiveCoupling, AffineCoupling, Bijection, Chain, Orthogonal, Permutation

__all__ = ["volume_preserving_flow"]

# A dense rotation costs D^2 per row, a coupling about D * W: beyond this many columns a permutation
# mixes well enough and costs nothing.
_MAX_FEATURES_ROTATED = 128


def _mixing(n_features: int, generator: torch.Generator) -> Bijection:
    """Return a fixed random rotation, or a permutation where there are many columns."""
    if n_features <= _MAX_FEATURES_ROTATED:
        return Orthogonal(n_features, generator=generator)
    return Permutation(n_features, generator=generator)


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
        shifts and reflections, which the latent law already contains.
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
        # One log-scale minus its mean is zero, so the affine layer is additive there.
        if flow == "additive" or n_transformed == 1:
            coupling: Bijection = AdditiveCoupling(
                n_features, n_transformed, hidden_layer_sizes, generator=generator
            )
        else:
            coupling = AffineCoupling(
                n_features,
                n_transformed,
                hidden_layer_sizes,
                generator=generator,
                volume_preserving=True,
            )
        layers.append(coupling)
    return Chain(layers)
