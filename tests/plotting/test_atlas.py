"""Charts as colours, and what lies between them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import (
    ChartAtlasFlow,
)
from skmanifoldflow.datasets import LinkedCircles
from skmanifoldflow.plotting import (
    AtlasDisplay,
)


def small_atlas():
    return ChartAtlasFlow(
        n_charts=3, n_layers=1, hidden_layer_sizes=(4,), max_iter=1, random_state=0
    )


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
