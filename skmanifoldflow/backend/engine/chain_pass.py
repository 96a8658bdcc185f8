"""One pass of rows through the kernels of a chain."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .kernels import CopyKernel, Kernel, Wiring
from .workspace import Workspace

__all__ = ["ChainPass", "KernelLayer", "Stacks"]

#: For each layer tensors (K, ...).
Stacks = Sequence[Sequence[Tensor]]


class KernelLayer(Protocol):
    """A layer as a pass sees it, see `bijections.KernelBijection`."""

    n_log_slopes: int
    is_in_place: bool
    constant_names: tuple[str, ...]

    def weights(self) -> list[Tensor]: ...

    def constants(self) -> list[Tensor]: ...

    def kernel(self, wiring: Wiring) -> Kernel: ...


class ChainPass:
    """The kernels of a chain for n rows of K fits, run forward and backward.

    Parameters
    ----------
    layers : sequence of KernelLayer
        The layers, data -> latent.
    weights, constants : sequence of sequences of Tensor
        Those of each layer, stacks (K, ...).
    gradients : sequence of sequences of Tensor or None
        The views that receive the gradients of the weights; None if there is no backward pass.
    x : Tensor of shape (K, n, D)
        Rows like those that will be passed.
    context : Tensor of shape (K, n, n_context) or None
        Context like theirs.
    inverse : bool
        Whether the pass goes from latent to data.
    needs_grad_x : bool, default=True
        Whether the gradient of the rows is asked for.

    Attributes
    ----------
    own_gradients : list of Tensor
        Memory of this pass that receives the gradients of the weights, if there is such.
    key : hashable
        What it depends on.
    """

    own_gradients: Sequence[Tensor] = ()
    key: Hashable = None

    def __init__(
        self,
        layers: Sequence[KernelLayer],
        weights: Stacks,
        constants: Stacks,
        gradients: Stacks | None,
        x: Tensor,
        context: Tensor | None,
        *,
        inverse: bool,
        needs_grad_x: bool = True,
    ) -> None:
        n_fits, self.n_rows, n_features = x.shape
        self.trains, self.inverse = gradients is not None, inverse
        self.space = Workspace(x, n_fits, trains=self.trains)
        self.columns = self._columns(n_features)
        self.other = self.columns if self.trains else self._columns(n_features)
        self.context = None if context is None else self._columns(context.shape[2])
        n_log_slopes = 0
        for layer in layers:
            n_log_slopes += layer.n_log_slopes
        self.log_slopes = self._columns(n_log_slopes)
        self.grad_context: Any = None
        self.grad_x: Any = None
        self.other_grad: Any = None
        if self.trains:
            self.grad_x, self.other_grad = self._columns(n_features), self._columns(n_features)
            self.grad_log_det, self.grad_log_prior = self._columns(1), self.space.new(1, 1)
            if context is not None:
                self.grad_context = self._columns(context.shape[2])
        self.result, self.grad_result = self.columns, self.grad_x
        self.kernels: list[Kernel] = []
        # Those that have weights or come after such, from the last one on.
        self.backward_kernels: list[Kernel] = []
        is_read, n_taken = False, 0
        parts = list(zip(layers, weights, constants, gradients or weights, strict=True))
        for layer, of_layer, fixed, into in parts[::-1] if inverse else parts:
            if is_read and layer.is_in_place:
                self._append(CopyKernel(self._wiring([], [], [], n_taken, 0)))
            wiring = self._wiring(of_layer, fixed, into, n_taken, layer.n_log_slopes)
            wiring.needs_grad_x = needs_grad_x or bool(self.backward_kernels)
            kernel = layer.kernel(wiring)
            self._append(kernel)
            if wiring.needs_grad_x or wiring.weights:
                self.backward_kernels.insert(0, kernel)
            n_taken += layer.n_log_slopes
            is_read = self.trains and kernel.reads_z

    def _columns(self, n_columns: int) -> Tensor:
        return self.space.new(n_columns, self.n_rows)

    def _append(self, kernel: Kernel) -> None:
        self.kernels.append(kernel)
        self.result, self.grad_result = kernel.z, kernel.grad_z if self.trains else None

    def _new_columns(self) -> Tensor:
        """Return memory for what is not mapped in place: without gradient two take turns."""
        if self.trains:
            return self._columns(self.columns.shape[1])
        return self.other if self.result is self.columns else self.columns

    def _wiring(
        self,
        weights: Sequence[Tensor],
        constants: Sequence[Tensor],
        gradients: Sequence[Tensor],
        n_taken: int,
        n_log_slopes: int,
    ) -> Wiring:
        """Return what the next kernel is built from."""
        self.space.reuse_scratch()
        log_slopes = self.log_slopes[:, n_taken : n_taken + n_log_slopes]
        given = self.space, self.result, self._new_columns, self.inverse, log_slopes, self.context
        if not self.trains:
            return Wiring(*given, weights, constants)
        is_first = self.grad_result is self.grad_x
        wiring = Wiring(*given, weights, constants, gradients, self.grad_result)
        wiring.other_grad = self.other_grad if is_first else self.grad_x
        wiring.grad_log_det, wiring.grad_log_prior = self.grad_log_det, self.grad_log_prior
        wiring.grad_context = self.grad_context
        return wiring

    def forward(
        self, x: Tensor, context: Tensor | None, z: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return rows (K, n, D) mapped, into `z` if it is given, and log-determinants (K, n).

        Without a backward pass there may be fewer rows than the buffers hold.
        """
        n = x.shape[1]
        columns, result, log_slopes = self.columns, self.result, self.log_slopes
        of_context: Any = self.context
        if n < self.n_rows:
            columns, result, log_slopes = columns[:, :, :n], result[:, :, :n], log_slopes[:, :, :n]
            of_context = None if context is None else of_context[:, :, :n]
        z = torch.empty_like(x, memory_format=torch.contiguous_format) if z is None else z
        of_x, of_rows = x.mT, None if context is None else context.mT
        with torch.inference_mode():
            columns.copy_(of_x)
            if of_rows is not None:
                of_context.copy_(of_rows)
            for kernel in self.kernels:
                kernel.forward()
        return z.copy_(result.mT), log_slopes.sum(1)

    def log_prior(self) -> Tensor:
        """Return the log-densities (K,) of the weights under their prior, but for constants."""
        total = self.columns.new_zeros(self.space.n_fits)
        for kernel in self.kernels:
            if kernel.log_prior is not None:
                total += kernel.log_prior
        return total

    def backward(self, grad_z: Tensor, grad_log_det: Tensor, grad_log_prior: float = 0.0) -> None:
        """Write the gradients of weights, rows (`grad_rows`) and context, after `forward`.

        Parameters
        ----------
        grad_z : Tensor of shape (K, n, D)
            Gradient of the results.
        grad_log_det : Tensor of shape (K, n)
            Gradient of the log-determinants, which is where weights of rows come in.
        grad_log_prior : float, default=0.0
            Gradient of the log-prior of the weights.
        """
        grad_columns, grad_log_det = grad_z.mT, grad_log_det.unsqueeze(-2)
        with torch.inference_mode():
            self.grad_result.copy_(grad_columns)
            self.grad_log_det.copy_(grad_log_det)
            self.grad_log_prior.fill_(grad_log_prior)
            if self.grad_context is not None:
                self.grad_context.zero_()
            for kernel in self.backward_kernels:
                kernel.backward()

    def grad_rows(self) -> Tensor:
        """Return the gradient (K, n, D) of the rows."""
        return self.grad_x.mT.clone(memory_format=torch.contiguous_format)

    def grad_context_rows(self) -> Tensor | None:
        """Return the gradient (K, n, n_context) of the context."""
        return None if self.grad_context is None else self.grad_context.mT.clone()
