"""The readings of the dimension."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from skmanifoldflow import (
    DimensionReport,
    intrinsic_dimension,
)
from skmanifoldflow.datasets import SCurve
from skmanifoldflow.plotting import (
    DimensionDisplay,
)


def test_dimension_display(flow):
    report = DimensionReport(2, (2, 4, 8), (2.8, 2.4, 2.1), (2.2, 2.1, 2.0))
    display = DimensionDisplay(report).plot()
    rows, calibrated = display.lines_
    np.testing.assert_array_equal(rows.get_xydata(), [[2, 2.8], [4, 2.4], [8, 2.1]])
    np.testing.assert_array_equal(calibrated.get_ydata(), [2.2, 2.1, 2.0])
    assert set(display.dimension_.get_ydata()) == {2}
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["rows", "calibrated", "dimension 2"]
    display.figure_.canvas.draw()
    assert DimensionDisplay.from_estimator(flow).report is flow.dimension_report_
    with pytest.raises(ValueError, match="no scales"):
        DimensionDisplay(DimensionReport(1)).plot()
    with pytest.raises(ValueError, match="no report"):
        DimensionDisplay.from_estimator(PCA().fit(np.eye(3)))


def test_dimension_of_data_is_drawn():
    X, _ = SCurve(noise=0.05).sample(300, random_state=0)
    display = DimensionDisplay.from_data(X)
    assert display.report == intrinsic_dimension(X)
    assert len(display.lines_[0].get_xdata()) == len(display.report.neighbors)
