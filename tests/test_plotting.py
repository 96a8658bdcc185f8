"""Displays: what is drawn, where, and what happens without matplotlib."""

import sys

import matplotlib
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skmanifoldflow import ManifoldPriorFlow
from skmanifoldflow.plotting import SpectrumDisplay

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def display():
    return SpectrumDisplay([2.1, 0.8, 0.003, 5e-4], noise_variance=4e-4, intrinsic_dimension=2)


@pytest.fixture(scope="module")
def flow():
    t = np.random.RandomState(0).standard_normal((80, 1))
    X = t * [1.0, 2.0, -1.0] + 0.01 * np.random.RandomState(1).standard_normal((80, 3))
    return ManifoldPriorFlow(
        n_layers=1, hidden_layer_sizes=(4,), isometry=0, max_iter=1, random_state=0
    ).fit(X)


def test_artists_hold_the_values(display):
    assert display.plot() is display
    kept, rest = display.lines_
    np.testing.assert_array_equal(kept.get_xydata(), [[1, 2.1], [2, 0.8]])
    np.testing.assert_array_equal(rest.get_xydata(), [[3, 0.003], [4, 5e-4]])
    assert set(display.floor_.get_ydata()) == {4e-4}
    assert set(display.dimension_.get_xdata()) == {2.5}
    assert display.ax_.get_yscale() == "log"
    assert display.ax_.get_xlabel() and display.ax_.get_ylabel()
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["manifold", "noise", "noise floor", "dimension 2"]
    display.figure_.canvas.draw()


def test_axes_can_be_given(display):
    figure, ax = plt.subplots()
    display.plot(ax=ax)
    assert display.ax_ is ax and display.figure_ is figure
    assert plt.get_fignums() == [figure.number]


def test_full_dimension_draws_no_noise(display):
    display.intrinsic_dimension = 4
    display.plot().figure_.canvas.draw()
    assert len(display.lines_[1].get_xdata()) == 0


def test_from_estimator(flow):
    _, ax = plt.subplots()
    display = SpectrumDisplay.from_estimator(flow, ax=ax)
    assert display.ax_ is ax
    drawn = np.concatenate([line.get_ydata() for line in display.lines_])
    np.testing.assert_array_equal(drawn, flow.local_spectrum_)
    assert len(display.lines_[0].get_xdata()) == flow.intrinsic_dimension_
    assert display.noise_variance == flow.noise_floor**2


def test_unfitted_estimator():
    with pytest.raises(NotFittedError):
        SpectrumDisplay.from_estimator(ManifoldPriorFlow())


def test_without_matplotlib(display, flow, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"SpectrumDisplay.plot needs .* \[plot\]"):
        display.plot()
    with pytest.raises(ImportError, match=r"SpectrumDisplay.from_estimator needs .* \[plot\]"):
        SpectrumDisplay.from_estimator(flow)
