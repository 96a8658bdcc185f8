"""Differential geometry of a map R^d -> R^D by forward-mode derivatives."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

__all__ = ["jacobian_columns", "log_volume_element"]


def jacobian_columns(
    function: Callable[[Tensor], Tensor], points: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the values (n, D) and directional derivatives (n, D, k) of a rowwise function.

    Parameters
    ----------
    function : callable
        Maps rows (n, m) to rows (n, D), each row by itself.
    points : Tensor of shape (n, m)
        Where to differentiate.
    directions : Tensor of shape (k, m)
        Directions, the same at every point.
    """
    n, k = len(points), len(directions)
    jvp = torch.func.jvp(
        function,
        (points.repeat_interleave(k, dim=0),),
        (directions.repeat(n, 1),),
    )
    values, derivatives = cast(tuple[Tensor, Tensor], jvp)
    return values[::k], derivatives.view(n, k, -1).transpose(1, 2)


def log_volume_element(jacobian: Tensor) -> Tensor:
    """Return 1/2 logdet(J'J), shape (n,), of Jacobians (n, D, d).

    By the triangular factor of J itself, which keeps twice the digits of a factor of J'J.
    """
    r = torch.linalg.qr(jacobian, mode="r").R
    return r.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
