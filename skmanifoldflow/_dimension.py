"""Reading a dimension: gaps of spectra, calibrated by nearest neighbours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from ._mixture_start import MAX_COMPLETE_FEATURES, fit_mixture, partition, spread_rows

__all__ = [
    "Candidate",
    "DimensionReport",
    "LocalMixture",
    "Reading",
    "calibrate",
    "fit_local_mixture",
    "neighbor_dimension",
    "read_dimension",
    "read_spectra",
    "read_spectrum",
    "spectral_dimension",
]

# Two neighbouring eigenvalues with a smaller ratio than this are of one kind.
_LEAST_GAP = 8.0
# Fewer different rows say nothing about their neighbours.
_MIN_ROWS = 100
# Neighbours of a row that count, and the share of the rows, those in the densest places, that do:
# rows far outside have their neighbours all on one side, and read low.
_N_NEIGHBORS = 10
_DENSE_SHARE = 0.75
# Up to so many columns they are found by a tree.
_MAX_TREE_FEATURES = 15
# Draws over which the value of a model is averaged.
_N_DRAWS = 3
# Readings that differ by no more than this agree; where a spectrum has a gap, which is evidence of
# its own, by this share of the dimension, about the error of nearest neighbours.
_TOLERANCE = 0.5
_TOLERANCE_WITH_GAP = 0.1
# A gap is near a rough dimension if it is off by no more than this factor.
_NEAR = 1.5
# A reference of many more dimensions than the data is replaced by one of the calibrated dimension.
_LARGE_CORRECTION = 0.8
# Numbers of parts that are compared, on so many rows.
_N_PARTS = (1, 2, 4, 8, 16, 32)
_MAX_MIXTURE_ROWS = 2500


def spectral_dimension(spectrum, noise_variance):
    """Number of eigenvalues before the widest gap of a spectrum, on a log scale.

    The noise that was added to the data is appended as a last eigenvalue, so that a spectrum
    without a gap, far above the noise everywhere, reads as full-dimensional.

    Parameters
    ----------
    spectrum : ndarray of shape (..., n_features)
        Variances in descending order.
    noise_variance : float
        Variance of the noise added to the data, in the units of `spectrum`. Eigenvalues below
        twice this value count as noise.

    Returns
    -------
    dimension : ndarray of int of shape (...)
        Between 1 and n_features.
    """
    floor = 2 * noise_variance
    floored = np.maximum(spectrum, floor)
    noise = np.full((*floored.shape[:-1], 1), floor)
    gaps = -np.diff(np.log(np.concatenate([floored, noise], axis=-1)), axis=-1)
    return 1 + np.argmax(gaps, axis=-1)


def _widest_gap(spectrum, noise_variance):
    """Return the number of eigenvalues before the widest gap, and the ratio of those at the gap.

    Where none is as small as the noise that was added, and no gap is wide, all of them count.
    """
    floor = 2 * noise_variance
    n_features = spectrum.shape[-1]
    is_noise = spectrum <= floor
    if n_features == 1:
        return np.ones(spectrum.shape[:-1], dtype=int), np.ones(spectrum.shape[:-1])
    spectrum = np.maximum(spectrum, floor)
    ratios = spectrum[..., :-1] / spectrum[..., 1:]
    widest = ratios.max(axis=-1)
    is_full = (widest < _LEAST_GAP) & ~is_noise.any(axis=-1)
    return np.where(is_full, n_features, 1 + ratios.argmax(axis=-1)), widest


class Reading(NamedTuple):
    """The dimension read from spectra of local covariances, and in what units it was.

    `units` is "standardised" or "data"; `spectrum` (D,) is the geometric mean of the spectra.
    """

    dimension: int
    units: str
    spectrum: np.ndarray


def read_spectra(spectra, noise_variance, weights=None):
    """Read the dimension from local covariances, in the units that show it more clearly.

    A column of nothing but noise is small in units of the data, and like all others after
    standardisation; a column in which a curved manifold varies little is the other way round.

    Parameters
    ----------
    spectra : dict of str to ndarray of shape (n, D)
        Eigenvalues in descending order at each of n places, by the name of their units.
    noise_variance : float
        Variance of the noise that was added.
    weights : ndarray of shape (n,), default=None
        Weights of the places, summing to 1; None for equal ones.

    Returns
    -------
    reading : Reading
    """
    best = None
    for units, values in spectra.items():
        logs = np.log(np.maximum(values, np.finfo(float).tiny))
        spectrum = np.exp(np.average(logs, axis=0, weights=weights))
        dimension, gap = _widest_gap(spectrum, noise_variance)
        if best is None or gap > best[0]:
            best = gap, Reading(int(dimension), units, spectrum)
    return best[1]


def read_spectrum(spectrum, noise_variance):
    """Return the number of eigenvalues before the widest gap of one spectrum or of each of many.

    Unlike `spectral_dimension` it does not take the noise that was added for an eigenvalue: where
    none is as small as that, and no two neighbours differ by a factor of 8, all of them count.
    """
    return _widest_gap(spectrum, noise_variance)[0]


def neighbor_dimension(rows):
    """Maximum-likelihood dimension of rows from the distances to their nearest neighbours.

    Levina & Bickel, NIPS 2004, with the average of inverses that MacKay and Ghahramani proposed,
    over the three quarters of the rows whose neighbours are nearest. Biased downwards in high
    dimension, and upwards by noise: to be compared with the value for samples of a model. Repeated
    rows count once.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Rows.

    Returns
    -------
    dimension : float
        NaN where there are fewer than 100 different rows.
    """
    # Half of the time of `import skmanifoldflow`, if they were there.
    from scipy.spatial import KDTree
    from sklearn.neighbors import NearestNeighbors

    # Far from zero distances would lose their digits.
    rows = np.unique(rows - rows.mean(axis=0), axis=0)
    if len(rows) < _MIN_ROWS:
        return np.nan
    if rows.shape[1] <= _MAX_TREE_FEATURES:
        distances = KDTree(rows, leafsize=16).query(rows, k=_N_NEIGHBORS + 1)[0][:, 1:]
    else:
        neighbors = NearestNeighbors(n_neighbors=_N_NEIGHBORS, algorithm="brute").fit(rows)
        distances = neighbors.kneighbors()[0]
    farthest = distances[:, -1]
    dense = np.argsort(farthest, kind="stable")[: int(_DENSE_SHARE * len(rows))]
    # Different rows may still be at distance zero after rounding.
    dense = dense[distances[dense, 0] > 0]
    mean = np.log(farthest[dense, None] / distances[dense, :-1]).mean() if len(dense) else 0.0
    return (_N_NEIGHBORS - 2) / (_N_NEIGHBORS - 1) / mean if mean > 0 else np.nan


def _next_gap(reading, noise_variance, dimension):
    """Return the widest gap behind that of a reading that is near a rough, larger dimension.

    None where what is behind the gap is noise, alike in all directions.
    """
    rest = np.maximum(reading.spectrum[reading.dimension :], 2 * noise_variance)
    if len(rest) < 2 or rest[0] <= _LEAST_GAP * np.quantile(rest, 0.25):
        return None
    k = reading.dimension + np.arange(1, len(rest))
    is_near = (k >= dimension / _NEAR) & (k <= dimension * _NEAR)
    if not is_near.any():
        return None
    return int(k[np.argmax(np.where(is_near, rest[:-1] / rest[1:], 0.0))])


def calibrate(reading, noise_variance, data, draw, n_features):
    """Calibrate the dimension of a model by nearest neighbours.

    The statistic of the data is compared with that of samples of the model, whose dimension d is
    known: bias cancels, and so does noise that the model has learned. Samples on the manifold of
    the model, without noise, give d * data / samples = `on_manifold`, samples with it
    `with_noise`. Where `on_manifold` is not above d, the data show no noise, whatever the model
    believes, and it is the calibrated value; else `with_noise` is. A reading within 0.5 of the
    calibrated value stands, one from a spectrum with a gap within a tenth.

    Noise is alike in all directions. Where `on_manifold` is above d and the eigenvalues behind the
    gap are not, there are dimensions among them, and the widest gap near `on_manifold` behind the
    first is read before.

    Parameters
    ----------
    reading : Reading
        Dimension of the model and the spectrum it was read from.
    noise_variance : float
        Variance of the noise that was added.
    data : float
        `neighbor_dimension` of the data.
    draw : callable
        Returns samples of the model, with its leading coordinates only if their number is given.
    n_features : int
        Largest possible dimension.

    Returns
    -------
    dimension : int
        The calibrated dimension.
    with_noise, on_manifold : float
        The two values before rounding; NaN where there are too few rows.
    """

    def ratio(d, n_components):
        samples = [neighbor_dimension(draw(n_components)) for _ in range(_N_DRAWS)]
        return d * data / np.mean(samples)

    def ratios(d):
        return ratio(d, None), ratio(d, d)

    if not np.isfinite(data):
        return reading.dimension, np.nan, np.nan
    reading = reading._replace(spectrum=reading.spectrum[:n_features])
    has_gap = reading.dimension < n_features
    with_noise, on_manifold = ratios(reading.dimension)
    while on_manifold > reading.dimension + _TOLERANCE:
        found = _next_gap(reading, noise_variance, on_manifold)
        if found is None:
            break
        reading = reading._replace(dimension=found)
        with_noise, on_manifold = ratios(found)
    dimension = reading.dimension
    value = on_manifold if on_manifold <= dimension + _TOLERANCE else with_noise
    tolerance = max(_TOLERANCE, _TOLERANCE_WITH_GAP * dimension if has_gap else 0.0)
    if not np.isfinite(value) or abs(value - dimension) <= tolerance:
        return dimension, with_noise, on_manifold
    is_hull, reference = on_manifold <= dimension, dimension
    while is_hull and 1 <= round(value) < reference and value < _LARGE_CORRECTION * reference:
        reference = round(value)
        value = ratio(reference, reference)
    return max(1, min(round(value), n_features)), with_noise, on_manifold


class LocalMixture(NamedTuple):
    """A mixture of normal laws with the principal axes of its parts.

    Weights (K,), means (K, D), axes (K, D, D) and variances (K, D) along these, descending.
    """

    weights: np.ndarray
    means: np.ndarray
    axes: np.ndarray
    variances: np.ndarray

    def log_joint(self, rows):
        """Return log p_k p(x|k), shape (n, K), up to a constant."""
        columns = [
            np.log(weight)
            - 0.5 * (np.square((rows - mean) @ axes) / variance).sum(1)
            - 0.5 * np.log(variance).sum()
            for weight, mean, axes, variance in zip(*self, strict=True)
        ]
        return np.stack(columns, axis=1)

    def spectra(self, slope):
        """Return the variances (K, D), descending, of rows whose columns are scaled by (K, D)."""
        factor = slope[:, :, None] * self.axes * np.sqrt(self.variances)[:, None, :]
        return np.square(np.linalg.svd(factor, compute_uv=False))

    def sample(self, n_samples, rng, noise, n_components=None, slope=None):
        """Draw rows, less noise of a standard deviation, along the leading axes of the parts.

        These are the longest after the columns are scaled by `slope` (K, D), if there is one.
        """
        parts = rng.choice(len(self.weights), size=n_samples, p=self.weights)
        factor = self.axes * np.sqrt(np.maximum(self.variances - noise**2, 0.0))[:, None, :]
        if n_components is not None and slope is not None:
            turned = np.linalg.svd(slope[:, :, None] * factor)[2]
            factor = factor @ turned.transpose(0, 2, 1)
        factor = factor[:, :, :n_components]
        normal = rng.standard_normal((n_samples, factor.shape[2]))
        rows = np.empty((n_samples, self.means.shape[1]))
        for k in range(len(self.weights)):
            rows[parts == k] = self.means[k] + normal[parts == k] @ factor[k].T
        return rows


def fit_local_mixture(rows, held_out, noise):
    """Fit a mixture of probabilistic PCAs whose number of parts held-out rows choose.

    It is the smallest number whose mean log-density is within a standard error of the best.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Rows with noise added, D up to 64.
    held_out : ndarray of shape (n_held_out, D)
        The same of other rows.
    noise : float
        Standard deviation of that noise.

    Returns
    -------
    mixture : LocalMixture or None
        None where there are too many columns or too few rows.
    score : float
        Mean log-density of the held-out rows.
    """
    n_features = rows.shape[1]
    if n_features > MAX_COMPLETE_FEATURES:
        return None, -np.inf
    rows = spread_rows(rows, _MAX_MIXTURE_ROWS)
    mixtures, scores = [], []
    for n_parts in _N_PARTS:
        if n_parts * (n_features + 1) > len(rows) / 2:
            break
        mixture, _ = fit_mixture(rows, partition(rows, n_parts)[0], n_parts, noise)
        mixtures.append(mixture)
        scores.append(logsumexp(mixture.log_joint(held_out), axis=1))
        best = max(scores, key=np.mean)
        errors = [(best - score).std() / np.sqrt(len(best)) for score in scores]
        is_near = [(best - s).mean() <= error for s, error in zip(scores, errors, strict=True)]
        # Numbers beyond two in a row that are clearly worse are taken to be worse still.
        if not any(is_near[-2:]):
            break
    if not mixtures:
        return None, -np.inf
    chosen = is_near.index(True)
    mixture = mixtures[chosen]
    weights = mixture.weights / mixture.weights.sum()
    return LocalMixture(weights, *mixture[1:3], mixture.scales**2), float(scores[chosen].mean())


@dataclass(frozen=True)
class DimensionReport:
    """What was read of the intrinsic dimension, and from what.

    Attributes
    ----------
    dimension : int
        The answer, `intrinsic_dimension_`: the reading of the better model, calibrated.
    model : {"flow", "mixture"}
        The model with the higher log-likelihood on rows set aside: the flow, or a mixture of
        probabilistic PCAs, which has charts for closed and branching shapes.
    prior : int
        Reading of the eigenvalues of the prior of the flow.
    jacobian : int
        Reading of the local covariance J C J' of the flow.
    mixture : int or None
        Reading of the covariances of the mixture; None where none was fitted.
    neighbors : float
        Nearest-neighbour dimension of the rows, biased in high dimension and by noise.
    with_noise, on_manifold : float
        That dimension calibrated by samples of the better model, with its noise and on its
        manifold; NaN where there were too few rows.
    flow_score, mixture_score : float
        Mean log-likelihood of rows set aside, in nats per standardised row; NaN where none were.
    units : {"standardised", "data"}
        Units in which the spectrum of the better model shows the wider gap.

    Examples
    --------
    >>> from skmanifoldflow import ManifoldPriorFlow
    >>> from skmanifoldflow.datasets import SinCurve
    >>> X, _ = SinCurve(noise=0.05).sample(500, random_state=0)
    >>> model = ManifoldPriorFlow(max_iter=5, tol=1.0, random_state=0).fit(X)
    >>> model.dimension_report_.dimension
    1
    """

    dimension: int
    model: str
    prior: int
    jacobian: int
    mixture: int | None
    neighbors: float
    with_noise: float
    on_manifold: float
    flow_score: float
    mixture_score: float
    units: str

    def disagreement(self):
        """Return a sentence if nearest neighbours contradict the better model, else None."""
        read = self.jacobian if self.model == "flow" else self.mixture
        if abs(read - self.dimension) <= max(1, 0.25 * self.dimension):
            return None
        return (
            f"The fitted {self.model} is {read}-dimensional, but nearest neighbours of its samples "
            f"are not like those of the rows, which look {self.dimension}-dimensional. The shape "
            "may be closed, or the fit too short: see dimension_report_."
        )


class Candidate(NamedTuple):
    """A model that tells a dimension: its name, `Reading`, samples, and log-likelihood.

    `draw` takes the number of leading coordinates that vary, None for all and the noise.
    """

    name: str
    reading: Reading
    draw: Callable[[int | None], np.ndarray]
    score: float


def read_dimension(rows, candidates, prior, n_features, noise_variance):
    """Return the report of the dimension of rows.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Rows in data units.
    candidates : list of Candidate
        The flow, and the mixture if there is one.
    prior : int
        Reading of the prior of the flow.
    n_features : int
        Number of columns that vary.
    noise_variance : float
        Variance of the noise that was added.

    Returns
    -------
    report : DimensionReport
    """
    flow, *others = candidates
    best = max([flow, *others], key=lambda candidate: candidate.score)
    data = neighbor_dimension(rows)
    dimension, with_noise, on_manifold = calibrate(
        best.reading, noise_variance, data, best.draw, n_features
    )
    return DimensionReport(
        dimension=dimension,
        model=best.name,
        prior=prior,
        jacobian=flow.reading.dimension,
        mixture=others[0].reading.dimension if others else None,
        neighbors=float(data),
        with_noise=float(with_noise),
        on_manifold=float(on_manifold),
        flow_score=flow.score,
        mixture_score=others[0].score if others else np.nan,
        units=best.reading.units,
    )
