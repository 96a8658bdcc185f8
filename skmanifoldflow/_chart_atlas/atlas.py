"""Atlases of charts with one flow each, and a mixture of atlases with one embedding."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..backend.device import move, randn, to_host
from ..backend.flow import FlowModel
from .chart_maps import ChartMap
from .quantizer import Quantizer

__all__ = ["Atlas", "AtlasEnsemble"]

# Most rows, and most entries of rows, that pass through a conditional flow in one call.
_BLOCK_ROWS = 16384
_BLOCK_ENTRIES = 2**20
# Standard deviation of the initial embeddings of charts.
_EMBEDDING_SCALE = 0.5


class Atlas(nn.Module):
    """Charts of one partition of the rows, with one conditional flow for all of them.

    The flow is told by a context which chart a row is in: fixed descriptors of the chart and an
    embedding of it, which is learned.

    Parameters
    ----------
    chart_map : ChartMap
        Map of each chart to a standard normal distribution.
    n_descriptors : int
        Number of descriptors of a chart, which are set before the training.
    n_embedding : int
        Length of the learned embedding of a chart.
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
        """Return the context of charts (n,) for the flow; None where there is only one chart."""
        if self.n_charts == 1:
            return None
        return torch.cat([self.descriptors, self.embedding], dim=1)[charts]

    def to_latent(self, x: Tensor, charts: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows by the given charts; return latent rows (n, D) and log-determinants (n,)."""
        return self.chart_map.forward_and_log_det(x, charts, self.context(charts))

    def from_latent(self, z: Tensor, charts: Tensor) -> Tensor:
        """Return the rows (n, D) that the given charts map to latent rows."""
        return self.chart_map.inverse(z, charts, self.context(charts))

    def log_density(self, x: Tensor, charts: Tensor) -> Tensor:
        """Return log p(x|k) (n,) of rows and charts, pair by pair."""
        z, log_det = self.to_latent(x, charts)
        return log_det - 0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


class AtlasEnsemble(FlowModel):
    """Mixture of atlases, p(x) = sum_k p_k p(x|k), where k runs over the charts of all of them.

    Each atlas has a partition of the rows and a flow of its own, so that the errors of their
    densities partly cancel in the mixture; the embedding of the rows is one for all. Charts are
    numbered from the first chart of the first atlas to the last chart of the last atlas.

    Parameters
    ----------
    quantizer : Quantizer
        Embedding of the rows, whose codebook holds the centres of the charts.
    partitions : sequence of Atlas
        One atlas for each partition of the rows.
    n_features : int
        Number of columns D.
    n_neighbors, overlap : int, float
        A chart covers a row if the distance of the code from the centre of the chart is at most
        1 + `overlap` times that from the `n_neighbors`-th nearest centre of the same atlas
        (Sidheekh et al., UAI 2022).
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
        """Number of charts K of all atlases."""
        return len(self.weights)

    @property
    def slices(self) -> list[slice]:
        """The charts of each atlas."""
        start, slices = 0, []
        for atlas in self.partitions:
            slices.append(slice(start, start + atlas.n_charts))
            start += atlas.n_charts
        return slices

    def atlases(self) -> Iterator[tuple[Atlas, slice]]:
        """Iterate over the atlases and the charts of each."""
        return zip(self.partitions, self.slices, strict=True)

    @property
    def tensor_options(self) -> dict[str, Any]:
        return {"device": self.weights.device, "dtype": self.weights.dtype}

    def move_to(self, device: torch.device, dtype: torch.dtype) -> "AtlasEnsemble":
        move(self, device, dtype)
        return self

    def _by_atlas(
        self, function: Callable[[Atlas, Tensor, Tensor], Tensor], x: Tensor, charts: Tensor
    ) -> Tensor:
        """Return the values (n, D) of a function for rows x (n, D) and their charts (n,).

        The function gets an atlas, the indices (m,) of rows in its charts, and these charts (m,),
        numbered from 0 in the atlas.
        """
        out = torch.zeros_like(x)
        for atlas, chart_slice in self.atlases():
            rows = ((charts >= chart_slice.start) & (charts < chart_slice.stop)).nonzero()[:, 0]
            if len(rows):
                values = function(atlas, rows, charts[rows] - chart_slice.start)
                out = out.index_put((rows,), values)
        return out

    def to_latent(self, x: Tensor, charts: Tensor) -> Tensor:
        """Map rows by the given charts (n,); return latent rows (n, D)."""
        return self._by_atlas(lambda atlas, rows, k: atlas.to_latent(x[rows], k)[0], x, charts)

    def from_latent(self, z: Tensor, charts: Tensor) -> Tensor:
        """Return the rows (n, D) that the given charts map to latent rows."""
        z = z.to(**self.tensor_options)
        return self._by_atlas(lambda atlas, rows, k: atlas.from_latent(z[rows], k), z, charts)

    def log_joint(self, x: Tensor, contained: Tensor) -> Tensor:
        """Return log p_k p(x|k) (n, K) where the mask `contained` (n, K) is True, else -inf."""
        parts = []
        for atlas, chart_slice in self.atlases():
            rows, charts = contained[:, chart_slice].nonzero(as_tuple=True)
            values = _in_little_memory(atlas.log_density, x, rows, charts)
            empty = values.new_full((len(x), atlas.n_charts), -torch.inf)
            parts.append(empty.index_put((rows, charts), values))
        return torch.cat(parts, dim=1) + self.weights.log()

    def log_joint_of_all(self, x: Tensor) -> Tensor:
        """Return log p_k p(x|k) (n, K) of all rows and all charts, by blocks of charts."""
        parts = []
        for atlas in self.partitions:
            charts = torch.arange(atlas.n_charts, device=x.device)
            n_rows = min(_BLOCK_ROWS, _BLOCK_ENTRIES // x.shape[1])
            for block in charts.split(max(1, n_rows // len(x))):
                pairs = x.repeat(len(block), 1), block.repeat_interleave(len(x))
                parts.append(atlas.log_density(*pairs).view(len(block), -1))
        return torch.cat(parts).T + self.weights.log()

    def log_prob(self, x: Tensor, **kwargs: Any) -> Tensor:
        return torch.logsumexp(self.log_joint_of_all(x), dim=1)

    def covering(self, x: Tensor, factor: int = 1) -> Tensor:
        """Return a mask (n, K) of the charts that cover each row.

        `factor` multiplies `n_neighbors`: more charts cover a row.
        """
        distances = self.quantizer.distances(self.quantizer.encode(x))
        parts = []
        for atlas, chart_slice in self.atlases():
            m = min(factor * self.n_neighbors, atlas.n_charts)
            reach = distances[:, chart_slice].kthvalue(m, dim=1, keepdim=True).values
            parts.append(distances[:, chart_slice] <= (1 + self.overlap) * reach)
        return torch.cat(parts, dim=1)

    def contained(self, x: Tensor, factor: int = 1) -> Tensor:
        """Return a mask (n, K) of the charts that are trained on each row.

        These are the charts that cover the row. Each atlas of tables adds the chart whose frame
        makes the row most probable: it accounts for the row at the start of a fit, even if its
        centre is far from the code of the row.
        """
        contained = self.covering(x, factor)
        for atlas, chart_slice in self.atlases():
            if not atlas.chart_map.frames_last:
                log_normal = atlas.chart_map.frames.log_normal(x)
                best = (self.weights[chart_slice].log() + log_normal).argmax(1, keepdim=True)
                contained[:, chart_slice].scatter_(1, best, True)
        return contained

    def project(self, x: Tensor) -> Tensor:
        return self.quantizer.encode(x)

    def embed(self, u: Tensor) -> Tensor:
        return self.quantizer.decode(u.to(**self.tensor_options))

    def sample_chart_indices(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draw charts with the probabilities `weights`."""
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
        """Draw a row (n, D) from each of the given charts (n,)."""
        z = randn((len(charts), self.n_features), self.weights, generator)
        dimensions = self.dimensions[charts]
        along = self._by_atlas(
            lambda atlas, rows, k: atlas.chart_map.tangential(z[rows], k, dimensions[rows]),
            z,
            charts,
        )
        z = math.sqrt(temperature) * along + math.sqrt(manifold_deviation) * (z - along)
        return self.from_latent(z, charts)

    def sample(self, n_samples: int, generator: torch.Generator, **options: float) -> Tensor:
        return self.sample_charts(
            self.sample_chart_indices(n_samples, generator), generator, **options
        )


def _in_little_memory(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, rows: Tensor, charts: Tensor
) -> Tensor:
    """Return the values (m,) of a function for rows of x and charts, given by indices (m,).

    Of many rows each block keeps nothing for its gradient, and is computed again when it is due
    (Chen, Xu, Zhang & Guestrin, 2016, arXiv:1604.06174).
    """
    size = max(1, _BLOCK_ENTRIES // x.shape[1])
    if len(rows) <= size:
        return function(x[rows], charts)
    blocks = zip(rows.split(size), charts.split(size), strict=True)
    return torch.cat([checkpoint(function, x[i], k, use_reentrant=False) for i, k in blocks])
