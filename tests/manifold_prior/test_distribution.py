"""Latent distributions against scipy and scikit-learn."""

import numpy as np
import pytest
import torch
from helpers import random_rows
from scipy import stats
from sklearn.decomposition import PCA

from skmanifoldflow._manifold_prior.distribution import LearnedCovariance
from skmanifoldflow.backend.device import make_generator

D = 5
N_FREE = [None, 2, 4, 5]


def moments(n_features=D, seed=0):
    """Return a mean and a covariance with well separated eigenvalues."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n_features, n_features)))
    eigenvalues = 4.0 * 0.4 ** np.arange(n_features)
    return rng.normal(size=n_features), q * eigenvalues @ q.T


def build(n_free=None, scale=None, n_components=None):
    """Return a distribution, with components and their scale where a scale is given."""
    mean, covariance = moments()
    latent = LearnedCovariance(D, n_free)
    latent.set_moments(torch.tensor(mean), torch.tensor(covariance))
    if scale is not None:
        latent.set_components(n_components or n_free or D, torch.tensor(scale))
    return latent


def covariance_of(latent):
    """Return the covariance that a distribution should have, by numpy."""
    _, covariance = moments()
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    n_rest = D - (latent.n_free or D)
    if n_rest:
        eigenvalues[:n_rest] = eigenvalues[:n_rest].mean()
    return eigenvectors * eigenvalues @ eigenvectors.T


every_n_free = pytest.mark.parametrize("n_free", N_FREE)


def test_standard_normal_at_initialization():
    z = random_rows(9, D)
    latent = LearnedCovariance(D)
    np.testing.assert_allclose(latent.log_prob(z), stats.norm.logpdf(z).sum(1))
    assert torch.equal(latent.project(z), z)
    assert torch.equal(latent.embed(z), z)


@every_n_free
def test_log_prob_equals_scipy(n_free):
    latent, z = build(n_free), random_rows(20, D)
    expected = stats.multivariate_normal(moments()[0], covariance_of(latent)).logpdf(z)
    np.testing.assert_allclose(latent.log_prob(z), expected)


@pytest.mark.parametrize("n_free", [1, 2, 4])
def test_log_prob_equals_probabilistic_pca(n_free):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)) @ rng.normal(size=(3, D)) + 0.1 * rng.normal(size=(60, D)) + 7
    pca = PCA(n_free).fit(X)
    latent = LearnedCovariance(D, n_free)
    # scikit-learn divides by n - 1.
    latent.set_moments(torch.tensor(X.mean(0)), torch.tensor(np.cov(X.T)))
    np.testing.assert_allclose(latent.log_prob(torch.tensor(X)), pca.score_samples(X))
    coordinates = latent.project(torch.tensor(X)).numpy()
    np.testing.assert_allclose(np.abs(coordinates), np.abs(pca.transform(X)), atol=1e-9)


def test_float32_rows_are_answered_in_float64():
    latent, z = build(), random_rows(4, D).float()
    assert latent.log_prob(z).dtype == latent.project(z).dtype == torch.float64
    torch.testing.assert_close(latent.log_prob(z), latent.log_prob(z.double()))


def test_eigenvectors_descend_and_have_a_sign():
    latent = build()
    assert (latent.eigenvalues.diff() < 0).all()
    largest = latent.eigenvectors.abs().argmax(0)
    assert (latent.eigenvectors[largest, torch.arange(D)] > 0).all()


def test_singular_covariance_has_a_density():
    latent = LearnedCovariance(3)
    latent.set_moments(
        torch.zeros(3), torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    )
    assert torch.isfinite(latent.log_prob(torch.zeros(1, 3))).all()


SCALE = [0.5, 3.0, 1.0, 2.0, 0.125]


@every_n_free
def test_project_undoes_embed(n_free):
    latent = build(n_free, SCALE)
    u = random_rows(7, latent.n_components)
    torch.testing.assert_close(latent.project(latent.embed(u)), u)
    # What is left of a row after projection is orthogonal to the manifold.
    z = random_rows(7, D)
    residual = z - latent.embed(latent.project(z))
    torch.testing.assert_close(
        residual @ latent.basis.T, torch.zeros(7, latent.n_components).double()
    )


@every_n_free
def test_components_descend_in_data_units_and_leave_the_distribution_alone(n_free):
    before, latent, z = build(n_free), build(n_free, SCALE), random_rows(7, D)
    torch.testing.assert_close(latent.log_prob(z), before.log_prob(z))
    d = latent.n_components
    variance = latent.spectrum * latent.component_scale.square()
    assert (variance[:d].diff() <= 0).all()
    assert (variance[d:].diff() <= 0).all()
    # Each eigenvector has kept its own scale.
    expected = dict(zip(before.spectrum.tolist(), SCALE, strict=True))
    assert (
        dict(zip(latent.spectrum.tolist(), latent.component_scale.tolist(), strict=True))
        == expected
    )


@every_n_free
def test_manifold_density_is_the_marginal_of_the_coordinates(n_free):
    latent = build(n_free, SCALE)
    u = random_rows(9, latent.n_components)
    # u is a linear function of z: its covariance is P C P'.
    p = (
        latent.eigenvectors[:, : latent.n_components].T
        * latent.component_scale[: latent.n_components, None]
    )
    covariance = p.numpy() @ covariance_of(latent) @ p.numpy().T
    expected = stats.multivariate_normal(np.zeros(len(covariance)), covariance).logpdf(u)
    np.testing.assert_allclose(latent.log_prob_manifold(u), expected)


@every_n_free
def test_covariance_factor(n_free):
    latent = build(n_free, SCALE)
    factor = latent.covariance_factor()
    np.testing.assert_allclose(factor @ factor.T, covariance_of(latent), atol=1e-14)


def assert_sampled(z, mean, covariance):
    """Compare moments with their standard errors."""
    n = len(z)
    variance = np.diag(covariance)
    assert (np.abs(z.mean(0) - mean) <= 5 * np.sqrt(variance / n)).all()
    error = np.abs(np.cov(z.T) - covariance)
    assert (error <= 5 * np.sqrt((np.outer(variance, variance) + covariance**2) / n)).all()


@every_n_free
def test_sample_has_the_moments(n_free):
    latent = build(n_free, SCALE)
    z = latent.sample(20_000, make_generator(0)).numpy()
    assert_sampled(z, moments()[0], covariance_of(latent))
    for component in latent.project(torch.tensor(z)).T.numpy():
        assert stats.kstest(component / component.std(), "norm").pvalue > 1e-3


def test_temperature_and_deviation_scale_their_own_part():
    latent = build(2, SCALE)
    z = latent.sample(20_000, make_generator(0), temperature=0.25, manifold_deviation=4.0)
    values, vectors = np.linalg.eigh(covariance_of(latent))
    values *= np.where(np.arange(D) >= D - 2, 0.25, 4.0)
    assert_sampled(z.numpy(), moments()[0], vectors * values @ vectors.T)
    on_manifold = latent.sample(50, make_generator(0), manifold_deviation=0.0)
    torch.testing.assert_close(latent.embed(latent.project(on_manifold)), on_manifold)
    frozen = latent.sample(50, make_generator(0), temperature=0.0, manifold_deviation=0.0)
    assert torch.equal(frozen, latent.mean.expand(50, D))


def test_sampling_is_reproducible_and_leaves_the_distribution_alone():
    latent = build(2, SCALE)
    before = {name: value.clone() for name, value in latent.state_dict().items()}
    first, again, other = (
        latent.sample(6, make_generator(seed), temperature=0.5) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(torch.equal(value, before[name]) for name, value in latent.state_dict().items())
