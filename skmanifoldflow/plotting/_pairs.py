"""Rows and samples of a model, column against column."""

from numbers import Integral

import numpy as np
from scipy.stats import ks_2samp
from sklearn.utils import check_array, check_random_state

from ._base import Unwrapped, check_figure, check_matplotlib
from ._colors import DATA_COLOR, SAMPLE_COLOR
from ._places import robust_range
from ._rows import column_labels, thin, wrap

__all__ = ["PairDisplay"]

_MAX_COLUMNS, _MAX_POINTS, _N_BINS = 4, 1000, 30


class PairDisplay:
    """Rows and samples of a model: histograms of columns, and each column against each other one.

    Where the model is right, samples lie as rows do.

    Parameters
    ----------
    rows : array-like of shape (n_rows, n_columns)
        Rows of data, better those that the model was not fitted to.
    samples : array-like of shape (n_samples, n_columns)
        Rows drawn from the model.
    column_names : array-like of shape (n_columns,), default=None
        Names of the columns. None numbers them from 1.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, of shape (n_columns, n_columns)
        Axes; those above the diagonal are empty.
    figure_ : matplotlib Figure or SubFigure
        Their figure.
    row_points_ : list of matplotlib PathCollection
        Rows, panel by panel below the diagonal.
    sample_points_ : list of matplotlib PathCollection
        Samples.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skmanifoldflow.plotting import PairDisplay
    >>> X = load_iris(as_frame=True).data
    >>> display = PairDisplay.from_estimator(GaussianMixture(3, random_state=0).fit(X), X)
    >>> display.axes_.shape
    (4, 4)
    """

    def __init__(self, rows, samples, column_names=None):
        self.rows = rows
        self.samples = samples
        self.column_names = column_names

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        columns=None,
        n_samples=None,
        random_state=0,
        row_kw=None,
        sample_kw=None,
        figure=None,
    ):
        """Draw rows and samples of a fitted model.

        Parameters
        ----------
        estimator : estimator instance
            Fitted model with `sample`, a :class:`~sklearn.pipeline.Pipeline` that ends in one, or a
            search over either. Where a step of a pipeline has no inverse, both are shown after the
            steps, and the names say so.
        X : array-like of shape (n_rows, n_features)
            Rows, of which at most 1000, evenly spaced, are drawn; all are counted.
        columns : list of int or str, default=None
            Columns by number from 0 or by name. None is all of up to four, else the four whose
            distributions differ most between rows and samples, by the statistic of Kolmogorov and
            Smirnov, in the order of the table.
        n_samples : int, default=None
            Number of samples. None draws as many as there are rows.
        random_state : int, RandomState instance or None, default=0
            Source of the samples.
        row_kw, sample_kw : dict, default=None
            Options of matplotlib's `scatter` for rows and for samples.
        figure : matplotlib Figure or SubFigure, default=None
            Figure to draw on. None makes a new one.

        Returns
        -------
        display : PairDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the model has no `sample`, or has no such columns.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow.plotting import PairDisplay
        >>> X = load_wine(as_frame=True).data
        >>> mixture = GaussianMixture(3, random_state=0).fit(X)
        >>> columns = ["alcohol", "hue"]
        >>> PairDisplay.from_estimator(mixture, X, columns=columns).column_names
        ['alcohol', 'hue']
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        unwrapped = Unwrapped(estimator)
        unwrapped.need("sample")
        rows = unwrapped.to_shown(X)
        seed = check_random_state(random_state).randint(2**31)
        drawn = unwrapped.draw(len(rows) if n_samples is None else n_samples, seed)
        samples = unwrapped.from_model(drawn)
        names = column_labels(unwrapped.column_names(rows.shape[1]), rows.shape[1])
        chosen = _chosen(columns, names, rows, samples)
        display = cls(rows[:, chosen], samples[:, chosen], [names[column] for column in chosen])
        return display.plot(figure=figure, row_kw=row_kw, sample_kw=sample_kw)

    def plot(self, figure=None, *, row_kw=None, sample_kw=None):
        """Draw the columns against each other.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, default=None
            Figure to draw on. None makes a new one.
        row_kw, sample_kw : dict, default=None
            Options of matplotlib's `scatter` for rows and for samples.

        Returns
        -------
        display : PairDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If rows, samples and names do not have the same columns.

        Examples
        --------
        >>> from skmanifoldflow.plotting import PairDisplay
        >>> display = PairDisplay([[0.0, 1.0], [2.0, 3.0]], [[0.5, 1.0], [1.0, 2.5]]).plot()
        >>> len(display.sample_points_)
        1
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        rows = check_array(self.rows, input_name="rows")
        samples = check_array(self.samples, input_name="samples")
        n = rows.shape[1]
        if samples.shape[1] != n:
            raise ValueError(f"rows have {n} columns, but samples have {samples.shape[1]}.")
        names = column_labels(self.column_names, n)
        side = 4.5 if n == 1 else max(1.9 * n, 5)
        self.figure_ = check_figure(figure, side, side)
        self.axes_ = self.figure_.subplots(n, n, squeeze=False)
        limits = [_limits(*both) for both in zip(rows.T, samples.T, strict=True)]
        self.row_points_: list = []
        self.sample_points_: list = []
        size = np.clip(3000 / min(len(rows), _MAX_POINTS), 3, 15)
        style = {"s": size, "linewidths": 0}
        of_rows = style | {"color": "0.55"} | (row_kw or {})
        of_samples = style | {"color": SAMPLE_COLOR, "alpha": 0.7} | (sample_kw or {})
        for i in range(n):
            for j in range(n):
                ax = self.axes_[i, j]
                if j > i:
                    ax.set_axis_off()
                    continue
                if i == j:
                    handles = _count(ax, rows[:, i], samples[:, i], limits[i])
                else:
                    for drawn, artists, options in (
                        (rows, self.row_points_, of_rows),
                        (samples, self.sample_points_, of_samples),
                    ):
                        few = thin(drawn, _MAX_POINTS)
                        artists.append(ax.scatter(few[:, j], few[:, i], **options))
                    ax.set_ylim(*limits[i])
                ax.set_xlim(*limits[j])
                self._label(ax, i, j, names)
        self.figure_.align_ylabels()
        where = {"loc": "upper right"} if n > 1 else {"loc": "outside lower center", "ncols": 2}
        self.figure_.legend(handles=handles, labels=["rows", "samples"], frameon=False, **where)
        return self

    def _label(self, ax, i, j, names):
        if i == len(names) - 1:
            ax.set_xlabel(wrap(names[j]))
        else:
            ax.tick_params(labelbottom=False)
        if j == 0 and i > 0:
            ax.set_ylabel(wrap(names[i]))
        elif j > 0:
            ax.tick_params(labelleft=False)


def _limits(rows, samples):
    """Return limits around most of the rows and most of the samples of a column."""
    low, high = np.transpose([robust_range(v, 0.98, margin=0.1) for v in (rows, samples)])
    return low.min(), high.max()


def _chosen(columns, names, rows, samples):
    """Return the numbers of the columns to draw."""
    if columns is not None:
        given = [columns] if isinstance(columns, str | Integral) else list(columns)
        chosen = [names.index(c) if isinstance(c, str) and c in names else c for c in given]
        fit = all(isinstance(c, Integral) and 0 <= int(c) < len(names) for c in chosen)
        if not chosen or not fit:
            raise ValueError(
                f"columns must be names of columns, or numbers between 0 and {len(names) - 1}, "
                f"got {given}."
            )
        return [int(c) for c in chosen]
    if len(names) <= _MAX_COLUMNS:
        return list(range(len(names)))
    off = [ks_2samp(a, b, method="asymp").statistic for a, b in zip(rows.T, samples.T, strict=True)]
    return sorted(np.argsort(off)[::-1][:_MAX_COLUMNS].tolist())


def _count(ax, rows, samples, limits):
    """Draw two histograms with the same bins and return their artists."""
    bins = np.linspace(limits[0], limits[1], _N_BINS + 1)
    handles = []
    for values, style in (
        (rows, {"color": DATA_COLOR, "histtype": "stepfilled"}),
        (samples, {"color": SAMPLE_COLOR, "histtype": "step", "linewidth": 1.3}),
    ):
        # Shares of all rows, those outside the limits among them.
        weights = np.full(len(values), 1 / len(values))
        handles.append(ax.hist(values, bins=bins, weights=weights, **style)[2][0])
    ax.set(yticks=[])
    return handles
