"""Ctrl-C in a fit: the best weights so far are kept after the first epoch, everything before it."""

import pickle
from contextlib import contextmanager

import numpy as np
import pytest
from helpers import without_background
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, ManifoldPriorFlow, NoisyInjectiveFlow
from skmanifoldflow._chart_atlas.quantization import Quantization
from skmanifoldflow._joint_manifold.objective import JointLikelihood
from skmanifoldflow._progress import listening
from skmanifoldflow.backend import training, training_job
from skmanifoldflow.backend.training import _Together
from skmanifoldflow.datasets import SCurve
from skmanifoldflow.model_selection import StackedSearchCV

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 8, "random_state": 0}
MODELS = {
    "atlas": ChartAtlasFlow(2, n_charts=3, **SMALL),
    "joint": JointManifoldFlow(2, n_init=1, **SMALL),
    "prior": ManifoldPriorFlow(2, **SMALL),
    "injective": NoisyInjectiveFlow(2, **SMALL),
    "stack": NoisyInjectiveFlow(2, n_init=3, **SMALL),
    # Learning rates differ in nothing, so that these restarts are trained one by one.
    "deep_restarts": NoisyInjectiveFlow(
        2, n_init=2, objective="elbo", n_latent_layers=1, n_importance_samples=2, **SMALL
    ),
}


@pytest.fixture(scope="module")
def rows():
    return SCurve(noise=0.05).sample(300, random_state=0)[0]


@pytest.fixture(scope="module")
def other_rows():
    return 3 * SCurve(noise=0.2).sample(200, random_state=1)[0]


@pytest.fixture(params=MODELS)
def model(request):
    return clone(MODELS[request.param])


def interrupt_after(epoch, part=""):
    """Press Ctrl-C when the epoch of a training has ended."""

    def listen(progress):
        if progress.epoch == epoch and progress.part.startswith(part):
            raise KeyboardInterrupt

    return listening(listen)


@contextmanager
def interrupted():
    with (
        pytest.warns(ConvergenceWarning, match="interrupted after epoch"),
        pytest.raises(KeyboardInterrupt),
    ):
        yield


def validation_score(model, rows, seed=0):
    """Return the mean log-density of the rows that a fit set aside, in standardised units."""
    plan = model._plan(rows)
    held_out = plan.table.take(plan.split.validation).numpy()
    alone = without_background(model)
    return alone.score(held_out) + float(model._standardizer.scale.log().sum())


def test_weights_are_those_of_the_best_epoch_until_then(model, rows):
    whole = clone(model).fit(rows)
    with interrupted(), interrupt_after(3):
        model.fit(rows)
    assert model.n_iter_ == 3
    if model.n_init == 1:
        np.testing.assert_array_equal(model.loss_curve_, whole.loss_curve_[:3])
        np.testing.assert_array_equal(model.validation_scores_, whole.validation_scores_[:3])
    assert np.isfinite(model.score_samples(rows)).all()
    assert model.transform(rows).shape == (300, 2)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))


def test_an_interrupted_model_has_the_best_score(rows):
    """What it scores on the rows set aside is the best of the validation scores so far."""
    model = NoisyInjectiveFlow(2, **SMALL | {"max_iter": 20, "learning_rate_init": 0.05})
    with interrupted(), interrupt_after(9):
        model.fit(rows)
    best = max(model.validation_scores_)
    assert validation_score(model, rows) == pytest.approx(best, abs=1e-4)


def test_of_several_restarts_the_best_is_kept(rows):
    """Each restart alone, stopped after the same epoch, tells which one is the best."""
    model = NoisyInjectiveFlow(2, n_init=3, **SMALL)
    plan = model._plan(rows)
    first = model._prepare_restart(plan, plan.seeds[0], None)
    best = []
    for seed in plan.seeds:
        job = model._prepare_restart(plan, seed, first).job

        def stop(epoch, n_epochs, score):
            if epoch == 3:
                raise KeyboardInterrupt

        with pytest.raises(training_job.TrainingInterrupted) as caught:
            training.train(*job, log=stop)
        best.append(caught.value.reports[0].best_score)
    with interrupted(), interrupt_after(3):
        model.fit(rows)
    assert max(model.validation_scores_) == pytest.approx(max(best), abs=0.02)
    assert max(best) - min(best) > 0.03


def test_a_finished_restart_is_kept(rows):
    """Ctrl-C in the second restart before its first epoch leaves the first one."""
    model = clone(MODELS["deep_restarts"])

    def listen(progress):
        if progress.part == "start 1 of 2" and progress.epoch == 8:
            training.Optimizer.step = stop

    def stop(self, *args):
        raise KeyboardInterrupt

    step = training.Optimizer.step
    try:
        with interrupted(), listening(listen):
            model.fit(rows)
    finally:
        training.Optimizer.step = step
    assert model.n_iter_ == 8


@pytest.mark.parametrize("is_fitted", [False, True])
def test_before_the_first_epoch_nothing_has_happened(
    model, rows, other_rows, is_fitted, monkeypatch
):
    if is_fitted:
        model.fit(other_rows)
    before = pickle.dumps(model)

    def stop(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Optimizer, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows)
    assert pickle.dumps(model) == before
    assert hasattr(model, "n_iter_") == is_fitted


def test_the_quantiser_is_no_model(rows, monkeypatch):
    """An epoch of the autoencoder of an atlas is not one of its flow."""
    loss, calls = Quantization.loss, []

    def stop(self, *args):
        calls.append(args)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return loss(self, *args)

    monkeypatch.setattr(Quantization, "loss", stop)
    model = clone(MODELS["atlas"])
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows)
    assert not hasattr(model, "n_iter_")


def test_a_second_interrupt_restores(model, rows, other_rows, monkeypatch):
    model.fit(other_rows)
    before = pickle.dumps(model)

    def stop(self, start, rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model), "_finish", stop)
    with pytest.raises(KeyboardInterrupt), interrupt_after(3):
        model.fit(rows)
    assert pickle.dumps(model) == before


def test_other_exceptions_restore(model, rows, other_rows):
    model.fit(other_rows)
    before = pickle.dumps(model)

    def listen(progress):
        if progress.epoch == 3:
            raise MemoryError

    with pytest.raises(MemoryError), listening(listen):
        model.fit(rows)
    assert pickle.dumps(model) == before


def test_an_error_after_an_interrupt_stops_a_search_too(rows, monkeypatch):
    def fail(self, start, rows):
        raise FloatingPointError("lost")

    monkeypatch.setattr(NoisyInjectiveFlow, "_finish", fail)
    model = clone(MODELS["injective"])
    with pytest.raises(KeyboardInterrupt), interrupt_after(3):
        model.fit(rows)
    assert not hasattr(model, "n_iter_")


def test_a_second_interrupt_in_a_further_restart_restores(rows, monkeypatch):
    """Though a restart before it was finished."""
    model = JointManifoldFlow(2, n_init=2, **SMALL)
    monkeypatch.setattr(JointManifoldFlow, "_is_settled", lambda self, objective: False)
    measure, presses = JointLikelihood.mean_squared_residual, []

    def press(self, rows):
        if presses:
            raise KeyboardInterrupt
        return measure(self, rows)

    def listen(progress):
        if progress.part.startswith("start 2") and progress.epoch == 2:
            presses.append(progress)
            raise KeyboardInterrupt

    monkeypatch.setattr(JointLikelihood, "mean_squared_residual", press)
    with pytest.raises(KeyboardInterrupt), listening(listen):
        model.fit(rows)
    assert presses
    assert not hasattr(model, "n_iter_")


def test_a_lost_restart_is_trained_alone_and_can_be_interrupted(rows, monkeypatch):
    """The others are kept with their own reports."""
    epoch, calls = _Together.epoch, []

    def lose(self):
        calls.append(self)
        mean_losses = epoch(self)
        return [mean_losses[0], np.nan, mean_losses[2]] if len(calls) == 1 else mean_losses

    monkeypatch.setattr(_Together, "epoch", lose)
    heard = []

    def listen(progress):
        heard.append((progress.part, progress.epoch))
        if progress.part == "start 2 of 3" and progress.epoch == 4:
            raise KeyboardInterrupt

    model = clone(MODELS["stack"])
    with interrupted(), listening(listen):
        model.fit(rows)
    assert ("3 starts at once", 8) in heard
    assert heard[-1] == ("start 2 of 3", 4)
    assert len(model.loss_curve_) == len(model.validation_scores_) in (4, 8)


@pytest.mark.parametrize("place", ["_adopt", "_finish"])
def test_interrupt_after_the_training_keeps_the_whole_of_it(model, rows, place, monkeypatch):
    check_interrupt_in_the_results(model, rows, place, monkeypatch)


@pytest.mark.parametrize("name", ["prior", "atlas"])
def test_interrupt_amid_the_results_does_so_too(name, rows, monkeypatch):
    check_interrupt_in_the_results(clone(MODELS[name]), rows, "_from_flow", monkeypatch)


def check_interrupt_in_the_results(model, rows, place, monkeypatch):
    """Where Ctrl-C comes while the results are set, they are set once more."""
    whole = clone(model).fit(rows)
    method, calls = getattr(type(model), place), []

    def interrupting(self, *args):
        result = method(self, *args)
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(type(model), place, interrupting)
    with interrupted():
        model.fit(rows)
    assert model.n_iter_ == whole.n_iter_
    for method in ("score_samples", "transform", "local_dimension"):
        np.testing.assert_array_equal(getattr(model, method)(rows), getattr(whole, method)(rows))


@pytest.mark.parametrize("stages", [None, (2, 1)])
def test_finished_stages_are_kept(rows, stages):
    options = SMALL | {"n_init": 1, "n_stages": 3, "stage_components": stages}
    whole = JointManifoldFlow(3, **options).fit(rows)
    model = JointManifoldFlow(3, **options)
    with interrupted(), interrupt_after(2, "stage 3"):
        model.fit(rows)
    assert model.stage_components_ == whole.stage_components_[:2]
    np.testing.assert_allclose(model.stage_scores_, whole.stage_scores_[:2])
    np.testing.assert_allclose(
        model.score_samples(rows, stage=2), whole.score_samples(rows, stage=2), atol=1e-6
    )
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))
    # The whole model can still be fitted.
    assert model.set_params(warm_start=True).fit(rows).stage_components_ == whole.stage_components_


@pytest.mark.parametrize("Search", [GridSearchCV, StackedSearchCV])
def test_searches_stop(rows, Search):
    search = Search(NoisyInjectiveFlow(2, **SMALL), {"learning_rate_init": [1e-3, 1e-2]}, cv=2)
    epochs = []

    def stop(self, progress, *args):
        epochs.append(progress)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Optimizer, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            search.fit(rows)
    assert len(epochs) == 1
    assert not hasattr(search, "cv_results_")
