"""The gradient of the likelihood of noisy injections, against automatic differentiation."""

import pytest
import torch

from skmanifoldflow.backend.architectures import density_flow
from skmanifoldflow.backend.bijections import Chain, MarginalSpline
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.flow import ManifoldFlow
from skmanifoldflow.backend.latents import NoisyInjection
from skmanifoldflow.backend.latents.injections import LinearInjection, SquareInjection
from skmanifoldflow.backend.objectives import InjectionLikelihood
from skmanifoldflow.backend.training import Optimizer, TrainingSettings


def build(kind="spline", noise_covariance="diag", square=False, **kwargs):
    generator = make_generator(0)
    layers = density_flow(kind, 3, 2, (6,), generator=generator)
    if square:
        injection = SquareInjection(3, noise_floor=0.01)
    else:
        injection = LinearInjection(3, 2, noise_covariance=noise_covariance, noise_floor=0.01)
    flow = ManifoldFlow(Chain([MarginalSpline(3, 4), layers]), NoisyInjection(injection))
    flow.place(torch.device("cpu"), torch.float64)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator).to(p))
    settings = {
        "objective": "likelihood",
        "noise_start": 0.1,
        "noise_floor": 0.01,
        "reconstruction": 0.0,
        "pca_error": 1.0,
        "n_rows": 90,
    }
    return InjectionLikelihood(flow, **(settings | kwargs), generator=generator)


@pytest.mark.parametrize("is_trained", [False, True], ids=["free", "bound"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"noise_covariance": "spherical"},
        {"kind": "autoregressive"},
        {"objective": "elbo"},
        {"reconstruction": 0.5},
        {"square": True},
    ],
    ids=str,
)
def test_gradient_is_that_of_automatic_differentiation(kwargs, is_trained):
    objective = build(**kwargs)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    if is_trained:
        settings = TrainingSettings(
            max_iter=1,
            max_steps=1,
            batch_size=9,
            learning_rate=1e-3,
            weight_decay=0.1,
            n_iter_no_change=1,
            tol=0.0,
        )
        Optimizer(objective, settings)
    else:
        for p in parameters:
            p.grad = torch.zeros_like(p)
    batch = torch.randn(9, 3, generator=make_generator(1), dtype=torch.float64)
    state = objective.generator.get_state()
    actual = objective.add_gradient(batch, 0.3)
    bound = objective.flow.bijection.bound_weights
    assert (bound is not None) == (is_trained and kwargs.get("kind") != "autoregressive")
    gradients = [p.grad.clone() for p in parameters]
    objective.flow.bijection.bound_weights = None
    objective.generator.set_state(state)
    expected = objective.loss(batch, 0.3)
    torch.testing.assert_close(actual, expected.detach())
    for p in parameters:
        p.grad = None
    expected.backward()
    for gradient, p in zip(gradients, parameters, strict=True):
        torch.testing.assert_close(gradient, p.grad)
