"""Manifolds with as many columns as wanted."""

from itertools import pairwise
from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state

from ._base import Manifold, NoisyManifold
from ._convolution import log_noisy_interval, log_normal


class RandomNetwork(Manifold):
    """The image of a standard normal distribution in R^d under a random smooth network.

    The network is z -> C tanh(B tanh(A z + a) + b), with matrices of orthonormal columns up to a
    scale and increasing widths, so its Jacobian has full rank everywhere. There is no
    `log_density`: the noisy distribution has no tractable one. `log_density_manifold` is exact, by
    the change of variables. The coordinates are z.

    Parameters
    ----------
    dimension : int, default=2
        Dimension d of the manifold, at least 1.
    n_features : int, default=10
        Number of columns, at least d.
    noise : float, default=0.05
        Standard deviation of the noise added to every column. Without it a column has a
        standard deviation of about 0.5.
    random_state : None, int or RandomState, default=0
        Source of the network's weights. A fixed default, so that the data set is one and the
        same.

    Attributes
    ----------
    n_features : int
        As given.
    dimension : int
        As given.

    Examples
    --------
    >>> from skmanifoldflow.datasets import RandomNetwork
    >>> data = RandomNetwork(dimension=5, n_features=50)
    >>> X, coordinates = data.sample(100, random_state=0)
    >>> X.shape, coordinates.shape, data.log_density_manifold(coordinates).shape
    ((100, 50), (100, 5), (100,))
    """

    def __init__(self, dimension=2, n_features=10, *, noise=0.05, random_state=0):
        super().__init__(noise=noise)
        if not isinstance(dimension, Integral) or dimension < 1:
            raise ValueError(f"dimension must be an integer >= 1, got {dimension!r}")
        if not isinstance(n_features, Integral) or n_features < dimension:
            raise ValueError(
                f"n_features must be an integer >= dimension = {dimension}, got {n_features!r}"
            )
        self.dimension, self.n_features = int(dimension), int(n_features)
        rng = check_random_state(random_state)
        # The scales give every hidden unit a standard deviation near 1: bent, not saturated.
        widths = (self.dimension, self.n_features, self.n_features, self.n_features)
        scales = (np.sqrt(self.n_features / self.dimension), 1.7, 1.0)
        self._weights = [
            scale * np.linalg.qr(rng.standard_normal(size=(outputs, inputs)))[0]
            for (inputs, outputs), scale in zip(pairwise(widths), scales, strict=True)
        ]
        self._biases = 0.5 * rng.standard_normal(size=(2, self.n_features))

    def _hidden(self, coordinates):
        """Values of both hidden layers."""
        first = np.tanh(coordinates @ self._weights[0].T + self._biases[0])
        return first, np.tanh(first @ self._weights[1].T + self._biases[1])

    def _sample_coordinates(self, n_samples, rng):
        return rng.standard_normal(size=(n_samples, self.dimension))

    def _embed(self, coordinates):
        return self._hidden(coordinates)[1] @ self._weights[2].T

    def _log_density_manifold(self, coordinates):
        log_volume = np.empty(len(coordinates))
        # Rows one by one: a batch of Jacobians need not fit into memory.
        for row, (first, second) in enumerate(zip(*self._hidden(coordinates), strict=True)):
            inner = (1 - first[:, None] ** 2) * self._weights[0]
            jacobian = (1 - second[:, None] ** 2) * (self._weights[1] @ inner)
            # The last matrix is orthogonal and leaves the volume alone.
            singular_values = np.linalg.svd(jacobian, compute_uv=False)
            log_volume[row] = np.log(singular_values).sum()
        return log_normal((coordinates**2).sum(axis=1), self.dimension, 1.0) - log_volume


class FadingSquare(NoisyManifold):
    """Images of 32 x 32 pixels, zero but for a central 6 x 6 square of one grey value ~ U[0, 1].

    Flattened row by row. The images form a straight segment; the coordinate is the length along
    it, 6 times the grey value.

    Parameters
    ----------
    noise : float, default=0.0
        Standard deviation of the noise added to every pixel. None by default: the point of the
        set is an exactly degenerate distribution.

    Attributes
    ----------
    n_features : int
        Always 1024.
    dimension : int
        Always 1.

    Examples
    --------
    >>> from skmanifoldflow.datasets import FadingSquare
    >>> X, coordinates = FadingSquare().sample(100, random_state=0)
    >>> X.shape, float(X[:, 0].max())
    ((100, 1024), 0.0)
    """

    n_features = 1024
    dimension = 1
    _side = 6

    def __init__(self, *, noise=0.0):
        super().__init__(noise=noise)
        image = np.zeros((32, 32))
        image[13:19, 13:19] = 1 / self._side
        self._direction = image.ravel()

    def _sample_coordinates(self, n_samples, rng):
        return self._side * rng.uniform(size=(n_samples, 1))

    def _embed(self, coordinates):
        return coordinates * self._direction

    def _log_density_manifold(self, coordinates):
        inside = (coordinates[:, 0] >= 0) & (coordinates[:, 0] <= self._side)
        return np.where(inside, -np.log(self._side), -np.inf)

    def _split(self, X):
        """Position along the segment's line and squared distance to the line."""
        along = X @ self._direction
        return along, ((X - along[:, None] * self._direction) ** 2).sum(axis=1)

    def _log_density(self, X):
        along, squared = self._split(X)
        segment = log_noisy_interval(along, 0.0, self._side, self.noise)
        return segment + log_normal(squared, self.n_features - 1, self.noise)

    def _distance(self, X):
        along, squared = self._split(X)
        return np.hypot(along - np.clip(along, 0, self._side), np.sqrt(squared))
