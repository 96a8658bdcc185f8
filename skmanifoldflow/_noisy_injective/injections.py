"""Gaussian injections: maps R^d -> R^D with normal noise around their image, and their inverses."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from ..backend.networks import MLP
from .marginal import LOG_2PI, MAX_LOG, marginal
from .precision import DensePrecision, Precision

__all__ = [
    "SMALLEST_COLUMN",
    "GaussianInjection",
    "Injection",
    "LinearInjection",
    "SquareInjection",
]

# No column of A starts below this share of the noise: the pseudo-inverse divides by it.
SMALLEST_COLUMN = 1e-3


class Injection(nn.Module, ABC):
    """Distribution p(y | z) of rows y (n, D) given latents z (n, d), with its stochastic inverse.

    The stochastic inverse q(z | y) is p(y | z) normalised over z, and the manifold term is
    log int p(y | z) dz (Cunningham et al., 2020, eqs. 6 and 9). Noise is given from outside, as
    rows of N(0, I), so that scores can use the same draws for every row.

    Parameters
    ----------
    n_features : int
        Number of columns D of y.
    n_components : int
        Number of columns d of z.
    """

    # Whether `log_marginal` has a closed form.
    is_exact = False

    def __init__(self, n_features: int, n_components: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_components = n_components

    @abstractmethod
    def stochastic_inverse(self, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return z ~ q(z | y), from noise (n, d), and the manifold term (n,)."""

    def importance_sample(
        self, y: Tensor, noise: Tensor, is_posterior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return z (n, d) of a proposal, and log p(y | z) less the log-density of the proposal.

        Where there is a closed form, the proposal is a mixture of q(z | y) and of the posterior
        under z ~ N(0, I), which is far better where y tells little about z: rows for which
        `is_posterior` holds are drawn from the latter, and their share is that of the mixture
        (balance heuristic, Veach & Guibas, 1995).
        """
        return self.stochastic_inverse(y, noise)

    @abstractmethod
    def mode(self, y: Tensor) -> Tensor:
        """Return the mode of q(z | y), the pseudo-inverse of y."""

    @abstractmethod
    def generate(self, z: Tensor, noise: Tensor) -> Tensor:
        """Return y ~ p(y | z) from noise (n, D); no noise gives the point on the manifold."""

    @abstractmethod
    def noise_variance(self) -> Tensor:
        """Return the variances (D,) of the noise, where no context changes them."""

    def log_marginal(self, y: Tensor) -> Tensor | None:
        """Return log p(y) under z ~ N(0, I), or None where it has no closed form."""
        return None

    def posterior_mean(self, y: Tensor) -> Tensor | None:
        """Return E[z | y] under z ~ N(0, I), or None where it has no closed form."""
        return None

    def covariance(self) -> Tensor | None:
        """Return the covariance (D, D) of y under z ~ N(0, I), or None without closed form."""
        return None

    def structure(self) -> Hashable | None:
        """Return what injections have in common that can be trained as one, None if this cannot."""
        return None

    def principal_rotation(self) -> Tensor:
        """Return the rotation (d, d) of z whose columns are the coordinates to be shown."""
        like = next(self.parameters())
        return torch.eye(self.n_components, dtype=like.dtype, device=like.device)


class GaussianInjection(Injection):
    """p(y | z) = N(A z + b, Sigma) with Sigma diagonal or scalar, A given by the subclass.

    With a context, b is shifted and the log-variance changed by a network of it, bounded softly.

    Parameters
    ----------
    n_features, n_components : int
        D and d.
    noise_covariance : {"diag", "spherical"}
        Shape of Sigma.
    noise_floor : float
        Smallest standard deviation of the noise.
    n_context : int, default=0
        Columns of the context.
    hidden_layer_sizes : tuple of int, default=()
        Hidden layers of the network of the context.
    generator : torch.Generator or None, default=None
        Source of its weights; needed with a context.
    """

    is_exact = True
    # exp(+-2) on the variance: enough for noise that changes from place to place.
    max_log_factor = 2.0

    def __init__(
        self,
        n_features: int,
        n_components: int,
        *,
        noise_covariance: str,
        noise_floor: float,
        n_context: int = 0,
        hidden_layer_sizes: tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(n_features, n_components)
        self.noise_floor = noise_floor
        self.b = nn.Parameter(torch.zeros(n_features))
        # Sigma = noise_floor^2 + exp(log_excess).
        n_variances = n_features if noise_covariance == "diag" else 1
        self.log_excess = nn.Parameter(torch.zeros(n_variances))
        self.conditioner: MLP | None = None
        if n_context:
            assert generator is not None
            self.conditioner = MLP(
                n_context, hidden_layer_sizes, 2 * n_features, generator=generator
            )

    @abstractmethod
    def multiply(self, z: Tensor) -> Tensor:
        """Return A z (n, D)."""

    @abstractmethod
    def multiply_transposed(self, y: Tensor) -> Tensor:
        """Return A' y (n, d)."""

    @abstractmethod
    def precision(self, variance: Tensor) -> Precision:
        """Return Lam = A' Sigma^-1 A for variances (D,) or (n, D)."""

    def initialize_noise(self, mean: Tensor, noise: Tensor) -> None:
        """Take b (D,) and the variances of the noise, (D,) or (1,), raised to the floor."""
        excess = noise.to(self.b) - self.noise_floor**2
        excess = excess.clamp_min(1e-6 * self.noise_floor**2)
        self.b.data = mean.to(self.b)
        self.log_excess.data = excess.expand_as(self.log_excess).log().clone()

    def noise(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return b and the variances, of shape (D,) or (n, D)."""
        if self.conditioner is None:
            return self.b, self.noise_variance()
        shift, raw = self.conditioner(context).split(self.n_features, dim=1)
        factor = self.max_log_factor * torch.tanh(raw / self.max_log_factor)
        log_excess = self.log_excess.clamp(max=MAX_LOG) + factor
        return self.b + shift, self.noise_floor**2 + log_excess.exp()

    def noise_variance(self) -> Tensor:
        variance = self.noise_floor**2 + self.log_excess.clamp(max=MAX_LOG).exp()
        return variance.expand(self.n_features)

    def _statistics(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Precision, Tensor]:
        """Return u, Lam and log Z_x of Cunningham et al., 2020, eq. 9."""
        b, variance = self.noise(context)
        mu = y - b
        weighted = mu / variance
        u = self.multiply_transposed(weighted)
        log_z_x = 0.5 * (
            (mu * weighted).sum(1) + variance.log().sum(-1) + self.n_features * LOG_2PI
        )
        return u, self.precision(variance), log_z_x

    def stochastic_inverse(
        self, y: Tensor, noise: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        u, lam, log_z_x = self._statistics(y, context)
        mode = lam.solve(u)
        log_z_z = 0.5 * ((u * mode).sum(1) - lam.log_det() + self.n_components * LOG_2PI)
        return mode + lam.scale(noise), log_z_z - log_z_x

    def mode(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        u, lam, _ = self._statistics(y, context)
        return lam.solve(u)

    def generate(self, z: Tensor, noise: Tensor, context: Tensor | None = None) -> Tensor:
        b, variance = self.noise(context)
        return self.multiply(z) + b + noise * variance.sqrt()

    def log_marginal(self, y: Tensor) -> Tensor:
        b, variance = self.noise()
        posterior = self.precision(variance).plus_identity()
        mu = y - b
        m = posterior.solve(self.multiply_transposed(mu / variance))
        r = mu - self.multiply(m)
        e, constant = marginal(r, variance, posterior.log_det())
        return -0.5 * ((r * e).sum(1) + m.square().sum(1) + constant)

    def importance_sample(
        self, y: Tensor, noise: Tensor, is_posterior: Tensor
    ) -> tuple[Tensor, Tensor]:
        u, lam, log_z_x = self._statistics(y, None)
        posterior = lam.plus_identity()
        mode, mean = lam.solve(u), posterior.solve(u)
        z = torch.where(
            is_posterior[:, None], mean + posterior.scale(noise), mode + lam.scale(noise)
        )
        log_z_z = 0.5 * ((u * mode).sum(1) - lam.log_det() + self.n_components * LOG_2PI)
        log_ratio = 0.5 * (
            posterior.log_det()
            - lam.log_det()
            - posterior.quadratic(z - mean)
            + lam.quadratic(z - mode)
        )
        share = is_posterior.to(y).mean()
        log_proposal = torch.logaddexp((1 - share).log(), share.log() + log_ratio)
        return z, log_z_z - log_z_x - log_proposal

    def posterior_mean(self, y: Tensor) -> Tensor:
        u, lam, _ = self._statistics(y, None)
        return lam.plus_identity().solve(u)

    def covariance(self) -> Tensor:
        _, variance = self.noise()
        columns = self.multiply(torch.eye(self.n_components).to(self.b))
        return columns.T @ columns + variance.diag()


class LinearInjection(GaussianInjection):
    """A is any D x d matrix. Parameters are those of `GaussianInjection`."""

    def __init__(
        self,
        n_features: int,
        n_components: int,
        *,
        noise_covariance: str,
        noise_floor: float,
        n_context: int = 0,
        hidden_layer_sizes: tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            n_features,
            n_components,
            noise_covariance=noise_covariance,
            noise_floor=noise_floor,
            n_context=n_context,
            hidden_layer_sizes=hidden_layer_sizes,
            generator=generator,
        )
        self.a = nn.Parameter(torch.eye(n_features, n_components))

    def initialize(
        self,
        mean: Tensor,
        directions: Tensor,
        variances: Tensor,
        noise: Tensor,
        smallest: float = SMALLEST_COLUMN,
    ) -> None:
        """Take b, A and Sigma from a linear factor model.

        Parameters
        ----------
        mean : Tensor of shape (D,)
            b.
        directions : Tensor of shape (D, d)
            Columns of A, each of unit length.
        variances : Tensor of shape (d,)
            Squared lengths of the columns of A.
        noise : Tensor of shape (D,) or (1,)
            Variances of the noise.
        smallest : float
            Smallest length of a column relative to the noise. Draws of the stochastic inverse along
            such a column have its inverse as their standard deviation.
        """
        self.initialize_noise(mean, noise)
        least = smallest**2 * self.noise_variance().detach().mean()
        self.a.data = directions.to(self.b) * variances.to(self.b).maximum(least).sqrt()

    def structure(self) -> Hashable | None:
        return "linear", self.noise_floor

    def multiply(self, z: Tensor) -> Tensor:
        return z @ self.a.T

    def multiply_transposed(self, y: Tensor) -> Tensor:
        return y @ self.a

    def precision(self, variance: Tensor) -> Precision:
        if variance.ndim == 1:
            return DensePrecision(self.a.T @ (self.a / variance[:, None]))
        # As one matrix product, without a copy of A for every row.
        products = (self.a[:, :, None] * self.a[:, None, :]).flatten(1)
        return DensePrecision(((1 / variance) @ products).unflatten(1, (self.n_components, -1)))

    def principal_rotation(self) -> Tensor:
        # Columns are made orthogonal in the metric of the noise, as factor analysis has them; the
        # coordinates of z are then independent given y.
        _, variance = self.noise()
        lam = self.a.T @ (self.a / variance[:, None])
        rotation = torch.linalg.eigh(lam)[1].flip(1)
        columns = self.a @ rotation
        largest = columns.gather(0, columns.abs().argmax(0, keepdim=True))
        return rotation * torch.where(largest < 0, -1.0, 1.0)


class SquareInjection(Injection):
    """y = W z + b with d = D and no noise: the prior of a plain flow.

    W = U diag(s) has orthogonal U, fixed at the start, and trained scales s.

    Parameters
    ----------
    n_features : int
        D.
    noise_floor : float
        Smallest scale.
    """

    is_exact = True
    u: Tensor

    def __init__(self, n_features: int, *, noise_floor: float) -> None:
        super().__init__(n_features, n_features)
        self.noise_floor = noise_floor
        self.b = nn.Parameter(torch.zeros(n_features))
        self.log_scale = nn.Parameter(torch.zeros(n_features))
        self.register_buffer("u", torch.eye(n_features))

    def structure(self) -> Hashable | None:
        return "square", self.noise_floor

    def initialize(self, mean: Tensor, directions: Tensor, variances: Tensor) -> None:
        """Take b, U and s from the principal axes (D, D) and the variances (D,) along them."""
        self.b.data = mean.to(self.b)
        self.u = directions.to(self.b)
        self.log_scale.data = 0.5 * variances.to(self.b).clamp_min(self.noise_floor**2).log()

    def noise_variance(self) -> Tensor:
        return torch.zeros_like(self.b)

    def _log_scale(self) -> Tensor:
        return self.log_scale.clamp(math.log(self.noise_floor), MAX_LOG)

    def stochastic_inverse(self, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return self.mode(y), -self._log_scale().sum().expand(len(y))

    def mode(self, y: Tensor) -> Tensor:
        return (y - self.b) @ self.u * torch.exp(-self._log_scale())

    def generate(self, z: Tensor, noise: Tensor) -> Tensor:
        return (z * self._log_scale().exp()) @ self.u.T + self.b

    def log_marginal(self, y: Tensor) -> Tensor:
        z, term = self.stochastic_inverse(y, y)
        return term - 0.5 * (z.square().sum(1) + self.n_components * LOG_2PI)

    def posterior_mean(self, y: Tensor) -> Tensor:
        return self.mode(y)

    def covariance(self) -> Tensor:
        w = self.u * self._log_scale().exp()
        return w @ w.T
