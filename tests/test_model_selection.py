"""Search over flows whose fits are trained as one stack, against scikit-learn's search."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import skmanifoldflow._base
import skmanifoldflow.model_selection
from skmanifoldflow import ManifoldPriorFlow, NoisyInjectiveFlow, TransformedDensity
from skmanifoldflow.datasets import SinCurve
from skmanifoldflow.model_selection import StackedSearchCV, cross_val_score_samples

X = SinCurve(noise=0.05).sample(150, random_state=0)[0]
GRID = {"learning_rate_init": [1e-3, 1e-2], "weight_decay": [0.0, 1e-2]}


def flow(**parameters):
    defaults = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 4, "random_state": 0}
    return NoisyInjectiveFlow(1, **(defaults | parameters))


def public(search):
    """The names of attributes that are public."""
    return {name for name in vars(search) if name[0] != "_"}


@pytest.fixture
def stacks(monkeypatch):
    """The sizes of the stacks that were trained."""
    sizes = []
    original = skmanifoldflow.model_selection.train_all

    def record(jobs):
        sizes.append(len(jobs))
        return original(jobs)

    monkeypatch.setattr(skmanifoldflow.model_selection, "train_all", record)
    return sizes


def test_is_the_grid_search_of_scikit_learn(stacks):
    kwargs = {"cv": 3, "return_train_score": True}
    ours = StackedSearchCV(flow(), GRID, **kwargs).fit(X)
    theirs = GridSearchCV(flow(), GRID, **kwargs).fit(X)
    assert stacks == [12]
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    for key in ("mean_test_score", "mean_train_score", "split0_test_score"):
        np.testing.assert_allclose(ours.cv_results_[key], theirs.cv_results_[key], atol=1e-3)
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    for name in ("best_index_", "best_params_", "n_splits_", "multimetric_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.score(X) == pytest.approx(theirs.score(X), abs=1e-3)
    np.testing.assert_allclose(ours.transform(X), ours.best_estimator_.transform(X))
    assert public(ours) == public(theirs)


def test_what_has_other_shapes_is_trained_apart(stacks):
    grid = {"hidden_layer_sizes": [(8,), (4, 4)], "noise_floor": [1e-3, 1e-2]}
    cv = KFold(2, shuffle=True, random_state=0)
    ours = StackedSearchCV(flow(), grid, cv=cv).fit(X)
    theirs = GridSearchCV(flow(), grid, cv=cv).fit(X)
    assert stacks == [8]
    scores = [search.cv_results_["mean_test_score"] for search in (ours, theirs)]
    np.testing.assert_allclose(*scores, atol=1e-3)


def test_the_best_candidate_is_known_without_a_refit(stacks):
    ours = StackedSearchCV(flow(), GRID, cv=2, refit=False).fit(X)
    theirs = GridSearchCV(flow(), GRID, cv=2, refit=False).fit(X)
    assert stacks == [8]
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_index_ == theirs.best_index_
    assert ours.best_score_ == pytest.approx(theirs.best_score_, abs=1e-3)
    assert public(ours) == public(theirs)
    assert "best_estimator_" not in public(ours)


def test_a_random_state_among_the_parameters_is_that_of_each_fit(stacks):
    def grid():
        return {"random_state": [np.random.RandomState(3), 5]}

    ours = StackedSearchCV(flow(), grid(), cv=3, refit=False).fit(X)
    theirs = GridSearchCV(flow(), grid(), cv=3, refit=False).fit(X)
    assert stacks == [6]
    for key in ("split0_test_score", "split1_test_score", "split2_test_score"):
        np.testing.assert_allclose(ours.cv_results_[key], theirs.cv_results_[key], atol=1e-3)


@pytest.mark.parametrize("one_shot", [True, False], ids=["generator", "random splitter"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
def test_folds_are_drawn_once_though_a_candidate_fails(one_shot):
    def cv():
        folds = KFold(3, shuffle=True, random_state=np.random.RandomState(0))
        return folds.split(X) if one_shot else folds

    grid = {"n_layers": [2, -1]}
    ours = StackedSearchCV(flow(), grid, cv=cv())
    given, text = ours.cv, repr(ours)
    ours.fit(X)
    theirs = GridSearchCV(flow(), grid, cv=cv()).fit(X)
    for key in ("split0_test_score", "split1_test_score", "split2_test_score"):
        np.testing.assert_array_equal(ours.cv_results_[key], theirs.cv_results_[key])
    assert public(ours) == public(theirs)
    assert ours.n_splits_ == theirs.n_splits_ == 3
    assert ours.cv is given
    assert ours.get_params()["cv"] is given
    assert repr(ours) == text
    if one_shot:
        # What is left of the splits is nothing, for both.
        for search in (ours, theirs):
            with pytest.raises(ValueError, match="Was the CV iterator empty"):
                search.fit(X)


class Fragile(NoisyInjectiveFlow):
    """A flow whose fit fails with one of its learning rates."""

    error = RuntimeError

    def _prepare_restart(self, plan, seed, first):
        if self.learning_rate_init > 0.1:
            raise self.error("no memory left")
        return super()._prepare_restart(plan, seed, first)


def fragile():
    return Fragile(1, n_layers=1, hidden_layer_sizes=(4,), max_iter=1, random_state=0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
@pytest.mark.parametrize("error_score", [np.nan, -7.0])
def test_any_error_of_a_fit_costs_its_candidate_alone(error_score):
    grid = {"learning_rate_init": [1e-2, 1.0]}
    kwargs = {"cv": 2, "error_score": error_score}
    ours = StackedSearchCV(fragile(), grid, **kwargs).fit(X)
    theirs = GridSearchCV(fragile(), grid, **kwargs).fit(X)
    for key in ("mean_test_score", "rank_test_score"):
        np.testing.assert_array_equal(ours.cv_results_[key], theirs.cv_results_[key])
    assert ours.best_params_ == theirs.best_params_ == {"learning_rate_init": 1e-2}


def test_an_error_within_the_stack_does_not_end_the_search(monkeypatch):
    def fail(jobs):
        raise RuntimeError("the stack is out of memory")

    monkeypatch.setattr(skmanifoldflow.model_selection, "train_all", fail)
    ours = StackedSearchCV(flow(), GRID, cv=2).fit(X)
    theirs = GridSearchCV(flow(), GRID, cv=2).fit(X)
    np.testing.assert_array_equal(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"]
    )


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_errors_that_are_wanted_pass(error, monkeypatch):
    monkeypatch.setattr(Fragile, "error", error)
    cv = KFold(2)
    search = StackedSearchCV(fragile(), {"learning_rate_init": [1.0]}, cv=cv, error_score="raise")
    with pytest.raises(error, match="no memory left"):
        search.fit(X)
    assert search.cv is cv
    assert not hasattr(search, "cv_results_")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"error_score": "x"},
        {"cv": 1},
        {"cv": "x"},
        {"n_jobs": "x"},
        {"return_train_score": "x"},
        {"verbose": -1},
        {"refit": 3.5},
        {"pre_dispatch": None},
        {"estimator": "x"},
        {"param_grid": {"learning_rate_init": 1e-3}},
        {"param_grid": {"learning_rate_init": []}},
        {"param_grid": {"learning_rate": [1e-3]}},
        {"param_grid": []},
        {"param_grid": 3},
        {"cv": 200},
    ],
    ids=str,
)
def test_parameters_are_checked_as_in_scikit_learn(kwargs):
    kwargs = {"estimator": flow(), "param_grid": GRID} | kwargs
    messages = []
    for kind in (StackedSearchCV, GridSearchCV):
        with pytest.raises((TypeError, ValueError), match=r"\w") as caught:
            kind(**kwargs).fit(X)
        message = str(caught.value).replace(kind.__name__, "")
        messages.append((caught.type, message))
    assert messages[0] == messages[1]


def test_rows_and_targets_must_be_as_many():
    messages = []
    for kind in (StackedSearchCV, GridSearchCV):
        with pytest.raises(ValueError, match="inconsistent numbers of samples") as caught:
            kind(flow(), GRID, cv=2).fit(X, np.zeros(3))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("verbose", [0, 1, 3])
def test_verbose_prints_what_scikit_learn_prints(verbose, stacks, capsys):
    grid = {"learning_rate_init": [1e-3, 1e-2]}
    lines = []
    for kind in (StackedSearchCV, GridSearchCV):
        kind(flow(), grid, cv=2, refit=False, verbose=verbose, return_train_score=True).fit(X)
        # The line of scikit-learn has dots and the time of a fit besides, and digits may round.
        text = re.sub(r"\.\.+|total time=.*|(?<=\d\.\d)\d*", "", capsys.readouterr().out)
        lines.append([re.sub(r"[;, ]+", " ", line).strip() for line in text.splitlines()])
    assert stacks == [4]
    assert lines[0] == lines[1]
    assert len(lines[0]) == {0: 0, 1: 1, 3: 5}[verbose]


def test_scores_are_printed(stacks, capsys):
    search = StackedSearchCV(flow(), {"tol": [0.5]}, cv=2, refit=False, verbose=2).fit(X)
    score = search.cv_results_["split1_test_score"][0]
    assert capsys.readouterr().out.splitlines()[2] == f"[CV 2/2] END tol=0.5; score={score:.3f}"


def test_the_reason_why_fits_are_not_stacked_is_printed(capsys):
    StackedSearchCV(flow(n_init=2), {"tol": [0.5]}, cv=2, refit=False, verbose=1).fit(X)
    assert capsys.readouterr().out.splitlines() == [
        "Fits are not stacked: ValueError: n_init must be 1.",
        "Fitting 2 folds for each of 1 candidates, totalling 2 fits",
    ]


def test_with_metadata_routing(stacks):
    with config_context(enable_metadata_routing=True):
        search = StackedSearchCV(flow(), GRID, cv=2).fit(X)
        assert stacks == [8]
        assert search.best_score_ == search.cv_results_["mean_test_score"].max()
        assert np.isfinite(search.score(X))


def test_groups_and_parameters_of_a_fit(stacks):
    groups = np.arange(len(X)) // 30
    kwargs = {"cv": GroupKFold(2), "refit": False}
    grid = {"learning_rate_init": [1e-3]}
    with pytest.raises(ValueError, match="the splitter alone gets groups"):
        StackedSearchCV(flow(), grid, **kwargs).fit(X, groups=groups)
    with config_context(enable_metadata_routing=True):
        estimator = flow().set_fit_request(groups=True)
        ours = StackedSearchCV(estimator, grid, **kwargs).fit(X, groups=groups)
        theirs = GridSearchCV(estimator, grid, **kwargs).fit(X, groups=groups)
    assert not stacks
    np.testing.assert_array_equal(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"]
    )


class Tasks:
    """A callback that remembers the tasks of a search."""

    def __init__(self):
        self.names = []

    def setup(self, estimator, context):
        self.names.append("setup")

    def teardown(self, estimator, context):
        self.names.append("teardown")

    def on_fit_task_begin(self, estimator, context, **kwargs):
        self.names.append(context.task_name)

    def on_fit_task_end(self, estimator, context, **kwargs):
        self.names.append(context.task_name)


@pytest.mark.filterwarnings("ignore:.*does not support callbacks:UserWarning")
def test_callbacks_are_called(stacks):
    pytest.importorskip("sklearn.callback")
    tasks = []
    for kind in (StackedSearchCV, GridSearchCV):
        callback = Tasks()
        kind(flow(), {"tol": [0.5]}, cv=2).set_callbacks(callback).fit(X)
        tasks.append(callback.names)
    assert not stacks
    assert tasks[0] == tasks[1]
    assert len(tasks[0]) > 4


@pytest.mark.parametrize(
    "parameters",
    [{}, {"n_latent_layers": 1}, {"injection": "coupling", "n_components": 2}],
    ids=str,
)
def test_flows_without_a_closed_form_can_be_searched(parameters):
    model = flow(objective="elbo").set_params(**parameters)
    grid = {"learning_rate_init": [1e-3, 1e-2]}
    ours = StackedSearchCV(model, grid, cv=2).fit(X)
    theirs = GridSearchCV(model, grid, cv=2).fit(X)
    scores = [search.cv_results_["mean_test_score"] for search in (ours, theirs)]
    np.testing.assert_allclose(*scores, atol=1e-2)


@pytest.mark.parametrize(
    ("estimator", "grid", "kwargs"),
    [
        (make_pipeline(StandardScaler(), flow()), {"noisyinjectiveflow__n_layers": [1, 2]}, {}),
        (flow(), {"n_layers": [1, 2]}, {"scoring": lambda model, X: model.score(X)}),
        (flow(n_init=2), {"n_layers": [1, 2]}, {}),
        (flow(), {"n_layers": [1, -1]}, {"error_score": -1e3}),
        (
            ManifoldPriorFlow(n_layers=1, hidden_layer_sizes=(4,), max_iter=1),
            {"noise_start": [0.1, 0.3]},
            {},
        ),
    ],
    ids=["pipeline", "scoring", "restarts", "invalid candidate", "another flow"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
def test_falls_back(estimator, grid, kwargs, stacks):
    search = StackedSearchCV(estimator, grid, cv=2, refit=False, **kwargs).fit(X)
    assert not stacks
    assert np.isfinite(search.cv_results_["mean_test_score"][0])


def test_restarts_are_trained_together_and_the_best_is_kept(monkeypatch):
    reports = []
    original = skmanifoldflow._base.train_all

    def record(*args):
        reports.extend(original(*args))
        return reports

    monkeypatch.setattr(skmanifoldflow._base, "train_all", record)
    model = flow(n_init=4, random_state=3).fit(X)
    assert len(reports) == 4
    best = max(reports, key=lambda report: report.best_score)
    assert model.validation_scores_ == best.validation_scores
    # The first start is that of a single fit.
    single = flow(random_state=3).fit(X)
    np.testing.assert_allclose(reports[0].loss_curve, single.loss_curve_, atol=1e-3)


# ------------------------------------------------------------------ log-densities out of fold


def test_log_densities_out_of_fold_are_those_of_other_rows():
    """Of a normal distribution, by scipy."""
    cv = KFold(4, shuffle=True, random_state=0)
    scores = cross_val_score_samples(GaussianMixture(reg_covar=0), X, cv=cv)
    for train, test in cv.split(X):
        normal = multivariate_normal(X[train].mean(axis=0), np.cov(X[train].T, bias=True))
        np.testing.assert_allclose(scores[test], normal.logpdf(X[test]), rtol=1e-8)


def test_folds_read_no_dimension_and_have_the_same_scores(monkeypatch):
    X, _ = SinCurve(noise=0.05).sample(120, random_state=0)
    model = NoisyInjectiveFlow(n_layers=2, hidden_layer_sizes=(8,), max_iter=2, random_state=0)
    expected = [
        clone(model).fit(X[train]).score_samples(X[test]) for train, test in KFold(2).split(X)
    ]

    def fail(rows):
        raise AssertionError("Nobody asks for it.")

    monkeypatch.setattr(skmanifoldflow._base, "read_distinct_rows", fail)
    scores = cross_val_score_samples(model, X, cv=KFold(2))
    np.testing.assert_array_equal(scores, np.concatenate(expected))
    with pytest.raises(AssertionError, match="Nobody"):
        model.fit(X)


def test_frames_jobs_and_parameters_of_fit():
    mixture = GaussianMixture(2, random_state=0)
    expected = cross_val_score_samples(mixture, X)
    frame = pd.DataFrame(X, columns=["x", "y"])
    np.testing.assert_allclose(cross_val_score_samples(mixture, frame, n_jobs=2), expected)
    # Rows of no weight have no part in a kernel density, nor have those that are left out.
    weights = np.where(np.arange(len(X)) % 2, 1.0, 1e-12)
    kernel = KernelDensity(bandwidth=0.3)
    scores = cross_val_score_samples(kernel, X, cv=3, params={"sample_weight": weights})
    train = np.arange(50, 150)
    alone = clone(kernel).fit(X[train[train % 2 == 1]])
    np.testing.assert_allclose(scores[:50], alone.score_samples(X[:50]), rtol=1e-6)


def test_groups_stay_together_and_go_to_fit():
    groups = np.arange(150) // 5
    seen = []

    class Recorder(GaussianMixture):
        def fit(self, X, y=None, groups=None):
            seen.append(groups)
            return super().fit(X)

    cross_val_score_samples(Recorder(), X, groups=groups)
    assert len(seen) == 5
    for of_fold in seen:
        assert (np.unique(of_fold, return_counts=True)[1] == 5).all()
    cross_val_score_samples(GaussianMixture(), X, groups=groups)


def test_copies_stay_together_by_default():
    """Of rows that are there four times a narrow kernel would know the copies."""
    rows = np.repeat(X[:40], 4, axis=0)
    kernel = KernelDensity(bandwidth=0.02)
    apart = KFold(5, shuffle=True, random_state=0)
    scores = cross_val_score_samples(kernel, rows)
    assert scores.mean() < cross_val_score_samples(kernel, rows, cv=apart).mean() - 10
    # Three groups make three folds.
    groups = np.repeat(np.arange(3), 50)
    scores = cross_val_score_samples(kernel, X, groups=groups)
    for group in range(3):
        others = clone(kernel).fit(X[groups != group])
        np.testing.assert_allclose(
            scores[groups == group], others.score_samples(X[groups == group])
        )
    with pytest.raises(ValueError, match="All rows are of one group"):
        cross_val_score_samples(kernel, X, groups=np.zeros(150))


def test_rows_of_any_type_have_folds():
    frame = pd.DataFrame({"x": X[:, 0], "text": np.where(X[:, 1] > 0, "a", "b")})
    frame.loc[3, "x"] = np.nan
    encoded = make_column_transformer((SimpleImputer(), ["x"]), (OneHotEncoder(), ["text"]))
    model = make_pipeline(encoded, KernelDensity())
    assert np.isfinite(cross_val_score_samples(model, frame)).all()
    for dtype in (bool, int, np.uint8, np.float32):
        assert np.isfinite(
            cross_val_score_samples(KernelDensity(), np.abs(9 * X).astype(dtype))
        ).all()


def test_groups_reach_a_density_behind_a_transformer():
    class Recorder(GaussianMixture):
        def fit(self, X, y=None, groups=None):
            seen.append(groups)
            return super().fit(X)

    seen = []
    cross_val_score_samples(TransformedDensity(Recorder()), X, groups=np.arange(150) // 5)
    assert [len(groups) for groups in seen] == [120] * 5


def test_each_row_must_be_left_out_once():
    with pytest.raises(ValueError, match="only works for partitions"):
        cross_val_score_samples(GaussianMixture(), X, cv=ShuffleSplit(2, random_state=0))
