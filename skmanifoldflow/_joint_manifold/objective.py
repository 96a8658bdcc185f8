"""Likelihood and reconstruction of a manifold that is learned together with its density."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..backend.device import make_generator, randn
from ..backend.flow import ManifoldFlow, chunks
from ..backend.objective import Objective
from .distribution import PenalizedSplit

__all__ = ["JointLikelihood"]


class JointLikelihood(Objective):
    """Negative log-likelihood of noisy rows plus the penalty of the residuals of the clean ones.

    The manifold part of a noisy row, without its deviations, is mapped back, and what is left of
    the clean row has the negative log-density of the distribution's penalty as its cost (with a
    normal penalty: the reconstruction of a denoising normalizing flow, Horvat & Pfister, NeurIPS
    2021). The scale of the residuals is that of maximum likelihood, so their weight comes from the
    data: it grows as reconstructions get better, and is limited by the noise, which falls
    geometrically from its start to its floor.

    Parameters
    ----------
    flow : ManifoldFlow
        Bijection with a `PenalizedSplit` distribution, whose last stage is trained.
    reconstruction : float
        Weight of the residuals; 0 for the likelihood alone.
    noise_start, noise_floor : float
        Standard deviations between which the noise falls.
    generator : torch.Generator
        Source of noise.
    """

    flow: ManifoldFlow
    # Share of the training after which the noise has reached its floor.
    annealing = 0.5
    # Averages of the weights are smoother manifolds than the weights.
    averaging = 0.05
    # Smallest scale of residuals, relative to the floor of the noise.
    min_scale = 0.1
    # Smallest factor of `fit_deviations`: rows that lie on a manifold exactly must not make it 0.
    min_factor = 1e-3
    share_reconstructed = 0.5

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
        self.scale: Tensor | None = None
        self.noise_seed = int(torch.randint(2**62, (), generator=generator))

    @property
    def latent(self) -> PenalizedSplit:
        """The distribution of z."""
        return cast(PenalizedSplit, self.flow.latent)

    @property
    def stage(self) -> int:
        """The stage that is trained."""
        return len(self.latent.stages)

    @property
    def reconstructs(self) -> bool:
        """Whether the stage leaves anything out that could be missed."""
        latent = self.latent.stages[-1]
        return self.reconstruction > 0 and latent.n_components < latent.n_features

    def noise(self, progress: float) -> float:
        # A stage of equal size looks for nothing coarse first.
        if self.stage > 1 and not self.reconstructs:
            return self.noise_floor
        return super().noise(progress)

    def undecayed_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if "conditioner" not in name]

    def residuals(self, rows: Tensor, z: Tensor) -> Tensor:
        """Return what is left of rows after their reconstruction from latent rows."""
        u = self.latent.project_stage(z, self.stage)
        return rows - self.flow.decode(self.latent.embed_stage(u, self.stage))

    def _log_prob(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return latent rows, the log-density (n,) of rows and their weights (n, 1).

        The weight of a row is its probability to be no outlier.
        """
        z, log_det = self.flow.bijection.forward_and_log_det(x)
        log_prob = self.latent.log_prob(z) + log_det
        if self.flow.outliers is None:
            return z, log_prob, z.new_ones(len(z), 1)
        log_prob, weight = self.flow.outliers.mix(x, log_prob)
        return z, log_prob, weight.detach().to(z)[:, None]

    def _fit_scale(self, residuals: Tensor, weight: Tensor, **kwargs: Any) -> Tensor:
        floor = self.min_scale * self.noise_floor
        return self.latent.penalty.fit_scale(residuals.detach(), floor, weight=weight, **kwargs)

    def reset_running_moments(self) -> None:
        self.scale = None

    def loss(self, batch: Tensor, progress: float) -> Tensor:
        noisy = batch + self.noise(progress) * randn(tuple(batch.shape), batch, self.generator)
        z, log_prob, weight = self._log_prob(noisy)
        loss = -log_prob.mean()
        if self.flow.outliers is not None:
            self.flow.outliers.update(noisy, weight[:, 0])
        if self.reconstructs:
            k = max(1, round(self.share_reconstructed * len(batch)))
            residuals = self.residuals(batch[:k], z[:k])
            # From batch to batch it changes little.
            known = {} if self.scale is None else {"start": self.scale, "n_steps": 2}
            weight = _normalized(weight[:k])
            self.scale = self._fit_scale(residuals, weight, **known)
            log_prob = (weight * self.latent.penalty.log_prob(residuals, self.scale)).sum(1)
            loss = loss - self.reconstruction * log_prob.mean()
        return loss

    def update_closed_form(self, rows: Tensor, *, roughly: bool = False) -> None:
        """Nothing has a closed form once the flow has moved."""

    @torch.no_grad()
    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Return the score (n,) of rows with noise at its floor, residuals included."""
        generator = make_generator(self.noise_seed)
        scores = []
        for chunk in chunks(len(rows), rows.shape[1]):
            x = rows[chunk]
            noisy = x + self.noise_floor * randn(tuple(x.shape), x, generator)
            scores.append(self.flow.log_prob(noisy))
        total = torch.cat(scores)
        if self.reconstructs:
            left, weight = self._weighted(rows, self.residuals)
            scale = self._fit_scale(left, weight)
            log_prob = (weight * self.latent.penalty.log_prob(left, scale)).sum(1)
            total = total + self.reconstruction * log_prob
        return total

    def _weighted(
        self, rows: Tensor, function: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return a function of rows and their latent rows, and the weights (n, 1) of the rows.

        The mean of the weights is 1.
        """
        values, weights = [], []
        for chunk in chunks(len(rows), rows.shape[1]):
            z, _, weight = self._log_prob(rows[chunk])
            values.append(function(rows[chunk], z))
            weights.append(weight)
        return torch.cat(values), _normalized(torch.cat(weights))

    @torch.no_grad()
    def mean_log_prob(self, rows: Tensor) -> float:
        """Return the mean log-likelihood of rows as they are."""
        parts = [self.flow.log_prob(rows[chunk]) for chunk in chunks(len(rows), rows.shape[1])]
        return float(torch.cat(parts).mean())

    @torch.no_grad()
    def mean_squared_residual(self, rows: Tensor) -> float:
        """Return the mean squared residual per entry of rows, as far as they are no outliers."""
        residuals, weight = self._weighted(rows, self.residuals)
        return float((weight * residuals.square()).mean())

    @torch.no_grad()
    def inlying(self, rows: Tensor) -> Tensor:
        """Return the probabilities (n,) of rows to be no outliers."""
        parts = [self._log_prob(rows[chunk])[2] for chunk in chunks(len(rows), rows.shape[1])]
        return torch.cat(parts)[:, 0]

    @torch.no_grad()
    def fit_deviations(self, rows: Tensor) -> None:
        """Multiply the scales of the last stage by the factor of maximum likelihood of rows.

        The training has seen rows with noise only. One factor, since a scale for each deviation
        would need many rows.
        """
        latent = self.latent.stages[-1]
        if latent.n_components < latent.n_features:
            v, weight = self._weighted(rows, lambda _, z: self.latent.deviations(z, self.stage))
            t = v.to(latent.mean) / latent.scales()
            factor = latent.penalty.fit_scale(t, self.min_factor, weight=weight.to(t))
            latent.set_scales(factor * latent.scales(), latent.scale_floor)


def _normalized(weight: Tensor) -> Tensor:
    """Return weights whose mean is 1."""
    return weight / weight.mean().clamp_min(torch.finfo(weight.dtype).tiny)
