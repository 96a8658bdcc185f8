"""Distribution of an injection with a normal prior, or a flow as its prior."""

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from ..backend.bijections import Bijection
from ..backend.device import make_generator, move, randn, statistics_dtype
from ..backend.distribution import LatentDistribution
from ..backend.engine import known_gradient
from .injections import Injection, LinearInjection
from .marginal import negative_log_prob

__all__ = ["NoisyInjection"]

# The same draws for every row and at every call: scores are deterministic, and with more draws the
# first ones stay.
_SEED = 0
# Rows of one block of importance samples.
_BLOCK_ROWS = 4096
# Draws that give the covariance of y where it has no closed form.
_N_COVARIANCE_DRAWS = 4096


class NoisyInjection(LatentDistribution):
    """y ~ p(y | z) of an injection, z ~ N(0, I) or a flow.

    The manifold part u of a row is the pseudo-inverse z+ of its injection, rotated to principal
    coordinates, each multiplied by a fixed factor that expresses it in data units.

    Where the integral over z has no closed form, log p(y) is estimated with importance samples z_k,
    the logarithm of the mean of p(z_k) p(y | z_k) over the density of the proposal: a lower bound
    in expectation, tighter with more of them (Burda et al., ICLR 2016). One draw of the stochastic
    inverse gives the bound that is trained (Cunningham et al., 2020, eq. 7).

    Parameters
    ----------
    injection : Injection
        p(y | z).
    prior : Bijection or None, default=None
        Flow z -> w with w ~ N(0, I); None for z ~ N(0, I).
    n_importance_samples : int, default=1
        Number of importance samples; not used where log p(y) has a closed form.
    """

    rotation: Tensor
    component_scale: Tensor

    def __init__(
        self, injection: Injection, prior: Bijection | None = None, *, n_importance_samples: int = 1
    ) -> None:
        super().__init__()
        self.injection = injection
        self.prior = prior
        self.n_importance_samples = n_importance_samples
        self.n_components = d = injection.n_components
        self.register_buffer("mean", torch.zeros(injection.n_features, dtype=torch.float64))
        self.register_buffer("rotation", torch.eye(d, dtype=torch.float64))
        self.register_buffer("component_scale", torch.ones(d, dtype=torch.float64))
        self.injection.to(torch.float64)

    def move_to(self, device: torch.device, dtype: torch.dtype) -> None:
        move(self, device, statistics_dtype(device))
        if self.prior is not None:
            move(self.prior, device, dtype)

    def set_components(self, rotation: Tensor, component_scale: Tensor) -> None:
        """Choose the rotation (d, d) and the factors (d,) that turn z+ into coordinates."""
        self.rotation = rotation.to(self.mean)
        self.component_scale = component_scale.to(self.mean)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return the log-density (n,) of z (n, d)."""
        log_det: Tensor | float = 0.0
        if self.prior is not None:
            like = next(self.prior.parameters())
            z, log_det = self.prior.forward_and_log_det(z.to(like))
        z = z.to(self.mean)
        return log_det - 0.5 * (z.square().sum(1) + self.n_components * math.log(2 * math.pi))

    def bound(self, y: Tensor, noise: Tensor) -> Tensor:
        """Return a draw of the lower bound (n,) of log p(y), from noise (n, d)."""
        z, manifold_term = self.injection.stochastic_inverse(y.to(self.mean), noise.to(self.mean))
        return self.log_prior(z) + manifold_term

    def _importance_samples(self, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield blocks of draws z (k, n, d) of the proposal, and their log-weights (k, n)."""
        n, d = len(y), self.n_components
        draws = randn((self.n_importance_samples, d), self.mean, make_generator(_SEED))
        # Every second draw is one of the posterior under z ~ N(0, I), as far as there is a second.
        is_posterior = torch.arange(len(draws), device=y.device) % 2 == 1
        n_block = max(2, _BLOCK_ROWS // n // 2 * 2)
        for start in range(0, len(draws), n_block):
            block = slice(start, start + n_block)
            k = len(draws[block])
            z, log_weight = self.injection.importance_sample(
                y.repeat(k, 1),
                draws[block].repeat_interleave(n, dim=0),
                is_posterior[block].repeat_interleave(n),
            )
            yield z.view(k, n, d), (self.log_prior(z) + log_weight).view(k, n)

    def log_prob(self, z: Tensor) -> Tensor:
        y = z.to(self.mean)
        if self.prior is None:
            exact = self.injection.log_marginal(y)
            if exact is not None:
                return exact
        log_weights = torch.cat([weights for _, weights in self._importance_samples(y)])
        return torch.logsumexp(log_weights, dim=0) - math.log(len(log_weights))

    @property
    def is_exact(self) -> bool:
        """Whether `log_prob` has a closed form, and draws nothing."""
        return self.prior is None and self.injection.is_exact

    @property
    def is_linear(self) -> bool:
        """Whether this is a linear model under z ~ N(0, I)."""
        return self.prior is None and isinstance(self.injection, LinearInjection)

    def negative_log_prob(self, z: Tensor) -> Tensor:
        """Return the mean of -log p(z); of a linear model with its gradient as one node."""
        if not self.is_linear:
            return -self.log_prob(z).mean()
        injection, y = cast(LinearInjection, self.injection), z.to(self.mean)
        value, grad_y, gradients = negative_log_prob([injection], y.detach()[None])
        of_parameters = [(getattr(injection, name), g[0]) for name, g in gradients.items()]
        return known_gradient(value[0], (y, grad_y[0]), *of_parameters)

    def _to_coordinates(self, z: Tensor) -> Tensor:
        return z.to(self.mean) @ self.rotation * self.component_scale

    def _from_coordinates(self, u: Tensor) -> Tensor:
        return (u.to(self.mean) / self.component_scale) @ self.rotation.T

    def project(self, z: Tensor) -> Tensor:
        return self._to_coordinates(self.injection.mode(z.to(self.mean)))

    def posterior_mean(self, y: Tensor) -> Tensor:
        """Return the coordinates (n, d) of E[z | y]; by importance weights without closed form."""
        y = y.to(self.mean)
        if self.prior is None:
            exact = self.injection.posterior_mean(y)
            if exact is not None:
                return self._to_coordinates(exact)
        # Block by block: weights relative to their sum so far.
        total, mean = y.new_full((len(y),), -torch.inf), y.new_zeros(len(y), self.n_components)
        for z, log_weights in self._importance_samples(y):
            sum_before = total
            total = torch.logaddexp(total, torch.logsumexp(log_weights, dim=0))
            mean = mean * (sum_before - total).exp()[:, None]
            mean = mean + torch.einsum("kn,knd->nd", (log_weights - total).exp(), z)
        return self._to_coordinates(mean)

    def sample_inverse(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Draw coordinates (n, d) from the stochastic inverse."""
        y = y.to(self.mean)
        noise = randn((len(y), self.n_components), y, generator)
        return self._to_coordinates(self.injection.stochastic_inverse(y, noise)[0])

    def embed(self, u: Tensor) -> Tensor:
        z = self._from_coordinates(u)
        return self.injection.generate(z, z.new_zeros(len(z), self.injection.n_features))

    def log_prob_manifold(self, u: Tensor) -> Tensor:
        return self.log_prior(self._from_coordinates(u)) - self.component_scale.log().sum()

    def covariance_factor(self) -> Tensor:
        covariance = self.injection.covariance() if self.prior is None else None
        if covariance is None:
            y = self.sample(max(_N_COVARIANCE_DRAWS, 4 * len(self.mean)), make_generator(_SEED))
            y = y - y.mean(0)
            covariance = y.T @ y / len(y)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
        return eigenvectors.flip(1) * eigenvalues.flip(0).clamp_min(0).sqrt()

    def sample(
        self,
        n_samples: int,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
        manifold_deviation: float = 1.0,
    ) -> Tensor:
        w = randn((n_samples, self.n_components), self.mean, generator) * math.sqrt(temperature)
        noise = randn((n_samples, len(self.mean)), self.mean, generator)
        if self.prior is not None:
            like = next(self.prior.parameters())
            w = self.prior.inverse_and_log_det(w.to(like))[0].to(self.mean)
        return self.injection.generate(w, noise * math.sqrt(manifold_deviation))
