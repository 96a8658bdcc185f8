"""The readings of an intrinsic dimension, scale by scale."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._dimension import intrinsic_dimension
from ._base import Unwrapped, check_matplotlib, new_axes
from ._colors import ACCENT_COLOR, SAMPLE_COLOR

__all__ = ["DimensionDisplay"]


class DimensionDisplay:
    """Estimates of the intrinsic dimension by nearest neighbours over the scale.

    Two curves, of the rows as they are and calibrated, and the dimension that was read. The curve
    of the rows is above the dimension at small scales where there is noise. The calibrated one is
    level at the dimension where all is well. The title says how well the readings agree.

    Parameters
    ----------
    report : DimensionReport
        What :func:`~skmanifoldflow.intrinsic_dimension` returned, or `dimension_report_` of a
        fitted estimator.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Its figure.
    lines_ : tuple of matplotlib Line2D
        Estimates of the rows, and calibrated.
    dimension_ : matplotlib Line2D
        Horizontal line at the dimension.

    Examples
    --------
    >>> from skmanifoldflow import intrinsic_dimension
    >>> from skmanifoldflow.datasets import SCurve
    >>> from skmanifoldflow.plotting import DimensionDisplay
    >>> X, _ = SCurve(noise=0.05).sample(500, random_state=0)
    >>> DimensionDisplay(intrinsic_dimension(X)).plot().dimension_.get_label()
    'dimension 2'
    """

    def __init__(self, report):
        self.report = report

    @classmethod
    def from_data(cls, X, *, scale=True, random_state=0, line_kw=None, ax=None):
        """Read the dimension of rows and draw it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        scale : bool, default=True
            Whether to standardise the columns, as in `intrinsic_dimension`.
        random_state : int, RandomState instance or None, default=0
            Source of what is drawn in `intrinsic_dimension`.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the curves.
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        Returns
        -------
        display : DimensionDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If rows are not finite, or fewer than two.

        Examples
        --------
        >>> from skmanifoldflow.datasets import SCurve
        >>> from skmanifoldflow.plotting import DimensionDisplay
        >>> X, _ = SCurve(noise=0.05).sample(500, random_state=0)
        >>> DimensionDisplay.from_data(X).report.dimension
        2
        """
        check_matplotlib(f"{cls.__name__}.from_data")
        report = intrinsic_dimension(X, scale=scale, random_state=random_state)
        return cls(report).plot(ax=ax, line_kw=line_kw)

    @classmethod
    def from_estimator(cls, estimator, *, line_kw=None, ax=None):
        """Draw the dimension of the rows that an estimator was fitted to.

        Parameters
        ----------
        estimator : estimator instance
            Fitted estimator with `dimension_report_`, a :class:`~sklearn.pipeline.Pipeline` that
            ends in one, or a search over either, whose best estimator is drawn.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the curves.
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        Returns
        -------
        display : DimensionDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the estimator has no report, or one of an earlier version without scales.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from skmanifoldflow import ManifoldPriorFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> from skmanifoldflow.plotting import DimensionDisplay
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> flow = ManifoldPriorFlow(n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> DimensionDisplay.from_estimator(flow).report == flow.dimension_report_
        True
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        model = Unwrapped(estimator).model
        check_is_fitted(model)
        if not hasattr(model, "dimension_report_"):
            raise ValueError(f"{type(model).__name__} has no report of the dimension.")
        return cls(model.dimension_report_).plot(ax=ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Draw the readings.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the curves.

        Returns
        -------
        display : DimensionDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the report has no scales, because the rows were too few.

        Examples
        --------
        >>> from skmanifoldflow import intrinsic_dimension
        >>> from skmanifoldflow.datasets import SCurve
        >>> from skmanifoldflow.plotting import DimensionDisplay
        >>> X, _ = SCurve(noise=0.05).sample(500, random_state=0)
        >>> DimensionDisplay(intrinsic_dimension(X)).plot().ax_.get_xscale()
        'log'
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        report = self.report
        scales = getattr(report, "neighbors", ())
        if not isinstance(scales, tuple) or not scales:
            raise ValueError(
                "The report has no scales: the rows were too few, or it is an old one."
            )
        ax = new_axes() if ax is None else ax
        style = {"marker": "o", "color": SAMPLE_COLOR} | (line_kw or {})
        as_they_are = {"label": "rows", "markerfacecolor": "none", "linestyle": ":"} | style
        (rows,) = ax.plot(scales, report.rows_by_scale, **as_they_are)
        (calibrated,) = ax.plot(scales, report.calibrated_by_scale, label="calibrated", **style)
        self.lines_ = rows, calibrated
        self.dimension_ = ax.axhline(
            report.dimension,
            linestyle="--",
            color=ACCENT_COLOR,
            label=f"dimension {report.dimension}",
        )
        ax.set_xscale("log", base=2)
        ax.set_xticks(scales, [str(k) for k in scales])
        highest = np.max([*report.rows_by_scale, *report.calibrated_by_scale, report.dimension])
        ax.set(xlabel="neighbours", ylabel="estimated dimension", ylim=(0, 1.1 * highest))
        ax.set_title(f"agreement of the readings: {report.agreement}")
        ax.legend()
        self.ax_ = ax
        self.figure_ = ax.figure
        return self
