"""Likelihood of an atlas over the charts that contain each row."""

from typing import cast

import torch
from torch import Tensor, nn

from ..backend.device import randn
from ..backend.flow import chunks
from ..backend.objective import Objective
from .atlas import AtlasEnsemble

__all__ = ["AtlasLikelihood"]


class AtlasLikelihood(Objective):
    """Negative log-likelihood of noisy rows, summed over the charts that contain them.

    The sum over few charts is a lower bound of that over all, which `Atlas.log_prob` takes, and
    tight where charts stay where they are. One chart drawn for each row gives a lower bound of the
    sum (Sidheekh et al., UAI 2022, sec. 3).

    The weights of charts follow expectation maximisation, as moving averages of the probabilities
    of the charts given the rows: the maximum of the likelihood in the weights is where they agree.
    Where charts are drawn each row counts for all of its charts alike, whatever they make of it.
    Weights of partitions are those that make the validation rows most likely (stacking, Smyth &
    Wolpert, 1999): training rows would favour the partition that has learned them by heart.

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
    # Steps of expectation maximisation, and least entries, of the weights of partitions.
    n_stacking_steps = 50
    least_weight = 1e-3
    # Least weight of a chart, as a share of an equal one.
    least_share = 1e-3
    # Rows to which frames beyond a flow are fitted.
    max_refreshed_rows = 10_000

    def __init__(
        self,
        atlas: AtlasEnsemble,
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
    def atlas(self) -> AtlasEnsemble:
        """The model."""
        return cast(AtlasEnsemble, self.flow)

    def undecayed_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if "conditioner" not in name]

    def _drawn(self, contained: Tensor) -> Tensor:
        """Return the same with one chart of each row and partition, drawn by their weights."""
        drawn = torch.zeros_like(contained)
        for own in self.atlas.slices:
            weights = (self.atlas.weights[own] * contained[:, own]).cpu()
            charts = torch.multinomial(weights, 1, generator=self.generator)
            drawn[:, own].scatter_(1, charts.to(drawn.device), True)
        return drawn

    def loss(self, batch: Tensor, progress: float) -> Tensor:
        atlas = self.atlas
        with torch.no_grad():
            contained = atlas.contained(batch)
        x = batch + self.noise(progress) * randn(tuple(batch.shape), batch, self.generator)
        is_drawn = self.objective == "sampled"
        log_joint = atlas.log_joint(x, self._drawn(contained) if is_drawn else contained)
        # Each partition by itself: none leans on the others, and their errors stay independent.
        log_prob = [
            torch.logsumexp(log_joint[:, own], dim=1) - atlas.weights[own].sum().log()
            for own in atlas.slices
        ]
        loss = -torch.stack(log_prob).mean()
        if bool(loss.isfinite()):
            log_share = contained.to(log_joint).log() if is_drawn else log_joint.detach()
            for own in atlas.slices:
                mine = log_share[:, own].softmax(1)
                total = atlas.weights[own].sum()
                weights = torch.lerp(atlas.weights[own], total * mine.mean(0), self.momentum)
                # A chart without weight could never come to any.
                weights = weights.clamp_min(self.least_share * float(total) / len(weights))
                atlas.weights[own] = weights * (total / weights.sum())
        return loss

    @torch.no_grad()
    def update_closed_form(self, rows: Tensor, *, roughly: bool = False) -> None:
        """Fit the frames that stand beyond a flow to its latents, each row in its best chart.

        All else follows the batches.
        """
        rows = rows[: self.max_refreshed_rows]
        for part, own in zip(self.atlas.partitions, self.atlas.slices, strict=True):
            if not part.chart_map.frames_last:
                continue
            latents, best = [], []
            log_weights = self.atlas.weights[own].log()
            for chunk in chunks(len(rows), 4 * rows.shape[1]):
                x = rows[chunk]
                of_rows, charts = self.atlas.contained(x)[:, own].nonzero(as_tuple=True)
                z, log_det = part.to_latent(x[of_rows], charts)
                log_joint = log_det - 0.5 * z.square().sum(1) + log_weights[charts]
                table = log_joint.new_full((len(x), part.n_charts), -torch.inf)
                chosen = table.index_put((of_rows, charts), log_joint).argmax(1)
                is_chosen = charts == chosen[of_rows]
                best.append(charts[is_chosen])
                latents.append(part.chart_map.frames.unwhiten(z[is_chosen], best[-1]))
            part.chart_map.frames.fit(torch.cat(latents), torch.cat(best), self.noise_floor)

    @torch.no_grad()
    def fit_validation_weights(self, rows: Tensor) -> None:
        slices = self.atlas.slices
        if len(slices) == 1:
            return
        log_joint = self._log_joint(rows)
        log_prob = torch.stack([torch.logsumexp(log_joint[:, own], dim=1) for own in slices], 1)
        old = torch.stack([self.atlas.weights[own].sum() for own in slices])
        log_density, weights = log_prob - old.log(), torch.full_like(old, 1 / len(old))
        for _ in range(self.n_stacking_steps):
            weights = (log_density + weights.log()).softmax(1).mean(0)
        # No partition is given up: it may come to more.
        weights = (weights + self.least_weight) / (1 + len(old) * self.least_weight)
        for own, factor in zip(slices, weights / old, strict=True):
            self.atlas.weights[own] *= factor

    @torch.no_grad()
    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Return the sum over twice as many charts of each row: a lower bound, nearly tight."""
        return torch.logsumexp(self._log_joint(rows), dim=1)

    def _log_joint(self, rows: Tensor) -> Tensor:
        return torch.cat(
            [
                self.atlas.log_joint(rows[chunk], self.atlas.contained(rows[chunk], 2))
                for chunk in chunks(len(rows), rows.shape[1] * self.atlas.n_charts)
            ]
        )
