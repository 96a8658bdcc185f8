"""All displays: without matplotlib, not fitted, in pipelines and searches."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import (
    ChartAtlasFlow,
    DimensionReport,
    ManifoldPriorFlow,
    NoveltyDetector,
)
from skmanifoldflow.model_selection import StackedSearchCV
from skmanifoldflow.plotting import (
    AnomalyDisplay,
    AtlasDisplay,
    CalibrationDisplay,
    DensityDisplay,
    DimensionDisplay,
    EmbeddingDisplay,
    ExplanationDisplay,
    LossCurveDisplay,
    PairDisplay,
    ReconstructionDisplay,
    SampleDisplay,
    SpectrumDisplay,
    WalkDisplay,
)

DISPLAYS = {
    type(display).__name__: display
    for display in [
        AnomalyDisplay([0.0, 1.0]),
        AtlasDisplay(np.eye(2), np.eye(2)),
        CalibrationDisplay([0.5]),
        DensityDisplay(np.eye(2), [0.0, 1.0], [0.0, 1.0]),
        DimensionDisplay(DimensionReport(1, (2,), (1.5,), (1.0,))),
        EmbeddingDisplay(np.eye(3)),
        ExplanationDisplay(np.eye(2)),
        LossCurveDisplay([3.0, 2.0]),
        PairDisplay(np.eye(2), np.eye(2)),
        ReconstructionDisplay(np.eye(2), np.eye(2)),
        SampleDisplay(np.eye(2)),
        SpectrumDisplay([2.0, 1.0], noise_variance=0.1, intrinsic_dimension=1),
        WalkDisplay([np.eye(2)]),
    ]
}
WITHOUT_ROWS = {DimensionDisplay, LossCurveDisplay, SampleDisplay, SpectrumDisplay}


def small_flow():
    return ManifoldPriorFlow(
        n_components=2, n_layers=1, hidden_layer_sizes=(4,), max_iter=1, random_state=0
    )


def data_of(display):
    return [] if display in WITHOUT_ROWS else [np.eye(3)]


def unfitted(display):
    """Return an estimator that a display is made for."""
    kinds = {AtlasDisplay: ChartAtlasFlow, ExplanationDisplay: NoveltyDetector}
    return kinds.get(display, small_flow)()


@pytest.mark.parametrize("name", list(DISPLAYS))
def test_unfitted_estimator(name):
    display = type(DISPLAYS[name])
    with pytest.raises(NotFittedError):
        display.from_estimator(unfitted(display), *data_of(display))


@pytest.mark.parametrize("name", list(DISPLAYS))
def test_without_matplotlib(name, flow, monkeypatch):
    display = DISPLAYS[name]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=rf"{name}.plot needs .* \[plot\]"):
        display.plot()
    with pytest.raises(ImportError, match=rf"{name}.from_estimator needs .* \[plot\]"):
        display.from_estimator(flow, *data_of(type(display)))


@pytest.fixture(scope="module")
def scaled(frame):
    """A flow behind a scaler, a pipeline in a search, and a search behind a scaler."""
    grid = {"n_layers": [1]}
    searched = {f"manifoldpriorflow__{name}": values for name, values in grid.items()}
    pipeline = make_pipeline(StandardScaler(), small_flow())
    estimators = {
        "pipeline": pipeline,
        "search": GridSearchCV(pipeline, searched, cv=2),
        "pipeline of a pipeline": make_pipeline("passthrough", pipeline),
        "pipeline of a search": make_pipeline(
            StandardScaler(), StackedSearchCV(small_flow(), grid, cv=2)
        ),
    }
    return {name: estimator.fit(frame) for name, estimator in estimators.items()}


@pytest.fixture(params=["pipeline", "search", "pipeline of a pipeline", "pipeline of a search"])
def wrapped(request, scaled):
    return scaled[request.param]


def test_displays_of_the_model_in_a_pipeline_or_a_search(wrapped, frame):
    scaler = StandardScaler().fit(frame)
    model = small_flow().fit(scaler.transform(frame))
    drawn = SpectrumDisplay.from_estimator(wrapped)
    np.testing.assert_array_equal(drawn.spectrum, model.local_spectrum_)
    drawn = LossCurveDisplay.from_estimator(wrapped)
    np.testing.assert_array_equal(drawn.loss_curve, model.loss_curve_)
    drawn = EmbeddingDisplay.from_estimator(wrapped, frame)
    np.testing.assert_allclose(drawn.embedding, model.transform(scaler.transform(frame)))
    drawn = SampleDisplay.from_estimator(wrapped, frame, n_samples=50, random_state=0)
    expected = scaler.inverse_transform(model.sample(50, random_state=0))
    np.testing.assert_allclose(drawn.samples[0], expected)
    np.testing.assert_array_equal(drawn.data, frame)
    assert drawn.title is None


@pytest.mark.parametrize("name", ["LossCurveDisplay", "SpectrumDisplay"])
def test_a_search_itself(name, frame):
    search = GridSearchCV(small_flow(), {"n_layers": [1]}, cv=2).fit(frame)
    display = type(DISPLAYS[name])
    ours, plain = (display.from_estimator(model) for model in (search, search.best_estimator_))
    for ax in (ours.ax_, plain.ax_):
        assert len(ax.lines) > 1
    for a, b in zip(ours.ax_.lines, plain.ax_.lines, strict=True):
        np.testing.assert_array_equal(a.get_ydata(), b.get_ydata())


@pytest.mark.parametrize("name", list(DISPLAYS))
def test_pipelines_and_searches_that_are_not_fitted(name, frame):
    display = type(DISPLAYS[name])
    data = [] if display in WITHOUT_ROWS else [frame]
    flow = unfitted(display)
    for estimator in (
        make_pipeline(StandardScaler(), flow),
        GridSearchCV(flow, {"random_state": [1]}),
        make_pipeline(StandardScaler(), GridSearchCV(flow, {"random_state": [1]})),
    ):
        with pytest.raises(NotFittedError):
            display.from_estimator(estimator, *data)
    search = GridSearchCV(small_flow(), {"n_layers": [1]}, cv=2, refit=False).fit(frame)
    with pytest.raises(ValueError, match="GridSearchCV has no best_estimator_: it needs refit"):
        display.from_estimator(search, *data)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("AtlasDisplay", "charts"),
        ("CalibrationDisplay", "method sample"),
        ("ExplanationDisplay", "method explain"),
        ("PairDisplay", "method sample"),
        ("LossCurveDisplay", "loss curve"),
        ("SampleDisplay", "method sample"),
        ("SpectrumDisplay", "spectrum"),
    ],
)
def test_pipelines_that_do_not_end_in_a_flow(name, what, frame):
    display = type(DISPLAYS[name])
    data = [] if display in WITHOUT_ROWS else [frame]
    for estimator in (PCA(2), make_pipeline(StandardScaler(), PCA(2))):
        with pytest.raises(ValueError, match=f"PCA has no {what}"):
            display.from_estimator(estimator.fit(frame), *data)
    assert not plt.get_fignums()
