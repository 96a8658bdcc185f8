"""Likelihood of an atlas over the charts that contain each row."""

from typing import cast

import torch
from torch import Tensor, nn

from ..atlas import Atlas
from ..device import randn
from ..flow import chunks
from .base import Objective

__all__ = ["AtlasLikelihood"]


class AtlasLikelihood(Objective):
    """Negative log-likelihood of noisy rows, summed over the charts that contain them.

    The sum over few charts is a lower bound of that over all, which `Atlas.log_prob` takes, and
    tight where charts stay where they are. One chart drawn for each row gives a lower bound of the
    sum (Sidheekh et al., UAI 2022, sec. 3).

    The weights of charts follow expectation maximisation, as moving averages of the probabilities
    of the charts given the rows: the maximum of the likelihood in the weights is where they agree.
    Where charts are drawn each row counts for all of its charts alike, whatever they make of it.

    Parameters
    ----------
    atlas : Atlas
        Trained in place, except for its quantizer.
    objective : {"sum", "sampled"}
        All charts of a row, or one of them, drawn by the weights of these.
    noise_start, noise_floor : float
        Standard deviations between which the noise on the rows falls, in standardised units.
    n_batches : int
        Batches of an epoch, over which the weights of charts are averaged.
    generator : torch.Generator
        Source of noise and of charts.
    """

    # Where rows are few, averages overfit much less than the weights do.
    averaging = 0.05
    # Share of the training after which the noise has reached its floor.
    annealing = 0.5

    def __init__(
        self,
        atlas: Atlas,
        *,
        objective: str,
        noise_start: float,
        noise_floor: float,
        n_batches: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.flow = atlas
        self.objective = objective
        self.noise_start = noise_start
        self.noise_floor = noise_floor
        self.momentum = 1 / max(1, n_batches)
        self.generator = generator

    @property
    def atlas(self) -> Atlas:
        """The model."""
        return cast(Atlas, self.flow)

    def undecayed_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if "conditioner" not in name]

    def log_joint(self, x: Tensor, contained: Tensor) -> Tensor:
        """Return log p_k p(x|k) (n, K), -inf where a chart does not contain the row."""
        rows, charts = contained.nonzero(as_tuple=True)
        values = self.atlas.log_joint(x[rows], charts)
        empty = values.new_full(contained.shape, -torch.inf)
        return empty.index_put((rows, charts), values)

    def _drawn(self, contained: Tensor) -> Tensor:
        """Return the same with one of the charts of each row, drawn by their weights."""
        weights = (self.atlas.weights * contained).cpu()
        charts = torch.multinomial(weights, 1, generator=self.generator).to(contained.device)
        return torch.zeros_like(contained).scatter_(1, charts, True)

    def loss(self, batch: Tensor, progress: float) -> Tensor:
        with torch.no_grad():
            contained = self.atlas.contained(batch)
        x = batch + self.noise(progress) * randn(tuple(batch.shape), batch, self.generator)
        if self.objective == "sampled":
            drawn = self._drawn(contained)
            log_joint = self.log_joint(x, drawn)
            share = contained / contained.sum(1, keepdim=True)
        else:
            log_joint = self.log_joint(x, contained)
            share = log_joint.detach().softmax(1)
        loss = -torch.logsumexp(log_joint, dim=1).mean()
        if self.atlas.n_charts > 1 and bool(share.isfinite().all()):
            self.atlas.weights.lerp_(share.mean(0), self.momentum)
        return loss

    def refresh(self, rows: Tensor) -> None:
        """The weights of charts follow the batches."""

    @torch.no_grad()
    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Return the sum over twice as many charts of each row: a lower bound, nearly tight."""
        values = []
        for chunk in chunks(len(rows), rows.shape[1] * 2 * self.atlas.n_neighbors):
            contained = self.atlas.contained(rows[chunk], 2)
            values.append(torch.logsumexp(self.log_joint(rows[chunk], contained), dim=1))
        return torch.cat(values)
