"""Likelihood of a flow above a noisy injection, exact or by its lower bound."""

import copy
from collections.abc import Hashable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..backend.device import randn
from ..backend.engine import KnownLoss
from ..backend.flow import ManifoldFlow, chunks
from ..backend.networks import filters, weight_matrices
from ..backend.objective import Objective
from .distribution import NoisyInjection
from .injections import LinearInjection
from .marginal import negative_log_prob, stacked_log_prob

__all__ = ["InjectionLikelihood"]


class InjectionLikelihood(Objective):
    """Negative log-likelihood of noisy rows under a flow with a `NoisyInjection` distribution.

    Noise on the rows bounds the likelihood on data that lie exactly on a manifold, and smooths the
    density where rows are few. It falls geometrically from its start to its floor.

    Parameters
    ----------
    flow : ManifoldFlow
        Bijection with a `NoisyInjection` distribution.
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
    averaging = 0.1
    decays_linearly = True
    # Rows, and of tables rows per column, from which networks have steps of `Muon`. With fewer they
    # are no better than steps of Adam, and dearer.
    min_rows_orthogonalized, min_rows_per_feature_orthogonalized = 1000, 100
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
        self._fits: tuple[InjectionLikelihood, ...] = ()

    @property
    def latent(self) -> NoisyInjection:
        """The distribution of y."""
        return cast(NoisyInjection, self.flow.latent)

    @property
    def is_closed_form(self) -> bool:
        """Whether the gradient of the loss is known, given that of the bijection."""
        is_exact = self.objective == "likelihood" and not self.reconstruction
        return is_exact and self.latent.is_linear

    def undecayed_parameters(self) -> list[nn.Parameter]:
        # Networks only are drawn to zero, and with them a layer to the identity.
        return [p for name, p in self.named_parameters() if "conditioner" not in name]

    def orthogonalized_parameters(self) -> list[nn.Parameter]:
        bijection, n_features = self.flow.bijection, self.latent.injection.n_features
        if self.n_rows < self.min_rows_orthogonalized:
            return []
        if self.n_rows < self.min_rows_per_feature_orthogonalized * n_features:
            return filters(bijection)
        # The last layers give the parameters of the splines. Such steps of the hidden layers too
        # are as good where rows lie near a manifold, and worse where they do not. Images have all.
        return filters(bijection) + [weights[-1] for weights in weight_matrices(bijection)]

    def structure(self) -> Hashable | None:
        parts = self.flow.bijection.structure(), self.latent.injection.structure()
        # Importance samples are drawn by a distribution for itself.
        if None in parts or not self.latent.is_exact:
            return None
        numbers = self.objective, self.reconstruction, self.n_rows
        tensors = [*self.named_parameters(), *self.named_buffers()]
        shapes = [(name, t.shape, t.dtype, t.device, t.requires_grad) for name, t in tensors]
        return type(self), *parts, *numbers, *shapes

    @classmethod
    def stack(cls, objectives: Sequence["Objective"]) -> "InjectionLikelihood":
        stacked = copy.copy(cast(InjectionLikelihood, objectives[0]))
        stacked._fits = tuple(cast(Sequence[InjectionLikelihood], objectives))
        return stacked

    @property
    def fits(self) -> "tuple[InjectionLikelihood, ...]":
        """The objectives of a stack; a single one is a stack of one."""
        return self._fits or (self,)

    def loss(self, batch: Tensor, progress: float) -> Tensor | KnownLoss:
        if len(self.fits) == 1:
            return self.loss_given(batch, *self.draw(batch, progress))
        draws = [fit.draw(rows, progress) for fit, rows in zip(self.fits, batch, strict=True)]
        return self.loss_given(batch, *map(torch.stack, zip(*draws, strict=True)))

    def draw(self, batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Return the noise of the rows of a batch (n, D) and of their latents (n, d), or (n, 0)."""
        noise = self.noise(progress) * randn(tuple(batch.shape), batch, self.generator)
        d = self.latent.n_components if self.objective == "elbo" else 0
        return noise, randn((len(batch), d), self.latent.mean, self.generator)

    def _total(self, negative: Tensor, log_det: Tensor, log_prior: Tensor | float) -> Tensor:
        """Return the loss, given means of -log p(y) and log-determinants, and the log-prior.

        Its gradients by the three are 1, -1 and `_rate`.
        """
        return negative - log_det + self._rate * log_prior

    @property
    def _rate(self) -> float:
        return -1 / self.n_rows

    def loss_given(self, batch: Tensor, noise: Tensor, latent_noise: Tensor) -> Tensor | KnownLoss:
        """Return the loss of a batch for given noise."""
        flow = self.flow.bijection
        if self.is_closed_form and flow.has_vjp:
            y, log_det, log_prior, vjp = flow.forward_with_vjp(batch + noise)
            negative, grad_y, gradients = negative_log_prob(self._injections, self._latent_rows(y))
            negative = negative.view(log_det.shape[:-1])
            value = self._total(negative, log_det.mean(-1), log_prior)

            def backward() -> None:
                self._add_to_injections(gradients)
                grad_log_det = torch.full_like(log_det, -1 / log_det.shape[-1])
                vjp(grad_y.to(y.dtype).view(y.shape), grad_log_det, self._rate)

            return KnownLoss(value, backward)
        y, log_det = flow.forward_and_log_det(batch + noise)
        parts = [batch, y, log_det, latent_noise]
        if not self._fits:
            parts = [tensor[None] for tensor in parts]
        k = max(1, round(self.share_reconstructed * parts[0].shape[1]))
        losses: list[Tensor] = []
        # Distributions and priors of a stack are those of the fits, its chains map rows together.
        for fit, y_k, log_det_k, noise_k in zip(self.fits, *parts[1:], strict=True):
            if self.objective == "elbo":
                negative = -fit.latent.bound(y_k, noise_k).mean()
            else:
                negative = fit.latent.negative_log_prob(y_k)
            log_prior = fit.flow.bijection.parameter_log_prior()
            losses.append(self._total(negative, log_det_k.mean(), log_prior))
        if self.reconstruction:
            of_fits = zip(self.fits, parts[1], strict=True)
            latents = [fit.latent.embed(fit.latent.project(y_k[:k])) for fit, y_k in of_fits]
            rows = torch.stack(latents) if self._fits else latents[0]
            on_manifold = self.flow.decode(rows).view(len(latents), k, -1)
            for i, fit in enumerate(self.fits):
                error = (on_manifold[i] - parts[0][i, :k]).square().mean() / fit.pca_error
                losses[i] = losses[i] + 0.5 * self.reconstruction * batch.shape[-1] * error
        return torch.stack(losses) if self._fits else losses[0]

    def _add_to_injections(self, gradients: dict[str, Tensor]) -> None:
        """Add gradients (K, ...) to those of the parameters of the distributions."""
        for name, gradient in gradients.items():
            for injection, of_fit in zip(self._injections, gradient, strict=True):
                p = getattr(injection, name)
                p.grad = of_fit if p.grad is None else p.grad.add_(of_fit)

    def update_closed_form(self, rows: Tensor, *, roughly: bool = False) -> None:
        """Nothing has a closed form once the flow has moved."""

    @torch.no_grad()
    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Return the log-likelihood (n,) of rows (n, D), or (K, n) of the rows of a stack."""
        parts = []
        for chunk in chunks(*rows.shape[-2:]):
            x = rows[..., chunk, :]
            # Chains of a stack take rows (K, n, D) together, and so do linear distributions.
            y, log_det = self.flow.bijection.forward_and_log_det(x)
            if self.latent.is_linear:
                log_prob = stacked_log_prob(self._injections, self._latent_rows(y))
            else:
                of_fits = y if self._fits else y[None]
                pairs = zip(self.fits, of_fits, strict=True)
                log_prob = torch.stack([fit.latent.log_prob(of_fit) for fit, of_fit in pairs])
            parts.append(log_prob.view(log_det.shape) + log_det)
        return torch.cat(parts, -1)

    @property
    def _injections(self) -> list[LinearInjection]:
        return [cast(LinearInjection, fit.latent.injection) for fit in self.fits]

    def _latent_rows(self, y: Tensor) -> Tensor:
        """Return latent rows as the distributions take them, (K, n, D)."""
        return y.to(self.latent.mean.dtype).view(len(self.fits), *y.shape[-2:])
