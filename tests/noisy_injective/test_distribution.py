"""The distribution of a noisy injection: bounds, coordinates, draws."""

import math

import numpy as np
import pytest
import torch
from helpers import perturb

from skmanifoldflow._noisy_injective.distribution import NoisyInjection
from skmanifoldflow._noisy_injective.injections import LinearInjection
from skmanifoldflow.backend.bijections import AffineCoupling, Chain


def _injection(generator, n_features=4, n_components=2):
    injection = LinearInjection(n_features, n_components, noise_covariance="diag", noise_floor=0.1)
    return perturb(injection, 0.4, generator).requires_grad_(False)


def _prior(generator):
    prior = Chain([AffineCoupling(2, n, (8,), generator=generator) for n in (1, 2)])
    return perturb(prior, 0.25, generator).double().requires_grad_(False)


def _rows(generator, n=200):
    return torch.randn(n, 4, dtype=torch.float64, generator=generator)


def test_bound_is_below_the_closed_form(generator):
    """E_q[log p(z)] + manifold term <= log p(y) (eq. 7), with the gap KL(q || p(z | y))."""
    latent = NoisyInjection(_injection(generator))
    y = _rows(generator, 3)
    noise = torch.randn(50_000, 2, dtype=torch.float64, generator=generator)
    for row in y:
        rows = row.expand(50_000, -1)
        bound = latent.bound(rows, noise).mean()
        exact = latent.log_prob(row[None])[0]
        # Both distributions are normal, so their divergence has a closed form.
        mode, mean = (
            latent.injection.mode(row[None])[0],
            latent.injection.posterior_mean(row[None])[0],
        )
        _, variance = latent.injection.noise()
        lam = latent.injection.precision(variance).matrix
        posterior = lam + torch.eye(2, dtype=torch.float64)
        gap = 0.5 * (
            torch.trace(posterior @ torch.linalg.inv(lam))
            + (mean - mode) @ posterior @ (mean - mode)
            - 2
            + torch.linalg.slogdet(lam)[1]
            - torch.linalg.slogdet(posterior)[1]
        )
        assert bound < exact
        assert float(exact - bound) == pytest.approx(float(gap), rel=0.05)


def test_importance_samples_tighten_the_bound(generator):
    injection, prior = _injection(generator), _prior(generator)
    y = _rows(generator)
    means = [
        NoisyInjection(injection, prior, n_importance_samples=k).log_prob(y).mean().item()
        for k in (8, 64, 512, 4096)
    ]
    assert np.all(np.diff(means) > 0)
    assert means[-1] - means[-2] < 0.2 * (means[1] - means[0])


def test_importance_samples_converge_to_the_integral(generator):
    """A flow as prior: log p(y) by a grid over z."""
    injection, prior = _injection(generator), _prior(generator)
    latent = NoisyInjection(injection, prior, n_importance_samples=4096)
    y = _rows(generator, 4)
    axis = torch.linspace(-12, 12, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    b, variance = injection.noise()
    log_prior = latent.log_prior(grid)
    assert float(log_prior.exp().sum() * (24 / 800) ** 2) == pytest.approx(1, abs=1e-3)
    for row, value in zip(y, latent.log_prob(y), strict=True):
        residual = row - b - injection.multiply(grid)
        log_p = log_prior - 0.5 * (
            (residual**2 / variance).sum(1) + variance.log().sum() + 4 * math.log(2 * math.pi)
        )
        exact = math.log(float(log_p.exp().sum() * (24 / 800) ** 2))
        assert float(value) == pytest.approx(exact, abs=0.1)


def test_scores_are_deterministic_and_rowwise(generator):
    latent = NoisyInjection(_injection(generator), _prior(generator), n_importance_samples=5)
    y = _rows(generator, 10)
    torch.testing.assert_close(latent.log_prob(y), latent.log_prob(y), atol=0, rtol=0)
    alone = torch.cat([latent.log_prob(row[None]) for row in y])
    torch.testing.assert_close(latent.log_prob(y), alone, atol=1e-12, rtol=0)


def test_weighted_posterior_mean_agrees_with_the_closed_form(generator):
    """An identity flow as prior leaves z ~ N(0, I), but takes the way of importance weights."""
    injection = _injection(generator)
    identity = Chain([AffineCoupling(2, 1, (4,), generator=generator)]).double()
    exact = NoisyInjection(injection)
    weighted = NoisyInjection(injection, identity, n_importance_samples=20_000)
    y = _rows(generator, 5)
    torch.testing.assert_close(
        weighted.posterior_mean(y).detach(), exact.posterior_mean(y), atol=0.05, rtol=0
    )


def test_coordinates_and_their_density(generator):
    latent = NoisyInjection(_injection(generator), _prior(generator))
    rotation = torch.linalg.qr(torch.randn(2, 2, dtype=torch.float64, generator=generator))[0]
    latent.set_components(rotation, torch.tensor([3.0, 0.5]))
    u = torch.randn(6, 2, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(latent.project(latent.embed(u)), u)
    axis = torch.linspace(-40, 40, 1601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis / 6)
    density = latent.log_prob_manifold(grid).exp()
    assert float(density.sum() * (80 / 1600) ** 2 / 6) == pytest.approx(1, abs=0.01)


def test_covariance_factor(generator):
    injection = _injection(generator)
    factor = NoisyInjection(injection).covariance_factor()
    torch.testing.assert_close(factor @ factor.T, injection.covariance())
    latent = NoisyInjection(injection, _prior(generator))
    factor = latent.covariance_factor()
    drawn = latent.sample(100_000, generator)
    covariance = torch.cov(drawn.T)
    torch.testing.assert_close(
        factor @ factor.T, covariance, atol=0.1 * float(covariance.max()), rtol=0
    )


def test_options_scale_variances(generator):
    """t scales the variance of z, s that of the noise; s = 0 lies on the manifold."""
    injection = _injection(generator)
    latent = NoisyInjection(injection)
    b, variance = injection.noise()
    for t, s in ((1.0, 1.0), (0.25, 1.0), (1.0, 0.0), (2.0, 0.5)):
        y = latent.sample(200_000, generator, temperature=t, manifold_deviation=s)
        expected = t * injection.a @ injection.a.T + s * variance.diag()
        torch.testing.assert_close(
            torch.cov(y.T), expected, atol=0.02 * float(expected.max()), rtol=0
        )
        torch.testing.assert_close(y.mean(0), b, atol=0.02, rtol=0)
    flat = latent.sample(100, generator, manifold_deviation=0.0)
    torch.testing.assert_close(latent.embed(latent.project(flat)), flat)
