"""What a fit is validated on: groups of rows, and rows of one's own."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy.stats import multivariate_normal
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import (
    ChartAtlasFlow,
    JointManifoldFlow,
    ManifoldPriorFlow,
    NoisyInjectiveFlow,
)

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
ESTIMATORS = (ManifoldPriorFlow, NoisyInjectiveFlow, ChartAtlasFlow, JointManifoldFlow)
every_estimator = pytest.mark.parametrize("Estimator", ESTIMATORS)


@pytest.fixture
def rows():
    rng = np.random.RandomState(0)
    t = rng.uniform(-2, 2, (300, 1))
    return np.c_[t, np.sin(2 * t), t**2] + 0.05 * rng.standard_normal((300, 3))


def held_out(model, monkeypatch, **fit):
    """Return the rows of the table that a fit sets aside, and how many it validates on."""
    plans = []
    plan = type(model)._plan
    monkeypatch.setattr(type(model), "_plan", lambda *args: plans.append(plan(*args)) or plans[-1])
    model.fit(**fit)
    table, split, validation = plans[0].table, plans[0].split, plans[0].validation
    aside = {tuple(row) for row in table.take(split.validation).tolist()}
    index = [i for i, row in enumerate(fit["X"].tolist()) if tuple(row) in aside]
    return np.array(index), 0 if validation is None else len(validation)


@every_estimator
def test_groups_stay_on_one_side(Estimator, rows, monkeypatch):
    groups = np.repeat([f"place {k}" for k in range(30)], 10)
    order = np.random.RandomState(1).permutation(300)
    model = Estimator(**SMALL)
    aside, n = held_out(model, monkeypatch, X=rows[order], groups=groups[order])
    chosen = groups[order][aside]
    assert len(aside) == n == 30
    assert len(set(chosen)) == 3
    assert not set(chosen) & set(np.delete(groups[order], aside))
    assert np.isfinite(model.score(rows))


@every_estimator
def test_rows_of_ones_own(Estimator, rows, monkeypatch):
    own = rows[:40] + 0.01
    model = Estimator(**SMALL)
    aside, n = held_out(model, monkeypatch, X=rows, X_val=own)
    assert (len(aside), n) == (0, 40)
    assert len(model.validation_scores_) == model.n_iter_
    assert np.isfinite(model.score(rows))
    again = Estimator(**SMALL).fit(rows, X_val=pd.DataFrame(own).to_numpy())
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))


def test_rows_of_ones_own_decide(rows):
    """Scores of validation rows far away are those of the model there."""
    near = NoisyInjectiveFlow(**SMALL).fit(rows, X_val=rows[:50])
    far = NoisyInjectiveFlow(**SMALL).fit(rows, X_val=rows[:50] + 10)
    assert max(far.validation_scores_) < min(near.validation_scores_) - 10


def test_few_training_rows_are_trained_on_with_rows_of_ones_own(rows):
    few = NoisyInjectiveFlow(**SMALL).fit(rows[:30])
    assert not few.validation_scores_
    own = NoisyInjectiveFlow(**SMALL).fit(rows[:30], X_val=rows[30:])
    assert len(own.validation_scores_) == own.n_iter_ == 3


@pytest.mark.parametrize(
    ("settings", "kwargs", "message"),
    [
        ({"early_stopping": False}, {"X_val": "rows"}, "X_val is of use with"),
        ({}, {"X_val": "rows", "groups": [0, 1] * 150}, "groups must be None"),
        ({}, {"groups": [0, 1]}, "inconsistent numbers of samples"),
        ({}, {"groups": [0] * 300}, "Of 1 groups one has to be set aside"),
        ({}, {"groups": np.zeros((300, 2))}, "1d array"),
        ({}, {"X_val": np.zeros((5, 2))}, "features"),
        ({}, {"X_val": np.zeros((1, 3))}, "minimum of 2"),
        (
            {"bounded": (-5, 5), "dequantize": True},
            {"X_val": np.full((5, 3), 5.0)},
            "column of X_val is spread",
        ),
        ({}, {"X_val": np.full((5, 3), np.nan)}, "NaN"),
        ({"bounded": (-5, 5)}, {"X_val": np.full((5, 3), 6.0)}, "must contain every value"),
    ],
)
def test_what_contradicts_is_told(rows, settings, kwargs, message):
    if isinstance(kwargs.get("X_val"), str):
        kwargs = {**kwargs, "X_val": rows}
    with pytest.raises(ValueError, match=message):
        NoisyInjectiveFlow(**SMALL, **settings).fit(rows, **kwargs)


@pytest.mark.parametrize("fit", [{"groups": np.arange(300) // 3}, {"X_val": np.zeros((9, 3))}, {}])
def test_nobody_is_told_of_what_does_not_matter(rows, fit):
    """Warnings are errors here."""
    readings = np.repeat(rows[:100], 3, axis=0)
    readings += 0.01 * np.random.RandomState(0).standard_normal(readings.shape)
    early_stopping = "auto" if "X_val" in fit else bool(fit)
    model = NoisyInjectiveFlow(**SMALL, early_stopping=early_stopping)
    assert np.isfinite(model.fit(readings, **fit).score(rows))


@pytest.mark.parametrize("settings", [{"n_init": 2}, {"warm_start": True}])
def test_with_several_starts_and_with_a_warm_one(rows, settings):
    model = NoisyInjectiveFlow(**SMALL, **settings)
    for _ in range(2):
        model.fit(rows, X_val=rows[:50])
        model.fit(rows, groups=np.arange(300) // 10)
        assert len(model.validation_scores_) == model.n_iter_


def test_images_of_ones_own():
    images = np.random.RandomState(0).uniform(size=(120, 16))
    model = ManifoldPriorFlow(n_layers=2, max_iter=2, image_shape=(1, 4, 4), random_state=0)
    model.fit(images[:80], X_val=images[80:])
    assert len(model.validation_scores_) == model.n_iter_


def test_two_groups_are_enough(rows, monkeypatch):
    groups = np.r_[np.zeros(200), np.ones(100)]
    aside, n = held_out(NoisyInjectiveFlow(**SMALL), monkeypatch, X=rows, groups=groups)
    assert n == 100
    assert (aside >= 200).all()


def test_routing(rows):
    """A pipeline transforms the validation rows, and a search splits the groups as its folds."""
    groups = np.arange(300) // 10
    with sklearn.config_context(enable_metadata_routing=True):
        flow = NoisyInjectiveFlow(**SMALL).set_fit_request(X_val=True, groups=False)
        pipeline = make_pipeline(StandardScaler(), flow, transform_input=["X_val"])
        pipeline.fit(rows, X_val=rows[:50])
        scaled = StandardScaler().fit(rows)
        alone = NoisyInjectiveFlow(**SMALL).fit(
            scaled.transform(rows), X_val=scaled.transform(rows[:50])
        )
        assert pipeline.score(rows) == alone.score(scaled.transform(rows))
        flow = NoisyInjectiveFlow(**SMALL).set_fit_request(groups=True)
        search = GridSearchCV(flow, {"n_components": [1, 2]}, cv=GroupKFold(2), error_score="raise")
        search.fit(rows, groups=groups)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_series_is_validated_on_other_times():
    rng = np.random.RandomState(0)
    noise, X = rng.standard_normal((3000, 2)), np.zeros((3000, 2))
    for i in range(1, 3000):
        X[i] = 0.95 * X[i - 1] + np.sqrt(1 - 0.95**2) * noise[i]
    model = NoisyInjectiveFlow(n_layers=4, random_state=0).fit(X, groups=np.arange(3000) // 200)
    fresh = rng.standard_normal((4000, 2))
    truth = multivariate_normal(np.zeros(2)).logpdf(fresh).mean()
    assert truth - model.score(fresh) < 0.3
