"""What every bijection implements."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["Bijection"]


class Bijection(nn.Module, ABC):
    """Invertible map of R^D, written in the data -> latent direction.

    Both methods take rows of shape (n, D) and, for conditional bijections, a `context` of shape
    (n, n_context); both return the mapped rows and the log absolute determinant of the Jacobian of
    the direction taken, shape (n,).
    """

    @abstractmethod
    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map data to latent."""

    @abstractmethod
    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map latent to data."""

    @torch.no_grad()
    def start(self, x: Tensor) -> Tensor:
        """Set what is to be set from data before the first step, and return the rows mapped."""
        return self.forward_and_log_det(x)[0]

    def parameter_log_prior(self) -> Tensor | float:
        """Return the log-density of the parameters under their prior, but for a constant."""
        return 0.0
