"""Spheres and unions of two spheres: closed forms throughout."""

from abc import abstractmethod
from numbers import Integral

import numpy as np
from scipy import special

from ._base import NoisyManifold
from ._convolution import log_noisy_sphere, log_normal


def angles_of(points):
    """Hyperspherical angles (n, d) of points (n, d + 1): the last in [0, 2 pi), others [0, pi]."""
    rest = np.sqrt(np.cumsum(points[:, ::-1] ** 2, axis=1))[:, ::-1]
    angles = np.arctan2(rest[:, 1:], points[:, :-1])
    angles[:, -1] = np.mod(np.arctan2(points[:, -1], points[:, -2]), 2 * np.pi)
    return angles


def points_at(angles):
    """Points of the unit sphere (n, d + 1) at hyperspherical angles (n, d)."""
    ones = np.ones((len(angles), 1))
    sines = np.concatenate([ones, np.cumprod(np.sin(angles), axis=1)], axis=1)
    return sines * np.concatenate([np.cos(angles), ones], axis=1)


def log_area(dimension):
    """Log of the volume of the unit sphere of a given dimension."""
    half = (dimension + 1) / 2
    return np.log(2) + half * np.log(np.pi) - special.gammaln(half)


class Sphere(NoisyManifold):
    """The unit sphere, uniform by area, in the first `dimension` + 1 columns; the rest are zero.

    The coordinates are hyperspherical angles: x1 = cos a1, x2 = sin a1 cos a2, ..., the last in
    [0, 2 pi), the others in [0, pi].

    Parameters
    ----------
    dimension : int, default=2
        Dimension d of the sphere, at least 1.
    n_features : int, default=3
        Number of columns, at least d + 1.
    noise : float, default=0.05
        Standard deviation of the noise added to every column.

    Attributes
    ----------
    n_features : int
        As given.
    dimension : int
        As given.

    Examples
    --------
    >>> from skmanifoldflow.datasets import Sphere
    >>> X, coordinates = Sphere(dimension=10, n_features=20).sample(100, random_state=0)
    >>> X.shape, coordinates.shape
    ((100, 20), (100, 10))
    """

    dimension: int

    def __init__(self, dimension=2, n_features=3, *, noise=0.05):
        super().__init__(noise=noise)
        if not isinstance(dimension, Integral) or dimension < 1:
            raise ValueError(f"dimension must be an integer >= 1, got {dimension!r}")
        if not isinstance(n_features, Integral) or n_features <= dimension:
            raise ValueError(
                f"n_features must be an integer > dimension = {dimension}, got {n_features!r}"
            )
        self.dimension, self.n_features = int(dimension), int(n_features)

    def _sample_coordinates(self, n_samples, rng):
        return angles_of(rng.standard_normal(size=(n_samples, self.dimension + 1)))

    def _embed(self, coordinates):
        X = np.zeros((len(coordinates), self.n_features))
        X[:, : self.dimension + 1] = points_at(coordinates)
        return X

    def _log_density_manifold(self, coordinates):
        return np.full(len(coordinates), -log_area(self.dimension))

    def _split(self, X):
        """Distance to the centre within the sphere's hull, and distance to the hull."""
        hull = self.dimension + 1
        return np.linalg.norm(X[:, :hull], axis=1), np.linalg.norm(X[:, hull:], axis=1)

    def _log_density(self, X):
        radius, beside = self._split(X)
        hull = self.dimension + 1
        rest = log_normal(beside**2, self.n_features - hull, self.noise)
        return log_noisy_sphere(radius, 1.0, hull, self.noise) + rest

    def _distance(self, X):
        radius, beside = self._split(X)
        return np.hypot(radius - 1, beside)


class _TwoParts(NoisyManifold):
    """Half of the probability on each of two unit spheres.

    The last coordinate, an angle, runs over [0, 2 pi) on the first part and over [2 pi, 4 pi)
    on the second, so that coordinates name the part.
    """

    n_features = 3
    _part: Sphere

    @abstractmethod
    def _move(self, X, part):
        """Rows of the unit sphere's frame placed on part 0 or 1."""

    @abstractmethod
    def _frames(self, X):
        """Rows seen in the frames of both parts."""

    def _sample_coordinates(self, n_samples, rng):
        coordinates = self._part._sample_coordinates(n_samples, rng)
        coordinates[:, -1] += 2 * np.pi * rng.randint(2, size=n_samples)
        return coordinates

    def _embed(self, coordinates):
        X = self._part._embed(coordinates)
        second = coordinates[:, -1:] >= 2 * np.pi
        return np.where(second, self._move(X, 1), self._move(X, 0))

    def _log_density_manifold(self, coordinates):
        return self._part._log_density_manifold(coordinates) - np.log(2)

    def _log_density(self, X):
        part = type(self._part)(self._part.dimension, self.n_features, noise=self.noise)
        first, second = (part._log_density(frame) for frame in self._frames(X))
        return np.logaddexp(first, second) - np.log(2)

    def _distance(self, X):
        return np.minimum(*(self._part._distance(frame) for frame in self._frames(X)))


class TwoSpheres(_TwoParts):
    """Unit spheres centred at x1 = -1.5 and x1 = 1.5, a row on either with probability 1/2.

    The coordinates are the polar angle from the first axis, in [0, pi], and the azimuth around
    it, in [0, 2 pi) on the left sphere and [2 pi, 4 pi) on the right one.

    Parameters
    ----------
    noise : float, default=0.05
        Standard deviation of the noise added to every column.

    Attributes
    ----------
    n_features : int
        Always 3.
    dimension : int
        Always 2.

    Examples
    --------
    >>> from skmanifoldflow.datasets import TwoSpheres
    >>> X, coordinates = TwoSpheres(noise=0).sample(100, random_state=0)
    >>> right = coordinates[:, 1] >= 2 * 3.141592653589793
    >>> bool((right == (X[:, 0] > 0)).all())
    True
    """

    dimension = 2
    _part = Sphere(2, 3)
    _centre = np.array([1.5, 0.0, 0.0])

    def _move(self, X, part):
        return X + (2 * part - 1) * self._centre

    def _frames(self, X):
        return X + self._centre, X - self._centre


class LinkedCircles(_TwoParts):
    """Two unit circles, each through the centre of the other, in perpendicular planes.

    The first lies in the plane x3 = 0 around the origin, the second in the plane x2 = 0 around
    (1, 0, 0); a row is on either with probability 1/2. The coordinate is the arc length, in
    [0, 2 pi) on the first circle and [2 pi, 4 pi) on the second.

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
    >>> from skmanifoldflow.datasets import LinkedCircles
    >>> X, coordinates = LinkedCircles().sample(100, random_state=0)
    >>> X.shape, coordinates.shape
    ((100, 3), (100, 1))
    """

    dimension = 1
    _part = Sphere(1, 3)
    _centre = np.array([1.0, 0.0, 0.0])

    def _move(self, X, part):
        return X[:, [0, 2, 1]] + self._centre if part else X

    def _frames(self, X):
        return X, (X - self._centre)[:, [0, 2, 1]]
