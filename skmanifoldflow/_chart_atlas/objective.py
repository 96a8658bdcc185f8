"""Likelihood of an ensemble of atlases, over the charts that are trained on each row."""

from typing import cast

import torch
from torch import Tensor, nn

from ..backend.device import randn
from ..backend.flow import chunks
from ..backend.networks import weight_matrices
from ..backend.objective import Objective
from .atlas import AtlasEnsemble

__all__ = ["AtlasLikelihood"]


class AtlasLikelihood(Objective):
    """Negative log-likelihood of noisy rows, summed over the charts that are trained on them.

    A sum over few charts is a lower bound of the sum over all charts, which is
    `AtlasEnsemble.log_prob`; the bound is tight unless charts move away from the rows that they
    cover. The density of one chart drawn for each row is in turn a lower bound of the sum over few
    charts (Sidheekh et al., UAI 2022, sec. 3).

    The weights of charts follow expectation maximisation: they are moving averages of p(k|x) over
    the rows, and where the two agree the weights maximise the likelihood. Where charts are drawn,
    each row counts equally for all of its charts.

    The weights of atlases maximise the likelihood of the validation rows (stacking, Smyth &
    Wolpert, 1999); on the training rows the atlas that overfits most would get the largest weight.

    Parameters
    ----------
    atlas : AtlasEnsemble
        Model, trained in place except for its quantiser.
    objective : {"sum", "sampled"}
        "sum" takes all charts that are trained on a row, "sampled" one of them, drawn by its
        weight.
    noise_start, noise_floor : float
        Standard deviations of the noise on the rows at the start and at the end, in standardised
        units.
    n_batches : int
        Number of batches of an epoch; the weights of charts are averaged over so many.
    generator : torch.Generator
        Source of noise and of charts.
    """

    # Averages of the network weights overfit much less than these weights where rows are few.
    averaging = 0.1
    decays_linearly = True
    # Share of the training after which the noise has reached its floor.
    annealing = 0.5
    # Steps of expectation maximisation for the weights of atlases, and the least such weight.
    n_stacking_steps = 50
    least_weight = 1e-3
    # Least weight of a chart, relative to equal weights of all charts.
    least_share = 1e-3
    # Most rows to which frames that come last are fitted.
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
        """The model that is trained."""
        return cast(AtlasEnsemble, self.flow)

    def undecayed_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if "conditioner" not in name]

    def orthogonalized_parameters(self) -> list[nn.Parameter]:
        return [p for weights in weight_matrices(self.flow) for p in weights]

    def _drawn(self, contained: Tensor) -> Tensor:
        """Return a mask (n, K) of one chart of each row and atlas, drawn by their weights."""
        drawn = torch.zeros_like(contained)
        for chart_slice in self.atlas.slices:
            weights = (self.atlas.weights[chart_slice] * contained[:, chart_slice]).cpu()
            charts = torch.multinomial(weights, 1, generator=self.generator)
            drawn[:, chart_slice].scatter_(1, charts.to(drawn.device), True)
        return drawn

    def _log_density_by_atlas(self, log_joint: Tensor) -> Tensor:
        """Return the log-density of rows under each atlas by itself, shape (n_atlases, n)."""
        return torch.stack(
            [
                torch.logsumexp(log_joint[:, chart_slice], dim=1)
                - self.atlas.weights[chart_slice].sum().log()
                for chart_slice in self.atlas.slices
            ]
        )

    def loss(self, batch: Tensor, progress: float) -> Tensor:
        atlas = self.atlas
        with torch.no_grad():
            contained = atlas.contained(batch)
        x = batch + self.noise(progress) * randn(tuple(batch.shape), batch, self.generator)
        is_drawn = self.objective == "sampled"
        log_joint = atlas.log_joint(x, self._drawn(contained) if is_drawn else contained)
        # Each atlas is fitted by itself, so that the errors of one do not depend on the others.
        loss = -self._log_density_by_atlas(log_joint).mean()
        if bool(loss.isfinite()):
            log_share = contained.to(log_joint).log() if is_drawn else log_joint.detach()
            for chart_slice in atlas.slices:
                shares = log_share[:, chart_slice].softmax(1).mean(0)
                old = atlas.weights[chart_slice]
                total = old.sum()
                weights = torch.lerp(old, total * shares, self.momentum)
                # A chart of no weight would have no rows and so never gain any weight.
                weights = weights.clamp_min(self.least_share * float(total) / len(weights))
                atlas.weights[chart_slice] = weights * (total / weights.sum())
        return loss

    @torch.no_grad()
    def update_closed_form(self, rows: Tensor, *, roughly: bool = False) -> None:
        """Fit frames that come last to the latent rows, each in its most probable chart.

        Frames of tables come first and stay as they are.
        """
        rows = rows[: self.max_refreshed_rows]
        for part, chart_slice in self.atlas.atlases():
            if not part.chart_map.frames_last:
                continue
            latents, best = [], []
            log_weights = self.atlas.weights[chart_slice].log()
            for chunk in chunks(len(rows), 4 * rows.shape[1]):
                x = rows[chunk]
                contained = self.atlas.contained(x)[:, chart_slice]
                of_rows, charts = contained.nonzero(as_tuple=True)
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
        log_density = self._log_density_by_atlas(self._log_joint(rows)).T
        old = torch.stack([self.atlas.weights[chart_slice].sum() for chart_slice in slices])
        weights = torch.full_like(old, 1 / len(old))
        for _ in range(self.n_stacking_steps):
            weights = (log_density + weights.log()).softmax(1).mean(0)
        # An atlas of no weight now may be the best one later.
        self._weigh_atlases((weights + self.least_weight) / (1 + len(old) * self.least_weight))

    @torch.no_grad()
    def take_validation_weights(self, other: Objective) -> None:
        of_charts = cast(AtlasLikelihood, other).atlas.weights
        self._weigh_atlases(torch.stack([of_charts[part].sum() for part in self.atlas.slices]))

    def _weigh_atlases(self, weights: Tensor) -> None:
        """Give each atlas its weight, shared by its charts as before."""
        for chart_slice, weight in zip(self.atlas.slices, weights, strict=True):
            self.atlas.weights[chart_slice] *= weight / self.atlas.weights[chart_slice].sum()

    @torch.no_grad()
    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Return log p(x) (n,), summed over a wider cover: a lower bound that is nearly tight."""
        return torch.logsumexp(self._log_joint(rows), dim=1)

    def _log_joint(self, rows: Tensor) -> Tensor:
        return torch.cat(
            [
                self.atlas.log_joint(rows[chunk], self.atlas.contained(rows[chunk], 2))
                for chunk in chunks(len(rows), rows.shape[1] * self.atlas.n_charts)
            ]
        )
