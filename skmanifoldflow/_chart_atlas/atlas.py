"""An atlas: charts of local flows, weighted, with one embedding of all rows."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..backend.device import move, randn, to_host
from ..backend.flow import FlowModel
from .chart_maps import ChartMap
from .quantizer import Quantizer

__all__ = ["Atlas", "AtlasEnsemble"]

# Rows, and entries of them, that pass a conditional flow at a time.
_BLOCK_ROWS = 16384
_BLOCK_ENTRIES = 2**20
# Standard deviation of what is learned of a chart, at the start.
_EMBEDDING_SCALE = 0.5


class Atlas(nn.Module):
    """Charts that share out the rows among them, with one conditional flow for them all.

    Parameters
    ----------
    chart_map : ChartMap
        Map of each chart to a standard normal distribution.
    n_descriptors : int
        Length of what is known of a chart before it is trained.
    n_embedding : int
        Length of what is learned of a chart.
    generator : torch.Generator
        Source of the initial embeddings of charts.
    """

    descriptors: Tensor

    def __init__(
        self,
        chart_map: ChartMap,
        *,
        n_descriptors: int,
        n_embedding: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.chart_map = chart_map
        self.n_charts = len(chart_map.frames.mean)
        self.register_buffer(
            "descriptors", torch.zeros(self.n_charts, n_descriptors, dtype=torch.float32)
        )
        shape = (self.n_charts, n_embedding)
        embedding = torch.randn(shape, dtype=torch.float32, generator=generator)
        self.embedding = nn.Parameter(_EMBEDDING_SCALE * embedding)

    def context(self, charts: Tensor) -> Tensor | None:
        """Return what the flow is told of charts (n,); nothing where there is only one."""
        if self.n_charts == 1:
            return None
        return torch.cat([self.descriptors, self.embedding], dim=1)[charts]

    def to_latent(self, x: Tensor, charts: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows by given charts; return latent rows (n, D) and the log-determinant (n,)."""
        return self.chart_map.forward_and_log_det(x, charts, self.context(charts))

    def from_latent(self, z: Tensor, charts: Tensor) -> Tensor:
        """Return the rows (n, D) that given charts map to latent rows."""
        return self.chart_map.inverse(z, charts, self.context(charts))

    def log_density(self, x: Tensor, charts: Tensor) -> Tensor:
        """Return log p(x|k) (n,) of rows and charts, pair by pair."""
        z, log_det = self.to_latent(x, charts)
        return log_det - 0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


class AtlasEnsemble(FlowModel):
    """Mixture of the densities of charts, p(x) = sum_k p_k p(x|k), of one or more partitions.

    Several partitions, each with a flow of its own, have independent errors, which the mixture
    averages. Charts are counted through all of them.

    Parameters
    ----------
    quantizer : Quantizer
        Embedding of the rows; its codebook holds the centres of the charts in it.
    partitions : sequence of Partition
        The charts.
    n_features : int
        Number of columns D.
    n_neighbors, overlap : int, float
        Row x lies in chart k if its code is nearer to the centre of k than 1 + `overlap` times its
        distance from the `n_neighbors`-th nearest centre of the partition (Sidheekh et al., UAI
        2022), or as near.
    """

    weights: Tensor
    dimensions: Tensor

    def __init__(
        self,
        quantizer: Quantizer,
        partitions: Sequence[Atlas],
        *,
        n_features: int,
        n_neighbors: int,
        overlap: float,
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.partitions = cast(Sequence[Atlas], nn.ModuleList(partitions))
        self.n_features = n_features
        self.n_neighbors = n_neighbors
        self.overlap = overlap
        n_charts, self.n_components = quantizer.codebook.shape
        self.register_buffer("weights", torch.full((n_charts,), 1 / n_charts, dtype=torch.float32))
        self.register_buffer("dimensions", torch.ones(n_charts, dtype=torch.long))

    @property
    def n_charts(self) -> int:
        """Number of charts K of all partitions."""
        return len(self.weights)

    @property
    def slices(self) -> list[slice]:
        """The charts of each partition."""
        start, slices = 0, []
        for partition in self.partitions:
            slices.append(slice(start, start + partition.n_charts))
            start += partition.n_charts
        return slices

    @property
    def tensor_options(self) -> dict[str, Any]:
        return {"device": self.weights.device, "dtype": self.weights.dtype}

    def move_to(self, device: torch.device, dtype: torch.dtype) -> "Atlas":
        move(self, device, dtype)
        return self

    def _by_partition(self, charts: Tensor) -> Iterator[tuple[Atlas, Tensor, Tensor]]:
        """Yield partitions, the rows whose charts (n,) are theirs, and these counted from 0."""
        for partition, own in zip(self.partitions, self.slices, strict=True):
            rows = ((charts >= own.start) & (charts < own.stop)).nonzero()[:, 0]
            if len(rows):
                yield partition, rows, charts[rows] - own.start

    def to_latent(self, x: Tensor, charts: Tensor) -> Tensor:
        """Map rows by given charts (n,); return latent rows (n, D)."""
        out = torch.zeros_like(x)
        for partition, rows, own in self._by_partition(charts):
            out = out.index_put((rows,), partition.to_latent(x[rows], own)[0])
        return out

    def from_latent(self, z: Tensor, charts: Tensor) -> Tensor:
        """Return the rows (n, D) that given charts map to latent rows."""
        z = z.to(**self.tensor_options)
        out = torch.zeros_like(z)
        for partition, rows, own in self._by_partition(charts):
            out = out.index_put((rows,), partition.from_latent(z[rows], own))
        return out

    def log_joint(self, x: Tensor, contained: Tensor) -> Tensor:
        """Return log p_k p(x|k) (n, K), -inf where a chart does not contain the row."""
        parts = []
        for partition, own in zip(self.partitions, self.slices, strict=True):
            rows, charts = contained[:, own].nonzero(as_tuple=True)
            values = partition.log_density(x[rows], charts)
            empty = values.new_full((len(x), partition.n_charts), -torch.inf)
            parts.append(empty.index_put((rows, charts), values))
        return torch.cat(parts, dim=1) + self.weights.log()

    def log_joint_of_all(self, x: Tensor) -> Tensor:
        """Return log p_k p(x|k) of all rows and all charts (n, K), block by block of charts."""
        parts = []
        for partition in self.partitions:
            charts = torch.arange(partition.n_charts, device=x.device)
            n_rows = min(_BLOCK_ROWS, _BLOCK_ENTRIES // x.shape[1])
            for block in charts.split(max(1, n_rows // len(x))):
                pairs = x.repeat(len(block), 1), block.repeat_interleave(len(x))
                parts.append(partition.log_density(*pairs).view(len(block), -1))
        return torch.cat(parts).T + self.weights.log()

    def log_prob(self, x: Tensor, **kwargs: Any) -> Tensor:
        return torch.logsumexp(self.log_joint_of_all(x), dim=1)

    def contained(self, x: Tensor, factor: int = 1) -> Tensor:
        """Tell which charts contain which rows, (n, K), or `factor` times as many of them.

        Those of the codes, and of each partition the chart that is most probable at the start of a
        fit: it must see the rows that it accounts for, though its centre may be far.
        """
        distances = self.quantizer.distances(self.quantizer.encode(x))
        parts = []
        for partition, own in zip(self.partitions, self.slices, strict=True):
            m = min(factor * self.n_neighbors, partition.n_charts)
            reach = distances[:, own].kthvalue(m, dim=1, keepdim=True).values
            contained = distances[:, own] <= (1 + self.overlap) * reach
            if not partition.chart_map.frames_last:
                log_joint = self.weights[own].log() + partition.chart_map.frames.log_normal(x)
                contained = contained.scatter(1, log_joint.argmax(1, keepdim=True), True)
            parts.append(contained)
        return torch.cat(parts, dim=1)

    def project(self, x: Tensor) -> Tensor:
        return self.quantizer.encode(x)

    def embed(self, u: Tensor) -> Tensor:
        return self.quantizer.decode(u.to(**self.tensor_options))

    def sample_chart_indices(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draw charts by their weights."""
        weights = to_host(self.weights)
        charts = torch.multinomial(weights, n_samples, replacement=True, generator=generator)
        return charts.to(self.weights.device)

    def sample_charts(
        self,
        charts: Tensor,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
        manifold_deviation: float = 1.0,
    ) -> Tensor:
        """Draw a row (n, D) of each of given charts."""
        z = randn((len(charts), self.n_features), self.weights, generator)
        along = torch.zeros_like(z)
        for partition, rows, own in self._by_partition(charts):
            dimensions = self.dimensions[charts[rows]]
            part = partition.chart_map.tangential(z[rows], own, dimensions)
            along = along.index_put((rows,), part)
        z = math.sqrt(temperature) * along + math.sqrt(manifold_deviation) * (z - along)
        return self.from_latent(z, charts)

    def sample(self, n_samples: int, generator: torch.Generator, **options: float) -> Tensor:
        return self.sample_charts(
            self.sample_chart_indices(n_samples, generator), generator, **options
        )
