"""The training loop on objectives whose optimum is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.objective import Objective
from skmanifoldflow.backend.optimizer import CLIP_NORM, Optimizer
from skmanifoldflow.backend.rows import TrainingRows
from skmanifoldflow.backend.training import train
from skmanifoldflow.backend.training_job import TrainingSettings


def settings(**kwargs):
    defaults = {
        "max_iter": 10,
        "max_steps": 10_000,
        "batch_size": 1000,
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "n_iter_no_change": 10_000,
        "tol": 0.0,
    }
    return TrainingSettings(**{**defaults, **kwargs})


def shifted_rows(n_rows=40, n_features=3, seed=0):
    rows = torch.randn(n_rows, n_features, dtype=torch.float64, generator=make_generator(seed))
    return rows + torch.arange(n_features)


class Centre(Objective):
    """Mean squared distance to a learned centre: the optimum is the mean of the rows.

    Losses of the calls in `faults` are replaced by the value given there.
    """

    def __init__(self, n_features=3, faults=None):
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("spread", torch.zeros((), dtype=torch.float64))
        self.faults = faults or {}
        self.batches, self.progress, self.centres = [], [], []

    def loss(self, batch, progress):
        self.centres.append(self.centre.detach().clone())
        self.batches.append(batch)
        self.progress.append(progress)
        value = 0.5 * (batch - self.centre).square().sum(1).mean()
        return value * self.faults.get(len(self.batches), 1.0)

    @torch.no_grad()
    def update_closed_form(self, rows, *, roughly=False):
        self.spread = (rows - self.centre).square().mean()

    @torch.no_grad()
    def log_likelihood(self, rows):
        return -0.5 * (rows - self.centre).square().sum(1)


class Scripted(Centre):
    """An objective whose validation scores are given, that of the start first."""

    def __init__(self, scores, **kwargs):
        super().__init__(**kwargs)
        self.scores = iter(scores)
        self.seen = []

    def log_likelihood(self, rows):
        self.seen.append((self.centre.detach().clone(), self.spread.clone()))
        score = next(self.scores)
        return torch.tensor(score) if isinstance(score, list) else torch.full((len(rows),), score)


class Regression(Objective):
    """Least squares of the last column on the others."""

    def __init__(self, n_features):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(n_features - 1, 1, dtype=torch.float64))
        self.constant = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def loss(self, batch, progress):
        return (batch[:, -1:] - batch[:, :-1] @ self.slope - self.constant).square().mean()

    def update_closed_form(self, rows, *, roughly=False):
        pass

    @torch.no_grad()
    def log_likelihood(self, rows):
        return -(rows[:, -1:] - rows[:, :-1] @ self.slope - self.constant).square()[:, 0]


class HalfDecayed(Centre):
    """The first two columns of the centre are decayed, the last one is not."""

    def __init__(self):
        super().__init__(2)
        self.last = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def loss(self, batch, progress):
        return -self._log_likelihood(batch).mean()

    def _log_likelihood(self, rows):
        return -0.5 * (rows - torch.cat([self.centre, self.last])).square().sum(1)

    @torch.no_grad()
    def log_likelihood(self, rows):
        return self._log_likelihood(rows)

    def update_closed_form(self, rows, *, roughly=False):
        pass

    def undecayed_parameters(self):
        return [self.last]


def run(objective, rows=None, validation_rows=None, seed=0, log=None, **kwargs):
    rows = shifted_rows() if rows is None else rows
    generator = make_generator(seed)
    return train(
        objective, TrainingRows.of(rows), validation_rows, settings(**kwargs), generator, log
    )


def schedule(progress, is_linear=False):
    """Return the factor of the learning rate: a linear rise to 1, then half a cosine or a line."""
    fall = np.interp(progress, [0.1, 1], [1, 0])
    fall = fall if is_linear else 0.5 - 0.5 * math.cos(math.pi * fall)
    return np.interp(progress, [0, 0.1], [0.1, 1]) * fall


def test_reaches_the_mean():
    rows, objective = shifted_rows(), Centre()
    report = run(objective, rows, max_iter=300)
    torch.testing.assert_close(objective.centre.detach(), rows.mean(0), atol=1e-3, rtol=0)
    assert report.n_iter == len(report.loss_curve) == 300
    optimum = 0.5 * rows.var(0, correction=0).sum().item()
    assert report.loss_curve[-1] == pytest.approx(optimum, abs=1e-5)
    assert report.validation_scores == []


def test_reaches_least_squares():
    rows, objective = shifted_rows(60, 4), Regression(4)
    run(objective, rows, max_iter=400)
    design = np.column_stack([rows[:, :-1], np.ones(60)])
    expected, *_ = np.linalg.lstsq(design, rows[:, -1], rcond=None)
    found = torch.cat([objective.slope[:, 0], objective.constant]).detach()
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_batches_reach_the_mean_too():
    rows, objective = shifted_rows(400), Centre()
    run(objective, rows, max_iter=40, batch_size=50)
    torch.testing.assert_close(objective.centre.detach(), rows.mean(0), atol=0.01, rtol=0)


def test_weight_decay_spares_what_asks_for_it():
    rows, objective = shifted_rows() + 2, HalfDecayed()
    run(objective, rows, max_iter=400, weight_decay=2.0)
    assert (objective.centre < rows.mean(0)[:2] - 0.2).all()
    assert objective.last.item() == pytest.approx(rows.mean(0)[2].item(), abs=1e-3)


def test_a_worse_end_without_validation_rows_leaves_the_initial_weights():
    class Uphill(Centre):
        """The loss leads away from the likelihood."""

        def loss(self, batch, progress):
            return -super().loss(batch, progress)

    objective = Uphill()
    run(objective, shifted_rows(), max_iter=5)
    assert (objective.centre == 0).all()


def test_storage_is_released():
    objective = HalfDecayed()
    run(objective, max_iter=2)
    for p in objective.parameters():
        assert p.grad is None
        assert p.untyped_storage().nbytes() == p.numel() * p.element_size()


@pytest.mark.parametrize("is_linear", [False, True], ids=["cosine", "linear"])
def test_learning_rate_rises_and_falls(is_linear):
    # With a constant gradient each step of Adam is the learning rate.
    objective = Centre(1)
    objective.decays_linearly = is_linear
    run(objective, torch.full((5, 1), 1e6, dtype=torch.float64), max_iter=50, learning_rate=0.01)
    steps = torch.stack([*objective.centres, objective.centre.detach()])[:, 0].diff()
    expected = [0.01 * schedule(i / 50, is_linear) for i in range(50)]
    np.testing.assert_allclose(steps, expected, rtol=1e-4)


def test_every_row_is_seen_once_per_epoch():
    rows, objective = shifted_rows(12), Centre()
    run(objective, rows, max_iter=5, batch_size=4)
    epochs = [torch.cat(objective.batches[i : i + 3]) for i in range(0, 15, 3)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == sorted(rows.tolist())
    orders = {tuple(epoch[:, 0].tolist()) for epoch in epochs}
    assert len(orders) == 5


@pytest.mark.parametrize(("n_rows", "sizes"), [(12, [8, 4]), (10, [8, 8]), (3, [3])])
def test_few_left_over_rows_are_filled_up(n_rows, sizes):
    rows, objective = shifted_rows(n_rows), Centre()
    run(objective, rows, max_iter=1, batch_size=8)
    assert [len(batch) for batch in objective.batches] == sizes
    seen = torch.cat(objective.batches).tolist()
    assert {tuple(row) for row in seen} == {tuple(row) for row in rows.tolist()}


def test_rows_are_drawn_anew_for_every_epoch():
    rows = shifted_rows(20)
    draws = [torch.tensor(np.random.RandomState(i).choice(20, 6)) for i in range(4)]
    coming = iter(draws)
    drawn = TrainingRows(rows.__getitem__, 6, rows, lambda generator: next(coming))
    objective = Centre()
    train(objective, drawn, None, settings(max_iter=4), make_generator(0))
    assert len(objective.batches) == 4
    for batch, index in zip(objective.batches, draws, strict=True):
        assert torch.equal(batch, rows[index])


def test_max_steps_ends_the_fit_whatever_max_iter_is():
    objective = Centre()
    report = run(objective, shifted_rows(12), max_iter=100, batch_size=4, max_steps=7)
    assert len(objective.batches) == 7
    assert report.n_iter == 3
    np.testing.assert_allclose(objective.progress, np.arange(7) / 7)


def test_same_seed_same_result_and_no_global_random_numbers():
    state = torch.get_rng_state()
    first, again, other = Centre(), Centre(), Centre()
    reports = [
        run(objective, seed=seed, batch_size=8)
        for objective, seed in [(first, 0), (again, 0), (other, 1)]
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.centre, again.centre)
    assert reports[0] == reports[1]
    assert not torch.equal(first.centre, other.centre)


def test_log_is_told_of_every_epoch():
    calls = []
    report = run(Centre(), log=lambda *call: calls.append(call), max_iter=4)
    assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [-score for _, _, score in calls] == pytest.approx(report.loss_curve)


# Best weights


def test_best_weights_are_restored():
    objective = Scripted([0.0, 1.0, 5.0, 2.0, 3.0])
    report = run(objective, validation_rows=shifted_rows(4), max_iter=4)
    centre, spread = objective.seen[2]
    assert torch.equal(objective.centre, centre)
    assert torch.equal(objective.spread, spread)
    assert report.validation_scores == [1.0, 5.0, 2.0, 3.0]
    assert report.best_score == 5.0


@pytest.mark.parametrize(
    "scores",
    [
        [0.0, -1.0, -2.0],
        # Better on average by .1, with a standard error of .4 over the four rows.
        [0.0, [0.9, -0.7, 0.9, -0.7], -1.0],
    ],
)
def test_initial_weights_are_kept_unless_surely_worse(scores):
    objective = Scripted(scores)
    report = run(objective, validation_rows=shifted_rows(4), max_iter=2)
    assert (objective.centre == 0).all()
    assert report.best_score == 0.0
    assert len(report.validation_scores) == 2


def test_scores_are_those_of_the_validation_rows():
    rows, validation_rows = shifted_rows(), shifted_rows(30, seed=1)
    objective = Centre()
    report = run(objective, rows, validation_rows, max_iter=300)
    # From zero the path to the mean of the rows passes near that of the validation rows.
    best = -0.5 * (validation_rows - objective.centre).square().sum(1).mean()
    assert max(report.validation_scores) == report.best_score == pytest.approx(best.item())


# Early stopping


def test_stops_after_epochs_without_a_better_score():
    objective = Scripted([0.0] * 100)
    assert (
        run(objective, validation_rows=shifted_rows(4), max_iter=50, n_iter_no_change=3).n_iter == 3
    )


def test_does_not_stop_early_before_min_progress():
    kwargs = {"max_iter": 20, "n_iter_no_change": 3, "min_progress": 0.5}
    report = run(Scripted([0.0] * 100), validation_rows=shifted_rows(4), **kwargs)
    assert report.n_iter == 12


def test_an_improvement_starts_the_count_again():
    scores = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0625, 1.0625]
    objective = Scripted(scores)
    kwargs = {"max_iter": 50, "n_iter_no_change": 3, "tol": 0.1}
    report = run(objective, validation_rows=shifted_rows(4), **kwargs)
    assert report.validation_scores == scores[1:]
    assert report.last_improvement == 0.0625


def test_training_loss_decides_without_validation_rows():
    assert run(Centre(), max_iter=30, n_iter_no_change=1).n_iter == 30
    constant = Centre(faults=dict.fromkeys(range(1, 100), 0.0))
    assert run(constant, max_iter=30, n_iter_no_change=2).n_iter == 3


# Non-finite losses


@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_rolls_back_with_half_the_learning_rate(fault):
    objective = Centre(faults={10: fault, 20: fault})
    report = run(objective, max_iter=30)
    # Two epochs are taken again.
    assert len(objective.batches) == 32
    assert report.n_iter == 30
    assert np.isfinite(report.loss_curve).all()
    assert torch.isfinite(objective.centre).all()
    for call, learning_rate, progress in [(10, 0.05, 9 / 30), (20, 0.025, 18 / 30)]:
        before, retried, after = objective.centres[call - 1 : call + 2]
        assert torch.equal(before, retried)
        assert objective.progress[call - 1] == objective.progress[call] == progress
        # The first step of a new Adam is the learning rate, whatever the gradient.
        expected = learning_rate * schedule(progress)
        np.testing.assert_allclose((after - retried).abs(), expected, rtol=1e-5)


def test_rolls_back_where_the_score_is_lost():
    objective = Scripted([0.0, 1.0, math.nan, 2.0, 3.0])
    report = run(objective, validation_rows=shifted_rows(4), max_iter=3)
    assert report.validation_scores == [1.0, 2.0, 3.0]
    assert torch.equal(objective.centres[1], objective.centres[2])


def test_only_epoch_is_taken_again():
    objective = Centre(faults={1: math.nan})
    report = run(objective, max_iter=1)
    assert report.n_iter == 1
    assert (objective.centre != 0).any()


@pytest.mark.parametrize("max_iter", [1, 2, 10])
def test_fourth_non_finite_loss_is_an_error(max_iter):
    objective = Centre(faults=dict.fromkeys(range(1, 100), math.nan))
    message = (
        "non-finite 4 times, the last time after 1 steps at a learning rate of 0.0125. "
        "Use a smaller learning_rate_init or a larger noise_floor"
    )
    with pytest.raises(FloatingPointError, match=message):
        run(objective, max_iter=max_iter)
    assert len(objective.batches) == 4


def test_whole_epoch_is_taken_back():
    # The second of three batches is lost, and with it the weights of the third.
    objective = Centre(faults={5: math.nan})
    report = run(objective, shifted_rows(12), max_iter=3, batch_size=4)
    assert len(objective.batches) == 12
    assert report.n_iter == 3
    assert torch.equal(objective.centres[3], objective.centres[6])


def test_nothing_to_train_takes_the_closed_form_step_only():
    rows = shifted_rows()
    objective = Centre().requires_grad_(False)
    report = run(objective, rows, max_iter=5)
    assert report.n_iter == 1
    assert objective.batches == []
    assert objective.spread == rows.square().mean()
    assert report.loss_curve == [pytest.approx(0.5 * rows.square().sum(1).mean().item())]


def test_frozen_parameters_stay():
    objective = HalfDecayed()
    objective.centre.requires_grad_(False)
    run(objective, max_iter=5)
    assert (objective.centre == 0).all()
    assert objective.last != 0


def assert_shared(optimizer, groups):
    """Every parameter and gradient is a view of the flat one of its group."""
    for group, parameters in zip(optimizer.groups, groups, strict=True):
        assert group.values.sum() == pytest.approx(sum(float(p.detach().sum()) for p in parameters))
        gradients = [p.grad for p in parameters]
        for whole, parts in [(group.values, parameters), (group.gradient, gradients)]:
            storage = whole.untyped_storage().data_ptr()
            assert all(part.untyped_storage().data_ptr() == storage for part in parts)


def test_flat_parameters_stay_views():
    class Layers(HalfDecayed):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.arange(2.0, 8.0, dtype=torch.float64).view(2, 3).T)

        def loss(self, batch, progress):
            return super().loss(batch, progress) + (self.matrix - 1).square().sum()

    objective = Layers()
    groups = [[objective.centre, objective.matrix], [objective.last]]
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    optimizer = Optimizer([objective], [0.0])
    assert_shared(optimizer, groups)
    assert all(torch.equal(value, start[name]) for name, value in objective.state_dict().items())
    for _ in range(3):
        expected = torch.autograd.grad(objective.loss(shifted_rows(), 0.5), objective.parameters())
        gradient = dict(zip(objective.parameters(), expected, strict=True))
        before = [group.mean.clone() for group in optimizer.groups]
        objective.loss(shifted_rows(), 0.5).backward()
        assert optimizer.step([0.1]) == [True]
        assert_shared(optimizer, groups)
        assert all((p.grad == 0).all() for p in objective.parameters())
        # Clipping scales all of them together, before Adam takes its mean of the gradients.
        norm = torch.cat([g.flatten() for g in expected]).norm()
        for group, mean, parameters in zip(optimizer.groups, before, groups, strict=True):
            for p in parameters:
                begin = group.starts[id(p)]
                part = slice(begin, begin + p.numel())
                clipped = gradient[p].flatten() / max(1.0, norm / CLIP_NORM)
                expected_mean = 0.9 * mean[0, part] + 0.1 * clipped
                np.testing.assert_allclose(group.mean[0, part], expected_mean)
    objective.load_state_dict(start)
    assert_shared(optimizer, groups)
    objective.loss(shifted_rows(), 0.5).backward()
    optimizer.step([0.1])
    assert not torch.equal(objective.matrix, start["matrix"])
    assert optimizer.are_finite() == [True]
    with torch.no_grad():
        objective.matrix[0, 1] = math.nan
    assert optimizer.are_finite() == [False]


def test_averages_over_all_steps_are_the_mean_of_the_iterates():
    """With a share of 1 the model kept is the arithmetic mean of the weights after each step."""
    objective, rows = Centre(), TrainingRows.of(shifted_rows())
    train(objective, rows, None, settings(max_iter=8, averaging=1.0), make_generator(1))
    plain, iterates = Centre(), []
    # The same steps without averaging; the weights after step i are seen by step i + 1.
    train(plain, rows, None, settings(max_iter=8), make_generator(1))
    iterates = [*plain.centres[1:], plain.centre.detach()]
    torch.testing.assert_close(
        objective.centre.detach(), torch.stack(iterates).mean(0), atol=1e-12, rtol=0
    )
    # The weights that take the steps are not touched by it.
    for one, other in zip(objective.centres, plain.centres, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_averages_are_validated_and_the_closed_form_fits_them():
    objective, rows, validation = Centre(), shifted_rows(), shifted_rows(seed=1)
    report = train(
        objective, TrainingRows.of(rows), validation, settings(averaging=1.0), make_generator(1)
    )
    torch.testing.assert_close(objective.spread, (rows - objective.centre).square().mean().detach())
    score = -0.5 * (validation - objective.centre.detach()).square().sum(1).mean()
    assert float(score) == pytest.approx(max(report.validation_scores), abs=1e-12)


def test_averaging_survives_a_roll_back():
    faults = {5: math.nan}
    objective, rows = Centre(faults=faults), shifted_rows()
    train(objective, TrainingRows.of(rows), None, settings(averaging=0.1), make_generator(1))
    assert torch.isfinite(objective.centre).all()
    assert float(objective.log_likelihood(rows).mean()) > float(
        Centre().log_likelihood(rows).mean()
    )
