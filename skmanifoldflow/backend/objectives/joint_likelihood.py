"""Likelihood and reconstruction of a manifold that is learned together with its density."""

from typing import cast

import torch
from torch import Tensor, nn

from ..device import make_generator, randn
from ..flow import ManifoldFlow, chunks
from ..latents import PenalizedSplit
from .base import Objective

__all__ = ["JointLikelihood"]


class JointLikelihood(Objective):
    """Negative log-likelihood of noisy rows plus the penalty of the residuals of the clean ones.

    The manifold part of a noisy row, without its deviations, is mapped back, and what is left of
    the clean row has the negative log-density of the law's penalty as its cost (with a normal
    penalty: the reconstruction of a denoising normalizing flow, Horvat & Pfister, NeurIPS 2021).
    The scale of the residuals is that of maximum likelihood, so their weight comes from the data:
    it grows as reconstructions get better, and is limited by the noise, which falls
    geometrically from its start to its floor.

    Parameters
    ----------
    flow : ManifoldFlow
        Bijection with a `PenalizedSplit` law, whose last stage is trained.
    reconstruction : float
        Weight of the residuals; 0 for the likelihood alone.
    noise_start, noise_floor : float
        Standard deviations between which the noise falls.
    generator : torch.Generator
        Source of noise.
    """

    # Share of the training after which the noise has reached its floor.
    annealing = 2 / 3
    # Averages of the weights are smoother manifolds than the weights.
    averaging = 0.05
    # Smallest scale of residuals, relative to the floor of the noise.
    min_scale = 0.1

    def __init__(
        self,
        flow: ManifoldFlow,
        *,
        reconstruction: float,
        noise_start: float,
        noise_floor: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.flow = flow
        self.reconstruction = reconstruction
        self.noise_start = noise_start
        self.noise_floor = noise_floor
        self.generator = generator
        # The same noise at every epoch, so that epochs can be compared.
        self.noise_seed = int(torch.randint(2**62, (), generator=generator))

    @property
    def law(self) -> PenalizedSplit:
        """The law of z."""
        return cast(PenalizedSplit, self.flow.latent)

    @property
    def stage(self) -> int:
        """The stage that is trained."""
        return len(self.law.stages)

    @property
    def reconstructs(self) -> bool:
        """Whether the stage leaves anything out that could be missed."""
        law = self.law.stages[-1]
        return self.reconstruction > 0 and law.n_components < law.n_features

    def undecayed_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if "conditioner" not in name]

    def noise(self, progress: float) -> float:
        """Return the standard deviation of the noise at a given share of the training."""
        remaining = max(0.0, 1.0 - progress / self.annealing)
        return self.noise_floor * (self.noise_start / self.noise_floor) ** remaining

    def residuals(self, rows: Tensor, z: Tensor) -> Tensor:
        """Return what is left of rows after their reconstruction from latent rows."""
        u = self.law.split_off(z, self.stage)
        return rows - self.flow.decode(self.law.complete(u, self.stage))

    def _log_prob_residuals(self, residuals: Tensor) -> Tensor:
        """Return the log-density (n,) of the residuals of rows, at the scale that suits them."""
        penalty = self.law.penalty
        scale = penalty.fit_scale(residuals.detach(), self.min_scale * self.noise_floor)
        return penalty.log_prob(residuals, scale).sum(1)

    def loss(self, batch: Tensor, progress: float) -> Tensor:
        noisy = batch + self.noise(progress) * randn(tuple(batch.shape), batch, self.generator)
        z, log_det = self.flow.bijection.forward_and_log_det(noisy)
        loss = -(self.law.log_prob(z) + log_det).mean()
        if self.reconstructs:
            residuals = self.residuals(batch, z)
            loss = loss - self.reconstruction * self._log_prob_residuals(residuals).mean()
        return loss

    def refresh(self, rows: Tensor) -> None:
        """Nothing has a closed form once the flow has moved."""

    @torch.no_grad()
    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Return the score (n,) of rows with noise at its floor, residuals included."""
        generator = make_generator(self.noise_seed)
        scores, residuals = [], []
        for chunk in chunks(len(rows), rows.shape[1]):
            x = rows[chunk]
            noisy = x + self.noise_floor * randn(tuple(x.shape), x, generator)
            scores.append(self.flow.log_prob(noisy))
            if self.reconstructs:
                residuals.append(self.residuals(x, self.flow.bijection.forward_and_log_det(x)[0]))
        total = torch.cat(scores)
        if self.reconstructs:
            total = total + self.reconstruction * self._log_prob_residuals(torch.cat(residuals))
        return total
