"""log p(y) of linear injections in closed form, and its gradient, for K of them at once."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["LOG_2PI", "MAX_LOG", "marginal", "negative_log_prob", "stacked_log_prob"]

LOG_2PI = math.log(2 * math.pi)
#: Logarithm of the largest scale, so that no step can overflow.
MAX_LOG = 20.0


def marginal(
    mu: Tensor, on_manifold: Tensor, variance: Tensor, log_det: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return r, e and c of log N(y; b, C) = -(r' e + m' m + c) / 2 with C = A A' + Sigma.

    Eq. 41 of Cunningham et al., 2020, without its extra (d/2) log 2 pi: the constant of N(z; 0, I)
    cancels that of the integral over z. Its two large terms are taken together, since
    mu' Sigma^-1 mu - u' m = r' Sigma^-1 r + m' m with mu = y - b, the posterior mean m and
    r = mu - A m. Further e = Sigma^-1 r = C^-1 mu, so that m = A' e.

    Parameters
    ----------
    mu, on_manifold : Tensor of shape (..., n, D)
        y - b and A m.
    variance : Tensor of shape (..., D)
        The diagonal of Sigma.
    log_det : Tensor of shape (...)
        logdet(I + A' Sigma^-1 A).
    """
    r = mu - on_manifold
    constant = variance.log().sum(-1) + log_det + mu.shape[-1] * LOG_2PI
    return r, r / variance[..., None, :], constant


class _StackedMarginal:
    """log p(y) of rows (K, n, D) under K linear injections of one `structure`, without a graph."""

    def __init__(self, injections: Sequence[Any], y: Tensor) -> None:
        self.b, self.a, self.log_excess = (
            _stacked([getattr(injection, name) for injection in injections]).detach()
            for name in ("b", "a", "log_excess")
        )
        a = self.a
        self.excess = self.log_excess.clamp(max=MAX_LOG).exp()
        self.variance = (self.excess + injections[0].noise_floor ** 2).expand_as(self.b)
        self.scaled = a / self.variance[:, :, None]
        identity = torch.eye(a.shape[2], dtype=a.dtype, device=a.device)
        factor, info = torch.linalg.cholesky_ex(torch.baddbmm(identity, a.mT, self.scaled))
        # C^-1 A = Sigma^-1 A Lam^-1, whose products with A are what C^-1 lacks of Sigma^-1.
        self.columns = self.scaled @ torch.cholesky_inverse(factor)
        mu = y - self.b[:, None]
        self.m = mu @ self.columns
        log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        # NaN where Lam is not positive definite, which the training loop handles.
        log_det = log_det.where(info == 0, torch.nan)
        self.r, self.e, self.constant = marginal(mu, self.m @ a.mT, self.variance, log_det)


@torch.no_grad()
def stacked_log_prob(injections: Sequence[Any], y: Tensor) -> Tensor:
    """Return log p(y) (K, n) of rows (K, n, D) under K injections of one `structure`."""
    terms = _StackedMarginal(injections, y)
    square = (terms.r * terms.e).sum(2) + terms.m.square().sum(2)
    return -0.5 * (square + terms.constant[:, None])


@torch.no_grad()
def negative_log_prob(
    injections: Sequence[Any], y: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return means of -log p(y) over rows, with their gradients, for K injections.

    Parameters
    ----------
    injections : sequence of LinearInjection
        The injections, of one `structure`.
    y : Tensor of shape (K, n, D)
        Rows of each.
    weight : Tensor of shape (K, n) or None, default=None
        Weights of rows, which add up to one for each injection; None for equal ones.

    Returns
    -------
    value, grad_y : Tensor of shape (K,) and (K, n, D)
        The means and their gradients with respect to y.
    gradients : dict of str to Tensor
        Those with respect to b, A and log_excess, (K, ...).
    """
    terms = _StackedMarginal(injections, y)
    r, e, m, excess = terms.r, terms.e, terms.m, terms.excess
    weights = 1 / y.shape[1] if weight is None else weight[:, :, None]
    weighted, weighted_m = e * weights, m * weights
    square = (weighted * r).sum((1, 2)) + (weighted_m * m).sum((1, 2))
    value = 0.5 * (square + terms.constant)
    missing = (terms.columns * terms.scaled).sum(2)
    of_variance = 1 / terms.variance - missing - (weighted * e).sum(1)
    of_excess = (0.5 * excess * of_variance).sum_to_size(excess.shape)
    gradients = {
        "b": weighted.sum(1).neg_(),
        "a": torch.baddbmm(terms.columns, weighted.mT, m, alpha=-1),
        "log_excess": of_excess * (terms.log_excess <= MAX_LOG),
    }
    return value, weighted, gradients


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
