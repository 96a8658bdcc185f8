"""The dimension of rows: nearest neighbours calibrated by a mixture, and its spectrum.

docs/user_guide/intrinsic_dimension.rst explains the steps.
"""

from typing import NamedTuple

import numpy as np

from .._linear import principal_axes
from .mixture import LocalMixture, fit_local_mixtures, near_the_best
from .neighbors import SCALES, neighbor_dimensions
from .units import LEAST_NOISE, Prepared

__all__ = ["Calibrated", "calibrate"]

# Rows that are set aside to compare mixtures.
_HELD_OUT_SHARE, _MIN_HELD_OUT = 0.1, 10
# The mixture explains the noise of rows if their estimates and those of its samples differ by so
# little on average and at each scale, and its spectrum has a gap of its own that is clear, there
# or on average.
_EXPLAINED_MEAN, _EXPLAINED = 0.13, 0.2
_OWN_GAP, _CLEAR_GAP = 2.5, 4.0
# Condition of a linear map, squared and doubled, that rows of one normal distribution may have
# gone through; larger ratios of their variances are those to noise.
_MAX_CONDITION = 200.0
# Parts of a mixture are dense in the middle, which rows of many shapes are not, so that calibrated
# estimates are rather too large. One that is too small counts so many times as much.
_TOO_SMALL = 1.5
# Noise that is not explained may make them too large by so many tolerances.
_NOISE = 2.0
# Two estimates agree within this difference of their logarithms.
_AGREE = 0.1
# Estimates by scale that differ by no more are level.
_FLAT = 0.13
# With fewer rows for each neighbour the largest scales are those of the whole table.
_ROWS_PER_NEIGHBOR = 8


class Calibrated(NamedTuple):
    """A dimension and what it is based on.

    Attributes
    ----------
    dimension : int
        The dimension.
    estimate : float
        What nearest neighbours say of it, calibrated.
    by_scale : ndarray of shape (n_scales, 2)
        Estimates by nearest neighbours: of the rows, and calibrated.
    spectrum : ndarray of shape (q,)
        Geometric mean of the variances in the parts of the mixture that bends do not explain, the
        first 1.
    n_parts : int
        Number of its parts.
    """

    dimension: int
    estimate: float
    by_scale: np.ndarray
    spectrum: np.ndarray
    n_parts: int


class _Reference(NamedTuple):
    """The mixture that samples are drawn from, its bends, and the gaps in spectra of all fitted.

    Variances are those that bends do not explain. `log_gaps` (q,) is, at index d - 1, the mean
    log-ratio of variances d and d + 1 over mixtures of 1, 2, 4, ... parts, and `own_gaps` that of
    the mixture alone.
    """

    mixture: LocalMixture
    log_gaps: np.ndarray
    own_gaps: np.ndarray
    spectrum: np.ndarray
    bends: list


def accuracy(dimension):
    """Return the relative error of calibrated estimates, scale by scale, in so many dimensions."""
    return np.minimum(0.025 + 0.002 * np.square(dimension), 0.16)


def tolerance(dimension):
    """Return the relative error of a calibrated estimate over scales, in so many dimensions."""
    return np.minimum(0.03 + 0.0002 * np.power(dimension, 3), 0.16)


def calibrate(prepared: Prepared, n_draws, seed) -> Calibrated:
    """Read the dimension of rows, given how often the mixture is sampled for a mean.

    Nearest neighbours give an estimate, and the spectrum of the mixture the dimension near it after
    which the variances fall most. Three cases differ in the estimate: the noise of the rows is
    known, or the mixture explains it, or samples are drawn on the manifold of the mixture.
    """
    rng = np.random.RandomState(seed)
    rows, noise, _ = prepared
    reference = _fit_reference(rows, noise, rng)
    if noise == 0.0 and len(reference.mixture.weights) == 1:
        whitened = _whitened(rows, reference.mixture)
        if whitened is not None:
            rows, reference = whitened, _fit_reference(whitened, noise, rng)
    q, n_scales = rows.shape[1], _n_scales(len(rows))
    if not n_scales:
        dimension = int(reference.own_gaps.argmax()) + 1 if reference.own_gaps.any() else q
        no_scale = np.empty((0, 2))
        return Calibrated(dimension, np.nan, no_scale, reference.spectrum, 1)
    own = neighbor_dimensions(rows, n_scales)
    memory: dict[tuple[int, bool], np.ndarray] = {}

    def ratio(d, with_rest=False):
        """Return by scale the estimates of the rows over those of samples in d dimensions.

        With the rest the samples have all that bends of the parts do not explain as noise.
        """
        key = int(d), with_rest
        if key not in memory:
            logs = []
            least = LEAST_NOISE if with_rest else np.hypot(LEAST_NOISE, noise)
            for _ in range(n_draws):
                sample = reference.mixture.sample(
                    len(rows), rng, least, d, reference.bends, with_rest=with_rest
                )
                if noise:
                    sample = sample + noise * rng.standard_normal(sample.shape)
                logs.append(np.log(own / neighbor_dimensions(sample, n_scales)))
            memory[key] = np.exp(np.mean(logs, axis=0))
        return memory[key]

    # Normal rows of so many dimensions would have this estimate.
    r = own[1:3].mean() if n_scales > 2 else own.mean()
    start = int(np.clip(round(r + r**3 / 700), 1, q))
    if noise:
        dimension = _with_known_noise(reference, ratio, start)
        estimate = dimension * float(np.exp(np.log(ratio(dimension)).mean()))
    elif _is_explained(reference, ratio):
        dimension = int(reference.own_gaps.argmax()) + 1
        estimate = dimension * float(np.exp(np.log(ratio(dimension, True)).mean()))
    else:
        estimate = _on_the_manifold(ratio, start, q)
        dimension, estimate = _at_a_gap(reference.log_gaps, ratio, estimate)
    calibrated = dimension * ratio(dimension)
    by_scale = np.column_stack([own, calibrated])
    return Calibrated(
        dimension, estimate, by_scale, reference.spectrum, len(reference.mixture.weights)
    )


def _n_scales(n):
    """Return at how many scales neighbours are near, given the number of rows."""
    return sum(2 * k * _ROWS_PER_NEIGHBOR <= n for k in SCALES)


def _fit_reference(rows, noise, rng):
    """Fit mixtures of 1, 2, 4, ... parts and choose one by the scores held out.

    It is a single normal distribution where that is within two standard errors of the best, and
    otherwise the smallest within one: more parts than it takes lie across each other.
    """
    n = len(rows)
    order = rng.permutation(n)
    noisy = rows[order] + LEAST_NOISE * rng.standard_normal(rows.shape)
    n_held_out = max(_MIN_HELD_OUT, int(_HELD_OUT_SHARE * n))
    mixtures: list[LocalMixture] = []
    scores: list[np.ndarray] = []
    if n > 2 * n_held_out:
        mixtures, scores = fit_local_mixtures(noisy[n_held_out:], noisy[:n_held_out], LEAST_NOISE)
    if not mixtures:
        mean, axes, variances = principal_axes(noisy)
        variances = np.maximum(variances, LEAST_NOISE**2)
        mixtures = [LocalMixture(np.ones(1), mean[None], axes[None], variances[None])]
        scores = [np.zeros(1)]
    is_one = near_the_best(scores, 2.0)[0]
    chosen = 0 if is_one else near_the_best(scores).index(True)
    floor = 2 * LEAST_NOISE**2
    bends = [m.bends(noisy) for m in mixtures]
    unbent = [m.unbent_variances(b) for m, b in zip(mixtures, bends, strict=True)]
    logs = np.array(
        [m.weights @ np.log(np.maximum(u, floor)) for m, u in zip(mixtures, unbent, strict=True)]
    )
    # The last axis has nothing after it.
    gaps = np.column_stack([logs[:, :-1] - logs[:, 1:], np.zeros(len(logs))])
    spectrum = np.exp(logs[chosen] - logs[chosen, 0])
    return _Reference(mixtures[chosen], gaps.mean(axis=0), gaps[chosen], spectrum, bends[chosen])


def _whitened(rows, mixture):
    """Return rows of one normal distribution in units of its axes, or None where they are equal.

    Its thin directions are dimensions all the same, as far as a linear map could have made them so.
    """
    variances = mixture.variances[0]
    kept = variances >= variances[0] / _MAX_CONDITION
    if variances[kept][-1] >= variances[0] / 1.5 and kept.all():
        return None
    mean, axes, variances = principal_axes(rows)
    return (rows - mean) @ axes[:, kept] / np.sqrt(variances[kept])


def _is_explained(reference, ratio):
    """Tell whether samples of the mixture with its noise are like the rows, at all scales.

    The estimates of rows with noise fall with the scale, to less than one dimension more.
    """
    widest = int(reference.own_gaps.argmax())
    gap = max(reference.own_gaps[widest], reference.log_gaps[widest])
    if reference.own_gaps[widest] < np.log(_OWN_GAP) or gap < np.log(_CLEAR_GAP):
        return False
    d = widest + 1
    logs = np.log(ratio(d, True))
    if abs((logs[1:5] if len(logs) > 1 else logs).mean()) >= _EXPLAINED_MEAN:
        return False
    if np.abs(logs).max() >= _EXPLAINED:
        return False
    return _level(ratio, d)[1] > accuracy(d) and d * ratio(d)[-1] < d + 1


def _with_known_noise(reference, ratio, start):
    """Return the dimension whose samples, with the noise of the rows, are like them at all scales.

    That of the widest gap first, and from `start`, which noise makes too large, downwards those
    that could do better.
    """
    scores: dict[int, float] = {}
    for d in (int(reference.log_gaps.argmax()) + 1, *range(start, 0, -1)):
        if reference.log_gaps[d - 1] <= max(scores.values(), default=-np.inf):
            continue
        misfit = np.square(np.log(ratio(d))).mean()
        scores[d] = reference.log_gaps[d - 1] - 0.5 * misfit / accuracy(d) ** 2
        best = max(scores, key=lambda one: scores[one])
        if best <= start and best - d >= 3:
            break
    return best


def _on_the_manifold(ratio, start, largest):
    """Return the estimate that samples of the dimension calibrate which are like the rows.

    Where the estimates of the rows fall from the small scales to the large ones there is noise, and
    lower dimensions are tried as long as they agree with what they calibrate.
    """
    d = start
    tried: set[int] = set()
    while d not in tried:
        tried.add(d)
        estimate, fall = _level(ratio, d)
        d = int(np.clip(round(estimate), 1, largest))

    def off(d):
        """Return how far from d samples in d dimensions calibrate the estimate."""
        level, fall = _level(ratio, d)
        log = np.log(level / d) / tolerance(d)
        return np.inf if fall > tolerance(d) else max(log, -_TOO_SMALL * log)

    # One dimension less may be nearer to what it calibrates.
    while d > 1 and off(d - 1) < off(d):
        d -= 1
    if fall > accuracy(d):
        while d > 1 and abs(np.log(_level(ratio, d - 1)[0] / (d - 1))) < _AGREE:
            d -= 1
    return _level(ratio, d)[0]


def _at_a_gap(log_gaps, ratio, estimate):
    """Return the dimension near an estimate after which the variances fall most, and the estimate.

    Noise that is not explained makes estimates too large, so that of a smaller dimension with a
    clearly wider gap what its own samples calibrate may be farther off.
    """
    dimensions = np.arange(1, len(log_gaps) + 1)
    scores = log_gaps - 0.5 * (np.log(dimensions / estimate) / tolerance(dimensions)) ** 2
    d = int(scores.argmax()) + 1
    lower = int(log_gaps[:d].argmax()) + 1
    if log_gaps[lower - 1] - log_gaps[d - 1] > np.log(_OWN_GAP):
        level = _level(ratio, lower)[0]
        off = np.log(level / lower) / (_NOISE * tolerance(lower))
        if log_gaps[lower - 1] - 0.5 * off**2 > scores[d - 1]:
            return lower, level
    return d, estimate


def _level(ratio, d):
    """Return the calibrated estimate, and by how much its logarithm falls from the first scales.

    It is the mean over the scales where they agree, and otherwise the least mean of two in a row:
    noise makes estimates at small scales too large, and bends those at large ones. Where they rise
    from the first scales on, the line through the first two means is followed half a scale down, in
    few dimensions, whose first scales are precise enough.
    """
    logs = np.log(d * ratio(d))
    pairs = 0.5 * (logs[1:] + logs[:-1]) if len(logs) > 1 else logs
    if np.ptp(logs) < min(accuracy(d), _FLAT):
        level = logs.mean()
    elif len(pairs) > 1 and pairs.argmin() == 0 and accuracy(d) < _AGREE:
        level = 1.5 * pairs[0] - 0.5 * pairs[1]
    else:
        level = pairs.min()
    return float(np.exp(level)), float(pairs[0] - pairs.min())
