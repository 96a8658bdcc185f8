"""What every bijection implements."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Bijection", "PullBack"]


#: Takes the gradients of what a bijection returned, see `Bijection.forward_with_pullback`.
PullBack: TypeAlias = Callable[[Tensor, Tensor, float], None]


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

    def forward_with_pullback(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | float, PullBack]:
        """Map data to latent without a graph, for a loss whose gradient is known.

        Return latent rows, log-determinants, `parameter_log_prior`, and what takes the gradients of
        the three and adds those of the parameters to their `grad`, once.
        """
        with torch.enable_grad():
            z, log_det = self.forward_and_log_det(x)
            log_prior = self.parameter_log_prior()

        def pull_back(grad: Tensor, grad_log_det: Tensor, grad_log_prior: float) -> None:
            with torch.enable_grad():
                loss = (z * grad).sum() + (log_det * grad_log_det).sum()
                loss = loss + grad_log_prior * log_prior
            if loss.requires_grad:
                loss.backward()

        value = log_prior.detach() if isinstance(log_prior, Tensor) else log_prior
        return z.detach(), log_det.detach(), value, pull_back

    @torch.no_grad()
    def start(self, x: Tensor) -> Tensor:
        """Set what is to be set from data before the first step, and return the rows mapped."""
        return self.forward_and_log_det(x)[0]

    def parameter_log_prior(self) -> Tensor | float:
        """Return the log-density of the parameters under their prior, but for a constant."""
        return 0.0
