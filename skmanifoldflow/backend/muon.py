"""Muon: steps along orthogonalised momentum, for the weight matrices of networks."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalize"]

# Odd polynomials p(X) = a X + b X X'X + c X (X'X)^2 that take singular values towards 1, each the
# one that is nearest to 1 in the worst case on what the one before leaves of (.01, 1): after three
# of them values above a hundredth of the norm lie between .73 and 1.27, which is near enough.
_COEFFICIENTS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
# Ratio of the sides of a matrix from which products of small Gram matrices are cheaper.
_TALL = 1.5
_TINY = 1e-12
_SIDE = 4


def orthogonalize(x: Tensor) -> Tensor:
    """Return matrices (k, m, n) with the singular vectors that they have and values near 1.

    Values are near 1 where they are above a hundredth of the root of the sum of their squares. The
    polynomials are those of Polar Express (Amsel et al., 2025, arXiv:2505.16932, sec. 3).
    """
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + _TINY)
    is_wide = x.shape[2] > _TALL * x.shape[1]
    gram, product = torch.bmm(x, x.mT), None
    for i, (a, b, c) in enumerate(_COEFFICIENTS):
        # p(X) = P X with a polynomial P of the Gram matrix, that of p(X) is P G P.
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        is_last = i == len(_COEFFICIENTS) - 1
        if is_wide:
            product = polynomial if product is None else torch.bmm(polynomial, product)
            if not is_last:
                gram = torch.bmm(polynomial, torch.bmm(gram, polynomial))
        else:
            x = torch.bmm(polynomial, x)
            if not is_last:
                gram = torch.bmm(x, x.mT)
    if product is not None:
        x = torch.bmm(product, x)
    return x.mT if is_tall else x


class Muon:
    """Steps along orthogonalised momentum (Jordan et al., 2024) for matrices of one shape.

    A step moves all singular directions of a matrix by as much, while the gradients of a layer that
    has to learn a thin structure lie along a few of them. The root mean square of a step is 1.5
    times that of one of Adam, of about .2 of the learning rate (Liu et al., 2025,
    arXiv:2502.16982), so that both take one learning rate.

    Parameters
    ----------
    values, gradients : sequence of Tensor of shape (K, m, n)
        Matrices of K fits, and the views that hold their gradients.
    """

    # Nesterov's momentum.
    momentum = 0.9
    # Of a step, relative to the learning rate.
    root_mean_square = 0.3

    def __init__(self, values: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        self.values, self.gradients = list(values), list(gradients)
        self._rows, self._columns = self.values[0].shape[1:]
        # Products of a stack have the bits of those of one fit where each matrix has the same place
        # in a cache line; zeros fill them up to sides that are multiples of four.
        sides = (-(-side // _SIDE) * _SIDE for side in (self._rows, self._columns))
        shape = len(self.values), len(self.values[0]), *sides
        # Decayed sum of the gradients, and the gradients.
        self.sum = self.values[0].new_zeros(shape)
        self._gradient = torch.zeros_like(self.sum)
        self._windows = list(self._without_zeros(self._gradient))

    def _without_zeros(self, padded: Tensor) -> Tensor:
        return padded[..., : self._rows, : self._columns]

    def take_directions(self) -> Tensor:
        """Return the directions (k, K, m, n) of a step, and set the gradients to zero."""
        for window, gradient in zip(self._windows, self.gradients, strict=True):
            window.copy_(gradient)
            gradient.zero_()
        self.sum.mul_(self.momentum).add_(self._gradient)
        ahead = torch.mul(self.sum, self.momentum).add_(self._gradient)
        return self._without_zeros(orthogonalize(ahead.flatten(0, 1)).view(ahead.shape))

    def step(self, directions: Tensor, learning_rates: Sequence[float]) -> None:
        """Move the matrices of each fit against their directions."""
        size = self.root_mean_square * math.sqrt(max(directions.shape[-2:]))
        for values, of_matrix in zip(self.values, directions, strict=True):
            for k, learning_rate in enumerate(learning_rates):
                values[k].sub_(of_matrix[k], alpha=size * learning_rate)
