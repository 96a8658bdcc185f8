"""A limit of time: the fit ends with it, its schedule too, and the best weights are kept."""

import time

import numpy as np
import pytest
import torch
from helpers import every_estimator, without_background
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skmanifoldflow import (
    ChartAtlasFlow,
    JointManifoldFlow,
    NoisyInjectiveFlow,
    StackingDensity,
    _geometry,
)
from skmanifoldflow._densities import mixture
from skmanifoldflow._densities.members import few_members
from skmanifoldflow._progress import listening
from skmanifoldflow.backend import training
from skmanifoldflow.datasets import SCurve

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "random_state": 0}


@pytest.fixture(scope="module")
def rows():
    return SCurve(noise=0.05).sample(300, random_state=0)[0]


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a tenth of a second whenever it is read."""

    class Clock:
        now = 0.0

        def __call__(self):
            self.now += 0.1
            return self.now

    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def progress_seen(monkeypatch):
    seen, schedule = [], training.schedule

    def record(progress, is_linear):
        seen.append(progress)
        return schedule(progress, is_linear)

    monkeypatch.setattr(training, "schedule", record)
    return seen


@every_estimator
def test_the_schedule_ends_with_the_time(Estimator, rows, clock, progress_seen):
    model = Estimator(2, max_iter=500, n_iter_no_change=500, max_time=30, **SMALL)
    if Estimator is JointManifoldFlow:
        model.set_params(n_stages=1)
    model.fit(rows)
    assert 1 < model.n_iter_ < 500
    # Training ends after nine tenths, at the end of the step.
    assert 27 <= clock.now < 33
    assert progress_seen[-1] > 0.9
    assert np.isfinite(model.score_samples(rows)).all()


def test_the_best_weights_are_kept(rows, clock):
    model = NoisyInjectiveFlow(2, max_iter=500, max_time=30, learning_rate_init=0.05, **SMALL).fit(
        rows
    )
    held_out = model._plan(rows)
    held_out = held_out.table.take(held_out.split.validation).numpy()
    score = without_background(model).score(held_out) + float(model._standardizer.scale.log().sum())
    assert score == pytest.approx(max(model.validation_scores_), abs=1e-4)


@every_estimator
def test_enough_time_changes_nothing(Estimator, rows):
    free = Estimator(2, max_iter=3, **SMALL).fit(rows)
    limited = Estimator(2, max_iter=3, max_time=600, **SMALL).fit(rows)
    np.testing.assert_array_equal(limited.score_samples(rows), free.score_samples(rows))


def test_the_time_of_a_clock_on_the_wall(rows):
    start = time.perf_counter()
    model = NoisyInjectiveFlow(2, max_iter=100_000, n_iter_no_change=100_000, max_time=1, **SMALL)
    model.fit(rows)
    assert time.perf_counter() - start < 10
    assert 1 < model.n_iter_ < 100_000


def test_a_fit_has_a_step_in_no_time(rows):
    model = NoisyInjectiveFlow(2, max_time=1e-9, **SMALL).fit(rows)
    assert model.n_iter_ == 1


def test_stages_and_restarts_share_the_time(rows, clock):
    model = JointManifoldFlow(2, n_stages=3, max_iter=500, max_time=60, n_init=4, **SMALL)
    parts = {}

    def listen(progress):
        parts[progress.part] = clock.now

    with listening(listen):
        model.fit(rows)
    assert list(parts) == ["stage 1 of 3", "stage 2 of 3", "stage 3 of 3"]
    ends = np.array([0, *parts.values()])
    assert ends[-1] < 70
    # The first takes half of the time, each other one a quarter.
    np.testing.assert_allclose(np.diff(ends) / ends[-1], [0.5, 0.25, 0.25], atol=0.15)


def test_a_rising_score_asks_for_time(rows, clock):
    model = NoisyInjectiveFlow(
        2, max_iter=500, max_time=2, learning_rate_init=1e-3, early_stopping=False, **SMALL
    )
    with pytest.warns(ConvergenceWarning, match="increase max_time"):
        model.fit(rows)


@pytest.mark.parametrize("max_time", [0, -1, "3min", np.nan])
def test_times_that_are_none(rows, max_time):
    for model in (NoisyInjectiveFlow(max_time=max_time), StackingDensity(max_time=max_time)):
        with pytest.raises(ValueError, match="max_time"):
            model.fit(rows)


def test_the_stack_ends_in_its_time(rows):
    start = time.perf_counter()
    flows = [(f"flow {k}", NoisyInjectiveFlow(2, max_iter=10**6, **SMALL)) for k in range(2)]
    flows = [(name, flow.set_params(n_iter_no_change=10**6)) for name, flow in flows]
    atlas = ("atlas", ChartAtlasFlow(2, n_charts=2, max_iter=10**6, **SMALL))
    model = StackingDensity([*flows, atlas], max_time=3, random_state=0).fit(rows)
    assert time.perf_counter() - start < 30
    assert np.isfinite(model.score_samples(rows)).all()
    assert all(member.max_time is not None for member in model.estimators_)


def test_a_mixture_tries_what_there_is_time_for(rows, monkeypatch):
    sizes = []

    class Counted(GaussianMixture):
        def fit(self, X, y=None):
            sizes.append(self.n_components)
            return super().fit(X)

    monkeypatch.setattr(mixture, "GaussianMixture", Counted)
    whole = mixture.ValidatedMixture(random_state=0).fit(rows)
    n_all = len(sizes)
    enough = mixture.ValidatedMixture(max_time=1e6, random_state=0).fit(rows)
    np.testing.assert_array_equal(enough.score_samples(rows), whole.score_samples(rows))
    sizes.clear()
    mixture.ValidatedMixture(max_time=1e-9, random_state=0).fit(rows)
    # One size, and the fit to all rows.
    assert sizes == [1, 1]
    assert n_all > 8


def test_mixtures_of_a_stack_share_its_time(rows):
    stack = StackingDensity(few_members(), max_time=1, random_state=0).fit(rows)
    of_members = {
        name: {k: v for k, v in member.get_params().items() if k.endswith("max_time")}
        for name, member in stack.named_estimators_.items()
    }
    assert 0 < of_members["mixture"]["max_time"] < 1
    assert 0 < of_members["normal scores"]["density__max_time"] < 1
    assert 0 < of_members["flow"]["max_time"] < 1
    assert all(member.max_time is None for name, member in few_members() if name == "mixture")


def test_after_the_time_few_rows_are_read(rows, monkeypatch):
    n_read = []

    def local_spectra(flow, part):
        n_read.append(len(part))
        return torch.ones(len(part), 3)

    monkeypatch.setattr(_geometry, "local_spectra", local_spectra)
    NoisyInjectiveFlow(max_iter=1, **SMALL).fit(rows)
    assert sum(n_read) == 256
    n_read.clear()
    NoisyInjectiveFlow(max_iter=1, max_time=1e6, **SMALL).fit(rows)
    assert sum(n_read) == 256
    n_read.clear()
    NoisyInjectiveFlow(max_time=1e-6, **SMALL).fit(rows)
    assert sum(n_read) == 32
