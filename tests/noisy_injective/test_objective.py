"""The gradient of the likelihood of noisy injections, against automatic differentiation."""

import numpy as np
import pytest
import torch
from helpers import perturb

from skmanifoldflow import ManifoldPriorFlow, NoisyInjectiveFlow
from skmanifoldflow._manifold_prior.objective import SpreadLikelihood
from skmanifoldflow._noisy_injective.distribution import NoisyInjection
from skmanifoldflow._noisy_injective.injections import (
    LinearInjection,
    SquareInjection,
)
from skmanifoldflow._noisy_injective.marginal import negative_log_prob
from skmanifoldflow._noisy_injective.objective import InjectionLikelihood
from skmanifoldflow.backend.architectures import density_flow, image_flow
from skmanifoldflow.backend.bijections import Chain, MarginalSpline
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.flow import ManifoldFlow
from skmanifoldflow.backend.optimizer import Optimizer


def build(kind="spline", noise_covariance="diag", square=False, **kwargs):
    generator = make_generator(0)
    layers = density_flow(kind, 3, 2, (6,), generator=generator)
    if square:
        injection = SquareInjection(3, noise_floor=0.01)
    else:
        injection = LinearInjection(3, 2, noise_covariance=noise_covariance, noise_floor=0.01)
    flow = ManifoldFlow(Chain([MarginalSpline(3, 4), layers]), NoisyInjection(injection))
    flow.move_to(torch.device("cpu"), torch.float64)
    perturb(flow, 0.1, generator)
    settings = {
        "objective": "likelihood",
        "noise_start": 0.1,
        "noise_floor": 0.01,
        "reconstruction": 0.0,
        "pca_error": 1.0,
        "n_rows": 90,
    }
    return InjectionLikelihood(flow, **(settings | kwargs), generator=generator)


def reference(objective, batch, noise):
    """Return the loss by the layers and by torch's own distribution, for autograd."""
    chain, injection = objective.flow.bijection, objective.latent.injection
    y, log_det = chain.by_layer(batch + noise)
    variance = injection.noise_floor**2 + injection.log_excess.exp()
    covariance = injection.a @ injection.a.T + torch.diag(variance.expand(3))
    latent = torch.distributions.MultivariateNormal(injection.b, covariance)
    loss = -(latent.log_prob(y) + log_det).mean()
    loss = loss - chain.parameter_log_prior() / objective.n_rows
    if objective.reconstruction:
        k = round(0.5 * len(batch))
        # The pseudo-inverse is weighted least squares.
        weighted = injection.a / variance.expand(3)[:, None]
        z = torch.linalg.solve(injection.a.T @ weighted, weighted.T @ (y[:k] - injection.b).T)
        on_manifold = chain.by_layer((injection.a @ z).T + injection.b, inverse=True)[0]
        error = (on_manifold - batch[:k]).square().mean() / objective.pca_error
        loss = loss + objective.reconstruction * 3 / 2 * error
    return loss


@pytest.mark.parametrize("is_trained", [False, True], ids=["free", "trained"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"noise_covariance": "spherical"},
        {"kind": "affine"},
        {"kind": "autoregressive"},
        {"reconstruction": 0.5},
    ],
    ids=str,
)
def test_loss_and_gradient_are_those_of_autograd(kwargs, is_trained):
    objective = build(**kwargs)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    batch = torch.randn(9, 3, generator=make_generator(1), dtype=torch.float64)
    noise, empty = objective.draw(batch, 0.3)
    expected = reference(objective, batch, noise)
    gradients = torch.autograd.grad(expected, parameters)
    if is_trained:
        Optimizer([objective], [0.1])
        trained = objective.flow.bijection.trained
        assert (trained is None) == (kwargs.get("kind") == "autoregressive")
    for step in range(2):
        # A loss that is only looked at leaves no gradient behind.
        objective.loss_given(batch, noise, empty)
        loss = objective.loss_given(batch, noise, empty)
        loss.backward()
        torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-12, atol=1e-12)
        for gradient, p in zip(gradients, parameters, strict=True):
            # Gradients add up.
            torch.testing.assert_close(p.grad, (step + 1) * gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kwargs", [{"objective": "elbo"}, {"square": True}], ids=str)
def test_training_changes_no_gradient(kwargs):
    batch = torch.randn(9, 3, generator=make_generator(1), dtype=torch.float64)
    results = []
    for is_trained in (False, True):
        objective = build(**kwargs)
        if is_trained:
            Optimizer([objective], [0.1])
        loss = objective.loss(batch, 0.3)
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in objective.parameters())])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("noise_covariance", ["diag", "spherical"])
def test_weights_of_rows_in_a_stack_of_distributions(noise_covariance):
    """Means with weights, and their gradients, for three distributions at once."""
    latents = [
        build(noise_covariance=noise_covariance, n_rows=k).latent.injection for k in range(3)
    ]
    generator = make_generator(5)
    for latent in latents:
        for p in latent.parameters():
            p.data += 0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    y = torch.randn(3, 7, 3, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.rand(3, 7, generator=generator, dtype=torch.float64).softmax(1)
    value, grad_y, gradients = negative_log_prob(latents, y.detach(), weight)
    for k, latent in enumerate(latents):
        variance = (latent.noise_floor**2 + latent.log_excess.exp()).expand(3)
        normal = torch.distributions.MultivariateNormal(
            latent.b, latent.a @ latent.a.T + variance.diag()
        )
        expected = -(weight[k] * normal.log_prob(y[k])).sum()
        found = torch.autograd.grad(expected, [y, latent.b, latent.a, latent.log_excess])
        torch.testing.assert_close(value[k], expected.detach(), rtol=1e-12, atol=1e-12)
        actual = [grad_y[k], *(gradients[name][k] for name in ("b", "a", "log_excess"))]
        for one, other in zip(actual, [found[0][k], *found[1:]], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_default_training_calls_the_loss(monkeypatch):
    """What is read is what runs."""

    def broken(self, batch, progress):
        raise AssertionError("the loss")

    monkeypatch.setattr(InjectionLikelihood, "loss", broken)
    monkeypatch.setattr(SpreadLikelihood, "loss", broken)
    rows = np.random.default_rng(0).normal(size=(60, 3))
    for estimator in (NoisyInjectiveFlow(2, max_iter=1), ManifoldPriorFlow(2, max_iter=1)):
        with pytest.raises(AssertionError, match="the loss"):
            estimator.fit(rows)


def test_a_lost_fit_of_a_stack_leaves_the_others_alone():
    """Where A' Sigma^-1 A + I is not positive definite in rounding, that fit is NaN."""
    pair = [
        LinearInjection(4, 2, noise_covariance="spherical", noise_floor=1e-3).double()
        for _ in range(2)
    ]
    with torch.no_grad():
        pair[1].a.zero_()
        pair[1].a[0] = 1e9
    y = torch.randn(2, 5, 4, dtype=torch.float64, generator=make_generator(0))
    value, grad_y, gradients = negative_log_prob(pair, y)
    alone, grad_alone, _ = negative_log_prob(pair[:1], y[:1])
    assert value[0] == alone[0]
    assert torch.equal(grad_y[:1], grad_alone)
    assert value[1].isnan()
    assert all(torch.isfinite(gradient[0]).all() for gradient in gradients.values())


@pytest.mark.parametrize(
    ("kind", "n_rows", "n_matrices"),
    [
        ("spline", 1000, 2),
        ("spline", 999, 0),
        ("affine", 10**6, 2),
        # Its networks have masks, which a step of that kind does not know of.
        ("autoregressive", 10**6, 0),
    ],
)
def test_last_layers_have_orthogonalized_steps_where_there_are_rows(kind, n_rows, n_matrices):
    objective = build(kind=kind)
    objective.n_rows = n_rows
    found = {id(p) for p in objective.orthogonalized_parameters()}
    assert len(found) == n_matrices
    for coupling in objective.flow.bijection.modules():
        if n_matrices and hasattr(coupling, "conditioner"):
            assert id(coupling.conditioner.layers[-1].weight) in found


def test_wide_rows_need_more_rows_for_orthogonalized_steps():
    objective = build()
    objective.min_rows_per_feature_orthogonalized = 500
    for n_rows, has_any in [(1499, False), (1500, True)]:
        objective.n_rows = n_rows
        assert bool(objective.orthogonalized_parameters()) == has_any


@pytest.mark.parametrize(("n_rows", "has_any"), [(999, False), (1000, True)])
def test_convolutions_have_orthogonalized_steps(n_rows, has_any):
    flow = image_flow((1, 4, 4), 2, 6, generator=make_generator(0))
    latent = NoisyInjection(LinearInjection(16, 2, noise_covariance="diag", noise_floor=0.01))
    objective = build()
    objective.flow, objective.n_rows = ManifoldFlow(flow, latent), n_rows
    found = {id(p) for p in objective.orthogonalized_parameters()}
    convolutions = [m for m in flow.modules() if isinstance(m, torch.nn.Conv2d)]
    of_networks = {
        id(m.weight)
        for name, m in flow.named_modules()
        if "conditioner" in name and isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))
    }
    assert convolutions
    assert found == (of_networks if has_any else set())
