"""The course of a fit."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._base import Unwrapped, check_matplotlib, new_axes

__all__ = ["LossCurveDisplay"]


class LossCurveDisplay:
    """Loss of a fit over its epochs.

    The training loss, the negative score of the validation rows and the epoch at which that score
    is best. A few losses far above all others, as at the start, do not count for the limits of the
    vertical axis.

    Parameters
    ----------
    loss_curve : array-like of shape (n_epochs,)
        Training loss of each epoch, in nats per standardised row.
    validation_scores : array-like of shape (n_epochs,), default=None
        Score of the validation rows after each epoch, in nats per standardised row. None or an
        empty list where no rows were set aside.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Its figure.
    lines_ : tuple of matplotlib Line2D
        The training loss and, if there are any, the negative validation scores.
    best_ : matplotlib Line2D or None
        Mark at the epoch of the best validation score.

    Examples
    --------
    >>> from skmanifoldflow.plotting import LossCurveDisplay
    >>> display = LossCurveDisplay([900.0, 3.0, 2.0, 1.5], [-4.0, -2.5, -2.0, -2.2]).plot()
    >>> display.best_.get_label()
    'best epoch: 3'
    """

    def __init__(self, loss_curve, validation_scores=None):
        self.loss_curve = loss_curve
        self.validation_scores = validation_scores

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the course of the fit of an estimator.

        Parameters
        ----------
        estimator : estimator instance
            Fitted estimator with `loss_curve_` and, optionally, `validation_scores_`, a
            :class:`~sklearn.pipeline.Pipeline` that ends in one, or a search over either, whose
            best estimator is drawn.
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
        display = cls(np.asarray(model.loss_curve_), None if scores is None else np.asarray(scores))
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

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

        losses, scores = self._check_curves()
        ax = new_axes() if ax is None else ax
        epochs = np.arange(1, len(losses) + 1)
        # A line through a single epoch would not be seen.
        marker = "o" if len(losses) == 1 else None
        lines = ax.plot(epochs, losses, color="#0072B2", marker=marker, label="training loss")
        self.best_ = None
        if len(scores):
            lines += ax.plot(
                epochs, -scores, color="#D55E00", marker=marker, label="validation: minus the score"
            )
        if np.isfinite(scores).any():
            best = int(np.argmax(np.where(np.isfinite(scores), scores, -np.inf)))
            (self.best_,) = ax.plot(
                epochs[best],
                -scores[best],
                color="black",
                linestyle="none",
                marker="*",
                markersize=12,
                label=f"best epoch: {epochs[best]}",
                zorder=3,
            )
        self.lines_ = tuple(lines)
        limits = _limits([losses, -scores])
        if limits is not None:
            ax.set_ylim(*limits)
        ax.set_xlim(0.5, len(losses) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="epoch", ylabel="nats per standardised row")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _check_curves(self):
        losses = np.asarray(self.loss_curve, dtype=float)
        scores = self.validation_scores
        scores = np.empty(0) if scores is None else np.asarray(scores, dtype=float)
        if losses.ndim != 1 or not len(losses):
            raise ValueError(
                f"loss_curve must hold one loss for each epoch, got an array of shape "
                f"{losses.shape}."
            )
        if scores.size and scores.shape != losses.shape:
            raise ValueError(
                f"validation_scores must hold one score for each of the {len(losses)} epochs, got "
                f"an array of shape {scores.shape}."
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
