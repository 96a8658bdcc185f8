"""The spectrum of a model, and no gap where there is none."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skmanifoldflow.plotting import (
    SpectrumDisplay,
)


@pytest.fixture
def display():
    return SpectrumDisplay([2.1, 0.8, 0.003, 5e-4], noise_variance=4e-4, intrinsic_dimension=2)


def test_artists_hold_the_values(display):
    assert display.plot() is display
    kept, rest = display.lines_
    np.testing.assert_array_equal(kept.get_xydata(), [[1, 2.1], [2, 0.8]])
    np.testing.assert_array_equal(rest.get_xydata(), [[3, 0.003], [4, 5e-4]])
    assert set(display.floor_.get_ydata()) == {4e-4}
    assert set(display.dimension_.get_xdata()) == {2.5}
    assert display.ax_.get_yscale() == "log"
    assert display.ax_.get_xlim()[0] > 0
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
