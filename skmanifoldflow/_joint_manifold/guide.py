"""A guide: coordinates of another method, to which those of the first stage are drawn."""

import math
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_array
from torch import Tensor, nn

from .._linear import principal_axes
from ..backend.bijections import Bijection
from ..backend.device import randn

__all__ = ["GUIDES", "MAX_TSNE_COMPONENTS", "GuideTerm", "GuidedRows", "guide_rows", "most_rows"]

#: Guides that go by a name.
GUIDES = ("tsne", "isomap", "umap", "precomputed")

# Rows that a guide is fitted to: t-SNE of more takes longer than the flow, and Isomap has a matrix
# with a row and a column for each.
_MAX_ROWS, _MAX_ROWS_ISOMAP = 10_000, 4_000
#: Components of t-SNE at most: the approximation of Barnes and Hut, without which its time is
#: quadratic in the rows, is written for three.
MAX_TSNE_COMPONENTS = 3
# Share of them that is left out of the term.
_SHARE_LEFT_OUT = 0.1
# Nearest neighbours that a row is mixed with.
_N_NEIGHBORS = 5


class GuidedRows(NamedTuple):
    """Standardised training rows and the coordinates that a guide gives them.

    Attributes
    ----------
    rows : Tensor of shape (m, D)
        Rows in random order.
    coordinates : Tensor of shape (m, d)
        Coordinates along their principal axes, in units of their root mean square.
    weights : Tensor of shape (m,) or None
        How many rows each of them counts for; None where all count the same.
    neighbors : Tensor of int of shape (m, k)
        The nearest other rows of each.
    spacing : float
        Mean distance of a row to the nearest other one.
    left_out : tuple of Tensor
        Other rows and their coordinates.
    """

    rows: Tensor
    coordinates: Tensor
    weights: Tensor | None
    neighbors: Tensor
    spacing: float
    left_out: tuple[Tensor, Tensor]


def most_rows(guide: Any) -> int:
    """Return the number of training rows that a guide is fitted to at most."""
    # This import would be half of the time of `import skmanifoldflow`.
    from sklearn.manifold import Isomap

    is_isomap = isinstance(guide, Isomap) or (isinstance(guide, str) and guide == "isomap")
    return _MAX_ROWS_ISOMAP if is_isomap else _MAX_ROWS


def guide_rows(
    guide: Any,
    rows: Tensor,
    weights: Tensor | None,
    n_components: int,
    seed: int,
    coordinates: np.ndarray | None = None,
) -> GuidedRows:
    """Return rows with the coordinates of a guide; a tenth of them, the first ones, is left out.

    Parameters
    ----------
    guide : str or estimator instance
        One of `GUIDES`, or an estimator with `fit_transform`, which is cloned.
    rows : Tensor of shape (m, D)
        Standardised training rows in random order.
    weights : Tensor of shape (m,) or None
        How many rows each of them counts for in the term; the guide sees each once.
    n_components : int
        Number of coordinates d.
    seed : int
        Random state of the guide, for each `random_state` in it that is None.
    coordinates : ndarray of shape (m, d), default=None
        What "precomputed" takes.

    Raises
    ------
    ImportError
        If the guide is "umap" and umap-learn is not installed.
    ValueError
        If coordinates are not finite, all equal, or are not m rows and d columns.
    """
    from sklearn.neighbors import NearestNeighbors

    values = rows.numpy()
    if coordinates is None:
        coordinates = _new_guide(guide, n_components, values, seed).fit_transform(values)
    coordinates = check_array(coordinates, dtype=np.float64, input_name="guide_coordinates")
    if coordinates.shape != (len(rows), n_components):
        raise ValueError(
            f"The guide gives coordinates of shape {coordinates.shape}, but {len(rows)} rows have "
            f"n_components={n_components} coordinates."
        )
    mean, axes, variances = principal_axes(coordinates)
    scale = math.sqrt(variances.mean())
    if not scale:
        raise ValueError("The guide gives the same coordinates to all rows.")
    turned = torch.tensor((coordinates - mean) @ axes / scale)
    n_out = round(_SHARE_LEFT_OUT * len(rows))
    values = values[n_out:]
    n_neighbors = min(_N_NEIGHBORS, len(values) - 1)
    distances, neighbors = NearestNeighbors(n_neighbors=n_neighbors).fit(values).kneighbors()
    return GuidedRows(
        rows[n_out:],
        turned[n_out:],
        None if weights is None else weights[n_out:],
        torch.from_numpy(neighbors),
        float(distances[:, 0].mean()),
        (rows[:n_out], turned[:n_out]),
    )


def _new_guide(guide: Any, n_components: int, rows: np.ndarray, seed: int) -> Any:
    """Return an estimator that embeds so many rows, yet to be fitted."""
    if isinstance(guide, str):
        guide = _named_guide(guide, n_components, min(rows.shape))
    guide = clone(guide)
    n = len(rows)
    lowered: dict[str, Any] = {}
    for name, value in guide.get_params().items():
        kind = name.rpartition("__")[2]
        if kind == "random_state" and value is None:
            lowered[name] = seed
        elif kind == "perplexity" and isinstance(value, Real):
            lowered[name] = min(value, (n - 1) / 3)
        elif kind == "n_neighbors" and isinstance(value, Integral):
            lowered[name] = min(value, n - 1)
    return guide.set_params(**lowered)


def _named_guide(guide: str, n_components: int, rank: int) -> Any:
    """Return the estimator of a name; the rows have at most `rank` principal components."""
    from sklearn.manifold import TSNE, Isomap

    if guide == "tsne":
        return TSNE(n_components, init="pca" if n_components <= rank else "random")
    if guide == "isomap":
        return Isomap(n_neighbors=10, n_components=n_components)
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError('guide="umap" needs umap-learn: pip install umap-learn') from error
    # With a seed there is one job, and UMAP warns where it has to be told.
    return UMAP(n_components=n_components, n_jobs=1)


class GuideTerm(nn.Module):
    """Mean absolute error of a guide's coordinates, given by the flow to the same rows with noise.

    The coordinates of the flow are scaled and shifted, each by learned numbers. What makes the map
    a good one of new rows is that rows lie between a row and one of its nearest neighbours, with
    coordinates between theirs (mixup, Zhang et al., ICLR 2018), and have noise that is as long as
    rows are apart.

    Parameters
    ----------
    guided : GuidedRows
        Rows and their coordinates.
    bijection : Bijection
        The bijection at its start, whose signs of the coordinates are taken.
    weight : float
        Weight of the error relative to `nats_per_column` for each column.
    like : Tensor
        What has the dtype and the device of the rows of the flow.
    annealing : float
        Share of the training during which the weight is larger by `start_factor`.
    generator : torch.Generator
        Source of rows and noise.
    """

    # Weight of an error as large as the root mean square of a coordinate, in proportion to the
    # columns as the log-likelihood is.
    nats_per_column = 4.0
    # The map is learned before the density.
    start_factor = 8.0
    # Length of the noise relative to the distance between neighbours, and the largest share of a
    # neighbour in a row.
    relative_noise = 1.0
    mix = 0.5
    # Rows of a gradient step.
    n_rows = 128

    def __init__(
        self,
        guided: GuidedRows,
        bijection: Bijection,
        weight: float,
        like: Tensor,
        annealing: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.guided = guided
        self.weight = weight * self.nats_per_column * guided.rows.shape[1]
        self.annealing = annealing
        self.generator = generator
        self.rows, self.coordinates = guided.rows.to(like), guided.coordinates.to(like)
        self.noise = self.relative_noise * guided.spacing / math.sqrt(self.rows.shape[1])
        # The start gives each coordinate unit variance.
        std = self.coordinates.std(0).clamp_min(torch.finfo(like.dtype).eps)
        with torch.no_grad():
            u = _manifold_parts(bijection, self.rows, len(std))
        # Axes have no sign of their own.
        self.signs = torch.where((u * self.coordinates).sum(0) < 0, -1.0, 1.0).to(like)
        self.log_scale = nn.Parameter(std.log())
        self.shift = nn.Parameter(torch.zeros_like(std))

    def scale(self) -> Tensor:
        """Return the factors (d,) that turn manifold parts into the units of the guide."""
        return self.signs * self.log_scale.exp()

    def predict(self, bijection: Bijection, rows: Tensor) -> Tensor:
        """Return the coordinates (n, d) of rows in units of the guide."""
        u = _manifold_parts(bijection, rows, len(self.shift))
        return u * self.scale().to(u) + self.shift.to(u)

    def is_strong(self, progress: float) -> bool:
        """Tell whether the weight is the larger one at a share of the training."""
        return progress < self.annealing

    def loss(self, bijection: Bijection, progress: float) -> Tensor:
        """Return the weighted error of some rows."""
        rows, coordinates = self._draw()
        error = (self.predict(bijection, rows) - coordinates).abs().mean()
        return self.weight * (self.start_factor if self.is_strong(progress) else 1.0) * error

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Return rows (n, D) and the coordinates (n, d) that they should have."""
        weights, neighbors = self.guided.weights, self.guided.neighbors
        if weights is None:
            index = torch.randint(len(neighbors), (self.n_rows,), generator=self.generator)
        else:
            index = torch.multinomial(weights, self.n_rows, True, generator=self.generator)
        which = torch.randint(neighbors.shape[1], (self.n_rows,), generator=self.generator)
        other = neighbors[index, which]
        share = (self.mix * torch.rand((self.n_rows, 1), generator=self.generator)).to(self.rows)
        rows, coordinates = (
            t[index.to(t.device)].lerp(t[other.to(t.device)], share)
            for t in (self.rows, self.coordinates)
        )
        return rows + self.noise * randn(tuple(rows.shape), rows, self.generator), coordinates

    @torch.no_grad()
    def score(self, bijection: Bijection) -> float:
        """Return R^2 of the coordinates of the rows left out, nan where there are not two."""
        rows, coordinates = (t.to(self.rows) for t in self.guided.left_out)
        if len(rows) < 2:
            return math.nan
        error = (self.predict(bijection, rows) - coordinates).square().sum()
        return float(1 - error / (coordinates - coordinates.mean(0)).square().sum())


def _manifold_parts(bijection: Bijection, rows: Tensor, n_components: int) -> Tensor:
    """Return the manifold parts (n, d) of rows."""
    return bijection.forward_and_log_det(rows)[0][:, :n_components]
