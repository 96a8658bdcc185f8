"""Nothing that the caller has set for other computations enters a model, and `verbose` does not."""

import contextlib
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_moons

from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, ManifoldPriorFlow, NoisyInjectiveFlow
from skmanifoldflow._progress import Progress, listening

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
IMAGES = {**SMALL, "image_shape": (1, 4, 4)}
MODELS = [
    ManifoldPriorFlow(**SMALL),
    ManifoldPriorFlow(recipe="paper", **SMALL),
    ManifoldPriorFlow(3, **IMAGES),
    NoisyInjectiveFlow(n_init=3, **SMALL),
    NoisyInjectiveFlow(flow="autoregressive", noise_covariance="diag", **SMALL),
    NoisyInjectiveFlow(1, objective="elbo", n_latent_layers=1, n_importance_samples=4, **SMALL),
    NoisyInjectiveFlow(2, objective="elbo", injection="coupling", **SMALL),
    NoisyInjectiveFlow(3, **IMAGES),
    ChartAtlasFlow(**SMALL),
    ChartAtlasFlow(chart_map="conformal", quantizer="kmeans", **SMALL),
    ChartAtlasFlow(3, **IMAGES),
    JointManifoldFlow(1, n_init=2, **SMALL),
    JointManifoldFlow(4, split="channel", **IMAGES),
]


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


CONTEXTS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default_dtype": default_dtype,
    "default_device": lambda: torch.device("meta"),
    "errstate": lambda: np.errstate(all="raise"),
}


def rows_of(model):
    if model.image_shape is None:
        return make_moons(200, noise=0.05, random_state=0)[0]
    images = load_digits().images[:150, 2:6, 2:6].reshape(-1, 16)
    return images + np.random.RandomState(0).random_sample(images.shape)


def answers(model, X):
    """Return what a model says by every method it has."""
    few = X[:20]
    found = [
        model.score_samples(X),
        model.transform(X),
        model.reconstruct(X),
        model.sample(4, random_state=0),
        model.local_dimension(few),
    ]
    for name in ("score_samples_manifold", "posterior_mean", "predict_proba", "expected_latent"):
        if hasattr(model, name):
            found.append(getattr(model, name)(few))
    if hasattr(model, "sample_latent"):
        found.append(model.sample_latent(few, 2, random_state=0))
    if hasattr(model, "chart_transform"):
        Z, charts = model.chart_transform(few)
        found += [Z, charts, model.chart_inverse_transform(Z, charts)]
    return found


@pytest.fixture(scope="module", params=MODELS, ids=lambda m: type(m).__name__)
def case(request):
    X = rows_of(request.param)
    return request.param, X, answers(clone(request.param).fit(X), X)


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("context", CONTEXTS)
def test_context_of_the_caller(case, context):
    model, X, expected = case
    with CONTEXTS[context]():
        fitted = clone(model).fit(X)
        stored = pickle.dumps(fitted)
        assert_same(answers(fitted, X), expected)
        loaded = pickle.loads(stored)
        assert_same(answers(loaded, X), expected)
    # What was made there is of use elsewhere.
    assert_same(answers(fitted, X), expected)
    assert_same(answers(loaded, X), expected)


def test_caller_keeps_the_context(case):
    model, X, _ = case
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), np.errstate(all="raise"):
        clone(model).fit(X)
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert np.geterr()["under"] == "raise"


@pytest.mark.parametrize("verbose", [1, 2, True])
def test_verbose_does_not_change_the_model(case, verbose, capsys):
    model, X, expected = case
    fitted = clone(model).set_params(verbose=verbose).fit(X)
    assert_same(answers(fitted, X), expected)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3
    for line in lines:
        assert line.startswith(f"[{type(model).__name__}] ")
        for text in (
            "epoch ",
            " of 3, score " if "stage 2" not in line else " of 2, score ",
            "left",
        ):
            assert text in line


def test_a_listener_does_not_change_the_model(case, capsys):
    model, X, expected = case
    heard = []
    with listening(heard.append):
        fitted = clone(model).fit(X)
    assert_same(answers(fitted, X), expected)
    assert capsys.readouterr().out == ""
    assert {progress.estimator for progress in heard} == {type(model).__name__}
    epochs = [progress.epoch for progress in heard]
    assert epochs[0] == 1
    assert max(epochs) == 3
    elapsed = [progress.elapsed for progress in heard]
    assert elapsed == sorted(elapsed)
    last = heard[-1]
    assert last.remaining == 0.0
    assert last.epoch == last.n_epochs


def test_stages_and_restarts_have_names():
    X = rows_of(MODELS[0])
    heard = []
    with listening(heard.append):
        JointManifoldFlow(2, stage_components=(1,), n_init=1, **SMALL).fit(X)
        NoisyInjectiveFlow(1, n_init=2, **SMALL).fit(X)
        NoisyInjectiveFlow(1, n_init=2, objective="elbo", n_latent_layers=1, **SMALL).fit(X)
    parts = list(dict.fromkeys(progress.part for progress in heard))
    assert parts == [
        "stage 1 of 2",
        "stage 2 of 2",
        "2 starts at once",
        "start 1 of 2",
        "start 2 of 2",
    ]
    # At the end of the first stage the second one is still to come.
    first = [progress for progress in heard if progress.part == "stage 1 of 2"]
    assert first[-1].epoch == first[-1].n_epochs
    assert first[-1].remaining > 0


def test_progress_reads_well():
    progress = Progress("PCA", "stage 1 of 2", 3, 80, -1.23456, 4.04, 7300.0)
    assert str(progress) == (
        "stage 1 of 2, epoch 3 of 80, score -1.2346 nats, 4.0 s elapsed, at most 2 h 2 min left"
    )
    assert str(progress._replace(part="", elapsed=61.2, remaining=700)).endswith(
        "nats, 61 s elapsed, at most 12 min left"
    )
