"""Likelihood and reconstruction of a manifold that is learned together with its density."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..backend.device import make_generator, move, randn, statistics_dtype, to_host
from ..backend.flow import ManifoldFlow, Outliers, chunks
from ..backend.objective import Objective
from .distribution import PenalizedSplit
from .guide_term import GuidedRows, GuideTerm

__all__ = ["JointLikelihood"]


class JointLikelihood(Objective):
    """Negative log-likelihood of noisy rows plus the cost of the residuals of clean rows.

    A clean row is reconstructed from the manifold part of its noisy version, with deviations of
    zero. The cost of the residual is the negative log-density of the penalty of the deviations.
    With a normal penalty this is the reconstruction of a denoising normalizing flow (Horvat &
    Pfister, NeurIPS 2021). The scale of the residuals is their maximum likelihood estimate, so the
    data decide on the weight of the residuals: it grows as reconstructions get better, up to a
    limit set by the noise, which falls geometrically from `noise_start` to `noise_floor`. A guide,
    where there is one, adds a term of its own in the first stage.

    Parameters
    ----------
    flow : ManifoldFlow
        Bijection with a `PenalizedSplit` distribution, whose last stage is trained.
    pca : tuple of ndarray
        Mean (D,) and principal axes (D, d) of the training rows. Reconstructions are compared with
        those of PCA.
    reconstruction : float
        Weight of the residuals; 0 for the likelihood alone.
    noise_start, noise_floor : float
        Standard deviation of the noise at the start of the training, and after half of it.
    generator : torch.Generator
        Source of noise.
    outliers : Outliers or None, default=None
        Distribution of a share of the rows, which hardly count for the flow.
    """

    flow: ManifoldFlow
    # Share of the training after which the noise has reached its floor.
    annealing = 0.5
    # Share of a training with a guide after which rows may be outliers.
    guide_reaches = 0.75
    # Averaged weights give a smoother manifold than those of a single step.
    averaging = 0.05
    # Smallest scale of residuals, relative to the floor of the noise.
    min_scale = 0.1
    # Smallest factor of `fit_deviations`: rows that lie on a manifold exactly must not make it 0.
    min_factor = 1e-3
    # Share of the rows of a batch that are reconstructed.
    share_reconstructed = 0.5

    def __init__(
        self,
        flow: ManifoldFlow,
        *,
        pca: tuple[np.ndarray, np.ndarray],
        reconstruction: float,
        noise_start: float,
        noise_floor: float,
        generator: torch.Generator,
        outliers: Outliers | None = None,
    ) -> None:
        super().__init__()
        self.flow = flow
        self.outliers = outliers
        if outliers is not None:
            device = flow.tensor_options["device"]
            move(outliers, device, statistics_dtype(device))
        self.pca = pca
        self.reconstruction = reconstruction
        self.noise_start = noise_start
        self.noise_floor = noise_floor
        self.generator = generator
        # What draws the coordinates of the first stage to those of another method.
        self.guide: GuideTerm | None = None
        # Scale of the residuals in the last batch.
        self.scale: Tensor | None = None
        # Scores have the same noise in every epoch, so that epochs can be compared.
        self.noise_seed = int(torch.randint(2**62, (), generator=generator))

    @property
    def latent(self) -> PenalizedSplit:
        """The distribution of the latent rows."""
        return cast(PenalizedSplit, self.flow.latent)

    def set_guide(self, guided: GuidedRows, weight: float) -> None:
        """Draw the coordinates of the first stage to those of a guide."""
        like = next(self.flow.bijection.parameters())
        self.guide = GuideTerm(
            guided, self.flow.bijection, weight, like, self.annealing, self.generator
        )

    @property
    def stage(self) -> int:
        """The stage that is trained, from 1."""
        return len(self.latent.stages)

    @property
    def reconstructs(self) -> bool:
        """Whether the loss has a reconstruction term: only if the stage has deviations."""
        latent = self.latent.stages[-1]
        return self.reconstruction > 0 and latent.n_components < latent.n_features

    def noise(self, progress: float) -> float:
        # A further stage without deviations looks for no manifold, so it needs no annealing.
        if self.stage > 1 and not self.reconstructs:
            return self.noise_floor
        return super().noise(progress)

    def undecayed_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if "conditioner" not in name]

    def residuals(self, rows: Tensor, z: Tensor) -> Tensor:
        """Return rows minus their reconstructions from the manifold parts of latent rows z."""
        u = self.latent.project_stage(z, self.stage)
        return rows - self.flow.decode(self.latent.embed_stage(u, self.stage))

    def _log_prob(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return latent rows, the log-density (n,) of rows and their weights (n, 1)."""
        z, log_det = self.flow.bijection.forward_and_log_det(x)
        return z, *self._mixed(x, z, log_det)

    def _mixed(
        self, x: Tensor, z: Tensor, log_det: Tensor, *, has_outliers: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return the log-density (n,) of rows x with latent rows z, and their weights (n, 1).

        The weight of a row is its probability of not being an outlier.
        """
        log_prob = self.latent.log_prob(z) + log_det
        if self.outliers is None or not has_outliers:
            return log_prob, z.new_ones(len(z), 1)
        log_prob, weight = self.outliers.mix(x, log_prob)
        return log_prob, weight.detach().to(z)[:, None]

    def _fit_scale(self, residuals: Tensor, weight: Tensor, **kwargs: Any) -> Tensor:
        floor = self.min_scale * self.noise_floor
        return self.latent.penalty.fit_scale(residuals.detach(), floor, weight=weight, **kwargs)

    def reset_running_moments(self) -> None:
        self.scale = None

    def loss(self, batch: Tensor, progress: float) -> Tensor:
        noisy = batch + self.noise(progress) * randn(tuple(batch.shape), batch, self.generator)
        guide = self.guide if self.stage == 1 else None
        # Rows that the map of a guide has not reached yet must not be given up.
        has_outliers = guide is None or progress >= self.guide_reaches
        x = noisy
        if guide is not None:
            # One pass for the rows of both terms is faster than two.
            rows, coordinates = guide.draw()
            x = torch.cat([noisy, rows])
        z, log_det = self.flow.bijection.forward_and_log_det(x)
        z, z_guided = z[: len(batch)], z[len(batch) :]
        log_prob, weight = self._mixed(noisy, z, log_det[: len(batch)], has_outliers=has_outliers)
        loss = -log_prob.mean()
        if self.outliers is not None and has_outliers:
            self.outliers.update(noisy, weight[:, 0])
        if self.reconstructs:
            k = max(1, round(self.share_reconstructed * len(batch)))
            residuals = self.residuals(batch[:k], z[:k])
            # The scale changes little from batch to batch: two steps are enough.
            known = {} if self.scale is None else {"start": self.scale, "n_steps": 2}
            weight = _normalized(weight[:k])
            self.scale = self._fit_scale(residuals, weight, **known)
            log_prob = (weight * self.latent.penalty.log_prob(residuals, self.scale)).sum(1)
            loss = loss - self.reconstruction * log_prob.mean()
        if guide is not None:
            loss = loss + guide.loss(z_guided, coordinates, progress)
        return loss

    def update_closed_form(self, rows: Tensor, *, roughly: bool = False) -> None:
        """Nothing has a closed form once the flow has moved."""

    @torch.no_grad()
    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Return the score (n,) of rows: minus the loss of each, with noise at its floor."""
        generator = make_generator(self.noise_seed)

        def noisy_log_prob(x: Tensor) -> Tensor:
            noise = self.noise_floor * randn(tuple(x.shape), x, generator)
            return self._log_prob(x + noise)[1]

        total = _by_chunks(noisy_log_prob, rows)
        if self.reconstructs:
            residuals, weight = self._weighted(rows, self.residuals)
            scale = self._fit_scale(residuals, weight)
            log_prob = (weight * self.latent.penalty.log_prob(residuals, scale)).sum(1)
            total = total + self.reconstruction * log_prob
        return total

    def _weighted(
        self, rows: Tensor, function: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the values of a function of rows and latent rows, and weights (n, 1) of mean 1."""
        values, weights = [], []
        for chunk in chunks(len(rows), rows.shape[1]):
            z, _, weight = self._log_prob(rows[chunk])
            values.append(function(rows[chunk], z))
            weights.append(weight)
        return torch.cat(values), _normalized(torch.cat(weights))

    @torch.no_grad()
    def mean_log_prob(self, rows: Tensor) -> float:
        """Return the mean log-likelihood of rows without noise."""
        return float(_by_chunks(lambda x: self._log_prob(x)[1], rows).mean())

    @torch.no_grad()
    def mean_squared_residual(self, rows: Tensor) -> float:
        """Return the mean squared residual per entry of rows, weighted by `inlying`."""
        residuals, weight = self._weighted(rows, self.residuals)
        return float((weight * residuals.square()).mean())

    def mean_squared_pca_residual(self, rows: Tensor) -> float:
        """Return the mean squared residual of PCA instead of the flow, with the same weights."""
        mean, axes = self.pca
        centred = to_host(rows).numpy() - mean
        errors = np.mean((centred - centred @ axes @ axes.T) ** 2, axis=1)
        weight = to_host(self.inlying(rows)).numpy()
        return float(np.average(errors, weights=weight + np.finfo(float).tiny))

    @torch.no_grad()
    def inlying(self, rows: Tensor) -> Tensor:
        """Return the probability (n,) of each row of not being an outlier."""
        return _by_chunks(lambda x: self._log_prob(x)[2], rows)[:, 0]

    @torch.no_grad()
    def fit_deviations(self, rows: Tensor) -> None:
        """Multiply the scales of the last stage by their maximum likelihood factor on rows.

        Training rows have noise, so the scales that were learned are too large for clean rows. All
        deviations have one factor in common, because one for each would need many rows.
        """
        latent = self.latent.stages[-1]
        if latent.n_components < latent.n_features:
            v, weight = self._weighted(rows, lambda _, z: self.latent.split_stage(z, self.stage)[1])
            t = v.to(latent.mean) / latent.scales()
            factor = latent.penalty.fit_scale(t, self.min_factor, weight=weight.to(t))
            latent.set_scales(factor * latent.scales(), latent.scale_floor)


def _by_chunks(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Return the values of a function of rows, computed chunk by chunk."""
    return torch.cat([function(rows[chunk]) for chunk in chunks(len(rows), rows.shape[1])])


def _normalized(weight: Tensor) -> Tensor:
    """Return weights whose mean is 1."""
    return weight / weight.mean().clamp_min(torch.finfo(weight.dtype).tiny)
