"""Precision matrices of a stochastic inverse, dense or diagonal, the same for all rows or not."""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["DensePrecision", "DiagonalPrecision", "Precision"]


class Precision(ABC):
    """A symmetric positive definite matrix Lam, or one for each row."""

    @abstractmethod
    def solve(self, u: Tensor) -> Tensor:
        """Return Lam^-1 u for rows u (n, d)."""

    @abstractmethod
    def scale(self, noise: Tensor) -> Tensor:
        """Turn rows of N(0, I) into rows of N(0, Lam^-1)."""

    @abstractmethod
    def quadratic(self, z: Tensor) -> Tensor:
        """Return z' Lam z (n,) of rows z (n, d)."""

    @abstractmethod
    def log_det(self) -> Tensor:
        """Return logdet Lam, a scalar or (n,)."""

    @abstractmethod
    def plus_identity(self) -> "Precision":
        """Return I + Lam."""


class DensePrecision(Precision):
    """Lam of shape (d, d) or (n, d, d), by its Cholesky factor.

    Parameters
    ----------
    matrix : Tensor of shape (d, d) or (n, d, d)
        Lam. Where it is not positive definite the results are NaN, which the training loop handles.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    @cached_property
    def factor(self) -> Tensor:
        """The lower triangular L of Lam = L L'."""
        factor, info = torch.linalg.cholesky_ex(self.matrix)
        return torch.where((info == 0)[..., None, None], factor, torch.nan)

    def solve(self, u: Tensor) -> Tensor:
        if self.matrix.ndim == 3:
            return torch.cholesky_solve(u[:, :, None], self.factor)[:, :, 0]
        return torch.cholesky_solve(u.T, self.factor).T

    def scale(self, noise: Tensor) -> Tensor:
        transposed = self.factor.mT
        if self.matrix.ndim == 3:
            return torch.linalg.solve_triangular(transposed, noise[:, :, None], upper=True)[:, :, 0]
        return torch.linalg.solve_triangular(transposed, noise.T, upper=True).T

    def quadratic(self, z: Tensor) -> Tensor:
        return (z[:, None, :] @ self.factor)[:, 0].square().sum(1)

    def log_det(self) -> Tensor:
        return 2 * self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def plus_identity(self) -> "DensePrecision":
        identity = torch.eye(
            self.matrix.shape[-1], dtype=self.matrix.dtype, device=self.matrix.device
        )
        return DensePrecision(self.matrix + identity)


class DiagonalPrecision(Precision):
    """Lam as its diagonal, of shape (d,) or (n, d): every operation costs O(d).

    Parameters
    ----------
    values : Tensor of shape (d,) or (n, d)
        The diagonal, positive.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def solve(self, u: Tensor) -> Tensor:
        return u / self.values

    def scale(self, noise: Tensor) -> Tensor:
        return noise * self.values.rsqrt()

    def quadratic(self, z: Tensor) -> Tensor:
        return (z.square() * self.values).sum(1)

    def log_det(self) -> Tensor:
        return self.values.log().sum(-1)

    def plus_identity(self) -> "DiagonalPrecision":
        return DiagonalPrecision(1 + self.values)
