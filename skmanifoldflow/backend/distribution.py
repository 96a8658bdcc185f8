"""What every latent distribution implements."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .device import move, statistics_dtype

__all__ = ["LatentDistribution"]


class LatentDistribution(nn.Module, ABC):
    """Distribution on R^D most of which is noise around a d-dimensional part u.

    Distributions compute in float64 wherever the device has it, whatever the dtype of the
    bijection.
    """

    mean: Tensor
    n_components: int

    def move_to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move to a device; a flow within the distribution computes in `dtype`."""
        move(self, device, statistics_dtype(device))

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-density (n,) in nats of latent rows (n, D)."""

    @abstractmethod
    def project(self, z: Tensor) -> Tensor:
        """Return the manifold part u (n, d) of latent rows (n, D)."""

    @abstractmethod
    def embed(self, u: Tensor) -> Tensor:
        """Return the latent rows (n, D) on the manifold with coordinates u (n, d)."""

    @abstractmethod
    def log_prob_manifold(self, u: Tensor) -> Tensor:
        """Return the log-density (n,) in nats of coordinates u (n, d) w.r.t. Lebesgue measure."""

    @abstractmethod
    def covariance_factor(self) -> Tensor:
        """Return a factor F (D, D) of the covariance F F' of z."""

    @abstractmethod
    def sample(
        self,
        n_samples: int,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
        manifold_deviation: float = 1.0,
    ) -> Tensor:
        """Draw latent rows (n, D); the options scale the variances of u and of the noise."""
