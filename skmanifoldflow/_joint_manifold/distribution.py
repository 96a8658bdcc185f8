"""Latent rows split into a manifold part and penalised deviations from it."""

import math

import torch
from torch import Tensor, nn

from ..backend.bijections import Bijection
from ..backend.device import make_generator, move, randn, statistics_dtype
from ..backend.distribution import LatentDistribution
from .penalties import PENALTIES

__all__ = ["PenalizedSplit"]

# Draws that give the covariance of u where it has no closed form.
_N_COVARIANCE_DRAWS = 4096


class PenalizedSplit(LatentDistribution):
    """z = (u, v): d manifold coordinates u and D - d deviations v from the manifold v = 0.

    log p(z) = log p(u) + sum_j log rho(v_j), where rho is a normalised penalty with a scale for
    each j. p(u) is N(0, I), or the distribution of a further stage: a bijection of u with a
    `PenalizedSplit` of its own, which may split u again.

    The coordinates of a row are u times a fixed matrix that expresses them in data units.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    n_components : int
        Number of manifold coordinates d <= D.
    penalty : {"huber", "laplace", "gaussian"}
        rho.

    Attributes
    ----------
    components : Tensor of shape (d, d)
        The matrix that turns u into coordinates.
    n_used : int or None
        Stages that the distribution consists of, this one counted; None for all there are.
    """

    components: Tensor
    scale_floor: Tensor

    def __init__(self, n_features: int, n_components: int, *, penalty: str) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_components = n_components
        self.penalty = PENALTIES[penalty]
        n_deviations = n_features - n_components
        f64 = torch.float64
        self.register_buffer("mean", torch.zeros(n_features, dtype=f64))
        self.register_buffer("components", torch.eye(n_components, dtype=f64))
        self.register_buffer("scale_floor", torch.zeros(n_deviations, dtype=f64))
        self.log_scales = nn.Parameter(torch.zeros(n_deviations, dtype=f64))
        self.refinement: Bijection | None = None
        self.inner: PenalizedSplit | None = None
        self.n_used: int | None = None

    def set_stage(self, refinement: Bijection | None, inner: "PenalizedSplit | None") -> None:
        """Replace N(0, I) by a bijection of u and the distribution of its values."""
        self.refinement, self.inner = refinement, inner

    @property
    def stages(self) -> "list[PenalizedSplit]":
        """This distribution and those of the further stages."""
        return [self, *([] if self.inner is None else self.inner.stages)]

    def move_to(self, device: torch.device, dtype: torch.dtype) -> None:
        move(self, device, statistics_dtype(device))
        if self.refinement is not None and self.inner is not None:
            move(self.refinement, device, dtype)
            self.inner.move_to(device, dtype)

    def scales(self) -> Tensor:
        """Return the scale (D - d,) of each deviation, never below its floor."""
        return torch.hypot(self.log_scales.exp(), self.scale_floor)

    @torch.no_grad()
    def set_scales(self, scale: Tensor, floor: Tensor) -> None:
        """Set the scales of the deviations, one or (D - d,), and the floor (D - d,) of each."""
        self.scale_floor.copy_(floor)
        excess = scale**2 - self.scale_floor.square()
        # A scale at its floor can still grow.
        self.log_scales.copy_(0.5 * excess.maximum(1e-4 * self.scale_floor.square()).log())

    # ------------------------------------------------------------------ raw manifold parts

    def _encode_stage(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return u (n, d) mapped by the further stage and the log-determinant."""
        assert self.refinement is not None
        like = next(self.refinement.parameters())
        return self.refinement.forward_and_log_det(u.to(like))

    def _decode_stage(self, z: Tensor) -> Tensor:
        """Return the manifold part u (n, d) of what the further stage has made of it."""
        assert self.refinement is not None
        like = next(self.refinement.parameters())
        return self.refinement.inverse_and_log_det(z.to(like))[0]

    def project_stage(self, z: Tensor, stage: int = 1) -> Tensor:
        """Return the manifold part (n, d_stage) of latent rows at a stage, from 1."""
        u = z[:, : self.n_components]
        if stage == 1 or self.inner is None:
            return u
        return self.inner.project_stage(self._encode_stage(u)[0], stage - 1)

    def deviations(self, z: Tensor, stage: int = 1) -> Tensor:
        """Return what latent rows lose in a stage, from 1."""
        if stage == 1 or self.inner is None:
            return z[:, self.n_components :]
        return self.inner.deviations(self._encode_stage(z[:, : self.n_components])[0], stage - 1)

    def embed_stage(self, u: Tensor, stage: int = 1) -> Tensor:
        """Return the latent rows (n, D) without deviations that have a manifold part."""
        if stage > 1 and self.inner is not None:
            u = self._decode_stage(self.inner.embed_stage(u, stage - 1))
        return torch.cat([u, u.new_zeros(len(u), self.n_features - self.n_components)], dim=1)

    # ------------------------------------------------------------------ distribution

    def log_prob_u(self, u: Tensor, n_stages: int | None = None) -> Tensor:
        """Return the log-density (n,) of manifold parts, by as many stages as `log_prob`."""
        n_stages = n_stages or self.n_used
        if self.inner is not None and n_stages != 1:
            z, log_det = self._encode_stage(u)
            return self.inner.log_prob(z, n_stages and n_stages - 1) + log_det
        u = u.to(self.mean)
        return -0.5 * (u.square().sum(1) + self.n_components * math.log(2 * math.pi))

    def log_prob(self, z: Tensor, n_stages: int | None = None) -> Tensor:
        """Return the log-density (n,) of latent rows, by `n_stages` stages or by those in use."""
        d = self.n_components
        deviation = z[:, d:].to(self.mean)
        penalties = self.penalty.log_prob(deviation, self.scales())
        return self.log_prob_u(z[:, :d], n_stages) + penalties.sum(1)

    def project(self, z: Tensor) -> Tensor:
        return z[:, : self.n_components].to(self.mean) @ self.components

    def embed(self, u: Tensor) -> Tensor:
        return self.embed_stage(self.from_coordinates(u))

    def from_coordinates(self, coordinates: Tensor) -> Tensor:
        """Return the manifold part u (n, d) that has given coordinates."""
        return torch.linalg.solve(self.components.T, coordinates.to(self.mean).T).T

    def log_prob_manifold(self, u: Tensor) -> Tensor:
        log_det = torch.linalg.slogdet(self.components).logabsdet
        return self.log_prob_u(self.from_coordinates(u)) - log_det

    def covariance_factor(self) -> Tensor:
        d = self.n_components
        factor = torch.eye(self.n_features, dtype=self.mean.dtype, device=self.mean.device)
        if self.inner is not None and self.n_used != 1:
            u = self.sample_u(max(_N_COVARIANCE_DRAWS, 4 * d), make_generator(0), 1.0)
            u = u - u.mean(0)
            eigenvalues, eigenvectors = torch.linalg.eigh(u.T @ u / len(u))
            factor[:d, :d] = eigenvectors.flip(1) * eigenvalues.flip(0).clamp_min(0).sqrt()
        factor.diagonal()[d:] = self.scales() * math.sqrt(self.penalty.variance)
        return factor

    def sample_u(
        self,
        n_samples: int,
        generator: torch.Generator,
        temperature: float,
        n_stages: int | None = None,
    ) -> Tensor:
        """Draw manifold parts (n, d), by as many stages as `log_prob`."""
        n_stages = n_stages or self.n_used
        if self.inner is None or n_stages == 1:
            normal = randn((n_samples, self.n_components), self.mean, generator)
            return math.sqrt(temperature) * normal
        # What a further stage splits off is a part of the manifold of this one.
        z = self.inner.sample(
            n_samples,
            generator,
            temperature=temperature,
            manifold_deviation=temperature,
            n_stages=n_stages and n_stages - 1,
        )
        return self._decode_stage(z).to(self.mean)

    def sample(
        self,
        n_samples: int,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
        manifold_deviation: float = 1.0,
        n_stages: int | None = None,
    ) -> Tensor:
        u = self.sample_u(n_samples, generator, temperature, n_stages)
        shape = (n_samples, self.n_features - self.n_components)
        v = self.scales() * self.penalty.sample(shape, self.mean, generator)
        return torch.cat([u, math.sqrt(manifold_deviation) * v], dim=1)
