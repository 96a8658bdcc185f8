"""Curves: one-dimensional manifolds in the plane and in space."""

import numpy as np
from scipy import special
from scipy.spatial import cKDTree

from ._base import NoisyManifold
from ._convolution import log_integral, log_normal, uniform_panels

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)


class UniformCurve:
    """A regular curve whose parameter is uniform on [start, stop].

    ``position(t)`` and ``velocity(t)`` map an array of parameters to one with a last axis of
    length D. A closed curve wraps its arc length.
    """

    def __init__(self, position, velocity, start, stop, *, closed=False):
        self.position, self.velocity = position, velocity
        self.start, self.stop, self.closed = start, stop, closed
        self._edges = np.linspace(start, stop, 513)
        panels = self._edges[:-1, None] + np.diff(self._edges)[:, None] * (_NODES + 1) / 2
        speed = self.speed(panels)
        self.max_speed = speed.max()
        lengths = speed @ _WEIGHTS * np.diff(self._edges) / 2
        self._lengths = np.concatenate([[0.0], np.cumsum(lengths)])
        self.length = self._lengths[-1]

    def speed(self, t):
        """Norm of the velocity."""
        return np.linalg.norm(self.velocity(t), axis=-1)

    def arc_length(self, t):
        """Arc length from `initialize` to t."""
        panel = np.clip(np.searchsorted(self._edges, t) - 1, 0, len(self._edges) - 2)
        left = self._edges[panel]
        nodes = left[:, None] + (t - left)[:, None] * (_NODES + 1) / 2
        return self._lengths[panel] + self.speed(nodes) @ _WEIGHTS * (t - left) / 2

    def parameter(self, s):
        """Parameter at arc length s."""
        if self.closed:
            s = np.mod(s, self.length)
        t = np.interp(s, self._lengths, self._edges)
        # The table leaves an error of about 1e-5 of the range and Newton squares it each time.
        for _ in range(3):
            t = t - (self.arc_length(t) - s) / self.speed(t)
        return t

    def log_density_arc(self, s):
        """Log-density of the distribution with respect to arc length, at arc length s."""
        value = -np.log((self.stop - self.start) * self.speed(self.parameter(s)))
        inside = self.closed | ((s >= 0) & (s <= self.length))
        return np.where(inside, value, -np.inf)

    def log_density(self, X, noise):
        """Log-density of the distribution with noise."""

        def log_integrand(rows, t):
            difference = X[rows] - self.position(t)
            return -0.5 * np.einsum("...i,...i", difference, difference) / noise**2

        edges = uniform_panels(self.start, self.stop, noise / self.max_speed)
        log_norm = log_normal(0.0, X.shape[1], noise) - np.log(self.stop - self.start)
        return log_integral(log_integrand, len(X), edges) + log_norm

    def distance(self, X):
        """Distance to the curve: nearest of many points, then bisection on the derivative."""
        grid = np.linspace(self.start, self.stop, 8193)
        # Four candidates: where two branches are equally near, both are refined.
        nearest = cKDTree(self.position(grid)).query(X, k=4)[1]
        step = grid[1] - grid[0]
        low, high = grid[nearest] - step, grid[nearest] + step
        if not self.closed:
            low, high = np.maximum(low, self.start), np.minimum(high, self.stop)
        for _ in range(45):
            middle = (low + high) / 2
            toward = self.position(middle) - X[:, None, :]
            falling = np.einsum("ijk,ijk->ij", toward, self.velocity(middle)) < 0
            low, high = np.where(falling, middle, low), np.where(falling, high, middle)
        refined = self.position((low + high) / 2) - X[:, None, :]
        return np.linalg.norm(refined, axis=-1).min(axis=1)


class _CurveDataset(NoisyManifold):
    """A data set of rows along one `UniformCurve`, its coordinate the arc length."""

    dimension = 1
    _curve: UniformCurve

    def _sample_coordinates(self, n_samples, rng):
        t = rng.uniform(self._curve.start, self._curve.stop, size=n_samples)
        return self._curve.arc_length(t)[:, None]

    def _embed(self, coordinates):
        return self._curve.position(self._curve.parameter(coordinates[:, 0]))

    def _log_density_manifold(self, coordinates):
        return self._curve.log_density_arc(coordinates[:, 0])

    def _log_density(self, X):
        return self._curve.log_density(X, self.noise)

    def _distance(self, X):
        return self._curve.distance(X)


class Line(NoisyManifold):
    """The line x2 = x1 in the plane, with x1 ~ N(0, 1).

    The coordinate is the signed length along the line, sqrt(2) x1.

    Parameters
    ----------
    noise : float, default=0.05
        Standard deviation of the noise added to both columns.

    Attributes
    ----------
    n_features : int
        Always 2.
    dimension : int
        Always 1.

    Examples
    --------
    >>> from skmanifoldflow.datasets import Line
    >>> X, coordinates = Line(noise=0.1).sample(100, random_state=0)
    >>> X.shape, coordinates.shape
    ((100, 2), (100, 1))
    """

    n_features = 2
    dimension = 1

    def _sample_coordinates(self, n_samples, rng):
        return np.sqrt(2) * rng.standard_normal(size=(n_samples, 1))

    def _embed(self, coordinates):
        return np.repeat(coordinates, 2, axis=1) / np.sqrt(2)

    def _log_density_manifold(self, coordinates):
        return log_normal(coordinates[:, 0] ** 2, 1, np.sqrt(2))

    def _log_density(self, X):
        along, across = (X[:, 0] + X[:, 1]) / np.sqrt(2), (X[:, 0] - X[:, 1]) / np.sqrt(2)
        wide = np.sqrt(2 + self.noise**2)
        return log_normal(along**2, 1, wide) + log_normal(across**2, 1, self.noise)

    def _distance(self, X):
        return np.abs(X[:, 0] - X[:, 1]) / np.sqrt(2)


def _sine(t):
    return np.stack([t, np.sin(2 * t)], axis=-1)


def _sine_velocity(t):
    return np.stack([np.ones_like(t), 2 * np.cos(2 * t)], axis=-1)


class SinCurve(NoisyManifold):
    """The curve x2 = sin(2 x1) in the plane, with x1 ~ N(0, 1).

    The coordinate is the arc length from the origin, negative to its left.

    Parameters
    ----------
    noise : float, default=0.05
        Standard deviation of the noise added to both columns.

    Attributes
    ----------
    n_features : int
        Always 2.
    dimension : int
        Always 1.

    Examples
    --------
    >>> from skmanifoldflow.datasets import SinCurve
    >>> data = SinCurve(noise=0.05)
    >>> X, coordinates = data.sample(100, random_state=0)
    >>> data.log_density(X).shape
    (100,)
    """

    n_features = 2
    dimension = 1
    _two_periods = UniformCurve(_sine, _sine_velocity, -np.pi, np.pi)

    @staticmethod
    def _arc_length(t):
        """Integral of sqrt(1 + 4 cos(2t)^2) = sqrt(5) sqrt(1 - 4/5 sin(2t)^2)."""
        return np.sqrt(5) / 2 * special.ellipeinc(2 * t, 0.8)

    def _parameter(self, s):
        """Inverse of `_arc_length`."""
        # Arc length is linear in t up to a small periodic term, so Newton starts close anywhere.
        t = s * (np.pi / 4) / self._arc_length(np.pi / 4)
        for _ in range(8):
            t = t - (self._arc_length(t) - s) / self._two_periods.speed(t)
        return t

    def _sample_coordinates(self, n_samples, rng):
        return self._arc_length(rng.standard_normal(size=n_samples))[:, None]

    def _embed(self, coordinates):
        return _sine(self._parameter(coordinates[:, 0]))

    def _log_density_manifold(self, coordinates):
        t = self._parameter(coordinates[:, 0])
        return log_normal(t**2, 1, 1.0) - np.log(self._two_periods.speed(t))

    def _log_density(self, X):
        # N(t; 0, 1) N(x1; t, noise^2) is a normal distribution of x1 times a normal distribution of
        # t around its posterior mean, so the integral runs over the offset u from that mean. A
        # shift by pi leaves the sine alone: nothing beyond |u| = pi plus ten deviations matters,
        # wherever x1.
        variance = 1 + self.noise**2
        mean, spread = X[:, 0] / variance, self.noise / np.sqrt(variance)

        def log_integrand(rows, u):
            residual = X[rows, 1] - np.sin(2 * (mean[rows] + u))
            return -0.5 * (u / spread) ** 2 - 0.5 * (residual / self.noise) ** 2

        reach = np.pi + 10 * spread
        edges = uniform_panels(-reach, reach, spread / np.sqrt(5))
        log_norm = log_normal(0.0, 1, spread) + log_normal(0.0, 1, self.noise)
        log_x1 = log_normal(X[:, 0] ** 2, 1, np.sqrt(variance))
        return log_x1 + log_norm + log_integral(log_integrand, len(X), edges)

    def _distance(self, X):
        # The curve repeats after pi, and the nearest point lies within half a period.
        period = np.pi * np.round(X[:, 0] / np.pi)
        return self._two_periods.distance(X - np.stack([period, np.zeros(len(X))], axis=1))


def _helix(t):
    return np.stack([np.cos(t), np.sin(t), t / (2 * np.pi)], axis=-1)


def _helix_velocity(t):
    return np.stack([-np.sin(t), np.cos(t), np.full_like(t, 1 / (2 * np.pi))], axis=-1)


class Helix(_CurveDataset):
    """Three turns of a helix of radius 1 and pitch 1, uniform by length.

    The coordinate is the arc length from the lower end.

    Parameters
    ----------
    noise : float, default=0.05
        Standard deviation of the noise added to every column.

    Attributes
    ----------
    n_features : int
        Always 3.
    dimension : int
        Always 1.

    Examples
    --------
    >>> from skmanifoldflow.datasets import Helix
    >>> X, coordinates = Helix().sample(100, random_state=0)
    >>> X.shape, coordinates.shape
    ((100, 3), (100, 1))
    """

    n_features = 3
    _curve = UniformCurve(_helix, _helix_velocity, 0.0, 6 * np.pi)


def _trefoil(t):
    x1, x2 = np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t)
    return np.stack([x1, x2, -np.sin(3 * t)], axis=-1)


def _trefoil_velocity(t):
    x1, x2 = np.cos(t) + 4 * np.cos(2 * t), -np.sin(t) + 4 * np.sin(2 * t)
    return np.stack([x1, x2, -3 * np.cos(3 * t)], axis=-1)


class TrefoilKnot(_CurveDataset):
    """The knot (sin t + 2 sin 2t, cos t - 2 cos 2t, -sin 3t), t uniform on a period.

    The coordinate is the arc length, periodic.

    Parameters
    ----------
    noise : float, default=0.05
        Standard deviation of the noise added to every column.

    Attributes
    ----------
    n_features : int
        Always 3.
    dimension : int
        Always 1.

    Examples
    --------
    >>> from skmanifoldflow.datasets import TrefoilKnot
    >>> X, coordinates = TrefoilKnot().sample(100, random_state=0)
    >>> X.shape, coordinates.shape
    ((100, 3), (100, 1))
    """

    n_features = 3
    _curve = UniformCurve(_trefoil, _trefoil_velocity, 0.0, 2 * np.pi, closed=True)


def _eight(t):
    return np.stack([np.sin(t), np.sin(t) * np.cos(t)], axis=-1)


def _eight_velocity(t):
    return np.stack([np.cos(t), np.cos(2 * t)], axis=-1)


class FigureEight(_CurveDataset):
    """The plane curve (sin t, sin t cos t), t uniform on a period: it crosses itself.

    The coordinate is the arc length, periodic. At the crossing two coordinates share a point.

    Parameters
    ----------
    noise : float, default=0.05
        Standard deviation of the noise added to both columns.

    Attributes
    ----------
    n_features : int
        Always 2.
    dimension : int
        Always 1.

    Examples
    --------
    >>> from skmanifoldflow.datasets import FigureEight
    >>> X, coordinates = FigureEight().sample(100, random_state=0)
    >>> X.shape, coordinates.shape
    ((100, 2), (100, 1))
    """

    n_features = 2
    _curve = UniformCurve(_eight, _eight_velocity, 0.0, 2 * np.pi, closed=True)
