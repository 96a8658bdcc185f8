"""Likelihood of a flow above a noisy injection, exact or by its lower bound."""

from typing import cast

import torch
from torch import Tensor, nn

from ..device import randn
from ..flow import ManifoldFlow, chunks
from ..latents import NoisyInjection
from .base import Objective

__all__ = ["InjectionLikelihood"]


class InjectionLikelihood(Objective):
    """Negative log-likelihood of noisy rows under a flow with a `NoisyInjection` law.

    Noise on the rows bounds the likelihood on data that lie exactly on a manifold, and smooths the
    density where rows are few. It falls geometrically from its start to its floor.

    Parameters
    ----------
    flow : ManifoldFlow
        Bijection with a `NoisyInjection` law.
    objective : {"likelihood", "elbo"}
        The closed form of log p(y), or one draw of the lower bound of Cunningham et al., 2020,
        eq. 7.
    noise_start, noise_floor : float
        Standard deviations between which the noise falls.
    reconstruction : float
        Weight of the reconstruction error of the clean rows from their pseudo-inverse, relative to
        `pca_error`, D / 2 nats where they are equal. 0 for none.
    pca_error : float
        Mean squared reconstruction error of PCA per entry, in standardised units.
    n_rows : int
        Number of training rows, over which the prior of the parameters is shared out.
    generator : torch.Generator
        Source of noise.
    """

    flow: ManifoldFlow
    # Share of the training after which the noise has reached its floor.
    annealing = 0.5
    # Where rows are few, averages overfit much less than the weights do.
    averaging = 0.05
    # Share of a batch that is reconstructed: a pass back through the flow costs as much as one
    # through it.
    share_reconstructed = 0.5

    def __init__(
        self,
        flow: ManifoldFlow,
        *,
        objective: str,
        noise_start: float,
        noise_floor: float,
        reconstruction: float,
        pca_error: float,
        n_rows: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.flow = flow
        self.objective = objective
        self.noise_start = noise_start
        self.noise_floor = noise_floor
        self.reconstruction = reconstruction
        self.pca_error = pca_error
        self.n_rows = n_rows
        self.generator = generator

    @property
    def law(self) -> NoisyInjection:
        """The law of y."""
        return cast(NoisyInjection, self.flow.latent)

    @property
    def is_closed_form(self) -> bool:
        """Whether the gradient of the loss is known, given that of the bijection."""
        is_exact = self.objective == "likelihood" and not self.reconstruction
        return is_exact and self.law.is_linear

    def undecayed_parameters(self) -> list[nn.Parameter]:
        # Networks only are drawn to zero, and with them a layer to the identity.
        return [p for name, p in self.named_parameters() if "conditioner" not in name]

    def loss(self, batch: Tensor, progress: float) -> Tensor:
        return self.loss_given(batch, *self.draw(batch, progress))

    def add_gradient(self, batch: Tensor, progress: float) -> Tensor:
        if not self.is_closed_form:
            return super().add_gradient(batch, progress)
        noise, _ = self.draw(batch, progress)
        z, log_det, log_prior, pull_back = self.flow.bijection.forward_with_pullback(batch + noise)
        mean, of_z = self.law.add_mean_gradient(z)
        pull_back(of_z, torch.full_like(log_det, -1 / len(batch)), -1 / self.n_rows)
        return -mean - log_det.mean() - log_prior / self.n_rows

    def draw(self, batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Return the noise of the rows of a batch (n, D) and of their latents (n, d), or (n, 0)."""
        noise = self.noise(progress) * randn(tuple(batch.shape), batch, self.generator)
        d = self.law.n_components if self.objective == "elbo" else 0
        return noise, randn((len(batch), d), self.law.mean, self.generator)

    def loss_given(self, batch: Tensor, noise: Tensor, latent_noise: Tensor) -> Tensor:
        """Return the loss of a batch for given noise."""
        y, log_det = self.flow.bijection.forward_and_log_det(batch + noise)
        if self.objective == "elbo":
            log_prob = self.law.bound(y, latent_noise)
        else:
            log_prob = self.law.log_prob(y)
        loss = -(log_prob + log_det).mean()
        loss = loss - self.flow.bijection.parameter_log_prior() / self.n_rows
        if not self.reconstruction:
            return loss
        k = max(1, round(self.share_reconstructed * len(batch)))
        on_manifold = self.flow.embed(self.law.project(y[:k]))
        error = (on_manifold - batch[:k]).square().mean() / self.pca_error
        return loss + 0.5 * self.reconstruction * batch.shape[1] * error

    def refresh(self, rows: Tensor, *, roughly: bool = False) -> None:
        """Nothing has a closed form once the flow has moved."""

    @torch.no_grad()
    def log_likelihood(self, rows: Tensor) -> Tensor:
        return torch.cat(
            [self.flow.log_prob(rows[chunk]) for chunk in chunks(len(rows), rows.shape[1])]
        )
