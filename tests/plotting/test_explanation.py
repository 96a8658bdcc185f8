"""Shares of columns as colours."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import (
    NoveltyDetector,
)
from skmanifoldflow.plotting import (
    ExplanationDisplay,
)


def test_shares_of_columns(frame):
    detector = NoveltyDetector(GaussianMixture(3, random_state=0), cv=2, random_state=0)
    odd = frame.iloc[:3] + np.array([0, 0, 5, 0])
    display = ExplanationDisplay.from_estimator(detector.fit(frame), odd)
    np.testing.assert_allclose(display.shares, detector.explain(odd))
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == list(frame.columns)
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == [str(i) for i in odd.index]
    np.testing.assert_allclose(display.image_.get_array(), display.shares)
    pipeline = make_pipeline(StandardScaler(), clone(detector)).fit(frame)
    display = ExplanationDisplay.from_estimator(pipeline, odd)
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == list(frame.columns)
    assert (display.shares.argmax(axis=1) == 2).all()


def test_infinite_shares_are_drawn_beyond_the_others():
    display = ExplanationDisplay([[1.0, np.inf], [10.0, -2.0]]).plot()
    np.testing.assert_allclose(display.image_.get_array(), [[1, 12], [10, -2]])
    assert display.image_.get_clim() == (0, 12)


def test_negative_shares_have_the_colour_of_zero():
    image = ExplanationDisplay([[-1.0, -3.0], [-10.0, -2.0]]).plot().image_
    colours = image.to_rgba(image.get_array())
    np.testing.assert_array_equal(colours, np.broadcast_to(image.cmap(0.0), (2, 2, 4)))


def test_long_names_are_broken_into_lines():
    name = "od280/od315_of_diluted_wines"
    display = ExplanationDisplay([[1.0]], [name]).plot()
    (label,) = (label.get_text() for label in display.ax_.get_xticklabels())
    assert label.replace("\n", "") == name
    assert max(map(len, label.split("\n"))) <= 18


def test_bad_explanations(frame, flow):
    with pytest.raises(ValueError, match="ManifoldPriorFlow has no method explain"):
        ExplanationDisplay.from_estimator(flow, frame)
    with pytest.raises(ValueError, match="feature_names must hold 2 names, got 1"):
        ExplanationDisplay([[1.0, 2.0]], ["a"]).plot()
    with pytest.raises(NotFittedError):
        ExplanationDisplay.from_estimator(NoveltyDetector(), frame)
