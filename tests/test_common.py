"""The contract of every estimator."""

import copy
import pickle
import random

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ESTIMATORS, every_estimator, without_background
from scipy.integrate import trapezoid
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_global_output_transform_pandas,
    check_inplace_ensure_writeable,
    check_param_validation,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    parametrize_with_checks,
)

from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, NoisyInjectiveFlow
from skmanifoldflow.datasets import SCurve

SMALL = {"max_iter": 3, "n_layers": 2, "hidden_layer_sizes": (8,)}
# Few epochs: what is checked does not depend on them.
SETTINGS = [{"max_iter": 4}, {**SMALL, "early_stopping": False}]
# What makes the initialization of an estimator a normal distribution, where its defaults do not.
NORMAL_INITIALIZATION = {JointManifoldFlow: {"penalty": "gaussian"}}

pytestmark = [
    # Some of them fit a frame and transform an array, or the reverse.
    pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning"),
]


@parametrize_with_checks([Estimator(**kw) for Estimator in ESTIMATORS for kw in SETTINGS])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@every_estimator
def test_a_fit_with_the_defaults(Estimator, rows):
    """It is a better density of a curved surface than a normal distribution."""
    normal = multivariate_normal(rows.mean(axis=0), np.cov(rows.T))
    model = Estimator(random_state=0).fit(rows)
    assert model.score(rows) > normal.logpdf(rows).mean() + 0.2


EXTRA_CHECKS = [
    check_param_validation,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_global_output_transform_pandas,
    check_inplace_ensure_writeable,
]


@pytest.mark.parametrize("check", EXTRA_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("settings", SETTINGS, ids=["few epochs", "small"])
@every_estimator
def test_extra_scikit_learn_checks(Estimator, settings, check):
    check(Estimator.__name__, Estimator(**settings))


@pytest.fixture(scope="module")
def rows():
    return SCurve(noise=0.05).sample(300, random_state=0)[0]


@pytest.fixture(scope="module", params=ESTIMATORS, ids=lambda e: e.__name__)
def model(request, rows):
    return request.param(2, random_state=0, **SMALL).fit(rows)


def those_of(model, *names):
    """Return the methods of these names that the model has; a manifold's density is optional."""
    return [getattr(model, n) for n in names if n != "score_samples_manifold" or hasattr(model, n)]


def test_shapes_and_attributes(model, rows):
    Z = model.transform(rows)
    assert Z.shape == (300, 2)
    assert model.inverse_transform(Z).shape == rows.shape
    assert model.score_samples(rows).shape == (300,)
    assert isinstance(model.score(rows), float)
    assert model.score(rows) == pytest.approx(model.score_samples(rows).mean(), abs=1e-12)
    assert model.sample(7, random_state=0).shape == (7, 3)
    for density in those_of(model, "score_samples_manifold"):
        assert density(rows).shape == (300,)
    dimension = model.local_dimension(rows)
    assert dimension.shape == (300,)
    assert set(dimension) <= {1, 2, 3}
    assert 1 <= model.n_iter_ <= 3
    assert len(model.loss_curve_) == len(model.validation_scores_) == model.n_iter_
    assert model.n_components_ == 2
    assert model.intrinsic_dimension_ in (1, 2, 3)
    assert model.device_ == ("cuda" if torch.cuda.is_available() else "cpu")
    assert list(model.get_feature_names_out()) == [
        type(model).__name__.lower() + str(i) for i in range(2)
    ]


def test_only_an_atlas_has_no_density_on_a_manifold(model):
    assert hasattr(model, "score_samples_manifold") != isinstance(model, ChartAtlasFlow)


def test_embedding_is_a_projection(model, rows):
    """reconstruct projects: coordinates survive it, and projecting twice changes nothing.

    An autoencoder comes near to that only; the linear one of an atlas is exact, but for the digits
    of the weights, which are trained in float32.
    """
    atol = 1e-9
    projected = model.reconstruct(rows)
    np.testing.assert_allclose(projected, model.inverse_transform(model.transform(rows)))
    if isinstance(model, ChartAtlasFlow):
        assert np.abs(model.transform(projected) - model.transform(rows)).mean() < 0.1
        model = clone(model).set_params(quantizer="kmeans").fit(rows)
        projected, atol = model.reconstruct(rows), 1e-6
    np.testing.assert_allclose(model.transform(projected), model.transform(rows), atol=atol)
    np.testing.assert_allclose(model.reconstruct(projected), projected, atol=atol)


def test_variance_is_descending(model, rows):
    variances = model.transform(rows).var(axis=0)
    # They are ordered by the variance under the model, which is not quite that of the rows.
    assert np.all(variances[1:] <= 1.1 * variances[:-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_of_the_rows_is_the_dtype_of_the_results(rows, dtype, model):
    X = rows.astype(dtype)
    methods = those_of(model, "transform", "score_samples", "reconstruct", "score_samples_manifold")
    for result in (
        model.inverse_transform(model.transform(X)),
        *(method(X) for method in methods),
    ):
        assert result.dtype == dtype
    # A search for the nearest point ends within the rounding of distances.
    np.testing.assert_allclose(model.transform(X), model.transform(rows), atol=5e-4)


def test_float32_fit_samples_float32_rows(model, rows):
    fitted = clone(model).fit(rows.astype(np.float32))
    assert fitted.sample(3, random_state=0).dtype == np.float32
    assert fitted.transform(rows).dtype == np.float64


def test_a_row_does_not_depend_on_the_others(model, rows):
    names = ("transform", "score_samples", "reconstruct", "score_samples_manifold")
    for method in those_of(model, *names):
        together = method(rows[:50])
        alone = np.concatenate([method(row[None]) for row in rows[:50]])
        np.testing.assert_allclose(alone, together, rtol=1e-10, atol=1e-10)


def test_same_seed_same_model(model, rows):
    again = clone(model).fit(rows)
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))
    np.testing.assert_array_equal(again.sample(5, random_state=1), model.sample(5, random_state=1))
    other = clone(model).set_params(random_state=1).fit(rows)
    assert not np.array_equal(other.score_samples(rows), model.score_samples(rows))


def test_global_random_states_and_threads_are_left_alone(model, rows):
    def state():
        return (
            np.random.get_state()[1].tobytes(),  # noqa: NPY002
            torch.get_rng_state().numpy().tobytes(),
            random.getstate(),
            torch.get_num_threads(),
        )

    before = state()
    fitted = clone(model).fit(rows)
    fitted.sample(3, random_state=0)
    fitted.score_samples(rows)
    fitted.transform(rows)
    pickle.loads(pickle.dumps(fitted))
    assert state() == before


def test_memory_layout_does_not_matter(model, rows):
    """Read-only, reversed, strided and big-endian rows."""
    frozen = rows.copy()
    frozen.setflags(write=False)
    expected = model.score_samples(rows)
    for X, undo in (
        (frozen, slice(None)),
        (rows[::-1], slice(None, None, -1)),
        (np.asfortranarray(rows), slice(None)),
        (np.repeat(rows, 2, axis=1)[:, ::2], slice(None)),
        (rows.astype(">f8"), slice(None)),
    ):
        np.testing.assert_allclose(model.score_samples(X)[undo], expected, rtol=1e-12)
    again = clone(model).fit(rows[:, ::-1][:, ::-1])
    np.testing.assert_array_equal(again.score_samples(rows), expected)


def test_fit_transform_equals_fit_then_transform(model, rows):
    np.testing.assert_array_equal(clone(model).fit_transform(rows), model.transform(rows))


@pytest.mark.parametrize(
    "copier",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
    ],
    ids=["deepcopy", "pickle"],
)
def test_copies_compute_the_same(model, rows, copier):
    other = copier(model)
    names = ("transform", "score_samples", "score_samples_manifold")
    for ours, theirs in zip(those_of(model, *names), those_of(other, *names), strict=True):
        np.testing.assert_array_equal(theirs(rows), ours(rows))
    np.testing.assert_array_equal(other.sample(4, random_state=0), model.sample(4, random_state=0))
    assert joblib.hash(other) == joblib.hash(model)


def test_memory_mapped_model(model, rows, tmp_path):
    path = tmp_path / "model.joblib"
    joblib.dump(model, path)
    other = joblib.load(path, mmap_mode="r")
    np.testing.assert_array_equal(other.score_samples(rows), model.score_samples(rows))


def test_state_holds_no_torch_objects_and_no_rows(model, rows):
    def flatten(value):
        if isinstance(value, dict):
            for item in value.values():
                yield from flatten(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from flatten(item)
        else:
            yield value

    for value in flatten(model.__getstate__()):
        assert not type(value).__module__.startswith("torch")
        if isinstance(value, np.ndarray):
            assert len(rows) not in value.shape


def test_model_fitted_on_a_missing_device_loads_on_the_cpu(model, rows):
    state = model.__getstate__()
    state["device_"] = "cuda:7"
    other = type(model).__new__(type(model))
    other.__setstate__(state)
    assert other.device_ == "cpu"
    np.testing.assert_array_equal(other.score_samples(rows), model.score_samples(rows))


def test_model_of_another_version_warns(model):
    state = model.__getstate__()
    state["_version"] = "0.0.1"
    other = type(model).__new__(type(model))
    with pytest.warns(UserWarning, match=r"skmanifoldflow 0\.0\.1"):
        other.__setstate__(state)


def test_parameters_changed_after_fit_do_not_change_the_model(model, rows):
    other = copy.deepcopy(model)
    other.set_params(n_layers=5, hidden_layer_sizes=(3,), bounded=(-9, 9))
    again = pickle.loads(pickle.dumps(other))
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))


@every_estimator
def test_grid_search_in_a_pipeline(Estimator, rows):
    name = Estimator.__name__.lower()
    pipeline = make_pipeline(StandardScaler(), Estimator(random_state=0, **SMALL))
    search = GridSearchCV(pipeline, {f"{name}__n_components": [1, 2]}, cv=2, n_jobs=2)
    search.fit(rows)
    serial = GridSearchCV(pipeline, {f"{name}__n_components": [1, 2]}, cv=2).fit(rows)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"]
    )
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@every_estimator
def test_warm_start_goes_on(Estimator, rows):
    model = Estimator(random_state=0, warm_start=True, **SMALL).fit(rows)
    first = model.score(rows)
    weights = model.__getstate__()["_flow"]
    model.set_params(random_state=1).fit(rows)
    # The mixings are random: that they are the same shows where the second fit started.
    again = model.__getstate__()["_flow"]
    mixings = [name for name in weights if name.endswith((".q", ".order"))]
    assert mixings
    for name in mixings:
        np.testing.assert_allclose(again[name], weights[name], atol=1e-6)
    assert model.score(rows) > first - 0.2


@every_estimator
def test_n_init_compares_restarts_on_the_same_rows(Estimator, rows, monkeypatch):
    """Restarts that do not move are one normal distribution: scores differ by rows alone."""
    prepare, rank, restarts, reports = Estimator._prepare_restart, Estimator._rank, [], []

    def watched_prepare(self, *args):
        restarts.append(prepare(self, *args))
        return restarts[-1]

    def watched_rank(self, restart, report):
        reports.append(report)
        return rank(self, restart, report)

    monkeypatch.setattr(Estimator, "_prepare_restart", watched_prepare)
    monkeypatch.setattr(Estimator, "_rank", watched_rank)
    # Nor does any of them end the search.
    monkeypatch.setattr(JointManifoldFlow, "_is_settled", lambda self, objective: False)
    # The centres of charts are random: a single one is the same for every restart.
    one_distribution = {"n_charts": 1} if Estimator is ChartAtlasFlow else {}
    settings = {**SMALL, **one_distribution, "learning_rate_init": 1e-9}
    Estimator(random_state=0, n_init=3, **settings).fit(rows)
    assert len(restarts) == len(reports) == 3
    assert len({restart.job.validation_rows.numpy().tobytes() for restart in restarts}) == 1
    # What is left of a difference is the noise that inflates the rows.
    assert np.ptp([report.best_score for report in reports]) < 0.02


@every_estimator
def test_validation_keeps_the_best_weights(Estimator, rows):
    """A learning rate that ruins the flow leaves the closed-form initialization."""
    initialization = NORMAL_INITIALIZATION.get(Estimator, {})
    model = Estimator(random_state=0, learning_rate_init=10.0, **initialization, **SMALL).fit(rows)
    X = rows - rows.mean(0)
    covariance = X.T @ X / len(X)
    _, log_det = np.linalg.slogdet(covariance)
    gaussian = -0.5 * (log_det + 3 + 3 * np.log(2 * np.pi))
    # The rows that are set aside have no part in the closed form.
    assert model.score(rows) > gaussian - 0.04


@pytest.mark.parametrize("method", ["transform", "score_samples", "sample", "local_dimension"])
@every_estimator
def test_not_fitted(Estimator, method, rows):
    with pytest.raises(NotFittedError):
        getattr(Estimator(), method)(*(() if method == "sample" else (rows,)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 4}, "n_components=4 must be between 1 and n_features=3"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must hold integers >= 1"),
        ({"noise_start": 1e-4}, "noise_start=0.0001 must not be below noise_floor=0.0"),
        ({"bounded": (1, 0)}, "low < high"),
        ({"bounded": (-np.inf, 9)}, "finite"),
        ({"bounded": (0, 1)}, "must contain every value of X"),
        ({"device": "tpu9"}, "device='tpu9'"),
        ({"device": "cuda:99"}, "torch sees"),
        ({"max_iter": 0}, "max_iter"),
        ({"flow": "affin"}, "flow"),
    ],
)
@every_estimator
def test_bad_parameters(Estimator, settings, message, rows):
    with pytest.raises(ValueError, match=message):
        Estimator(**settings).fit(rows)


def test_bad_rows(model, rows):
    with pytest.raises(ValueError, match="expecting 2 features as input of inverse_transform"):
        model.inverse_transform(rows)
    with pytest.raises(ValueError, match="expecting 3 features"):
        model.score_samples(rows[:, :2])
    with pytest.raises(ValueError, match="at least one"):
        model.sample(0)
    with pytest.raises(ValueError, match="temperature must be >= 0"):
        model.sample(1, temperature=-1)
    with pytest.raises(ValueError, match="overflows"):
        clone(model).fit(rows * 1e200)
    with pytest.raises(ValueError, match=r"early_stopping=True with .* sets 10 rows aside"):
        clone(model).set_params(early_stopping=True).fit(rows[:11])


def test_a_failed_fit_leaves_the_model_as_it_was(model, rows):
    other = copy.deepcopy(model)
    other.set_params(early_stopping=True, n_layers=1)
    with pytest.raises(ValueError, match="rows aside"):
        other.fit(rows[:11])
    np.testing.assert_array_equal(other.score_samples(rows), model.score_samples(rows))
    again = pickle.loads(pickle.dumps(other))
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))
    # Other columns, and a failure after their number was noted.
    with pytest.raises(ValueError, match="overflows"):
        other.fit(np.full((50, 2), 1e200))
    np.testing.assert_array_equal(other.score_samples(rows), model.score_samples(rows))


@every_estimator
def test_a_failed_first_fit_is_no_fit(Estimator, rows):
    model = Estimator()
    with pytest.raises(ValueError, match="overflows"):
        model.fit(rows * 1e200)
    with pytest.raises(NotFittedError):
        model.score_samples(rows)


@every_estimator
def test_divergence_without_validation_rows_keeps_the_initialization(Estimator, rows):
    # Affine charts overflow at such a rate, and the fit ends with an error that says so.
    flow = {"flow": "spline"} if Estimator is ChartAtlasFlow else {}
    settings = {**SMALL, **flow, "early_stopping": False, "learning_rate_init": 100.0}
    model = Estimator(random_state=0, **settings)
    model.set_params(**NORMAL_INITIALIZATION.get(Estimator, {}))
    X = rows - rows.mean(0)
    _, log_det = np.linalg.slogdet(X.T @ X / len(X))
    normal = -0.5 * (log_det + 3 + 3 * np.log(2 * np.pi))
    assert model.fit(rows).score(rows) > normal - 0.02


@every_estimator
def test_dequantize_needs_room_within_the_bounds(Estimator):
    X = np.random.RandomState(0).randint(0, 4, size=(100, 2)).astype(float)
    with pytest.raises(ValueError, match="must reach to the largest value plus its step"):
        Estimator(dequantize=True, bounded=(0, 3), **SMALL).fit(X)
    model = Estimator(dequantize=True, bounded=(0, 4), random_state=0, **SMALL).fit(X)
    drawn = np.floor(model.sample(500, random_state=0))
    assert set(drawn.ravel()) <= {0.0, 1.0, 2.0, 3.0}


@every_estimator
def test_rounding_is_no_spacing(Estimator):
    """0.1 k and k / 10 differ in the last digit; the spacing is still 0.1."""
    k = np.random.RandomState(0).randint(0, 9, size=(200, 1))
    X = np.where(np.arange(200)[:, None] % 2, 0.1 * k, k / 10)
    drawn = Estimator(dequantize=True, random_state=0, **SMALL).fit(X).sample(5000, random_state=0)
    # Spread over the last digit, they would have the mean of the rows.
    assert drawn.mean() == pytest.approx(X.mean() + 0.05, abs=0.03)


def test_local_dimension_keeps_the_noise_of_the_fit(model, rows):
    other = copy.deepcopy(model).set_params(noise_floor=0.3)
    np.testing.assert_array_equal(other.local_dimension(rows), model.local_dimension(rows))


def test_rows_very_far_away_have_hardly_any_density(model):
    """That of a t distribution, which falls with the sixth power of the distance."""
    far = model.score_samples([[1e308, -1e308, 1e308], [1e100, 0, 0]])
    assert far[0] == -np.inf
    assert far[1] == pytest.approx(-6 * np.log(1e100), rel=0.02)


@every_estimator
def test_unfinished_fit_warns(Estimator, rows):
    # The noise is at its floor after half of the epochs.
    few = {"max_iter": 2} if Estimator in (ChartAtlasFlow, JointManifoldFlow) else {}
    settings = {**SMALL, **few, "early_stopping": False, "noise_start": 1.0}
    with pytest.warns(ConvergenceWarning, match="Increase max_iter"):
        # Without validation rows the score is the loss, which falls with the noise.
        Estimator(random_state=0, **settings).fit(rows)


@every_estimator
def test_dequantize_spreads_integers(Estimator):
    """The density of dequantised integers integrates to their frequencies over unit cells."""
    rng = np.random.RandomState(0)
    X = rng.binomial(6, 0.4, size=(1600, 1)).astype(float)
    settings = {**SMALL, "max_iter": 10} if Estimator is NoisyInjectiveFlow else SMALL
    model = without_background(Estimator(dequantize=True, random_state=0, **settings).fit(X))
    # The distribution of X + U[0, 1) has variance np(1-p) + 1/12 and mean np + 1/2.
    drawn = model.sample(20000, random_state=0)
    # 1600 rows know the mean to .03; without the half it would be off by .5.
    assert drawn.mean() == pytest.approx(X.mean() + 0.5, abs=0.1)
    assert drawn.var() == pytest.approx(X.var() + 1 / 12, abs=0.08)


@every_estimator
def test_bounded_density(Estimator, rows):
    """Nothing outside the box, and all of the mass inside."""
    rng = np.random.RandomState(0)
    X = rng.beta(2, 3, size=(400, 1)) * 4 - 1
    model = Estimator(bounded=(-1.0, 3.0), random_state=0, **SMALL).fit(X)
    grid = np.linspace(-1, 3, 20001)[1:-1, None]
    density = np.exp(model.score_samples(grid))
    assert trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-3)
    assert model.score_samples([[3.1]])[0] == -np.inf
    drawn = model.sample(1000, random_state=0)
    assert drawn.min() > -1
    assert drawn.max() < 3


def test_pandas_output(model, rows):
    frame = pd.DataFrame(rows, columns=["a", "b", "c"])
    fitted = clone(model).set_output(transform="pandas").fit(frame)
    out = fitted.transform(frame)
    assert isinstance(out, pd.DataFrame)
    assert list(out.columns) == list(fitted.get_feature_names_out())


def test_to_moves_and_keeps_the_parameter(model, rows):
    other = copy.deepcopy(model).to("cpu")
    assert other.device_ == "cpu"
    assert other.device == model.device
    np.testing.assert_array_equal(other.score_samples(rows), model.score_samples(rows))


@pytest.mark.gpu
@every_estimator
def test_cuda_fit_agrees_with_the_cpu(Estimator, rows):
    model = Estimator(2, random_state=0, device="cuda", **SMALL).fit(rows)
    assert model.device_ == "cuda"
    on_cpu = copy.deepcopy(model).to("cpu")
    np.testing.assert_allclose(on_cpu.score_samples(rows), model.score_samples(rows), atol=1e-8)


@pytest.mark.parametrize("Estimator", [ChartAtlasFlow, JointManifoldFlow, NoisyInjectiveFlow])
def test_what_is_read_from_rows_is_read_from_training_rows(Estimator, monkeypatch):
    """Other validation rows change neither dimension nor numbers of charts."""
    # They would change the order of the columns, by which rows are set aside.
    monkeypatch.setattr("skmanifoldflow._plan.signed_order", lambda X: None)
    rng = np.random.RandomState(0)
    # A line in six columns, and validation rows that fill all of them.
    X = rng.standard_normal((200, 1)) * np.arange(1, 7) + 0.01 * rng.standard_normal((200, 6))
    model = Estimator(random_state=0)
    plan = model._plan(X)
    X = plan.table.X
    read = {name: getattr(plan.config, name) for name in plan.config.read_from_rows}
    assert None not in read.values()
    assert read["n_components"] < 6
    other = X.copy()
    # The first column decides on the order of the rows.
    other[plan.split.validation.numpy(), 1:] = 9 * rng.standard_normal((20, 5))
    assert model._plan(other).config == plan.config
    other[plan.split.training.numpy(), 1:] = rng.standard_normal((180, 5))
    assert model._plan(other).config != plan.config
