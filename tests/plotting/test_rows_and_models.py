"""Displays of rows beside a model: pairs, strange rows, reconstructions, calibration."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, kstwo, multivariate_normal
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import NoveltyDetector
from skmanifoldflow.plotting import (
    AnomalyDisplay,
    CalibrationDisplay,
    PairDisplay,
    ReconstructionDisplay,
)


@pytest.fixture(scope="module")
def iris():
    X = load_iris(as_frame=True).data
    return X.set_index(pd.Index([f"flower {i}" for i in range(len(X))]))


def texts(labels):
    return [label.get_text() for label in labels]


class Normal(BaseEstimator):
    """Independent standard normal columns, or wider ones."""

    def __init__(self, n_features=2, scale=1.0):
        self.n_features = n_features
        self.scale = scale

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def score_samples(self, X):
        covariance = self.scale**2 * np.eye(self.n_features)
        return np.atleast_1d(multivariate_normal(cov=covariance).logpdf(X))

    def sample(self, n_samples=1, *, random_state=None):
        rng = np.random.RandomState(random_state)
        return self.scale * rng.standard_normal((n_samples, self.n_features))


# Pairs


def test_pairs_of_columns(iris):
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(3, random_state=0)).fit(iris)
    display = PairDisplay.from_estimator(pipeline, iris, random_state=3)
    assert display.axes_.shape == (4, 4)
    assert len(display.row_points_) == len(display.sample_points_) == 6
    rows = iris.to_numpy()
    # The panel of the third row and the first column.
    np.testing.assert_array_equal(display.row_points_[1].get_offsets(), rows[:, [0, 2]])
    drawn = display.sample_points_[1].get_offsets()
    np.testing.assert_allclose(drawn, display.samples[:, [0, 2]])
    # Samples come back into the units of the rows.
    np.testing.assert_allclose(display.samples.mean(axis=0), rows.mean(axis=0), atol=0.4)
    assert display.axes_[3, 1].get_xlabel().replace("\n", "") == "sepal width (cm)"
    assert texts(display.figure_.legends[0].get_texts()) == ["rows", "samples"]


def test_the_columns_that_differ_most():
    rng = np.random.RandomState(0)
    X = rng.standard_normal((2000, 7))
    X += [0, 3, 0, 0.5, 0, -2, 1]
    display = PairDisplay.from_estimator(Normal(7), X)
    assert display.column_names == ["column 2", "column 4", "column 6", "column 7"]
    np.testing.assert_array_equal(display.rows, X[:, [1, 3, 5, 6]])
    display = PairDisplay.from_estimator(Normal(7), X, columns=[4, 0], n_samples=30)
    assert display.samples.shape == (30, 2)
    assert display.column_names == ["column 5", "column 1"]


def test_pairs_of_one_column():
    X = np.random.RandomState(0).standard_normal((100, 1))
    display = PairDisplay.from_estimator(Normal(1), X)
    display.figure_.draw_without_rendering()
    assert not display.row_points_
    # Two outlines: rows, and samples.
    assert len(display.axes_[0, 0].patches) == 2


def test_wrong_pairs(iris):
    with pytest.raises(ValueError, match="names of columns, or numbers between 0 and 1"):
        PairDisplay.from_estimator(Normal(2), np.eye(2), columns=["x"])
    with pytest.raises(ValueError, match="rows have 2 columns, but samples have 3"):
        PairDisplay(np.eye(2), np.eye(3)).plot()
    with pytest.raises(ValueError, match="column_names must hold one for each of 2 columns"):
        PairDisplay(np.eye(2), np.eye(2), ["x"]).plot()
    assert not plt.get_fignums()


# Strange rows


def test_strange_rows_of_a_detector(iris):
    detector = NoveltyDetector(GaussianMixture(2, random_state=0), cv=2, random_state=0).fit(iris)
    odd = iris.copy()
    odd.iloc[7, 2] = 60.0
    odd.iloc[90, 1] = -8.0
    display = AnomalyDisplay.from_estimator(detector, odd, n_rows=4)
    scores = detector.score_samples(odd)
    order = np.argsort(scores)[:4]
    assert list(order[:2]) == [7, 90]
    assert list(display.row_names) == [f"flower {i}" for i in order]
    np.testing.assert_array_equal(display.rows, odd.to_numpy()[order])
    np.testing.assert_allclose(display.shares, detector.explain(odd.iloc[order]))
    assert list(display.shares.argmax(axis=1)[:2]) == [2, 1]
    assert set(display.threshold_.get_xdata()) == {detector.offset_}
    assert texts(display.axes_[1].get_yticklabels())[0] == f"flower 7 ({scores.min():.1f})"
    names = [name.replace("\n", "") for name in texts(display.axes_[1].get_xticklabels())]
    assert names == list(iris.columns)
    # Every cell tells the value of the row.
    assert texts(display.axes_[1].texts)[2] == "60"
    assert display.colorbar_.ax.get_ylabel() == "share of a column, nats"


def test_strange_rows_of_a_pipeline(iris):
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(2, random_state=0)).fit(iris)
    display = AnomalyDisplay.from_estimator(pipeline, iris, n_rows=3)
    scores = pipeline.score_samples(iris)
    order = np.argsort(scores, kind="stable")[:3]
    # Rows are in the units of the user, scores in those of the last step.
    np.testing.assert_allclose(display.rows, iris.to_numpy()[order])
    np.testing.assert_allclose(display.log_density, scores)
    assert display.threshold_ is None


def test_the_columns_that_tell_most():
    X = np.random.RandomState(0).standard_normal((60, 12))
    X[5, [3, 9]] = 9.0
    display = AnomalyDisplay.from_estimator(Normal(12), X, n_rows=2)
    drawn = [name.replace("\n", "") for name in texts(display.axes_[1].get_xticklabels())]
    assert len(drawn) == 8
    assert {"column 4", "column 10"} <= set(drawn)
    assert display.axes_[1].get_title() == "the 8 of 12 columns that tell most"


def test_strange_images():
    X, _ = load_digits(return_X_y=True)
    model = GaussianMixture(2, covariance_type="diag", reg_covar=1.0, random_state=0).fit(X[:300])
    display = AnomalyDisplay.from_estimator(model, X[:300], n_rows=3, image_shape=(1, 8, 8))
    picture = np.asarray(display.image_.get_array())
    assert picture.shape == (10, 28)
    shares = np.maximum(display.shares, 0).reshape(3, 8, 8)
    np.testing.assert_allclose(picture[1:9, 10:18], shares[1])
    display.figure_.draw_without_rendering()


def test_rows_without_a_density():
    X = np.random.RandomState(0).standard_normal((30, 2))
    scores = Normal().score_samples(X)
    scores[:2] = -np.inf
    display = AnomalyDisplay(scores, rows=X[:3], shares=[[1, np.inf], [np.inf, 0], [0.5, 0]]).plot()
    assert "2 below" in texts(display.axes_[0].texts)
    assert np.isfinite(display.image_.get_array()).all()
    assert texts(display.axes_[1].get_yticklabels())[0] == "1 (-inf)"
    with pytest.raises(ValueError, match="some that are finite"):
        AnomalyDisplay(np.full(3, -np.inf)).plot()


def test_wrong_strange_rows(iris):
    with pytest.raises(ValueError, match="n_rows must be at least 1, got 0"):
        AnomalyDisplay.from_estimator(Normal(4), iris, n_rows=0)
    with pytest.raises(ValueError, match="shares must be numbers of the shape of rows"):
        AnomalyDisplay([1.0], rows=[[1.0]], shares=[[1.0, 2.0]]).plot()
    with pytest.raises(ValueError, match="log_density must hold numbers or -inf"):
        AnomalyDisplay([np.nan]).plot()
    with pytest.raises(ValueError, match="StandardScaler has no method score_samples"):
        AnomalyDisplay.from_estimator(make_pipeline(StandardScaler()).fit(iris)[0], iris)


# Reconstructions


def test_unexplained_variance(iris):
    pipeline = make_pipeline(StandardScaler(), PCA(2)).fit(iris)
    display = ReconstructionDisplay.from_estimator(pipeline, iris)
    rebuilt = pipeline.inverse_transform(pipeline.transform(iris))
    expected = 1 - r2_score(iris, rebuilt, multioutput="raw_values")
    np.testing.assert_allclose(display.unexplained_variance_, expected)
    np.testing.assert_allclose([bar.get_width() for bar in display.bars_], expected)
    assert texts(display.axes_[1].get_yticklabels()) == list(iris.columns)
    # Four columns are projected on two, rows and rebuilt rows by the same map.
    ends = display.lines_.get_xydata().reshape(-1, 3, 2)
    project = make_pipeline(StandardScaler(), PCA(2)).fit(iris.to_numpy())
    np.testing.assert_allclose(ends[:, 0], project.transform(iris.to_numpy()), atol=1e-9)
    np.testing.assert_allclose(ends[:, 1], project.transform(rebuilt), atol=1e-9)


@pytest.mark.parametrize("n_features", [1, 2, 3])
def test_lines_lead_to_where_rows_are_rebuilt(n_features):
    rows = np.random.RandomState(0).standard_normal((40, n_features))
    display = ReconstructionDisplay(rows, rows / 2).plot()
    display.figure_.draw_without_rendering()
    np.testing.assert_allclose(
        display.unexplained_variance_, (rows**2).mean(axis=0) / 4 / rows.var(axis=0)
    )
    if n_features == 2:
        np.testing.assert_allclose(
            display.lines_.get_xydata().reshape(-1, 3, 2)[:, :2],
            np.stack([rows, rows / 2], axis=1),
        )
    assert len(display.bars_) == n_features


def test_constant_columns_have_no_variance():
    rows = np.column_stack([np.ones(5), np.arange(5.0)])
    display = ReconstructionDisplay(rows, rows + 1).plot()
    assert np.isnan(display.unexplained_variance_[0])
    assert display.unexplained_variance_[1] == pytest.approx(0.5)


def test_the_columns_that_lose_most():
    rng = np.random.RandomState(0)
    rows = rng.standard_normal((200, 40))
    rebuilt = rows + 0.1 * rng.standard_normal((200, 40)) * (1 + np.arange(40) % 2)
    display = ReconstructionDisplay(rows, rebuilt).plot()
    most = np.sort(np.argsort(display.unexplained_variance_)[-15:])
    assert texts(display.axes_[1].get_yticklabels()) == [f"column {k + 1}" for k in most]


def test_images_rebuilt():
    X, _ = load_digits(return_X_y=True)
    pca = PCA(10, random_state=0).fit(X)
    display = ReconstructionDisplay.from_estimator(pca, X[:30], image_shape=(1, 8, 8))
    rows, rebuilt, difference = (np.asarray(i.get_array()) for i in display.images_)
    assert rows.shape == (10, 91)
    np.testing.assert_array_equal(rows[1:9, 10:18], X[1].reshape(8, 8))
    expected = pca.inverse_transform(pca.transform(X[1:2])).reshape(8, 8)
    np.testing.assert_allclose(rebuilt[1:9, 10:18], expected)
    np.testing.assert_allclose(difference[1:9, 10:18], expected - X[1].reshape(8, 8))
    # Ink is dark on light, and errors of both signs are about white.
    assert display.images_[0].get_cmap().name == "gray_r"
    low, high = display.images_[2].get_clim()
    assert low == -high
    coloured = np.repeat(X[:4], 3, axis=1)
    display = ReconstructionDisplay(coloured, coloured, image_shape=(3, 8, 8)).plot()
    display.figure_.draw_without_rendering()


def test_wrong_reconstructions():
    with pytest.raises(ValueError, match=r"rebuilt must have the shape of rows, \(2, 2\)"):
        ReconstructionDisplay(np.eye(2), np.eye(3)).plot()
    with pytest.raises(ValueError, match=r"C \* H \* W = 2"):
        ReconstructionDisplay(np.eye(2), np.eye(2), image_shape=(1, 1, 1)).plot()
    with pytest.raises(ValueError, match="GaussianMixture has no method transform"):
        ReconstructionDisplay.from_estimator(GaussianMixture(), np.eye(2))
    assert not plt.get_fignums()


# Calibration


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_transforms_of_a_normal_distribution(scale):
    # The log-density falls with r^2, which is scale^2 times chi^2 under the model.
    X = np.random.RandomState(0).standard_normal((2000, 3))
    display = CalibrationDisplay.from_estimator(Normal(3, scale), X, n_samples=100_000)
    exact = chi2(3).sf((X**2).sum(axis=1) / scale**2)
    np.testing.assert_allclose(display.pit, exact, atol=0.01)
    x, y = display.line_.get_data()
    at = np.linspace(0, 1, 50)
    drawn = y[np.searchsorted(x, at, side="right") - 1]
    np.testing.assert_allclose(drawn, [(display.pit <= t).mean() for t in at], atol=1e-3)
    # A model that is too wide has hardly any row at low densities.
    if scale == 2:
        assert drawn[10] < 0.02
    else:
        off = np.abs(drawn - at).max()
        assert off < kstwo.ppf(0.99, 2000)


def test_the_band():
    display = CalibrationDisplay(np.linspace(0, 1, 100)).plot()
    vertices = display.band_.get_paths()[0].vertices
    above = vertices[np.isclose(vertices[:, 0], 0.5), 1].max() - 0.5
    assert above == pytest.approx(kstwo.ppf(0.95, 100))
    display = CalibrationDisplay(np.linspace(0, 1, 100), n_samples=100).plot()
    vertices = display.band_.get_paths()[0].vertices
    above = vertices[np.isclose(vertices[:, 0], 0.5), 1].max() - 0.5
    assert above == pytest.approx(kstwo.ppf(0.95, 50))


def test_p_values_of_a_detector(iris):
    pipeline = make_pipeline(
        StandardScaler(), NoveltyDetector(GaussianMixture(2), cv=2, random_state=0)
    ).fit(iris)
    display = CalibrationDisplay.from_estimator(pipeline, iris)
    expected = pipeline[-1].p_value(pipeline[0].transform(iris))
    np.testing.assert_array_equal(display.pit, expected)
    assert display.n_samples == len(iris)


@pytest.mark.parametrize("pit", [[], [1.5], [np.nan], [-0.1]])
def test_wrong_transforms(pit):
    with pytest.raises(ValueError, match="pit must hold numbers between 0 and 1"):
        CalibrationDisplay(pit).plot()
