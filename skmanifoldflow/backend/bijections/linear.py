"""Linear maps of unit volume that mix the columns between couplings."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..tape import Pass, Tape
from .base import Bijection
from .fused import FusedLayer

__all__ = ["Orthogonal", "Permutation", "PrincipalAxes"]


class Orthogonal(FusedLayer):
    """Orthogonal mixing z = x Q, log-determinant zero.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    generator : torch.Generator or None
        Source of Q, drawn from the Haar measure; None for the identity.
    learned : bool, default=False
        Train Q exp(S) with S skew-symmetric, started at 0; else Q stays fixed.
    """

    q: Tensor

    def __init__(
        self, n_features: int, *, generator: torch.Generator | None, learned: bool = False
    ) -> None:
        super().__init__()
        q = torch.eye(n_features, dtype=torch.float64)
        if generator is not None:
            normal = torch.randn(n_features, n_features, dtype=torch.float64, generator=generator)
            q, r = torch.linalg.qr(normal)
            q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
        self.register_buffer("q", q.to(torch.float32))
        n_angles = n_features * (n_features - 1) // 2
        self.angles = nn.Parameter(torch.zeros(n_angles)) if learned else None
        self.is_fused = not learned
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

    def _matrix(self) -> Tensor:
        if self.angles is None:
            return self.q
        rows, columns = torch.triu_indices(len(self.q), len(self.q), offset=1, device=self.q.device)
        upper = torch.zeros_like(self.q).index_put((rows, columns), self.angles)
        return self.q @ torch.linalg.matrix_exp(upper - upper.T)

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return x @ self._matrix(), x.new_zeros(len(x))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return z @ self._matrix().T, z.new_zeros(len(z))

    def tape(
        self, run: Pass, weights: Sequence[Tensor], grad_weights: Sequence[Tensor]
    ) -> "_OrthogonalTape":
        return _OrthogonalTape(self.q if run.inverse else self.q.t(), run)


class _OrthogonalTape(Tape):
    """Columns are multiplied by a matrix from the left."""

    def __init__(self, matrix: Tensor, run: Pass) -> None:
        self.matrix = matrix
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        z = self.run.after(x)
        self.run.call(torch.mm, self.matrix, x, out=z)
        return z

    def backward(self, grad: Tensor, needs_grad: bool) -> Tensor:
        of_x = self.run.after(grad)
        self.run.call(torch.mm, self.matrix.t(), grad, out=of_x)
        return of_x


class Permutation(FusedLayer):
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

    def tape(
        self, run: Pass, weights: Sequence[Tensor], grad_weights: Sequence[Tensor]
    ) -> "_PermutationTape":
        order, back = self.order, self.inverse_order
        return _PermutationTape(*((back, order) if run.inverse else (order, back)), run)


class _PermutationTape(Tape):
    def __init__(self, order: Tensor, inverse_order: Tensor, run: Pass) -> None:
        self.order, self.inverse_order = order, inverse_order
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        z = self.run.after(x)
        self.run.call(torch.index_select, x, 0, self.order, out=z)
        return z

    def backward(self, grad: Tensor, needs_grad: bool) -> Tensor:
        of_x = self.run.after(grad)
        self.run.call(torch.index_select, grad, 0, self.inverse_order, out=of_x)
        return of_x


class PrincipalAxes(Bijection):
    """Rows centred, turned to their principal axes and scaled: z = (x - m) Q / s.

    The first d axes have their standard deviations as scales, the others share one, as in
    probabilistic PCA. Q is the identity until `start` has seen rows; nothing is trained.

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
    def start(self, x: Tensor) -> Tensor:
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
