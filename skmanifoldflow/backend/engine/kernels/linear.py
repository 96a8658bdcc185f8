"""Fixed linear maps that mix the columns, and a copy."""

import torch
from torch import Tensor

from .base import Kernel, Wiring

__all__ = ["CopyKernel", "MatrixKernel", "PermutationKernel"]


class CopyKernel(Kernel):
    """Keeps what a kernel needs for its gradient from the next one, which works in place."""

    def __init__(self, wiring: Wiring) -> None:
        self.x, self.z = wiring.x, wiring.new_columns()
        self.grad_z = wiring.grad_x

    def forward(self) -> None:
        self.z.copy_(self.x)

    def backward(self) -> None:
        """Nothing changes."""


class MatrixKernel(Kernel):
    """Rows times fixed matrices (K, D, D), or times their inverses if `wiring.inverse`.

    A layer has them, their inverses and log-determinants (K) as constants, or matrices alone that
    are orthogonal. The log-determinants are the same for all rows, and are written once.
    """

    def __init__(self, wiring: Wiring) -> None:
        matrix, *rest = wiring.constants
        if rest:
            inverse, log_det = rest
            if wiring.inverse:
                matrix, log_det = inverse, -log_det
            wiring.log_slopes.copy_(log_det[:, None, None])
        elif wiring.inverse:
            matrix = matrix.mT
        self.x, self.z = wiring.x, wiring.new_columns()
        self.grad_x, self.grad_z = wiring.grad_x, wiring.other_grad
        # Rows are columns here.
        self.matrix, self.transposed = matrix.mT, matrix

    def forward(self) -> None:
        torch.bmm(self.matrix, self.x, out=self.z)

    def backward(self) -> None:
        torch.bmm(self.transposed, self.grad_z, out=self.grad_x)


class PermutationKernel(Kernel):
    """Columns in fixed orders (K, D), or back if `wiring.inverse`."""

    def __init__(self, wiring: Wiring) -> None:
        (order,) = wiring.constants
        back = order.argsort(1)
        if wiring.inverse:
            order, back = back, order
        self.z, self.grad_z = wiring.new_columns(), wiring.other_grad
        self.copies = self._copies(wiring.x, order, self.z)
        if wiring.space.trains:
            self.copies_back = self._copies(self.grad_z, back, wiring.grad_x)

    @staticmethod
    def _copies(x: Tensor, order: Tensor, z: Tensor) -> list[tuple[Tensor, int, Tensor, Tensor]]:
        """Return what to copy where: of all fits at once if they have one order."""
        if len(order) == 1 or bool((order == order[0]).all()):
            return [(x, 1, order[0], z)]
        return [(x[k], 0, order[k], z[k]) for k in range(len(x))]

    def forward(self) -> None:
        for x, dim, order, z in self.copies:
            torch.index_select(x, dim, order, out=z)

    def backward(self) -> None:
        for grad_z, dim, back, grad_x in self.copies_back:
            torch.index_select(grad_z, dim, back, out=grad_x)
