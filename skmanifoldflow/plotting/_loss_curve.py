"""The course of a fit."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._base import Unwrapped, check_matplotlib, new_axes
from ._colors import ACCENT_COLOR, SAMPLE_COLOR

__all__ = ["LossCurveDisplay"]


class LossCurveDisplay:
    """Loss of a fit over its epochs, stage after stage.

    The losses of the training rows and of the validation rows, which is minus their score, and the
    epoch at which that is best, whose weights are kept. A few losses far above all others, as at
    the start, do not count for the limits of the vertical axis.

    Parameters
    ----------
    loss_curve : array-like of shape (n_epochs,)
        Training loss of each epoch, in nats per standardised row.
    validation_scores : array-like of shape (n_epochs,), default=None
        Score of the validation rows after each epoch, in nats per standardised row. None or an
        empty list where no rows were set aside.
    later_stages : sequence of pairs of array-like, default=()
        Losses and scores of the stages after the first one, whose epochs follow. Losses of
        different stages need not be comparable.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Its figure.
    lines_ : tuple of matplotlib Line2D
        The training loss and, if there is any, the validation loss; then those of later stages.
    best_ : matplotlib Line2D or None
        Marks at the epoch of the best validation score of each stage.
    stage_ends_ : list of matplotlib Line2D
        Vertical lines between stages.

    Examples
    --------
    >>> from skmanifoldflow.plotting import LossCurveDisplay
    >>> display = LossCurveDisplay([900.0, 3.0, 2.0, 1.5], [-4.0, -2.5, -2.0, -2.2]).plot()
    >>> display.best_.get_label()
    'best epoch: 3'
    """

    def __init__(self, loss_curve, validation_scores=None, *, later_stages=()):
        self.loss_curve = loss_curve
        self.validation_scores = validation_scores
        self.later_stages = later_stages

    @classmethod
    def from_estimator(cls, estimator, *, line_kw=None, ax=None):
        """Draw the course of the fit of an estimator.

        Parameters
        ----------
        estimator : estimator instance
            Fitted estimator with `loss_curve_` and, optionally, `validation_scores_`, such as a
            flow or :class:`~sklearn.neural_network.MLPRegressor`; `stage_loss_curves_` and
            `stage_validation_scores_`, as :class:`~skmanifoldflow.JointManifoldFlow` has them, go
            before these. A :class:`~sklearn.pipeline.Pipeline` that ends in one, or a search over
            either, whose best estimator is drawn.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the curves.
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        Returns
        -------
        display : LossCurveDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the estimator has no loss curve.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from skmanifoldflow import ManifoldPriorFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> from skmanifoldflow.plotting import LossCurveDisplay
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> flow = ManifoldPriorFlow(n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> len(LossCurveDisplay.from_estimator(flow).loss_curve)
        2
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        model = Unwrapped(estimator).model
        check_is_fitted(model)
        if not hasattr(model, "loss_curve_"):
            raise ValueError(f"{type(model).__name__} has no loss curve.")
        scores = getattr(model, "validation_scores_", None)
        curves = getattr(model, "stage_loss_curves_", ())
        later = zip(curves[1:], getattr(model, "stage_validation_scores_", ())[1:], strict=True)
        display = cls(
            np.asarray(model.loss_curve_),
            None if scores is None else np.asarray(scores),
            later_stages=list(later),
        )
        return display.plot(ax=ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the curves.

        Returns
        -------
        display : LossCurveDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there are no losses, or not one validation score for each.

        Examples
        --------
        >>> from skmanifoldflow.plotting import LossCurveDisplay
        >>> LossCurveDisplay([3.0, 2.0, 1.5]).plot().ax_.get_xlabel()
        'epoch'
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        from matplotlib.ticker import MaxNLocator

        stages = [(self.loss_curve, self.validation_scores), *self.later_stages]
        stages = [_check_curves(*stage) for stage in stages]
        ax = new_axes() if ax is None else ax
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_: tuple = ()
        self.stage_ends_, self.best_ = [], None
        best, first, style = [], 1, line_kw or {}
        for k, (losses, scores) in enumerate(stages):
            epochs = np.arange(first, first + len(losses))
            # A line through a single epoch would not be seen.
            marker = "o" if len(losses) == 1 else None
            for curve, color, label in (
                (losses, SAMPLE_COLOR, "training rows"),
                (-scores, ACCENT_COLOR, "validation rows"),
            ):
                if len(curve):
                    named = {"label": "_" if k else label}
                    options = {"color": color, "marker": marker} | named | style
                    self.lines_ += tuple(ax.plot(epochs, curve, **options))
            if np.isfinite(scores).any():
                at = int(np.argmax(np.where(np.isfinite(scores), scores, -np.inf)))
                best.append((epochs[at], -scores[at]))
            if k:
                end = {"color": "0.6", "linestyle": ":", "linewidth": 1}
                self.stage_ends_.append(ax.axvline(first - 0.5, **end))
            if len(stages) > 1:
                where = (first - 0.5, 1.01)
                ax.text(*where, f" stage {k + 1}", transform=ax.get_xaxis_transform(), color="0.4")
            first += len(losses)
        if best:
            label = f"best epoch: {', '.join(str(epoch) for epoch, _ in best)}"
            style = {"color": "black", "linestyle": "none", "marker": "*", "markersize": 12}
            (self.best_,) = ax.plot(*np.transpose(best), label=label, zorder=3, **style)
        limits = _limits([curve for losses, scores in stages for curve in (losses, -scores)])
        if limits is not None:
            ax.set_ylim(*limits)
        ax.set_xlim(0.5, first - 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="epoch", ylabel="loss, nats per standardised row")
        ax.legend()
        return self


def _check_curves(losses, scores):
    losses = np.asarray(losses, dtype=float)
    scores = np.empty(0) if scores is None else np.asarray(scores, dtype=float)
    if losses.ndim != 1 or not len(losses):
        raise ValueError(
            f"loss_curve must hold one loss for each epoch, got an array of shape {losses.shape}."
        )
    if scores.size and scores.shape != losses.shape:
        raise ValueError(
            f"validation_scores must hold one score for each of the {len(losses)} epochs, got an "
            f"array of shape {scores.shape}."
        )
    return losses, scores


def _limits(curves):
    """Return vertical limits that show all but far values, or None where there is no range."""
    curves = [curve[np.isfinite(curve)] for curve in curves]
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return None
    low, high = min(curve.min() for curve in curves), max(curve.max() for curve in curves)
    usual = max(np.quantile(curve, 0.9, method="lower") for curve in curves)
    if usual > low:
        high = min(high, low + 3 * (usual - low))
    margin = 0.05 * (high - low)
    return (low - margin, high + margin) if margin > 0 else None
