"""Penalties of deviations: negative logarithms of symmetric densities."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["PENALTIES", "GaussianPenalty", "HuberPenalty", "LaplacePenalty", "Penalty"]


class Penalty(ABC):
    """Distribution with density exp(-rho(t)) / Z of a deviation t in units of its scale.

    The normaliser Z makes a penalised log-likelihood the logarithm of a density.
    """

    #: log Z.
    log_normalizer: float
    #: Variance of t.
    variance: float

    @abstractmethod
    def cost(self, t: Tensor) -> Tensor:
        """Return rho(t)."""

    @abstractmethod
    def pull(self, t: Tensor) -> Tensor:
        """Return t rho'(t), whose mean is 1 if the scale is its maximum likelihood estimate."""

    @abstractmethod
    def quantile(self, share: Tensor) -> Tensor:
        """Return the quantile function (inverse cdf) at shares between 0 and 1."""

    def log_prob(self, deviation: Tensor, scale: Tensor) -> Tensor:
        """Return the log-density of each deviation."""
        return -self.cost(deviation / scale) - self.log_normalizer - torch.log(scale)

    @torch.no_grad()
    def fit_scale(
        self,
        deviation: Tensor,
        floor: float,
        start: Tensor | None = None,
        n_steps: int = 30,
        weight: Tensor | float = 1.0,
    ) -> Tensor:
        """Return the maximum likelihood scale of all deviations, at least `floor`.

        The fixed-point iteration starts at `start`, by default the root mean square of the
        deviations. Each step at least halves the error of the logarithm of the scale. The weights
        broadcast against the deviations and have mean 1.
        """
        scale = (weight * deviation.square()).mean().sqrt() if start is None else start
        scale = scale.clamp_min(floor)
        for _ in range(n_steps):
            scale = (scale * (weight * self.pull(deviation / scale)).mean().sqrt()).clamp_min(floor)
        return scale

    def sample(self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw deviations of scale 1 with the dtype and device of `like`."""
        share = torch.rand(shape, dtype=torch.float64, generator=generator)
        eps = torch.finfo(torch.float64).eps
        return self.quantile(share.clamp(eps, 1 - eps)).to(like)


class GaussianPenalty(Penalty):
    """rho(t) = t^2 / 2: a normal distribution."""

    log_normalizer = 0.5 * math.log(2 * math.pi)
    variance = 1.0

    def cost(self, t: Tensor) -> Tensor:
        return 0.5 * t.square()

    def pull(self, t: Tensor) -> Tensor:
        return t.square()

    def quantile(self, share: Tensor) -> Tensor:
        return torch.special.ndtri(share)


class LaplacePenalty(Penalty):
    """rho(t) = |t|: a Laplace distribution, Z = 2."""

    log_normalizer = math.log(2)
    variance = 2.0

    def cost(self, t: Tensor) -> Tensor:
        return t.abs()

    def pull(self, t: Tensor) -> Tensor:
        return t.abs()

    def quantile(self, share: Tensor) -> Tensor:
        centred = share - 0.5
        return -torch.sign(centred) * torch.log1p(-2 * centred.abs())


class HuberPenalty(Penalty):
    """rho(t) = t^2 / 2 up to |t| = c and c |t| - c^2 / 2 beyond (Huber, 1964).

    This is a normal distribution with exponential tails, with
    Z = sqrt(2 pi) erf(c / sqrt 2) + (2 / c) exp(-c^2 / 2).
    """

    #: With this threshold the Huber estimate of the mean of normal data has 95 % of the efficiency
    #: of the average.
    c = 1.345

    _core = math.sqrt(2 * math.pi) * math.erf(c / math.sqrt(2))
    _tails = 2 / c * math.exp(-(c**2) / 2)
    log_normalizer = math.log(_core + _tails)
    variance = (_core - 2 * c * math.exp(-(c**2) / 2) + _tails * (c**2 + 2 + 2 / c**2)) / (
        _core + _tails
    )

    def cost(self, t: Tensor) -> Tensor:
        size = t.abs()
        inner = size.clamp(max=self.c)
        return inner * (size - 0.5 * inner)

    def pull(self, t: Tensor) -> Tensor:
        size = t.abs()
        return size * size.clamp(max=self.c)

    def quantile(self, share: Tensor) -> Tensor:
        # Probability mass between the centre and the quantile, times Z.
        mass = (share - 0.5).abs() * (self._core + self._tails)
        half = mass.new_tensor(0.5 * self._core)
        inner = math.sqrt(2) * torch.erfinv((2 * mass.minimum(half)) / math.sqrt(2 * math.pi))
        beyond = 1 - 2 * (mass - half).clamp_min(0) / self._tails
        outer = self.c - torch.log(beyond.clamp_min(torch.finfo(mass.dtype).tiny)) / self.c
        return torch.sign(share - 0.5) * torch.where(mass < half, inner, outer)


PENALTIES: dict[str, Penalty] = {
    "huber": HuberPenalty(),
    "laplace": LaplacePenalty(),
    "gaussian": GaussianPenalty(),
}
