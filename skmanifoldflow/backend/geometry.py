"""Differential geometry of a map R^d -> R^D by exact derivatives along directions."""

from collections.abc import Callable

import torch
from torch import Tensor

from .device import to_host
from .engine import layer_by_layer

__all__ = [
    "jacobian_columns",
    "leading_singular_values",
    "log_volume_element",
    "squared_singular_values",
]


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
        values, u, _, pullback = _pullback(function, points)
        columns = [
            torch.autograd.grad((pullback * v).sum(), u, retain_graph=True)[0] for v in directions
        ]
    return values.detach(), torch.stack(columns, dim=-1)


def _pullback(
    function: Callable[[Tensor], Tensor], points: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the values of a function, a variable u, the points, and J'u as a function of u."""
    points = points.detach().requires_grad_()
    with layer_by_layer():
        values = function(points)
    u = torch.zeros_like(values, requires_grad=True)
    (pullback,) = torch.autograd.grad((values * u).sum(), points, create_graph=True)
    return values, u, points, pullback


def leading_singular_values(
    function: Callable[[Tensor], Tensor], points: Tensor, factor: Tensor, k: int
) -> Tensor:
    """Return the k largest singular values (n, k) of J F at each point, in descending order.

    By one step of subspace iteration from the first k columns of F (Halko, Martinsson & Tropp, SIAM
    Review 53, 2011): 2k products with J in the place of as many as there are columns. The values
    are never too large, and exact where J maps the first k columns of F onto the span of the k
    leading left singular vectors of J F.

    Parameters
    ----------
    function : callable
        Maps rows (n, m) to rows (n, D), each row by itself.
    points : Tensor of shape (n, m)
        Where to differentiate.
    factor : Tensor of shape (m, D)
        The matrix F, its longest columns first.
    k : int
        Number of singular values, at most D.
    """
    with torch.enable_grad():
        values, u, points, pullback = _pullback(function, points)
        columns = [
            torch.autograd.grad((pullback * v).sum(), u, retain_graph=True)[0] for v in factor.T[:k]
        ]
        basis = torch.linalg.qr(torch.stack(columns, dim=-1).cpu()).Q.to(points)
        rows = [
            torch.autograd.grad((values * v).sum(), points, retain_graph=True)[0]
            for v in basis.unbind(dim=-1)
        ]
    return torch.linalg.svdvals((torch.stack(rows, dim=1) @ factor).cpu())


def squared_singular_values(columns: Tensor) -> Tensor:
    """Return the eigenvalues (n, min(D, k)) of F F', descending, of matrices F (n, D, k).

    Raises ValueError where a matrix is not finite.
    """
    columns = to_host(columns)
    is_broken = ~columns.isfinite().flatten(1).all(dim=1)
    if is_broken.any():
        raise ValueError(
            f"The Jacobian of the model overflows at {int(is_broken.sum())} rows: they are too far "
            "from the training rows."
        )
    return torch.linalg.svdvals(columns).square()


def log_volume_element(jacobian: Tensor) -> Tensor:
    """Return 1/2 logdet(J'J), shape (n,), of Jacobians (n, D, d).

    By the triangular factor of J itself, which keeps twice the digits of a factor of J'J. Rows of
    very different lengths, as of columns in different units, cost no digits either: those of a
    square J are factored out, others stand in descending order (Cox & Higham, 1998).
    """
    lengths = torch.linalg.vector_norm(jacobian, dim=2, keepdim=True)
    if jacobian.shape[1] == jacobian.shape[2]:
        scale = torch.where(lengths > 0, lengths, 1.0)
        r = torch.linalg.qr(jacobian / scale, mode="r").R
        log_scale = scale.log().sum((1, 2))
    else:
        order = lengths.argsort(dim=1, descending=True).expand_as(jacobian)
        r = torch.linalg.qr(jacobian.gather(1, order), mode="r").R
        log_scale = lengths.new_zeros(())
    return r.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1) + log_scale
