"""The term that draws the coordinates of the first stage to those of a guide."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..backend.bijections import Bijection
from ..backend.device import randn

__all__ = ["GuideTerm", "GuidedRows"]


class GuidedRows(NamedTuple):
    """Standardised training rows and the coordinates that a guide gives them.

    Attributes
    ----------
    rows : Tensor of shape (m, D)
        Rows in random order.
    coordinates : Tensor of shape (m, d)
        Coordinates along their principal axes, in units of their root mean square.
    weights : Tensor of shape (m,) or None
        How many rows each of them counts for; None where all count the same.
    neighbors : Tensor of int of shape (m, k)
        The nearest other rows of each.
    spacing : float
        Mean distance of a row to the nearest other one.
    left_out : tuple of Tensor
        Other rows and their coordinates.
    """

    rows: Tensor
    coordinates: Tensor
    weights: Tensor | None
    neighbors: Tensor
    spacing: float
    left_out: tuple[Tensor, Tensor]


class GuideTerm(nn.Module):
    """Mean absolute error of a guide's coordinates, given by the flow to the same rows with noise.

    The coordinates of the flow are scaled and shifted, each by learned numbers. What makes the map
    a good one of new rows is that rows lie between a row and one of its nearest neighbours, with
    coordinates between theirs (mixup, Zhang et al., ICLR 2018), and have noise that is as long as
    rows are apart.

    Parameters
    ----------
    guided : GuidedRows
        Rows and their coordinates.
    bijection : Bijection
        The bijection at its start, whose signs of the coordinates are taken.
    weight : float
        Weight of the error relative to `nats_per_column` for each column.
    like : Tensor
        What has the dtype and the device of the rows of the flow.
    annealing : float
        Share of the training during which the weight is larger by `start_factor`.
    generator : torch.Generator
        Source of rows and noise.
    """

    # Weight of an error as large as the root mean square of a coordinate, in proportion to the
    # columns as the log-likelihood is.
    nats_per_column = 4.0
    # The map is learned before the density.
    start_factor = 8.0
    # Length of the noise relative to the distance between neighbours, and the largest share of a
    # neighbour in a row.
    relative_noise = 1.0
    mix = 0.5
    # Rows of a gradient step.
    n_rows = 128

    def __init__(
        self,
        guided: GuidedRows,
        bijection: Bijection,
        weight: float,
        like: Tensor,
        annealing: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.guided = guided
        self.weight = weight * self.nats_per_column * guided.rows.shape[1]
        self.annealing = annealing
        self.generator = generator
        self.rows, self.coordinates = guided.rows.to(like), guided.coordinates.to(like)
        self.noise = self.relative_noise * guided.spacing / math.sqrt(self.rows.shape[1])
        # The start gives each coordinate unit variance.
        std = self.coordinates.std(0).clamp_min(torch.finfo(like.dtype).eps)
        with torch.no_grad():
            u = bijection.forward_and_log_det(self.rows)[0][:, : len(std)]
        # Axes have no sign of their own.
        self.signs = torch.where((u * self.coordinates).sum(0) < 0, -1.0, 1.0).to(like)
        self.log_scale = nn.Parameter(std.log())
        self.shift = nn.Parameter(torch.zeros_like(std))

    def scale(self) -> Tensor:
        """Return the factors (d,) that turn manifold parts into the units of the guide."""
        return self.signs * self.log_scale.exp()

    def predict(self, z: Tensor) -> Tensor:
        """Return the coordinates (n, d) of latent rows (n, D) in units of the guide."""
        u = z[:, : len(self.shift)]
        return u * self.scale().to(u) + self.shift.to(u)

    def loss(self, z: Tensor, coordinates: Tensor, progress: float) -> Tensor:
        """Return the weighted error of latent rows (n, D) that should have given coordinates."""
        error = (self.predict(z) - coordinates).abs().mean()
        factor = self.start_factor if progress < self.annealing else 1.0
        return self.weight * factor * error

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return rows (n, D) and the coordinates (n, d) that they should have."""
        weights, neighbors = self.guided.weights, self.guided.neighbors
        if weights is None:
            index = torch.randint(len(neighbors), (self.n_rows,), generator=self.generator)
        else:
            index = torch.multinomial(weights, self.n_rows, True, generator=self.generator)
        which = torch.randint(neighbors.shape[1], (self.n_rows,), generator=self.generator)
        other = neighbors[index, which]
        share = (self.mix * torch.rand((self.n_rows, 1), generator=self.generator)).to(self.rows)
        rows, coordinates = (
            t[index.to(t.device)].lerp(t[other.to(t.device)], share)
            for t in (self.rows, self.coordinates)
        )
        return rows + self.noise * randn(tuple(rows.shape), rows, self.generator), coordinates

    @torch.no_grad()
    def score(self, bijection: Bijection) -> float:
        """Return R^2 of the coordinates of the rows left out, nan where there are not two."""
        rows, coordinates = (t.to(self.rows) for t in self.guided.left_out)
        if len(rows) < 2:
            return math.nan
        z = bijection.forward_and_log_det(rows)[0]
        error = (self.predict(z) - coordinates).square().sum()
        return float(1 - error / (coordinates - coordinates.mean(0)).square().sum())
