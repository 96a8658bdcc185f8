"""Displays: what is drawn, where, and what happens without matplotlib."""

import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.manifold import TSNE, Isomap
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OrdinalEncoder, StandardScaler

from skmanifoldflow import (
    ChartAtlasFlow,
    DimensionReport,
    JointManifoldFlow,
    ManifoldPriorFlow,
    NoveltyDetector,
    intrinsic_dimension,
)
from skmanifoldflow.datasets import LinkedCircles, SCurve
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
from skmanifoldflow.plotting._rows import mosaic


@pytest.fixture
def display():
    return SpectrumDisplay([2.1, 0.8, 0.003, 5e-4], noise_variance=4e-4, intrinsic_dimension=2)


@pytest.fixture(scope="module")
def rows():
    return SCurve(noise=0.05).sample(120, random_state=0)[0]


@pytest.fixture(scope="module")
def flow():
    t = np.random.RandomState(0).standard_normal((80, 1))
    X = t * [1.0, 2.0, -1.0] + 0.01 * np.random.RandomState(1).standard_normal((80, 3))
    return ManifoldPriorFlow(
        n_layers=1, hidden_layer_sizes=(4,), isometry=0, max_iter=1, random_state=0
    ).fit(X)


# Spectrum


def test_artists_hold_the_values(display):
    assert display.plot() is display
    kept, rest = display.lines_
    np.testing.assert_array_equal(kept.get_xydata(), [[1, 2.1], [2, 0.8]])
    np.testing.assert_array_equal(rest.get_xydata(), [[3, 0.003], [4, 5e-4]])
    assert set(display.floor_.get_ydata()) == {4e-4}
    assert set(display.dimension_.get_xdata()) == {2.5}
    assert display.ax_.get_yscale() == "log"
    assert display.ax_.get_xlabel()
    assert display.ax_.get_ylabel()
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["manifold", "noise", "noise floor", "dimension 2"]
    display.figure_.canvas.draw()


def test_axes_can_be_given(display):
    figure, ax = plt.subplots()
    display.plot(ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize(
    ("spectrum", "dimension"),
    [
        # All are of the manifold.
        ([2.1, 0.8, 0.003, 5e-4], 4),
        # A steady fall, to a number of dimensions that was asked for.
        (list(np.geomspace(2.5, 0.003, 64)), 2),
        # Eight times the next one, but less than the fall behind it.
        ([2.0, 1.0, 0.1, 0.05, 0.02, 0.004], 2),
    ],
)
def test_no_gap_is_claimed_where_there_is_none(spectrum, dimension):
    display = SpectrumDisplay(spectrum, noise_variance=4e-4, intrinsic_dimension=dimension).plot()
    (line,) = display.lines_
    np.testing.assert_array_equal(line.get_ydata(), spectrum)
    assert display.dimension_ is None
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["eigenvalues, no gap", "noise floor"]
    display.figure_.canvas.draw()


def test_from_estimator(flow):
    _, ax = plt.subplots()
    display = SpectrumDisplay.from_estimator(flow, ax=ax)
    assert display.ax_ is ax
    drawn = np.concatenate([line.get_ydata() for line in display.lines_])
    np.testing.assert_array_equal(drawn, flow.local_spectrum_)
    own = flow.dimension_report_.spectral_dimension
    assert display.intrinsic_dimension == own
    assert len(display.lines_[0].get_xdata()) in (own, 3)
    assert display.noise_variance == flow.noise_floor**2


def test_dimension_display(flow):
    report = DimensionReport(2, (2, 4, 8), (2.8, 2.4, 2.1), (2.2, 2.1, 2.0))
    display = DimensionDisplay(report).plot()
    rows, calibrated = display.lines_
    np.testing.assert_array_equal(rows.get_xydata(), [[2, 2.8], [4, 2.4], [8, 2.1]])
    np.testing.assert_array_equal(calibrated.get_ydata(), [2.2, 2.1, 2.0])
    assert set(display.dimension_.get_ydata()) == {2}
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["rows", "calibrated", "dimension 2"]
    display.figure_.canvas.draw()
    assert DimensionDisplay.from_estimator(flow).report is flow.dimension_report_
    with pytest.raises(ValueError, match="no scales"):
        DimensionDisplay(DimensionReport(1)).plot()
    with pytest.raises(ValueError, match="no report"):
        DimensionDisplay.from_estimator(PCA().fit(np.eye(3)))


def test_dimension_of_data_is_drawn():
    X, _ = SCurve(noise=0.05).sample(300, random_state=0)
    display = DimensionDisplay.from_data(X)
    assert display.report == intrinsic_dimension(X)
    assert len(display.lines_[0].get_xdata()) == len(display.report.neighbors)


# All


DISPLAYS = {
    "AnomalyDisplay": (AnomalyDisplay, [[0.0, 1.0]]),
    "AtlasDisplay": (AtlasDisplay, [np.eye(2), np.eye(2)]),
    "CalibrationDisplay": (CalibrationDisplay, [[0.5]]),
    "DensityDisplay": (DensityDisplay, [np.eye(2), [0.0, 1.0], [0.0, 1.0]]),
    "DimensionDisplay": (DimensionDisplay, [DimensionReport(1, (2,), (1.5,), (1.0,))]),
    "EmbeddingDisplay": (EmbeddingDisplay, [np.eye(3)]),
    "LossCurveDisplay": (LossCurveDisplay, [[3.0, 2.0]]),
    "ExplanationDisplay": (ExplanationDisplay, [np.eye(2)]),
    "PairDisplay": (PairDisplay, [np.eye(2), np.eye(2)]),
    "ReconstructionDisplay": (ReconstructionDisplay, [np.eye(2), np.eye(2)]),
    "SampleDisplay": (SampleDisplay, [np.eye(2)]),
    "SpectrumDisplay": (SpectrumDisplay, []),
    "WalkDisplay": (WalkDisplay, [[np.eye(2)]]),
}
WITHOUT_ROWS = {DimensionDisplay, LossCurveDisplay, SampleDisplay, SpectrumDisplay}


def data_of(display):
    return [] if display in WITHOUT_ROWS else [np.eye(3)]


def unfitted(display):
    """Return an estimator that a display is made for."""
    kinds = {AtlasDisplay: small_atlas, ExplanationDisplay: NoveltyDetector}
    return kinds.get(display, small_flow)()


@pytest.mark.parametrize("name", list(DISPLAYS))
def test_unfitted_estimator(name):
    display = DISPLAYS[name][0]
    with pytest.raises(NotFittedError):
        display.from_estimator(unfitted(display), *data_of(display))


@pytest.mark.parametrize("name", list(DISPLAYS))
def test_without_matplotlib(name, display, flow, monkeypatch):
    kind, arguments = DISPLAYS[name]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=rf"{name}.plot needs .* \[plot\]"):
        (kind(*arguments) if arguments else display).plot()
    with pytest.raises(ImportError, match=rf"{name}.from_estimator needs .* \[plot\]"):
        kind.from_estimator(flow, *data_of(kind))


# Pipelines and searches


def small_flow():
    return ManifoldPriorFlow(
        n_components=2, n_layers=1, hidden_layer_sizes=(4,), max_iter=1, random_state=0
    )


def small_atlas():
    return ChartAtlasFlow(
        n_charts=3, n_layers=1, hidden_layer_sizes=(4,), max_iter=1, random_state=0
    )


@pytest.fixture(scope="module")
def frame():
    X = load_iris(as_frame=True).data
    # Spread over the millimetre that they are rounded to.
    return X + np.random.RandomState(0).uniform(0, 0.1, X.shape)


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
    display = DISPLAYS[name][0]
    ours, plain = (display.from_estimator(model) for model in (search, search.best_estimator_))
    for ax in (ours.ax_, plain.ax_):
        assert len(ax.lines) > 1
    for a, b in zip(ours.ax_.lines, plain.ax_.lines, strict=True):
        np.testing.assert_array_equal(a.get_ydata(), b.get_ydata())


def test_samples_behind_steps_without_an_inverse(frame):
    gaps = frame.mask(frame > 7.5)
    half = ColumnTransformer([("half", StandardScaler(), list(frame.columns[:2]))])
    for steps, X in [
        ([SimpleImputer(), StandardScaler()], gaps),
        ([half], frame),
        ([FunctionTransformer(np.log1p), make_pipeline(StandardScaler())], frame),
        ([make_pipeline(FunctionTransformer(np.log1p))], frame),
        ([OrdinalEncoder()], frame),
    ]:
        pipeline = make_pipeline(*steps, Options(X.shape[1] if steps[0] is not half else 2)).fit(X)
        drawn = SampleDisplay.from_estimator(pipeline, X, random_state=0)
        np.testing.assert_array_equal(drawn.data, pipeline[:-1].transform(X))
        np.testing.assert_array_equal(drawn.samples[0], pipeline[-1].sample(150, random_state=0))
        last = steps[-1][-1] if isinstance(steps[-1], Pipeline) else steps[-1]
        assert drawn.figure_.get_suptitle() == f"Samples after {type(last).__name__}"
    drawn = SampleDisplay.from_estimator(pipeline, X, random_state=0, temperatures=(0, 1))
    assert drawn.title == "Samples at temperature t, after OrdinalEncoder"


def test_samples_behind_steps_with_an_inverse(frame):
    log = FunctionTransformer(np.log1p, inverse_func=np.expm1)
    pipeline = make_pipeline(log, make_pipeline(MinMaxScaler(), PCA(3)), Options(3)).fit(frame)
    drawn = SampleDisplay.from_estimator(pipeline, frame, n_samples=20, random_state=0)
    expected = pipeline[:-1].inverse_transform(pipeline[-1].sample(20, random_state=0))
    np.testing.assert_array_equal(drawn.samples[0], expected)
    assert drawn.title is None
    assert drawn.samples.shape == (1, 20, 4)


def test_samples_have_the_columns_of_the_data_frame(frame):
    columns = frame.iloc[:, 1:3]
    pipeline = make_pipeline(MinMaxScaler(), Options()).fit(columns)
    (ax,) = SampleDisplay.from_estimator(pipeline, columns).axes_
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("sepal width (cm)", "petal length (cm)")
    (ax,) = SampleDisplay.from_estimator(pipeline.fit(columns.to_numpy()), columns).axes_
    assert ax.get_xlabel() == "column 1"
    with pytest.raises(ValueError, match="column_names must hold one for each of 2 columns, got 1"):
        SampleDisplay(np.eye(2), column_names=["x"]).plot()


def test_images_behind_a_scaler():
    X = np.array([[-10.0], [30.0]]) * np.ones(8)
    pipeline = make_pipeline(MinMaxScaler(), Options(8, image_shape=(1, 2, 4))).fit(X)
    drawn = SampleDisplay.from_estimator(pipeline, X, n_samples=4, random_state=0)
    assert drawn.image_shape == (1, 2, 4)
    assert drawn.images_[0].get_clim() == (-10, 30)
    rows = pipeline[-1].sample(4, random_state=0)
    np.testing.assert_allclose(drawn.samples[0], 40 * rows - 10)


def test_an_atlas_in_a_pipeline_has_the_columns_of_the_data_frame(frame):
    pipeline = make_pipeline(StandardScaler(), small_atlas()).fit(frame)
    display = AtlasDisplay.from_estimator(pipeline, frame, components=(2, 0), shade=False)
    names = (display.ax_.get_xlabel(), display.ax_.get_ylabel())
    assert names == ("petal length (cm)", "sepal length (cm)")
    np.testing.assert_array_equal(display.points_.get_offsets(), frame.to_numpy()[:, [2, 0]])
    colors = display.chart_colors_[pipeline.predict(frame)]
    np.testing.assert_array_equal(display.points_.get_facecolors(), colors)
    display = AtlasDisplay.from_estimator(pipeline, frame, space="embedding")
    assert display.ax_.get_xlabel() == "component 1"
    np.testing.assert_array_equal(display.points, pipeline.transform(frame))
    rows = frame.to_numpy()
    display = AtlasDisplay.from_estimator(small_atlas().fit(frame), frame, components=(0, 1))
    assert display.ax_.get_ylabel() == "sepal width (cm)"
    model = small_atlas().fit(rows)
    display = AtlasDisplay.from_estimator(model, rows, components=(0, 1))
    assert display.ax_.get_ylabel() == "column 2"
    # Of more than three columns the first two principal components.
    display = AtlasDisplay.from_estimator(model, rows)
    expected = make_pipeline(StandardScaler(), PCA(2)).fit_transform(rows)
    np.testing.assert_allclose(display.points_.get_offsets(), expected)
    assert display.ax_.get_ylabel() == "principal component 2"


def test_an_atlas_behind_steps_without_an_inverse(frame):
    gaps = frame.mask(frame > 7.5)
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), small_atlas()).fit(gaps)
    display = AtlasDisplay.from_estimator(pipeline, gaps, components=(0, 1))
    assert display.ax_.get_xlabel() == "column 1 after StandardScaler"
    np.testing.assert_array_equal(display.points, pipeline[:-1].transform(gaps))


@pytest.mark.parametrize("name", list(DISPLAYS))
def test_pipelines_and_searches_that_are_not_fitted(name, frame):
    display = DISPLAYS[name][0]
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
    display = DISPLAYS[name][0]
    data = [] if display in WITHOUT_ROWS else [frame]
    for estimator in (PCA(2), make_pipeline(StandardScaler(), PCA(2))):
        with pytest.raises(ValueError, match=f"PCA has no {what}"):
            display.from_estimator(estimator.fit(frame), *data)
    assert not plt.get_fignums()


# Embeddings


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.mark.parametrize(
    "estimator",
    [PCA(3), Isomap(n_neighbors=60, n_components=2), make_pipeline(StandardScaler(), PCA(2))],
)
def test_embedding_of_any_transformer(estimator, iris):
    X, y = iris
    display = EmbeddingDisplay.from_estimator(estimator.fit(X), X, y)
    display.figure_.canvas.draw()
    np.testing.assert_array_equal(display.scatter_.get_offsets(), estimator.transform(X)[:, :2])
    ax = display.ax_
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("component 1", "component 2")


def test_embedding_has_a_colour_for_each_class(iris):
    X, y = iris
    names = np.array(["one", "two", "three"], dtype=object)[y]
    display = EmbeddingDisplay(X, names, y_name="kind").plot()
    colors = [tuple(color) for color in display.scatter_.get_facecolors()]
    pairs = dict(zip(names, colors, strict=True))
    assert colors == [pairs[name] for name in names]
    assert len(set(colors)) == 3
    legend = {
        text.get_text(): matplotlib.colors.to_rgba(handle.get_color())
        for text, handle in zip(
            display.legend_.get_texts(), display.legend_.legend_handles, strict=True
        )
    }
    assert legend == pairs
    assert display.legend_.get_title().get_text() == "kind"
    assert display.colorbar_ is None


def test_legend_is_beside_the_rows(iris):
    display = EmbeddingDisplay(*iris).plot()
    display.figure_.canvas.draw()
    legend, axes = display.legend_.get_window_extent(), display.ax_.get_window_extent()
    assert axes.x1 <= legend.x0
    assert legend.x1 <= display.figure_.bbox.x1
    # Nothing makes room beside axes without a layout engine.
    _, ax = plt.subplots()
    display.plot(ax=ax).figure_.canvas.draw()
    legend = display.legend_.get_window_extent()
    assert ax.get_window_extent().containsx(legend.x0)


@pytest.mark.parametrize(
    ("y", "is_class"),
    [
        (np.arange(30) % 10, True),
        (np.arange(30), False),
        (np.arange(30) % 2 == 0, True),
        (np.arange(30) % 2 / 2, False),
        (np.arange(30).astype(str), True),
    ],
)
def test_classes_and_quantities(y, is_class):
    X = np.random.RandomState(0).standard_normal((30, 2))
    display = EmbeddingDisplay(X, y, y_name="size").plot()
    assert (display.legend_ is not None) == is_class
    assert (display.colorbar_ is None) == is_class
    if is_class:
        assert len(display.legend_.get_texts()) == len(np.unique(y))
        assert len(np.unique(display.scatter_.get_facecolors(), axis=0)) == len(np.unique(y))
    else:
        np.testing.assert_array_equal(display.scatter_.get_array(), y)
        assert display.scatter_.get_cmap().name == "viridis"
        assert display.colorbar_.ax.get_ylabel() == "size"
    display.figure_.canvas.draw()


def test_chosen_components(iris):
    X, _ = iris
    display = EmbeddingDisplay(X, components=(3, 1)).plot()
    np.testing.assert_array_equal(display.scatter_.get_offsets(), X[:, [3, 1]])
    assert display.ax_.get_xlabel() == "component 4"
    assert display.legend_ is None
    assert display.colorbar_ is None


def test_one_component_is_counted(iris):
    X, y = iris
    display = EmbeddingDisplay(X, components=2).plot()
    (bars,) = display.bars_
    np.testing.assert_array_equal(
        [bar.get_height() for bar in bars], np.histogram(X[:, 2], bins=40)[0]
    )
    assert display.scatter_ is None
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("component 3", "rows")
    display = EmbeddingDisplay(X[:, :1], y).plot()
    counts = [sum(bar.get_height() for bar in bars) for bars in display.bars_]
    assert counts == [50, 50, 50]
    assert len(display.legend_.get_texts()) == 3


def test_one_component_against_a_quantity(iris):
    X, _ = iris
    display = EmbeddingDisplay(X, X[:, 3], components=(0,), y_name="width").plot()
    np.testing.assert_array_equal(display.scatter_.get_offsets(), X[:, [0, 3]])
    assert display.ax_.get_ylabel() == "width"
    assert display.bars_ is None


def test_name_of_a_series(iris):
    X, y = load_iris(return_X_y=True, as_frame=True)
    model = PCA(2).set_output(transform="pandas").fit(X)
    display = EmbeddingDisplay.from_estimator(model, X, y)
    assert display.legend_.get_title().get_text() == "target"
    assert type(display.embedding) is type(display.y) is np.ndarray


@pytest.mark.parametrize("components", [(0, 4), (0, 1, 2), (), -1, (0.5, 1), "01"])
def test_wrong_components(components, iris):
    with pytest.raises(ValueError, match=r"components must be .* between 0 and 3"):
        EmbeddingDisplay(iris[0], components=components).plot()


def test_wrong_arguments_of_an_embedding(iris):
    X, y = iris
    with pytest.raises(ValueError, match="inconsistent numbers"):
        EmbeddingDisplay(X, y[1:]).plot()
    with pytest.raises(ValueError, match="y contains NaN"):
        EmbeddingDisplay(X, np.where(y == 0, np.nan, y)).plot()
    with pytest.raises(ValueError, match=r"TSNE has no method transform.*fit_transform"):
        EmbeddingDisplay.from_estimator(TSNE(), X)
    assert not plt.get_fignums()


# Samples


class Options(BaseEstimator):
    """A latent draw stretched by both options."""

    def __init__(self, n_features=2, image_shape=None):
        self.n_features = n_features
        self.image_shape = image_shape

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def sample(self, n_samples=1, *, random_state=None, temperature=1.0, manifold_deviation=1.0):
        rng = np.random.RandomState(random_state)
        rows = rng.standard_normal((n_samples, self.n_features))
        return rows * (temperature + 10 * manifold_deviation)


def titles(display):
    return [ax.get_title() for ax in display.axes_]


def test_samples_lie_over_the_data(flow):
    X = np.random.RandomState(0).standard_normal((50, 3))
    display = SampleDisplay.from_estimator(flow, X, random_state=0)
    display.figure_.canvas.draw()
    expected = flow.sample(50, random_state=0)
    np.testing.assert_array_equal(display.samples, expected[None])
    assert len(display.axes_) == 1
    assert display.axes_[0].name == "3d"
    for points, rows in [(display.points_, expected), (display.data_points_, X)]:
        np.testing.assert_allclose(np.transpose(points[0]._offsets3d), rows)
    legend = [text.get_text() for text in display.figure_.legends[0].get_texts()]
    assert legend == ["data", "samples"]


@pytest.mark.parametrize(("option", "symbol"), [("temperature", "t"), ("manifold_deviation", "s")])
@pytest.mark.parametrize("random_state", [3, None])
def test_panels_share_the_latent_sample(option, symbol, random_state):
    display = SampleDisplay.from_estimator(
        Options(), random_state=random_state, **{f"{option}s": (0, 0.5, 2)}
    )
    display.figure_.canvas.draw()
    assert titles(display) == [f"{symbol} = 0", f"{symbol} = 0.5", f"{symbol} = 2"]
    assert option.replace("_", " ") in display.figure_.get_suptitle()
    drawn = [points.get_offsets() for points in display.points_]
    assert drawn[0].shape == (1000, 2)
    scale = [10, 10.5, 12] if symbol == "t" else [1, 6, 21]
    for points, factor in zip(drawn, scale, strict=True):
        np.testing.assert_allclose(points * scale[0], drawn[0] * factor)
    if random_state is not None:
        expected = Options().sample(1000, random_state=random_state, **{option: 0.5})
        np.testing.assert_array_equal(drawn[1], expected)
    boxes = [ax.get_position().size for ax in display.axes_]
    np.testing.assert_allclose(boxes, boxes[:1] * 3)
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in display.axes_}) == 1


def test_flow_has_the_options(flow):
    display = SampleDisplay.from_estimator(flow, manifold_deviations=(0, 1), random_state=0)
    np.testing.assert_array_equal(
        display.samples[0], flow.sample(1000, random_state=0, manifold_deviation=0)
    )


def test_more_panels_than_columns():
    display = SampleDisplay.from_estimator(Options(), temperatures=np.arange(6))
    display.figure_.canvas.draw()
    assert len(display.axes_) == 6
    assert len(display.figure_.axes) == 8


def test_samples_of_one_column():
    X = np.linspace(0, 1, 200)[:, None]
    model = KernelDensity(bandwidth=0.1).fit(X)
    display = SampleDisplay.from_estimator(model, X, random_state=0)
    display.figure_.canvas.draw()
    assert display.axes_[0].get_ylabel() == "density"
    assert len(display.points_) == len(display.data_points_) == 1


@pytest.mark.parametrize("with_data", [True, False])
def test_many_columns_are_projected(with_data):
    X = np.random.RandomState(0).standard_normal((200, 5)) * [1, 2, 3, 4, 5] + 7
    X[:, 1] += X[:, 0]
    data = X if with_data else None
    display = SampleDisplay.from_estimator(Options(5), data, random_state=0)
    reference = X if with_data else Options(5).sample(1000, random_state=0)
    model = make_pipeline(StandardScaler(), PCA(2)).fit(reference)
    expected = model.transform(Options(5).sample(200 if with_data else 1000, random_state=0))
    np.testing.assert_allclose(display.points_[0].get_offsets(), expected)
    assert display.axes_[0].get_xlabel() == "principal component 1"
    if with_data:
        np.testing.assert_allclose(display.data_points_[0].get_offsets(), model.transform(X))


def test_stray_samples_do_not_shrink_the_rest():
    X = np.random.RandomState(0).uniform(size=(2000, 2))
    samples = np.vstack([X[:999], [[1e6, 1e6]]])
    display = SampleDisplay(samples, data=X).plot()
    assert len(display.data_points_[0].get_offsets()) == 1000
    (ax,) = display.axes_
    for low, high in (ax.get_xlim(), ax.get_ylim()):
        assert -0.2 < low < 0
        assert 1 < high < 1.2


@pytest.mark.parametrize("channels", [1, 3])
def test_images(channels):
    shape = (channels, 2, 4)
    model = Options(8 * channels, image_shape=shape)
    X = np.array([[-10.0], [30.0]]) * np.ones(8 * channels)
    display = SampleDisplay.from_estimator(model, X, n_samples=10, random_state=0)
    display.figure_.canvas.draw()
    (image,) = display.images_
    picture = np.asarray(image.get_array())
    assert picture.shape[:2] == (2 * 3 + 1, 8 * 5 + 1)
    rows = model.sample(10, random_state=0).reshape(10, *shape)
    if channels == 1:
        assert image.get_clim() == (-10, 30)
        assert image.get_cmap().name == "gray"
        expected = rows[:, 0]
    else:
        expected = np.clip((rows.transpose(0, 2, 3, 1) + 10) / 40, 0, 1)
    np.testing.assert_allclose(picture[1:3, 11:15], expected[2])
    np.testing.assert_allclose(picture[4:6, 1:5], expected[8])
    # The gaps are white.
    assert np.all(picture[0] == (30 if channels == 1 else 1))


def test_mosaic_lays_images_out_row_by_row():
    images = np.arange(1, 31).reshape(5, 6)
    canvas = mosaic(images, (2, 3), 2, background=0)
    assert canvas.shape == (1 + 3 * 3, 1 + 2 * 4)
    np.testing.assert_array_equal(canvas[1:3, 5:8], images[1].reshape(2, 3))
    np.testing.assert_array_equal(canvas[7:9, 1:4], images[4].reshape(2, 3))
    assert canvas.sum() == images.sum()


def test_strips_of_images():
    model = Options(8)
    display = SampleDisplay.from_estimator(
        model, image_shape=(1, 2, 4), temperatures=(0, 2), random_state=0
    )
    display.figure_.canvas.draw()
    assert [ax.get_ylabel() for ax in display.axes_] == ["t = 0", "t = 2"]
    pictures = [np.asarray(image.get_array()) for image in display.images_]
    assert [picture.shape for picture in pictures] == [(4, 51), (4, 51)]
    for t, picture in zip((0, 2), pictures, strict=True):
        rows = model.sample(10, random_state=0, temperature=t).reshape(10, 2, 4)
        np.testing.assert_array_equal(picture[1:3, 46:50], rows[9])
    limits = [image.get_clim() for image in display.images_]
    expected = tuple(np.percentile(display.samples, [1, 99]))
    assert limits == [expected, expected]


def test_figure_can_be_given():
    figure = plt.figure(layout="constrained")
    left, right = figure.subfigures(1, 2)
    SampleDisplay.from_estimator(Options(), np.eye(2), figure=left)
    display = SampleDisplay.from_estimator(Options(4, (1, 2, 2)), figure=right)
    assert display.figure_ is right
    figure.canvas.draw()
    assert plt.get_fignums() == [figure.number]


def test_panels_of_any_models():
    display = SampleDisplay([np.eye(2), 2 * np.eye(2)], labels=["one", "two"]).plot()
    assert titles(display) == ["one", "two"]
    assert not display.figure_.legends


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperatures": [1], "manifold_deviations": [1]}, "cannot both be given"),
        ({"temperatures": []}, "temperatures must hold at least one value"),
        ({"X": np.eye(3)}, "data has 3 columns, but samples have 2"),
        ({"image_shape": (1, 2, 2)}, r"C \* H \* W = 2, .* got \(1, 2, 2\)"),
        ({"image_shape": (2, 1, 1)}, "with C = 1 or 3"),
        ({"image_shape": (1, 2)}, r"must be \(C, H, W\)"),
    ],
)
def test_wrong_arguments_of_samples(options, message):
    with pytest.raises(ValueError, match=message):
        SampleDisplay.from_estimator(Options(), **options)
    assert not plt.get_fignums()


def test_models_and_labels_that_cannot_be_shown():
    with pytest.raises(ValueError, match="PCA has no method sample"):
        SampleDisplay.from_estimator(PCA(), np.eye(2))
    with pytest.raises(ValueError, match="each of the 1 panels"):
        SampleDisplay(np.eye(2), labels=["a", "b"]).plot()


# Loss curves


def test_loss_curve(flow):
    display = LossCurveDisplay.from_estimator(flow)
    loss, score = display.lines_
    np.testing.assert_array_equal(loss.get_ydata(), flow.loss_curve_)
    np.testing.assert_array_equal(score.get_ydata(), -np.array(flow.validation_scores_))
    assert display.ax_.get_ylabel() == "loss, nats per standardised row"
    display.figure_.canvas.draw()


def test_best_epoch():
    _, ax = plt.subplots()
    display = LossCurveDisplay([5, 4, 3, 2], [-5, -3, np.nan, -4]).plot(ax=ax)
    assert display.ax_ is ax
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(display.best_.get_xydata(), [[2, 3]])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["training rows", "validation rows", "best epoch: 2"]


@pytest.mark.parametrize("scores", [None, []])
def test_without_validation(scores):
    display = LossCurveDisplay([5.0, 4.0], scores).plot()
    assert len(display.lines_) == 1
    assert display.best_ is None


@pytest.mark.parametrize("n_epochs", [3, 5, 80])
def test_a_far_loss_does_not_squash_the_rest(n_epochs):
    losses = np.append(1e3, np.linspace(3, 1, n_epochs - 1))
    display = LossCurveDisplay(losses, -losses).plot()
    low, high = display.ax_.get_ylim()
    assert low < 1
    assert 3 < high < 10


def test_ordinary_losses_are_all_shown():
    losses = 5 * np.exp(-np.arange(20) / 8)
    low, high = LossCurveDisplay(losses).plot().ax_.get_ylim()
    assert low < losses[-1]
    assert losses[0] < high


@pytest.mark.parametrize("losses", [[2.0], [2.0, 2.0], [np.inf, 3.0], [np.nan]])
def test_curves_without_a_range(losses):
    LossCurveDisplay(losses, losses).plot().figure_.canvas.draw()


def test_curves_of_all_stages(rows):
    flow = JointManifoldFlow(
        2, stage_components=(2, 1), n_layers=1, hidden_layer_sizes=(4,), max_iter=4, random_state=0
    ).fit(rows)
    assert flow.stage_loss_curves_[0] == flow.loss_curve_
    assert flow.stage_validation_scores_[0] == flow.validation_scores_
    display = LossCurveDisplay.from_estimator(flow)
    curves = [np.transpose(line.get_data()) for line in display.lines_]
    drawn = list(zip(curves[::2], curves[1::2], strict=True))
    assert [len(loss) for loss, _ in drawn] == [4, 2, 2]
    first = 1
    for k, ((loss, validation), losses, scores) in enumerate(
        zip(drawn, flow.stage_loss_curves_, flow.stage_validation_scores_, strict=True)
    ):
        np.testing.assert_array_equal(loss[:, 0], np.arange(first, first + len(losses)))
        np.testing.assert_array_equal(loss[:, 1], losses)
        np.testing.assert_array_equal(validation[:, 1], -np.array(scores))
        best = display.best_.get_xydata()[k]
        np.testing.assert_array_equal(best, [first + np.argmax(scores), -max(scores)])
        first += len(losses)
    assert [line.get_xdata()[0] for line in display.stage_ends_] == [4.5, 6.5]
    display.figure_.canvas.draw()


def test_wrong_curves():
    with pytest.raises(ValueError, match="loss_curve must hold one loss for each epoch"):
        LossCurveDisplay([]).plot()
    with pytest.raises(ValueError, match="each of the 2 epochs"):
        LossCurveDisplay([1, 2], [1, 2, 3]).plot()


# Atlases


@pytest.fixture(scope="module")
def atlas():
    X, _ = LinkedCircles(noise=0.05).sample(300, random_state=0)
    model = ChartAtlasFlow(
        n_charts=12, n_layers=1, hidden_layer_sizes=(4,), max_iter=1, random_state=0
    )
    return model.fit(X), X


def colors_of(probabilities, **options):
    """Return the colours of rows and those of charts."""
    points = np.random.RandomState(0).standard_normal((len(probabilities), 2))
    display = AtlasDisplay(points, probabilities, **options).plot()
    return display.points_.get_facecolors(), display.chart_colors_


def test_atlas_of_the_data(atlas):
    model, X = atlas
    display = AtlasDisplay.from_estimator(model, X, shade=False)
    display.figure_.canvas.draw()
    assert display.ax_.name == "3d"
    assert display.entries_ is display.legend_ is None
    np.testing.assert_allclose(np.transpose(display.points_._offsets3d), X)
    np.testing.assert_array_equal(display.probabilities.argmax(axis=1), model.predict(X))
    display = AtlasDisplay.from_estimator(model, X, shade=False, components=(2, 0))
    np.testing.assert_array_equal(display.points_.get_offsets(), X[:, [2, 0]])
    colors = display.chart_colors_[model.predict(X)]
    np.testing.assert_array_equal(display.points_.get_facecolors(), colors)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("column 3", "column 1")


def test_atlas_in_the_embedding(atlas):
    model, X = atlas
    _, ax = plt.subplots()
    display = AtlasDisplay.from_estimator(model, X, space="embedding", ax=ax)
    assert display.ax_ is ax
    np.testing.assert_array_equal(display.points_.get_offsets(), model.transform(X)[:, :2])
    np.testing.assert_array_equal(display.entries_.get_offsets(), model.codebook_[:, :2])
    np.testing.assert_array_equal(display.entries_.get_facecolors(), display.chart_colors_)
    assert ax.get_xlabel() == "component 1"
    of_data = AtlasDisplay.from_estimator(model, X)
    np.testing.assert_array_equal(of_data.chart_colors_, display.chart_colors_)


def test_charts_side_by_side_differ_in_colour():
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    centers = np.column_stack([np.cos(angle), np.sin(angle)])[
        np.random.RandomState(0).permutation(40)
    ]
    colors = AtlasDisplay(centers, np.eye(40)).plot().chart_colors_
    distances = np.linalg.norm(centers[:, None] - centers, axis=2)
    for k, nearest in enumerate(distances.argsort(axis=1)[:, 1:3]):
        assert np.abs(colors[nearest] - colors[k]).max(axis=1).min() > 0.3


def test_as_many_colours_as_can_be():
    colors = AtlasDisplay(np.random.RandomState(0).standard_normal((8, 2)), np.eye(8)).plot()
    assert len(np.unique(colors.chart_colors_, axis=0)) == 8
    labels = [text.get_text() for text in colors.legend_.get_texts()]
    assert labels == [str(k) for k in range(8)]


def test_rows_between_charts_fade():
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [0.0, 1.0]])
    rows, charts = colors_of(probabilities)
    np.testing.assert_allclose(rows[[0, 3]], charts)
    np.testing.assert_allclose(rows[1], [0.9, 0.9, 0.9, 1.0])
    np.testing.assert_allclose(rows[2, :3], 0.4 * 0.9 + 0.6 * charts[1, :3])
    rows, charts = colors_of(probabilities, shade=False, colors=["red", "blue"])
    np.testing.assert_array_equal(rows, charts[[0, 0, 1, 1]])
    # A single chart is certain.
    rows, charts = colors_of(np.ones((3, 1)))
    np.testing.assert_array_equal(rows, charts[[0, 0, 0]])


def test_a_single_column_is_set_against_certainty():
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7]])
    display = AtlasDisplay([[1.0], [2.0]], probabilities, entries=[[1.0], [2.0]]).plot()
    np.testing.assert_array_equal(display.points_.get_offsets(), [[1.0, 0.9], [2.0, 0.7]])
    assert display.entries_ is None
    assert display.ax_.get_ylabel() == "probability of the chart"


def test_one_partition_of_several():
    X = np.random.RandomState(0).standard_normal((400, 2))
    model = ChartAtlasFlow(n_layers=1, hidden_layer_sizes=(4,), max_iter=1, random_state=0).fit(X)
    slices = model._flow.slices
    assert len(slices) > 1
    for partition, own in enumerate(slices):
        display = AtlasDisplay.from_estimator(model, X, partition=partition, space="embedding")
        probabilities = model.predict_proba(X)[:, own]
        expected = probabilities / probabilities.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(display.probabilities, expected)
        np.testing.assert_array_equal(display.entries, model.codebook_[own])
    heaviest = max(slices, key=lambda own: model.chart_weights_[own].sum())
    display = AtlasDisplay.from_estimator(model, X, space="embedding")
    np.testing.assert_array_equal(display.entries, model.codebook_[heaviest])
    # All probability of this row may be with another partition.
    display = AtlasDisplay.from_estimator(model, [[1e6, 1e6]], partition=0)
    np.testing.assert_allclose(display.probabilities.sum(), 1)
    with pytest.raises(ValueError, match=f"partition must be .* {len(slices) - 1}, got 9"):
        AtlasDisplay.from_estimator(model, X, partition=9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 3}, "components must be .* between 0 and 2"),
        ({"components": (0, 1, 2, 0)}, "one to three integers"),
        ({"entries": np.eye(3)}, r"entries must have the shape \(4, 3\)"),
        ({"colors": ["red"]}, "each of 4 charts, got 1"),
        ({"column_names": ["x", "y"]}, "each of 3 columns, got 2"),
        ({"probabilities": np.eye(5)}, "inconsistent numbers"),
    ],
)
def test_wrong_arguments_of_an_atlas(options, message):
    arguments = {"points": np.ones((4, 3)), "probabilities": np.eye(4)} | options
    with pytest.raises(ValueError, match=message):
        AtlasDisplay(**arguments).plot()
    assert not plt.get_fignums()


def test_atlases_that_cannot_be_drawn(atlas, flow):
    model, X = atlas
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="3 columns cannot be drawn on axes of 2 dimensions"):
        AtlasDisplay.from_estimator(model, X, components=(0, 1, 2), ax=ax)
    with pytest.raises(ValueError, match="space must be 'data' or 'embedding', got 'codes'"):
        AtlasDisplay.from_estimator(model, X, space="codes")
    with pytest.raises(ValueError, match="ManifoldPriorFlow has no charts"):
        AtlasDisplay.from_estimator(flow, X)


# Explanations


def test_shares_of_columns(frame):
    detector = NoveltyDetector(GaussianMixture(3, random_state=0), cv=2, random_state=0)
    odd = frame.iloc[:3] + np.array([0, 0, 5, 0])
    display = ExplanationDisplay.from_estimator(detector.fit(frame), odd)
    np.testing.assert_allclose(display.shares, detector.explain(odd))
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == list(frame.columns)
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == [str(i) for i in odd.index]
    np.testing.assert_allclose(display.image_.get_array(), display.shares)
    pipeline = make_pipeline(StandardScaler(), clone(detector)).fit(frame)
    display = ExplanationDisplay.from_estimator(pipeline, odd)
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == list(frame.columns)
    assert (display.shares.argmax(axis=1) == 2).all()


def test_infinite_shares_are_drawn_beyond_the_others():
    display = ExplanationDisplay([[1.0, np.inf], [10.0, -2.0]]).plot()
    np.testing.assert_allclose(display.image_.get_array(), [[1, 12], [10, -2]])
    assert display.image_.get_clim() == (0, 12)


def test_negative_shares_have_the_colour_of_zero():
    image = ExplanationDisplay([[-1.0, -3.0], [-10.0, -2.0]]).plot().image_
    colours = image.to_rgba(image.get_array())
    np.testing.assert_array_equal(colours, np.broadcast_to(image.cmap(0.0), (2, 2, 4)))


def test_bad_explanations(frame, flow):
    with pytest.raises(ValueError, match="ManifoldPriorFlow has no method explain"):
        ExplanationDisplay.from_estimator(flow, frame)
    with pytest.raises(ValueError, match="feature_names must hold 2 names, got 1"):
        ExplanationDisplay([[1.0, 2.0]], ["a"]).plot()
    with pytest.raises(NotFittedError):
        ExplanationDisplay.from_estimator(NoveltyDetector(), frame)
