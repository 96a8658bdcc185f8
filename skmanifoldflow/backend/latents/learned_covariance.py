"""Normal law with a learned, nearly degenerate covariance."""

import math

import torch
from torch import Tensor

from ..device import randn
from .base import LatentLaw

__all__ = ["LearnedCovariance", "principal_covariance"]


def principal_covariance(eigenvalues: Tensor, n_components: int | None) -> Tensor:
    """Return descending eigenvalues with all but the first `n_components` set to their mean.

    That is the maximum-likelihood covariance of probabilistic PCA (Tipping & Bishop, 1999).
    """
    if n_components is None or n_components >= len(eigenvalues):
        return eigenvalues
    return torch.cat(
        [
            eigenvalues[:n_components],
            eigenvalues[n_components:].mean().expand(len(eigenvalues) - n_components),
        ]
    )


class LearnedCovariance(LatentLaw):
    """N(m, C) on R^D, seen along the eigenvectors of C.

    The manifold part u of a row z is its projection on the first d eigenvectors, each multiplied by
    a fixed factor, `component_scale`, that expresses it in data units.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    n_free : int or None, default=None
        Number of free eigenvalues of C, the rest sharing their mean as in probabilistic PCA; None
        for all.

    Attributes
    ----------
    n_components : int
        Number of coordinates d of the manifold part.
    spectrum : Tensor of shape (D,)
        Eigenvalues of C before the rest is averaged, in descending order until components are set.
    """

    spectrum: Tensor
    eigenvectors: Tensor
    component_scale: Tensor

    def __init__(self, n_features: int, n_free: int | None = None) -> None:
        super().__init__()
        self.n_free = n_free
        self.n_components = n_free or n_features
        self.register_buffer("mean", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("spectrum", torch.ones(n_features, dtype=torch.float64))
        self.register_buffer("eigenvectors", torch.eye(n_features, dtype=torch.float64))
        self.register_buffer("component_scale", torch.ones(n_features, dtype=torch.float64))

    def set_moments(self, mean: Tensor, covariance: Tensor) -> None:
        """Take m and C; the largest entry of each eigenvector is made positive."""
        spectrum, eigenvectors = torch.linalg.eigh(covariance)
        eigenvectors = eigenvectors.flip(1)
        largest = eigenvectors.gather(0, eigenvectors.abs().argmax(0, keepdim=True))
        self.mean = mean.detach().to(self.mean)
        self.spectrum = spectrum.flip(0).clamp_min(torch.finfo(self.mean.dtype).tiny)
        self.eigenvectors = eigenvectors * torch.sign(largest)

    def set_components(self, n_components: int, component_scale: Tensor) -> None:
        """Choose d and the factors (D,) that turn coordinates into data units.

        Within the manifold part, and within the rest, coordinates are put in descending order of
        their variance in data units.
        """
        self.n_components = d = n_components
        component_scale = component_scale.to(self.spectrum)
        variance = self.spectrum * component_scale.square()
        order = torch.cat(
            [
                torch.argsort(variance[:d], descending=True, stable=True),
                torch.argsort(variance[d:], descending=True, stable=True) + d,
            ]
        )
        self._reorder(order, component_scale)

    def order_by_variance(self, component_scale: Tensor) -> None:
        """Put all eigenvectors in descending order of their variance in data units."""
        component_scale = component_scale.to(self.spectrum)
        variance = self.spectrum * component_scale.square()
        self._reorder(torch.argsort(variance, descending=True, stable=True), component_scale)

    def _reorder(self, order: Tensor, component_scale: Tensor) -> None:
        self.spectrum = self.spectrum[order]
        self.eigenvectors = self.eigenvectors[:, order]
        self.component_scale = component_scale[order]

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues (D,) of C, in the order of the eigenvectors."""
        return principal_covariance(self.spectrum, self.n_free)

    @property
    def basis(self) -> Tensor:
        """The displacement (d, D) of a latent row for one unit of each component."""
        d = self.n_components
        return (self.eigenvectors[:, :d] / self.component_scale[:d]).T

    def log_prob(self, z: Tensor) -> Tensor:
        eigenvalues = self.eigenvalues
        whitened = (z.to(self.mean) - self.mean) @ self.eigenvectors * eigenvalues.rsqrt()
        return -0.5 * (
            whitened.square().sum(1)
            + eigenvalues.log().sum()
            + len(self.mean) * math.log(2 * math.pi)
        )

    def project(self, z: Tensor) -> Tensor:
        d = self.n_components
        centred = z.to(self.mean) - self.mean
        return centred @ self.eigenvectors[:, :d] * self.component_scale[:d]

    def embed(self, u: Tensor) -> Tensor:
        return self.mean + u.to(self.mean) @ self.basis

    def log_prob_manifold(self, u: Tensor) -> Tensor:
        d = self.n_components
        variance = self.eigenvalues[:d] * self.component_scale[:d].square()
        return -0.5 * (
            (u.to(self.mean).square() / variance).sum(1)
            + variance.log().sum()
            + d * math.log(2 * math.pi)
        )

    def covariance_factor(self) -> Tensor:
        return self.eigenvectors * self.eigenvalues.sqrt()

    def sample(
        self,
        n_samples: int,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
        manifold_deviation: float = 1.0,
    ) -> Tensor:
        d = self.n_components
        variance = self.eigenvalues.clone()
        variance[:d] *= temperature
        variance[d:] *= manifold_deviation
        normal = randn((n_samples, len(self.mean)), self.mean, generator)
        return self.mean + normal * variance.sqrt() @ self.eigenvectors.T
