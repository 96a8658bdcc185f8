"""All displays of models of all kinds of rows: none raises where there is something to draw."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_wine, make_moons
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, NoveltyDetector
from skmanifoldflow.datasets import SCurve
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

SMALL = {"n_layers": 1, "hidden_layer_sizes": (4,), "max_iter": 1, "random_state": 0}
# Columns of wine are rounded, and nothing is to be said of that here.
SMALL |= {"discrete_features": None}


def joint(n_components=2, **options):
    return JointManifoldFlow(n_components, **SMALL | options)


def rows_of(kind):
    if kind == "two columns":
        return make_moons(200, noise=0.1, random_state=0)[0]
    if kind == "three columns":
        return SCurve(noise=0.05).sample(200, random_state=0)[0]
    if kind in ("names", "pipeline", "frames"):
        return load_wine(as_frame=True).data
    noise = np.random.RandomState(0).uniform(size=(150, 64))
    X = load_digits(return_X_y=True)[0][:150] + noise
    if kind == "images":
        return X.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    return X


def model_of(kind):
    if kind == "two columns":
        return joint(1)
    if kind == "images":
        return joint(image_shape=(1, 4, 4))
    if kind == "pipeline":
        return make_pipeline(StandardScaler(), joint())
    if kind == "frames":
        return make_pipeline(StandardScaler(), joint()).set_output(transform="pandas")
    return joint()


KINDS = [
    "two columns",
    "three columns",
    "names",
    "64 columns",
    "images",
    "pipeline",
    "frames",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_display(kind):
    X = rows_of(kind)
    model = model_of(kind).fit(X)
    two = kind != "two columns"
    displays = [
        AnomalyDisplay.from_estimator(model, X, n_rows=2),
        CalibrationDisplay.from_estimator(model, X, n_samples=200),
        DensityDisplay.from_estimator(model, X, grid_resolution=20),
        DensityDisplay.from_estimator(model, X, space="embedding", grid_resolution=20),
        DimensionDisplay.from_estimator(model),
        EmbeddingDisplay.from_estimator(model, X, density=two, grid=3 if two else None),
        LossCurveDisplay.from_estimator(model),
        PairDisplay.from_estimator(model, X),
        ReconstructionDisplay.from_estimator(model, X),
        SampleDisplay.from_estimator(model, X),
        SpectrumDisplay.from_estimator(model),
        WalkDisplay.from_estimator(model, X),
        WalkDisplay.from_estimator(model, X, ends=(0, 5)),
    ]
    # The layout takes as long as all the rest.
    for display in displays if kind in ("three columns", "images") else []:
        display.figure_.draw_without_rendering()


@pytest.mark.parametrize("kind", ["two columns", "three columns", "names", "64 columns"])
def test_atlases_and_detectors(kind):
    X = rows_of(kind)
    atlas = ChartAtlasFlow(n_charts=3, **SMALL).fit(X)
    mixture = GaussianMixture(2, covariance_type="diag", reg_covar=0.1, random_state=0)
    detector = NoveltyDetector(mixture, cv=2, random_state=0).fit(X)
    displays = [
        AtlasDisplay.from_estimator(atlas, X),
        AtlasDisplay.from_estimator(atlas, X, space="embedding"),
        DensityDisplay.from_estimator(atlas, X, space="embedding", grid_resolution=20),
        AnomalyDisplay.from_estimator(detector, X, n_rows=2),
        CalibrationDisplay.from_estimator(detector, X),
        DensityDisplay.from_estimator(detector, X, grid_resolution=20),
        ExplanationDisplay.from_estimator(detector, X[:2]),
    ]
    for display in displays if kind == "three columns" else []:
        display.figure_.draw_without_rendering()


def test_many_columns_have_few_names():
    display = ExplanationDisplay(np.ones((100, 300))).plot()
    assert len(display.ax_.get_xticks()) <= 32
    assert len(display.ax_.get_yticks()) <= 32
    assert display.ax_.get_xticklabels()[1].get_text() == str(int(display.ax_.get_xticks()[1]))


def test_grey_images_with_a_dark_background_are_dark_on_light():
    X = load_digits(return_X_y=True)[0][:20]
    ink = SampleDisplay(X, image_shape=(1, 8, 8)).plot().images_[0]
    assert ink.get_cmap().name == "gray_r"
    # Photographs are not turned into negatives.
    photos = np.random.RandomState(0).uniform(0.2, 0.9, (20, 64))
    assert SampleDisplay(photos, image_shape=(1, 8, 8)).plot().images_[0].get_cmap().name == "gray"
