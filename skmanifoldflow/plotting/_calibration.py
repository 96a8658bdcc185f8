"""Whether rows are as probable as a model says."""

import numpy as np
from scipy.stats import kstwo
from sklearn.utils import check_random_state, column_or_1d

from ._base import Unwrapped, check_matplotlib, new_axes
from ._colors import SAMPLE_COLOR

__all__ = ["CalibrationDisplay"]

_N_SAMPLES, _CONFIDENCE = 10_000, 0.95
_XLABEL = "share of the model's samples with no higher density"


class CalibrationDisplay:
    """How many rows have log-densities that a model gives to few of its own samples.

    The probability integral transform [1]_ of a log-density is the share of the samples of a model
    whose log-density is no higher. Of fresh rows from the density of the model it is uniform, and
    its distribution function the diagonal. A curve above the diagonal says that too many rows lie
    where the model has hardly any probability: it is too narrow, or fitted its training rows too
    closely. One below says that it is too wide. Within the band a model is not told from the truth.

    Parameters
    ----------
    pit : array-like of shape (n_samples,)
        Probability integral transforms, between 0 and 1.
    n_samples : int, default=None
        Number of samples behind the shares, which widen the band. None leaves that out.
    xlabel : str, default="share of the model's samples with no higher density"
        What the transforms are, below the horizontal axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Its figure.
    line_ : matplotlib Line2D
        Distribution function of the transforms.
    diagonal_ : matplotlib Line2D
        That of a model which is right.
    band_ : matplotlib PolyCollection
        Band in which the whole curve of such a model lies with a probability of 95 %, by the
        distribution of the statistic of Kolmogorov and Smirnov.

    References
    ----------
    .. [1] Gneiting, T., Balabdaoui, F., Raftery, A. E. "Probabilistic Forecasts, Calibration and
       Sharpness". Journal of the Royal Statistical Society B 69, 2007.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklearn.mixture import GaussianMixture
    >>> from skmanifoldflow.plotting import CalibrationDisplay
    >>> X, _ = make_moons(600, noise=0.1, random_state=0)
    >>> mixture = GaussianMixture(8, random_state=0).fit(X[:300])
    >>> CalibrationDisplay.from_estimator(mixture, X[300:]).pit.shape
    (300,)
    """

    def __init__(self, pit, n_samples=None, *, xlabel=_XLABEL):
        self.pit = pit
        self.n_samples = n_samples
        self.xlabel = xlabel

    @classmethod
    def from_estimator(
        cls, estimator, X, *, n_samples=_N_SAMPLES, random_state=0, line_kw=None, ax=None
    ):
        """Draw the probability integral transforms of rows under a fitted model.

        Parameters
        ----------
        estimator : estimator instance
            Fitted model with `score_samples` and `sample`, a :class:`~sklearn.pipeline.Pipeline`
            that ends in one, or a search over either. Of a
            :class:`~skmanifoldflow.NoveltyDetector` the p-values are drawn, which come from rows
            out of fold and are right even where the density is not.
        X : array-like of shape (n_samples, n_features)
            Rows that the model was not fitted to. Under a model of integers that were spread they
            are spread likewise.
        n_samples : int, default=10_000
            Samples of the model.
        random_state : int, RandomState instance or None, default=0
            Source of the samples.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the curve.
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        Returns
        -------
        display : CalibrationDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the model lacks a method.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from sklearn.datasets import make_moons
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow.plotting import CalibrationDisplay
        >>> X, _ = make_moons(600, noise=0.1, random_state=0)
        >>> mixture = GaussianMixture(8, random_state=0).fit(X[:300])
        >>> display = CalibrationDisplay.from_estimator(mixture, X[300:])
        >>> bool(0 <= display.pit.min() and display.pit.max() <= 1)
        True
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        unwrapped = Unwrapped(estimator)
        model = unwrapped.model
        if hasattr(model, "p_value"):
            unwrapped.need()
            pit = model.p_value(unwrapped.to_model(X))
            n_samples, xlabel = len(model.calibration_scores_), "p-value"
        else:
            unwrapped.need("score_samples", "sample")
            xlabel = _XLABEL
            seed = check_random_state(random_state).randint(2**31)
            own = np.sort(unwrapped.score(unwrapped.draw(n_samples, seed)))
            scores = model.score_samples(unwrapped.to_model(X))
            pit = np.searchsorted(own, scores, side="right") / n_samples
        return cls(pit, n_samples, xlabel=xlabel).plot(ax=ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Draw the distribution function of the transforms.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the curve.

        Returns
        -------
        display : CalibrationDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If transforms are not numbers between 0 and 1.

        Examples
        --------
        >>> from skmanifoldflow.plotting import CalibrationDisplay
        >>> CalibrationDisplay([0.2, 0.7, 0.9]).plot().line_.get_xdata().tolist()
        [0.0, 0.2, 0.7, 0.9, 1.0]
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        pit = column_or_1d(np.asarray(self.pit, dtype=float))
        if not len(pit) or not ((pit >= 0) & (pit <= 1)).all():
            raise ValueError("pit must hold numbers between 0 and 1.")
        ax = new_axes(4.8, 4.8) if ax is None else ax
        x = np.concatenate([[0.0], np.sort(pit), [1.0]])
        y = np.concatenate([[0.0], np.arange(1, len(pit) + 1) / len(pit), [1.0]])
        n = len(pit)
        # Of two samples it is as of one whose size is half their harmonic mean.
        n = (
            n
            if self.n_samples is None
            else max(1, round(n * self.n_samples / (n + self.n_samples)))
        )
        width = kstwo.ppf(_CONFIDENCE, n)
        t = np.linspace(0, 1, 201)
        low, high = np.clip(t - width, 0, 1), np.clip(t + width, 0, 1)
        label = f"{100 * _CONFIDENCE:.0f} % band of a model that is right"
        self.band_ = ax.fill_between(t, low, high, color="0.9", linewidth=0, label=label)
        (self.diagonal_,) = ax.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1)
        style = {"color": SAMPLE_COLOR, "label": "rows", "drawstyle": "steps-post"}
        (self.line_,) = ax.plot(x, y, **style | (line_kw or {}))
        ax.set(
            xlabel=self.xlabel,
            ylabel="share of the rows",
            xlim=(0, 1),
            ylim=(0, 1),
            aspect="equal",
        )
        ax.legend(loc="lower right", frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self
