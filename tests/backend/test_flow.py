"""A bijection with its distribution."""

import numpy as np
import pytest
import torch
from helpers import random_rows, randomize
from scipy import integrate, stats

from skmanifoldflow._manifold_prior.distribution import LearnedCovariance
from skmanifoldflow.backend.bijections import AffineCoupling, Chain, Orthogonal
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.flow import ManifoldFlow, Outliers, chunks

CPU = torch.device("cpu")


def build(n_features=3, n_free=2, dtype=torch.float64):
    generator = make_generator(0)
    n_mapped = n_features - n_features // 2
    layers = []
    for _ in range(3):
        layers.append(Orthogonal(n_features, generator=generator))
        layers.append(AffineCoupling(n_features, n_mapped, (8,), generator=generator))
    chain = Chain(layers)
    randomize(chain, 0.5, generator)
    latent = LearnedCovariance(n_features, n_free)
    factor = torch.randn(n_features, n_features, dtype=torch.float64, generator=generator)
    latent.set_moments(torch.full((n_features,), 0.3), factor @ factor.T)
    return ManifoldFlow(chain, latent).move_to(CPU, dtype).requires_grad_(False)


def add_outliers(flow, share=0.2, scale=3.0):
    flow.outliers = Outliers()
    flow.outliers.share.fill_(share)
    flow.outliers.spread.fill_(share * scale**2)
    return flow


@pytest.mark.parametrize("n_features", [1, 2])
@pytest.mark.parametrize("has_outliers", [False, True])
def test_density_integrates_to_one(n_features, has_outliers):
    flow = build(n_features, n_free=1)
    if has_outliers:
        add_outliers(flow)
    axis = torch.linspace(-30, 30, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * n_features).view(-1, n_features)
    density = flow.log_prob(grid).exp().numpy()
    for _ in range(n_features):
        density = integrate.simpson(density.reshape(-1, len(axis)), x=axis.numpy())
    assert density.item() == pytest.approx(1, abs=1e-4)


def test_log_prob_is_the_change_of_variables():
    flow, x = build(), random_rows(9, 3)
    z = flow.bijection.forward_and_log_det(x)[0]
    covariance = flow.latent.covariance_factor()
    latent = stats.multivariate_normal(flow.latent.mean, covariance @ covariance.T)
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda row: flow.bijection.forward_and_log_det(row[None])[0][0])
    )(x)
    np.testing.assert_allclose(flow.log_prob(x), latent.logpdf(z) + np.linalg.slogdet(jacobian)[1])


def test_outliers_are_one_part_of_a_mixture():
    """Bayes' rule gives the probability of a row to be none; draws are of the flow alone."""
    x = 3 * random_rows(50, 3)
    alone = build()
    of_flow = 0.8 * alone.log_prob(x).exp().numpy()
    of_outliers = 0.2 * stats.multivariate_normal(cov=9.0 * np.eye(3)).pdf(x)
    flow = add_outliers(build())
    np.testing.assert_allclose(flow.log_prob(x), np.log(of_flow + of_outliers))
    _, inlying = flow.outliers.mix(x, alone.log_prob(x))
    np.testing.assert_allclose(inlying, of_flow / (of_flow + of_outliers))
    rows = (model.sample(9, make_generator(0)) for model in (flow, alone))
    torch.testing.assert_close(*rows, rtol=0, atol=0)


def test_outliers_are_followed_to_their_share_and_scale():
    """Batches in which a tenth of the rows have five times the deviation of the flow's."""
    outliers, generator = Outliers(), make_generator(0)
    for _ in range(1000):
        x = torch.randn(200, 3, generator=generator)
        x[:20] *= 5.0
        log_prob = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
        outliers.update(x, outliers.mix(x, log_prob)[1])
    assert float(outliers.share) == pytest.approx(0.1, rel=0.1)
    assert float(outliers.scale()) == pytest.approx(5.0, rel=0.1)
    # Without any they all but vanish.
    for _ in range(1000):
        x = torch.randn(200, 3, generator=generator)
        log_prob = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
        outliers.update(x, outliers.mix(x, log_prob)[1])
    assert float(outliers.share) < 1e-3


def test_decode_and_embed_are_the_inverses():
    flow, x = build(), random_rows(9, 3)
    z = flow.bijection.forward_and_log_det(x)[0]
    torch.testing.assert_close(flow.decode(z), x)
    u = flow.project(x)
    assert u.shape == (9, 2)
    torch.testing.assert_close(flow.project(flow.embed(u)), u)


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_embedding_jacobian_equals_autograd(n_components):
    flow = build(n_free=n_components)
    u = random_rows(5, n_components)
    x, jacobian = flow.embedding_jacobian(u)
    torch.testing.assert_close(x, flow.embed(u))
    for row, expected_at in zip(jacobian, u, strict=True):
        expected = torch.autograd.functional.jacobian(lambda v: flow.embed(v[None])[0], expected_at)
        torch.testing.assert_close(row, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bijection_computes_in_its_dtype_and_the_distribution_in_float64(dtype):
    flow = build(dtype=dtype)
    assert flow.tensor_options == {"device": CPU, "dtype": dtype}
    assert flow.latent.mean.dtype == torch.float64
    x = random_rows(4, 3, dtype=dtype)
    assert flow.log_prob(x).dtype == flow.project(x).dtype == torch.float64
    assert flow.embed(flow.project(x)).dtype == dtype
    assert all(result.dtype == dtype for result in flow.embedding_jacobian(flow.project(x)))


@pytest.mark.parametrize(
    ("n_rows", "elements_per_row"),
    [(0, 1), (1, 1), (100_000, 1), (100_000, 1000), (9, 2**30), (9, 0)],
)
def test_chunks_cover_every_row_once(n_rows, elements_per_row):
    rows = np.arange(n_rows)
    pieces = [rows[chunk] for chunk in chunks(n_rows, elements_per_row)]
    assert np.array_equal(np.concatenate([rows[:0], *pieces]), rows)
    assert all(len(p) == 1 or len(p) * elements_per_row <= 2**20 for p in pieces)


def test_a_bijection_without_weights_has_the_dtype_of_its_constants():
    flow = ManifoldFlow(Chain([Orthogonal(2, generator=make_generator(0))]), LearnedCovariance(2))
    flow.move_to(CPU, torch.float32)
    rows = flow.sample(3, make_generator(1))
    assert rows.dtype == torch.float32
    assert torch.isfinite(flow.log_prob(rows)).all()
