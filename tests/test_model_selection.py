"""Search over flows whose fits are trained as one stack, against scikit-learn's search."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skmanifoldflow._base
import skmanifoldflow.model_selection
from skmanifoldflow import ManifoldPriorFlow, NoisyInjectiveFlow
from skmanifoldflow.datasets import SinCurve
from skmanifoldflow.model_selection import StackedSearchCV

X = SinCurve(noise=0.05).sample(150, random_state=0)[0]
GRID = {"learning_rate_init": [1e-3, 1e-2], "weight_decay": [0.0, 1e-2]}


def flow(**parameters):
    defaults = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 4, "random_state": 0}
    return NoisyInjectiveFlow(1, **(defaults | parameters))


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
    public = [{name for name in vars(s) if name[0] != "_"} for s in (ours, theirs)]
    assert public[0] == public[1]


def test_what_has_other_shapes_is_trained_apart(stacks):
    grid = {"hidden_layer_sizes": [(8,), (4, 4)], "noise_floor": [1e-3, 1e-2]}
    cv = KFold(2, shuffle=True, random_state=0)
    ours = StackedSearchCV(flow(), grid, cv=cv, refit=False).fit(X)
    theirs = GridSearchCV(flow(), grid, cv=cv, refit=False).fit(X)
    assert stacks == [8] and not hasattr(ours, "best_estimator_")
    scores = [search.cv_results_["mean_test_score"] for search in (ours, theirs)]
    np.testing.assert_allclose(*scores, atol=1e-3)


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

    def record(jobs):
        reports.extend(original(jobs))
        return reports

    monkeypatch.setattr(skmanifoldflow._base, "train_all", record)
    model = flow(n_init=4, random_state=3).fit(X)
    assert len(reports) == 4
    best = max(reports, key=lambda report: report.best_score)
    assert model.validation_scores_ == best.validation_scores
    # The first start is that of a single fit.
    single = flow(random_state=3).fit(X)
    np.testing.assert_allclose(reports[0].loss_curve, single.loss_curve_, atol=1e-3)
