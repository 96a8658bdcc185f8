"""What every bijection implements."""

from abc import ABC, abstractmethod
from collections.abc import Callable

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

    def forward_with_pullback(
        self, x: Tensor
    ) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], None]]:
        """Map data to latent without a graph, for a loss whose gradient is known.

        The last result takes the gradients of latent rows and log-determinants, and adds those of
        the parameters to their `grad`. It may be called once.
        """
        with torch.enable_grad():
            results = self.forward_and_log_det(x)

        def pull_back(*grads: Tensor) -> None:
            with torch.enable_grad():
                parts = [(r * g).sum() for r, g in zip(results, grads, strict=True)]
                torch.stack(parts).sum().backward()

        return results[0].detach(), results[1].detach(), pull_back

    @torch.no_grad()
    def start(self, x: Tensor) -> Tensor:
        """Set what is to be set from data before the first step, and return the rows mapped."""
        return self.forward_and_log_det(x)[0]

    def parameter_log_prior(self) -> Tensor | float:
        """Return the log-density of the parameters under their prior, but for a constant."""
        return 0.0
