"""Walks: straight ones, along a coordinate, and along the density."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow.plotting import WalkDisplay
from skmanifoldflow.plotting._paths import dense_path, evenly


def ring(points):
    """Log-density on a circle of radius 1."""
    return -0.5 * ((np.linalg.norm(points, axis=1) - 1) / 0.1) ** 2


class Ring(BaseEstimator):
    """The plane as it is, with rows on a circle."""

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def transform(self, X):
        return np.asarray(X)

    inverse_transform = transform

    def score_samples(self, X):
        return ring(X)


@pytest.fixture(scope="module")
def circle():
    rng = np.random.RandomState(0)
    angle = np.append([0.0, np.pi], rng.uniform(0, 2 * np.pi, 400))
    radius = np.append([1.0, 1.0], 1 + 0.1 * rng.standard_normal(400))
    return radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])


def test_a_path_keeps_to_the_density(circle):
    path = dense_path(ring, circle, circle[0], circle[1], 50)
    np.testing.assert_array_equal(path[[0, -1]], circle[:2])
    assert np.abs(np.linalg.norm(path, axis=1) - 1).max() < 0.15
    # Half of the circle, in steps of equal length.
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.sum() == pytest.approx(np.pi, rel=0.05)
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.1)


def test_a_path_of_constant_density_is_straight():
    places = np.random.RandomState(0).uniform(size=(600, 2))
    path = dense_path(lambda rows: np.zeros(len(rows)), places, [0.1, 0.5], [0.9, 0.5], 30)
    assert np.abs(path[:, 1] - 0.5).max() < 0.08
    assert (np.diff(path[:, 0]) > 0).all()


def test_a_path_between_parts_that_lie_apart():
    rng = np.random.RandomState(0)
    places = np.vstack([rng.normal(0, 0.1, (50, 2)), rng.normal(5, 0.1, (50, 2))])
    path = dense_path(
        lambda rows: -((rows - 2.5) ** 2).sum(axis=1), places, places[0], places[-1], 9
    )
    np.testing.assert_array_equal(path[[0, -1]], places[[0, -1]])
    assert np.isfinite(path).all()


def test_a_path_from_a_row_to_itself_and_among_two():
    path = dense_path(ring, np.eye(2), np.array([1.0, 0]), np.array([1.0, 0]), 4)
    np.testing.assert_array_equal(path, np.tile([1.0, 0.0], (4, 1)))
    path = dense_path(ring, np.eye(2), np.array([1.0, 0]), np.array([0.0, 1]), 3)
    np.testing.assert_allclose(path, [[1, 0], [0.5, 0.5], [0, 1]], atol=1e-6)


def test_even_steps():
    corner = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    np.testing.assert_allclose(evenly(corner, 5), [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]])


def test_walks_between_two_rows(circle):
    display = WalkDisplay.from_estimator(Ring(), circle, ends=(0, 1), n_steps=41)
    straight, dense = display.walks
    t = np.linspace(0, 1, 41)[:, None]
    np.testing.assert_allclose(straight, circle[0] + t * (circle[1] - circle[0]))
    assert np.linalg.norm(dense, axis=1).min() > 0.8
    assert display.log_density[1].min() > display.log_density[0].min()
    np.testing.assert_allclose(display.log_density[0], ring(straight))
    np.testing.assert_allclose(display.lines_[1].get_xydata(), dense)
    labels = [text.get_text() for text in display.axes_[-1].get_legend().get_texts()]
    assert labels == ["straight", "along the density"]
    display.figure_.draw_without_rendering()


def test_walk_along_a_component():
    X = load_wine(as_frame=True).data
    pipeline = make_pipeline(StandardScaler(), PCA(3)).fit(X)
    display = WalkDisplay.from_estimator(pipeline, X, component=1, n_steps=7)
    Z = pipeline.transform(X)
    low, high = np.quantile(Z[:, 1], [0.01, 0.99])
    walk = np.tile(np.median(Z, axis=0), (7, 1))
    walk[:, 1] = np.linspace(low, high, 7)
    np.testing.assert_allclose(display.walks[0], pipeline.inverse_transform(walk))
    np.testing.assert_allclose(display.position, (low, high))
    # The six columns that change most, in standard deviations.
    change = np.ptp((display.walks[0] - X.to_numpy().mean(0)) / X.to_numpy().std(0), axis=0)
    most = [X.columns[k] for k in np.argsort(-change)[:6]]
    assert [line.get_label() for line in display.lines_] == most
    np.testing.assert_allclose(np.ptp(display.lines_[0].get_ydata()), change.max())
    assert display.axes_[-1].get_xlabel() == "component 2"


def test_walks_of_images():
    X, _ = load_digits(return_X_y=True)
    pca = PCA(5, random_state=0).fit(X)
    display = WalkDisplay.from_estimator(pca, X, ends=(0, -1), n_steps=4, image_shape=(1, 8, 8))
    assert len(display.images_) == 2
    for image in display.images_:
        picture = np.asarray(image.get_array())
        assert picture.shape == (10, 37)
        for row, left in ((0, 1), (-1, 28)):
            rebuilt = pca.inverse_transform(pca.transform(X[[row]])).reshape(8, 8)
            np.testing.assert_allclose(picture[1:9, left : left + 8], rebuilt)
    # Densities are drawn between images too.
    assert display.log_density.shape == (2, 31)
    expected = pca.score_samples(display.walks[0])
    np.testing.assert_allclose(display.log_density[0, ::10], expected)


@pytest.mark.parametrize("n_features", [1, 2, 3, 5])
def test_walks_alone(n_features):
    walks = np.random.RandomState(0).standard_normal((2, 6, n_features))
    display = WalkDisplay(walks).plot()
    display.figure_.draw_without_rendering()
    assert not display.density_lines_
    assert len(display.lines_) == 2 * (n_features if n_features > 3 else 1)


def test_wrong_walks(circle):
    pca = PCA(2).fit(circle)
    for options, message in [
        ({"component": 2}, "component must be an integer between 0 and 1"),
        ({"ends": (0, 402)}, "ends must be positions of two of the 402 rows"),
        ({"ends": 1}, "ends must be positions of two"),
        ({"n_steps": 1}, "n_steps must be an integer >= 2"),
        ({"image_shape": (1, 3, 1)}, r"C \* H \* W = 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            WalkDisplay.from_estimator(pca, circle, **options)
    with pytest.raises(ValueError, match="BaseEstimator has no method transform"):
        WalkDisplay.from_estimator(BaseEstimator(), circle)
    with pytest.raises(ValueError, match=r"shape \(n_walks, n_steps, n_features\)"):
        WalkDisplay(np.eye(2)).plot()
    with pytest.raises(ValueError, match="a row for each of 1 walks"):
        WalkDisplay([np.eye(2)], [[1.0], [2.0]]).plot()
    with pytest.raises(ValueError, match="data has 3 columns, but walks have 2"):
        WalkDisplay([np.eye(2)], data=np.eye(3)).plot()
    assert not plt.get_fignums()
