"""Linear maps that mix the columns between couplings, or stretch them."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from ..engine.kernels import MatrixKernel, PermutationKernel, Wiring
from .base import Bijection, KernelBijection

__all__ = ["LinearMap", "Orthogonal", "Permutation", "PrincipalAxes"]


class Orthogonal(KernelBijection):
    """Orthogonal mixing z = x Q, log-determinant zero.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    generator : torch.Generator or None
        Source of Q, drawn from the Haar measure; None for the identity.
    """

    constant_names = ("q",)
    q: Tensor

    def __init__(self, n_features: int, *, generator: torch.Generator | None) -> None:
        super().__init__()
        q = torch.eye(n_features, dtype=torch.float64)
        if generator is not None:
            normal = torch.randn(n_features, n_features, dtype=torch.float64, generator=generator)
            q, r = torch.linalg.qr(normal)
            q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
        self.register_buffer("q", q.to(torch.float32))
        self._reorthogonalise()

    def _reorthogonalise(self) -> None:
        # Rounded to float32 and cast back, Q is orthogonal to 1e-7 only. One Newton-Schulz step
        # squares that error, so inverse and log-determinant are exact in the dtype in use.
        identity = torch.eye(len(self.q), dtype=self.q.dtype, device=self.q.device)
        self.q = self.q @ (1.5 * identity - 0.5 * self.q.T @ self.q)

    def _apply(self, fn: Callable, recurse: bool = True) -> "Orthogonal":
        dtype = self.q.dtype
        super()._apply(fn, recurse)
        if self.q.dtype != dtype:
            self._reorthogonalise()
        return self

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return x @ self.q, x.new_zeros(len(x))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return z @ self.q.T, z.new_zeros(len(z))

    def structure(self) -> Hashable:
        return "orthogonal"

    def kernel(self, wiring: Wiring) -> MatrixKernel:
        return MatrixKernel(wiring)


class LinearMap(KernelBijection):
    """Fixed linear map z = x W, the identity until `set` gives it a matrix.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    """

    n_log_slopes = 1
    constant_names = ("matrix", "inverse_matrix", "log_det")
    matrix: Tensor
    inverse_matrix: Tensor
    log_det: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.eye(n_features))
        self.register_buffer("inverse_matrix", torch.eye(n_features))
        self.register_buffer("log_det", torch.zeros(()))

    def set(self, matrix: Tensor) -> None:
        """Take W (D, D)."""
        self.matrix.copy_(matrix)
        self._invert()

    def _invert(self) -> None:
        # Of the matrix as it is rounded.
        matrix = self.matrix.cpu().double()
        self.inverse_matrix.copy_(torch.linalg.inv(matrix))
        self.log_det.copy_(torch.linalg.slogdet(matrix)[1])

    def _apply(self, fn: Callable, recurse: bool = True) -> "LinearMap":
        dtype = self.matrix.dtype
        super()._apply(fn, recurse)
        if self.matrix.dtype != dtype:
            self._invert()
        return self

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return x @ self.matrix, self.log_det.expand(len(x))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return z @ self.inverse_matrix, -self.log_det.expand(len(z))

    def structure(self) -> Hashable:
        return "linear map"

    def kernel(self, wiring: Wiring) -> MatrixKernel:
        return MatrixKernel(wiring)


class Permutation(KernelBijection):
    """Fixed permutation of the columns.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    generator : torch.Generator, optional
        Source of the permutation.
    order : Tensor of shape (D,), optional
        The permutation itself, in the place of a generator: z = x[:, order].
    """

    constant_names = ("order",)
    order: Tensor
    inverse_order: Tensor

    def __init__(
        self,
        n_features: int,
        *,
        generator: torch.Generator | None = None,
        order: Tensor | None = None,
    ) -> None:
        super().__init__()
        if (generator is None) == (order is None):
            raise ValueError("Give either a generator or an order.")
        if order is None:
            order = torch.randperm(n_features, generator=generator)
        self.register_buffer("order", order)
        self.register_buffer("inverse_order", torch.argsort(order))

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return x[:, self.order], x.new_zeros(len(x))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return z[:, self.inverse_order], z.new_zeros(len(z))

    def structure(self) -> Hashable:
        return "permutation"

    def kernel(self, wiring: Wiring) -> PermutationKernel:
        return PermutationKernel(wiring)


class PrincipalAxes(Bijection):
    """Rows centred, turned to their principal axes and scaled: z = (x - m) Q / s.

    The first d axes have their standard deviations as scales, the others share one, as in
    probabilistic PCA. Q is the identity until `initialize` has seen rows; nothing is trained.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    n_components : int
        Number of axes d with a scale of their own.
    floor : float
        Smallest scale.
    """

    mean: Tensor
    divisor: Tensor

    def __init__(self, n_features: int, n_components: int, *, floor: float) -> None:
        super().__init__()
        self.n_components = n_components
        self.floor = floor
        self.rotation = Orthogonal(n_features, generator=None)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("divisor", torch.ones(n_features))

    def scale(self) -> Tensor:
        """Return the scale (D,) by which each latent column was divided."""
        return self.divisor

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Take mean, axes and scales from rows; the largest entry of each axis is positive."""
        rows = x.double()
        mean = rows.mean(0)
        centred = rows - mean
        variances, axes = torch.linalg.eigh(centred.T @ centred / max(1, len(rows) - 1))
        axes, variances = axes.flip(1), variances.flip(0).clamp_min(0)
        axes = axes * torch.sign(axes.gather(0, axes.abs().argmax(0, keepdim=True)))
        scale = variances.sqrt()
        scale[self.n_components :] = variances[self.n_components :].mean().sqrt()
        self.mean.copy_(mean)
        self.divisor.copy_(scale.clamp_min(self.floor))
        self.rotation.q.copy_(axes)
        return self.forward_and_log_det(x)[0]

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        z, _ = self.rotation.forward_and_log_det(x - self.mean)
        return z / self.divisor, -self.divisor.log().sum().expand(len(x))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x, _ = self.rotation.inverse_and_log_det(z * self.divisor)
        return x + self.mean, self.divisor.log().sum().expand(len(z))
