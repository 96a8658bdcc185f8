"""What a ManifoldPriorFlow consists of."""

from dataclasses import dataclass

import torch

from .._config import FlowConfig
from ..backend.architectures import volume_preserving_flow, volume_preserving_image_flow
from ..backend.flow import ManifoldFlow
from .distribution import LearnedCovariance

__all__ = ["ManifoldPriorConfig", "build_flow"]


@dataclass(frozen=True)
class ManifoldPriorConfig(FlowConfig):
    """What the flow is built from; see the parameters of `ManifoldPriorFlow`.

    Attributes
    ----------
    n_free : int or None
        Number of free eigenvalues of C; None for all.
    scale_floor : float or None
        Smallest standard deviation of a principal axis of images.
    """

    n_free: int | None = None
    scale_floor: float | None = None


def build_flow(config: ManifoldPriorConfig, generator: torch.Generator) -> ManifoldFlow:
    """Return an unfitted flow: layers that preserve volume, and the prior."""
    layers = config.n_layers, config.hidden_layer_sizes
    if config.image_shape:
        assert config.scale_floor is not None
        bijection = volume_preserving_image_flow(
            config.flow,
            config.image_shape,
            *layers,
            floor=config.scale_floor,
            generator=generator,
        )
    else:
        bijection = volume_preserving_flow(
            config.flow, config.n_features, *layers, generator=generator
        )
    return ManifoldFlow(bijection, LearnedCovariance(config.n_features, config.n_free))
