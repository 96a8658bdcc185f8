"""A density behind a transformer, in data units."""

import numpy as np
import pytest
import sklearn
from helpers import PlaneGrid
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.decomposition import PCA, FastICA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
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
@pytest.mark.filterwarnings("ignore:.*hold many ties.*:UserWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)
