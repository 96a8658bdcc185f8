"""What a NoisyInjectiveFlow consists of."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from .._config import FlowConfig
from ..backend.architectures import density_flow, image_flow
from ..backend.bijections import Chain, MarginalSpline
from ..backend.flow import ManifoldFlow
from .distribution import NoisyInjection
from .injections import LinearInjection, SquareInjection, UpsamplingInjection
from .stochastic_coupling import StochasticCoupling

__all__ = ["NoisyInjectiveConfig", "build_flow"]


@dataclass(frozen=True)
class NoisyInjectiveConfig(FlowConfig):
    """What the flow is built from; see the parameters of `NoisyInjectiveFlow`.

    Attributes
    ----------
    n_components : int or None
        Number of coordinates d, read from the rows by default; None for upsampled images.
    factor : int or None
        Side of the blocks of pixels of upsampled images.
    n_marginal_bins : int
        Bins of the spline of each column, by the number of rows.
    """

    read_from_rows: ClassVar[frozenset[str]] = frozenset({"n_components", "n_marginal_bins"})

    n_components: int | None = None
    n_marginal_bins: int | None = None
    injection: str = "linear"
    factor: int | None = None
    noise_covariance: str = "spherical"
    noise_floor: float = 1e-3
    n_latent_layers: int = 0
    n_importance_samples: int = 32


def build_flow(config: NoisyInjectiveConfig, generator: torch.Generator) -> ManifoldFlow:
    """Return an unfitted flow: layers, an injection, and perhaps a flow as its prior."""
    n_features, sizes = config.n_features, config.hidden_layer_sizes
    if config.image_shape:
        bijection = image_flow(
            config.image_shape,
            config.n_layers,
            sizes[0],
            generator=generator,
            keeps_layout=config.injection == "upsampling",
        )
    else:
        layers = density_flow(
            config.flow,
            n_features,
            config.n_layers,
            sizes,
            generator=generator,
        )
        bijection = Chain([MarginalSpline(n_features, config.n_marginal_bins), layers])
    noise = {
        "noise_covariance": config.noise_covariance,
        "noise_floor": config.noise_floor,
    }
    if config.injection == "upsampling":
        injection = UpsamplingInjection(config.image_shape, config.factor, **noise)
    elif config.injection == "coupling":
        injection = StochasticCoupling(
            n_features,
            config.n_components,
            hidden_layer_sizes=sizes,
            generator=generator,
            **noise,
        )
    elif config.n_components == n_features:
        injection = SquareInjection(n_features, noise_floor=config.noise_floor)
    else:
        injection = LinearInjection(n_features, config.n_components, **noise)
    prior = None
    if config.n_latent_layers and config.injection == "upsampling":
        c, h, w = config.image_shape
        prior = image_flow(
            (c, h // config.factor, w // config.factor),
            config.n_latent_layers,
            sizes[0],
            generator=generator,
        )
    elif config.n_latent_layers:
        prior = density_flow(
            config.flow,
            injection.n_components,
            config.n_latent_layers,
            sizes,
            generator=generator,
        )
    latent = NoisyInjection(injection, prior, n_importance_samples=config.n_importance_samples)
    return ManifoldFlow(bijection, latent)
