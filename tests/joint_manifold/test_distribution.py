"""Penalties and the split latent distribution against scipy, quadrature and Monte Carlo."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import perturb, randomize
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import huber
from scipy.stats import kstest, laplace, norm

from skmanifoldflow._joint_manifold.distribution import PenalizedSplit
from skmanifoldflow._joint_manifold.penalties import PENALTIES
from skmanifoldflow.backend.architectures import density_flow, split_flow


def _log_density(name, t):
    """Of a deviation in units of its scale, the constant by quadrature."""
    if name == "laplace":
        return laplace.logpdf(t)
    if name == "gaussian":
        return norm.logpdf(t)
    total, _ = quad(lambda x: math.exp(-huber(1.345, x)), -40, 40, points=[-1.345, 1.345])
    return -huber(1.345, t) - math.log(total)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_is_a_density(name):
    t = torch.linspace(-6, 6, 101, dtype=torch.float64)
    scale = torch.tensor(0.3, dtype=torch.float64)
    value = PENALTIES[name].log_prob(t, scale)
    np.testing.assert_allclose(value, _log_density(name, t.numpy() / 0.3) - math.log(0.3))


def test_normaliser_of_the_huber_distribution():
    """Given to five digits in the literature of the source: 2.66072 scales."""
    assert math.exp(PENALTIES["huber"].log_normalizer) == pytest.approx(2.66072, abs=5e-6)


@pytest.mark.parametrize("name", PENALTIES)
def test_variance_is_the_second_moment(name):
    moment, _ = quad(lambda t: 2 * t * t * math.exp(_log_density(name, t)), 0, 60, limit=200)
    assert PENALTIES[name].variance == pytest.approx(moment, rel=1e-6)


@pytest.mark.parametrize("name", PENALTIES)
def test_samples_follow_the_density(name, generator):
    like = torch.zeros(1, dtype=torch.float64)
    drawn = PENALTIES[name].sample((20_000,), like, generator).numpy()
    grid = np.linspace(-30, 30, 60_001)
    cdf = np.cumsum(np.exp(_log_density(name, grid))) * (grid[1] - grid[0])
    assert kstest(drawn, lambda t: np.interp(t, grid, cdf)).pvalue > 0.01


@pytest.mark.parametrize("name", PENALTIES)
def test_quantile_inverts_the_distribution(name):
    penalty = PENALTIES[name]
    for share in (1e-4, 0.05, 0.3, 0.5, 0.8, 0.97):
        t = float(penalty.quantile(torch.tensor(share, dtype=torch.float64)))
        below, _ = quad(lambda x: math.exp(_log_density(name, x)), -60, t, limit=200)
        assert below == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("name", PENALTIES)
def test_scale_has_the_largest_likelihood(name):
    rows = np.random.RandomState(0).standard_t(3, size=500)

    def loss(log_scale):
        return -np.mean(_log_density(name, rows * np.exp(-log_scale)) - log_scale)

    best = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)
    penalty, deviations = PENALTIES[name], torch.tensor(rows)
    assert float(penalty.fit_scale(deviations, 0.0)) == pytest.approx(best, rel=1e-4)
    # From a start that is near, few steps are enough; no scale falls below the floor.
    near = penalty.fit_scale(deviations, 0.0, torch.tensor(1.05 * best), 6)
    assert float(near) == pytest.approx(best, rel=2e-3)
    assert float(penalty.fit_scale(0 * deviations, 0.1)) == pytest.approx(0.1)


def test_outliers_move_the_scale_of_a_heavy_tail_less():
    rows = torch.tensor(np.random.RandomState(0).randn(2000))
    with_outliers = torch.cat([rows, torch.full((100,), 50.0, dtype=torch.float64)])
    growth = {
        name: float(p.fit_scale(with_outliers, 0.0) / p.fit_scale(rows, 0.0))
        for name, p in PENALTIES.items()
    }
    assert growth["gaussian"] > 2 * growth["huber"]
    assert growth["gaussian"] > 2 * growth["laplace"]


def _distribution(generator, penalty="huber", inner=None):
    """5 columns, 3 coordinates; with `inner` a second stage of so many coordinates."""
    latent = PenalizedSplit(5, 3, penalty=penalty)
    latent.set_scales(torch.tensor(0.5), torch.tensor([0.1, 0.2], dtype=torch.float64))
    if inner is not None:
        refinement = (
            density_flow("spline", 3, 2, (8,), generator=generator)
            if inner == 3
            else split_flow("affine", 3, inner, 2, (8,), generator=generator)
        )
        randomize(refinement, 0.3, generator)
        latent.set_stage(refinement.double(), PenalizedSplit(3, inner, penalty=penalty))
    return latent


@pytest.mark.parametrize("penalty", PENALTIES)
def test_distribution_without_stages_is_a_product(penalty, generator):
    latent = _distribution(generator, penalty)
    z = torch.randn(20, 5, dtype=torch.float64, generator=generator)
    expected = norm.logpdf(z[:, :3]).sum(1)
    expected += (_log_density(penalty, z[:, 3:].numpy() / 0.5) - math.log(0.5)).sum(1)
    np.testing.assert_allclose(latent.log_prob(z).detach(), expected)


def test_scales_start_where_asked_and_keep_above_their_floor(generator):
    latent = _distribution(generator)
    np.testing.assert_allclose(latent.scales().detach(), 0.5)
    with torch.no_grad():
        latent.log_scales.fill_(-50.0)
    np.testing.assert_allclose(latent.scales().detach(), [0.1, 0.2])
    # Where the floor lies above the scale that was asked for, the floor it is.
    latent.set_scales(torch.tensor(0.15), torch.tensor([0.1, 0.2], dtype=torch.float64))
    np.testing.assert_allclose(latent.scales().detach(), [0.15, 0.2], rtol=1e-4)


@pytest.mark.parametrize("inner", [3, 2])
def test_distribution_with_a_stage_integrates_to_one(inner, generator):
    """By importance sampling from a broad normal distribution in 5 columns."""
    latent = _distribution(generator, "gaussian", inner)
    rows = 2.0 * torch.randn(100_000, 5, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        log_ratio = latent.log_prob(rows) - torch.tensor(norm.logpdf(rows, scale=2.0)).sum(1)
    assert float(log_ratio.exp().mean()) == pytest.approx(1, abs=0.03)
    with torch.no_grad():
        first = latent.log_prob(rows[:10], n_stages=1)
    np.testing.assert_allclose(
        first, _distribution(generator, "gaussian").log_prob(rows[:10]).detach()
    )


@pytest.mark.parametrize("inner", [None, 3, 2])
def test_samples_have_the_covariance_of_the_distribution(inner, generator):
    latent = _distribution(generator, "huber", inner)
    with torch.no_grad():
        drawn = latent.sample(100_000, generator)
        factor = latent.covariance_factor()
    np.testing.assert_allclose(np.cov(drawn.T), factor @ factor.T, atol=0.12)


@pytest.mark.parametrize("inner", [3, 2])
def test_stages_are_nested(inner, generator):
    latent = _distribution(generator, "huber", inner)
    assert [stage.n_components for stage in latent.stages] == [3, inner]
    u = torch.randn(30, inner, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        z = latent.embed_stage(u, stage=2)
        np.testing.assert_array_equal(z[:, 3:], 0)
        np.testing.assert_allclose(latent.project_stage(z, stage=2), u, atol=1e-10)
        # What lies on the manifold of the second stage lies on that of the first.
        np.testing.assert_allclose(latent.embed_stage(latent.project_stage(z)), z)


def test_coordinates_change_the_density_by_their_determinant(generator):
    latent = _distribution(generator, "huber", 3)
    latent.components = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    u = torch.randn(10, 3, dtype=torch.float64, generator=generator)
    z = latent.embed_stage(u)
    with torch.no_grad():
        coordinates = latent.project(z)
        np.testing.assert_allclose(latent.embed(coordinates), z, atol=1e-10)
        _, log_det = np.linalg.slogdet(latent.components)
        np.testing.assert_allclose(
            latent.log_prob_manifold(coordinates), latent.log_prob_u(u) - log_det, atol=1e-10
        )


def test_options_scale_variances(generator):
    latent = _distribution(generator, "laplace", 2)
    with torch.no_grad():
        still = latent.sample(50, generator, temperature=0.0, manifold_deviation=0.0)
        np.testing.assert_allclose(still, still[:1].expand(50, 5), atol=1e-12)
        on = latent.sample(50, generator, manifold_deviation=0.0)
        np.testing.assert_array_equal(on[:, 3:], 0)
        wide = latent.sample(50_000, generator, manifold_deviation=4.0)
    np.testing.assert_allclose(wide[:, 3:].var(0), 4 * 2 * 0.25, rtol=0.1)


def _nested(generator, n_distributions=3):
    """Return a distribution of 4 columns with stages of 3, 2 and 1 coordinates and random maps."""
    latents = [
        PenalizedSplit(*sizes, penalty="huber")
        for sizes in ((4, 3), (3, 2), (2, 1))[:n_distributions]
    ]
    for outer, inner in pairwise(latents):
        d = inner.n_features
        outer.set_stage(split_flow("affine", d, 1, 2, (4,), generator=generator).double(), inner)
    return perturb(latents[0], 0.1, generator)


@pytest.mark.parametrize("n_used", [1, 2, 3])
def test_a_distribution_of_the_first_stages_alone(n_used, generator):
    """It is the distribution that has no others: its density, its samples and its covariance."""
    latent = _nested(generator)
    # The stages are nested modules: those that are not in use are left out.
    alone = _nested(generator, n_used)
    alone.load_state_dict(latent.state_dict(), strict=False)
    latent.n_used = n_used
    z = torch.randn(50, 4, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(latent.log_prob(z), alone.log_prob(z), rtol=0, atol=0)
    torch.testing.assert_close(latent.log_prob(z), latent.log_prob(z, n_used), rtol=0, atol=0)
    draws = [m.sample(40, torch.Generator().manual_seed(1)) for m in (latent, alone)]
    torch.testing.assert_close(*draws, rtol=0, atol=0)
    torch.testing.assert_close(
        latent.covariance_factor(), alone.covariance_factor(), rtol=0, atol=0
    )
    u = z[:, :3]
    torch.testing.assert_close(
        latent.log_prob_manifold(u), alone.log_prob_manifold(u), rtol=0, atol=1e-12
    )
