"""What an embedding shows beside its rows: a density, decoded rows, a guide."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.manifold import Isomap
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow.plotting import EmbeddingDisplay


class Plane(BaseEstimator):
    """Two of three columns as coordinates, standard normal; the third column is their sum."""

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def transform(self, X):
        return np.asarray(X)[:, :2]

    def inverse_transform(self, Z):
        return np.column_stack([Z, Z.sum(axis=1)])

    def score_samples(self, X):
        return norm.logpdf(np.asarray(X)[:, :2]).sum(axis=1)


@pytest.fixture(scope="module")
def plane_rows():
    return Plane().inverse_transform(np.random.RandomState(0).standard_normal((400, 2)))


def test_density_as_shade(plane_rows):
    display = EmbeddingDisplay.from_estimator(Plane(), plane_rows, density=True)
    left, right, bottom, top = display.extent
    n = len(display.log_density)
    x, y = (
        low + (high - low) * (np.arange(n) + 0.5) / n
        for low, high in ((left, right), (bottom, top))
    )
    expected = norm.logpdf(x) + norm.logpdf(y)[:, None]
    np.testing.assert_allclose(display.log_density, expected)
    assert display.shade_colorbar_.ax.get_xlabel() == "log-density in nats"
    # Less dense places than 95 % of the rows' are white.
    low, high = display.shade_.get_clim()
    at_rows = norm.logpdf(plane_rows[:, :2]).sum(axis=1)
    assert (at_rows < low).mean() == pytest.approx(0.05, abs=0.005)
    assert high == expected.max()
    hidden = np.ma.getmaskarray(display.shade_.get_array()).ravel()
    np.testing.assert_array_equal(hidden, expected.ravel() < low)
    # One scale for both, and all of the plane is seen.
    assert display.ax_.get_aspect() == 1
    np.testing.assert_allclose([*display.ax_.get_xlim(), *display.ax_.get_ylim()], display.extent)


def test_decoded_columns(plane_rows):
    display = EmbeddingDisplay.from_estimator(Plane(), plane_rows, grid=4)
    left, right, bottom, top = display.extent
    # The cell in the third row from below and the second column.
    z = np.array([[left + (right - left) * 1.5 / 4, bottom + (top - bottom) * 2.5 / 4]])
    row = (Plane().inverse_transform(z)[0] - plane_rows.mean(axis=0)) / plane_rows.std(axis=0)
    np.testing.assert_allclose(display.decoded[2, 1], row)
    bars = display.profiles_.get_paths()
    assert len(bars) == 4 * 4 * 3
    middle = bottom + (top - bottom) * 2.5 / 4
    heights = [bars[(2 * 4 + 1) * 3 + k].vertices[2, 1] - middle for k in range(3)]
    assert heights[0] * row[1] == pytest.approx(heights[1] * row[0])
    near = display.is_near
    dense = norm.logpdf(plane_rows[:, :2]).sum(axis=1)
    assert near[2, 1] == (Plane().score_samples(z)[0] > np.quantile(dense, 0.05))
    assert not near[0, 0]
    display.figure_.draw_without_rendering()


def test_decoded_images():
    X, y = load_digits(return_X_y=True)
    pca = PCA(3, random_state=0).fit(X)
    display = EmbeddingDisplay.from_estimator(
        pca, X, y, components=(2, 0), grid=5, density=True, image_shape=(1, 8, 8)
    )
    (image,) = display.images_
    picture = np.asarray(image.get_array())
    assert picture.shape == (40, 40)
    Z = pca.transform(X)
    left, right, bottom, top = display.extent
    # Above and left: the other component is at its median.
    z = [[top - (top - bottom) / 10, np.median(Z[:, 1]), left + (right - left) / 10]]
    expected = np.clip(pca.inverse_transform(z), 0, 16).reshape(8, 8)
    np.testing.assert_allclose(picture[:8, :8], expected)
    assert image.get_extent() == pytest.approx(display.extent)
    np.testing.assert_allclose(
        display.log_density[-8, 7],
        pca.score_samples(
            pca.inverse_transform(
                [[top - (top - bottom) * 7.5 / 80, z[0][1], left + (right - left) * 7.5 / 80]]
            )
        )[0],
    )
    assert len(display.axes_) == 2
    assert display.ax_ is display.axes_[0]


def test_a_guide_lies_as_the_embedding_does():
    Z = np.random.RandomState(0).standard_normal((60, 2)) * [3, 1]
    angle = 1.1
    turn = np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]])
    display = EmbeddingDisplay(Z, guide=5 * Z @ turn + [7, -3]).plot()
    np.testing.assert_allclose(display.guide_.get_offsets(), Z - Z.mean(axis=0), atol=1e-9)
    assert [ax.get_title() for ax in display.axes_] == ["model", "guide"]


def test_guides_of_all_kinds():
    X = load_wine(as_frame=True).data
    flow = JointManifoldFlow(
        2,
        guide="isomap",
        n_layers=1,
        hidden_layer_sizes=(4,),
        max_iter=1,
        discrete_features=None,
        random_state=0,
    )
    pipeline = make_pipeline(StandardScaler(), flow).fit(X)
    display = EmbeddingDisplay.from_estimator(pipeline, X, guide=True)
    rows = StandardScaler().fit_transform(X)
    expected = Isomap(n_neighbors=10).fit_transform(StandardScaler().fit_transform(rows))
    np.testing.assert_allclose(np.abs(display.guide), np.abs(expected), atol=1e-6)
    display = EmbeddingDisplay.from_estimator(pipeline, X, guide=PCA(2))
    np.testing.assert_allclose(np.abs(display.guide), np.abs(PCA(2).fit_transform(rows)), atol=1e-6)
    given = np.random.RandomState(0).standard_normal((len(X), 2))
    display = EmbeddingDisplay.from_estimator(pipeline, X, guide=given, grid=3, density=True)
    np.testing.assert_array_equal(display.guide, given)
    assert len(display.axes_) == 3
    display.figure_.draw_without_rendering()


def test_axes_for_each_picture(plane_rows):
    figure, axes = plt.subplots(1, 2)
    display = EmbeddingDisplay.from_estimator(Plane(), plane_rows, grid=3, ax=axes)
    assert list(display.axes_) == list(axes)
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(ValueError, match="ax must hold axes for each of 2 pictures, got 1"):
        EmbeddingDisplay.from_estimator(Plane(), plane_rows, grid=3, ax=axes[0])


def test_coordinates_have_one_scale():
    Z = np.random.RandomState(0).standard_normal((50, 2)) * [4, 1]
    assert EmbeddingDisplay(Z).plot().ax_.get_aspect() == 1
    # Next to nothing would be seen of a thin line.
    assert EmbeddingDisplay(Z * [10, 1]).plot().ax_.get_aspect() == "auto"
    assert EmbeddingDisplay(Z[:, :1], Z[:, 1]).plot().ax_.get_aspect() == "auto"
    _, axes = plt.subplots(1, 2, sharex=True, sharey=True)
    for ax in axes:
        EmbeddingDisplay(Z).plot(ax=ax)
    axes[0].figure.draw_without_rendering()


def test_views_that_cannot_be_drawn(plane_rows):
    for options, message in [
        ({"density": True, "components": 0}, "need two components"),
        ({"grid": 0}, "grid must be a positive integer, got 0"),
        ({"guide": True}, "Plane has no guide that can be fitted again"),
        ({"guide": np.ones((3, 2))}, "inconsistent numbers"),
        ({"guide": np.ones((400, 3))}, "must both have two columns"),
    ]:
        with pytest.raises(ValueError, match=message):
            EmbeddingDisplay.from_estimator(Plane(), plane_rows, **options)
    isomap = Isomap().fit(plane_rows)
    with pytest.raises(ValueError, match="Isomap has no method inverse_transform"):
        EmbeddingDisplay.from_estimator(isomap, plane_rows, grid=3)
    for options, message in [
        ({"decoded": np.ones((2, 3, 1))}, r"decoded must have the shape \(k, k, n_features\)"),
        (
            {"decoded": np.ones((2, 2, 1)), "is_near": [True]},
            r"is_near must have the shape \(2, 2\)",
        ),
        ({"log_density": [1.0]}, "log_density must be numbers on a grid"),
    ]:
        with pytest.raises(ValueError, match=message):
            EmbeddingDisplay(plane_rows, **options).plot()
