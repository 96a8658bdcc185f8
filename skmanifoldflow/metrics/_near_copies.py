"""Which samples are near copies of training rows."""

import sys
from numbers import Real
from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

from .._describe import describe_columns
from ._tables import check_tables

__all__ = ["NearCopies", "near_copy_share"]

# Share of fresh rows, exact copies apart, that are near copies where no distance is given.
_SHARE_OF_FRESH = 0.05


class NearCopies(NamedTuple):
    """How many samples are near copies of training rows.

    Attributes
    ----------
    share : float
        Share of the samples that are.
    fresh_share : float
        Share of the fresh rows that are: what chance gives.
    distance : float
        Distance from a training row up to which a row is a near copy, in scales of the columns.
    sample_distances : ndarray of shape (n_samples,)
        Distance of each sample from the nearest training row.
    fresh_distances : ndarray of shape (n_fresh_samples,)
        Distance of each fresh row from the nearest training row.
    """

    share: float
    fresh_share: float
    distance: float
    sample_distances: np.ndarray
    fresh_distances: np.ndarray


def near_copy_share(samples, training, fresh, *, distance=None):
    r"""Tell how many samples are near copies of training rows, and how many fresh rows are.

    A model that has learned rows by heart draws them again. Of rows of the same distribution some
    are near a training row by chance, so the share of the samples that are is to be seen beside
    that of fresh rows, which the model has not seen: where it is larger, the samples are nearer to
    the training rows than they should be [1]_.

    Distances are Euclidean, in units of the `scale` of each column of the training rows
    (:class:`~skmanifoldflow.Column`), the standard deviation without atoms and outliers.

    Parameters
    ----------
    samples : array-like of shape (n_samples, n_features)
        Rows that a model drew.
    training : array-like of shape (n_training_samples, n_features)
        Rows that the model was fitted to.
    fresh : array-like of shape (n_fresh_samples, n_features)
        Rows of the same table that the model was not fitted to.
    distance : float, default=None
        Distance from a training row up to which a row is a near copy; 0 counts exact copies. None
        takes the largest one that no more than a twentieth of the fresh rows are within, exact
        copies apart, so that it suits any number of rows and columns. It is 0 where all columns
        have few values.

    Returns
    -------
    copies : NearCopies
        Both shares, the distance, and that of each row from the nearest training row.

    Raises
    ------
    ValueError
        If the three have different columns, or entries that are not finite, or if `distance` is
        negative or not finite.

    Notes
    -----
    This finds models that repeat rows. It is no promise of privacy: samples that are no nearer to
    the training rows than fresh rows are may still reveal who was among them [2]_. Look at the
    nearest samples one by one, above all near training rows that are far from all others, which a
    person is recognised by.

    The share of n fresh rows has a standard error of :math:`\sqrt{p (1 - p) / n}`.

    References
    ----------
    .. [1] Platzer & Reutterer, "Holdout-based empirical assessment of mixed-type synthetic data",
           Frontiers in Big Data 4, 2021, https://arxiv.org/abs/2104.00635.
    .. [2] Yao, Krco, Ganev & de Montjoye, "The DCR delusion: measuring the privacy risk of
           synthetic data", 2025, https://arxiv.org/abs/2505.01524.

    Examples
    --------
    >>> import numpy as np
    >>> from skmanifoldflow.metrics import near_copy_share
    >>> rng = np.random.RandomState(0)
    >>> training, fresh = rng.normal(size=(2, 1000, 3))
    >>> by_heart = training[rng.randint(1000, size=500)] + rng.normal(0, 0.001, (500, 3))
    >>> copies = near_copy_share(by_heart, training, fresh)
    >>> copies.share, copies.fresh_share
    (1.0, 0.05)
    >>> near_copy_share(rng.normal(size=(500, 3)), training, fresh).share < 0.1
    True
    """
    if distance is not None and not (isinstance(distance, Real) and 0 <= float(distance) < np.inf):
        raise ValueError(f"distance must be a finite number >= 0, or None, got {distance!r}.")
    samples, training, fresh = check_tables(samples=samples, training=training, fresh=fresh)
    columns = describe_columns(training, range(training.shape[1]), sys.float_info.epsilon)
    # A column that is constant in the training rows has no scale.
    scale = np.array([column.scale or 1.0 for column in columns])
    center = np.median(training, axis=0)
    scaled = (training - center) / scale
    search = NearestNeighbors(n_neighbors=1).fit(scaled)
    sample_distances, fresh_distances = (
        _to_nearest(search, scaled, (rows - center) / scale) for rows in (samples, fresh)
    )
    if distance is None:
        distance = _largest_near(np.sort(fresh_distances[fresh_distances > 0]))
    return NearCopies(
        float((sample_distances <= distance).mean()),
        float((fresh_distances <= distance).mean()),
        float(distance),
        sample_distances,
        fresh_distances,
    )


def _largest_near(distances):
    """Return the largest distance that a share of these, positive and ascending, are within."""
    if len(distances) < 2:
        return 0.0
    # Of equal distances all are near, or none.
    first_far = distances[max(1, int(_SHARE_OF_FRESH * len(distances)))]
    near = distances[distances < first_far]
    return near[-1] if len(near) else 0.0


def _to_nearest(search, training, rows):
    """Return the distance (n,) of each row from the nearest training row."""
    nearest = search.kneighbors(rows, return_distance=False)[:, 0]
    # The search rounds: of equal rows it may say 1e-8.
    return np.sqrt(((rows - training[nearest]) ** 2).sum(axis=1))
