"""Surfaces in three dimensions whose noisy density is a one-dimensional integral."""

import numpy as np

from ._base import NoisyManifold
from ._convolution import (
    log_integral,
    log_noisy_interval,
    log_noisy_sphere,
    log_normal,
    uniform_panels,
)
from ._curves import UniformCurve


class _Sheet(NoisyManifold):
    """A plane curve in columns 0 and 2 times an interval in column 1, hence developable."""

    n_features = 3
    dimension = 2
    _profile: UniformCurve
    _width: float

    def _sample_coordinates(self, n_samples, rng):
        # Two separate draws, as scikit-learn makes them.
        t = self._profile.start + (self._profile.stop - self._profile.start) * rng.uniform(
            size=n_samples
        )
        across = self._width * rng.uniform(size=n_samples)
        return np.stack([self._profile.arc_length(t), across], axis=1)

    def _embed(self, coordinates):
        profile = self._profile.position(self._profile.parameter(coordinates[:, 0]))
        return np.stack([profile[:, 0], coordinates[:, 1], profile[:, 1]], axis=1)

    def _log_density_manifold(self, coordinates):
        along, across = coordinates.T
        inside = (across >= 0) & (across <= self._width)
        value = self._profile.log_density_arc(along) - np.log(self._width)
        return np.where(inside, value, -np.inf)

    def _log_density(self, X):
        profile = self._profile.log_density(X[:, ::2], self.noise)
        return profile + log_noisy_interval(X[:, 1], 0.0, self._width, self.noise)

    def _distance(self, X):
        beyond = np.maximum(0, np.maximum(-X[:, 1], X[:, 1] - self._width))
        return np.hypot(self._profile.distance(X[:, ::2]), beyond)


def _s_profile(t):
    return np.stack([np.sin(t), np.sign(t) * (np.cos(t) - 1)], axis=-1)


def _s_velocity(t):
    return np.stack([np.cos(t), -np.sign(t) * np.sin(t)], axis=-1)


class SCurve(_Sheet):
    """The S-shaped sheet of `sklearn.datasets.make_s_curve`, uniform by area.

    The coordinates are flat: arc length along the S from its lower end, in [0, 3 pi], and the
    second column, in [0, 2].

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
    >>> from skmanifoldflow.datasets import SCurve
    >>> data = SCurve(noise=0.05)
    >>> X, coordinates = data.sample(100, random_state=0)
    >>> data.log_density(X).shape
    (100,)
    """

    _profile = UniformCurve(_s_profile, _s_velocity, -1.5 * np.pi, 1.5 * np.pi)
    _width = 2.0


def _spiral(t):
    return np.stack([t * np.cos(t), t * np.sin(t)], axis=-1)


def _spiral_velocity(t):
    return np.stack([np.cos(t) - t * np.sin(t), np.sin(t) + t * np.cos(t)], axis=-1)


class SwissRoll(_Sheet):
    """The rolled sheet of `sklearn.datasets.make_swiss_roll`.

    The angle is uniform, so rows are denser by area near the axis. The coordinates are flat: arc
    length along the spiral from its inner end, and the second column, in [0, 21].

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
    >>> from skmanifoldflow.datasets import SwissRoll
    >>> X, coordinates = SwissRoll().sample(100, random_state=0)
    >>> X.shape, coordinates.shape
    ((100, 3), (100, 2))
    """

    _profile = UniformCurve(_spiral, _spiral_velocity, 1.5 * np.pi, 4.5 * np.pi)
    _width = 21.0


class Torus(NoisyManifold):
    """The torus of radii 1 and 0.4 around the third axis, uniform by area.

    The coordinates are two angles in [0, 2 pi): around the axis, and around the tube from its
    outer side.

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
    >>> from skmanifoldflow.datasets import Torus
    >>> data = Torus()
    >>> X, coordinates = data.sample(100, random_state=0)
    >>> bool((data.distance(X) < 0.3).all())
    True
    """

    n_features = 3
    dimension = 2
    _major, _minor = 1.0, 0.4

    def _sample_coordinates(self, n_samples, rng):
        around, mass = 2 * np.pi * rng.uniform(size=(2, n_samples))
        # The area up to a tube angle is Kepler's equation; the iteration contracts by 0.4.
        tube = mass
        for _ in range(45):
            tube = mass - self._minor / self._major * np.sin(tube)
        return np.stack([around, tube], axis=1)

    def _embed(self, coordinates):
        around, tube = coordinates.T
        radius = self._major + self._minor * np.cos(tube)
        return np.stack(
            [radius * np.cos(around), radius * np.sin(around), self._minor * np.sin(tube)], axis=1
        )

    def _log_density_manifold(self, coordinates):
        return np.full(len(coordinates), -np.log(4 * np.pi**2 * self._major * self._minor))

    def _log_density(self, X):
        # The average over circles around the axis is a Bessel function; the tube remains.
        radius, height = np.hypot(X[:, 0], X[:, 1]), X[:, 2]

        def log_integrand(rows, tube):
            ring = self._major + self._minor * np.cos(tube)
            rise = height[rows] - self._minor * np.sin(tube)
            return (
                np.log(ring / (2 * np.pi * self._major))
                + log_noisy_sphere(radius[rows], ring, 2, self.noise)
                + log_normal(rise**2, 1, self.noise)
            )

        edges = uniform_panels(0.0, 2 * np.pi, self.noise / self._minor)
        return log_integral(log_integrand, len(X), edges)

    def _distance(self, X):
        to_circle = np.hypot(np.hypot(X[:, 0], X[:, 1]) - self._major, X[:, 2])
        return np.abs(to_circle - self._minor)


def _parabola(t):
    return np.stack([t, t**2], axis=-1)


def _parabola_velocity(t):
    return np.stack([np.ones_like(t), 2 * t], axis=-1)


class Paraboloid(NoisyManifold):
    """The paraboloid x3 = x1^2 + x2^2 over the unit disc, (x1, x2) uniform on the disc.

    The coordinates are x1 and x2: the surface is not developable.

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
    >>> from skmanifoldflow.datasets import Paraboloid
    >>> X, coordinates = Paraboloid(noise=0).sample(100, random_state=0)
    >>> bool((X[:, :2] == coordinates).all())
    True
    """

    n_features = 3
    dimension = 2
    _profile = UniformCurve(_parabola, _parabola_velocity, 0.0, 1.0)

    def _sample_coordinates(self, n_samples, rng):
        radius, angle = np.sqrt(rng.uniform(size=n_samples)), rng.uniform(0, 2 * np.pi, n_samples)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    def _embed(self, coordinates):
        return np.column_stack([coordinates, (coordinates**2).sum(axis=1)])

    def _log_density_manifold(self, coordinates):
        squared_radius = (coordinates**2).sum(axis=1)
        value = -np.log(np.pi) - 0.5 * np.log1p(4 * squared_radius)
        return np.where(squared_radius <= 1, value, -np.inf)

    def _log_density(self, X):
        radius, height = np.hypot(X[:, 0], X[:, 1]), X[:, 2]

        def log_integrand(rows, ring):
            return (
                np.log(2 * ring)
                + log_noisy_sphere(radius[rows], ring, 2, self.noise)
                + log_normal((height[rows] - ring**2) ** 2, 1, self.noise)
            )

        edges = uniform_panels(0.0, 1.0, self.noise / self._profile.max_speed)
        return log_integral(log_integrand, len(X), edges)

    def _distance(self, X):
        return self._profile.distance(np.stack([np.hypot(X[:, 0], X[:, 1]), X[:, 2]], axis=1))
