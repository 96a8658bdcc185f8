"""The closed-form steps of the spread likelihood against scipy and known moments."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from skmanifoldflow._manifold_prior.distribution import LearnedCovariance
from skmanifoldflow._manifold_prior.objective import SpreadLikelihood
from skmanifoldflow.backend.architectures import volume_preserving_flow
from skmanifoldflow.backend.bijections import Chain, Orthogonal
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.flow import ManifoldFlow

D = 3
FLOOR = 0.05


def draw(n_rows=60, seed=0):
    """Return correlated rows with a mean."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(D, D))
    return torch.tensor(rng.normal(size=(n_rows, D)) @ mixing + rng.normal(size=D))


def build(bijection=None, *, spread="data", n_free=None, noise=FLOOR):
    """Return an objective, by default around the identity."""
    bijection = Chain([]) if bijection is None else bijection
    return SpreadLikelihood(
        ManifoldFlow(bijection, LearnedCovariance(D, n_free)),
        spread=spread,
        prior_update="closed_form",
        entropy="ignore",
        isometry=0.0,
        noise_start=noise,
        noise_floor=noise,
        geodesics=None,
        generator=make_generator(1),
    )


def curved():
    """Return a volume-preserving flow with random weights."""
    generator = make_generator(2)
    flow = volume_preserving_flow("affine", D, 4, (8,), generator=generator)
    with torch.no_grad():
        for p in flow.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=generator))
    return flow.double()


def covariance_of(rows):
    return np.cov(rows.numpy().T, ddof=0)


def linear():
    """Return a volume-preserving linear flow and its matrix."""
    rotation = Orthogonal(D, generator=make_generator(5))
    flow = Chain([rotation]).double()
    return flow, rotation.q.numpy()


def test_refresh_takes_the_moments_of_the_latent_spread():
    flow, matrix = linear()
    objective, rows = build(flow, spread="latent"), draw()
    objective.update_closed_form(rows)
    latent = objective.flow.latent
    factor = latent.covariance_factor()
    expected = matrix.T @ covariance_of(rows) @ matrix + FLOOR**2 * np.eye(D)
    np.testing.assert_allclose(latent.mean, rows.numpy().mean(0) @ matrix)
    np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-12)


@pytest.mark.parametrize("n_rows", [1, 7, 60, 5000])
def test_refresh_takes_the_moments_of_inflated_rows(n_rows):
    s = 0.5
    flow, matrix = linear()
    objective, rows = build(flow, noise=s), draw(n_rows)
    objective.update_closed_form(rows)
    latent = objective.flow.latent
    factor = latent.covariance_factor().numpy()
    n = max(n_rows, SpreadLikelihood.min_moment_rows)
    centred = matrix.T @ covariance_of(rows) @ matrix
    variance = np.diag(centred)
    # Standard errors of the noise alone: the rows are what they are.
    assert (
        np.abs(latent.mean.numpy() - rows.numpy().mean(0) @ matrix) < 5 * s / math.sqrt(n)
    ).all()
    error = np.abs(factor @ factor.T - centred - s**2 * np.eye(D))
    spread = s**2 * (np.add.outer(variance, variance) + 2 * s**2)
    assert (error < 5 * np.sqrt(spread * (1 + np.eye(D)) / n)).all()


def test_refresh_keeps_the_digits_of_a_distant_mean():
    objective, rows = build(spread="latent", noise=1e-3), 1e-3 * draw() + 1e4
    # From the second call on moments are taken around the mean of the first.
    objective.update_closed_form(rows)
    objective.update_closed_form(rows)
    factor = objective.flow.latent.covariance_factor()
    expected = covariance_of(rows) + 1e-6 * np.eye(D)
    np.testing.assert_allclose(factor @ factor.T, expected, rtol=1e-6)


@pytest.mark.parametrize("spread", ["data", "latent"])
def test_closed_form_steps_use_the_same_noise_every_time(spread):
    objective, rows = build(curved(), spread=spread), draw()
    states, scores = [], []
    for _ in range(2):
        objective.update_closed_form(rows)
        states.append({k: v.clone() for k, v in objective.flow.latent.state_dict().items()})
        scores.append(objective.log_likelihood(rows))
        objective.loss(rows, 0.5)
    torch.testing.assert_close(*states, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*scores, rtol=1e-10, atol=1e-10)


def test_log_likelihood_with_latent_spread_is_the_expectation_over_the_noise():
    objective, rows = build(spread="latent", n_free=2, noise=0.3), draw()
    objective.update_closed_form(draw(seed=1))
    latent = objective.flow.latent
    factor = latent.covariance_factor().numpy()
    prior = stats.multivariate_normal(latent.mean.numpy(), factor @ factor.T)
    expected = prior.logpdf(rows) - 0.5 * 0.3**2 * np.trace(np.linalg.inv(factor @ factor.T))
    np.testing.assert_allclose(objective.log_likelihood(rows), expected)


def test_log_likelihood_is_that_of_inflated_rows():
    s = 0.3
    objective, rows = build(noise=s), draw(4)
    objective.update_closed_form(draw(seed=1))
    values = objective.log_likelihood(rows)
    assert values.shape == (4,)
    latent = objective.flow.latent
    factor = latent.covariance_factor().numpy()
    covariance = factor @ factor.T
    precision = np.linalg.inv(covariance)
    expected = stats.multivariate_normal(latent.mean.numpy(), covariance).logpdf(rows)
    expected -= 0.5 * s**2 * np.trace(precision)
    # Variance of the quadratic form of x + s eps, over the repetitions of each row.
    pull = (rows.numpy() - latent.mean.numpy()) @ precision
    variance = s**2 * np.square(pull).sum(1) + 0.5 * s**4 * np.square(precision).sum()
    error = np.sqrt(variance / (SpreadLikelihood.min_moment_rows / 4))
    assert (np.abs(values.numpy() - expected) < 4 * error).all()


def test_closed_form_start_maximises_the_likelihood():
    objective, rows = build(curved()), draw()
    objective.update_closed_form(rows)
    best = objective.log_likelihood(rows).mean()
    latent = objective.flow.latent
    factor = latent.covariance_factor()
    for change in (0.95, 1.05):
        latent.set_moments(latent.mean, change * factor @ factor.T)
        assert objective.log_likelihood(rows).mean() < best
