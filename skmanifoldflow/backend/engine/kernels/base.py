"""What every kernel implements, and what it is given."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..workspace import Workspace

__all__ = ["ElementwiseKernel", "Entries", "Kernel", "Wiring"]


@dataclass
class Wiring:
    """What a kernel is built from: numbers and tensors, no layer.

    Columns come first and rows last, (K, D, n), so that parts of the columns are contiguous. Where
    there is no backward pass, all from `gradients` on is None.

    Attributes
    ----------
    space : Workspace
        Gives out all other buffers.
    x : Tensor of shape (K, D, n)
        What the kernel maps. Unless `inverse` that is the data side of its layer.
    new_columns : callable
        Returns a buffer (K, D, n) for what is not mapped in place.
    inverse : bool
        Whether the pass goes from latent to data.
    log_slopes : Tensor of shape (K, m, n)
        Where log-derivatives of the direction taken go, whose sum is the log-determinant.
    context : Tensor of shape (K, n_context, n) or None
        Context columns.
    weights, constants : sequence of Tensor
        Those of the layer, stacks (K, ...).
    gradients : sequence of Tensor
        The views (K, ...) that receive the gradients of the weights.
    grad_x, other_grad : Tensor of shape (K, D, n)
        Where the gradient of `x` goes, and a buffer for a result of another gradient.
    needs_grad_x : bool
        Whether it is asked for.
    grad_log_det : Tensor of shape (K, 1, n)
        Gradient of the log-determinants: weights of rows come in here and with the gradient of z.
    grad_log_prior : Tensor of shape (K, 1, 1)
        Gradient of `Kernel.log_prior`.
    grad_context : Tensor of shape (K, n_context, n) or None
        To which the gradient of the context is added.
    """

    space: Workspace
    x: Tensor
    new_columns: Callable[[], Tensor]
    inverse: bool
    log_slopes: Tensor
    context: Tensor | None
    weights: Sequence[Tensor]
    constants: Sequence[Tensor]
    gradients: Any = None
    grad_x: Any = None
    other_grad: Any = None
    needs_grad_x: bool = False
    grad_log_det: Any = None
    grad_log_prior: Any = None
    grad_context: Any = None


class Kernel(ABC):
    """The map of one layer and its gradient, for n rows of K fits in buffers of its own.

    `forward` reads the buffer `x` of its wiring, `backward` the buffer `grad_z`; the latter may be
    called once after each of the former.

    Attributes
    ----------
    z : Tensor of shape (K, D, n)
        What `forward` writes; it may be `x` itself.
    grad_z : Tensor of shape (K, D, n)
        Where `backward` finds the gradient of z; it may be `grad_x` itself.
    log_prior : Tensor of shape (K,) or None
        Log-density of the weights under their prior, but for constants, which `forward` writes.
    """

    #: Whether `backward` reads what `forward` has left in z.
    reads_z = False
    z: Tensor
    grad_z: Tensor
    log_prior: Tensor | None = None

    @abstractmethod
    def forward(self) -> None:
        """Map `x`."""

    @abstractmethod
    def backward(self) -> None:
        """Write the gradients of the weights and, if it is asked for, of `x`."""


@dataclass
class Entries:
    """What the kernel of an elementwise map is built from.

    Attributes
    ----------
    space : Workspace
        Gives out the buffers. With `NO_BUFFERS` the same formulas are for autograd, K = 1 and
        without `backward`.
    shape : tuple of two ints
        Numbers m and n of columns and rows.
    inverse : bool
        Whether the map goes from latent to data.
    params : Tensor of shape (K, n_params * m, n) or None
        Parameters; None for a buffer.
    log_slope : Tensor of shape (K, m, n) or None
        Buffer for the log-derivatives of the direction taken.
    grad_log_det : Tensor of shape (K, 1, n) or None
        Gradient of the log-determinants.
    """

    space: Workspace
    shape: tuple[int, int]
    inverse: bool
    params: Tensor | None = None
    log_slope: Tensor | None = None
    grad_log_det: Any = None


class ElementwiseKernel(ABC):
    """Monotone map of entries by parameters of their own, and its gradient.

    Attributes
    ----------
    params, grad_params : Tensor of shape (K, n_params * m, n)
        Parameters, which are there before each `forward`, and their gradient, which `backward`
        writes.
    log_slope : Tensor of shape (K, m, n) or None
        Log-derivatives of the direction taken; None where the map preserves volume.
    """

    params: Tensor
    grad_params: Any = None
    log_slope: Tensor | None = None

    @abstractmethod
    def forward(self, v: Tensor) -> Tensor:
        """Return columns (K, m, n) mapped, which are in their own place if there are buffers."""

    @abstractmethod
    def backward(self, grad: Tensor) -> None:
        """Turn the gradient (K, m, n) of the results, in its place, into that of the columns."""
