"""Configuration of a ChartAtlasFlow, and its flow before it is fitted."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from .._config import FROM_ROWS, FlowConfig
from .._mixture_of_pca import n_axes
from ..backend.architectures import density_flow, image_flow
from ..backend.bijections import Bijection
from .atlas import Atlas, AtlasEnsemble
from .chart_maps import AmbientChartMap, ChartFrames, ChartMap, ConformalChartMap
from .quantizer import ImageAutoencoder, Quantizer, TableAutoencoder

__all__ = ["ChartAtlasConfig", "build_flow"]

# Length of the learned embedding of a chart.
_N_EMBEDDING = 3
# Channels of the autoencoder of images.
_QUANTIZER_CHANNELS = (16, 32)
# Axes of a chart of images.
_N_IMAGE_AXES = 16


@dataclass(frozen=True)
class ChartAtlasConfig(FlowConfig):
    """What the atlas is built from; see the parameters of `ChartAtlasFlow`.

    Attributes
    ----------
    n_components : int
        Length of a code.
    n_charts : tuple of int
        Number of charts of each atlas.
    n_flat : int
        Dimension of conformal charts; not read for images, which have none.
    n_neighbors : int
        `n_neighbors_charts`.
    """

    read_from_rows: ClassVar[frozenset[str]] = frozenset(
        {"n_components", "n_charts", "n_flat", "n_neighbors"}
    )
    obsolete: ClassVar[frozenset[str]] = frozenset({"isotropic"})

    n_components: int = FROM_ROWS
    n_charts: tuple[int, ...] = FROM_ROWS
    n_flat: int = FROM_ROWS
    n_neighbors: int = FROM_ROWS
    chart_map: str = "ambient"
    quantizer: str = "vq-ae"
    overlap: float = 0.1

    @property
    def is_isotropic(self) -> bool:
        """Whether all columns are standardised by one scale: conformal maps keep angles."""
        return self.chart_map == "conformal"


def build_flow(config: ChartAtlasConfig, generator: torch.Generator) -> AtlasEnsemble:
    """Return an unfitted ensemble: the quantiser, and an atlas for each partition of the rows."""
    autoencoder = _build_autoencoder(config, generator)
    return AtlasEnsemble(
        Quantizer(autoencoder, sum(config.n_charts), config.n_components),
        [_build_atlas(config, n_charts, generator) for n_charts in config.n_charts],
        n_features=config.n_features,
        n_neighbors=config.n_neighbors,
        overlap=config.overlap,
    )


def _build_autoencoder(
    config: ChartAtlasConfig, generator: torch.Generator
) -> TableAutoencoder | ImageAutoencoder:
    shape, n_components = config.image_shape, config.n_components
    if shape is not None and config.quantizer != "kmeans":
        return ImageAutoencoder(shape, n_components, _QUANTIZER_CHANNELS, generator=generator)
    # Without hidden layers the autoencoder is linear: that of PCA.
    sizes = () if config.quantizer == "kmeans" else config.hidden_layer_sizes
    return TableAutoencoder(config.n_features, n_components, sizes, generator=generator)


def _build_atlas(config: ChartAtlasConfig, n_charts: int, generator: torch.Generator) -> Atlas:
    n_features, sizes, shape = config.n_features, config.hidden_layer_sizes, config.image_shape
    is_conformal = config.chart_map == "conformal"
    n_kept = n_axes(n_features) if shape is None else min(_N_IMAGE_AXES, n_features)
    # The descriptors of a chart are its centre in the embedding and the logarithms of its scales.
    n_descriptors = config.n_components + n_kept
    n_context = n_descriptors + _N_EMBEDDING if n_charts > 1 else 0
    bijection: Bijection
    if shape is None:
        n_flow = config.n_flat if is_conformal else n_features
        bijection = density_flow(
            config.flow, n_flow, config.n_layers, sizes, generator=generator, n_context=n_context
        )
    else:
        bijection = image_flow(
            shape, config.n_layers, sizes[0], generator=generator, n_context=n_context
        )
    frames = ChartFrames(n_charts, n_features, n_kept)
    chart_map: ChartMap
    if is_conformal:
        chart_map = ConformalChartMap(frames, bijection, config.n_flat)
    else:
        chart_map = AmbientChartMap(frames, bijection, frames_last=shape is not None)
    return Atlas(
        chart_map, n_descriptors=n_descriptors, n_embedding=_N_EMBEDDING, generator=generator
    )
