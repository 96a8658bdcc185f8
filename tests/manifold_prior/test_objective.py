"""The spread likelihood and its closed-form steps against scipy, known moments and Monte Carlo."""

import math

import numpy as np
import pytest
import torch
from helpers import randomize
from scipy import stats
from scipy.spatial.distance import pdist

from skmanifoldflow._manifold_prior.distribution import LearnedCovariance
from skmanifoldflow._manifold_prior.objective import Geodesics, SpreadLikelihood
from skmanifoldflow.backend.architectures import volume_preserving_flow
from skmanifoldflow.backend.bijections import AffineCoupling, Chain, Orthogonal
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.flow import ManifoldFlow

D = 3
FLOOR = 0.05


def correlated_rows(n_rows=60, n_features=D, seed=0):
    """Return correlated rows with a mean."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_features, n_features))
    return torch.tensor(
        rng.normal(size=(n_rows, n_features)) @ mixing + rng.normal(size=n_features)
    )


def build(bijection=None, n_features=D, n_free=None, dtype=torch.float64, **kwargs):
    """Return an objective, by default around the identity."""
    flow = ManifoldFlow(
        Chain([]) if bijection is None else bijection, LearnedCovariance(n_features, n_free)
    )
    settings = {
        "spread": "data",
        "prior_update": "closed_form",
        "isometry": 0.0,
        "noise_start": 0.3,
        "noise_floor": FLOOR,
        "geodesics": None,
        "generator": make_generator(1),
    }
    objective = SpreadLikelihood(flow, **{**settings, **kwargs})
    flow.move_to(torch.device("cpu"), dtype)
    return objective


def curved_flow(n_features=D):
    """Return a volume-preserving flow with random weights."""
    generator = make_generator(2)
    flow = volume_preserving_flow("affine", n_features, 4, (8,), generator=generator)
    return randomize(flow, 0.4, generator).double()


def stretching(log_scale, n_features=D):
    """Return the map x -> exp(log_scale) x."""
    layer = AffineCoupling(n_features, n_features, (), generator=make_generator(0))
    with torch.no_grad():
        layer.conditioner.layers[-1].bias[n_features:] = 2 * math.atanh(log_scale / 2)
    return Chain([layer]).double()


def inflated(objective, rows, progress):
    """Return the rows with the noise that the next call of `loss` adds to them."""
    generator = torch.Generator()
    generator.set_state(objective.generator.get_state())
    noise = torch.randn(rows.shape, dtype=rows.dtype, generator=generator)
    return rows + objective.noise(progress) * noise


def covariance_of(rows):
    return np.cov(rows.detach().numpy().T, ddof=0).reshape(rows.shape[1], rows.shape[1])


def cross_entropy(rows, mean, covariance):
    return -stats.multivariate_normal(mean, covariance).logpdf(rows).mean()


# Noise


def test_noise_falls_geometrically_to_its_floor():
    objective = build(noise_start=0.8, noise_floor=0.05)
    end = objective.annealing
    assert objective.noise(0.0) == pytest.approx(0.8)
    assert objective.noise(end / 2) == pytest.approx(math.sqrt(0.8 * 0.05))
    assert objective.noise(end) == objective.noise((end + 1) / 2) == objective.noise(1.0) == 0.05
    values = [objective.noise(progress) for progress in np.linspace(0, end, 20)]
    np.testing.assert_allclose(np.diff(np.log(values)), np.log(0.05 / 0.8) / 19)


def test_noise_that_starts_below_its_floor_stays_at_it():
    objective = build(noise_start=0.01, noise_floor=0.1)
    assert {objective.noise(progress) for progress in (0.0, 0.3, 1.0)} == {0.1}


# The closed-form prior


@pytest.mark.parametrize("n_features", [1, 2, 5])
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_loss_is_the_cross_entropy_with_the_moments_of_the_batch(n_features, progress):
    objective, rows = build(n_features=n_features), correlated_rows(n_features=n_features)
    x = inflated(objective, rows, progress)
    expected = cross_entropy(x, x.mean(0), covariance_of(x))
    assert objective.loss(rows, progress).item() == pytest.approx(expected)


def test_loss_sees_the_rows_through_the_flow():
    objective, rows = build(curved_flow()), correlated_rows()
    z, _ = objective.flow.bijection.forward_and_log_det(inflated(objective, rows, 0.4))
    z = z.detach()
    expected = cross_entropy(z, z.mean(0), covariance_of(z))
    assert objective.loss(rows, 0.4).item() == pytest.approx(expected)


@pytest.mark.parametrize("spread", ["data", "latent"])
@pytest.mark.parametrize("n_free", [None, 1, 2])
def test_gradient_is_that_of_half_the_log_determinant(spread, n_free):
    objective, rows = build(curved_flow(), n_free=n_free, spread=spread), correlated_rows()
    assert len(rows) >= objective.rows_per_feature * D
    parameters = list(objective.flow.bijection.parameters())
    # A second call has a running covariance, which many rows overrule.
    for progress in (0.2, 0.5):
        x = inflated(objective, rows, progress) if spread == "data" else rows
        z, _ = objective.flow.bijection.forward_and_log_det(x)
        covariance = torch.cov(z.T, correction=0)
        if spread == "latent":
            covariance = covariance + objective.noise(progress) ** 2 * torch.eye(D).double()
        eigenvalues = torch.linalg.eigvalsh(covariance)
        n_rest = D - (n_free or D)
        log_det = eigenvalues[n_rest:].log().sum()
        if n_rest:
            log_det = log_det + n_rest * eigenvalues[:n_rest].mean().log()
        expected = torch.autograd.grad(0.5 * log_det, parameters)
        actual = torch.autograd.grad(objective.loss(rows, progress), parameters)
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-7, atol=1e-10)


def test_float32_loss_and_gradient_follow_float64():
    results = []
    for dtype in (torch.float32, torch.float64):
        objective = build(curved_flow(), dtype=dtype, spread="latent")
        loss = objective.loss(correlated_rows().to(dtype), 0.5)
        assert loss.dtype == dtype
        gradients = torch.autograd.grad(loss, list(objective.flow.bijection.parameters()))
        results.append(torch.cat([loss[None], *(g.flatten() for g in gradients)]).double())
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_few_rows_share_their_covariance_with_the_batches_before():
    objective = build(spread="latent", noise_start=FLOOR)
    first, second = correlated_rows(100), correlated_rows(3, seed=1)
    objective.loss(first, 0.0)
    loss = objective.loss(second, 0.0)
    noise = FLOOR**2 * np.eye(D)
    share = 3 / (objective.rows_per_feature * D)
    own = covariance_of(second) + noise
    pooled = (1 - share) * (covariance_of(first) + noise) + share * own
    precision = np.linalg.inv(pooled)
    expected = 0.5 * (
        np.linalg.slogdet(pooled)[1] + np.sum(precision * own) + D * math.log(2 * math.pi)
    )
    assert loss.item() == pytest.approx(expected)


def test_fewer_rows_than_columns_have_a_finite_loss():
    objective = build(curved_flow(20), n_features=20)
    loss = objective.loss(correlated_rows(5, 20), 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters())


def test_latent_spread_is_the_expectation_over_the_noise():
    objective, rows = build(spread="latent", noise_start=0.5), correlated_rows()
    s = 0.5
    covariance = covariance_of(rows) + s**2 * np.eye(D)
    rng = np.random.default_rng(0)
    draws = np.array(
        [
            cross_entropy(rows.numpy() + s * rng.normal(size=rows.shape), rows.mean(0), covariance)
            for _ in range(300)
        ]
    )
    error = draws.std() / math.sqrt(len(draws))
    assert abs(objective.loss(rows, 0.0).item() - draws.mean()) < 4 * error < 0.03


# The trained prior


@pytest.mark.parametrize("n_free", [None, 2])
def test_trained_prior_starts_at_the_moments(n_free):
    objective, rows = (
        build(prior_update="gradient", n_free=n_free, spread="latent"),
        correlated_rows(),
    )
    objective.initialize_prior(rows)
    assert torch.equal(objective.a, objective.a.tril())
    a = objective.a.detach().numpy()
    np.testing.assert_allclose(a @ a.T, covariance_of(rows), atol=1e-12)
    np.testing.assert_allclose(objective.m.detach(), rows.mean(0))
    assert objective.undecayed_parameters() == [objective.a, objective.m]
    assert {id(p) for p in objective.parameters()} >= {id(objective.a), id(objective.m)}


def random_prior(objective):
    """Replace A and m; return them as numpy arrays, A with its upper triangle at zero."""
    objective.initialize_prior(correlated_rows())
    generator = make_generator(3)
    with torch.no_grad():
        for p in (objective.a, objective.m):
            p.copy_(torch.randn(p.shape, dtype=p.dtype, generator=generator))
    return np.tril(objective.a.detach().numpy()), objective.m.detach().numpy()


@pytest.mark.parametrize("n_free", [None, 2])
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_trained_prior_is_scored_as_by_scipy(n_free, progress):
    objective, rows = build(prior_update="gradient", n_free=n_free), correlated_rows()
    a, m = random_prior(objective)
    s = objective.noise(progress)
    expected = cross_entropy(inflated(objective, rows, progress), m, a @ a.T + s**2 * np.eye(D))
    assert objective.loss(rows, progress).item() == pytest.approx(expected)


def test_trained_prior_with_latent_spread_is_the_expectation_over_the_noise():
    objective, rows = build(prior_update="gradient", n_free=2, spread="latent"), correlated_rows()
    a, m = random_prior(objective)
    s = objective.noise(0.0)
    covariance = a @ a.T + s**2 * np.eye(D)
    # E (x + s eps)' P (x + s eps) exceeds x' P x by s^2 tr P.
    expected = cross_entropy(rows, m, covariance) + 0.5 * s**2 * np.trace(np.linalg.inv(covariance))
    assert objective.loss(rows, 0.0).item() == pytest.approx(expected)


@pytest.mark.parametrize("n_free", [None, 2])
def test_trained_prior_is_handed_to_the_distribution(n_free):
    objective, rows = build(prior_update="gradient", n_free=n_free), correlated_rows()
    a, m = random_prior(objective)
    objective.update_closed_form(rows)
    eigenvalues, vectors = np.linalg.eigh(a @ a.T + FLOOR**2 * np.eye(D))
    n_rest = D - (n_free or D)
    eigenvalues[:n_rest] = eigenvalues[: n_rest or 1].mean()
    latent = stats.multivariate_normal(m, vectors * eigenvalues @ vectors.T)
    np.testing.assert_allclose(objective.flow.log_prob(rows).detach(), latent.logpdf(rows))


def test_trained_prior_has_a_gradient():
    objective, rows = build(prior_update="gradient", spread="latent"), correlated_rows()
    objective.initialize_prior(rows)
    objective.loss(rows, 1.0).backward()
    # The moments of the rows are the optimum.
    torch.testing.assert_close(objective.m.grad, torch.zeros(D, dtype=torch.float64))
    torch.testing.assert_close(objective.a.grad, torch.zeros(D, D, dtype=torch.float64))
    random_prior(objective)
    objective.m.grad = objective.a.grad = None
    objective.loss(rows, 1.0).backward()
    assert (objective.m.grad != 0).all()
    assert (objective.a.grad.tril() != 0).any()
    assert (objective.a.grad.triu(1) == 0).all()


# Entropy


# Isometry


def departure(bijection, rows, progress=0.0, **kwargs):
    """Return what the isometry term adds to the loss, per unit of its weight."""
    plain = build(bijection, n_features=rows.shape[1])
    penalised = build(bijection, n_features=rows.shape[1], isometry=2.0, **kwargs)
    return (penalised.loss(rows, progress) - plain.loss(rows, progress)).item() / 2


def euclidean(rows):
    distances = torch.cdist(rows, rows)
    return Geodesics(rows, distances, float(distances.square().mean()))


def test_rotation_departs_from_nothing():
    rotation = Chain([Orthogonal(D, generator=make_generator(5))]).double()
    assert departure(rotation, correlated_rows()) == pytest.approx(0, abs=1e-12)
    assert departure(
        rotation, correlated_rows(), geodesics=euclidean(correlated_rows(50))
    ) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("log_scale", [0.3, -0.7])
@pytest.mark.parametrize("n_rows", [1, 10, 100])
def test_stretching_departs_by_its_squared_log(log_scale, n_rows):
    rows = correlated_rows(n_rows)
    expected = (2 * log_scale) ** 2
    assert departure(stretching(log_scale), rows) == pytest.approx(expected)


@pytest.mark.parametrize("progress", [0.0, 0.2, 1.0])
def test_geodesics_penalise_the_squared_error_of_distances(progress):
    rows, log_scale = correlated_rows(20, seed=4), 0.3
    geodesics = euclidean(rows)
    first, last = SpreadLikelihood.geodesic_weights
    weight = max(last, first * (1 - progress / SpreadLikelihood.unrolling))
    stress = np.square((math.exp(log_scale) - 1) * pdist(rows.numpy())).mean()
    expected = (2 * log_scale) ** 2 + weight * stress / geodesics.mean_square
    actual = departure(stretching(log_scale), correlated_rows(), progress, geodesics=geodesics)
    assert actual == pytest.approx(expected)


def test_unconnected_rows_have_no_distance_error():
    rows, log_scale = correlated_rows(20, seed=4), 0.3
    geodesics = euclidean(rows)
    geodesics.distances[:8, 8:] = geodesics.distances[8:, :8] = torch.inf
    squares = np.concatenate(
        [np.square(pdist(part)) for part in (rows[:8].numpy(), rows[8:].numpy())]
    )
    stress = (math.exp(log_scale) - 1) ** 2 * squares.sum() / math.comb(20, 2)
    expected = (2 * log_scale) ** 2 + (
        SpreadLikelihood.geodesic_weights[0] * stress / geodesics.mean_square
    )
    actual = departure(stretching(log_scale), correlated_rows(), geodesics=geodesics)
    assert actual == pytest.approx(expected)


def test_rows_of_a_sheet_are_drawn_to_their_places():
    rows, log_scale = correlated_rows(20, seed=4), 0.3
    geodesics = euclidean(rows)._replace(places=rows + 1.0)
    square = np.square(math.exp(log_scale) * rows.numpy() - rows.numpy() - 1.0).sum(1).mean()
    weight = SpreadLikelihood.geodesic_weights[0] * SpreadLikelihood.place_weight
    expected = (2 * log_scale) ** 2 + weight * 2 * square / geodesics.mean_square
    actual = departure(stretching(log_scale), correlated_rows(), geodesics=geodesics)
    assert actual == pytest.approx(expected)


@pytest.mark.parametrize("spread", ["data", "latent"])
@pytest.mark.parametrize("geodesics", ["none", "all", "unconnected", "places"])
def test_gradient_of_all_terms_is_that_of_finite_differences(spread, geodesics):
    kwargs = {"spread": spread, "isometry": 0.5}
    if geodesics != "none":
        kwargs["geodesics"] = euclidean(correlated_rows(20, seed=4))
    if geodesics == "places":
        kwargs["geodesics"] = kwargs["geodesics"]._replace(places=correlated_rows(20, seed=5))
    if geodesics == "unconnected":
        distances = kwargs["geodesics"].distances
        distances[:8, 8:] = distances[8:, :8] = torch.inf
    objective, rows = build(curved_flow(), **kwargs), correlated_rows()
    parameters = list(objective.parameters())
    state = objective.generator.get_state()
    directions = [torch.randn(p.shape, generator=make_generator(6)).to(p) for p in parameters]

    @torch.no_grad()
    def move(step):
        for p, direction in zip(parameters, directions, strict=True):
            p.add_(direction, alpha=step)

    def loss():
        objective.generator.set_state(state)
        objective.reset_running_moments()
        return objective.loss(rows, 0.3)

    gradients = torch.autograd.grad(loss(), parameters, materialize_grads=True)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    move(1e-5)
    above = loss().item()
    move(-2e-5)
    assert slope.item() == pytest.approx((above - loss().item()) / 2e-5, rel=1e-5)


def test_all_terms_have_finite_gradients():
    objective = build(
        curved_flow(), isometry=0.5, geodesics=euclidean(correlated_rows(100, seed=1))
    )
    objective.loss(correlated_rows(), 0.3).backward()
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters())


# Non-finite rows and weights

MODES = [
    {"spread": "data"},
    {"spread": "latent"},
    {"spread": "data", "prior_update": "gradient"},
    {"spread": "latent", "prior_update": "gradient"},
    {"spread": "data", "isometry": 0.1},
    {"spread": "data", "n_free": 2},
]
every_mode = pytest.mark.parametrize("mode", MODES, ids=str)


@every_mode
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_non_finite_rows_give_a_nan_loss_once(mode, value, dtype):
    objective, rows = build(curved_flow(), dtype=dtype, **mode), correlated_rows().to(dtype)
    objective.initialize_prior(rows)
    lost = rows.clone()
    lost[3, 1] = value
    loss = objective.loss(lost, 0.5)
    loss.backward()
    assert torch.isnan(loss)
    assert torch.isfinite(objective.loss(rows, 0.5))


@every_mode
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nan_weights_give_a_nan_loss(mode, dtype):
    objective, rows = build(curved_flow(), dtype=dtype, **mode), correlated_rows().to(dtype)
    objective.initialize_prior(rows)
    with torch.no_grad():
        for p in objective.parameters():
            p.fill_(math.nan)
    assert torch.isnan(objective.loss(rows, 0.5))


def test_few_rows_start_from_the_covariance_of_all():
    """A batch of fewer rows than columns is singular, but has only a share in the first prior."""
    n_features, n = 40, 8
    rows = correlated_rows(4000, n_features)
    objective = build(n_features=n_features)
    objective.initialize_prior(rows)
    objective.loss(rows[:n], 0.0)
    precision, log_det = objective.running_prior
    covariance = torch.cov(rows.T, correction=0) + 0.3**2 * torch.eye(n_features)
    share = n / (4 * n_features)
    assert torch.trace(precision @ covariance) < 1.1 * n_features / (1 - share)
    assert torch.linalg.eigvalsh(precision).max() < 1.1 / (
        (1 - share) * torch.linalg.eigvalsh(covariance).min()
    )
    assert float(log_det) == pytest.approx(float(torch.logdet(covariance)), abs=3)


def test_covariance_of_few_rows_is_pooled_and_seldom_factorised(monkeypatch):
    n_features, n, n_steps = 40, 8, 400
    rows = correlated_rows(n * n_steps, n_features)
    objective = build(n_features=n_features)
    objective.initialize_prior(rows)
    # A start that is far off is forgotten.
    objective.latent.set_moments(torch.zeros(n_features), 100 * torch.eye(n_features).double())
    n_factors = 0
    cholesky = torch.linalg.cholesky_ex

    def counted(*args, **kwargs):
        nonlocal n_factors
        n_factors += 1
        return cholesky(*args, **kwargs)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", counted)
    for batch in rows.split(n):
        objective.loss(batch, 1.0)
    # A quarter of the pool, n / 4D a step, is renewed in five steps.
    assert n_factors == n_steps // 5
    covariance = torch.cov(rows.T, correction=0) + FLOOR**2 * torch.eye(n_features)
    # Of batches of n rows about their mean, the covariance is (n - 1) / n of that of the rows.
    expected = (n - 1) / n * covariance
    distance = torch.linalg.solve(expected, objective.running_covariance.double())
    eigenvalues = torch.linalg.eigvals(distance).real
    # As of 2 * 4D - n rows, by Marchenko and Pastur: (1 +- sqrt(40 / 312))^2.
    assert 0.3 < eigenvalues.min()
    assert eigenvalues.max() < 2.2


# Closed-form steps


def linear():
    """Return a volume-preserving linear flow and its matrix."""
    rotation = Orthogonal(D, generator=make_generator(5))
    flow = Chain([rotation]).double()
    return flow, rotation.q.numpy()


def test_closed_form_takes_the_moments_of_the_latent_spread():
    flow, matrix = linear()
    objective, rows = build(flow, spread="latent"), correlated_rows()
    objective.update_closed_form(rows)
    latent = objective.flow.latent
    factor = latent.covariance_factor()
    expected = matrix.T @ covariance_of(rows) @ matrix + FLOOR**2 * np.eye(D)
    np.testing.assert_allclose(latent.mean, rows.numpy().mean(0) @ matrix)
    np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-12)


@pytest.mark.parametrize("n_rows", [1, 7, 60, 5000])
def test_closed_form_takes_the_moments_of_inflated_rows(n_rows):
    s = 0.5
    flow, matrix = linear()
    objective, rows = build(flow, noise_floor=s), correlated_rows(n_rows)
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


def test_closed_form_keeps_the_digits_of_a_distant_mean():
    objective, rows = build(spread="latent", noise_floor=1e-3), 1e-3 * correlated_rows() + 1e4
    # From the second call on moments are taken around the mean of the first.
    objective.update_closed_form(rows)
    objective.update_closed_form(rows)
    factor = objective.flow.latent.covariance_factor()
    expected = covariance_of(rows) + 1e-6 * np.eye(D)
    np.testing.assert_allclose(factor @ factor.T, expected, rtol=1e-6)


@pytest.mark.parametrize("spread", ["data", "latent"])
def test_closed_form_steps_use_the_same_noise_every_time(spread):
    objective, rows = build(curved_flow(), spread=spread), correlated_rows()
    states, scores = [], []
    for _ in range(2):
        objective.update_closed_form(rows)
        states.append({k: v.clone() for k, v in objective.flow.latent.state_dict().items()})
        scores.append(objective.log_likelihood(rows))
        objective.loss(rows, 0.5)
    torch.testing.assert_close(*states, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*scores, rtol=1e-10, atol=1e-10)


def test_log_likelihood_with_latent_spread_is_the_expectation_over_the_noise():
    objective, rows = build(spread="latent", n_free=2, noise_floor=0.3), correlated_rows()
    objective.update_closed_form(correlated_rows(seed=1))
    latent = objective.flow.latent
    factor = latent.covariance_factor().numpy()
    prior = stats.multivariate_normal(latent.mean.numpy(), factor @ factor.T)
    expected = prior.logpdf(rows) - 0.5 * 0.3**2 * np.trace(np.linalg.inv(factor @ factor.T))
    np.testing.assert_allclose(objective.log_likelihood(rows), expected)


def test_log_likelihood_is_that_of_inflated_rows():
    s = 0.3
    objective, rows = build(noise_floor=s), correlated_rows(4)
    objective.update_closed_form(correlated_rows(seed=1))
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


def test_closed_form_maximises_the_likelihood():
    objective, rows = build(curved_flow()), correlated_rows()
    objective.update_closed_form(rows)
    best = objective.log_likelihood(rows).mean()
    latent = objective.flow.latent
    factor = latent.covariance_factor()
    for change in (0.95, 1.05):
        latent.set_moments(latent.mean, change * factor @ factor.T)
        assert objective.log_likelihood(rows).mean() < best
