"""What every bijection implements."""

from abc import ABC, abstractmethod
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from ..engine import VJP
from ..engine.kernels import Kernel, Wiring
from ..torch_private import buffers

__all__ = ["Bijection", "KernelBijection"]


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

    @property
    def has_vjp(self) -> bool:
        """Whether there is `forward_with_vjp`: while all that it depends on is trained."""
        return False

    def forward_with_vjp(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, VJP]:
        """Map data to latent without a graph, for a loss whose gradient is known.

        Parameters
        ----------
        x : Tensor of shape (n, D), or (K, n, D) for a stack of K fits
            Rows.

        Returns
        -------
        z, log_det : Tensor of the shape of x, and the same without columns
            Latent rows and log-determinants.
        log_prior : Tensor of shape () or (K,)
            `parameter_log_prior`.
        vjp : callable
            Takes the gradients of the three and adds those of the parameters to their `grad`; a
            second call raises RuntimeError.
        """
        raise NotImplementedError

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Set what is to be set from data before the first step, and return the rows mapped."""
        return self.forward_and_log_det(x)[0]

    def parameter_log_prior(self) -> Tensor | float:
        """Return the log-density of the parameters under their prior, but for a constant."""
        return 0.0

    def structure(self) -> Hashable | None:
        """Return what bijections have in common that can be trained as one, but for shapes.

        Every number that is no tensor has to be part of it. None if they cannot.
        """
        return None


class KernelBijection(Bijection):
    """Bijection with a kernel, see `engine.KernelLayer` and CONTRIBUTING.md."""

    n_log_slopes = 0
    is_in_place = False
    #: Buffers that are not trained and that the kernel depends on.
    constant_names: tuple[str, ...] = ()

    def weights(self) -> list[Tensor]:
        """Return the parameters."""
        return []

    def constants(self) -> list[Tensor]:
        """Return the tensors that are not trained and that the kernel depends on."""
        of_layer = buffers(self)
        return [of_layer[name] for name in self.constant_names]

    @abstractmethod
    def kernel(self, wiring: Wiring) -> Kernel:
        """Return a kernel, given its buffers and stacks of weights and constants."""
