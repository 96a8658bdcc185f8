"""Configuration, construction and initialization of the flow of a JointManifoldFlow."""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar, cast

import torch

from .._config import FROM_ROWS, FlowConfig
from .._geometry import in_float64_on_cpu
from ..backend.architectures import density_flow, split_flow
from ..backend.bijections import Bijection, Chain, ChannelSplit, PrincipalAxes
from ..backend.flow import ManifoldFlow
from .distribution import PenalizedSplit

__all__ = ["JointManifoldConfig", "build_flow", "initialize_flow"]

# Number of layers of a stage that keeps the number of coordinates.
_N_STAGE_LAYERS = 4


@dataclass(frozen=True)
class JointManifoldConfig(FlowConfig):
    """Configuration that determines the shape of the flow.

    Fields without a description are parameters of `JointManifoldFlow`.

    Attributes
    ----------
    n_components : int or None
        Number of coordinates d of the first stage. None until it is read from the rows.
    stage_components : tuple of int or None
        Number of coordinates of each further stage, before it is limited to d.
    """

    read_from_rows: ClassVar[frozenset[str]] = frozenset({"n_components"})

    n_components: int = FROM_ROWS
    n_stages: int = 2
    stage_components: tuple[int, ...] | None = None
    split: str = "flat"
    penalty: str = "huber"
    noise_floor: float = 2e-3

    @property
    def all_stages(self) -> tuple[int, ...]:
        """Number of coordinates of each stage."""
        d = self.n_components
        if self.stage_components is None:
            return (d,) * self.n_stages
        # A d that is read from the rows may be smaller than those given for further stages.
        return (d, *(min(d, k) for k in self.stage_components))


def build_flow(config: JointManifoldConfig, generator: torch.Generator) -> ManifoldFlow:
    """Return an unfitted flow whose latent distribution contains the further stages."""
    d, sizes = config.n_components, config.hidden_layer_sizes
    couplings = partial(
        split_flow,
        config.flow,
        n_layers=config.n_layers,
        hidden_layer_sizes=sizes,
        generator=generator,
    )
    if config.split == "channel":
        assert config.image_shape is not None
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
        bijection = Chain([axes, couplings(config.n_features, d)])
    latent = outer = PenalizedSplit(config.n_features, d, penalty=config.penalty)
    for before, after in pairwise(config.all_stages):
        inner = PenalizedSplit(before, after, penalty=config.penalty)
        if after == before:
            refinement = density_flow("spline", after, _N_STAGE_LAYERS, sizes, generator=generator)
        else:
            refinement = couplings(before, after)
        outer.set_stage(refinement, inner)
        outer = inner
    return ManifoldFlow(bijection, latent)


def initialize_flow(flow: ManifoldFlow, rows: torch.Tensor, noise_floor: float) -> None:
    """Initialize a flow at probabilistic PCA of standardised rows (n, D).

    The deviations have the distribution of the penalty, which is normal for "gaussian" only.
    """
    latent, bijection = cast(PenalizedSplit, flow.latent), flow.bijection
    d = latent.n_components
    with in_float64_on_cpu(flow):
        deviations = bijection.initialize(rows)[:, d:]
        if not deviations.shape[1]:
            return
        split = (
            bijection
            if isinstance(bijection, ChannelSplit)
            else cast(Chain, bijection).bijections[0]
        )
        axes = cast(ChannelSplit | PrincipalAxes, split)
        scale = latent.penalty.fit_scale(deviations, torch.finfo(deviations.dtype).tiny)
        # The mean of the deviations was estimated from the same rows.
        scale = scale * math.sqrt(len(rows) / (len(rows) - 1))
        latent.set_scales(scale, noise_floor / axes.scale()[d:])
