"""Fits in a stack are what they are alone."""

import pytest
import torch

from skmanifoldflow._noisy_injective.distribution import NoisyInjection
from skmanifoldflow._noisy_injective.injections import LinearInjection, SquareInjection
from skmanifoldflow._noisy_injective.objective import InjectionLikelihood
from skmanifoldflow.backend import training
from skmanifoldflow.backend.architectures import density_flow
from skmanifoldflow.backend.bijections import Chain, MarginalSpline
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.flow import ManifoldFlow
from skmanifoldflow.backend.optimizer import Optimizer
from skmanifoldflow.backend.rows import TrainingRows
from skmanifoldflow.backend.training import train, train_all
from skmanifoldflow.backend.training_job import TrainingJob, TrainingSettings

N_ROWS, N_VALIDATION = 90, 30


def job(
    seed=0,
    *,
    objective="likelihood",
    validates=True,
    kind="spline",
    reconstruction=0.0,
    layer_seed=None,
    noise_covariance="diag",
    square=False,
    hidden=(6,),
    orthogonalizes=False,
    **changes,
):
    generator = make_generator(seed)
    of_layers = generator if layer_seed is None else make_generator(layer_seed)
    layers = density_flow(kind, 3, 3, hidden, generator=of_layers)
    spline = MarginalSpline(3, 4)
    if square:
        injection = SquareInjection(3, noise_floor=0.01)
    else:
        injection = LinearInjection(3, 2, noise_covariance=noise_covariance, noise_floor=0.01)
    flow = ManifoldFlow(Chain([spline, layers]), NoisyInjection(injection))
    flow.move_to(torch.device("cpu"), torch.float32)
    rows = torch.randn(N_ROWS + N_VALIDATION, 3, generator=generator)
    rows[:, 2] = rows[:, 0].square()
    spline.initialize(rows)
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
    if orthogonalizes:
        likelihood.min_rows_orthogonalized = likelihood.min_rows_per_feature_orthogonalized = 0
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
    return TrainingJob(likelihood, TrainingRows.of(train_rows), validation, settings, generator)


def assert_same(jobs, others):
    """Train the first together and the others, which are the same, alone: bit for bit."""
    reports = train_all(jobs)
    for stacked, report, alone in zip(jobs, reports, others, strict=True):
        assert report == train(*alone)
        state = alone.objective.state_dict()
        for name, tensor in stacked.objective.state_dict().items():
            assert torch.equal(tensor, state[name]), name
        assert not any(t.grad is not None for t in stacked.objective.parameters())


def are_stacked(jobs):
    structures = {one.structure() for one in jobs}
    return len(structures) == 1 and None not in structures


@pytest.mark.parametrize("kind", ["spline", "affine", "additive"])
@pytest.mark.parametrize("layer_seed", [None, 7], ids=["permutations differ", "the same"])
@pytest.mark.parametrize("validates", [True, False])
def test_each_has_its_rows_noise_and_settings(kind, layer_seed, validates):
    def jobs():
        common = {"kind": kind, "layer_seed": layer_seed, "validates": validates}
        return [
            job(0, **common),
            job(1, learning_rate=2e-3, **common),
            job(2, weight_decay=0.1, **common),
            job(3, tol=10.0, n_iter_no_change=2, **common),
        ]

    assert are_stacked(jobs())
    assert_same(jobs(), jobs())


@pytest.mark.parametrize("hidden", [(6,), (8,), (16, 16), (32,), (64, 64)], ids=str)
@pytest.mark.parametrize("batch_size", [7, 16, 21, 32, 41, 90])
def test_any_number_of_rows_has_the_bits_of_one_fit(batch_size, hidden):
    def jobs():
        return [job(k, batch_size=batch_size, hidden=hidden, max_iter=3) for k in range(3)]

    assert are_stacked(jobs()) == (batch_size >= 16)
    assert_same(jobs(), jobs())


# Matrices of (11, 3) and (9, 5) elements and more have ends that loops treat apart.
@pytest.mark.parametrize("hidden", [(3,), (5,), (9, 5), (64, 64)], ids=str)
@pytest.mark.parametrize("kind", ["spline", "affine"])
def test_orthogonalized_steps_have_the_bits_of_one_fit(kind, hidden):
    def jobs():
        common = {"kind": kind, "hidden": hidden, "orthogonalizes": True, "max_iter": 3}
        return [job(k, learning_rate=0.01 / (k + 1), **common) for k in range(3)]

    assert jobs()[0].objective.orthogonalized_parameters()
    assert are_stacked(jobs())
    assert_same(jobs(), jobs())


@pytest.mark.parametrize(
    "kwargs",
    [{"objective": "elbo"}, {"reconstruction": 0.5}, {"objective": "elbo", "reconstruction": 1.0}],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [32, 41])
def test_where_no_gradient_is_known_chains_are_stacked(kwargs, batch_size):
    def jobs():
        return [job(k, max_iter=3, batch_size=batch_size, **kwargs) for k in range(3)]

    assert are_stacked(jobs())
    assert_same(jobs(), jobs())


def test_a_square_distribution_is_stacked():
    def jobs():
        return [job(k, max_iter=3, square=True) for k in range(3)]

    assert are_stacked(jobs())
    assert_same(jobs(), jobs())


def test_what_has_no_kernels_is_trained_alone():
    def jobs():
        return [job(k, max_iter=2, kind="autoregressive") for k in range(2)]

    assert jobs()[0].structure() is None
    assert_same(jobs(), jobs())


@pytest.mark.parametrize("kind", ["spline", "affine", "additive"])
@pytest.mark.parametrize("noise_covariance", ["diag", "spherical"])
@pytest.mark.parametrize("layer_seed", [None, 7], ids=["permutations differ", "the same"])
def test_gradients_are_those_of_autograd(kind, noise_covariance, layer_seed):
    common = {"kind": kind, "layer_seed": layer_seed}
    objectives = [job(k, noise_covariance=noise_covariance, **common).objective for k in range(3)]
    for k, objective in enumerate(objectives):
        objective.flow.move_to(torch.device("cpu"), torch.float64)
        with torch.no_grad():
            for p in objective.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=make_generator(k)).to(p))
    optimizer = Optimizer(objectives, [0.0] * 3)
    stack = InjectionLikelihood.stack(objectives)
    generator = make_generator(9)
    for _ in range(2):
        rows = torch.randn(3, 8, 3, generator=generator, dtype=torch.float64)
        noise, empty = torch.zeros_like(rows), torch.zeros(3, 8, 0, dtype=torch.float64)
        loss = stack.loss_given(rows, noise, empty)
        loss.backward()
        for k, objective in enumerate(objectives):
            y, log_det = objective.flow.bijection.by_layer(rows[k])
            log_prior = objective.flow.bijection.parameter_log_prior()
            expected = -(objective.latent.log_prob(y) + log_det).mean() - log_prior / N_ROWS
            torch.testing.assert_close(loss.detach()[k], expected.detach())
            parameters = dict(objective.named_parameters())
            found = torch.autograd.grad(expected, list(parameters.values()))
            for (name, p), gradient in zip(parameters.items(), found, strict=True):
                torch.testing.assert_close(p.grad, gradient, msg=name)
        # The next step has other weights in the same memory.
        with torch.no_grad():
            for group in optimizer.groups:
                group.values *= 0.9
                group.gradient.zero_()


@pytest.mark.parametrize("orthogonalizes", [False, True])
def test_each_ends_when_it_would_alone(orthogonalizes):
    def jobs():
        ends = [{}, {"tol": 10.0, "n_iter_no_change": 2}, {"tol": 10.0, "n_iter_no_change": 4}]
        return [job(k, orthogonalizes=orthogonalizes, **end) for k, end in enumerate(ends)]

    assert_same(jobs(), jobs())


def test_all_may_end_together():
    def jobs():
        return [job(k, n_iter_no_change=2, tol=10.0) for k in range(2)]

    assert_same(jobs(), jobs())


def test_all_may_be_lost():
    with pytest.raises(FloatingPointError, match="became non-finite"):
        train_all([job(k, kind="affine", learning_rate=1e25) for k in range(2)])


def test_structures_that_differ_are_apart():
    def jobs():
        return [job(0), job(1, kind="affine"), job(2, batch_size=30), job(3, max_iter=2)]

    assert len({one.structure() for one in jobs()}) == 4
    assert_same(jobs(), jobs())


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("latent.injection", "noise_floor", 0.02),
        ("flow.bijection.bijections.0", "gain", 5.0),
        ("flow.bijection.bijections.1.bijections.0.elementwise", "bound", 3.0),
    ],
)
def test_numbers_that_differ_are_told_apart(module, name, value):
    one, other = job(0), job(1)
    assert one.structure() == other.structure()
    owner = other.objective
    for part in module.split("."):
        owner = owner[int(part)] if part.isdigit() else getattr(owner, part)
    setattr(owner, name, value)
    assert one.structure() != other.structure()


def test_a_lost_fit_goes_on_alone():
    def jobs():
        return [job(k, kind="affine", learning_rate=1e25 if k == 1 else 5e-3) for k in range(3)]

    # Alone it is lost too.
    together, alone = jobs(), jobs()
    with pytest.raises(FloatingPointError, match="became non-finite"):
        train_all(together)
    train(*alone[0])
    state = alone[0].objective.state_dict()
    for name, tensor in together[0].objective.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_fit_that_recovers_is_what_it_is_alone(monkeypatch):
    """A loss that is lost once takes one fit of a stack back, and the others go on."""
    evaluate_epoch, calls = training._Together.evaluate_epoch, []

    def lose(self, mean_losses):
        calls.append(len(self.fits))
        is_lost = [fit.job.settings.tol == 0.5 and calls.count(0) == 0 for fit in self.fits]
        if any(is_lost) and self.step > 3:
            calls.append(0)
            pairs = zip(mean_losses, is_lost, strict=True)
            mean_losses = [float("nan") if lost else loss for loss, lost in pairs]
        return evaluate_epoch(self, mean_losses)

    monkeypatch.setattr(training._Together, "evaluate_epoch", lose)
    jobs = [job(k, tol=0.5 if k == 1 else 0.0) for k in range(3)]
    reports = train_all(jobs)
    assert 3 in calls
    assert 2 in calls
    assert 1 in calls
    for k in range(3):
        calls.clear()
        alone = job(k, tol=0.5 if k == 1 else 0.0)
        assert reports[k] == train(*alone)
        state = alone.objective.state_dict()
        for name, tensor in jobs[k].objective.state_dict().items():
            assert torch.equal(tensor, state[name]), name
