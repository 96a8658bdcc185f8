"""Distribution of latent rows that consist of a manifold part and penalised deviations."""

import math

import torch
from torch import Tensor, nn

from ..backend.bijections import Bijection
from ..backend.device import make_generator, move, randn, statistics_dtype
from ..backend.distribution import LatentDistribution
from .penalties import PENALTIES

__all__ = ["PenalizedSplit"]

# Draws from which the covariance of u is estimated if further stages leave it no closed form.
_N_COVARIANCE_DRAWS = 4096


class PenalizedSplit(LatentDistribution):
    """z = (u, v): a manifold part u of d entries and D - d deviations v from the manifold v = 0.

    log p(z) = log p(u) + sum_j log rho(v_j), where rho is the normalised density of a penalty and
    each deviation v_j has a scale of its own. p(u) is N(0, I), or the density of a further stage: a
    bijection, `refinement`, maps u to the latent rows of that stage, whose distribution, `inner`,
    is a `PenalizedSplit` with a manifold part of at most d entries.

    The coordinates of a row are the product of u and a fixed matrix, which gives them data units.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    n_components : int
        Number of manifold coordinates d <= D.
    penalty : {"huber", "laplace", "gaussian"}
        Penalty whose density is rho.

    Attributes
    ----------
    components : Tensor of shape (d, d)
        Matrix that turns u into coordinates.
    n_used : int or None
        Number of stages that densities and samples use by default, including this one; None for all
        stages.
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
        """Set the next stage: a bijection of u and the distribution of its values, or neither.

        Without a next stage, u ~ N(0, I).
        """
        self.refinement, self.inner = refinement, inner

    @property
    def stages(self) -> "list[PenalizedSplit]":
        """The distributions of all stages, from this one on."""
        return [self, *([] if self.inner is None else self.inner.stages)]

    def move_to(self, device: torch.device, dtype: torch.dtype) -> None:
        move(self, device, statistics_dtype(device))
        if self.refinement is not None and self.inner is not None:
            move(self.refinement, device, dtype)
            self.inner.move_to(device, dtype)

    def scales(self) -> Tensor:
        """Return the scale (D - d,) of each deviation, which is never below its floor."""
        return torch.hypot(self.log_scales.exp(), self.scale_floor)

    @torch.no_grad()
    def set_scales(self, scale: Tensor, floor: Tensor) -> None:
        """Set the scales of the deviations, () or (D - d,), and the floor (D - d,) of each."""
        self.scale_floor.copy_(floor)
        excess = scale**2 - self.scale_floor.square()
        # A scale at its floor keeps a finite logarithm, so that it can still grow.
        self.log_scales.copy_(0.5 * excess.maximum(1e-4 * self.scale_floor.square()).log())

    # ------------------------------------------------------------------ stages

    def _encode_stage(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Map manifold parts u (n, d) to latent rows (n, d) of the next stage.

        Return these and the log-determinant (n,) of the map.
        """
        assert self.refinement is not None
        like = next(self.refinement.parameters())
        return self.refinement.forward_and_log_det(u.to(like))

    def _decode_stage(self, z: Tensor) -> Tensor:
        """Map latent rows (n, d) of the next stage back to manifold parts u (n, d)."""
        assert self.refinement is not None
        like = next(self.refinement.parameters())
        return self.refinement.inverse_and_log_det(z.to(like))[0]

    def split_stage(self, z: Tensor, stage: int = 1) -> tuple[Tensor, Tensor]:
        """Return the manifold part and the deviations of latent rows (n, D) at a stage, from 1."""
        u, v = z[:, : self.n_components], z[:, self.n_components :]
        if stage == 1 or self.inner is None:
            return u, v
        return self.inner.split_stage(self._encode_stage(u)[0], stage - 1)

    def project_stage(self, z: Tensor, stage: int = 1) -> Tensor:
        """Return the manifold part of latent rows (n, D) at a stage, from 1."""
        return self.split_stage(z, stage)[0]

    def embed_stage(self, u: Tensor, stage: int = 1) -> Tensor:
        """Return the latent rows (n, D) with a given manifold part at a stage, from 1.

        Their deviations are zero at that stage and at all stages before it.
        """
        if stage > 1 and self.inner is not None:
            u = self._decode_stage(self.inner.embed_stage(u, stage - 1))
        return torch.cat([u, u.new_zeros(len(u), self.n_features - self.n_components)], dim=1)

    # ------------------------------------------------------------------ distribution

    def log_prob_u(self, u: Tensor, n_stages: int | None = None) -> Tensor:
        """Return the log-density (n,) of manifold parts (n, d); `n_stages` as in `log_prob`."""
        n_stages = n_stages or self.n_used
        if self.inner is not None and n_stages != 1:
            z, log_det = self._encode_stage(u)
            return self.inner.log_prob(z, n_stages and n_stages - 1) + log_det
        u = u.to(self.mean)
        return -0.5 * (u.square().sum(1) + self.n_components * math.log(2 * math.pi))

    def log_prob(self, z: Tensor, n_stages: int | None = None) -> Tensor:
        """Return the log-density (n,) of latent rows (n, D) with the first `n_stages` stages.

        None uses `n_used` stages.
        """
        d = self.n_components
        deviation = z[:, d:].to(self.mean)
        penalties = self.penalty.log_prob(deviation, self.scales())
        return self.log_prob_u(z[:, :d], n_stages) + penalties.sum(1)

    def project(self, z: Tensor) -> Tensor:
        return z[:, : self.n_components].to(self.mean) @ self.components

    def embed(self, u: Tensor) -> Tensor:
        return self.embed_stage(self.from_coordinates(u))

    def from_coordinates(self, coordinates: Tensor) -> Tensor:
        """Return the manifold part u (n, d) with given coordinates (n, d) of this stage."""
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
        """Draw manifold parts (n, d); `n_stages` as in `log_prob`."""
        n_stages = n_stages or self.n_used
        if self.inner is None or n_stages == 1:
            normal = randn((n_samples, self.n_components), self.mean, generator)
            return math.sqrt(temperature) * normal
        # The deviations of a further stage lie within the manifold of this one.
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
