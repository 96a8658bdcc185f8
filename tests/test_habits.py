"""What users of scikit-learn try without looking it up."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from helpers import ESTIMATORS, every_estimator
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, NoisyInjectiveFlow
from skmanifoldflow.compare import compare
from skmanifoldflow.datasets import SCurve
from skmanifoldflow.plotting import EmbeddingDisplay, SampleDisplay

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}


@pytest.fixture(scope="module")
def rows():
    return SCurve(noise=0.05).sample(120, random_state=0)[0]


@pytest.fixture(scope="module")
def table(rows):
    return pd.DataFrame(rows, columns=["x", "y", "z"], index=[f"row {i}" for i in range(120)])


@pytest.fixture(scope="module", params=ESTIMATORS, ids=lambda e: e.__name__)
def model(request, table):
    return request.param(2, **SMALL).fit(table)


# ------------------------------------------------------------------ weights of a score


def test_weighted_score(model, table):
    weights = np.random.RandomState(0).random_sample(len(table))
    log_density = model.score_samples(table)
    expected = (weights * log_density).sum() / weights.sum()
    assert model.score(table, sample_weight=weights) == pytest.approx(expected, rel=1e-12)
    # A row of weight 2 is two rows.
    counts = np.arange(len(table)) % 3
    repeated = table.iloc[np.repeat(np.arange(len(table)), counts)]
    assert model.score(table, sample_weight=counts) == pytest.approx(model.score(repeated))
    assert isinstance(model.score(table, sample_weight=weights), float)


def test_weights_of_a_score_are_checked(model, table):
    with pytest.raises(ValueError, match=r"inconsistent|shape"):
        model.score(table, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        model.score(table, sample_weight=-np.ones(len(table)))
    with pytest.raises(ValueError, match="non-zero"):
        model.score(table, sample_weight=np.zeros(len(table)))


def test_rows_of_no_weight_do_not_count(model, table):
    far = pd.concat([table.iloc[:3], 1e200 * table.iloc[:1]])
    score = model.score(far, sample_weight=[1, 1, 1, 0])
    # The last bits of a row's score depend on how many rows it is scored with.
    assert score == pytest.approx(model.score(table.iloc[:3]), rel=1e-12)


def test_metadata_routing(rows):
    """A pipeline and a search pass the weights on where they are asked for."""
    weights = np.linspace(0, 1, len(rows))
    with sklearn.config_context(enable_metadata_routing=True):
        flow = NoisyInjectiveFlow(2, **SMALL).set_score_request(sample_weight=True)
        flow.set_fit_request(sample_weight=False)
        pipeline = make_pipeline(StandardScaler(), flow).fit(rows)
        scaled = pipeline[0].transform(rows)
        expected = np.average(pipeline[1].score_samples(scaled), weights=weights)
        assert pipeline.score(rows, sample_weight=weights) == pytest.approx(expected)
        plain = make_pipeline(StandardScaler(), clone(flow)).fit(rows)
        assert plain.score(rows) == pytest.approx(pipeline.score(rows))
        search = GridSearchCV(flow, {"n_components": [1, 2]}, cv=2)
        search.fit(rows, sample_weight=weights)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        found = cross_validate(flow, rows, cv=2, params={"sample_weight": weights})
        assert np.isfinite(found["test_score"]).all()


# ------------------------------------------------------------------ parameters


@every_estimator
def test_one_hidden_layer_as_an_int(Estimator, rows):
    one = Estimator(2, **SMALL | {"hidden_layer_sizes": 8}).fit(rows)
    same = Estimator(2, **SMALL | {"hidden_layer_sizes": (8,)}).fit(rows)
    np.testing.assert_array_equal(one.score_samples(rows), same.score_samples(rows))
    assert one.hidden_layer_sizes == 8
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        Estimator(2, hidden_layer_sizes=0).fit(rows)


@every_estimator
def test_device_as_an_object(Estimator, rows):
    cpu = torch.device("cpu")
    model = Estimator(2, device=cpu, **SMALL).fit(rows)
    assert model.device_ == "cpu"
    assert clone(model).device == cpu
    assert model.to(cpu) is model
    with pytest.raises(ValueError, match="not supported"):
        Estimator(2, device=torch.device("meta"), **SMALL).fit(rows)


# ------------------------------------------------------------------ names of columns


def test_names_of_columns_are_kept(model, table):
    model = clone(model).set_output(transform="pandas").fit(table)
    Z = model.transform(table)
    plain = clone(model).set_output(transform="default").fit(table)
    for frame, array, index in (
        (model.inverse_transform(Z), plain.inverse_transform(Z.to_numpy()), table.index),
        (model.reconstruct(table), plain.reconstruct(table), table.index),
        (model.sample(5, random_state=0), plain.sample(5, random_state=0), pd.RangeIndex(5)),
    ):
        assert list(frame.columns) == ["x", "y", "z"]
        assert list(frame.index) == list(index)
        np.testing.assert_array_equal(frame.to_numpy(), array)
        assert isinstance(array, np.ndarray)


def test_names_where_there_were_none(rows):
    model = NoisyInjectiveFlow(2, **SMALL).set_output(transform="pandas").fit(rows)
    assert list(model.sample(2, random_state=0).columns) == ["x0", "x1", "x2"]


def test_names_of_the_methods_of_one_estimator(table):
    joint = JointManifoldFlow(2, stage_components=(1,), **SMALL).fit(table)
    Z = joint.transform(table, stage=2)
    joint.set_output(transform="pandas")
    assert list(joint.inverse_transform(Z, stage=2).columns) == ["x", "y", "z"]
    atlas = ChartAtlasFlow(2, **SMALL).set_output(transform="pandas").fit(table)
    frame, charts = atlas.sample(4, random_state=0, return_charts=True)
    assert list(frame.columns) == ["x", "y", "z"]
    assert charts.shape == (4,)


def test_global_output(table):
    with sklearn.config_context(transform_output="pandas"):
        model = NoisyInjectiveFlow(2, **SMALL).fit(table)
        assert list(model.reconstruct(table).columns) == ["x", "y", "z"]
    assert isinstance(model.reconstruct(table), np.ndarray)


def test_displays_and_comparison_of_frames(table):
    with sklearn.config_context(transform_output="pandas"):
        pipeline = make_pipeline(StandardScaler(), NoisyInjectiveFlow(2, **SMALL)).fit(table)
        for model in (pipeline, pipeline[-1]):
            SampleDisplay.from_estimator(model, table, random_state=0)
            EmbeddingDisplay.from_estimator(model, table)
        flow = {"flow": NoisyInjectiveFlow(2, **SMALL)}
        (ours,) = compare(table, estimators=flow, random_state=0).results
    (theirs,) = compare(table, estimators=flow, random_state=0).results
    assert ours.log_density == pytest.approx(theirs.log_density)
    assert ours.reconstruction_error == pytest.approx(theirs.reconstruction_error)
    plt.close("all")


# ------------------------------------------------------------------ in a notebook


def test_html_has_links_and_help(model):
    html = model._repr_html_()
    name = type(model).__name__
    assert f"/generated/skmanifoldflow.{name}.html" in html
    # Every parameter has its text of the docstring as a tooltip.
    assert html.count("param-doc-description") >= len(model.get_params())
    assert "Number of coupling" in html or "Number of layers" in html
