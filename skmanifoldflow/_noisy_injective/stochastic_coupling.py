"""Stochastic coupling: two Gaussian injections, each conditional on the other half."""

from typing import Any

import torch
from torch import Tensor

from .injections import Injection, LinearInjection

__all__ = ["StochasticCoupling"]


class StochasticCoupling(Injection):
    """Two conditional Gaussian injections of the halves of y (Cunningham et al., A.7, eq. 40).

    y = (y1, y2), z = (z1, z2): y2 ~ N(A2 z2 + b2(z1), Sigma2(z1)), then
    y1 ~ N(A1 z1 + b1(y2), Sigma1(y2)). The inverse draws z1 given (y1; y2), then z2 given
    (y2; z1). Unlike a linear injection its manifold is curved by itself.

    Parameters
    ----------
    n_features : int
        D >= 2; y1 has the larger half.
    n_components : int
        d >= 2; z1 has the larger half.
    noise_covariance, noise_floor, hidden_layer_sizes, generator
        As in `GaussianInjection`.
    """

    def __init__(
        self,
        n_features: int,
        n_components: int,
        *,
        noise_covariance: str,
        noise_floor: float,
        hidden_layer_sizes: tuple[int, ...],
        generator: torch.Generator,
    ) -> None:
        super().__init__(n_features, n_components)
        self.n_second = n_features // 2
        self.d_second = n_components // 2
        n_first, d_first = n_features - self.n_second, n_components - self.d_second
        if self.d_second < 1 or d_first > n_first or self.d_second > self.n_second:
            raise ValueError(
                f"A stochastic coupling of {n_features} columns needs 2 to {n_features} "
                f"components, got {n_components}."
            )
        options: dict[str, Any] = {
            "noise_covariance": noise_covariance,
            "noise_floor": noise_floor,
            "hidden_layer_sizes": hidden_layer_sizes,
            "generator": generator,
        }
        self.first = LinearInjection(n_first, d_first, n_context=self.n_second, **options)
        self.second = LinearInjection(self.n_second, self.d_second, n_context=d_first, **options)

    def noise_variance(self) -> Tensor:
        return torch.cat([self.first.noise_variance(), self.second.noise_variance()])

    def _halves(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y[:, : -self.n_second], y[:, -self.n_second :]

    def _latent_halves(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z[:, : -self.d_second], z[:, -self.d_second :]

    def stochastic_inverse(self, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        (y1, y2), (noise1, noise2) = self._halves(y), self._latent_halves(noise)
        z1, term1 = self.first.stochastic_inverse(y1, noise1, y2)
        z2, term2 = self.second.stochastic_inverse(y2, noise2, z1)
        return torch.cat([z1, z2], dim=1), term1 + term2

    def mode(self, y: Tensor) -> Tensor:
        y1, y2 = self._halves(y)
        z1 = self.first.mode(y1, y2)
        return torch.cat([z1, self.second.mode(y2, z1)], dim=1)

    def generate(self, z: Tensor, noise: Tensor) -> Tensor:
        (z1, z2), (noise1, noise2) = self._latent_halves(z), self._halves(noise)
        y2 = self.second.generate(z2, noise2, z1)
        return torch.cat([self.first.generate(z1, noise1, y2), y2], dim=1)
