"""Data sets made of others: a union of mixed dimension and a product."""

import numpy as np

from ._base import NoisyManifold, _check_rows
from ._convolution import (
    log_integral,
    log_noisy_interval,
    log_noisy_sphere,
    log_normal,
    uniform_panels,
)
from ._spheres import Sphere
from ._surfaces import Torus


class StickAndBall(NoisyManifold):
    """A solid unit ball at the origin and a stick along the first axis, from x1 = 1 to x1 = 4.

    A row is in either with probability 1/2, uniformly. The dimension is 1 on the stick and 3 in
    the ball, so `dimension` is None and the coordinates tell: in the ball they are the point
    itself, on the stick the first is the length from the ball and the other two are NaN.
    ``local_dimension(coordinates)`` counts those that are numbers.

    Parameters
    ----------
    noise : float, default=0.05
        Standard deviation of the noise added to every column.

    Attributes
    ----------
    n_features : int
        Always 3.
    dimension : None
        It changes from place to place.

    Examples
    --------
    >>> from skmanifoldflow.datasets import StickAndBall
    >>> data = StickAndBall()
    >>> X, coordinates = data.sample(6, random_state=0)
    >>> data.local_dimension(coordinates)
    array([1, 3, 1, 3, 1, 3])
    """

    n_features = 3
    dimension = None
    _length = 3.0

    def _check_coordinates(self, coordinates):
        coordinates = _check_rows(coordinates, 3, "coordinates", allow_nan=True)
        missing = np.isnan(coordinates)
        if missing[:, 0].any() or (missing[:, 1] != missing[:, 2]).any():
            raise ValueError(
                "coordinates must hold three numbers in the ball, or one number and two NaN on "
                "the stick"
            )
        return coordinates

    def local_dimension(self, coordinates):
        """Dimension of the manifold at each row.

        Parameters
        ----------
        coordinates : array-like of shape (n, 3)
            Coordinates as `sample` returns them.

        Returns
        -------
        local_dimension : ndarray of shape (n,)
            1 on the stick, 3 in the ball.

        Raises
        ------
        ValueError
            If coordinates are not as `sample` returns them.

        Examples
        --------
        >>> from skmanifoldflow.datasets import StickAndBall
        >>> shape = StickAndBall(noise=0.0)
        >>> X, coordinates = shape.sample(200, random_state=0)
        >>> sorted(set(shape.local_dimension(coordinates).tolist()))
        [1, 3]
        """
        return (~np.isnan(self._check_coordinates(coordinates))).sum(axis=1)

    def _sample_coordinates(self, n_samples, rng):
        direction = rng.standard_normal(size=(n_samples, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        coordinates = np.cbrt(rng.uniform(size=(n_samples, 1))) * direction
        on_stick = rng.randint(2, size=n_samples) == 1
        coordinates[on_stick] = np.nan
        coordinates[on_stick, 0] = self._length * rng.uniform(size=on_stick.sum())
        return coordinates

    def _embed(self, coordinates):
        stick = np.isnan(coordinates[:, 1])
        X = np.where(stick[:, None], 0.0, coordinates)
        X[stick, 0] = 1 + coordinates[stick, 0]
        return X

    def _log_density_manifold(self, coordinates):
        stick = np.isnan(coordinates[:, 1])
        first = coordinates[:, 0]
        radius = np.linalg.norm(coordinates, axis=1)
        inside = np.where(stick, (first >= 0) & (first <= self._length), radius <= 1)
        value = -np.log(2 * np.where(stick, self._length, 4 * np.pi / 3))
        return np.where(inside, value, -np.inf)

    def _log_density(self, X):
        across = (X[:, 1:] ** 2).sum(axis=1)
        stick = log_noisy_interval(X[:, 0], 1.0, 1 + self._length, self.noise)
        stick = stick + log_normal(across, 2, self.noise)
        # Shells add up without cancellation, unlike the closed form of the solid ball.
        radius = np.linalg.norm(X, axis=1)

        def log_integrand(rows, shell):
            return np.log(3 * shell**2) + log_noisy_sphere(radius[rows], shell, 3, self.noise)

        ball = log_integral(log_integrand, len(X), uniform_panels(0.0, 1.0, self.noise))
        return np.logaddexp(stick, ball) - np.log(2)

    def _distance(self, X):
        beyond = X[:, 0] - np.clip(X[:, 0], 1, 1 + self._length)
        to_stick = np.hypot(beyond, np.linalg.norm(X[:, 1:], axis=1))
        return np.minimum(to_stick, np.maximum(np.linalg.norm(X, axis=1) - 1, 0))


class TorusSphere(NoisyManifold):
    """The product of a `Torus` (columns 0 to 2) and an independent `Sphere` (columns 3 to 5).

    The coordinates are the torus's two angles, then the sphere's two.

    Parameters
    ----------
    noise : float, default=0.05
        Standard deviation of the noise added to every column.

    Attributes
    ----------
    n_features : int
        Always 6.
    dimension : int
        Always 4.

    Examples
    --------
    >>> from skmanifoldflow.datasets import TorusSphere
    >>> X, coordinates = TorusSphere().sample(100, random_state=0)
    >>> X.shape, coordinates.shape
    ((100, 6), (100, 4))
    """

    n_features = 6
    dimension = 4

    def __init__(self, *, noise=0.05):
        super().__init__(noise=noise)
        self._torus, self._sphere = Torus(noise=noise), Sphere(noise=noise)

    def _sample_coordinates(self, n_samples, rng):
        return np.concatenate(
            [part._sample_coordinates(n_samples, rng) for part in (self._torus, self._sphere)],
            axis=1,
        )

    def _embed(self, coordinates):
        torus, sphere = self._torus._embed(coordinates[:, :2]), coordinates[:, 2:]
        return np.concatenate([torus, self._sphere._embed(sphere)], axis=1)

    def _log_density_manifold(self, coordinates):
        torus = self._torus._log_density_manifold(coordinates[:, :2])
        return torus + self._sphere._log_density_manifold(coordinates[:, 2:])

    def _log_density(self, X):
        return self._torus._log_density(X[:, :3]) + self._sphere._log_density(X[:, 3:])

    def _distance(self, X):
        return np.hypot(self._torus._distance(X[:, :3]), self._sphere._distance(X[:, 3:]))
