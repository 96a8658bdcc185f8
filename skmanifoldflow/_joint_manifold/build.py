"""What a JointManifoldFlow consists of."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch

from .._config import FlowConfig
from ..backend.architectures import density_flow, split_flow
from ..backend.bijections import Bijection, Chain, ChannelSplit, PrincipalAxes
from ..backend.flow import ManifoldFlow, Outliers
from .distribution import PenalizedSplit

__all__ = ["JointManifoldConfig", "build_flow"]

# Layers of a stage that keeps the number of coordinates.
_N_STAGE_LAYERS = 4


@dataclass(frozen=True)
class JointManifoldConfig(FlowConfig):
    """What the flow is built from; see the parameters of `JointManifoldFlow`.

    Attributes
    ----------
    n_components : int or None
        Number of coordinates d of the first stage, read from the rows by default.
    stage_components : tuple of int or None
        Largest numbers of coordinates of the further stages.
    """

    read_from_rows: ClassVar[frozenset[str]] = frozenset({"n_components"})

    n_components: int | None = None
    n_stages: int = 2
    stage_components: tuple[int, ...] | None = None
    split: str = "flat"
    penalty: str = "huber"
    noise_floor: float = 2e-3

    @property
    def all_stages(self) -> tuple[int, ...]:
        """Numbers of coordinates of all stages."""
        d = self.n_components
        assert d is not None
        if self.stage_components is None:
            return (d,) * self.n_stages
        # The first stage may have fewer coordinates than was known before.
        return (d, *(min(d, k) for k in self.stage_components))


def build_flow(config: JointManifoldConfig, generator: torch.Generator) -> ManifoldFlow:
    """Return an unfitted flow: the first stage, and within its latents the further ones."""
    d, sizes = config.n_components, config.hidden_layer_sizes
    if config.split == "channel":
        bijection: Bijection = ChannelSplit(
            config.image_shape,
            d,
            config.n_layers,
            sizes[0],
            floor=config.noise_floor,
            generator=generator,
        )
    else:
        axes = PrincipalAxes(config.n_features, d, floor=config.noise_floor)
        bijection = Chain([axes, _couplings(config, config.n_features, d, generator)])
    latent = outer = PenalizedSplit(config.n_features, d, penalty=config.penalty)
    for before, after in pairwise(config.all_stages):
        inner = PenalizedSplit(before, after, penalty=config.penalty)
        if after == before:
            refinement = density_flow("spline", after, _N_STAGE_LAYERS, sizes, generator=generator)
        else:
            refinement = _couplings(config, before, after, generator)
        outer.set_stage(refinement, inner)
        outer = inner
    has_outliers = config.penalty != "gaussian" and d < config.n_features
    return ManifoldFlow(bijection, latent, Outliers() if has_outliers else None)


def _couplings(config, n_features, n_components, generator):
    """Return the couplings of a split of columns."""
    return split_flow(
        config.flow,
        n_features,
        n_components,
        config.n_layers,
        config.hidden_layer_sizes,
        generator=generator,
    )
