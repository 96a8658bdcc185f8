"""Normal distribution with a learned, nearly degenerate covariance."""

import math

import torch
from torch import Tensor

from ..backend.bijections.fixed_knot_spline import QuantileSpline
from ..backend.device import randn
from ..backend.distribution import LatentDistribution

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


class LearnedCovariance(LatentDistribution):
    """N(m, C) on R^D, whose marginals along the eigenvectors of C may be splines.

    The coordinates along the eigenvectors are independent. After `fit_marginals` a coordinate may
    be a spline of a normal variable instead of a normal one.

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

    # With fewer rows in each bin quantiles are mostly chance.
    min_rows_per_bin = 20

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
        # Standardised coordinates -> standard normal ones.
        self.marginals = QuantileSpline(n_features)

    def set_moments(self, mean: Tensor, covariance: Tensor) -> None:
        """Take m and C; the largest entry of each eigenvector is made positive."""
        spectrum, eigenvectors = torch.linalg.eigh(covariance)
        eigenvectors = eigenvectors.flip(1)
        largest = eigenvectors.gather(0, eigenvectors.abs().argmax(0, keepdim=True))
        self.mean = mean.detach().to(self.mean)
        self.spectrum = spectrum.flip(0).clamp_min(torch.finfo(self.mean.dtype).tiny)
        # Contiguous as in a loaded model, so that both round in the same way.
        self.eigenvectors = (eigenvectors * torch.sign(largest)).contiguous()
        self.marginals.reset()

    def fit_marginals(self, z: Tensor) -> None:
        """Give coordinates splines where the rows (n, D) support them.

        A spline is kept if the Bayesian information criterion (Schwarz, 1978) is in its favour. The
        order of the components must not change afterwards.
        """
        n, n_bins = len(z), self.marginals.n_bins
        if n < self.min_rows_per_bin * n_bins:
            return
        self.marginals.reset()
        w = self._whiten(z)
        self.marginals.fit(w)
        log_slope, t = self.marginals.log_slopes_and_values(w)
        gain = (log_slope + 0.5 * (w.square() - t.square())).sum(dim=0)
        self.marginals.keep(gain > 0.5 * n_bins * math.log(n))

    def _whiten(self, z: Tensor) -> Tensor:
        return (z.to(self.mean) - self.mean) @ self.eigenvectors * self.eigenvalues.rsqrt()

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
        self.eigenvectors = self.eigenvectors[:, order].contiguous()
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
        normal, log_slope = self.marginals.forward_and_log_det(self._whiten(z))
        return log_slope - 0.5 * (
            normal.square().sum(1)
            + self.eigenvalues.log().sum()
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
        scale = self.eigenvalues[:d].sqrt() * self.component_scale[:d]
        whitened = torch.constant_pad_nd(u.to(self.mean) / scale, (0, len(self.mean) - d))
        log_slope, normal = self.marginals.log_slopes_and_values(whitened)
        return (log_slope - 0.5 * normal.square())[:, :d].sum(1) - (
            scale.log().sum() + 0.5 * d * math.log(2 * math.pi)
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
        normal = randn((n_samples, len(self.mean)), self.mean, generator)
        normal[:, :d] *= temperature**0.5
        whitened = self.marginals.inverse_and_log_det(normal)[0]
        deviation = self.eigenvalues.sqrt()
        deviation[d:] *= manifold_deviation**0.5
        return self.mean + whitened * deviation @ self.eigenvectors.T
