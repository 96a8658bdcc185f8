"""Differential geometry of a map R^d -> R^D by exact derivatives along directions."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["jacobian_columns", "log_volume_element"]


def jacobian_columns(
    function: Callable[[Tensor], Tensor], points: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the values (n, D) and directional derivatives (n, D, k) of a rowwise function.

    A Jacobian-vector product costs one reverse pass here, through the graph of the vector-Jacobian
    product u -> J'u, which is linear in u: its derivative along v is J v. The first use of torch's
    forward mode costs a process some three seconds of imports, and it evaluates the function anew
    for every direction.

    Parameters
    ----------
    function : callable
        Maps rows (n, m) to rows (n, D), each row by itself.
    points : Tensor of shape (n, m)
        Where to differentiate.
    directions : Tensor of shape (k, m)
        Directions, the same at every point.
    """
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        values = function(points)
        u = torch.zeros_like(values, requires_grad=True)
        (pullback,) = torch.autograd.grad((values * u).sum(), points, create_graph=True)
        columns = [
            torch.autograd.grad((pullback * v).sum(), u, retain_graph=True)[0] for v in directions
        ]
    return values.detach(), torch.stack(columns, dim=-1)


def log_volume_element(jacobian: Tensor) -> Tensor:
    """Return 1/2 logdet(J'J), shape (n,), of Jacobians (n, D, d).

    By the triangular factor of J itself, which keeps twice the digits of a factor of J'J.
    """
    r = torch.linalg.qr(jacobian, mode="r").R
    return r.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
