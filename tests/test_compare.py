"""The comparison against figures computed in other ways."""

import csv
import re
import sys
import time
import tracemalloc
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import mode, multivariate_normal, sem
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import Isomap, trustworthiness
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline

import skmanifoldflow._report.results as results_module
import skmanifoldflow.compare as compare_module
from skmanifoldflow import ManifoldPriorFlow
from skmanifoldflow._progress import Progress, report
from skmanifoldflow.compare import ESTIMATORS, Comparison, Result, compare

FAST_FLOW = ManifoldPriorFlow(
    2, n_layers=2, hidden_layer_sizes=(8,), isometry=0, max_iter=2, random_state=0
)


@pytest.fixture(scope="module")
def rows():
    """Three clusters on a bent sheet, in columns of very different units."""
    rng = np.random.RandomState(0)
    y = rng.randint(3, size=150)
    u = rng.standard_normal((150, 2)) + 4 * y[:, None]
    X = np.column_stack([u, np.sin(u[:, 0]), u[:, 1] ** 2])
    return (X + 0.1 * rng.standard_normal(X.shape)) * [1, 100, 0.01, 3] + [0, 1e3, -5, 2], y


@pytest.fixture(scope="module")
def comparison(rows):
    estimators = {
        "flow": FAST_FLOW,
        "PCA": PCA(2),
        "factors": FactorAnalysis(2),
        "Isomap": Isomap(n_components=2, n_neighbors=30),
        "mixture": GaussianMixture(3, random_state=0),
    }
    return compare(*rows, estimators=estimators, random_state=0)


def result_of(comparison, name):
    return next(result for result in comparison.results if result.estimator == name)


def standardized(comparison):
    mean, deviation = comparison.X_train.mean(axis=0), comparison.X_train.std(axis=0)
    return (comparison.X_train - mean) / deviation, (comparison.X_test - mean) / deviation


# Figures


def test_the_split_keeps_rows_and_labels_together(rows, comparison):
    X, y = rows
    assert len(comparison.X_test) == 30
    together = np.vstack([comparison.X_train, comparison.X_test])
    order, order_together = np.argsort(X[:, 0]), np.argsort(together[:, 0])
    np.testing.assert_array_equal(together[order_together], X[order])
    labels = np.concatenate([comparison.y_train, comparison.y_test])
    np.testing.assert_array_equal(labels[order_together], y[order])


@pytest.mark.parametrize("name", ["PCA", "factors", "mixture"])
def test_log_density_is_in_the_units_of_the_data(comparison, name):
    estimator = comparison.models[name][-1]
    weights, means = np.ones(1), np.zeros((1, 4))
    if name == "mixture":
        weights, means, covariances = estimator.weights_, estimator.means_, estimator.covariances_
    else:
        covariances = estimator.get_covariance()[None]
    # The same normal distributions, moved to data units before their densities are taken.
    mean, deviation = comparison.X_train.mean(axis=0), comparison.X_train.std(axis=0)
    terms = [
        np.log(w)
        + multivariate_normal(mean + deviation * m, deviation[:, None] * C * deviation).logpdf(
            comparison.X_test
        )
        for w, m, C in zip(weights, means, covariances, strict=True)
    ]
    expected = logsumexp(terms, axis=0).mean()
    assert result_of(comparison, name).log_density == pytest.approx(expected, rel=1e-9)


def test_log_density_of_a_flow_does_not_depend_on_the_units(rows, comparison):
    X, y = rows
    scale = np.array([1e-3, 1, 50, 7])
    scaled = compare(X * scale + 3, y, estimators={"flow": FAST_FLOW}, random_state=0)
    expected = result_of(comparison, "flow").log_density - np.log(scale).sum()
    assert scaled.results[0].log_density == pytest.approx(expected, abs=1e-3)


def test_reconstruction_error_of_pca_is_the_residual_of_the_svd(comparison):
    train, test = standardized(comparison)
    axes = np.linalg.svd(train, full_matrices=False)[2][:2]
    expected = np.mean((test - test @ axes.T @ axes) ** 2)
    assert result_of(comparison, "PCA").reconstruction_error == pytest.approx(expected)


def test_trustworthiness_is_of_standardized_test_rows(comparison):
    train, test = standardized(comparison)
    axes = np.linalg.svd(train, full_matrices=False)[2][:2]
    expected = trustworthiness(test, test @ axes.T, n_neighbors=10)
    assert result_of(comparison, "PCA").trustworthiness == pytest.approx(expected)


def test_accuracy_is_the_vote_of_five_neighbors(comparison):
    train, test = standardized(comparison)
    axes = np.linalg.svd(train, full_matrices=False)[2][:2]
    nearest = np.argsort(cdist(test @ axes.T, train @ axes.T), axis=1)[:, :5]
    vote = mode(comparison.y_train[nearest], axis=1).mode
    expected = np.mean(vote == comparison.y_test)
    assert result_of(comparison, "PCA").knn_accuracy == pytest.approx(expected)


def test_figures_that_an_estimator_does_not_have_are_none(comparison):
    missing = {
        result.estimator: {key for key, value in asdict(result).items() if value is None}
        for result in comparison.results
    }
    never = {"error"}
    embedding = {"reconstruction_error", "trustworthiness", "knn_accuracy", "n_components"}
    assert missing == {
        "flow": never,
        "PCA": never | {"intrinsic_dimension"},
        "factors": never | {"reconstruction_error", "intrinsic_dimension"},
        "Isomap": never
        | {"log_density", "log_density_error", "reconstruction_error", "intrinsic_dimension"},
        "mixture": never | embedding | {"intrinsic_dimension"},
    }
    flow = result_of(comparison, "flow")
    assert flow.n_components == 2
    assert flow.intrinsic_dimension == comparison.models["flow"][-1].intrinsic_dimension_


@pytest.mark.parametrize(
    "y", [None, np.linspace(0, 1, 150), np.ones(150), np.arange(150), np.arange(150).astype(str)]
)
def test_accuracy_needs_classes(rows, y):
    comparison = compare(rows[0], y, estimators=["PCA"], random_state=0)
    assert comparison.results[0].knn_accuracy is None


def test_labels_may_be_text(rows, comparison):
    X, y = rows
    named = compare(X, np.array(["a", "b", "c"])[y], estimators={"PCA": PCA(2)}, random_state=0)
    assert named.results[0].knn_accuracy == result_of(comparison, "PCA").knn_accuracy


def test_the_mixture_is_cross_validated(rows):
    comparison = compare(rows[0], estimators=["GaussianMixture"], random_state=0)
    train, _ = standardized(comparison)
    search = comparison.models["GaussianMixture"][-1]
    sizes = search.param_grid["n_components"]
    assert max(sizes) == 14  # 120 training rows, at least 2 x 4 of them for each component
    seed = search.best_estimator_.random_state
    folds = list(KFold(3).split(train))

    def held_out(size, reg_covar):
        mixture = GaussianMixture(size, reg_covar=reg_covar, random_state=seed)
        return np.mean([mixture.fit(train[fit]).score(train[test]) for fit, test in folds])

    scores = {
        (size, reg_covar): held_out(size, reg_covar)
        for size in sizes
        for reg_covar in search.param_grid["reg_covar"]
    }
    best = search.best_params_
    assert (best["n_components"], best["reg_covar"]) == max(scores, key=scores.get)


def test_a_seed_decides_everything(rows):
    def run(seed):
        names = ["FactorAnalysis", "GaussianMixture"]
        comparison = compare(np.round(rows[0][:, :2]), estimators=names, random_state=seed)
        return [replace(result, fit_seconds=0) for result in comparison.results]

    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert run(0) == run(0) == run(np.random.RandomState(0)) != run(1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_log_densities_of_the_test_rows(comparison):
    for name, scores in comparison.test_scores.items():
        scaler, model = comparison.models[name]
        expected = model.score_samples(scaler.transform(comparison.X_test))
        np.testing.assert_allclose(scores, expected - np.log(scaler.scale_).sum())
        result = result_of(comparison, name)
        assert result.log_density == pytest.approx(scores.mean())
        assert result.log_density_error == pytest.approx(sem(scores))
    assert set(comparison.test_scores) == {"flow", "PCA", "factors", "mixture"}


def test_a_frame_of_the_results(comparison, tmp_path):
    frame = comparison.to_frame()
    assert list(frame.index) == [result.estimator for result in comparison.results]
    assert frame.loc["PCA", "log_density"] == result_of(comparison, "PCA").log_density
    comparison.to_csv(tmp_path / "results.csv")
    stored = pd.read_csv(tmp_path / "results.csv", index_col="estimator")
    assert frame["error"].isna().all()
    numbers = frame.drop(columns="error").astype(float)
    pd.testing.assert_frame_equal(
        stored.drop(columns="error").astype(float), numbers, check_column_type=False
    )
    nothing = Comparison([], {}, None, None, None, None, None, None).to_frame()
    assert list(nothing.columns) == list(frame.columns)


def test_names_of_columns(rows):
    frame = pd.DataFrame(rows[0], columns=["a", "b", "c", "d"]).assign(one=1.0)
    with pytest.warns(UserWarning, match=r"Constant columns are left out: \['one'\]"):
        named = compare(frame, estimators=["PCA"], random_state=0)
    assert named.names == ["a", "b", "c", "d"]
    plain = compare(rows[0], estimators=["PCA"], random_state=0)
    assert plain.names == ["x0", "x1", "x2", "x3"]
    np.testing.assert_array_equal(named.X_test, plain.X_test)


# Time


class Timed(PCA):
    """A model that takes the time that it is given."""

    def __init__(self, n_components=2, max_time=None):
        super().__init__(n_components)
        self.max_time = max_time

    def fit(self, X, y=None):
        clock.now += self.max_time
        return super().fit(X)


class clock:
    now = 0.0


def test_fits_share_the_time(rows, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    start = clock.now
    estimators = {"a": Timed(), "PCA": PCA(2), "own": Timed(max_time=1.0), "b": Timed()}
    comparison = compare(rows[0], estimators=estimators, max_time=10, random_state=0)
    times = {name: getattr(m[-1], "max_time", None) for name, m in comparison.models.items()}
    # A time that was set stays, and those that come later share what is left.
    assert times == {"a": pytest.approx(5), "PCA": None, "own": 1.0, "b": pytest.approx(4)}
    assert clock.now - start == pytest.approx(10)
    assert estimators["a"].max_time is None


def test_the_mixture_comes_first_where_time_is_limited(rows, capsys):
    names = ["Isomap", "PCA", "GaussianMixture"]
    comparison = compare(rows[0], estimators=names, max_time=9, random_state=0, verbose=1)
    shown = re.findall(r"\] (\w+) ", capsys.readouterr().out)
    assert shown == ["PCA", "GaussianMixture", "Isomap"]
    assert [result.estimator for result in comparison.results] == names
    assert list(comparison.models) == names
    assert set(compare_module._TIMED_ORDER) == set(ESTIMATORS)


def test_what_cannot_begin_in_time_is_skipped(rows, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    estimators = {"a": Timed(max_time=20.0), "b": Timed(), "Isomap": Isomap(), "PCA": PCA(2)}
    comparison = compare(rows[0], estimators=estimators, max_time=10, random_state=0)
    errors = [result.error for result in comparison.results]
    assert errors == [None, "skipped: no time was left", "skipped: no time was left", None]
    assert list(comparison.models) == ["a", "PCA"]


def test_the_mixture_takes_fewer_rows_where_time_is_short(rows, monkeypatch):
    monkeypatch.setattr(compare_module, "_CELLS_PER_SECOND", 4)
    monkeypatch.setattr(compare_module, "_MIN_TIMED_ROWS", 10)
    options = {"estimators": ["GaussianMixture"], "random_state": 0}
    assert not compare(rows[0], **options).notes
    (note,) = compare(rows[0], max_time=60, **options).notes
    assert note.startswith("GaussianMixture is cross-validated on 60 of the 120 training rows")


def test_a_short_search_has_fewer_choices(rows):
    grids = [
        compare(rows[0], estimators=["GaussianMixture"], max_time=seconds, random_state=0)
        .models["GaussianMixture"][-1]
        .param_grid
        for seconds in (5, 30)
    ]
    assert grids[0] == {"n_components": grids[1]["n_components"][::2], "reg_covar": [1e-2]}
    assert len(grids[1]["reg_covar"]) == 3


def test_what_compares_each_row_with_all_takes_a_twentieth_of_the_time(monkeypatch):
    monkeypatch.setattr(compare_module, "_MIN_TIMED_ROWS", 10)
    monkeypatch.setattr(compare_module, "_PAIRED_ROWS_OF_A_SECOND", 10)
    options = {"estimators": ["Isomap"], "random_state": 0}
    X = np.random.RandomState(0).standard_normal((150, 3))
    assert not compare(X, **options).notes
    comparison = compare(X, max_time=36, **options)
    assert comparison.notes == ["Isomap is fitted to 60 of the 120 training rows."]
    assert len(comparison.models["Isomap"][-1].embedding_) == 60


def test_isomap_comes_before_the_flows_where_time_is_limited():
    order = compare_module._TIMED_ORDER
    assert max(map(order.index, ("PCA", "GaussianMixture", "Isomap"))) < min(
        order.index(name) for name in order if name.endswith(("Flow", "Density"))
    )


# Arguments


def test_default_estimators_follow_the_arguments():
    built = {name: build(3, (200, 5), 7) for name, build in ESTIMATORS.items()}
    flows = ["ManifoldPriorFlow", "NoisyInjectiveFlow", "ChartAtlasFlow", "JointManifoldFlow"]
    assert list(built)[:4] == flows
    for name in (*flows, "PCA", "FactorAnalysis"):
        assert built[name].n_components == 3
        assert built[name].random_state == 7
    assert built["Isomap"].n_components == 3


def test_estimators_given_are_not_fitted(rows):
    estimators = {"PCA": PCA(1)}
    compare(rows[0], estimators=estimators, random_state=0)
    assert not hasattr(estimators["PCA"], "components_")


def test_value_step():
    rng = np.random.RandomState(0)
    X = np.column_stack(
        [rng.randint(5, size=200), 0.1 * rng.randint(9, size=200), rng.standard_normal(200)]
    )

    def spread(value_step):
        options = {"estimators": {"PCA": PCA(1)}, "random_state": 0}
        comparison = compare(X, value_step=value_step, **options)
        moved = np.vstack([comparison.X_train, comparison.X_test])
        plain = compare(X, value_step=None, **options)
        return comparison.value_step, moved - np.vstack([plain.X_train, plain.X_test])

    steps, added = spread("auto")
    np.testing.assert_allclose(steps, [1, 0.1, 0])
    assert (added >= 0).all()
    assert (added[:, :2] < steps[:2]).all()
    np.testing.assert_allclose(added.mean(axis=0), [0.5, 0.05, 0], atol=0.08)
    np.testing.assert_array_equal(added[:, 2], 0)
    steps, added = spread(0.5)
    np.testing.assert_array_equal(steps, 0.5)
    assert (added > 0.25).any(axis=0).all()
    assert (added < 0.5 + 1e-9).all()


def test_constant_columns_are_left_out(rows):
    X = np.column_stack([np.full(150, 3.0), rows[0], np.zeros(150)])
    with pytest.warns(UserWarning, match=r"Constant columns are left out: \[0, 5\]"):
        comparison = compare(X, estimators=["PCA"], random_state=0)
    np.testing.assert_array_equal(comparison.kept_columns, [1, 2, 3, 4])
    plain = compare(rows[0], estimators=["PCA"], random_state=0)
    assert comparison.results[0].reconstruction_error == plain.results[0].reconstruction_error


def test_warnings_say_which_estimator(rows):
    with pytest.warns(ConvergenceWarning, match="^factors: FactorAnalysis did not converge"):
        compare(rows[0], estimators={"factors": FactorAnalysis(2, max_iter=1)}, random_state=0)


def test_progress_is_a_line_for_each(rows, capsys):
    compare(rows[0], estimators=["PCA", "GaussianMixture"], random_state=0)
    assert capsys.readouterr().out == ""
    compare(rows[0], estimators=["PCA", "GaussianMixture"], random_state=0, verbose=1)
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[1/2\] PCA \.\.\. \d+\.\d s", first)
    assert re.fullmatch(
        r"\[2/2\] GaussianMixture \.\.\. \d+\.\d s, n_components=\d+, reg_covar=[\d.]+", second
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.eye(11)}, "There are 11 rows, and at least 12 are needed"),
        ({"X": np.ones((20, 2))}, "All columns are constant"),
        ({"X": np.full((60, 2), np.nan)}, "NaN"),
        ({"y": [1, 2]}, "inconsistent numbers of samples"),
        ({"n_components": 5}, "between 1 and 4.*got 5"),
        ({"n_components": 0}, "between 1 and 4.*got 0"),
        ({"n_components": 1.5}, "between 1 and 4.*got 1.5"),
        ({"estimators": ["PCA", "TSNE"]}, r"Unknown estimators \['TSNE'\].*'PCA'"),
        ({"estimators": "PCA"}, "list of names"),
        ({"estimators": []}, "list of names"),
        ({"value_step": -1}, "value_step must be"),
        ({"value_step": "half"}, "value_step must be"),
        ({"max_time": 0}, "max_time must be"),
        ({"max_time": "3min"}, "max_time must be"),
    ],
)
def test_errors(rows, change, message):
    arguments = {"X": rows[0], "estimators": ["PCA"], "random_state": 0} | change
    with pytest.raises(ValueError, match=message):
        compare(**arguments)


@pytest.mark.parametrize(("n_columns", "expected"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_n_components_fits_the_columns(rows, n_columns, expected):
    X = np.column_stack([rows[0][:, :n_columns], np.ones(150)])
    with pytest.warns(UserWarning, match="Constant columns"):
        comparison = compare(X, estimators=["PCA", "FactorAnalysis"], random_state=0)
    assert [result.n_components for result in comparison.results] == [expected, expected]


# Many rows


@pytest.fixture
def few_rows_are_many(monkeypatch):
    monkeypatch.setattr(compare_module, "_MAX_PAIRED_ROWS", 21)
    monkeypatch.setattr(compare_module, "_MAX_EMBEDDED_ROWS", 25)
    monkeypatch.setattr(compare_module, "_MAX_SEARCH_ROWS", 60)
    monkeypatch.setattr(compare_module, "_EMBEDDED_AT_ONCE", 10)


def test_what_goes_with_the_square_of_the_rows_takes_a_part(rows, few_rows_are_many):
    estimators = {
        "PCA": PCA(2),
        "Isomap": make_pipeline(PCA(3), Isomap(n_neighbors=8, n_components=2)),
        "kernels": KernelDensity(),
        "search": GridSearchCV(KernelDensity(), {"bandwidth": [0.5, 1]}, cv=2),
    }
    comparison = compare(*rows, estimators=estimators, random_state=0)
    n_fitted = {name: model[0].n_samples_seen_ for name, model in comparison.models.items()}
    assert n_fitted == {"PCA": 120, "Isomap": 21, "kernels": 21, "search": 21}
    assert len(comparison.X_train) == 120
    assert len(comparison.X_test) == 30
    train, test = standardized(comparison)
    axes = np.linalg.svd(train, full_matrices=False)[2][:2]
    Z, Z_train, test = test[:25] @ axes.T, train[:25] @ axes.T, test[:25]
    expected = trustworthiness(test[:21], Z[:21], n_neighbors=10)
    result = result_of(comparison, "PCA")
    assert result.trustworthiness == pytest.approx(expected)
    assert result.reconstruction_error == pytest.approx(np.mean((test - Z @ axes) ** 2))
    nearest = np.argsort(cdist(Z, Z_train), axis=1)[:, :5]
    vote = mode(comparison.y_train[:25][nearest], axis=1).mode
    assert result.knn_accuracy == pytest.approx(np.mean(vote == comparison.y_test[:25]))
    # Only what has pairs is measured on a part.
    density = comparison.models["kernels"].score_samples(comparison.X_test).mean()
    deviation = np.log(comparison.models["kernels"][0].scale_).sum()
    assert result_of(comparison, "kernels").log_density == pytest.approx(density - deviation)
    assert comparison.notes == [
        "Trustworthiness is measured on 21 of the 30 test rows.",
        "Reconstruction is measured on 25 of the 30 test rows.",
        "5-NN accuracy is measured on 25 of the 30 test rows, with neighbours from 25 of the 120 "
        "training rows.",
        "Isomap is fitted to 21 of the 120 training rows.",
        "kernels is fitted to 21 of the 120 training rows.",
        "search is fitted to 21 of the 120 training rows.",
    ]
    assert comparison.table().endswith("\n\n" + "\n".join(comparison.notes))


def test_the_mixture_is_cross_validated_on_a_part(rows, few_rows_are_many):
    comparison = compare(rows[0], estimators=["GaussianMixture"], random_state=0)
    train, _ = standardized(comparison)
    search = comparison.models["GaussianMixture"][-1]
    best = search.best_estimator_
    folds = KFold(3).split(train[:60])
    scores = [clone(best).fit(train[fit]).score(train[test]) for fit, test in folds]
    assert search.best_score_ == pytest.approx(np.mean(scores))
    np.testing.assert_allclose(best.means_, clone(best).fit(train).means_)
    assert comparison.notes == [
        "GaussianMixture is cross-validated on 60 of the 120 training rows, and the best is fitted "
        "to all."
    ]


def test_memory_does_not_go_with_the_square_of_the_rows():
    X = np.random.RandomState(0).standard_normal((60_000, 2))
    tracemalloc.start()
    compare(X, estimators={"PCA": PCA(1)}, random_state=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Distances between all test rows take 1.2 GB.
    assert peak < 5e8


# Failures


class Broken(BaseEstimator):
    """An estimator whose fit or embedding fails."""

    def __init__(self, where="fit", error=ValueError):
        self.where = where
        self.error = error

    def fit(self, X, y=None):
        if self.where == "fit":
            raise self.error("It is 3.5 times\ntoo much. Take less.")
        self.is_fitted_ = True
        return self

    def transform(self, X):
        raise self.error()


def test_an_estimator_that_fails_is_a_result(rows):
    estimators = {
        "fit": Broken(error=MemoryError),
        "PCA": PCA(2),
        "transform": Broken("transform", RuntimeError),
        "none": None,
    }
    with pytest.warns(UserWarning, match="failed with") as caught:
        comparison = compare(*rows, estimators=estimators, random_state=0)
    assert [str(warning.message).split(":")[0] for warning in caught] == [
        "fit failed with MemoryError",
        "transform failed with RuntimeError",
        "none failed with TypeError",
    ]
    errors = [result.error for result in comparison.results]
    assert errors[:3] == ["failed: It is 3.5 times too much.", None, "failed: RuntimeError"]
    assert list(comparison.models) == ["PCA"]
    expected = compare(*rows, estimators={"PCA": PCA(2)}, random_state=0).results[0]
    assert replace(comparison.results[1], fit_seconds=0) == replace(expected, fit_seconds=0)
    head, first, second, *_ = comparison.table().splitlines()
    assert first == "fit        failed: It is 3.5 times too much."
    assert len(head) == len(second)


# Output


def test_the_callback_sees_the_comparison_grow(rows):
    seen = []

    def callback(comparison):
        seen.append([result.estimator for result in comparison.results])

    compare(rows[0], estimators=["PCA", "FactorAnalysis"], random_state=0, callback=callback)
    assert seen == [[], ["PCA"], ["PCA", "FactorAnalysis"]]


class Reporting(PCA):
    """A model that says how far it is."""

    def fit(self, X, y=None):
        for epoch, part in [(1, "a part with a name"), (2, "")]:
            report(Progress("Reporting", part, epoch, 9, 1.0, 2.0, 3.0), verbose=0)
        return super().fit(X)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_shows_how_far_a_fit_is(rows, capsys, monkeypatch, is_terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setenv("COLUMNS", "79")
    compare(rows[0], estimators={"model": Reporting(2)}, random_state=0, verbose=1)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    if not is_terminal:
        assert re.fullmatch(r"\[1/1\] model \.\.\. \d\.\d s\n", out)
        return
    head, *shown, last = out.removesuffix("\n").split("\r")
    assert head == "[1/1] model ... "
    # Lines that fit the terminal, as long as the one that they are written over.
    assert shown[0] == f"{head}{Progress('', 'a part with a name', 1, 9, 1.0, 2.0, 3.0)}"[:78]
    assert shown[1].startswith(f"{head}epoch 2 of 9, score 1.0000 nats")
    assert len(shown[1]) == 78
    assert re.fullmatch(r"\[1/1\] model \.\.\. \d\.\d s +", last)
    assert len(last) == 78


def test_table_is_aligned():
    results = [
        Result("flow", -1.234, 0.5, 0.9876, 1.0, 10, 3, 12.34),
        Result("a longer name", None, None, None, None, None, None, 0.0),
    ]
    table = Comparison(results, {}, None, None, None, None, None, None).table()
    head, first, second = table.splitlines()
    assert len(head) == len(first) == len(second)
    assert first.split() == ["flow", "-1.23", "0.500", "0.988", "1.000", "10", "12.3"]
    assert second.split() == ["a", "longer", "name", *"-----", "0.0"]
    for match in re.finditer(r"\S+(?: \S+)*(?=  |$)", head):
        end = match.end()
        assert match.start() == 0 or {first[end - 1], second[end - 1]}.isdisjoint(" ")


def test_csv_holds_the_results(comparison, tmp_path):
    path = tmp_path / "results.csv"
    comparison.to_csv(path)
    with open(path, newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(comparison.results)
    for line, result in zip(lines, comparison.results, strict=True):
        expected = {k: "" if v is None else str(v) for k, v in asdict(result).items()}
        assert line == expected
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]
    assert float(lines[0]["log_density"]) == comparison.results[0].log_density


def test_csv_is_never_half_written(comparison, tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    path.write_text("the old one")

    def stop(result):
        raise KeyboardInterrupt

    monkeypatch.setattr(results_module, "astuple", stop)
    with pytest.raises(KeyboardInterrupt):
        comparison.to_csv(path)
    assert path.read_text() == "the old one"
