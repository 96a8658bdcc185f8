"""Loss curves of one and of several stages."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skmanifoldflow import (
    JointManifoldFlow,
)
from skmanifoldflow.datasets import SCurve
from skmanifoldflow.plotting import (
    LossCurveDisplay,
)


@pytest.fixture(scope="module")
def rows():
    return SCurve(noise=0.05).sample(120, random_state=0)[0]


def test_loss_curve(flow):
    display = LossCurveDisplay.from_estimator(flow)
    loss, score = display.lines_
    np.testing.assert_array_equal(loss.get_ydata(), flow.loss_curve_)
    np.testing.assert_array_equal(score.get_ydata(), -np.array(flow.validation_scores_))
    assert display.ax_.get_ylabel() == "loss, nats per standardised row"
    display.figure_.canvas.draw()


def test_best_epoch():
    _, ax = plt.subplots()
    display = LossCurveDisplay([5, 4, 3, 2], [-5, -3, np.nan, -4]).plot(ax=ax)
    assert display.ax_ is ax
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(display.best_.get_xydata(), [[2, 3]])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["training rows", "validation rows", "best epoch: 2"]


@pytest.mark.parametrize("scores", [None, []])
def test_without_validation(scores):
    display = LossCurveDisplay([5.0, 4.0], scores).plot()
    assert len(display.lines_) == 1
    assert display.best_ is None


@pytest.mark.parametrize("n_epochs", [3, 5, 80])
def test_a_far_loss_does_not_squash_the_rest(n_epochs):
    losses = np.append(1e3, np.linspace(3, 1, n_epochs - 1))
    display = LossCurveDisplay(losses, -losses).plot()
    low, high = display.ax_.get_ylim()
    assert low < 1
    assert 3 < high < 10


def test_ordinary_losses_are_all_shown():
    losses = 5 * np.exp(-np.arange(20) / 8)
    low, high = LossCurveDisplay(losses).plot().ax_.get_ylim()
    assert low < losses[-1]
    assert losses[0] < high


@pytest.mark.parametrize("losses", [[2.0], [2.0, 2.0], [np.inf, 3.0], [np.nan]])
def test_curves_without_a_range(losses):
    LossCurveDisplay(losses, losses).plot().figure_.canvas.draw()


def test_curves_of_all_stages(rows):
    flow = JointManifoldFlow(
        2, stage_components=(2, 1), n_layers=1, hidden_layer_sizes=(4,), max_iter=4, random_state=0
    ).fit(rows)
    assert flow.stage_loss_curves_[0] == flow.loss_curve_
    assert flow.stage_validation_scores_[0] == flow.validation_scores_
    display = LossCurveDisplay.from_estimator(flow)
    curves = [np.transpose(line.get_data()) for line in display.lines_]
    drawn = list(zip(curves[::2], curves[1::2], strict=True))
    assert [len(loss) for loss, _ in drawn] == [4, 2, 2]
    first = 1
    for k, ((loss, validation), losses, scores) in enumerate(
        zip(drawn, flow.stage_loss_curves_, flow.stage_validation_scores_, strict=True)
    ):
        np.testing.assert_array_equal(loss[:, 0], np.arange(first, first + len(losses)))
        np.testing.assert_array_equal(loss[:, 1], losses)
        np.testing.assert_array_equal(validation[:, 1], -np.array(scores))
        best = display.best_.get_xydata()[k]
        np.testing.assert_array_equal(best, [first + np.argmax(scores), -max(scores)])
        first += len(losses)
    assert [line.get_xdata()[0] for line in display.stage_ends_] == [4.5, 6.5]
    display.figure_.canvas.draw()


def test_wrong_curves():
    with pytest.raises(ValueError, match="loss_curve must hold one loss for each epoch"):
        LossCurveDisplay([]).plot()
    with pytest.raises(ValueError, match="each of the 2 epochs"):
        LossCurveDisplay([1, 2], [1, 2, 3]).plot()
