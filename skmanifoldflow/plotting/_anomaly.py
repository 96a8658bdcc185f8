"""The strangest rows, and which columns make them so."""

import numpy as np
from sklearn.utils import check_array, column_or_1d

from .._densities.explanation import column_candidates
from ._base import Unwrapped, check_figure, check_matplotlib
from ._colors import ACCENT_COLOR, DATA_COLOR
from ._places import robust_range
from ._rows import (
    check_image_shape,
    column_labels,
    finite_shares,
    mosaic,
    name_strip,
    show_images,
    wrap,
)

__all__ = ["AnomalyDisplay"]

_MAX_COLUMNS = 8


class AnomalyDisplay:
    """The rows with the lowest log-densities among all, and the columns that make them strange.

    Left, a histogram of the log-densities of all rows, with a mark at each of the strangest ones
    and, of a detector, the threshold. Right, these rows: the share of each column in their
    strangeness as a colour, and the value that the row has there; or the rows as images, with the
    shares of the pixels below.

    Parameters
    ----------
    log_density : array-like of shape (n_samples,)
        Log-densities of all rows, in nats; -inf are counted but not drawn.
    rows : array-like of shape (n_strange, n_features), default=None
        The strangest rows, from the lowest log-density on.
    shares : array-like of shape (n_strange, n_features), default=None
        Nats that each column has a part of, as `NoveltyDetector.explain` returns them. Rows and
        shares are drawn if both are given.
    threshold : float, default=None
        Log-density below which a row is strange.
    column_names : array-like of shape (n_features,), default=None
        Names of the columns. None numbers them from 1.
    row_names : array-like of shape (n_strange,), default=None
        Names of the strange rows. None numbers them in the order of strangeness.
    image_shape : tuple (C, H, W), default=None
        Channels (1 or 3), height and width of the images that rows are. None draws a table.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Axes of the histogram, and of the table, or of the images and of their shares.
    figure_ : matplotlib Figure or SubFigure
        Their figure.
    marks_ : matplotlib LineCollection
        Marks at the strangest rows.
    threshold_ : matplotlib Line2D or None
        The threshold.
    image_ : matplotlib AxesImage or None
        The shares.
    colorbar_ : matplotlib Colorbar or None
        Scale of the shares. Negative ones, of values that are more common than expected, have the
        colour of zero.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skmanifoldflow.plotting import AnomalyDisplay
    >>> X = load_iris(as_frame=True).data
    >>> mixture = GaussianMixture(3, random_state=0).fit(X)
    >>> display = AnomalyDisplay.from_estimator(mixture, X, n_rows=5)
    >>> display.shares.shape
    (5, 4)
    """

    def __init__(
        self,
        log_density,
        *,
        rows=None,
        shares=None,
        threshold=None,
        column_names=None,
        row_names=None,
        image_shape=None,
    ):
        self.log_density = log_density
        self.rows = rows
        self.shares = shares
        self.threshold = threshold
        self.column_names = column_names
        self.row_names = row_names
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls, estimator, X, *, n_rows=10, image_shape=None, image_kw=None, figure=None
    ):
        """Draw the strangest rows under a fitted model.

        Parameters
        ----------
        estimator : estimator instance
            Fitted model with `score_samples`: a :class:`~skmanifoldflow.NoveltyDetector`, whose
            threshold is drawn, any density, a :class:`~sklearn.pipeline.Pipeline` that ends in one,
            or a search over either. Scores and shares of a pipeline are those of its last step.
        X : array-like of shape (n_samples, n_features)
            Rows. The index of a frame names them.
        n_rows : int, default=10
            How many of the strangest rows are drawn. Each costs the scores of 64 rows per column.
        image_shape : tuple (C, H, W), default=None
            Shape of the images that rows are. None is `image_shape` of the model where there is
            such a parameter.
        image_kw : dict, default=None
            Options of matplotlib's `imshow` for the shares.
        figure : matplotlib Figure or SubFigure, default=None
            Figure to draw on. None makes a new one.

        Returns
        -------
        display : AnomalyDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the model has no `score_samples`, `n_rows` is not positive, or rows are no images of
            that shape.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import NoveltyDetector
        >>> from skmanifoldflow.plotting import AnomalyDisplay
        >>> X = load_wine(as_frame=True).data
        >>> mixture = GaussianMixture(2, reg_covar=1e-3, random_state=0)
        >>> detector = NoveltyDetector(mixture, random_state=0).fit(X)
        >>> display = AnomalyDisplay.from_estimator(detector, X, n_rows=3)
        >>> display.threshold == detector.offset_
        True
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        if n_rows < 1:
            raise ValueError(f"n_rows must be at least 1, got {n_rows}.")
        unwrapped = Unwrapped(estimator)
        unwrapped.need("score_samples")
        model = unwrapped.model
        of_model = unwrapped.to_model(X)
        log_density = np.asarray(model.score_samples(of_model))
        order = np.argsort(log_density, kind="stable")[:n_rows]
        shown = unwrapped.to_shown(X)
        rows = check_array(of_model)
        # In the columns of the model, which need not be those that are shown.
        shares = unwrapped.explain(rows[order].astype(float), column_candidates(rows))
        names = unwrapped.column_names(shown.shape[1])
        if shown.shape[1] != rows.shape[1]:
            shown, names = rows, getattr(model, "feature_names_in_", None)
        row_names = np.asarray(X.index)[order] if hasattr(X, "iloc") else order
        offset = getattr(model, "offset_", None)
        display = cls(
            log_density,
            rows=shown[order],
            shares=shares,
            threshold=offset if hasattr(model, "p_value") else None,
            column_names=names,
            row_names=row_names,
            image_shape=unwrapped.image_shape(image_shape),
        )
        return display.plot(figure=figure, image_kw=image_kw)

    def plot(self, figure=None, *, image_kw=None):
        """Draw the rows.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, default=None
            Figure to draw on. None makes a new one.
        image_kw : dict, default=None
            Options of matplotlib's `imshow` for the shares.

        Returns
        -------
        display : AnomalyDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If what is given does not fit together.

        Examples
        --------
        >>> from skmanifoldflow.plotting import AnomalyDisplay
        >>> display = AnomalyDisplay([-3.0, -1.0, -1.5], threshold=-2.0).plot()
        >>> display.threshold_.get_label()
        'threshold'
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        scores = column_or_1d(np.asarray(self.log_density, dtype=float))
        if np.isnan(scores).any() or np.isposinf(scores).any() or not np.isfinite(scores).any():
            raise ValueError("log_density must hold numbers or -inf, and some that are finite.")
        self.image_ = self.colorbar_ = self.threshold_ = None
        if self.rows is None or self.shares is None:
            self.figure_ = check_figure(figure, 6.4, 3.6)
            self.axes_ = np.array([self.figure_.subplots()])
            self._count(self.axes_[0], scores, 1)
            return self
        rows = check_array(self.rows, input_name="rows")
        shares = check_array(self.shares, ensure_all_finite=False, input_name="shares")
        if rows.shape != shares.shape or np.isnan(shares).any():
            raise ValueError(
                f"shares must be numbers of the shape of rows, {rows.shape}, got {shares.shape}."
            )
        columns = column_labels(self.column_names, rows.shape[1])
        names = range(1, len(rows) + 1) if self.row_names is None else self.row_names
        if len(names) != len(rows):
            raise ValueError(f"row_names must hold {len(rows)} names, got {len(names)}.")
        lowest = np.sort(scores)[: len(rows)]
        options = {"cmap": "Reds"} | (image_kw or {})
        check_image_shape(self.image_shape, rows.shape[1])
        if self.image_shape is not None:
            self._plot_images(figure, scores, rows, shares, options)
        else:
            labels = [f"{name} ({score:.1f})" for name, score in zip(names, lowest, strict=True)]
            self._plot_table(figure, scores, rows, shares, columns, labels, options)
        return self

    def _count(self, ax, scores, n_marked):
        finite = scores[np.isfinite(scores)]
        lowest = np.sort(scores)[:n_marked]
        # Far out there are a few rows, which must not squash the others.
        low, high = robust_range(finite, 0.98, 0.3)
        marked = lowest[np.isfinite(lowest)]
        is_far = marked < low
        ax.hist(finite, bins=np.linspace(low, high, 41), color=DATA_COLOR)
        style = {"colors": ACCENT_COLOR, "label": f"the {n_marked} strangest"}
        self.marks_ = ax.vlines(
            np.maximum(marked, low), 0, 0.06, transform=ax.get_xaxis_transform(), **style
        )
        ax.set_xlim(low - 0.02 * (high - low), high)
        n_far = int(is_far.sum()) + int(np.isneginf(lowest).sum())
        if n_far:
            ax.annotate(
                f"{n_far} below", (0.02, 0.08), xycoords="axes fraction", color=ACCENT_COLOR
            )
        if self.threshold is not None and np.isfinite(self.threshold):
            self.threshold_ = ax.axvline(
                self.threshold, color="0.2", linestyle="--", label="threshold"
            )
        ax.set(xlabel="log-density in nats", ylabel="rows")
        where = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3}
        ax.legend(**where, frameon=False, ncols=2 if len(self.axes_) == 3 else 1)

    def _plot_table(self, figure, scores, rows, shares, columns, labels, options):
        few = shares.shape[1] > _MAX_COLUMNS
        most = np.max(shares, axis=0)
        kept = np.sort(np.argsort(-most, kind="stable")[:_MAX_COLUMNS])
        height = max(3.2, 1.4 + 0.32 * len(rows))
        self.figure_ = check_figure(figure, 5 + 0.85 * len(kept), height)
        self.axes_ = self.figure_.subplots(1, 2, width_ratios=[3.2, 1 + 0.85 * len(kept)])
        self._count(self.axes_[0], scores, len(rows))
        ax = self.axes_[1]
        drawn = np.maximum(finite_shares(shares)[:, kept], 0)
        limits = {"vmin": 0, "vmax": max(float(drawn.max()), 1.0)}
        self.image_ = ax.imshow(drawn, aspect="auto", **limits | options)
        for i, j in np.ndindex(*drawn.shape):
            shade = self.image_.norm(drawn[i, j])
            color = "white" if shade > 0.6 else "0.2"
            text = f"{rows[i, kept[j]]:.4g}"
            ax.text(j, i, text, ha="center", va="center", color=color, fontsize="small")
        names = [wrap(columns[column], 12) for column in kept]
        ax.set_xticks(range(len(kept)), names, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(len(rows)), labels)
        title = f"the {len(kept)} of {shares.shape[1]} columns that tell most" if few else ""
        ax.set(ylabel="row (log-density)", title=title)
        self.colorbar_ = self.figure_.colorbar(self.image_, ax=ax, label="share of a column, nats")

    def _plot_images(self, figure, scores, rows, shares, options):
        channels, height, width = self.image_shape
        self.figure_ = check_figure(figure, 8, 3 + 15 * height / (len(rows) * width))
        part = height / (len(rows) * width) * 7.5
        self.axes_ = self.figure_.subplots(3, 1, height_ratios=[2.4, part, part])
        self._count(self.axes_[0], scores, len(rows))
        show_images(self.axes_[1], rows, self.image_shape, len(rows))
        name_strip(self.axes_[1], "rows")
        drawn = np.maximum(finite_shares(shares), 0).reshape(len(rows), channels, -1).sum(axis=1)
        ax = self.axes_[2]
        limits = {"vmin": 0, "vmax": max(float(drawn.max()), 1.0), "interpolation": "nearest"}
        self.image_ = ax.imshow(
            mosaic(drawn, (height, width), len(rows), np.nan), **limits | options
        )
        ax.set(xticks=[], yticks=[])
        ax.set_frame_on(False)
        name_strip(ax, "shares")
        self.colorbar_ = self.figure_.colorbar(
            self.image_, ax=self.axes_[1:], label="nats", shrink=0.8, pad=0.01
        )
