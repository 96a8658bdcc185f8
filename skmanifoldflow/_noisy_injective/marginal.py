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


def marginal(r: Tensor, variance: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
    """Return e and c of log N(y; b, C) = -(r' e + m' m + c) / 2 with C = A A' + Sigma.

    Eq. 41 of Cunningham et al., 2020, without its extra (d/2) log 2 pi: the constant of N(z; 0, I)
    cancels that of the integral over z. Its two large terms are taken together, since
    mu' Sigma^-1 mu - u' m = r' Sigma^-1 r + m' m with mu = y - b, the posterior mean m and
    r = mu - A m. Further e = Sigma^-1 r = C^-1 mu, so that m = A' e.

    Parameters
    ----------
    r : Tensor of shape (..., n, D)
        y - b - A m.
    variance : Tensor of shape (..., D)
        The diagonal of Sigma.
    log_det : Tensor of shape (...)
        logdet(I + A' Sigma^-1 A).
    """
    constant = variance.log().sum(-1) + (log_det + r.shape[-1] * LOG_2PI)
    return r / variance.unsqueeze(-2), constant


class _StackedMarginal:
    """log p(y) of rows (K, n, D) under K linear injections of one `structure`, without a graph."""

    def __init__(self, injections: Sequence[Any], y: Tensor) -> None:
        b, a, self.log_excess = (
            _stacked([getattr(injection, name) for injection in injections])
            for name in ("b", "a", "log_excess")
        )
        self.excess = self.log_excess.clamp(max=MAX_LOG).exp()
        self.variance = (self.excess + injections[0].noise_floor ** 2).expand_as(b)
        self.scaled = a / self.variance.unsqueeze(2)
        transposed = a.mT
        precision = torch.bmm(transposed, self.scaled)
        precision.diagonal(dim1=1, dim2=2).add_(1)
        factor, info = torch.linalg.cholesky_ex(precision)
        # NaN where Lam is not positive definite, which the training loop handles.
        factor.masked_fill_((info != 0)[:, None, None], math.nan)
        # C^-1 A = Sigma^-1 A Lam^-1, whose products with A are what C^-1 lacks of Sigma^-1.
        self.columns = torch.bmm(self.scaled, torch.cholesky_inverse(factor))
        mu = y - b.unsqueeze(1)
        self.m = torch.bmm(mu, self.columns)
        log_det = factor.diagonal(dim1=1, dim2=2).log().sum(1).mul_(2)
        self.r = torch.baddbmm(mu, self.m, transposed, alpha=-1)
        self.e, self.constant = marginal(self.r, self.variance, log_det)


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
    e, m, variance = terms.e, terms.m, terms.variance
    weights = 1 / y.shape[1] if weight is None else weight.unsqueeze(2)
    weighted = e * weights
    # Means of e^2, which are those of r e / variance too.
    squares = (weighted * e).sum(1)
    square = (squares * variance).sum(1) + (m * weights).mul_(m).sum((1, 2))
    value = (square + terms.constant).mul_(0.5)
    missing = (terms.columns * terms.scaled).sum(2)
    of_variance = 1 / variance - (missing + squares)
    of_excess = (of_variance * terms.excess).mul_(0.5).sum_to_size(terms.excess.shape)
    gradients = {
        "b": weighted.sum(1).neg_(),
        "a": torch.baddbmm(terms.columns, weighted.mT, m, alpha=-1),
        "log_excess": of_excess * (terms.log_excess <= MAX_LOG),
    }
    return value, weighted, gradients


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
