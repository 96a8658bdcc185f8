"""An atlas: charts of local flows, weighted, with one embedding of all rows."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .charts import ChartMap
from .device import randn
from .flow import FlowModel
from .quantizer import Quantizer

__all__ = ["Atlas"]

# Rows that pass the conditional flow at a time.
_BLOCK_ROWS = 16384


class Atlas(FlowModel):
    """Mixture of the densities of charts, p(x) = sum_k p_k p(x|k).

    Parameters
    ----------
    quantizer : Quantizer
        Embedding of the rows, and the centres of the charts in it.
    chart_map : ChartMap
        Map of each chart to a standard normal law.
    n_descriptors : int
        Length of what is known of a chart before it is trained.
    n_embedding : int
        Length of what is learned of a chart.
    n_features : int
        Number of columns D.
    n_neighbors, overlap : int, float
        Row x lies in chart k if its code is nearer to the centre of k than 1 + `overlap` times its
        distance from the `n_neighbors`-th nearest centre (Sidheekh et al., UAI 2022), or as near.
    generator : torch.Generator
        Source of the initial embeddings of charts.
    """

    weights: Tensor
    descriptors: Tensor
    dimensions: Tensor
    # Standard deviation of the embeddings of charts at the start.
    embedding_scale = 0.5

    def __init__(
        self,
        quantizer: Quantizer,
        chart_map: ChartMap,
        *,
        n_descriptors: int,
        n_embedding: int,
        n_features: int,
        n_neighbors: int,
        overlap: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.chart_map = chart_map
        self.n_features = n_features
        self.n_neighbors = n_neighbors
        self.overlap = overlap
        n_charts, self.n_components = quantizer.codebook.shape
        self.register_buffer("weights", torch.full((n_charts,), 1 / n_charts))
        self.register_buffer("descriptors", torch.zeros(n_charts, n_descriptors))
        self.register_buffer("dimensions", torch.ones(n_charts, dtype=torch.long))
        embedding = torch.randn(n_charts, n_embedding, generator=generator)
        self.embedding = nn.Parameter(self.embedding_scale * embedding)

    @property
    def n_charts(self) -> int:
        """Number of charts K."""
        return len(self.weights)

    @property
    def tensor_options(self) -> dict[str, Any]:
        return {"device": self.weights.device, "dtype": self.weights.dtype}

    def place(self, device: torch.device, dtype: torch.dtype) -> "Atlas":
        self.to(device, dtype)
        return self

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
        z = z.to(**self.tensor_options)
        return self.chart_map.inverse(z, charts, self.context(charts))

    def log_joint(self, x: Tensor, charts: Tensor) -> Tensor:
        """Return log p_k p(x|k) (n,) of rows and charts, pair by pair."""
        z, log_det = self.to_latent(x, charts)
        log_normal = -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))
        return self.weights.log()[charts] + log_normal + log_det

    def _blocks(self, n_rows: int) -> Iterator[Tensor]:
        """Yield charts, so many that a block with all rows has bounded size."""
        charts = torch.arange(self.n_charts, device=self.weights.device)
        yield from charts.split(max(1, _BLOCK_ROWS // n_rows))

    def log_joint_of_all(self, x: Tensor) -> Tensor:
        """Return log p_k p(x|k) of all rows and all charts (n, K)."""
        blocks = []
        for charts in self._blocks(len(x)):
            pairs = x.repeat(len(charts), 1), charts.repeat_interleave(len(x))
            blocks.append(self.log_joint(*pairs).view(len(charts), -1))
        return torch.cat(blocks).T

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.logsumexp(self.log_joint_of_all(x), dim=1)

    def contained(self, x: Tensor, factor: int = 1) -> Tensor:
        """Tell which charts contain which rows, (n, K), or `factor` times as many of them."""
        distances = self.quantizer.distances(self.quantizer.encode(x))
        m = min(factor * self.n_neighbors, self.n_charts)
        reach = (1 + self.overlap) * distances.kthvalue(m, dim=1, keepdim=True).values
        return distances <= reach

    def project(self, x: Tensor) -> Tensor:
        return self.quantizer.encode(x)

    def embed(self, u: Tensor) -> Tensor:
        return self.quantizer.decode(u.to(**self.tensor_options))

    def draw_charts(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draw charts by their weights."""
        weights = self.weights.to("cpu", torch.float64)
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
        along = self.chart_map.tangential(z, charts, self.dimensions[charts])
        z = math.sqrt(temperature) * along + math.sqrt(manifold_deviation) * (z - along)
        return self.from_latent(z, charts)

    def sample(self, n_samples: int, generator: torch.Generator, **knobs: float) -> Tensor:
        charts = self.draw_charts(n_samples, generator)
        return self.sample_charts(charts, generator, **knobs)
