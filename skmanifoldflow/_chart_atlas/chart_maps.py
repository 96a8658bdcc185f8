"""Chart maps: bijections from the rows of each chart to a standard normal distribution."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..backend.bijections import Bijection
from ..backend.device import statistics_dtype

__all__ = ["AmbientChartMap", "ChartFrames", "ChartMap", "ConformalChartMap"]

# Matrices of at most this many entries are copied for every row; larger ones are multiplied chart
# by chart.
_MAX_COPIED_ENTRIES = 256


def _multiply(rows: Tensor, matrices: Tensor, charts: Tensor) -> Tensor:
    """Return each row (n, D) times the matrix (K, D, q) of its chart."""
    if matrices[0].numel() <= _MAX_COPIED_ENTRIES:
        return torch.einsum("nd,ndq->nq", rows, matrices[charts])
    out = rows.new_zeros(len(rows), matrices.shape[2])
    for k in charts.unique():
        rows_of_chart = (charts == k).nonzero()[:, 0]
        out = out.index_put((rows_of_chart,), rows[rows_of_chart] @ matrices[k])
    return out


def _completed(vectors: Tensor, n: int) -> Tensor:
    """Return orthonormal vectors (D, max(m, n)); the first m span the given vectors (D, m)."""
    padding = torch.eye(len(vectors), dtype=vectors.dtype, device=vectors.device)
    missing = max(0, n - vectors.shape[1])
    return torch.linalg.qr(torch.cat([vectors, padding[:, :missing]], dim=1))[0]


class ChartFrames(nn.Module):
    """Whitening of each chart by a mean, principal axes, their scales and one scale of the rest.

    With as many axes as columns, whitened rows are scaled principal components. With fewer axes,
    rows keep their columns: the part along each axis is divided by the scale of the axis, and the
    part across all axes by the scale of the rest.

    Parameters
    ----------
    n_charts : int
        Number of charts K.
    n_features : int
        Number of columns D.
    n_axes : int
        Number of axes q of each chart.
    """

    mean: Tensor
    axes: Tensor
    scale: Tensor
    rest: Tensor
    # `fit` adds to the rows of a chart this many rows at the mean of all rows, and this many with
    # the spread of all rows about their charts, which is measured on about `max_pooled_rows` rows.
    n_mean_rows = 2.0
    n_pooled_rows = 64.0
    max_pooled_rows = 256

    def __init__(self, n_charts: int, n_features: int, n_axes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_charts, n_features, dtype=torch.float32))
        self.register_buffer(
            "axes", torch.eye(n_features, dtype=torch.float32)[:, :n_axes].repeat(n_charts, 1, 1)
        )
        self.register_buffer("scale", torch.ones(n_charts, n_axes, dtype=torch.float32))
        self.register_buffer("rest", torch.ones(n_charts, 1, dtype=torch.float32))

    def set(self, mean: Tensor, axes: Tensor, scale: Tensor, rest: Tensor) -> None:
        """Set means (K, D), axes (K, D, q), scales (K, q) and scales of the rest (K, 1)."""
        for name, value in (("mean", mean), ("axes", axes), ("scale", scale), ("rest", rest)):
            setattr(self, name, value.to(self.mean))

    @torch.no_grad()
    def fit(self, rows: Tensor, charts: Tensor, noise: float) -> None:
        """Fit the frame of every chart to its rows.

        A chart with few rows has no spread in many directions. Each chart is therefore fitted as
        if it had some more rows, with the mean of all rows and with the spread of all rows about
        their charts.

        Parameters
        ----------
        rows : Tensor of shape (n, D)
            Rows.
        charts : Tensor of shape (n,)
            Chart of each row.
        noise : float
            Least scale.
        """
        n_charts, n_features, n_axes = self.axes.shape
        rows = rows.to(self.mean)
        dtype = statistics_dtype(rows.device)
        members = nn.functional.one_hot(charts, n_charts).to(rows)
        numbers = members.sum(0)[:, None]
        mean = (members.T @ rows + self.n_mean_rows * rows.mean(0)) / (numbers + self.n_mean_rows)
        centred = rows - mean[charts]
        step = max(1, len(rows) // self.max_pooled_rows)
        pooled = centred[::step] * math.sqrt(self.n_pooled_rows / len(centred[::step]))
        axes, scale, rest = self.axes.clone(), self.scale.clone(), self.rest.clone()
        for k in range(n_charts):
            rows_of_chart = centred[charts == k]
            n_rows = len(rows_of_chart) + self.n_pooled_rows
            spread = torch.cat([rows_of_chart, pooled]) / math.sqrt(n_rows)
            # The smaller one of the two matrices of products is decomposed.
            if len(spread) < n_features:
                variances, vectors = torch.linalg.eigh((spread @ spread.T).to(dtype))
                vectors = spread.T.to(dtype) @ vectors
                # Few rows determine few axes: any orthonormal vectors complete them.
                vectors = _completed(vectors.flip(1), n_axes).flip(1)
                variances = nn.functional.pad(variances, (max(0, n_axes - len(variances)), 0))
            else:
                variances, vectors = torch.linalg.eigh((spread.T @ spread).to(dtype))
            total = variances.sum()
            variances, vectors = variances.flip(0)[:n_axes], vectors.flip(1)[:, :n_axes]
            axes[k] = vectors
            n_rest = n_features - n_axes
            across = (total - variances.sum()) / n_rest if n_rest else variances[-1]
            scale[k] = variances.clamp_min(noise**2).sqrt()
            rest[k] = across.clamp_min(noise**2).sqrt()
        self.set(mean, axes, scale, rest)

    @property
    def _is_complete(self) -> bool:
        return self.axes.shape[1] == self.axes.shape[2]

    def log_det(self) -> Tensor:
        """Return the log-determinant (K,) of each whitening."""
        n_rest = self.axes.shape[1] - self.axes.shape[2]
        return -self.scale.log().sum(1) - n_rest * self.rest.log()[:, 0]

    def log_normal(self, x: Tensor) -> Tensor:
        """Return the log-density (n, K) of rows under the normal distribution of every chart."""
        centred = x[:, None] - self.mean
        along = torch.einsum("nkd,kdq->nkq", centred, self.axes)
        square = (along / self.scale).square().sum(2)
        if not self._is_complete:
            across = centred.square().sum(2) - along.square().sum(2)
            square = square + across / self.rest[:, 0].square()
        return -0.5 * (square + x.shape[1] * math.log(2 * math.pi)) + self.log_det()

    def whiten(self, x: Tensor, charts: Tensor) -> Tensor:
        """Return rows (n, D) whitened by the frames of their charts (n,)."""
        centred = x - self.mean[charts]
        along = _multiply(centred, self.axes, charts)
        if self._is_complete:
            return along / self.scale[charts]
        rest = self.rest[charts]
        excess = along * (1 / self.scale[charts] - 1 / rest)
        return centred / rest + _multiply(excess, self.axes.mT, charts)

    def unwhiten(self, z: Tensor, charts: Tensor) -> Tensor:
        """Return the rows (n, D) of whitened rows: the inverse of `whiten`."""
        if self._is_complete:
            centred = _multiply(z * self.scale[charts], self.axes.mT, charts)
        else:
            rest = self.rest[charts]
            excess = _multiply(z, self.axes, charts) * (self.scale[charts] - rest)
            centred = z * rest + _multiply(excess, self.axes.mT, charts)
        return centred + self.mean[charts]

    def tangential(self, z: Tensor, charts: Tensor, dimensions: Tensor) -> Tensor:
        """Return the part of whitened rows (n, D) along the first `dimensions` (n,) axes."""
        n_axes = self.axes.shape[2]
        mask = torch.arange(n_axes, device=z.device) < dimensions[:, None]
        if self._is_complete:
            return z * mask
        return _multiply(_multiply(z, self.axes, charts) * mask, self.axes.mT, charts)


class ChartMap(nn.Module, ABC):
    """Bijections of R^D, one for each chart, from its rows to a standard normal distribution.

    All charts share one conditional flow, which is told by a context (n, n_context) which chart a
    row is in.
    """

    # Whether the frames stand between the flow and the normal distribution.
    frames_last = False

    def __init__(self, frames: ChartFrames, bijection: Bijection) -> None:
        super().__init__()
        self.frames = frames
        self.bijection = bijection

    @abstractmethod
    def forward_and_log_det(
        self, x: Tensor, charts: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map rows (n, D), each by its chart; return latent rows (n, D), log-determinants (n,)."""

    @abstractmethod
    def inverse(self, z: Tensor, charts: Tensor, context: Tensor | None) -> Tensor:
        """Return the rows (n, D) that the maps of their charts take to latent rows."""

    @abstractmethod
    def tangential(self, z: Tensor, charts: Tensor, dimensions: Tensor) -> Tensor:
        """Return the part (n, D) of latent rows along the charts, which have `dimensions` (n,)."""


class AmbientChartMap(ChartMap):
    """A frame and a conditional flow of R^D, in this order for tables.

    The flow of tables starts as the identity, so that each chart starts as the normal distribution
    of its frame. Whitened charts look alike, so what the flow learns from one chart holds for the
    others. The flow of images needs the layout of pixels, which a frame would destroy, so the
    frames of images come last.

    Parameters
    ----------
    frames : ChartFrames
        Whitening of each chart.
    bijection : Bijection
        Conditional flow.
    frames_last : bool, default=False
        Whether the frames stand between the flow and the normal distribution.
    """

    def __init__(
        self, frames: ChartFrames, bijection: Bijection, *, frames_last: bool = False
    ) -> None:
        super().__init__(frames, bijection)
        self.frames_last = frames_last

    def forward_and_log_det(
        self, x: Tensor, charts: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.frames_last:
            y, log_det = self.bijection.forward_and_log_det(x, context)
            z = self.frames.whiten(y, charts)
        else:
            y = self.frames.whiten(x, charts)
            z, log_det = self.bijection.forward_and_log_det(y, context)
        return z, log_det + self.frames.log_det()[charts]

    def inverse(self, z: Tensor, charts: Tensor, context: Tensor | None) -> Tensor:
        y = self.frames.unwhiten(z, charts) if self.frames_last else z
        x = self.bijection.inverse_and_log_det(y, context)[0]
        return x if self.frames_last else self.frames.unwhiten(x, charts)

    def tangential(self, z: Tensor, charts: Tensor, dimensions: Tensor) -> Tensor:
        return self.frames.tangential(z, charts, dimensions)


class ConformalChartMap(ChartMap):
    r"""A Moebius map of R^D that flattens the chart, then a conditional flow of d coordinates.

    A chart is the image of R^d x {0} under a rotation, a shift and a special conformal map

    .. math:: S_b(w) = (w + b |w|^2) / (1 + 2 b \cdot w + |b|^2 |w|^2),

    so it is a plane or a sphere (Liouville), whose curvature b is learned. The log-determinant is
    -D log|1 + 2 b.w + |b|^2 |w|^2| for all of R^D and -d log|...| along the chart, with the
    exponent d that Ross & Cresswell (NeurIPS 2021) have and that eq. 5 of Sidheekh et al. (UAI
    2022) omits. The flat coordinates across the chart are normal noise; its standard deviations are
    the scales of the frame times a learned factor of the chart.

    Parameters
    ----------
    frames : ChartFrames
        Centre, complete principal axes, scales of the first d coordinates and noise of the rest.
    bijection : Bijection
        Conditional flow of R^d.
    n_components : int
        Number d of coordinates along a chart, less than D.
    """

    def __init__(self, frames: ChartFrames, bijection: Bijection, n_components: int) -> None:
        super().__init__(frames, bijection)
        self.n_components = n_components
        n_charts, n_features = frames.mean.shape
        # In units of the scales of the chart, so that one learning rate suits all charts.
        self.shift = nn.Parameter(torch.zeros(n_charts, n_features))
        self.bend = nn.Parameter(torch.zeros(n_charts, n_features))
        self.log_noise = nn.Parameter(torch.zeros(n_charts, 1))

    def _bend(self, charts: Tensor) -> Tensor:
        # The bend is an inverse length, in units of the widest axis.
        return self.bend[charts] / self.frames.scale[charts][:, :1]

    @staticmethod
    def _special_conformal(w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return S_b(w) (n, D) and the logarithm (n,) of the factor by which it scales lengths."""
        square = w.square().sum(1, keepdim=True)
        denominator = 1 + 2 * (b * w).sum(1, keepdim=True) + b.square().sum(1, True) * square
        denominator = denominator.clamp_min(torch.finfo(w.dtype).tiny)
        return (w + b * square) / denominator, -denominator.log()[:, 0]

    def _scale(self, charts: Tensor) -> Tensor:
        """Return the scales (n, D) of flat coordinates, those of the noise last."""
        scale = self.frames.scale[charts]
        noise = scale[:, self.n_components :] * self.log_noise[charts].exp()
        return torch.cat([scale[:, : self.n_components], noise], dim=1)

    def forward_and_log_det(
        self, x: Tensor, charts: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        rotated = _multiply(x - self.frames.mean[charts], self.frames.axes, charts)
        rotated = rotated - self.shift[charts] * self.frames.scale[charts]
        w, log_stretch = self._special_conformal(rotated, -self._bend(charts))
        scale = self._scale(charts)
        log_det = w.shape[1] * log_stretch - scale.log().sum(1)
        u, v = (w / scale).tensor_split([self.n_components], dim=1)
        u, flow_log_det = self.bijection.forward_and_log_det(u, context)
        return torch.cat([u, v], dim=1), log_det + flow_log_det

    def inverse(self, z: Tensor, charts: Tensor, context: Tensor | None) -> Tensor:
        u, v = z.tensor_split([self.n_components], dim=1)
        u = self.bijection.inverse_and_log_det(u, context)[0]
        w = torch.cat([u, v], dim=1) * self._scale(charts)
        rotated, _ = self._special_conformal(w, self._bend(charts))
        rotated = rotated + self.shift[charts] * self.frames.scale[charts]
        return _multiply(rotated, self.frames.axes.mT, charts) + self.frames.mean[charts]

    def tangential(self, z: Tensor, charts: Tensor, dimensions: Tensor) -> Tensor:
        return torch.cat([z[:, : self.n_components], 0 * z[:, self.n_components :]], dim=1)
