"""Layers in coordinates in which the narrow directions of the rows are stretched."""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor

from .base import Bijection
from .chain import Chain
from .linear import LinearMap

__all__ = ["StretchedChain"]

# Variance to which narrower principal directions are stretched, and the least one that counts.
_LEAST_VARIANCE = 0.1
_SMALLEST_VARIANCE = 1e-6


class StretchedChain(Chain):
    """Layers between a linear map W and its inverse, x -> layers(x W) W^-1.

    With principal directions Q and variances v of the rows, W is Q diag(g) Q' with g = max(1,
    sqrt(.1 / v)): directions narrower than the others are widened to a variance of .1, all else
    stays. In a direction a hundredth wide every layer would have to learn a sharp ridge. W is
    symmetric, and the layers start as the identity as they do without it.

    Variances of n rows of D columns are too small in the small directions; v / (1 - D / n) takes
    their place, whose inverse is nearly unbiased, and where there are not more rows than columns
    nothing is stretched. Directions that a latent distribution of d < D coordinates takes for noise
    of one variance get the mean of theirs, and all get the noise that is added to the rows.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    layers : iterable of Bijection
        The layers, data -> latent.
    n_components : int, optional
        Number d of the widest directions that have variances of their own, by default all.
    noise : float, default=0.0
        Standard deviation of the noise that is added to the rows before the layers.
    """

    def __init__(
        self,
        n_features: int,
        layers: Iterable[Bijection],
        *,
        n_components: int | None = None,
        noise: float = 0.0,
    ) -> None:
        super().__init__([LinearMap(n_features), *layers, LinearMap(n_features)])
        self.n_noisy = n_features - (n_components or n_features)
        self.noise = noise

    def _maps(self) -> tuple[LinearMap, LinearMap]:
        return cast(LinearMap, self.bijections[0]), cast(LinearMap, self.bijections[-1])

    def _apply(self, fn: Callable, recurse: bool = True) -> "StretchedChain":
        super()._apply(fn, recurse)
        first, last = self._maps()
        last.set(first.inverse_matrix)
        return self

    @torch.no_grad()
    def stretch(self, x: Tensor) -> None:
        """Find the narrow directions of rows (n, D)."""
        n_rows, n_features = x.shape
        if n_rows <= n_features:
            return
        rows = x.double() - x.double().mean(0)
        # In ascending order.
        variances, axes = torch.linalg.eigh(rows.T @ rows / n_rows)
        variances[: self.n_noisy] = variances[: self.n_noisy].mean()
        variances = variances / (1 - n_features / n_rows) + self.noise**2
        gains = (_LEAST_VARIANCE / variances.clamp_min(_SMALLEST_VARIANCE)).sqrt().clamp_min(1.0)
        first, last = self._maps()
        first.set(axes * gains @ axes.T)
        last.set(first.inverse_matrix)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        self.stretch(x)
        return super().initialize(x)
