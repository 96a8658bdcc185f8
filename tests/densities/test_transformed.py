"""A density behind a transformer, in data units."""

import numpy as np
import pytest
import sklearn
from helpers import PlaneGrid
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.decomposition import PCA, FastICA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmanifoldflow import NoisyInjectiveFlow, TransformedDensity, log_abs_det_jacobian

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}


def cube(X):
    return X**3


cube.log_abs_det_jacobian = lambda X: np.log(3 * X**2).sum(axis=1)

TRANSFORMERS = {
    "standard": StandardScaler(),
    "centred": StandardScaler(with_std=False),
    "min max": MinMaxScaler((-1, 4)),
    "robust": RobustScaler(quantile_range=(10, 70), unit_variance=True),
    "max abs": MaxAbsScaler(),
    "box-cox": PowerTransformer("box-cox"),
    "yeo-johnson": PowerTransformer(),
    "yeo-johnson, raw": PowerTransformer(standardize=False),
    "quantiles, uniform": QuantileTransformer(n_quantiles=30),
    "quantiles, normal": QuantileTransformer(n_quantiles=30, output_distribution="normal"),
    "pca": PCA(),
    "whitened": PCA(whiten=True),
    "log": FunctionTransformer(np.log, np.exp),
    "sqrt": FunctionTransformer(np.sqrt, np.square),
    "arcsinh": FunctionTransformer(np.arcsinh, np.sinh),
    "identity": FunctionTransformer(),
    "cube": FunctionTransformer(cube, np.cbrt),
    "pipeline": make_pipeline(
        FunctionTransformer(np.log, np.exp), "passthrough", make_pipeline(PCA(), PowerTransformer())
    ),
}
every_transformer = pytest.mark.parametrize(
    "transformer", TRANSFORMERS.values(), ids=TRANSFORMERS.keys()
)


@pytest.fixture(scope="module")
def rows():
    """Positive rows of two columns that depend on each other, of different units."""
    z = np.random.RandomState(0).standard_normal((600, 2)) @ [[0.5, 0.3], [0.0, 0.4]]
    return np.exp(z) * [1.0, 3.0] + [0.1, 0.5]


def slogdet_by_differences(transformer, X, step=1e-6):
    """Log-determinants of central differences of a map of rows."""
    columns = []
    for j in range(X.shape[1]):
        e = step * np.eye(X.shape[1])[j]
        difference = transformer.transform(X + e) - transformer.transform(X - e)
        columns.append(difference / (2 * step))
    return np.linalg.slogdet(np.stack(columns, axis=-1))[1]


@every_transformer
def test_jacobian_is_that_of_differences(transformer, rows):
    transformer = clone(transformer).fit(rows)
    # Between the knots of a piecewise linear map.
    X = np.random.RandomState(1).uniform([0.8, 2.0], [1.5, 6.0], size=(40, 2))
    np.testing.assert_allclose(
        log_abs_det_jacobian(transformer, X), slogdet_by_differences(transformer, X), atol=1e-6
    )


def test_jacobian_of_yeo_johnson_on_both_sides_of_zero(rows):
    X = rows - rows.mean(axis=0)
    transformer = PowerTransformer().fit(X)
    np.testing.assert_allclose(
        log_abs_det_jacobian(transformer, X), slogdet_by_differences(transformer, X), atol=1e-6
    )


def support_of(transformer):
    """The signs of the rows that a transformer takes."""
    positive = ("box-cox", "log", "sqrt", "pipeline")
    is_positive = any(transformer is TRANSFORMERS[name] for name in positive)
    return "positive" if is_positive else "all"


@pytest.fixture(scope="module", params=TRANSFORMERS.values(), ids=TRANSFORMERS.keys())
def fitted(request, rows):
    model = TransformedDensity(GaussianMixture(2, random_state=0), transformer=request.param)
    # The density jumps at the last quantiles.
    n_points = 1500 if isinstance(request.param, QuantileTransformer) else 700
    return model.fit(rows), PlaneGrid(rows, n_points, support_of(request.param))


def test_integral_is_one_and_samples_have_the_density(fitted):
    model, grid = fitted
    density = np.exp(model.score_samples(grid.points))
    assert density @ grid.volumes == pytest.approx(1, abs=0.005)
    assert grid.z_of_samples(density, model.sample(20_000, random_state=0)) < 4


def test_score_is_the_density_of_the_inverse(rows):
    """Of log-normal rows, in closed form."""
    log = FunctionTransformer(np.log, np.exp)
    model = TransformedDensity(GaussianMixture(), transformer=log).fit(rows)
    logs = np.log(rows)
    normal = multivariate_normal(logs.mean(axis=0), np.cov(logs.T, bias=True) + 1e-6 * np.eye(2))
    expected = normal.logpdf(logs) - logs.sum(axis=1)
    np.testing.assert_allclose(model.score_samples(rows), expected, atol=1e-8)


def test_share_of_the_range_is_that_of_the_normal_distribution(rows):
    """A normal distribution on the unit cube, by scipy."""
    model = TransformedDensity(GaussianMixture(), transformer=QuantileTransformer(n_quantiles=30))
    model.fit(rows)
    normal = multivariate_normal(model.density_.means_[0], model.density_.covariances_[0])
    share = normal.cdf([1, 1], lower_limit=[0, 0])
    assert model.log_mass_ == pytest.approx(np.log(share), abs=0.006)


def test_no_density_beyond_the_quantiles(rows):
    model = TransformedDensity(GaussianMixture(), transformer=QuantileTransformer(n_quantiles=30))
    far = [rows.max(axis=0) + 1, rows.min(axis=0) - 1]
    np.testing.assert_array_equal(model.fit(rows).score_samples(far), [-np.inf, -np.inf])
    assert np.isfinite(model.score_samples(rows)).all()


def test_a_search_over_scalers_does_not_choose_the_smallest_units(rows):
    """In a pipeline MinMaxScaler wins, whose rows are small; in data units both are one model."""
    scalers = [StandardScaler(), MinMaxScaler()]
    mixture = GaussianMixture(2, reg_covar=0, random_state=0)
    pipeline = make_pipeline(StandardScaler(), mixture)
    naive = GridSearchCV(pipeline, {"standardscaler": scalers}, cv=3).fit(rows)
    assert isinstance(naive.best_params_["standardscaler"], MinMaxScaler)
    scores = naive.cv_results_["mean_test_score"]
    assert scores[1] > scores[0] + 1
    honest = GridSearchCV(TransformedDensity(mixture), {"transformer": scalers}, cv=3).fit(rows)
    np.testing.assert_allclose(*honest.cv_results_["mean_test_score"], atol=0.02)
    # The logarithm makes these rows normal.
    scalers.append(FunctionTransformer(np.log, np.exp))
    best = GridSearchCV(TransformedDensity(mixture), {"transformer": scalers}, cv=3).fit(rows)
    assert best.best_params_["transformer"] is scalers[2]


def test_default_is_a_flow_of_standardised_rows(rows):
    flow = NoisyInjectiveFlow(1, **SMALL)
    model = TransformedDensity(flow).fit(rows)
    assert isinstance(model.transformer_, StandardScaler)
    alone = clone(flow).fit((rows - rows.mean(axis=0)) / rows.std(axis=0))
    expected = alone.score_samples((rows - rows.mean(axis=0)) / rows.std(axis=0))
    expected = expected - np.log(rows.std(axis=0)).sum()
    np.testing.assert_allclose(model.score_samples(rows), expected, rtol=1e-10)
    assert model.score_samples(rows.astype(np.float32)).dtype == np.float32


# ------------------------------------------------------------------ samples


@pytest.mark.parametrize(
    "transformer",
    [StandardScaler(), QuantileTransformer(n_quantiles=30), FunctionTransformer(np.log, np.exp)],
    ids=str,
)
def test_short_samples_are_of_all_components(transformer):
    """Half of the rows are below 3, however few are drawn at once."""
    rng = np.random.RandomState(0)
    X = np.r_[rng.uniform(1, 2, (300, 1)), rng.uniform(8, 9, (300, 1))]
    mixture = GaussianMixture(2, means_init=[[0.0], [2.0]], random_state=0)
    model = TransformedDensity(mixture, transformer=transformer).fit(X)
    rng = np.random.RandomState(1)
    for n, n_calls in ((1, 600), (5, 200)):
        drawn = np.array([model.sample(n, random_state=rng)[:, 0] for _ in range(n_calls)])
        assert drawn.shape == (n_calls, n)
        error = np.sqrt(0.25 / drawn.size)
        assert (drawn < 3).mean() == pytest.approx(0.5, abs=4 * error + 0.02)


def test_densities_whose_sample_is_not_implemented(rows):
    kernel = KernelDensity(kernel="epanechnikov", bandwidth=0.5)
    log = FunctionTransformer(np.log, np.exp)
    model = TransformedDensity(kernel, transformer=log).fit(rows)
    assert model.log_mass_ == 0
    logs = np.log(rows)
    expected = kernel.fit(logs).score_samples(logs) - logs.sum(axis=1)
    np.testing.assert_allclose(model.score_samples(rows), expected)


def test_densities_that_cannot_be_sampled_within_others(rows):
    """There is no way back from the logarithm of the inner one."""
    inner = TransformedDensity(GaussianMixture(), transformer=FunctionTransformer(np.log))
    model = TransformedDensity(inner, transformer=FunctionTransformer(np.sqrt, np.square)).fit(rows)
    assert model.log_mass_ == 0
    assert np.isfinite(model.score_samples(rows)).all()


class PlainSample(KernelDensity):
    """Has a `sample` of the number of rows only."""

    def sample(self, n):
        return super().sample(n, random_state=0)


def test_sample_without_a_random_state(rows):
    model = TransformedDensity(PlainSample(), transformer=FunctionTransformer(np.log, np.exp))
    drawn = model.fit(rows).sample(7)
    assert drawn.shape == (7, 2)
    assert (drawn > 0).all()


# ------------------------------------------------------------------ rows that stay, and domains


@pytest.mark.parametrize(
    ("writing", "plain"),
    [
        (PowerTransformer(copy=False), PowerTransformer()),
        (
            QuantileTransformer(n_quantiles=30, output_distribution="normal", copy=False),
            QuantileTransformer(n_quantiles=30, output_distribution="normal"),
        ),
        (
            make_pipeline(StandardScaler(copy=False), PowerTransformer()),
            make_pipeline(StandardScaler(), PowerTransformer()),
        ),
    ],
    ids=["power", "quantiles", "pipeline"],
)
def test_transformers_that_write_into_their_input(writing, plain, rows):
    X = rows.copy()
    one, other = (
        TransformedDensity(GaussianMixture(), transformer=transformer).fit(X)
        for transformer in (writing, plain)
    )
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))
    np.testing.assert_array_equal(one.sample(9, random_state=0), other.sample(9, random_state=0))
    log_abs_det_jacobian(one.transformer_, X)
    np.testing.assert_array_equal(X, rows)


@pytest.mark.parametrize(
    "transformer",
    [
        FunctionTransformer(np.log, np.exp),
        PowerTransformer("box-cox"),
        make_pipeline(FunctionTransformer(np.sqrt, np.square), PowerTransformer("box-cox")),
    ],
    ids=["log", "box-cox", "pipeline"],
)
@pytest.mark.filterwarnings("ignore:The provided functions are not strictly inverse:UserWarning")
def test_rows_outside_of_the_domain_have_no_density(transformer, rows):
    model = TransformedDensity(GaussianMixture(), transformer=transformer).fit(rows)
    X = np.r_[rows[:2], [[-1.0, 1.0], [1.0, 0.0], [-1.0, -1.0]], rows[2:4]]
    scores = model.score_samples(X)
    np.testing.assert_array_equal(scores[2:5], -np.inf)
    np.testing.assert_allclose(scores[[0, 1, 5, 6]], model.score_samples(rows[:4]))
    np.testing.assert_array_equal(model.score_samples(X[2:5]), -np.inf)
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=r"NaN|strictly positive"):
        TransformedDensity(GaussianMixture(), transformer=transformer).fit(rows - 2)


# ------------------------------------------------------------------ transformers of one's own


class Doubled(StandardScaler):
    def transform(self, X):
        return 2 * super().transform(X)

    def inverse_transform(self, X):
        return super().inverse_transform(X / 2)

    def log_abs_det_jacobian(self, X):
        return np.full(len(X), np.log(2 / self.scale_).sum())


class Tripled(StandardScaler):
    def transform(self, X):
        return 3 * super().transform(X)


class Renamed(StandardScaler):
    """Transforms as its parent does."""


class OneNumber(Doubled):
    def log_abs_det_jacobian(self, X):
        return 0.0


def test_the_jacobian_of_a_class_of_ones_own_is_its_method(rows):
    scaler = Doubled().fit(rows)
    expected = slogdet_by_differences(scaler, rows)
    np.testing.assert_allclose(log_abs_det_jacobian(scaler, rows), expected, atol=1e-6)


def test_other_processes_know_the_jacobian_of_a_class_of_ones_own(rows):
    # A class in a function travels by value, as one of a script or notebook does.
    class Halved(StandardScaler):
        def transform(self, X):
            return StandardScaler.transform(self, X) / 2

        def inverse_transform(self, X):
            return StandardScaler.inverse_transform(self, 2 * X)

        def log_abs_det_jacobian(self, X):
            return np.full(len(X), -np.log(2 * self.scale_).sum())

    model = TransformedDensity(GaussianMixture(reg_covar=0), transformer=Halved())
    scores = cross_val_score(model, rows, cv=3, n_jobs=2)
    plain = cross_val_score(GaussianMixture(reg_covar=0), rows, cv=3)
    np.testing.assert_allclose(scores, plain, rtol=1e-6)


def test_a_class_that_transforms_otherwise_has_not_the_jacobian_of_its_parent(rows):
    renamed, scaler = Renamed().fit(rows), StandardScaler().fit(rows)
    np.testing.assert_array_equal(
        log_abs_det_jacobian(renamed, rows), log_abs_det_jacobian(scaler, rows)
    )
    for transformer in (Tripled(), make_pipeline(MinMaxScaler(), Tripled())):
        with pytest.raises(ValueError, match=r"behind Tripled cannot be brought .* a method"):
            TransformedDensity(GaussianMixture(), transformer=transformer).fit(rows)
    with pytest.raises(ValueError, match=r"one number for each of 600 rows, .* shape \(\)"):
        log_abs_det_jacobian(OneNumber().fit(rows), rows)


class Recorder(GaussianMixture):
    """Keeps what `fit` was given."""

    def fit(self, X, y=None, sample_weight=None, X_val=None):
        self.given_ = sample_weight, X_val
        return super().fit(X)


def test_parameters_of_fit_go_to_the_density(rows):
    weights = np.arange(len(rows))
    model = TransformedDensity(Recorder()).fit(rows, sample_weight=weights, X_val=rows[:5])
    np.testing.assert_array_equal(model.density_.given_[0], weights)
    np.testing.assert_allclose(model.density_.given_[1], model.transformer_.transform(rows[:5]))


def test_metadata_routing(rows):
    weights = np.r_[np.zeros(300), np.ones(300)]
    with sklearn.config_context(enable_metadata_routing=True):
        recorder = Recorder().set_fit_request(sample_weight=True, X_val=False)
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        model = TransformedDensity(recorder, transformer=scaler)
        model.fit(rows, sample_weight=weights)
        np.testing.assert_allclose(model.transformer_.mean_, rows[300:].mean(axis=0))
        np.testing.assert_array_equal(model.density_.given_[0], weights)
        model.set_score_request(sample_weight=True)
        found = GridSearchCV(model, {"transformer": [scaler]}, cv=2)
        found.fit(rows, sample_weight=weights + 1)
        assert np.isfinite(found.cv_results_["mean_test_score"]).all()


def test_weighted_score(rows):
    model = TransformedDensity(GaussianMixture()).fit(rows)
    weights = np.arange(len(rows))
    expected = np.average(model.score_samples(rows), weights=weights)
    assert model.score(rows, sample_weight=weights) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"transformer": FastICA(random_state=0)}, "behind FastICA cannot be brought"),
        ({"transformer": PCA(1)}, "no density behind PCA with 1 components of 2 columns"),
        ({"transformer": MinMaxScaler(clip=True)}, r"no density behind MinMaxScaler\(clip=True\)"),
        ({"transformer": FunctionTransformer(np.cbrt)}, "attribute log_abs_det_jacobian"),
        ({"transformer": "log"}, "The 'transformer' parameter of TransformedDensity must be"),
        ({"density": "flow"}, "The 'density' parameter of TransformedDensity must be"),
    ],
)
def test_bad_parameters(parameters, message, rows):
    with pytest.raises(ValueError, match=message):
        TransformedDensity(**{"density": GaussianMixture(), **parameters}).fit(rows)


def test_ties_have_no_quantiles_of_their_own(rows):
    model = TransformedDensity(GaussianMixture(), transformer=QuantileTransformer(n_quantiles=30))
    with pytest.raises(ValueError, match="quantiles of column 1 are equal"):
        model.fit(np.c_[rows[:, 0], np.round(rows[:, 1])])


def test_columns_of_a_small_range_have_no_quantiles(rows):
    """Within 1e-7 of the ends of a column scikit-learn moves values to the ends."""
    X = np.random.RandomState(0).random_sample((300, 2))
    normal = QuantileTransformer(n_quantiles=30, output_distribution="normal")
    model = TransformedDensity(GaussianMixture(), transformer=normal)
    for range_ in (1e-4, 1e-6):
        with pytest.raises(ValueError, match="column 0 are too near them"):
            model.fit(range_ * X)
    scaled = make_pipeline(StandardScaler(), normal)
    scaled = TransformedDensity(GaussianMixture(), transformer=scaled).fit(1e-6 * X)
    expected = model.fit(X).score_samples(X) + 12 * np.log(10)
    np.testing.assert_allclose(scaled.score_samples(1e-6 * X), expected, atol=0.01)
    uniform = QuantileTransformer(n_quantiles=30)
    small, large = (
        TransformedDensity(GaussianMixture(), transformer=uniform).fit(unit * X).score(unit * X)
        for unit in (1e-6, 1)
    )
    assert small - large == pytest.approx(12 * np.log(10), abs=1e-6)


def test_a_single_quantile_has_no_slope(rows):
    single = QuantileTransformer(n_quantiles=1)
    with pytest.raises(ValueError, match="with a single quantile"):
        TransformedDensity(GaussianMixture(), transformer=single).fit(rows)


def test_sample_needs_a_way_back(rows):
    model = TransformedDensity(GaussianMixture()).fit(rows)
    with pytest.raises(ValueError, match="at least one"):
        model.sample(0)
    model.density_ = GridSearchCV(KernelDensity(), {}).fit(rows)
    with pytest.raises(AttributeError, match="GridSearchCV has no method sample"):
        model.sample(1)
    one_way = FunctionTransformer(np.log)
    model = TransformedDensity(KernelDensity(), transformer=one_way).fit(rows)
    with pytest.raises(AttributeError, match="FunctionTransformer has no inverse"):
        model.sample(1)


@parametrize_with_checks(
    [
        # With array API input a mixture starts from rows.
        TransformedDensity(GaussianMixture(init_params="random_from_data", random_state=0)),
        TransformedDensity(
            KernelDensity(), transformer=make_pipeline(MinMaxScaler(), StandardScaler())
        ),
        TransformedDensity(NoisyInjectiveFlow(early_stopping=False, **SMALL)),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
