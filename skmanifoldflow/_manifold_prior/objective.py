"""Spread likelihood of a volume-preserving flow with a learned normal prior."""

import math
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..backend.device import make_generator, randn, statistics_dtype
from ..backend.engine import KnownLoss, known_gradient
from ..backend.flow import ManifoldFlow, chunks
from ..backend.objective import Objective
from ..backend.torch_private import pdist_backward
from .distribution import LearnedCovariance, principal_covariance

__all__ = ["Geodesics", "SpreadLikelihood"]


# If the smallest squared pivot of a Cholesky factor exceeds the least allowed eigenvalue by this
# factor, no eigenvalue has to be raised.
_CLEARLY_POSITIVE = 1000


class Geodesics(NamedTuple):
    """Standardised rows (m, D) and their geodesic distances (m, m), inf where not connected.

    Rows of a sheet that can be unrolled have places (m, D) that are as far apart.
    """

    rows: Tensor
    distances: Tensor
    mean_square: float
    places: Tensor | None = None


class SpreadLikelihood(Objective):
    """Spread likelihood of a volume-preserving flow with a learned normal prior.

    With spread "data" noise is added to the rows: x~ = x + s eps, z~ = g(x~). The entropy of z~
    does not depend on a volume-preserving g, so minimising the cross-entropy E[-log N(z~; m, C)] is
    maximum likelihood of the inflated data. With spread "latent" noise is added to z = g(x)
    instead, as in the source, and the expectation over the noise is taken in closed form. Its
    entropy depends on g and is ignored, as in the source.

    The departure from isometry is penalised twice: (log ||J_g v||^2)^2 for random unit vectors v,
    by a finite difference, and the squared error of latent distances against geodesic distances of
    the data, which unrolls sheets that the likelihood alone leaves folded. That error has minima
    where a sheet is folded, so rows of a sheet that can be unrolled are drawn to their places.

    Parameters
    ----------
    flow : ManifoldFlow
        Volume-preserving bijection with a `LearnedCovariance` distribution.
    spread : {"data", "latent"}
        Where the noise is added.
    prior_update : {"closed_form", "gradient"}
        Whether m, C are moments of z~, or m, A of C = A A' + s^2 I are trained.
    isometry : float
        Weight of the departure from isometry.
    noise_start, noise_floor : float
        Standard deviations between which s falls geometrically.
    geodesics : Geodesics or None
        Rows with known geodesic distances; None to penalise local departures only.
    generator : torch.Generator
        Source of noise.
    """

    flow: ManifoldFlow
    # Share of the training during which the noise falls to its floor.
    annealing = 0.65
    # Weights of geodesic distances relative to local isometry. The first one unrolls the data; it
    # falls linearly, to 0 at a share `unrolling` of the training, but the weight stays at least the
    # second one, which keeps the data unrolled.
    geodesic_weights = (300.0, 100.0)
    unrolling = 0.6
    # Weight of places relative to that of distances.
    place_weight = 2.0
    # Rows of a batch at which the departure from isometry is measured.
    n_isometry_rows = 32
    n_geodesic_rows = 64
    # Step of the finite difference in standardised units, with four correct digits in float32.
    difference = 0.01
    # A batch with fewer rows per column shares its covariance with the batches before it.
    rows_per_feature = 4
    # Moments are taken over at least this many inflated rows, and over `rows_per_feature` times as
    # many rows as columns.
    min_moment_rows = 1024
    # So many rows, and so many per column, are enough to compare epochs: errors of their moments
    # cost less than a thousandth of a nat per column.
    min_rough_rows = 2048
    rough_rows_per_feature = 64
    # Largest number of rows whose coordinates give the prior its quantiles.
    max_marginal_rows = 10_000

    def __init__(
        self,
        flow: ManifoldFlow,
        *,
        spread: str,
        prior_update: str,
        isometry: float,
        noise_start: float,
        noise_floor: float,
        geodesics: Geodesics | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.flow = flow
        self.spread = spread
        self.prior_update = prior_update
        self.isometry = isometry
        self.noise_start = noise_start
        self.noise_floor = noise_floor
        self.geodesics = geodesics
        # Parts of the rows, one for each of the next steps, and distances in the order of pdist.
        self.coming: list[tuple[Tensor, Tensor]] = []
        self.generator = generator
        # The same noise at every epoch, so that epochs can be compared.
        self.moment_seed = int(torch.randint(2**62, (), generator=generator))
        self.running_covariance: Tensor | None = None
        # Precision and log-determinant of the running covariance, and steps until they are renewed.
        self.running_prior: tuple[Tensor, Tensor] | None = None
        self.steps_left = 0
        self.a: nn.Parameter | None = None
        self.m: nn.Parameter | None = None

    @property
    def latent(self) -> LearnedCovariance:
        """The distribution of z."""
        return cast(LearnedCovariance, self.flow.latent)

    def undecayed_parameters(self) -> list[nn.Parameter]:
        return [p for p in (self.a, self.m) if p is not None]

    def reset_running_moments(self) -> None:
        self.running_covariance = None
        self.running_prior = None

    def initialize_prior(self, rows: Tensor) -> None:
        """Set the prior to the moments of the start, and A and m too where they are trained."""
        self.update_closed_form(rows)
        if self.prior_update == "gradient":
            latent = self.latent
            excess = (latent.spectrum - self.noise_floor**2).clamp_min(1e-6)
            factor = latent.eigenvectors * excess.sqrt()
            # A' = Q R leaves A A' = R' R, and R' is lower triangular as the source has it.
            a = torch.linalg.qr(factor.T, mode="r").R.T
            self.a = nn.Parameter(a.to(**self.flow.tensor_options))
            self.m = nn.Parameter(latent.mean.to(**self.flow.tensor_options))

    def loss(self, batch: Tensor, progress: float) -> Tensor | KnownLoss:
        rows, parts, geodesic = self._rows(batch, progress)
        if self._is_closed_form and self.flow.bijection.has_vjp:
            z, log_det, _, vjp = self.flow.bijection.forward_with_vjp(rows)
            value, gradient = self._known_part(z, parts, geodesic, progress)
            return KnownLoss(value, lambda: vjp(gradient, torch.zeros_like(log_det), 0.0))
        z = self.flow.bijection.forward_and_log_det(rows)[0]
        value, gradient = self._known_part(z.detach(), parts, geodesic, progress)
        loss = known_gradient(value, (z, gradient))
        if self._is_closed_form:
            return loss
        return loss + self._cross_entropy(z[: len(batch)], progress)

    def _next_geodesics(self, geodesics: Geodesics) -> tuple[Tensor, Tensor]:
        """Return some of the rows whose geodesic distances are known, and these, or places."""
        if not self.coming:
            m = len(geodesics.rows)
            order = torch.randperm(m, generator=self.generator).to(geodesics.rows.device)
            n = min(self.n_geodesic_rows, m)
            i, j = torch.triu_indices(n, n, offset=1, device=order.device)
            parts = order[: m - m % n].split(n)
            rows, distances, _, places = geodesics
            self.coming = [
                (rows[p], distances[p[i], p[j]] if places is None else places[p]) for p in parts
            ]
        return self.coming.pop()

    def _rows(self, batch: Tensor, progress: float) -> tuple[Tensor, list[int], Tensor | None]:
        """Return the rows of a step, the numbers of rows of three kinds, and geodesic distances.

        The kinds are the batch with noise, its first rows moved by a short way, and rows whose
        geodesic distances are known. They pass the flow together, because the time of a step is
        that of its calls, not of its rows.
        """
        if self.spread == "data":
            noise = randn(tuple(batch.shape), batch, self.generator)
            batch = torch.add(batch, noise, alpha=self.noise(progress))
        if not self.isometry:
            return batch, [len(batch), 0, 0], None
        k = min(self.n_isometry_rows, len(batch))
        v = randn((k, batch.shape[1]), batch, self.generator)
        v *= self.difference / v.norm(dim=1, keepdim=True)
        if self.geodesics is None:
            return torch.cat([batch, batch[:k] + v]), [len(batch), k, 0], None
        landmarks, geodesic = self._next_geodesics(self.geodesics)
        rows = torch.cat([batch, batch[:k] + v, landmarks])
        return rows, [len(batch), k, len(landmarks)], geodesic

    @torch.no_grad()
    def _known_part(
        self, z: Tensor, parts: list[int], geodesic: Tensor | None, progress: float
    ) -> tuple[Tensor, Tensor]:
        """Return what has a known gradient, and this gradient with respect to latents z of a step.

        These are the penalties, and the cross-entropy where the prior is in closed form.
        """
        value, gradient = z.new_zeros(()), torch.zeros_like(z)
        (latents, moved, landmarks), into = z.split(parts), gradient.split(parts)
        if self._is_closed_form:
            centred = latents - latents.mean(0)
            moments = self._moments(centred.to(statistics_dtype(z.device)), self.noise(progress))
            precision, log_det = self._closed_form_prior(moments, centred, progress)
            value += self._normal_cross_entropy(moments, precision, log_det)
            into[0].addmm_(centred, precision.to(centred), alpha=1 / len(centred))
        if len(moved):
            k = len(moved)
            difference = moved - latents[:k]
            square = torch.linalg.vecdot(difference, difference)
            log_stretch = square.log() - 2 * math.log(self.difference)
            value.add_(torch.dot(log_stretch, log_stretch), alpha=self.isometry / k)
            factor = log_stretch.div_(square).mul_(4 * self.isometry / k)
            torch.mul(difference, factor[:, None], out=into[1])
            into[0][:k].sub_(into[1])
        if self.geodesics is not None and geodesic is not None:
            first, last = self.geodesic_weights
            weight = self.isometry * max(last, first * (1 - progress / self.unrolling))
            mean_square = self.geodesics.mean_square
            if self.geodesics.places is None:
                error, of_landmarks = _stress(landmarks, geodesic, mean_square)
            else:
                error, of_landmarks = _displacement(landmarks, geodesic, mean_square)
                weight *= self.place_weight
            value.add_(error, alpha=weight)
            torch.mul(of_landmarks, weight, out=into[2])
        return value, gradient

    @property
    def _is_closed_form(self) -> bool:
        """Whether the gradient of the cross-entropy is known."""
        return self.a is None

    def _moments(self, centred: Tensor, s: float) -> Tensor:
        """Return the second moments (D, D) of z~ - m, given rows z - m or z~ - m."""
        moments = centred.T @ centred / len(centred)
        if self.spread == "latent":
            identity = torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
            moments = moments + s**2 * identity
        return moments

    @staticmethod
    def _normal_cross_entropy(moments: Tensor, precision: Tensor, log_det: Tensor) -> Tensor:
        """Return E[-log N(z~; m, C)], given the moments about m and the inverse of C."""
        square = torch.dot(precision.flatten(), moments.flatten())
        return 0.5 * (log_det + square + len(moments) * math.log(2 * math.pi))

    def _cross_entropy(self, z: Tensor, progress: float) -> Tensor:
        """Return E[-log N(z~; m, C)] of a batch."""
        s, n_features = self.noise(progress), z.shape[1]
        if self.a is not None and self.m is not None:
            a = torch.tril(self.a)
            noise = s**2 * torch.eye(n_features, dtype=z.dtype, device=z.device)
            centred = z - self.m
            # No error check: NaN weights give a NaN loss, which the training loop handles.
            factor = torch.linalg.cholesky_ex(a @ a.T + noise)[0]
            precision = torch.cholesky_inverse(factor)
            log_det = 2 * factor.diagonal().log().sum()
        else:
            centred = z - z.mean(0)
            covariance = self._moments(centred.detach().to(statistics_dtype(z.device)), s)
            precision, log_det = (t.to(z) for t in self._closed_form_prior(covariance, z, progress))
        return self._normal_cross_entropy(self._moments(centred, s), precision, log_det)

    def _closed_form_prior(
        self, covariance: Tensor, batch: Tensor, progress: float
    ) -> tuple[Tensor, Tensor]:
        """Return the precision and log-determinant of the best prior for the covariance of a batch.

        At the optimum the loss does not depend on the prior to first order, so the prior is held
        fixed in the gradient (envelope theorem). Where a batch has few rows for its columns, its
        covariance is pooled with that of the batches before.
        """
        n, n_features = batch.shape
        share = min(1.0, n / (self.rows_per_feature * n_features))
        if self.running_covariance is None and n < n_features:
            self.running_covariance = self._initial_covariance(self.noise(progress))
        if self.running_covariance is not None:
            covariance = torch.lerp(self.running_covariance, covariance, share)
        if n < n_features:
            # A precision takes D^3 operations and moves by a small share in a step.
            self.steps_left -= 1
            if self.running_prior is not None and self.steps_left > 0:
                self.running_covariance = covariance
                return self.running_prior
            self.steps_left = max(1, round(0.25 / share))
        self.running_prior = self._best_prior(covariance, torch.finfo(batch.dtype).eps)
        return self.running_prior

    def _initial_covariance(self, s: float) -> Tensor:
        """Return the covariance of z at noise s, before the first step or after forgetting."""
        latent = self.latent
        excess = s**2 - self.noise_floor**2 if self.spread == "data" else 0.0
        return (latent.eigenvectors * (latent.spectrum + excess)) @ latent.eigenvectors.T

    def _best_prior(self, covariance: Tensor, least: float) -> tuple[Tensor, Tensor]:
        if self.latent.n_free is None:
            # With many columns eigenvectors cost ten times as much as a Cholesky factor, which is
            # enough where no eigenvalue has to be raised.
            factor, info = torch.linalg.cholesky_ex(covariance)
            pivots = factor.diagonal()
            if int(info) == 0 and float(pivots.min()) ** 2 > _CLEARLY_POSITIVE * least:
                self.running_covariance = covariance
                return torch.cholesky_inverse(factor), 2 * pivots.log().sum()
        if not torch.isfinite(covariance).all():
            return torch.full_like(covariance, math.nan), covariance.new_tensor(math.nan)
        self.running_covariance = covariance
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
        eigenvalues = principal_covariance(eigenvalues.flip(0), self.latent.n_free).flip(0)
        eigenvalues = eigenvalues.clamp_min(least)
        return (eigenvectors / eigenvalues) @ eigenvectors.T, eigenvalues.log().sum()

    @torch.no_grad()
    def update_closed_form(self, rows: Tensor, *, roughly: bool = False) -> None:
        latent = self.latent
        n_features = len(latent.mean)
        if self.a is not None and self.m is not None:
            a = torch.tril(self.a).to(latent.mean)
            eye = torch.eye(n_features, dtype=a.dtype, device=a.device)
            latent.set_moments(self.m, a @ a.T + self.noise_floor**2 * eye)
            return
        if roughly:
            n_rows = max(self.min_rough_rows, self.rough_rows_per_feature * n_features)
            rows = rows[:: max(1, len(rows) // n_rows)]
        total = torch.zeros_like(latent.mean)
        products = torch.zeros_like(latent.eigenvectors)
        shift = latent.mean.clone()
        n = 0
        for z in self._inflated_latents(rows):
            z = z.to(latent.mean) - shift
            total += z.sum(0)
            products += z.T @ z
            n += len(z)
        mean = total / n
        covariance = products / n - torch.outer(mean, mean)
        if self.spread == "latent":
            covariance.diagonal().add_(self.noise_floor**2)
        latent.set_moments(shift + mean, covariance)

    def _inflated_latents(self, rows: Tensor) -> Iterator[Tensor]:
        """Yield g(x + s eps) over all rows, with s at its floor. Few rows are repeated."""
        s = self.noise_floor if self.spread == "data" else 0.0
        generator = make_generator(self.moment_seed)
        if s:
            n_rows = max(self.min_moment_rows, self.rows_per_feature * rows.shape[1])
            rows = rows.repeat(-(-n_rows // len(rows)), 1)
        for chunk in chunks(len(rows), rows.shape[1]):
            x = rows[chunk]
            if s:
                x = x + s * randn(tuple(x.shape), x, generator)
            yield self.flow.bijection.forward_and_log_det(x)[0]

    @torch.no_grad()
    def fit_marginals(self, rows: Tensor) -> None:
        """Give each coordinate of the prior its own distribution, that of the noisy rows."""
        picked = torch.randperm(len(rows), generator=self.generator)[: self.max_marginal_rows]
        rows = rows[picked.to(rows.device)]
        noise = self.noise_floor * randn(tuple(rows.shape), rows, self.generator)
        inflated = rows + noise if self.spread == "data" else rows
        z = torch.cat(
            [
                self.flow.bijection.forward_and_log_det(inflated[chunk])[0]
                for chunk in chunks(len(rows), rows.shape[1])
            ]
        )
        self.latent.fit_marginals(z if self.spread == "data" else z + noise)

    @torch.no_grad()
    def log_likelihood(self, rows: Tensor) -> Tensor:
        latent = self.latent
        values = torch.cat([latent.log_prob(z) for z in self._inflated_latents(rows)])
        if self.spread == "latent":
            values = values - 0.5 * self.noise_floor**2 * (1 / latent.eigenvalues).sum()
        return values.view(-1, len(rows)).mean(0)


def _stress(z: Tensor, geodesic: Tensor, mean_square: float) -> tuple[Tensor, Tensor]:
    """Return the mean squared error of latent distances, and its gradient with respect to z.

    It is relative to the mean squared geodesic distance. Distances are in the order of pdist.
    """
    distance = nn.functional.pdist(z)
    # The distance of rows that are not connected is infinite, and they do not count.
    error = (distance - geodesic).nan_to_num_(nan=math.nan, posinf=math.inf, neginf=0.0)
    scale = 1 / (len(error) * mean_square)
    gradient = pdist_backward(2 * scale * error, z, 2.0, distance)
    return scale * torch.dot(error, error), gradient


def _displacement(z: Tensor, places: Tensor, mean_square: float) -> tuple[Tensor, Tensor]:
    """Return the mean squared distance of latents to their places, and its gradient, as `_stress`.

    The mean squared distance of two rows is twice that of a row from the centre.
    """
    error = z - places
    scale = 2 / (len(z) * mean_square)
    return scale * torch.dot(error.flatten(), error.flatten()), 2 * scale * error
