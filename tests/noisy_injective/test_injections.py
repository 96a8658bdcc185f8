"""Injections against scipy, quadrature and dense linear algebra."""

import math

import numpy as np
import pytest
import torch
from helpers import perturb
from scipy.integrate import trapezoid
from scipy.stats import multivariate_normal
from torch import nn

from skmanifoldflow._noisy_injective.distribution import NoisyInjection
from skmanifoldflow._noisy_injective.injections import (
    LinearInjection,
    SquareInjection,
)
from skmanifoldflow._noisy_injective.stochastic_coupling import StochasticCoupling
from skmanifoldflow._noisy_injective.upsampling import UpsamplingInjection

FLOOR = 0.01


def _perturbed(module, generator, scale=0.5):
    return perturb(module.double(), scale, generator).requires_grad_(False)


def _linear(generator, *, n_features=5, n_components=2, noise_covariance="diag"):
    injection = LinearInjection(
        n_features, n_components, noise_covariance=noise_covariance, noise_floor=FLOOR
    )
    return _perturbed(injection, generator)


def _upsampling(generator, noise_covariance="diag"):
    injection = UpsamplingInjection(
        (2, 4, 6), 2, noise_covariance=noise_covariance, noise_floor=FLOOR
    )
    return _perturbed(injection, generator)


def _square(generator):
    injection = SquareInjection(4, noise_floor=FLOOR)
    axes = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))[0]
    injection.double().initialize(torch.zeros(4), axes, torch.tensor([4.0, 2.0, 1.0, 0.5]))
    return injection.requires_grad_(False)


def _coupling(generator):
    injection = StochasticCoupling(
        5,
        3,
        noise_covariance="diag",
        noise_floor=FLOOR,
        hidden_layer_sizes=(8,),
        generator=generator,
    )
    return _perturbed(injection, generator, scale=0.3)


def _rows(injection, n, generator):
    return torch.randn(n, injection.n_features, dtype=torch.float64, generator=generator)


def _matrix(injection):
    """A, read off column by column."""
    b, _ = injection.noise()
    zero = torch.zeros(injection.n_components, injection.n_features, dtype=torch.float64)
    eye = torch.eye(injection.n_components, dtype=torch.float64)
    return (injection.generate(eye, zero) - b).T


def _density(injection):
    b, variance = injection.noise()
    a = _matrix(injection)
    return multivariate_normal(b.numpy(), (a @ a.T + variance.diag()).numpy(), allow_singular=False)


INJECTIONS = {
    "diag": _linear,
    "spherical": lambda g: _linear(g, noise_covariance="spherical"),
    "full rank": lambda g: _linear(g, n_features=3, n_components=3),
    "upsampling": _upsampling,
    "upsampling, spherical": lambda g: _upsampling(g, "spherical"),
}


@pytest.mark.parametrize("name", INJECTIONS)
def test_closed_form_is_the_normal_distribution(name, generator):
    """log p(y) under z ~ N(0, I) is N(y; b, A A' + Sigma), to 1e-8."""
    injection = INJECTIONS[name](generator)
    y = _rows(injection, 20, generator)
    expected = _density(injection).logpdf(y.numpy())
    np.testing.assert_allclose(injection.log_marginal(y), expected, atol=1e-8, rtol=0)
    np.testing.assert_allclose(injection.covariance(), _density(injection).cov, atol=1e-12)


@pytest.mark.parametrize("name", ["diag", "spherical", "full rank"])
def test_gradient_of_the_closed_form(name, generator):
    injection = INJECTIONS[name](generator)
    y = _rows(injection, 4, generator).requires_grad_()
    inputs = (y, *injection.parameters())

    def function(*_):
        return injection.log_marginal(y)

    injection.requires_grad_(True)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_printed_closed_form_is_off_by_a_constant(generator):
    """Eq. 41 of the paper has (d/2) log 2 pi too much."""
    injection = _linear(generator)
    y = _rows(injection, 10, generator)
    a, (b, variance) = _matrix(injection), injection.noise()
    mu = y - b
    lam = a.T @ (a / variance[:, None])
    u = (mu / variance) @ a
    posterior = torch.eye(2, dtype=torch.float64) + lam
    log_z_z = 0.5 * (
        (u * torch.linalg.solve(posterior, u.T).T).sum(1)
        - torch.linalg.slogdet(posterior)[1]
        + 2 * math.log(2 * math.pi)
    )
    log_z_x = 0.5 * ((mu**2 / variance).sum(1) + variance.log().sum() + 5 * math.log(2 * math.pi))
    printed = (log_z_z - log_z_x).numpy()
    exact = _density(injection).logpdf(y.numpy())
    np.testing.assert_allclose(printed - exact, math.log(2 * math.pi), atol=1e-8)
    np.testing.assert_allclose(injection.log_marginal(y), exact, atol=1e-8)


def test_printed_projection_is_transposed(generator):
    """The isotropic manifold term has A (A'A)^-1 A' and 1/2 logdet A'A.

    The paper prints A' (A'A)^-1 A, which is not even of the right shape for d < D, and divides the
    volume term by the variance.
    """
    injection = _linear(generator, noise_covariance="spherical")
    y = _rows(injection, 10, generator)
    a, (b, variance) = _matrix(injection), injection.noise()
    mu, sigma = (y - b), float(variance[0])
    projected = mu @ a @ torch.linalg.inv(a.T @ a) @ a.T
    expected = (
        -0.5 / sigma * (mu * (mu - projected)).sum(1)
        - 0.5 * torch.linalg.slogdet(a.T @ a)[1]
        - 0.5 * (5 - 2) * math.log(2 * math.pi * sigma)
    )
    _, manifold_term = injection.stochastic_inverse(y, torch.zeros(10, 2))
    np.testing.assert_allclose(manifold_term, expected, atol=1e-8)


def test_manifold_term_is_the_integral_over_z(generator):
    """log int p(y | z) dz by quadrature over a line, and q(z | y) = p(y | z) / that integral."""
    injection = _linear(generator, n_features=3, n_components=1)
    y = _rows(injection, 4, generator)
    mode = injection.mode(y)
    _, manifold_term = injection.stochastic_inverse(y, torch.zeros(4, 1))
    a, (b, variance) = _matrix(injection), injection.noise()
    deviation = variance.sqrt()
    for i in range(4):
        z = torch.linspace(-20, 20, 40001, dtype=torch.float64)[:, None] + mode[i]
        log_p = -0.5 * (((y[i] - b - z @ a.T) / deviation) ** 2).sum(1)
        log_p = log_p - deviation.log().sum() - 1.5 * math.log(2 * math.pi)
        density = log_p.exp().numpy()
        integral = trapezoid(density, z[:, 0].numpy())
        assert float(manifold_term[i]) == pytest.approx(math.log(integral), abs=1e-7)
        mean = trapezoid(density * z[:, 0].numpy(), z[:, 0].numpy()) / integral
        assert float(mode[i]) == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("name", [*INJECTIONS, "coupling", "square"])
def test_mode_inverts_generate(name, generator):
    injection = {**INJECTIONS, "coupling": _coupling, "square": _square}[name](generator)
    z = torch.randn(7, injection.n_components, dtype=torch.float64, generator=generator)
    y = injection.generate(z, torch.zeros(7, injection.n_features, dtype=torch.float64))
    torch.testing.assert_close(injection.mode(y), z, atol=1e-8, rtol=0)


def test_principal_axes_are_orthogonal_and_have_a_sign(generator):
    """In the metric of the noise, in descending order; the largest entry of each is positive."""
    injection = _linear(generator)
    _, variance = injection.noise()
    columns = _matrix(injection) @ injection.principal_rotation()
    gram = columns.T @ (columns / variance[:, None])
    torch.testing.assert_close(gram, gram.diagonal().diag())
    assert gram[0, 0] > gram[1, 1]
    assert (columns[columns.abs().argmax(0), torch.arange(2)] > 0).all()


@pytest.mark.parametrize("name", ["diag", "upsampling"])
def test_mode_is_the_least_squares_solution(name, generator):
    """z+ minimises || y - b - A z || in the metric of Sigma^-1 (appendix A.3)."""
    injection = INJECTIONS[name](generator)
    y = _rows(injection, 6, generator)
    a, (b, variance) = _matrix(injection), injection.noise()
    weight = variance.rsqrt()
    expected = torch.linalg.lstsq(a * weight[:, None], ((y - b) * weight).T).solution.T
    torch.testing.assert_close(injection.mode(y), expected)


def test_posterior_mean_of_a_normal_distribution(generator):
    """E[z | y] = A' (A A' + Sigma)^-1 (y - b)."""
    injection = _linear(generator)
    y = _rows(injection, 6, generator)
    a, (b, _) = _matrix(injection), injection.noise()
    expected = (y - b) @ torch.linalg.inv(injection.covariance()) @ a
    torch.testing.assert_close(injection.posterior_mean(y), expected)


def test_samples_of_the_stochastic_inverse(generator):
    """Mean Lam^-1 u and covariance Lam^-1."""
    injection = _linear(generator)
    y = _rows(injection, 1, generator).expand(200_000, -1)
    noise = torch.randn(200_000, 2, dtype=torch.float64, generator=generator)
    z, _ = injection.stochastic_inverse(y, noise)
    a, (_, variance) = _matrix(injection), injection.noise()
    covariance = torch.linalg.inv(a.T @ (a / variance[:, None]))
    scale = covariance.diagonal().max().sqrt()
    torch.testing.assert_close(z.mean(0), injection.mode(y[:1])[0], atol=float(scale) / 50, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), covariance, atol=0.02 * float(scale) ** 2, rtol=0)


def test_upsampling_copies_pixels():
    injection = UpsamplingInjection((1, 4, 4), 2, noise_covariance="spherical", noise_floor=FLOOR)
    injection.double().requires_grad_(False)
    z = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    y = injection.generate(z, torch.zeros(1, 16, dtype=torch.float64)).view(4, 4)
    expected = nn.functional.interpolate(z.view(1, 1, 2, 2), scale_factor=2, mode="nearest")
    torch.testing.assert_close(y, expected[0, 0])


@pytest.mark.parametrize("noise_covariance", ["diag", "spherical"])
def test_upsampling_starts_at_the_data(noise_covariance, generator):
    """A large sample of the distribution gives the distribution back."""
    truth = _upsampling(generator, noise_covariance)
    z = torch.randn(50_000, truth.n_components, dtype=torch.float64, generator=generator)
    noise = torch.randn(50_000, truth.n_features, dtype=torch.float64, generator=generator)
    y = truth.generate(z, noise)
    injection = UpsamplingInjection(
        (2, 4, 6), 2, noise_covariance=noise_covariance, noise_floor=FLOOR
    )
    injection.double().requires_grad_(False).initialize(y)
    torch.testing.assert_close(injection.b, truth.b, atol=0.05, rtol=0)
    torch.testing.assert_close(injection.a.abs(), truth.a.abs(), atol=0.1, rtol=0)
    if noise_covariance == "spherical":
        torch.testing.assert_close(injection.noise()[1], truth.noise()[1], rtol=0.02, atol=0)


def test_initialization_of_a_linear_injection_keeps_to_the_floor():
    injection = LinearInjection(3, 2, noise_covariance="diag", noise_floor=0.1)
    injection.double().requires_grad_(False)
    injection.initialize(
        torch.zeros(3), torch.eye(3, 2), torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.0, 1e-9])
    )
    _, variance = injection.noise()
    assert variance[0] == pytest.approx(0.5, rel=1e-12)
    assert variance[1:].tolist() == pytest.approx([0.01, 0.01], rel=1e-5)
    y = torch.randn(4, 3, dtype=torch.float64)
    assert torch.isfinite(injection.mode(y)).all()


def test_square_injection_is_the_normal_distribution(generator):
    injection = _square(generator)
    y = _rows(injection, 9, generator)
    axes = injection.u.numpy()
    covariance = axes @ np.diag([4.0, 2.0, 1.0, 0.5]) @ axes.T
    expected = multivariate_normal(np.zeros(4), covariance).logpdf(y.numpy())
    np.testing.assert_allclose(injection.log_marginal(y), expected, atol=1e-10)
    np.testing.assert_allclose(injection.covariance(), covariance, atol=1e-12)


def test_stochastic_coupling_density_by_quadrature(generator):
    """log p(y) of eq. 40, d = D = 2, by a grid over (z1, z2); importance samples agree."""
    injection = _perturbed(
        StochasticCoupling(
            2,
            2,
            noise_covariance="diag",
            noise_floor=0.3,
            hidden_layer_sizes=(6,),
            generator=generator,
        ),
        generator,
        scale=0.4,
    )
    y = torch.tensor([[0.3, -0.4], [1.0, 0.5]], dtype=torch.float64)
    axis = torch.linspace(-8, 8, 641, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    latent = NoisyInjection(injection, n_importance_samples=200_000)
    with torch.no_grad():
        estimate = latent.log_prob(y)
        for row, value in zip(y, estimate, strict=True):
            z1, z2, rows = grid[:, :1], grid[:, 1:], row.expand(len(grid), -1)
            log_p = -0.5 * (grid**2).sum(1) - math.log(2 * math.pi)
            for part, z, context, target in (
                (injection.second, z2, z1, rows[:, 1:]),
                (injection.first, z1, rows[:, 1:], rows[:, :1]),
            ):
                b, variance = part.noise(context)
                residual = target - part.multiply(z) - b
                log_p = log_p - 0.5 * (
                    (residual**2 / variance).sum(1) + variance.log().sum(1) + math.log(2 * math.pi)
                )
            exact = math.log(float(log_p.exp().sum() * (16 / 640) ** 2))
            assert float(value) == pytest.approx(exact, abs=0.02)


def test_stochastic_coupling_generates_what_it_scores(generator):
    """E_y[p(y) / r(y)] over draws y ~ p equals E_r[...]: the density integrates to 1.

    With r a broad normal distribution, mean over y ~ r of p(y) / r(y) is 1.
    """
    injection = _perturbed(
        StochasticCoupling(
            3,
            2,
            noise_covariance="diag",
            noise_floor=0.5,
            hidden_layer_sizes=(6,),
            generator=generator,
        ),
        generator,
        scale=0.3,
    )
    latent = NoisyInjection(injection, n_importance_samples=200)
    with torch.no_grad():
        drawn = latent.sample(20_000, generator)
        reference = multivariate_normal(drawn.mean(0).numpy(), 2 * np.cov(drawn.numpy().T))
        y = torch.tensor(reference.rvs(20_000, random_state=0))
        ratio = np.exp(latent.log_prob(y).numpy() - reference.logpdf(y.numpy()))
    assert ratio.mean() == pytest.approx(1, abs=0.03)
    # The weighted second moments are those of the draws.
    centred = y.numpy() - drawn.mean(0).numpy()
    moments = (ratio[:, None, None] * centred[:, :, None] * centred[:, None, :]).mean(0)
    np.testing.assert_allclose(moments, np.cov(drawn.numpy().T), atol=0.15 * np.abs(moments).max())


@pytest.mark.parametrize("sizes", [(1, 1), (4, 1), (4, 5)])
def test_stochastic_coupling_needs_two_components(sizes, generator):
    with pytest.raises(ValueError, match="components"):
        StochasticCoupling(
            *sizes,
            noise_covariance="diag",
            noise_floor=FLOOR,
            hidden_layer_sizes=(4,),
            generator=generator,
        )
