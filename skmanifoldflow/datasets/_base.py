"""What every data set offers, with the checks of its arguments written once."""

from abc import ABC, abstractmethod
from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state


def _check_rows(rows, n_columns, name, *, allow_nan=False):
    """float64 array of shape (n, n_columns), or a ValueError that says what was got."""
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != n_columns:
        raise ValueError(f"{name} must have shape (n, {n_columns}), got {rows.shape}")
    if not (np.isfinite(rows) | (np.isnan(rows) & allow_nan)).all():
        raise ValueError(f"{name} must be finite, got NaN or infinite entries")
    return rows


class Manifold(ABC):
    """A distribution on a manifold in R^D, observed with isotropic normal noise.

    Parameters
    ----------
    noise : float, default=0.05
        Standard deviation of the noise added to every column, in data units.

    Attributes
    ----------
    n_features : int
        Number of columns D.
    dimension : int or None
        Dimension d of the manifold; None where it changes from place to place.

    Raises
    ------
    ValueError
        If `noise` is negative or not finite.
    """

    n_features: int
    dimension: int | None

    def __init__(self, *, noise=0.05):
        if not isinstance(noise, Real) or not 0 <= float(noise) < np.inf:
            raise ValueError(f"noise must be a finite number >= 0, got {noise!r}")
        self.noise = float(noise)

    def sample(self, n_samples, *, random_state=None):
        """Draw independent rows.

        Parameters
        ----------
        n_samples : int
            Number of rows, at least 1.
        random_state : None, int or RandomState, default=None
            Source of randomness, as in scikit-learn. With the same seed only the noise scales
            with `noise`: the points on the manifold stay.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Noisy rows, float64.
        coordinates : ndarray of shape (n_samples, dimension)
            True coordinates of the noiseless rows, ``embed(coordinates)``.

        Raises
        ------
        ValueError
            If `n_samples` is not an integer of at least 1.

        Examples
        --------
        >>> from skmanifoldflow.datasets import SinCurve
        >>> curve = SinCurve(noise=0.05)
        >>> X, coordinates = curve.sample(3, random_state=0)
        >>> X.shape, coordinates.shape
        ((3, 2), (3, 1))
        """
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be an integer >= 1, got {n_samples!r}")
        rng = check_random_state(random_state)
        coordinates = self._sample_coordinates(int(n_samples), rng)
        # Feature-major noise drawn last: the order of scikit-learn's generators, so that the
        # same seed gives the same rows as make_s_curve and make_swiss_roll.
        normal = rng.standard_normal(size=(self.n_features, n_samples)).T
        return self._embed(coordinates) + self.noise * normal, coordinates

    def embed(self, coordinates):
        """Map true coordinates to noiseless rows.

        Parameters
        ----------
        coordinates : array-like of shape (n, dimension)
            Coordinates as `sample` returns them.

        Returns
        -------
        X : ndarray of shape (n, n_features)
            Points of the manifold.

        Raises
        ------
        ValueError
            If coordinates are not finite, or not as many columns as the manifold has dimensions.

        Examples
        --------
        >>> from skmanifoldflow.datasets import SinCurve
        >>> curve = SinCurve(noise=0.05)
        >>> curve.embed([[0.0]])
        array([[0., 0.]])
        """
        return self._embed(self._check_coordinates(coordinates))

    def log_density_manifold(self, coordinates):
        """Log-density of the noiseless distribution.

        Parameters
        ----------
        coordinates : array-like of shape (n, dimension)
            Coordinates as `sample` returns them.

        Returns
        -------
        log_density : ndarray of shape (n,)
            In nats, with respect to the manifold's own volume (arc length, area, ...), at the
            points ``embed(coordinates)``; -inf outside the support.

        Raises
        ------
        ValueError
            If coordinates are not finite, or not as many columns as the manifold has dimensions.

        Examples
        --------
        >>> from skmanifoldflow.datasets import SinCurve
        >>> curve = SinCurve(noise=0.05)
        >>> curve.log_density_manifold([[0.0], [1.0]]).shape
        (2,)
        """
        return self._log_density_manifold(self._check_coordinates(coordinates))

    def local_dimension(self, coordinates):
        """Dimension of the manifold at each row.

        Parameters
        ----------
        coordinates : array-like of shape (n, dimension)
            Coordinates as `sample` returns them.

        Returns
        -------
        local_dimension : ndarray of shape (n,)
            Integers; all equal to `dimension` unless that is None.

        Raises
        ------
        ValueError
            If coordinates are not finite, or not as many columns as the manifold has dimensions.

        Examples
        --------
        >>> from skmanifoldflow.datasets import SinCurve
        >>> curve = SinCurve(noise=0.05)
        >>> curve.local_dimension([[0.0], [1.0]])
        array([1, 1])
        """
        return np.full(len(self._check_coordinates(coordinates)), self.dimension)

    def _check_coordinates(self, coordinates):
        """Coordinates as a finite float64 array with one column per dimension."""
        return _check_rows(coordinates, self.dimension, "coordinates")

    @abstractmethod
    def _sample_coordinates(self, n_samples, rng):
        """Coordinates of independent noiseless rows."""

    @abstractmethod
    def _embed(self, coordinates):
        """Points of the manifold at checked coordinates."""

    @abstractmethod
    def _log_density_manifold(self, coordinates):
        """Log-density with respect to the manifold's volume at checked coordinates."""


class NoisyManifold(Manifold):
    """A manifold whose noisy distribution has a computable density and whose distance is known."""

    def log_density(self, X):
        """Exact log-density of the noisy rows.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
            Rows of the ambient space, anywhere: far rows get finite values.

        Returns
        -------
        log_density : ndarray of shape (n,)
            In nats, with respect to the Lebesgue measure of R^D. Each value depends on its own
            row alone.

        Raises
        ------
        ValueError
            If `noise` is 0, where no such density exists, or if `X` has a wrong shape.

        Examples
        --------
        >>> from skmanifoldflow.datasets import SinCurve
        >>> curve = SinCurve(noise=0.05)
        >>> X, _ = curve.sample(3, random_state=0)
        >>> curve.log_density(X).shape
        (3,)
        """
        if self.noise == 0:
            raise ValueError(
                f"log_density needs noise > 0: without noise the rows of {type(self).__name__} "
                "have no density in the ambient space; see log_density_manifold"
            )
        return self._log_density(_check_rows(X, self.n_features, "X"))

    def distance(self, X):
        """Euclidean distance of each row to the noiseless manifold.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
            Rows of the ambient space.

        Returns
        -------
        distance : ndarray of shape (n,)
            In data units.

        Raises
        ------
        ValueError
            If rows are not finite, or do not have `n_features` columns.

        Examples
        --------
        >>> from skmanifoldflow.datasets import SinCurve
        >>> curve = SinCurve(noise=0.05)
        >>> bool(curve.distance([[0.0, 0.0]])[0] < 1e-9)
        True
        """
        return self._distance(_check_rows(X, self.n_features, "X"))

    @abstractmethod
    def _log_density(self, X):
        """Log-density of the noisy distribution at checked rows, `noise` being positive."""

    @abstractmethod
    def _distance(self, X):
        """Distance of checked rows to the manifold."""
