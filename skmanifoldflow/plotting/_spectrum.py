"""The spectrum of a model, and the dimension read from it."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._dimension.spectra import LEAST_GAP
from ._base import Unwrapped, check_matplotlib, new_axes
from ._colors import ACCENT_COLOR, SAMPLE_COLOR

__all__ = ["SpectrumDisplay"]


class SpectrumDisplay:
    """Spectrum of the local covariance of a model, and the dimension read from it.

    A drawing of the eigenvalues on a log scale. Those of the manifold are filled, those that count
    as noise are hollow. There is a gap between them if the last eigenvalue of the manifold is at
    least eight times the next one, and that factor is larger than any between eigenvalues on the
    same side of the gap. Without a gap all eigenvalues are drawn alike, and no dimension.

    Parameters
    ----------
    spectrum : array-like of shape (n_features,)
        Eigenvalues in descending order: variances, in the units of the noise.
    noise_variance : float
        Variance of the noise that was added to the rows in the fit. No eigenvalue below it has a
        meaning.
    intrinsic_dimension : int
        Number of eigenvalues that belong to the manifold.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Its figure.
    lines_ : tuple of matplotlib Line2D
        Eigenvalues of the manifold, and those of the noise; without a gap, all eigenvalues.
    floor_ : matplotlib Line2D
        Horizontal line at `noise_variance`.
    dimension_ : matplotlib Line2D or None
        Vertical line behind the last eigenvalue of the manifold; None without a gap.

    Examples
    --------
    >>> from skmanifoldflow.plotting import SpectrumDisplay
    >>> display = SpectrumDisplay([2.1, 0.8, 0.003], noise_variance=4e-4, intrinsic_dimension=2)
    >>> display.plot().ax_.get_yscale()
    'log'
    """

    def __init__(self, spectrum, *, noise_variance, intrinsic_dimension):
        self.spectrum = spectrum
        self.noise_variance = noise_variance
        self.intrinsic_dimension = intrinsic_dimension

    @classmethod
    def from_estimator(cls, estimator, *, line_kw=None, ax=None):
        """Draw the spectrum of a fitted estimator.

        Parameters
        ----------
        estimator : estimator instance
            Fitted estimator with `local_spectrum_`, such as
            :class:`~skmanifoldflow.ManifoldPriorFlow`, a :class:`~sklearn.pipeline.Pipeline` that
            ends in one, or a search over either, whose best estimator is drawn.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the eigenvalues.
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        Returns
        -------
        display : SpectrumDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the estimator has no spectrum.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from skmanifoldflow import ManifoldPriorFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> from skmanifoldflow.plotting import SpectrumDisplay
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> flow = ManifoldPriorFlow(n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> len(SpectrumDisplay.from_estimator(flow).spectrum)
        2
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        model = Unwrapped(estimator).model
        check_is_fitted(model)
        if not hasattr(model, "local_spectrum_"):
            raise ValueError(f"{type(model).__name__} has no spectrum.")
        report = getattr(model, "dimension_report_", None)
        # Models of earlier versions read their dimension from the spectrum.
        own = None if report is None else report.spectral_dimension
        display = cls(
            model.local_spectrum_,
            noise_variance=model._noise_variance,
            intrinsic_dimension=model.intrinsic_dimension_ if own is None else own,
        )
        return display.plot(ax=ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Draw the spectrum.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.
        line_kw : dict, default=None
            Options of matplotlib's `plot` for the eigenvalues.

        Returns
        -------
        display : SpectrumDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from skmanifoldflow.plotting import SpectrumDisplay
        >>> display = SpectrumDisplay([2.1, 0.003], noise_variance=4e-4, intrinsic_dimension=1)
        >>> display.plot().ax_.get_yscale()
        'log'
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        from matplotlib.ticker import MaxNLocator

        ax = new_axes() if ax is None else ax
        spectrum = np.asarray(self.spectrum)
        index = np.arange(1, len(spectrum) + 1)
        d = self.intrinsic_dimension
        style = {"marker": "o", "linestyle": "none", "color": SAMPLE_COLOR} | (line_kw or {})
        self.dimension_ = None
        if self._has_gap(spectrum):
            (kept,) = ax.plot(index[:d], spectrum[:d], label="manifold", **style)
            hollow = {"label": "noise", "markerfacecolor": "none"} | style
            (rest,) = ax.plot(index[d:], spectrum[d:], **hollow)
            self.lines_ = kept, rest
        else:
            self.lines_ = tuple(ax.plot(index, spectrum, label="eigenvalues, no gap", **style))
        self.floor_ = ax.axhline(
            self.noise_variance, linestyle="--", color="0.4", label="noise floor"
        )
        if len(self.lines_) == 2:
            self.dimension_ = ax.axvline(
                d + 0.5, linestyle=":", color=ACCENT_COLOR, label=f"dimension {d}"
            )
        ax.set_yscale("log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        # There is no component 0, so no place for it.
        ax.set(xlabel="component", ylabel="eigenvalue", xlim=(0.3, len(spectrum) + 0.7))
        ax.legend()
        self.ax_ = ax
        self.figure_ = ax.figure
        return self

    def _has_gap(self, spectrum):
        """Tell whether the eigenvalues of the manifold are far above the others."""
        d = self.intrinsic_dimension
        if not 0 < d < len(spectrum):
            return False
        spectrum = np.maximum(spectrum, 2 * self.noise_variance)
        manifold, noise = spectrum[:d], spectrum[d:]
        widest = max(LEAST_GAP, manifold[0] / manifold[-1], noise[0] / noise[-1])
        return manifold[-1] >= widest * noise[0]
