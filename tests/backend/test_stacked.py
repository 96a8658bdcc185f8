"""Fits in a stack are what they are alone."""

import math

import pytest
import torch

from skmanifoldflow.backend.architectures import density_flow
from skmanifoldflow.backend.bijections import Chain, MarginalSpline
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.flow import ManifoldFlow
from skmanifoldflow.backend.latents import LinearInjection, NoisyInjection
from skmanifoldflow.backend.objectives import InjectionLikelihood
from skmanifoldflow.backend.stacked import train_all
from skmanifoldflow.backend.stacked_step import StackedStep
from skmanifoldflow.backend.training import TrainingJob, TrainingSettings, train

N_ROWS, N_VALIDATION = 90, 30


def job(
    seed=0,
    *,
    objective="likelihood",
    validates=True,
    kind="spline",
    reconstruction=0.5,
    layer_seed=None,
    noise_covariance="diag",
    **changes,
):
    generator = make_generator(seed)
    of_layers = generator if layer_seed is None else make_generator(layer_seed)
    layers = density_flow(kind, 3, 3, (6,), generator=of_layers)
    spline = MarginalSpline(3, 4)
    injection = LinearInjection(3, 2, noise_covariance=noise_covariance, noise_floor=0.01)
    flow = ManifoldFlow(Chain([spline, layers]), NoisyInjection(injection))
    flow.place(torch.device("cpu"), torch.float32)
    rows = torch.randn(N_ROWS + N_VALIDATION, 3, generator=generator)
    rows[:, 2] = rows[:, 0].square()
    spline.start(rows)
    likelihood = InjectionLikelihood(
        flow,
        objective=objective,
        noise_start=0.1,
        noise_floor=0.01,
        reconstruction=reconstruction,
        pca_error=1.0,
        n_rows=N_ROWS,
        generator=generator,
    )
    settings = {
        "max_iter": 6,
        "max_steps": 1000,
        "batch_size": 40,
        "learning_rate": 5e-3,
        "weight_decay": 0.0,
        "n_iter_no_change": 20,
        "tol": 0.0,
        "averaging": 0.05,
    } | changes
    validation = rows[N_ROWS:] if validates else None
    train_rows = rows[:N_ROWS]
    settings = TrainingSettings(**settings)
    return TrainingJob(likelihood, lambda: train_rows, validation, settings, generator, N_ROWS)


def assert_same(jobs, others):
    """Train the first together and the others, which are the same, alone."""
    reports = train_all(jobs)
    for stacked, report, alone in zip(jobs, reports, others, strict=True):
        expected = train(*alone[:-1])
        torch.testing.assert_close(report.loss_curve, expected.loss_curve, rtol=0, atol=2e-3)
        torch.testing.assert_close(
            report.validation_scores, expected.validation_scores, rtol=0, atol=2e-3
        )
        assert report.n_iter == expected.n_iter
        assert report.stopped_early == expected.stopped_early
        assert math.isclose(report.best_score, expected.best_score, abs_tol=2e-3)
        state = alone.objective.state_dict()
        for name, tensor in stacked.objective.state_dict().items():
            torch.testing.assert_close(tensor, state[name], rtol=0, atol=2e-2)
        assert not any(t.grad is not None for t in stacked.objective.parameters())


@pytest.mark.parametrize("objective", ["likelihood", "elbo"])
@pytest.mark.parametrize("validates", [True, False])
def test_each_has_its_rows_noise_and_settings(objective, validates):
    def jobs():
        common = {"objective": objective, "validates": validates}
        return [
            job(0, **common),
            job(1, learning_rate=2e-3, **common),
            job(2, weight_decay=0.1, **common),
        ]

    assert_same(jobs(), jobs())


@pytest.mark.parametrize("kind", ["spline", "affine"])
@pytest.mark.parametrize("layer_seed", [None, 7], ids=["permutations differ", "closed form"])
def test_without_reconstruction(kind, layer_seed):
    def jobs():
        common = {"kind": kind, "reconstruction": 0.0, "layer_seed": layer_seed}
        return [
            job(0, **common),
            job(1, learning_rate=2e-3, **common),
            job(2, tol=10.0, n_iter_no_change=2, **common),
        ]

    step = StackedStep.of([one.objective for one in jobs()], {})
    assert (step is None) == (layer_seed is None)
    assert_same(jobs(), jobs())


@pytest.mark.parametrize("kind", ["spline", "affine", "additive"])
@pytest.mark.parametrize("noise_covariance", ["diag", "spherical"])
def test_gradients_in_closed_form(kind, noise_covariance):
    common = {"kind": kind, "reconstruction": 0.0, "layer_seed": 7}
    objectives = [job(k, noise_covariance=noise_covariance, **common).objective for k in range(3)]
    for k, objective in enumerate(objectives):
        objective.flow.place(torch.device("cpu"), torch.float64)
        with torch.no_grad():
            for p in objective.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=make_generator(k)).to(p))
    stacks = {
        name: torch.stack([dict(o.named_parameters())[name].detach() for o in objectives])
        for name, _ in objectives[0].named_parameters()
    }
    step = StackedStep.of(objectives, stacks)
    generator = make_generator(9)
    for _ in range(2):
        rows = torch.randn(3, 8, 3, generator=generator, dtype=torch.float64)
        losses, gradients = step(rows)
        assert gradients.keys() == stacks.keys()
        for k, objective in enumerate(objectives):
            empty = torch.zeros(8, 0, dtype=torch.float64)
            expected = objective.loss_given(rows[k], torch.zeros_like(rows[k]), empty)
            torch.testing.assert_close(losses[k], expected.detach())
            parameters = dict(objective.named_parameters())
            found = torch.autograd.grad(expected, list(parameters.values()))
            for name, gradient in zip(parameters, found, strict=True):
                actual = gradients[name].view_as(stacks[name])[k]
                torch.testing.assert_close(actual, gradient)
        # The next step has other weights in the same memory.
        with torch.no_grad():
            for name, stack in stacks.items():
                stack *= 0.9
                for k, objective in enumerate(objectives):
                    dict(objective.named_parameters())[name].copy_(stack[k])


def test_each_ends_when_it_would_alone():
    def jobs():
        return [job(0), job(1, tol=10.0, n_iter_no_change=2), job(2, tol=10.0, n_iter_no_change=4)]

    assert_same(jobs(), jobs())


@pytest.mark.parametrize("reconstruction", [0.0, 0.5])
def test_all_may_end_together(reconstruction):
    def jobs():
        common = {"tol": 10.0, "layer_seed": 7, "reconstruction": reconstruction}
        return [job(k, n_iter_no_change=2, **common) for k in range(2)]

    assert_same(jobs(), jobs())


@pytest.mark.parametrize(
    "kwargs", [{"kind": "affine", "reconstruction": 0.0}, {"kind": "spline"}], ids=str
)
def test_all_may_be_lost(kwargs):
    common = {"learning_rate": 1e25, "layer_seed": 7, **kwargs}
    with pytest.raises(FloatingPointError, match="became non-finite"):
        train_all([job(k, **common) for k in range(2)])


def test_shapes_that_differ_are_apart():
    def jobs():
        return [job(0), job(1, kind="affine"), job(2, batch_size=30), job(3, max_iter=2)]

    assert_same(jobs(), jobs())


def test_a_lost_fit_goes_on_alone():
    def jobs():
        return [job(0), job(1, learning_rate=1e25), job(2)]

    # Alone it is lost too.
    together, alone = jobs(), jobs()
    with pytest.raises(FloatingPointError, match="became non-finite"):
        train_all(together)
    train(*alone[0][:-1])
    state = alone[0].objective.state_dict()
    for name, tensor in together[0].objective.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=2e-2)
