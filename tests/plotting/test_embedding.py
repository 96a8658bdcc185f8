"""Rows in the coordinates that a model gives them."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, Isomap
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow.plotting import (
    EmbeddingDisplay,
)


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
