"""Where the density of a model lies, over two columns or over the coordinates of the model."""

import warnings
from numbers import Integral

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_array, check_random_state

from .._densities.jacobians import in_domain, log_abs_det_jacobian, transformed
from ._base import Unwrapped, check_matplotlib, new_axes
from ._colors import DATA_COLOR, SAMPLE_COLOR
from ._places import at_places, grid, plane, robust_axis
from ._rows import column_labels, principal_plane, thin

__all__ = ["DensityDisplay"]

_SHARES = (0.25, 0.5, 0.75, 0.95)
_N_SAMPLES, _N_PLACES, _MAX_POINTS = 20_000, 5000, 1000
# Standard deviations of the kernel that are tried, in those of the samples.
_BANDWIDTHS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)


class DensityDisplay:
    """Density of a model as regions that hold given shares of the probability.

    Each region is the smallest one with its share, a highest density region [1]_: the density is
    the same all along its border, and higher inside. Rows lie over them.

    Parameters
    ----------
    log_density : array-like of shape (n_y, n_x) or (n_x,)
        Log-densities at the points of a grid, or of a line.
    x : array-like of shape (n_x,)
        Horizontal positions of the grid, ascending.
    y : array-like of shape (n_y,), default=None
        Vertical positions, ascending; None with a line.
    levels : array-like of shape (n_shares,), default=None
        Log-densities at the borders of the regions. None reads them from the grid, as if no
        probability lay outside.
    shares : tuple of float, default=(0.25, 0.5, 0.75, 0.95)
        Share of the probability in each region, ascending.
    points : array-like of shape (n_samples, 2) or (n_samples, 1), default=None
        Rows drawn over the density.
    names : tuple of str, default=("column 1", "column 2")
        Names on the axes.
    aspect : {"auto", "equal"}, default="auto"
        Whether both axes have one scale, as coordinates of a model should.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Its figure.
    contours_ : matplotlib QuadContourSet or None
        The regions; None with a line.
    line_ : matplotlib Line2D or None
        The density over a line.
    scatter_ : matplotlib PathCollection or None
        The rows; None where none are given, and with a line, where they are counted.
    colorbar_ : matplotlib Colorbar or None
        Shares of the regions.

    References
    ----------
    .. [1] Hyndman, R. J. "Computing and Graphing Highest Density Regions". The American
       Statistician 50, 1996.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklearn.mixture import GaussianMixture
    >>> from skmanifoldflow.plotting import DensityDisplay
    >>> X, _ = make_moons(300, noise=0.1, random_state=0)
    >>> mixture = GaussianMixture(8, random_state=0).fit(X)
    >>> display = DensityDisplay.from_estimator(mixture, X)
    >>> [label.get_text() for label in display.colorbar_.ax.get_yticklabels()]
    ['95 %', '75 %', '50 %', '25 %']
    """

    def __init__(
        self,
        log_density,
        x,
        y=None,
        *,
        levels=None,
        shares=_SHARES,
        points=None,
        names=("column 1", "column 2"),
        aspect="auto",
    ):
        self.log_density = log_density
        self.x = x
        self.y = y
        self.levels = levels
        self.shares = shares
        self.points = points
        self.names = names
        self.aspect = aspect

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        space="data",
        columns=None,
        shares=_SHARES,
        grid_resolution=100,
        random_state=0,
        contour_kw=None,
        scatter_kw=None,
        ax=None,
    ):
        """Draw the density of a fitted model.

        Parameters
        ----------
        estimator : estimator instance
            Fitted model with `score_samples`, a :class:`~sklearn.pipeline.Pipeline` that ends in
            one, or a search over either. For two of more columns it needs `sample` too, or has a
            `density_` with `sample` as :class:`~skmanifoldflow.NoveltyDetector` has; for its map,
            `transform` and `inverse_transform`.
        X : array-like of shape (n_samples, n_features)
            Rows, which set the range of the axes. At most 1000 of them, evenly spaced, are drawn.
        space : {"data", "embedding"}, default="data"
            Density over columns of the rows, or over coordinates of the model: there it is that of
            the rows that the coordinates stand for, by `score_samples_manifold` where the model has
            it, else by `score_samples`.
        columns : tuple of one or two ints or str, default=None
            Columns, or components with ``space="embedding"``, by number from 0 or by name. None is
            all columns of up to two; of more, the first two principal components of the
            standardised columns, or the first two components of the model.
        shares : tuple of float, default=(0.25, 0.5, 0.75, 0.95)
            Shares of the probability in the regions.
        grid_resolution : int, default=100
            Positions along each axis.
        random_state : int, RandomState instance or None, default=0
            Source of the samples that stand for the density of two of more columns, and for the
            shares in an embedding.
        contour_kw : dict, default=None
            Options of matplotlib's `contourf`.
        scatter_kw : dict, default=None
            Options of matplotlib's `scatter` for the rows.
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        Returns
        -------
        display : DensityDisplay
            The drawing.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the model lacks a method, or columns or shares do not fit.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Notes
        -----
        The density of one or two columns of a model of so many is exact, behind steps of a pipeline
        too if :func:`~skmanifoldflow.log_abs_det_jacobian` knows them. Otherwise it is a kernel
        density estimate of 20 000 samples of the model, with the bandwidth that is best for
        one half of them by the other half. In an embedding the shares are those of 5000 samples,
        or of the rows if the model has no `sample`, in the order of the density drawn.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow.plotting import DensityDisplay
        >>> X = load_iris(as_frame=True).data
        >>> mixture = GaussianMixture(3, random_state=0).fit(X)
        >>> columns = ("petal length (cm)", "petal width (cm)")
        >>> DensityDisplay.from_estimator(mixture, X, columns=columns).ax_.get_xlabel()
        'petal length (cm)'
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        if space not in ("data", "embedding"):
            raise ValueError(f"space must be 'data' or 'embedding', got {space!r}.")
        _check_shares(shares)
        unwrapped = Unwrapped(estimator)
        unwrapped.need("score_samples")
        rng = check_random_state(random_state)
        of = _of_embedding if space == "embedding" else _of_data
        density, axes, levels, points, names = of(
            unwrapped, X, columns, shares, grid_resolution, rng
        )
        if points is not None:
            points = thin(points, _MAX_POINTS)
        display = cls(
            density,
            *axes,
            levels=levels,
            shares=shares,
            points=points,
            names=names,
            aspect="equal" if space == "embedding" else "auto",
        )
        return display.plot(ax=ax, contour_kw=contour_kw, scatter_kw=scatter_kw)

    def plot(self, ax=None, *, contour_kw=None, scatter_kw=None):
        """Draw the density.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.
        contour_kw : dict, default=None
            Options of matplotlib's `contourf`.
        scatter_kw : dict, default=None
            Options of matplotlib's `scatter` for the rows.

        Returns
        -------
        display : DensityDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If what is given does not fit together.

        Examples
        --------
        >>> import numpy as np
        >>> from skmanifoldflow.plotting import DensityDisplay
        >>> x = np.linspace(-3, 3, 50)
        >>> log_density = -0.5 * (x[:, None] ** 2 + x**2) - np.log(2 * np.pi)
        >>> display = DensityDisplay(log_density, x, x).plot()
        >>> len(display.contours_.levels)  # a border for each share, and the highest density
        5
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        _check_shares(self.shares)
        shape = (len(self.x),) if self.y is None else (len(self.y), len(self.x))
        density = np.asarray(self.log_density, dtype=float)
        if density.shape != shape:
            raise ValueError(
                f"log_density must have the shape {shape}, a value for each position, got "
                f"{density.shape}."
            )
        if np.isnan(density).any() or not (density > -np.inf).any():
            raise ValueError("log_density must hold numbers, not all of them -inf.")
        ax = new_axes(height=self._height()) if ax is None else ax
        self.ax_, self.figure_ = ax, ax.figure
        self.contours_ = self.line_ = self.scatter_ = self.colorbar_ = None
        points = None if self.points is None else check_array(self.points, input_name="points")
        if self.y is None:
            self._plot_line(ax, density, points)
        else:
            self._plot_regions(ax, density, points, contour_kw or {}, scatter_kw or {})
        return self

    def _height(self):
        """Return the height of a new figure in inches; that of axes with one scale follows them."""
        if self.y is None or self.aspect != "equal":
            return 4.8
        ratio = (self.y[-1] - self.y[0]) / (self.x[-1] - self.x[0])
        # Beside the axes are some inches of labels and of the colour bar.
        return float(np.clip(4.8 * ratio + 0.8, 3.0, 6.4))

    def _plot_line(self, ax, density, points):
        if points is not None:
            style = {"bins": 40, "density": True, "color": DATA_COLOR, "label": "rows"}
            ax.hist(points[:, 0], **style)
        (self.line_,) = ax.plot(self.x, np.exp(density), color=SAMPLE_COLOR, label="model")
        ax.set(xlabel=self.names[0], ylabel="density")
        ax.legend()

    def _plot_regions(self, ax, density, points, contour_kw, scatter_kw):
        levels = _mass_levels(density, self.shares) if self.levels is None else self.levels
        # From the border of the largest region to the highest density, which must lie above.
        levels = np.sort(np.asarray(levels, dtype=float))
        top = max(density.max(), levels[-1])
        edges = np.append(levels, top + 1e-9 * max(1.0, abs(top)))
        # Where a density has steps, or levels are the same, borders coincide.
        edges = np.maximum.accumulate(edges + 1e-12 * np.abs(edges) * np.arange(len(edges)))
        colors = _blues(len(levels))
        finite = np.maximum(density, edges[0] - 50)
        style = {"levels": edges, "colors": colors} | contour_kw
        if "cmap" in contour_kw:
            del style["colors"]
        self.contours_ = ax.contourf(self.x, self.y, finite, **style)
        if points is not None:
            size = np.clip(4000 / len(points), 3, 15)
            style = {"s": size, "color": "0.25", "linewidths": 0, "alpha": 0.7}
            self.scatter_ = ax.scatter(*points.T, **style | scatter_kw)
        ax.set(
            xlabel=self.names[0],
            ylabel=self.names[1],
            xlim=(self.x[0], self.x[-1]),
            ylim=(self.y[0], self.y[-1]),
            aspect=self.aspect,
        )
        bar = ax.figure.colorbar(
            self.contours_, ax=ax, spacing="uniform", label="share of the probability within"
        )
        bar.set_ticks(edges[:-1], labels=[f"{100 * s:g} %" for s in sorted(self.shares)[::-1]])
        self.colorbar_ = bar


def _check_shares(shares):
    shares = np.asarray(shares, dtype=float)
    if shares.ndim != 1 or not len(shares) or not ((shares > 0) & (shares < 1)).all():
        raise ValueError(f"shares must be numbers between 0 and 1, got {shares.tolist()}.")


def _blues(n):
    from matplotlib import colormaps

    return colormaps["Blues"](np.linspace(0.2, 0.85, n))


def _mass_levels(density, shares):
    """Return the log-densities above which grid points of equal area hold shares of the mass."""
    ordered = np.sort(density.ravel())[::-1]
    mass = np.cumsum(np.exp(ordered - ordered[0]))
    within = np.searchsorted(mass, np.asarray(shares) * mass[-1])
    levels = ordered[np.minimum(within, len(ordered) - 1)]
    return np.maximum(levels, ordered[ordered > -np.inf][-1])


def _of_data(unwrapped, X, columns, shares, n, rng):
    """Return the density over columns, its axes, None, the rows in these columns, and names."""
    rows = unwrapped.to_shown(X)
    n_columns = rows.shape[1]
    names = column_labels(unwrapped.column_names(n_columns), n_columns)
    chosen = _chosen(columns, names, "column")
    if chosen is None and n_columns > 2:
        project = principal_plane(rows)
        names = ["principal component 1", "principal component 2"]
    else:
        chosen = list(range(n_columns)) if chosen is None else chosen
        names = [names[column] for column in chosen]

        def project(rows):
            return rows[:, chosen]

    points = project(rows)
    axes = [robust_axis(column, n) for column in points.T]
    # Frames that steps were fitted to had names.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        if len(names) == n_columns and n_columns <= 2 and _has_jacobian(unwrapped, rows):
            in_order = grid(*axes)[:, np.argsort(chosen)]
            return _exact(unwrapped, in_order, axes), axes, None, points, names
    density_ = getattr(unwrapped.model, "density_", None)
    if not hasattr(unwrapped.model, "sample") and hasattr(density_, "sample"):
        unwrapped.model = density_
    unwrapped.need("sample")
    drawn = project(unwrapped.from_model(unwrapped.draw(_N_SAMPLES, rng.randint(2**31))))
    return _smooth(drawn[rng.permutation(len(drawn))], axes), axes, None, points, names


def _chosen(columns, names, noun):
    """Return chosen columns as numbers, or None."""
    if columns is None:
        return None
    columns = [columns] if isinstance(columns, str | Integral) else list(columns)
    chosen = [names.index(c) if isinstance(c, str) and c in names else c for c in columns]
    fit = all(isinstance(c, Integral) and 0 <= int(c) < len(names) for c in chosen)
    if not 1 <= len(chosen) <= 2 or not fit or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"columns must be one or two different {noun}s, by name or by a number between 0 and "
            f"{len(names) - 1}, got {columns}."
        )
    return [int(c) for c in chosen]


def _exact(unwrapped, rows, axes):
    """Return the log-densities of rows on a grid, in the units in which they are shown."""
    density = np.full(len(rows), -np.inf)
    steps = [] if unwrapped.units else unwrapped.steps
    if steps:
        chain = make_pipeline(*steps)
        is_inside = in_domain(chain, rows)
        rows = rows[is_inside]
        log_det, rows = log_abs_det_jacobian(chain, rows), transformed(chain, rows)
        density[is_inside] = unwrapped.score(rows) + log_det
    else:
        density = unwrapped.score(rows)
    return density.reshape([len(axis) for axis in axes][::-1])


def _has_jacobian(unwrapped, rows):
    """Tell whether the density of rows is known in the units in which they are shown."""
    if unwrapped.units or not unwrapped.steps:
        return True
    try:
        log_abs_det_jacobian(make_pipeline(*unwrapped.steps), rows[:1])
    except ValueError:
        return False
    return True


def _smooth(points, axes):
    """Return the log of a kernel density estimate of points on a grid.

    The normal kernel is as wide as is best for the likelihood of one half by the other half.
    """
    steps = np.array([axis[1] - axis[0] for axis in axes])
    edges = [np.append(axis - h / 2, axis[-1] + h / 2) for axis, h in zip(axes, steps, strict=True)]
    half = len(points) // 2
    first, second = (np.histogramdd(part, edges)[0] for part in (points[:half], points[half:]))
    low, high = np.quantile(points, [0.05, 0.95], axis=0)
    scale = (high - low) / 3.29 / steps
    cell = 1e-3 / first.size

    def estimate(counts, bandwidth):
        width = np.maximum(bandwidth * scale, 0.3)
        return gaussian_filter(counts, width, mode="constant") / counts.sum() + cell

    def score(bandwidth):
        return (second * np.log(estimate(first, bandwidth))).sum()

    best = max(_BANDWIDTHS, key=score)
    return np.log(estimate(first + second, best).T / steps.prod())


def _of_embedding(unwrapped, X, columns, shares, n, rng):
    """Return the density over coordinates, axes, levels, the places of the rows, and names."""
    unwrapped.need("transform", "inverse_transform")
    places = unwrapped.embed(X)
    names = [f"component {k + 1}" for k in range(places.shape[1])]
    chosen = _chosen(columns, names, "component")
    chosen = list(range(min(len(names), 2))) if chosen is None else chosen
    axes = [robust_axis(places[:, k], n) for k in chosen]
    shape = [len(axis) for axis in axes][::-1]
    density = unwrapped.score_decoded(plane(places, chosen, axes)).reshape(shape)
    drawn = places
    if hasattr(unwrapped.model, "sample"):
        drawn = unwrapped.embed_rows(unwrapped.draw(_N_PLACES, rng.randint(2**31)))
    levels = np.quantile(
        at_places(density, axes, drawn[:, chosen]), 1 - np.asarray(shares), method="lower"
    )
    # Per length along the manifold, which a coordinate need not measure.
    points = places[:, chosen] if len(chosen) == 2 else None
    return density, axes, levels, points, [names[k] for k in chosen]
