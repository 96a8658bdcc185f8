"""A model that is broken says so: damaged files, weights and gradients that are not finite."""

import io
import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from helpers import ESTIMATORS, every_estimator
from scipy.stats import multivariate_normal
from sklearn.datasets import make_moons
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning

from skmanifoldflow import (
    ChartAtlasFlow,
    JointManifoldFlow,
    ManifoldPriorFlow,
    NoisyInjectiveFlow,
)
from skmanifoldflow.backend import training

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}


@pytest.fixture(scope="module")
def rows():
    return make_moons(300, noise=0.05, random_state=0)[0]


@pytest.fixture(scope="module", params=ESTIMATORS, ids=lambda e: e.__name__)
def model(request, rows):
    return request.param(**SMALL).fit(rows)


# ------------------------------------------------------------------ files


def matrix_of(state):
    return next(
        name for name, value in state["_flow"].items() if value.ndim == 2 and value.size > 3
    )


def nan_weights(state):
    state["_flow"][matrix_of(state)] = np.nan * state["_flow"][matrix_of(state)]


def wrong_shape(state):
    state["_flow"][matrix_of(state)] = np.zeros((3, 3))


def missing_array(state):
    del state["_flow"][matrix_of(state)]


def further_array(state):
    state["_flow"]["more"] = np.zeros(2)


def integers(state):
    state["_flow"][matrix_of(state)] = state["_flow"][matrix_of(state)].astype(int)


def objects(state):
    state["_flow"][matrix_of(state)] = np.array([[None]])


def nan_standardizer(state):
    state["_standardizer"]["mean"] = np.nan * state["_standardizer"]["mean"]


def no_standardizer(state):
    del state["_standardizer"]


def no_config(state):
    del state["_config"]


def no_device(state):
    del state["device_"]


def other_components(state):
    state["n_components_"] = 99


def other_config(**changes):
    def change(state):
        state["_config"] = state["_config"] | changes

    return change


DAMAGES = [
    nan_weights,
    wrong_shape,
    missing_array,
    further_array,
    integers,
    objects,
    nan_standardizer,
    no_standardizer,
    no_config,
    no_device,
    other_components,
    # Each of these would take minutes, or all memory, to build.
    other_config(n_layers=10**5),
    other_config(n_features=10**6),
    other_config(hidden_layer_sizes=(10**6, 10**6)),
    other_config(flow="nonsense"),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_files_do_not_load(model, damage):
    state = model.__getstate__()
    state["_flow"], state["_standardizer"] = dict(state["_flow"]), dict(state["_standardizer"])
    damage(state)
    other = object.__new__(type(model))
    with pytest.raises(
        ValueError, match=f"stored {type(model).__name__} is damaged, or was changed"
    ):
        other.__setstate__(state)
    assert not hasattr(other, "_flow")


@pytest.mark.parametrize(
    ("Estimator", "changes"),
    [
        (ManifoldPriorFlow, {"image_shape": (1, 2, 2)}),
        (JointManifoldFlow, {"split": "channel"}),
        (ChartAtlasFlow, {"image_shape": [2]}),
        (ChartAtlasFlow, {"n_charts": ()}),
    ],
)
def test_damaged_configurations_of_the_first_version_do_not_load(Estimator, changes):
    """Its models have no digest, so that whatever builds the flow meets the damage."""
    rows = np.random.RandomState(0).standard_normal((50, 4))
    state = Estimator(**SMALL).fit(rows).__getstate__()
    del state["_digest"]
    state["_config"] = state["_config"] | changes
    with pytest.raises(ValueError, match="is damaged, or was changed"):
        Estimator.__new__(Estimator).__setstate__(state)


@pytest.mark.parametrize("damage", DAMAGES[:6], ids=lambda damage: damage.__name__)
def test_damage_of_a_model_without_a_digest(model, damage):
    """As the first version stored them."""
    state = model.__getstate__()
    state["_flow"] = dict(state["_flow"])
    del state["_digest"]
    damage(state)
    with pytest.raises(ValueError, match="is damaged, or was changed"):
        object.__new__(type(model)).__setstate__(state)


@every_estimator
def test_models_of_one_column_load(Estimator):
    """The couplings of one column have no weights, so there are fewer arrays than layers."""
    X = np.random.RandomState(0).standard_normal((60, 1))
    model = Estimator(max_iter=1, n_layers=30, random_state=0).fit(X)
    state = model.__getstate__()
    for _ in range(2):
        other = object.__new__(Estimator)
        other.__setstate__(pickle.loads(pickle.dumps(state)))
        np.testing.assert_array_equal(other.score_samples(X), model.score_samples(X))
        # As the first version stored it.
        state.pop("_digest", None)


def test_parameters_as_numpy_scalars_load_under_any_way_of_printing(rows):
    options = {**SMALL, "noise_floor": np.float64(0.01), "n_layers": np.int64(2)}
    stored = pickle.dumps(NoisyInjectiveFlow(bounded=(np.float64(-9), 9.0), **options).fit(rows))
    with np.printoptions(legacy="1.25"):
        assert np.isfinite(pickle.loads(stored).score(rows))


def test_a_flipped_bit_never_gives_other_scores(model, rows):
    """In the bytes of a file: it does not load, or the bit was of no account."""
    expected = model.score_samples(rows)
    file = io.BytesIO()
    joblib.dump(model, file)
    rng, n_loaded = np.random.RandomState(0), 0
    for _ in range(60):
        damaged = bytearray(file.getvalue())
        damaged[rng.randint(len(damaged))] ^= 1 << rng.randint(8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                scores = joblib.load(io.BytesIO(damaged)).score_samples(rows)
            except Exception:
                continue
        n_loaded += 1
        np.testing.assert_array_equal(scores, expected)
    assert n_loaded < 60


# ------------------------------------------------------------------ scores


def test_a_score_that_is_no_number_raises(model, rows):
    broken = joblib.load(_stored(model))
    with torch.no_grad():
        for tensor in broken._flow.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 2:
                tensor.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="log-density of 300 rows is not a number"):
        broken.score_samples(rows)


def test_a_row_that_is_too_far_has_no_density(model, rows):
    far = np.array([[1e200, 0.0], [0.0, -1e160], [1e300, 1e300]])
    assert (model.score_samples(far) == -np.inf).all()
    np.testing.assert_allclose(
        model.score_samples(np.r_[far, rows])[3:], model.score_samples(rows), rtol=1e-12
    )


@pytest.mark.parametrize("Estimator", [JointManifoldFlow, ManifoldPriorFlow, NoisyInjectiveFlow])
def test_dimension_of_a_row_that_is_too_far(Estimator, rows):
    model = Estimator(**SMALL).fit(rows)
    if Estimator is ManifoldPriorFlow:
        model._mixture = None
    with pytest.raises(ValueError, match="overflows at 1 rows: they are too far"):
        model.local_dimension([[1.7e308, 0], [0, 0]])


def _stored(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return file


# ------------------------------------------------------------------ gradients


def break_gradients(monkeypatch, is_broken):
    """Make the gradients of the steps for whose number `is_broken` holds NaN."""
    step, n = training.Optimizer.step, [0]

    def broken(self, *args):
        n[0] += 1
        if is_broken(n[0]):
            for group in self.groups:
                group.gradient.fill_(float("nan"))
        return step(self, *args)

    monkeypatch.setattr(training.Optimizer, "step", broken)


CASES = [(Estimator, {}) for Estimator in ESTIMATORS] + [(NoisyInjectiveFlow, {"n_init": 2})]


@pytest.mark.parametrize(("Estimator", "options"), CASES)
def test_a_training_without_gradients_raises(Estimator, options, rows, monkeypatch):
    break_gradients(monkeypatch, lambda n: True)
    model = Estimator(**SMALL, **options)
    with pytest.raises(FloatingPointError, match=r"not finite in any of \d+ steps"):
        model.fit(rows)
    assert not hasattr(model, "n_iter_")


@pytest.mark.parametrize(("Estimator", "options"), CASES)
def test_a_training_with_few_gradients_warns(Estimator, options, rows, monkeypatch):
    break_gradients(monkeypatch, lambda n: n % 3 == 0)
    with pytest.warns(ConvergenceWarning, match=r"not finite in \d+ of \d+ steps"):
        model = Estimator(**SMALL, **options).fit(rows)
    assert np.isfinite(model.score_samples(rows)).all()


def test_one_gradient_more_or_less_is_no_matter(rows, monkeypatch):
    break_gradients(monkeypatch, lambda n: n == 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NoisyInjectiveFlow(**SMALL | {"max_iter": 8}, learning_rate_init=1e-5).fit(rows)


# ------------------------------------------------------------------ restarts and initialization


@pytest.mark.parametrize("options", [{"n_latent_layers": 1}, {"injection": "coupling"}])
def test_restarts_of_a_model_with_a_random_loss(options, rows):
    """The best of three is as good as each of them alone, from the same rows set aside."""
    model = NoisyInjectiveFlow(2, objective="elbo", n_init=3, **options, **SMALL).fit(rows)
    plan = model._plan(rows)
    first, bests = None, []
    for seed in plan.seeds:
        restart = model._prepare_restart(plan, seed, first)
        first = first or restart
        bests.append(training.train(*restart.job).best_score)
    assert max(model.validation_scores_) == pytest.approx(max(bests), abs=1e-6)


def constant_column(rng):
    return np.c_[rng.standard_normal((200, 2)), np.zeros(200)]


def repeated_column(rng):
    X = rng.standard_normal((200, 3))
    return np.c_[X, X[:, 1]]


def collinear(rng):
    X = rng.standard_normal((200, 3))
    return np.c_[X, X[:, 0] + 2 * X[:, 1]]


def few_rows(rng):
    return rng.standard_normal((12, 20))


@pytest.mark.parametrize("n_components", [None, 1, 2])
@pytest.mark.parametrize("make", [constant_column, repeated_column, collinear, few_rows])
def test_diagonal_noise_of_singular_tables(make, n_components):
    X = make(np.random.RandomState(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = NoisyInjectiveFlow(n_components, noise_covariance="diag", **SMALL).fit(X)
    for values in (model.score_samples(X), model.transform(X), model.noise_variance_):
        assert np.isfinite(values).all()
    if make is not few_rows:
        # It has one noise of all columns as a special case.
        fresh = make(np.random.RandomState(1))
        spherical = NoisyInjectiveFlow(n_components, **SMALL).fit(X)
        assert model.score(fresh) > spherical.score(fresh) - 0.5


def test_more_components_than_rows_with_diagonal_noise(monkeypatch):
    """Most of the factors explain nothing: the stochastic inverse still has a mode."""
    # The covariance of few rows would be shrunk.
    monkeypatch.setattr("skmanifoldflow._plan.are_few", lambda n_rows, n_features: False)
    rng = np.random.RandomState(0)
    X = np.round(rng.standard_normal((5, 32)) * 10 ** rng.uniform(-3, 9, 32))
    model = NoisyInjectiveFlow(29, noise_covariance="diag", **SMALL).fit(X)
    for values in (model.transform(X), model.reconstruct(X), model.score_samples_manifold(X)):
        assert np.isfinite(values).all()
    np.testing.assert_allclose(
        model.reconstruct(X) / X.std(0).clip(1), X / X.std(0).clip(1), atol=0.1
    )


def test_initialization_of_diagonal_noise_is_factor_analysis_where_that_is_better(rows):
    """On columns with noise of their own the likelihood of factor analysis is the higher one."""
    rng = np.random.RandomState(0)
    noise = np.array([0.1, 0.3, 1.0, 2.0, 0.2])
    X = rng.standard_normal((500, 1)) @ rng.standard_normal((1, 5))
    X = X + noise * rng.standard_normal((500, 5))
    X = (X - X.mean(0)) / X.std(0)
    options = SMALL | {"flow": "additive", "early_stopping": False}
    model = NoisyInjectiveFlow(1, noise_covariance="diag", **options)
    plan = model._plan(X)
    restart = model._prepare_restart(plan, plan.seeds[0], None)
    objective, rows = restart.job.objective, restart.prepare(torch.tensor(X))
    y = objective.flow.bijection.forward_and_log_det(rows.float())[0]
    latent = objective.flow.latent
    ours = float(latent.log_prob(y).mean().detach())
    y = y.detach().double().numpy()
    analysis = FactorAnalysis(1, tol=1e-8, max_iter=1000, svd_method="lapack").fit(y)
    theirs = multivariate_normal(analysis.mean_, analysis.get_covariance()).logpdf(y).mean()
    assert ours == pytest.approx(theirs, abs=1e-3)
