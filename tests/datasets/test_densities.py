"""Exact log-densities of the noisy data sets against quadrature, lattices and closed forms."""

import numpy as np
import pytest
from scipy import integrate, special, stats

from skmanifoldflow import datasets
from skmanifoldflow.datasets._convolution import log_noisy_interval, log_noisy_sphere

ALL = [getattr(datasets, name) for name in datasets.__all__]
NOISY = [cls for cls in ALL if hasattr(cls, "log_density")]
COMPACT = [
    datasets.FigureEight,
    datasets.Helix,
    datasets.TrefoilKnot,
    datasets.LinkedCircles,
    datasets.SCurve,
    datasets.Torus,
    datasets.Paraboloid,
    datasets.Sphere,
    datasets.TwoSpheres,
    datasets.StickAndBall,
]


def test_line_equals_multivariate_normal():
    data = datasets.Line(noise=0.3)
    X, _ = data.sample(100, random_state=0)
    expected = stats.multivariate_normal(cov=np.ones((2, 2)) + 0.09 * np.eye(2)).logpdf(X)
    np.testing.assert_allclose(data.log_density(X), expected, atol=1e-11)


@pytest.mark.parametrize("cls", [datasets.Line, datasets.SinCurve, *COMPACT])
def test_density_integrates_to_one(cls):
    # With a step of 0.9 noise deviations the trapezoid rule errs by exp(-2 pi^2 / 0.81) = 3e-11;
    # six deviations around the points leave out less than 1e-8.
    noise = 1.0 if cls().dimension == 1 else 0.6
    step = 0.9 * noise
    X, _ = cls(noise=0).sample(2000, random_state=0)
    axes = [
        np.arange(low - 6 * noise, high + 6 * noise, step)
        for low, high in zip(X.min(axis=0), X.max(axis=0), strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, X.shape[1])
    total = np.exp(cls(noise=noise).log_density(grid)).sum() * step ** X.shape[1]
    assert total == pytest.approx(1, abs=1e-7)


def test_swiss_roll_density_integrates_to_one():
    # y is independent of the roll and a normal distribution around an interval, checked on its own.
    data = datasets.SwissRoll(noise=1.0)
    axis = np.arange(-21, 21, 0.9)
    grid = np.stack(np.meshgrid(axis, [10.5], axis, indexing="ij"), axis=-1).reshape(-1, 3)
    total = np.exp(data.log_density(grid)).sum() * 0.81 * 21
    assert total == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("cls", NOISY)
def test_density_is_the_mean_of_normal_distributions_around_noiseless_rows(cls):
    # Tests distribution and density against each other, within five standard errors of the mean.
    noise = {datasets.SwissRoll: 2.0, datasets.PolynomialSurface: 0.1}.get(cls, 0.5)
    data = cls(noise=noise)
    n_draws = 3000 if data.n_features > 100 else 40_000
    points, _ = cls(noise=0).sample(n_draws, random_state=0)
    X, _ = data.sample(12, random_state=1)
    for row, log_density in zip(X, data.log_density(X), strict=True):
        squared = ((points - row) ** 2).sum(axis=1)
        log_terms = -0.5 * squared / noise**2
        log_norm = -data.n_features / 2 * np.log(2 * np.pi * noise**2)
        # Relative to the first term's scale, since 1024 columns leave the range of a double.
        terms = np.exp(log_terms - log_terms.max())
        mean = np.exp(log_density - log_norm - log_terms.max())
        assert abs(terms.mean() - mean) < 5 * terms.std() / np.sqrt(n_draws)


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.5])
def test_sin_curve_against_quad(noise):
    data = datasets.SinCurve(noise=noise)
    X = np.vstack([data.sample(6, random_state=0)[0], [[3.0, 1.0], [0.3, -1.4], [6.0, 0.5]]])

    def integrand(t, x, top):
        exponent = -0.5 * t**2 - 0.5 * ((x[0] - t) ** 2 + (x[1] - np.sin(2 * t)) ** 2) / noise**2
        return np.exp(exponent - top)

    for x, value in zip(X, data.log_density(X), strict=True):
        grid = np.linspace(x[0] - 4, x[0] + 4, 20001)
        top = np.log(integrand(grid, x, 0.0).max() + 1e-300)
        peak = grid[np.argmax(integrand(grid, x, top))]
        points = peak + noise * np.array([-8, -4, -1, 0, 1, 4, 8])
        total, _ = integrate.quad(
            integrand, x[0] - 5, x[0] + 5, args=(x, top), points=points, limit=500, epsabs=1e-13
        )
        expected = np.log(total) + top - 1.5 * np.log(2 * np.pi) - 2 * np.log(noise)
        assert value == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("cls", [datasets.SCurve, datasets.SwissRoll])
def test_sheets_against_quad(cls):
    noise = 0.05
    data = cls(noise=noise)
    X, _ = data.sample(6, random_state=0)
    start, stop, width = (
        (-1.5 * np.pi, 1.5 * np.pi, 2) if cls is datasets.SCurve else (1.5 * np.pi, 4.5 * np.pi, 21)
    )

    def profile(t):
        if cls is datasets.SCurve:
            return np.sin(t), np.sign(t) * (np.cos(t) - 1)
        return t * np.cos(t), t * np.sin(t)

    def normal(difference):
        return np.exp(-0.5 * (difference / noise) ** 2) / np.sqrt(2 * np.pi) / noise

    for x, value in zip(X, data.log_density(X), strict=True):
        grid = np.linspace(start, stop, 20001)
        x1, x3 = profile(grid)
        nearest = grid[np.argmin((x1 - x[0]) ** 2 + (x3 - x[2]) ** 2)]
        points = np.clip(nearest + noise * np.array([-8, -4, -1, 0, 1, 4, 8]), start, stop)
        along, _ = integrate.quad(
            lambda t, x=x: normal(profile(t)[0] - x[0]) * normal(profile(t)[1] - x[2]),
            start,
            stop,
            points=points,
            limit=500,
        )
        near = np.clip(x[1] + noise * np.array([-8, -2, 0, 2, 8]), 0, width)
        across, _ = integrate.quad(
            lambda y, x=x: normal(y - x[1]), 0, width, points=near, limit=500
        )
        expected = np.log(along / (stop - start)) + np.log(across / width)
        assert value == pytest.approx(expected, abs=1e-9)


def test_polynomial_surface_against_a_lattice():
    # A sum over a lattice with a third of the noise as its step is exact to rounding.
    noise, step = 0.05, 0.05 / 3
    data = datasets.PolynomialSurface(noise=noise)
    X, _ = data.sample(25, random_state=0)
    axis = np.arange(-5, 5, step)
    lattice = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    log_mixture = np.logaddexp(
        np.log(0.6) + stats.multivariate_normal([0.8, -0.4], 0.49 * np.eye(2)).logpdf(lattice),
        np.log(0.4) + stats.multivariate_normal([-1, 0.8], 0.25 * np.eye(2)).logpdf(lattice),
    )
    points = data.embed(lattice)
    for x, value in zip(X, data.log_density(X), strict=True):
        exponent = log_mixture - 0.5 * ((points - x) ** 2).sum(axis=1) / noise**2
        expected = special.logsumexp(exponent) + 2 * np.log(step)
        expected -= 1.5 * np.log(2 * np.pi * noise**2)
        assert value == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("n_features", [2, 3, 4, 11, 79, 90, 400])
@pytest.mark.parametrize("noise", [0.05, 0.3, 3.0])
def test_noisy_sphere_against_quad(n_features, noise):
    for distance in (1e-9, 0.4, 1.0, 1.7):

        def log_weight(angle, kappa=distance / noise**2):
            return kappa * (np.cos(angle) - 1) + (n_features - 2) * np.log(np.sin(angle))

        grid = np.linspace(0, np.pi, 4001)[1:-1]
        top = log_weight(grid).max()
        peak = grid[np.argmax(log_weight(grid))]
        points = np.clip(peak + np.array([-0.3, -0.1, 0, 0.1, 0.3]), 0, np.pi)
        total, _ = integrate.quad(
            lambda angle, top=top, log_weight=log_weight: np.exp(log_weight(angle) - top),
            *(0, np.pi),
            points=points,
            limit=400,
            epsrel=1e-12,
        )
        expected = (
            np.log(total)
            + top
            - special.betaln(0.5, (n_features - 1) / 2)
            - 0.5 * ((distance - 1) / noise) ** 2
            - n_features / 2 * np.log(2 * np.pi * noise**2)
        )
        value = log_noisy_sphere(np.array(distance), 1.0, n_features, noise)
        assert value == pytest.approx(expected, abs=1e-8, rel=1e-10)


def test_noisy_interval_far_out():
    # Against the leading term of Mills' ratio, whose relative error is 1 / z^2.
    far = np.array([-1e3, 1e3])
    z = np.array([1e3, 998.0]) / 0.1
    expected = stats.norm.logpdf(z) - np.log(z) - np.log(2)
    np.testing.assert_allclose(log_noisy_interval(far, 0.0, 2.0, 0.1), expected, rtol=1e-10)


@pytest.mark.parametrize("cls", NOISY)
def test_far_rows_are_finite_and_fall_with_the_squared_distance(cls):
    data = cls(noise=0.05)
    direction = np.random.RandomState(0).standard_normal((4, data.n_features))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    if cls not in (datasets.Line, datasets.SinCurve, datasets.PolynomialSurface):
        for scale in (1e2, 1e4, 1e6):
            X = scale * direction
            expected = stats.norm.logpdf(data.distance(X), scale=data.noise)
            expected += (data.n_features - 1) * stats.norm.logpdf(0, scale=data.noise)
            np.testing.assert_allclose(data.log_density(X), expected, rtol=1e-3)
    assert np.isfinite(data.log_density(np.vstack([1e3 * direction, 1e6 * direction]))).all()


@pytest.mark.parametrize("cls", NOISY)
def test_a_row_does_not_depend_on_the_others(cls):
    data = cls(noise=0.05)
    X, _ = data.sample(300, random_state=0)
    whole = data.log_density(X)
    np.testing.assert_allclose(data.log_density(X[100:103]), whole[100:103], rtol=1e-12)
    np.testing.assert_allclose(data.distance(X[100:103]), data.distance(X)[100:103], atol=1e-9)


@pytest.mark.parametrize("cls", NOISY)
def test_manifold_density_is_the_limit_of_small_noise(cls):
    # On the manifold the noise contributes N(0; 0, noise^2) per normal direction, up to terms of
    # order noise^2; only rows within a few noise deviations of an edge are far off.
    noise = 1e-3
    data = cls(noise=noise)
    _, coordinates = data.sample(60, random_state=2)
    normal_directions = data.n_features - data.local_dimension(coordinates)
    deflated = data.log_density(data.embed(coordinates)) + normal_directions / 2 * np.log(
        2 * np.pi * noise**2
    )
    error = np.abs(deflated - data.log_density_manifold(coordinates))
    assert np.median(error) < 1e-4
    assert np.mean(error < 1e-2) > 0.95
