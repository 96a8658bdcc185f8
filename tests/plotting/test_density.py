"""Regions of a density, against exact masses and marginals."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler

from skmanifoldflow import NoisyInjectiveFlow, NoveltyDetector
from skmanifoldflow.plotting import DensityDisplay
from skmanifoldflow.plotting._density import _mass_levels
from skmanifoldflow.plotting._places import at_places, grid, plane, robust_range

SHARES = (0.25, 0.5, 0.75, 0.95)


def sheared(n=2000, seed=0):
    """Normal rows of known covariance."""
    mix = np.array([[1.0, 0.0, 0.0, 0.0], [1.5, 1.0, 0.0, 0.0], [0, 1, 1, 0], [0, 0, 0, 0.1]])
    return np.random.RandomState(seed).standard_normal((n, 4)) @ mix.T, mix @ mix.T


def test_levels_of_a_normal_distribution():
    # A region with the share s is r^2 <= -2 log(1 - s), on whose border log p is
    # -log 2 pi + log(1 - s).
    x = np.linspace(-6, 6, 601)
    log_density = -0.5 * (x[:, None] ** 2 + x**2) - np.log(2 * np.pi)
    expected = -np.log(2 * np.pi) + np.log1p(-np.array(SHARES))
    np.testing.assert_allclose(_mass_levels(log_density, SHARES), expected, atol=0.01)
    display = DensityDisplay(log_density, x, x).plot()
    np.testing.assert_allclose(display.contours_.levels[:4], expected[::-1], atol=0.01)
    assert display.contours_.levels[4] >= log_density.max()


def test_two_columns_are_exact_in_the_units_of_the_rows():
    X = np.random.RandomState(0).standard_normal((500, 2)) * [3.0, 0.02] + [7.0, -1.0]
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(1)).fit(X)
    display = DensityDisplay.from_estimator(pipeline, X)
    exact = multivariate_normal(X.mean(axis=0), np.cov(X.T, bias=True))
    points = np.stack(np.meshgrid(display.x, display.y), axis=-1)
    np.testing.assert_allclose(display.log_density, exact.logpdf(points), atol=1e-3)
    np.testing.assert_array_equal(display.scatter_.get_offsets(), X)
    swapped = DensityDisplay.from_estimator(pipeline, X, columns=(1, 0))
    np.testing.assert_allclose(swapped.log_density, display.log_density.T)
    np.testing.assert_array_equal(swapped.scatter_.get_offsets(), X[:, ::-1])


def test_the_jacobian_of_a_curved_step():
    X = np.exp(np.random.RandomState(0).standard_normal((800, 2)))
    log = FunctionTransformer(np.log, inverse_func=np.exp)
    display = DensityDisplay.from_estimator(make_pipeline(log, GaussianMixture(1)).fit(X), X)
    x, y = np.meshgrid(display.x, display.y)
    inside = (x > 0.05) & (y > 0.05)
    z = np.log(np.stack([x[inside], y[inside]], axis=-1))
    exact = multivariate_normal(np.log(X).mean(axis=0), np.cov(np.log(X).T, bias=True))
    expected = exact.logpdf(z) - z.sum(axis=1)
    np.testing.assert_allclose(display.log_density[inside], expected, atol=1e-3)


@pytest.mark.parametrize("columns", [(0, 1), ("c", "a"), (3, 2)])
def test_marginals_of_more_columns(columns):
    rows, _ = sheared()
    frame = pd.DataFrame(rows, columns=list("abcd"))
    model = GaussianMixture(1, random_state=0).fit(frame)
    display = DensityDisplay.from_estimator(model, frame, columns=columns)
    chosen = ["abcd".index(c) if isinstance(c, str) else c for c in columns]
    exact = multivariate_normal(
        rows.mean(axis=0)[chosen], np.cov(rows.T, bias=True)[np.ix_(chosen, chosen)]
    )
    points = np.stack(np.meshgrid(display.x, display.y), axis=-1)
    density = exact.pdf(points)
    area = (display.x[1] - display.x[0]) * (display.y[1] - display.y[0])
    # Mean absolute error of a density that integrates to 1.
    assert np.abs(np.exp(display.log_density) - density).sum() * area < 0.12
    assert display.ax_.get_xlabel() == "abcd"[chosen[0]]
    for edge, share in zip(display.contours_.levels[:4], SHARES[::-1], strict=True):
        # The region that is drawn holds its share of the exact density.
        held = density[display.log_density >= edge].sum() * area
        assert held == pytest.approx(share, abs=0.03)


def test_one_column_is_a_line():
    rows, _ = sheared()
    model = GaussianMixture(1).fit(rows)
    display = DensityDisplay.from_estimator(model, rows, columns=1)
    exact = norm(rows[:, 1].mean(), rows[:, 1].std()).pdf(display.x)
    np.testing.assert_allclose(display.line_.get_ydata(), exact, atol=0.02)
    assert display.contours_ is None
    model = GaussianMixture(1).fit(rows[:, :1])
    display = DensityDisplay.from_estimator(model, rows[:, :1])
    exact = norm(rows[:, 0].mean(), rows[:, 0].std()).pdf(display.x)
    np.testing.assert_allclose(display.line_.get_ydata(), exact, rtol=1e-3)


def test_principal_components_by_default():
    rows, _ = sheared()
    display = DensityDisplay.from_estimator(GaussianMixture(1).fit(rows), rows)
    expected = make_pipeline(StandardScaler(), PCA(2)).fit_transform(rows)
    kept = np.linspace(0, len(rows) - 1, 1000).astype(int)
    np.testing.assert_allclose(display.scatter_.get_offsets(), expected[kept])
    assert display.ax_.get_ylabel() == "principal component 2"


def test_the_map_of_a_model():
    rows, _ = sheared()
    pca = PCA(2).fit(rows)
    display = DensityDisplay.from_estimator(pca, rows, space="embedding")
    points = np.stack(np.meshgrid(display.x, display.y), axis=-1).reshape(-1, 2)
    expected = pca.score_samples(pca.inverse_transform(points))
    np.testing.assert_allclose(display.log_density.ravel(), expected)
    # Without samples the shares are those of the rows.
    scores = pca.score_samples(pca.inverse_transform(pca.transform(rows)))
    for level, share in zip(display.levels, SHARES, strict=True):
        assert (scores >= level).mean() == pytest.approx(share, abs=0.02)
    assert display.ax_.get_aspect() == 1
    line = DensityDisplay.from_estimator(pca, rows, space="embedding", columns="component 2")
    along = np.column_stack([np.full(100, np.median(pca.transform(rows)[:, 0])), line.x])
    np.testing.assert_allclose(line.log_density, pca.score_samples(pca.inverse_transform(along)))


def test_the_density_of_a_detector():
    X = load_iris(as_frame=True).data
    detector = NoveltyDetector(GaussianMixture(2, random_state=0), cv=2, random_state=0).fit(X)
    display = DensityDisplay.from_estimator(detector, X, columns=(0, 1))
    plain = DensityDisplay.from_estimator(detector.density_, X, columns=(0, 1))
    np.testing.assert_array_equal(display.log_density, plain.log_density)
    assert display.ax_.get_ylabel() == "sepal width (cm)"


def test_the_density_of_a_detector_integrates_to_one():
    """Its scores do not where the density has maps of columns."""
    X = np.exp(1.5 * np.random.RandomState(0).standard_normal((300, 1)))
    flow = NoisyInjectiveFlow(1, n_layers=1, hidden_layer_sizes=(4,), max_iter=2)
    detector = NoveltyDetector(flow, cv=2, random_state=0).fit(X)
    display = DensityDisplay.from_estimator(detector, X, grid_resolution=500)
    share = ((X > display.x[0]) & (X < display.x[-1])).mean()
    assert np.trapezoid(np.exp(display.log_density), display.x) == pytest.approx(share, abs=0.1)


def test_behind_steps_without_an_inverse():
    X = load_iris(as_frame=True).data.iloc[:, :2]
    pipeline = make_pipeline(PolynomialFeatures(1, include_bias=False), GaussianMixture(2)).fit(X)
    display = DensityDisplay.from_estimator(pipeline, X)
    assert display.ax_.get_xlabel() == "column 1 after PolynomialFeatures"


class Cube(TransformerMixin, BaseEstimator):
    """A step with an inverse whose Jacobian nobody has told."""

    def fit(self, X, y=None):
        self.is_fitted_ = True
        return self

    def transform(self, X):
        return np.cbrt(np.asarray(X))

    def inverse_transform(self, X):
        return X**3


def test_behind_a_step_of_unknown_jacobian():
    X = np.random.RandomState(0).standard_normal((400, 2)) + 3
    pipeline = make_pipeline(Cube(), GaussianMixture(3, random_state=0)).fit(X)
    display = DensityDisplay.from_estimator(pipeline, X)
    exact = multivariate_normal([3, 3]).pdf(np.stack(np.meshgrid(display.x, display.y), axis=-1))
    area = (display.x[1] - display.x[0]) * (display.y[1] - display.y[0])
    assert np.abs(np.exp(display.log_density) - exact).sum() * area < 0.3


def test_a_flat_map_has_a_flat_figure():
    x, y = np.linspace(-9, 9, 20), np.linspace(-2, 2, 10)
    density = -(x**2) - y[:, None] ** 2
    flat = DensityDisplay(density, x, y, aspect="equal").plot().figure_
    free = DensityDisplay(density, x, y).plot().figure_
    assert flat.get_figheight() < 3.5 < 4.5 < free.get_figheight()


def test_options_of_matplotlib_go_on():
    x = np.linspace(-3, 3, 30)
    log_density = -0.5 * (x[:, None] ** 2 + x**2)
    display = DensityDisplay(log_density, x, x, points=[[0.0, 1.0]]).plot(
        contour_kw={"cmap": "Reds"}, scatter_kw={"color": "black", "s": 7}
    )
    assert display.contours_.get_cmap().name == "Reds"
    np.testing.assert_array_equal(display.scatter_.get_sizes(), [7])


def test_wrong_arguments_of_a_density():
    rows, _ = sheared(50)
    model = GaussianMixture(1).fit(rows)
    for options, message in [
        ({"space": "map"}, "space must be 'data' or 'embedding', got 'map'"),
        ({"columns": (0, 4)}, "by a number between 0 and 3, got"),
        ({"columns": (1, 1)}, "two different columns"),
        ({"columns": "z"}, "by name or by a number"),
        ({"shares": (0.5, 1.0)}, "shares must be numbers between 0 and 1"),
        ({"space": "embedding"}, "GaussianMixture has no method transform"),
    ]:
        with pytest.raises(ValueError, match=message):
            DensityDisplay.from_estimator(model, rows, **options)
    with pytest.raises(ValueError, match="PCA has no method sample"):
        DensityDisplay.from_estimator(PCA(2).fit(rows), rows)
    with pytest.raises(NotFittedError):
        DensityDisplay.from_estimator(GaussianMixture(), rows)
    with pytest.raises(ValueError, match=r"log_density must have the shape \(2, 2\)"):
        DensityDisplay(np.ones((2, 3)), [0, 1], [0, 1]).plot()
    with pytest.raises(ValueError, match="must hold numbers"):
        DensityDisplay([[np.nan]], [0], [0]).plot()
    assert not plt.get_fignums()


def test_places():
    points = grid([1, 2, 3], [10, 20])
    np.testing.assert_array_equal(points, [[1, 10], [2, 10], [3, 10], [1, 20], [2, 20], [3, 20]])
    places = np.array([[0.0, 5.0, 2.0], [4.0, 7.0, 6.0], [1.0, 6.0, 3.0]])
    np.testing.assert_array_equal(plane(places, [2], [[8, 9]]), [[1, 6, 8], [1, 6, 9]])
    values = np.arange(6.0).reshape(2, 3)
    found = at_places(values, ([1, 2, 3], [10, 20]), np.array([[2.2, 19.0], [3.0, 10.0], [9, 10]]))
    np.testing.assert_array_equal(found, [4, 2, 0])
    low, high = robust_range(np.append(np.linspace(0, 1, 999), 1e6))
    assert -0.2 < low < 0
    assert 1 < high < 1.2
    low, high = robust_range(np.ones(5))
    assert low < 1 < high
