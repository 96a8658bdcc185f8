"""Points of a model's manifold near rows that their own coordinates rebuild poorly."""

import torch
from torch import Tensor

from .backend.device import make_generator, to_host
from .backend.flow import ManifoldFlow, chunks

__all__ = ["nearer_coordinates"]

# Typical distances of a row from its point from which on it is rebuilt poorly, and from which on it
# is if the mean of the training rows is nearer.
_FAR, _FAR_BESIDE_MEAN = 5.0, 2.0
# Points of the manifold, drawn from the model, among which a search begins; how many of the nearest
# ones are tried, and the steps of each.
_N_DRAWS, _N_STARTS, _N_STEPS = 2048, 4, 12
# Damping of the first step, its factors after steps that were of use and that were not, and the
# largest one.
_DAMPING, _LESS, _MORE, _MOST = 1e-2, 0.2, 5.0, 1e4
# Relative gain of a step that is the last one.
_LAST_GAIN = 1e-5


@torch.no_grad()
def nearer_coordinates(
    flow: ManifoldFlow, x: Tensor, u: Tensor, typical: float, mean: Tensor
) -> Tensor:
    """Return coordinates (n, d) of rows, other ones than u where u rebuilds a row poorly.

    That is so where the point of u is farther from the row than five typical distances, or than two
    and than the mean of the training rows, as where a flow has torn neighbouring rows apart. The
    distance of such rows is minimised by the method of Levenberg (1944) and Marquardt (1963), from
    u and from the nearest of some draws of the model. The draws are the same each time: which other
    rows there are makes no difference.

    Parameters
    ----------
    flow : ManifoldFlow
        Fitted flow.
    x : Tensor of shape (n, D)
        Standardised rows.
    u : Tensor of shape (n, d)
        Coordinates that the flow gives them.
    typical : float
        Median distance of training rows from their points, in standardised units.
    mean : Tensor of shape (D,)
        Mean of the standardised training rows.
    """
    distance = (flow.embed(u) - x).norm(dim=1)
    # Where a row is so far away that the flow overflows, it is no number.
    from_mean = (x - mean.to(x)).norm(dim=1)
    is_far = ~(distance <= from_mean.clamp(_FAR_BESIDE_MEAN * typical, _FAR * typical))
    if not is_far.any():
        return u
    draws = flow.project(flow.sample(_N_DRAWS, make_generator(0), manifold_deviation=0.0))
    points = flow.embed(draws)
    x, found, u = x[is_far], u[is_far], u.clone()
    n_entries = max(_N_DRAWS, (1 + _N_STARTS) * x.shape[1] * u.shape[1])
    for rows in chunks(len(x), n_entries):
        found[rows] = _nearest(flow, x[rows], found[rows], draws, points).to(u)
    u[is_far] = found
    return u


def _nearest(flow: ManifoldFlow, x: Tensor, u: Tensor, draws: Tensor, points: Tensor) -> Tensor:
    """Return the best coordinates (n, d) that searches from u and from draws find."""
    starts = draws[torch.cdist(x, points).topk(_N_STARTS, largest=False).indices]
    starts = torch.cat([u[:, None].to(starts), starts], dim=1)
    x = x.repeat_interleave(starts.shape[1], dim=0)
    found, squares = _minimized(flow, x, starts.flatten(0, 1))
    index = squares.view(len(u), -1).argmin(dim=1)
    return found.view(starts.shape)[torch.arange(len(u)), index]


def _minimized(flow: ManifoldFlow, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return coordinates (n, d) after steps towards rows, and the squared distances (n,) left."""

    def squared_distance(u: Tensor, x: Tensor) -> Tensor:
        return (flow.embed(u) - x).square().sum(1).nan_to_num(torch.inf)

    u, squares = u.clone(), squared_distance(u, x)
    damping = torch.full((len(u), 1), _DAMPING, dtype=torch.float64)
    moving = torch.arange(len(u))
    for _ in range(_N_STEPS):
        start, before = u[moving], squares[moving]
        points, jacobian = flow.embedding_jacobian(start)
        jacobian = to_host(jacobian).double().nan_to_num(0.0)
        residual = to_host(points - x[moving]).double().nan_to_num(0.0)
        normal = jacobian.mT @ jacobian
        diagonal = damping[moving] * normal.diagonal(dim1=1, dim2=2)
        # A direction that moves no point is not followed.
        damped = normal + torch.diag_embed(diagonal + 1e-12)
        step = torch.linalg.solve(damped, jacobian.mT @ residual[:, :, None])
        tried = start - step.squeeze(2).to(start)
        after = squared_distance(tried, x[moving])
        is_better = after < before
        u[moving] = torch.where(is_better[:, None], tried, start)
        squares[moving] = after.minimum(before)
        damping[moving] *= torch.where(is_better.cpu(), _LESS, _MORE)[:, None]
        is_last = is_better & (after > (1 - _LAST_GAIN) * before)
        moving = moving[~is_last.cpu() & (damping[moving, 0] < _MOST)]
        if not len(moving):
            break
    return u, squares
