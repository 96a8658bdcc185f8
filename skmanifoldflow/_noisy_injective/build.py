"""What a NoisyInjectiveFlow consists of."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from .._config import FROM_ROWS, FlowConfig
from ..backend.architectures import density_flow, image_flow
from ..backend.bijections import Bijection, Chain, MarginalSpline, StretchedChain
from ..backend.flow import ManifoldFlow
from .distribution import NoisyInjection
from .injections import Injection, LinearInjection, SquareInjection
from .stochastic_coupling import StochasticCoupling
from .upsampling import UpsamplingInjection

__all__ = ["NoisyInjectiveConfig", "build_flow"]


@dataclass(frozen=True)
class NoisyInjectiveConfig(FlowConfig):
    """What the flow is built from; see the parameters of `NoisyInjectiveFlow`.

    Attributes
    ----------
    n_components : int
        Number of coordinates d; unused with ``injection="upsampling"``.
    factor : int
        Side of the blocks of pixels with ``injection="upsampling"``; else unused.
    n_marginal_bins : int
        Bins of the spline of each column, by the number of rows.
    is_stretched : bool
        Whether the layers of a table act where its narrow directions are stretched.
    """

    read_from_rows: ClassVar[frozenset[str]] = frozenset(
        {"n_components", "n_marginal_bins", "is_stretched"}
    )

    n_components: int = FROM_ROWS
    n_marginal_bins: int = FROM_ROWS
    injection: str = "linear"
    factor: int = 2
    noise_covariance: str = "spherical"
    noise_floor: float = 1e-3
    n_latent_layers: int = 0
    n_importance_samples: int = 32
    # Models of earlier versions are not.
    is_stretched: bool = False


def build_flow(config: NoisyInjectiveConfig, generator: torch.Generator) -> ManifoldFlow:
    """Return an unfitted flow: layers, an injection, and perhaps a flow as its prior."""
    sizes, shape = config.hidden_layer_sizes, config.image_shape
    is_upsampled = config.injection == "upsampling"
    bijection: Bijection
    if shape is not None:
        bijection = image_flow(
            shape, config.n_layers, sizes[0], generator=generator, keeps_layout=is_upsampled
        )
    else:
        layers = density_flow(
            config.flow, config.n_features, config.n_layers, sizes, generator=generator
        )
        if config.is_stretched:
            layers = StretchedChain(
                config.n_features,
                layers.bijections,
                n_components=config.n_components,
                noise=config.noise_floor,
            )
        bijection = Chain([MarginalSpline(config.n_features, config.n_marginal_bins), layers])
    injection = _injection(config, generator)
    prior: Bijection | None = None
    if config.n_latent_layers and is_upsampled:
        assert shape is not None
        small = shape[0], shape[1] // config.factor, shape[2] // config.factor
        prior = image_flow(small, config.n_latent_layers, sizes[0], generator=generator)
    elif config.n_latent_layers:
        n_columns, n_layers = injection.n_components, config.n_latent_layers
        prior = density_flow(config.flow, n_columns, n_layers, sizes, generator=generator)
    latent = NoisyInjection(injection, prior, n_importance_samples=config.n_importance_samples)
    return ManifoldFlow(bijection, latent)


def _injection(config: NoisyInjectiveConfig, generator: torch.Generator) -> Injection:
    n_features, d, floor = config.n_features, config.n_components, config.noise_floor
    noise = config.noise_covariance
    if config.injection == "upsampling":
        assert config.image_shape is not None
        return UpsamplingInjection(
            config.image_shape, config.factor, noise_covariance=noise, noise_floor=floor
        )
    if config.injection == "coupling":
        return StochasticCoupling(
            n_features,
            d,
            noise_covariance=noise,
            noise_floor=floor,
            hidden_layer_sizes=config.hidden_layer_sizes,
            generator=generator,
        )
    if d == n_features:
        return SquareInjection(n_features, noise_floor=floor)
    return LinearInjection(n_features, d, noise_covariance=noise, noise_floor=floor)
