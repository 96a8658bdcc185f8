"""Samples over the data, as images, at temperatures, and behind other steps."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OrdinalEncoder, StandardScaler

from skmanifoldflow.plotting import (
    SampleDisplay,
)
from skmanifoldflow.plotting._rows import mosaic


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
