"""What a ChartAtlasFlow consists of."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from .._config import FlowConfig
from .._mixture_of_pca import n_axes
from ..backend.architectures import density_flow, image_flow
from .atlas import Atlas, AtlasEnsemble
from .chart_maps import AmbientChartMap, ChartFrames, ConformalChartMap
from .quantizer import ImageAutoencoder, Quantizer, TableAutoencoder

__all__ = ["ChartAtlasConfig", "build_flow"]

# Length of what is learned of a chart beside its centre and its scales.
_N_EMBEDDING = 3
# Channels of the autoencoder of images, and axes of a chart of images.
_QUANTIZER_CHANNELS = (16, 32)
_N_IMAGE_AXES = 16


@dataclass(frozen=True)
class ChartAtlasConfig(FlowConfig):
    """What the atlas is built from; see the parameters of `ChartAtlasFlow`.

    Attributes
    ----------
    n_components : int or None
        Length of a code.
    n_charts : tuple of int or None
        Number of charts of each partition.
    n_flat : int or None
        Dimension of conformal charts; None for images.
    n_neighbors : int or None
        Charts whose distance from a code tells which of them it lies in.
    """

    read_from_rows: ClassVar[frozenset[str]] = frozenset(
        {"n_components", "n_charts", "n_flat", "n_neighbors"}
    )
    obsolete: ClassVar[frozenset[str]] = frozenset({"isotropic"})

    n_components: int | None = None
    n_charts: tuple[int, ...] | None = None
    n_flat: int | None = None
    n_neighbors: int | None = None
    chart_map: str = "ambient"
    quantizer: str = "vq-ae"
    overlap: float = 0.1

    @property
    def is_isotropic(self) -> bool:
        """Conformal maps keep angles, so the columns must have one scale."""
        return self.chart_map == "conformal"


def build_flow(config: ChartAtlasConfig, generator: torch.Generator) -> AtlasEnsemble:
    """Return an unfitted atlas: the quantiser, and the charts of each partition."""
    n_features, n_components = config.n_features, config.n_components
    sizes = config.hidden_layer_sizes
    image_shape = config.image_shape
    if config.quantizer == "kmeans":
        autoencoder = TableAutoencoder(n_features, n_components, (), generator=generator)
    elif image_shape:
        autoencoder = ImageAutoencoder(
            image_shape, n_components, _QUANTIZER_CHANNELS, generator=generator
        )
    else:
        autoencoder = TableAutoencoder(n_features, n_components, sizes, generator=generator)
    is_conformal = config.chart_map == "conformal"
    partitions = []
    for n_charts in config.n_charts:
        n_kept = min(_N_IMAGE_AXES, n_features) if image_shape else n_axes(n_features)
        frames = ChartFrames(n_charts, n_features, n_kept)
        # A chart is known by its centre in the embedding and by the logarithms of its scales.
        n_descriptors = n_components + n_kept
        n_context = n_descriptors + _N_EMBEDDING if n_charts > 1 else 0
        if image_shape:
            bijection = image_flow(
                image_shape,
                config.n_layers,
                sizes[0],
                generator=generator,
                n_context=n_context,
            )
        else:
            bijection = density_flow(
                config.flow,
                config.n_flat if is_conformal else n_features,
                config.n_layers,
                sizes,
                generator=generator,
                n_context=n_context,
            )
        chart_map = (
            ConformalChartMap(frames, bijection, config.n_flat)
            if is_conformal
            else AmbientChartMap(frames, bijection, frames_last=bool(image_shape))
        )
        partition = Atlas(
            chart_map,
            n_descriptors=n_descriptors,
            n_embedding=_N_EMBEDDING,
            generator=generator,
        )
        partitions.append(partition)
    return AtlasEnsemble(
        Quantizer(autoencoder, sum(config.n_charts), n_components),
        partitions,
        n_features=n_features,
        n_neighbors=config.n_neighbors,
        overlap=config.overlap,
    )
