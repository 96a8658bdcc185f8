"""Models of standardised rows: their interface, and a bijection with a latent distribution."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .bijections import Bijection
from .device import move, statistics_dtype
from .distribution import LatentDistribution
from .geometry import jacobian_columns

__all__ = ["FlowModel", "ManifoldFlow", "Outliers", "chunks"]

# Rows times columns of one inference call: intermediate tensors stay within tens of megabytes.
_CHUNK_ELEMENTS = 2**20


def chunks(n_rows: int, elements_per_row: int) -> Iterator[slice]:
    """Cut n rows into slices whose intermediate tensors have bounded size."""
    size = max(1, min(16384, _CHUNK_ELEMENTS // max(1, elements_per_row)))
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


class FlowModel(nn.Module, ABC):
    """Density and coordinates of standardised rows, as an estimator needs them.

    Attributes
    ----------
    n_components : int
        Number of manifold coordinates d.
    """

    n_components: int

    @abstractmethod
    def move_to(self, device: torch.device, dtype: torch.dtype) -> "FlowModel":
        """Move to a device and a dtype."""

    @property
    @abstractmethod
    def tensor_options(self) -> dict[str, Any]:
        """Device and dtype of the rows that are taken."""

    @abstractmethod
    def log_prob(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Return the log-density (n,) of rows; keywords go to the latent distribution."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Return the manifold coordinates (n, d)."""

    @abstractmethod
    def embed(self, u: Tensor) -> Tensor:
        """Return the standardised rows (n, D) on the manifold."""

    @abstractmethod
    def sample(self, n_samples: int, generator: torch.Generator, **options: float) -> Tensor:
        """Draw standardised rows (n, D); options are those of `LatentDistribution.sample`."""


class Outliers(nn.Module):
    """Share c of standardised rows that follow N(0, s^2 I), s >= 1, and not the flow (Huber, 1964).

    Where this distribution is the denser one a row hardly counts for the fit of the flow. Share and
    scale follow the rows of the fit by online expectation maximisation (Cappe & Moulines, 2009).
    """

    #: Weight of a batch against all before it.
    rate = 0.02

    share: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.tensor(0.01, dtype=torch.float64))
        # c s^2: twice the standard deviation of all rows at the start.
        self.register_buffer("spread", torch.tensor(0.04, dtype=torch.float64))

    def scale(self) -> Tensor:
        """Return s."""
        return (self.spread / self.share).clamp_min(1.0).sqrt()

    def mix(self, x: Tensor, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-density (n,) of rows, and their probability (n,) to be no outliers.

        `log_prob` is the log-density of the others.
        """
        t = x.to(self.share) / self.scale()
        log_normalizer = x.shape[1] * torch.log(math.sqrt(2 * math.pi) * self.scale())
        outer = self.share.log() - 0.5 * t.square().sum(1) - log_normalizer
        inner = torch.log1p(-self.share) + log_prob.to(self.share)
        total = torch.logaddexp(inner, outer)
        return total, (inner - total).exp()

    @torch.no_grad()
    def update(self, x: Tensor, inlying: Tensor) -> None:
        """Take a step towards the outliers of a batch, given probabilities (n,) to be none."""
        outlying = (1 - inlying).to(self.share)
        squares = x.to(self.share).square().mean(1)
        self.share.lerp_(outlying.mean(), self.rate).clamp_(1e-6, 0.5)
        self.spread.lerp_((outlying * squares).mean(), self.rate)


class ManifoldFlow(FlowModel):
    """Density of z = g(x) under a latent distribution, pulled back to standardised rows x.

    Parameters
    ----------
    bijection : Bijection
        The map g of R^D, data -> latent.
    latent : LatentDistribution
        The distribution of z.
    outliers : Outliers, optional
        Distribution of a share of the rows, which are part of the density but not of draws: in
        models that were stored before `Background`.
    """

    def __init__(
        self, bijection: Bijection, latent: LatentDistribution, outliers: Outliers | None = None
    ) -> None:
        super().__init__()
        self.bijection = bijection
        self.latent = latent
        self.outliers = outliers

    @property
    def n_components(self) -> int:
        """Number of manifold coordinates d."""
        return self.latent.n_components

    @n_components.setter
    def n_components(self, n_components: int) -> None:
        self.latent.n_components = n_components

    def move_to(self, device: torch.device, dtype: torch.dtype) -> "ManifoldFlow":
        """Move to a device; the latent distribution computes in float64 if it can."""
        move(self.bijection, device, dtype)
        self.latent.move_to(device, dtype)
        if self.outliers is not None:
            move(self.outliers, device, statistics_dtype(device))
        return self

    @property
    def tensor_options(self) -> dict[str, Any]:
        # A bijection may have weights, constants alone, or neither.
        tensors = chain(self.bijection.parameters(), self.bijection.buffers())
        like = next((t for t in tensors if t.is_floating_point()), self.latent.mean)
        return {"device": like.device, "dtype": like.dtype}

    def log_prob(self, x: Tensor, **kwargs: Any) -> Tensor:
        z, log_det = self.bijection.forward_and_log_det(x)
        log_prob = self.latent.log_prob(z, **kwargs) + log_det
        return log_prob if self.outliers is None else self.outliers.mix(x, log_prob)[0]

    def project(self, x: Tensor) -> Tensor:
        return self.latent.project(self.bijection.forward_and_log_det(x)[0])

    def decode(self, z: Tensor) -> Tensor:
        """Return the standardised rows (n, D) of latent rows."""
        return self.bijection.inverse_and_log_det(z.to(**self.tensor_options))[0]

    def embed(self, u: Tensor) -> Tensor:
        return self.decode(self.latent.embed(u.to(self.latent.mean)))

    def sample(self, n_samples: int, generator: torch.Generator, **options: float) -> Tensor:
        return self.decode(self.latent.sample(n_samples, generator, **options))

    def embedding_jacobian(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embedded rows (n, D) and their Jacobian (n, D, d) in u."""
        u = u.to(**self.tensor_options)
        directions = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
        return jacobian_columns(self.embed, u, directions)
