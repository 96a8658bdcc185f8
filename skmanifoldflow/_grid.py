"""The values of a column and how often they occur, and the grid that they lie on, if there is one.

A grid is offset + k * step with integers k. Numbers have few digits, so nearly all of them lie on
some fine grid: one counts where it is unlikely for other numbers of the same precision.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import floor, lgamma, log, log10

import numpy as np

__all__ = ["Grid", "Tally", "distinct", "find_grid"]

# Share of the rows that is a few per cent: a single value with more may be an atom, and no more
# rows than that may lie beside a grid.
_FEW = 0.03
# Rows that may lie beside the grid of few rows, a tenth of them at most.
_MAX_EXCEPTIONS = 3
# Rows of one value below which it is no atom.
_MIN_ATOM_ROWS = 4
# An atom has more rows than this many of its neighbours, the median of the ten nearest values. Of
# rows that are drawn with replacement none is drawn so often.
_ATOM_RATIO = 8
_N_NEIGHBORS = 10
# Interquartile ranges between the median and a value that stands alone, as sentinels do.
_ISOLATION = 20

# Largest probability that numbers without a grid lie on one that is accepted.
_MAX_CHANCE = 1e-4
# Share of the points of a grid that are taken where rows of a coarse precision show it.
_MIN_OCCUPANCY = 0.1
# Distance from a grid, in steps, that arithmetic may leave.
_SLACK = 1e-6
# Steps that are smaller, relative to the scale, are the precision of the numbers, unless they are
# whole numbers: of decimals, and of numbers with any other step.
_FINEST_DECIMAL, _FINEST = 1e-8, 1e-6
# A grid is given up for one that is finer by less than this and includes what lies beside it.
_MIN_REFINEMENT = 5
# Chance of a common divisor of few values, from which on it is none.
_MAX_DIVISOR_CHANCE = 0.01
# Rows that show at once that there is no grid, values among which a step is looked for, and values
# whose digits are counted.
_N_SAMPLE, _N_BLOCK, _N_COUNTED = 256, 500, 2000
# Decimal places up to which powers of ten are numbers.
_MAX_DECIMALS = 300
_EPS64 = float(np.finfo(np.float64).eps)
_EPS32 = float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Grid:
    """The points offset + k * step, and which of the values of a `Tally` are among them."""

    step: float
    offset: float
    holds: np.ndarray


@dataclass(frozen=True)
class Tally:
    """Distinct values in ascending order, how many rows have each, and the precision of both.

    Attributes
    ----------
    values, counts : ndarray of shape (m,)
        float64 and int64.
    eps : float
        Relative spacing of the numbers that they were given as.
    """

    values: np.ndarray
    counts: np.ndarray
    eps: float

    @classmethod
    def of(cls, ordered, eps):
        """Count sorted values; numbers that differ by their last digits are one."""
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        # Minus zero is zero.
        values, counts = ordered[starts] + 0.0, np.diff(np.r_[starts, len(ordered)])
        if len(values) == 1 or are_whole(values):
            return cls(values, counts, eps)
        rounding = 2 * eps * np.abs(values)
        first = np.flatnonzero(np.r_[True, np.diff(values) > rounding[1:]])
        last = np.r_[first[1:], len(values)] - 1
        # Where numbers are as dense as their precision allows, they are not one.
        if np.all(values[last] - values[first] <= rounding[last]):
            values, counts = values[first], np.add.reduceat(counts, first)
            if len(values) > 1:
                values[-1] = ordered[-1]
        return cls(values, counts, eps)

    @property
    def has_float32_values(self):
        """Whether float64 numbers came from float32."""
        with np.errstate(over="ignore"):
            return self.eps < _EPS32 and np.array_equal(
                self.values, self.values.astype(np.float32).astype(np.float64)
            )

    @cached_property
    def n(self):
        """Number of rows."""
        return int(self.counts.sum())

    @cached_property
    def ends(self):
        """Number of rows up to each value."""
        return np.cumsum(self.counts)

    def quantiles(self, *shares, among):
        """Return the values below which these shares of the rows of some values lie."""
        values, ends = self.values[among], np.cumsum(self.counts[among])
        ranks = np.ceil(np.multiply(shares, ends[-1])).clip(1, None)
        return values[np.searchsorted(ends, ranks)]

    @cached_property
    def is_frequent(self):
        """Which single values have more than a few per cent of the rows."""
        return (self.counts >= _MIN_ATOM_ROWS) & (self.counts > _FEW * self.n)

    @cached_property
    def stands_alone(self):
        """Which values that recur are far from the others, as sentinels are.

        Values with fewer than a few per cent of the rows are far from each other value.
        """
        low, median, high = self.quantiles(0.25, 0.5, 0.75, among=slice(None))
        reach = _ISOLATION * (high - low)
        room = np.diff(self.values, prepend=-np.inf, append=np.inf)
        is_alone = np.minimum(room[:-1], room[1:]) > reach
        is_alone &= (np.abs(self.values - median) > reach) & (reach > 0)
        is_alone &= self.counts >= _MIN_ATOM_ROWS
        for i in np.flatnonzero(self.is_frequent).tolist():
            others = np.arange(len(self.values)) != i
            low, median, high = self.quantiles(0.25, 0.5, 0.75, among=others)
            is_alone[i] = abs(self.values[i] - median) > _ISOLATION * (high - low) > 0
        return is_alone

    @cached_property
    def is_atom(self):
        """Which frequent values stand alone or have many more rows than their neighbours."""
        is_atom = self.stands_alone.copy()
        for i in np.flatnonzero(self.is_frequent).tolist():
            first = max(0, min(i - _N_NEIGHBORS // 2, len(self.values) - _N_NEIGHBORS - 1))
            around = np.delete(self.counts[first : first + _N_NEIGHBORS + 1], i - first)
            usual = np.sort(around)[(len(around) - 1) // 2] if len(around) else self.n
            is_atom[i] |= self.counts[i] >= _ATOM_RATIO * usual
        # What is left is to be a distribution.
        return is_atom if len(self.values) - is_atom.sum() >= 2 else np.zeros_like(is_atom)

    def spread(self, among):
        """Return the standard deviation of some values, by quantiles where these differ."""
        low, high = self.quantiles(0.159, 0.841, among=among)
        if high > low:
            return float(high - low) / 2
        values, weights = self.values[among], self.counts[among]
        centred = values - np.average(values, weights=weights)
        return float(np.sqrt(np.average(centred**2, weights=weights)))

    @cached_property
    def scale(self):
        """Standard deviation beside the atoms, which is not zero."""
        return max(self.spread(~self.is_atom), _TINY)

    @cached_property
    def recurs(self):
        """Whether a value has two rows on average."""
        return 2 * len(self.values) <= self.n


def are_whole(values):
    """Tell whether values are whole numbers, of a size at which there are other numbers too."""
    return np.abs(values).max() < 1 / _EPS64 and np.array_equal(values, np.round(values))


def distinct(ordered):
    """Return sorted values once each."""
    return ordered[np.r_[ordered[:1] == ordered[:1], ordered[1:] != ordered[:-1]]]


def find_grid(tally):
    """Return the `Grid` of nearly all values, or None.

    At most a few per cent of the rows, and single values that have more, may lie beside it.
    """
    # float64 numbers that may have been float32 have the digits of these, or their own.
    coarse = [replace(tally, eps=_EPS32)] if tally.has_float32_values else []
    for t in (*coarse, tally):
        grid, is_final = _decimal_grid(t)
        if not is_final:
            grid, is_final = _real_grid(t)
        if is_final:
            return grid
    return None


def _is_nearly_all(tally, holds):
    """Tell whether what a grid does not hold is a few rows and single values."""
    single = ~holds & tally.is_frequent
    others = ~holds & ~tally.is_frequent
    if holds.sum() < 2 or single.sum() > max(1, holds.sum() // 3):
        return False
    n_others, n_usual = tally.counts[others].sum(), tally.counts[~tally.is_atom].sum()
    is_few = n_others <= _FEW * n_usual or others.sum() <= _MAX_EXCEPTIONS
    return bool(is_few and n_others <= max(_FEW * tally.n, min(_MAX_EXCEPTIONS, tally.n // 10)))


def _is_no_chance(of_unit, of_step, n_beside):
    """Tell whether other values would hardly be within reach of a grid.

    Reach is a share of the unit of the numbers, and of the step: two values lie on a grid whose
    step and offset are fitted to them wherever they are multiples of the unit. Others may lie
    beside the grid.
    """
    n, fitted = len(of_step) + n_beside, 2 / len(of_step)
    in_units, in_steps = (np.log(np.minimum(2 * reach, 1)).sum() for reach in (of_unit, of_step))
    log_chance = fitted * in_units + (1 - fitted) * in_steps
    log_choices = lgamma(n + 1) - lgamma(len(of_step) + 1) - lgamma(n_beside + 1)
    return log_chance + log_choices <= log(_MAX_CHANCE)


def _is_dense(tally, numbers, distances):
    """Tell whether rows recur at many of the neighbouring points of a grid.

    Rows of a coarse precision do, though it leaves them no other values.
    """
    if distances.max() > _SLACK:
        return False
    numbers = distinct(numbers)
    middle = numbers[len(numbers) // 6 : -(len(numbers) // 6) or None]
    n_points = float(middle[-1]) - float(middle[0]) + 1
    least = _MIN_OCCUPANCY if len(numbers) >= 10 else 0.5
    return tally.recurs and len(numbers) > 2 and len(middle) >= least * n_points


def _depends_on_size(numbers, counts, base):
    """Tell whether whole numbers are rounded to so many digits of a base, the large ones coarser.

    Nearly all rows then have few significant digits, though many of them have more digits.
    """
    every = max(1, len(numbers) // _N_COUNTED)
    numbers, counts = np.abs(numbers[::every]), counts[::every]
    if len(numbers) * log(base) < -log(_MAX_CHANCE):
        return False
    common = int(np.gcd.reduce(numbers))
    while common and common % base == 0:
        numbers, common = numbers // base, common // base
    powers = [base**i for i in range(1, 64) if base**i <= int(numbers.max())]
    n_digits = np.searchsorted(powers, numbers, side="right") + 1
    n_significant = n_digits - sum(numbers % power == 0 for power in powers)
    n_significant[numbers == 0] = 0
    order = np.argsort(n_significant)
    usual = n_significant[order][np.searchsorted(np.cumsum(counts[order]), 0.99 * counts.sum())]
    is_large = n_digits > usual
    is_rounded = is_large & (n_significant <= usual)
    is_no_chance = is_rounded.sum() * log(base) >= -log(_MAX_CHANCE)
    # Small ones are not rounded: of these one in `base` ends in zero.
    n_small, n_unrounded = counts[~is_large].sum(), counts[n_significant == n_digits].sum()
    is_finer = n_unrounded >= 0.5 * (1 - 1 / base) * n_small
    return bool(is_no_chance and is_finer and counts[is_rounded].sum() >= 0.1 * counts.sum())


# ------------------------------------------------------------------ decimal steps


def _decimal_grid(tally):
    """Return a grid of decimals with as few digits as possible, and whether there is no other.

    The grid is None where there is none, or where its steps are too fine or depend on the size.
    """
    largest = float(np.abs(tally.values).max())
    width = floor(log10(float(tally.values[-1]) - float(tally.values[0])))
    ranks = np.linspace(0, tally.n - 1, _N_SAMPLE).astype(np.int64)
    sample = tally.values[np.searchsorted(tally.ends, ranks, side="right")]
    most = 2 - floor(log10(_FINEST_DECIMAL * tally.scale))
    seen = np.zeros(len(tally.values), dtype=bool)
    for k in range(max(0, -width - 1), min(max(1, most), _MAX_DECIMALS)):
        if largest * 10.0**k >= 2.0**62:
            break
        # Three in four rows may have single values beside the grid.
        _, distances, reach = _whole(sample, k, tally.eps)
        if np.mean(distances <= reach) < 0.25:
            continue
        grid, is_final = _grid_of_decimals(tally, k, seen)
        if is_final:
            is_fine = grid and grid.step < _FINEST_DECIMAL * tally.scale
            return (None if is_fine and grid.step != round(grid.step) else grid), True
    return None, False


def _whole(values, k, eps):
    """Return values in units of 10^-k as whole numbers, their distance to these, and its reach.

    A result of arithmetic is off by some last digits, a number that was read by half of one.
    """
    multiples = values * 10.0**k
    rounding, product = eps * np.abs(multiples), 0.5 * _EPS64 * np.abs(multiples)
    reach = np.maximum(np.minimum(4 * rounding, 1e-3), 0.51 * rounding + product)
    # Zero is on every grid.
    reach = np.where(multiples == 0, 0.5, np.maximum(reach, _SLACK))
    whole = np.rint(multiples)
    return whole.astype(np.int64), np.abs(multiples - whole), reach


def _grid_of_decimals(tally, k, seen):
    """Return the grid of multiples of 10^-k, or None, and whether more digits give no other.

    Values `seen` with fewer digits say nothing about these, and those seen with these are added.
    """
    whole, distances, reach = _whole(tally.values, k, tally.eps)
    near = distances <= reach
    new = near & ~seen
    seen |= near
    if not _is_nearly_all(tally, near) or whole[near][0] == whole[near][-1]:
        return None, False
    step, base = _step_and_base(tally, whole, near)
    holds = near & ((whole - base) % step == 0)
    if not _is_worth_its_exceptions(tally, k, whole, holds, step, base):
        return None, False
    numbers = (whole - base % step) // step
    new &= holds
    is_no_chance = new.any() and _is_no_chance(reach[new], reach[new] / step, (~holds).sum())
    if not is_no_chance and not _is_dense(tally, numbers[holds], distances[holds]):
        return None, False
    usual = holds & ~tally.is_atom
    if any(
        _depends_on_size(n[usual], tally.counts[usual], b) for n, b in ((whole, 10), (numbers, 2))
    ):
        return None, True
    size = step / 10**k
    return Grid(size, _remainder(base % step / 10**k, size), holds), True


def _divisor(whole):
    """Return the greatest common divisor of the differences of numbers, and one of them."""
    return int(np.gcd.reduce(whole - whole[0])), int(whole[0])


def _step_and_base(tally, whole, near):
    """Return the largest step, in units, of a grid of nearly all whole numbers, and one of them."""
    step, base = _divisor(whole[near])
    usual = near & ~tally.is_atom
    n_usual = len(distinct(whole[usual]))
    if n_usual >= 3:
        larger, usual_base = _divisor(whole[usual])
        chance = (step / larger) ** (n_usual - 2)
        if larger >= _MIN_REFINEMENT * step and chance <= _MAX_DIVISOR_CHANCE:
            step, base, near = larger, usual_base, usual
    for p in (2, 3, 5):
        step, base, near = _coarser(tally, p, whole, step, base, near)
    # The differences of a few whole numbers have a common divisor by accident.
    n_distinct = len(distinct(whole[near]))
    is_chance = not tally.recurs and float(step) ** (2 - n_distinct) > _MAX_DIVISOR_CHANCE
    return (1 if is_chance else step), base


def _coarser(tally, p, whole, step, base, near):
    """Return the grid of p times the step, as often as all but a few values lie on it."""
    while True:
        remainders = (whole - base) // step % p
        rows = np.bincount(remainders[near], tally.counts[near], minlength=p)
        coarse = near & (remainders == rows.argmax())
        lost = near & ~coarse
        is_small = 0 < 10 * lost.sum() <= coarse.sum() and not tally.is_frequent[lost].any()
        if not is_small or not _is_nearly_all(tally, coarse):
            return step, base, near
        step, base, near = step * p, int(whole[coarse][0]), coarse


def _is_worth_its_exceptions(tally, k, whole, holds, step, base):
    """Tell whether a grid would have to be much finer to hold what lies beside this one."""
    beside, least = ~holds, _MIN_REFINEMENT
    if not beside.any():
        return True
    if not _is_nearly_all(tally, holds):
        return False
    if (beside & tally.is_frequent).any():
        # But for one of them, a few scattered decimals lie on a coarser grid by accident.
        numbers = (whole[holds] - base) // step
        if holds.sum() < 10 and 2 * holds.sum() <= np.ptp(numbers):
            return False
        least = _MIN_REFINEMENT if holds.sum() > 2 else 10 * _MIN_REFINEMENT
    elif 10 * beside.sum() <= holds.sum():
        return True
    largest = float(np.abs(tally.values).max())
    for more in range(1, 16):
        if largest * 10.0 ** (k + more) >= 2.0**62:
            break
        finer, distances, reach = _whole(tally.values[beside], k + more, tally.eps)
        if np.all(distances <= reach):
            whole_step = step * 10**more
            finest = int(np.gcd.reduce(finer - base * 10**more, initial=whole_step))
            return whole_step >= least * finest
    return True


# ------------------------------------------------------------------ any other step


def _real_grid(tally):
    """Return a grid of any step, as that of standardised integers, and whether it is the one.

    It is None as in `_decimal_grid`.
    """
    values = tally.values
    if len(values) == 2 and tally.recurs:
        step = float(values[1] - values[0])
        return Grid(step, _remainder(float(values[0]), step), np.ones(2, dtype=bool)), True
    usual = values[~tally.is_atom]
    if len(usual) < 3:
        return None, False
    middle = len(usual) // 2
    block = usual[max(0, middle - _N_BLOCK // 2) : middle + _N_BLOCK // 2]
    gaps = np.quantile(np.diff(block), (0.5, 0.1, 0), method="lower")
    # The distances of neighbours are small multiples of the step.
    for step in np.unique(gaps[:, None] / np.arange(1, 7))[::-1]:
        if step >= _FINEST * tally.scale and (step := _fitted_step(block, step)):
            grid, is_final = _grid_of_step(tally, _fitted_step(usual, step))
            if is_final:
                return grid, True
    return None, False


def _fitted_step(values, step):
    """Return a step like this one by least squares from ever larger distances, or None.

    A small error of the step is a large one after many steps.
    """
    for start in (len(values) // 2, len(values) // 3):
        distances, fitted, width = values - values[start], float(step), 8.0
        while fitted:
            inside = np.abs(distances) <= width * fitted
            numbers = np.rint(distances / fitted)
            used = inside & (numbers != 0) & (np.abs(distances - numbers * fitted) < fitted / 5)
            if used.sum() < (inside.sum() - 1) / 2:
                fitted = 0.0
            elif used.any():
                fitted = float((numbers * distances)[used].sum() / np.square(numbers[used]).sum())
            # Beyond that numbers are not told from each other.
            if inside.all() or width > 1 / (8 * _EPS64):
                break
            width *= 8
        if fitted:
            return fitted
    return None


def _grid_of_step(tally, step):
    """Return the grid of about this step, or None, and whether no other step gives one."""
    if not step or step < _FINEST * tally.scale:
        return None, False
    values = tally.values
    rounding = 4 * tally.eps * (np.abs(values) + tally.scale)
    usual = values[~tally.is_atom]
    base = float(usual[len(usual) // 2])

    def offset_of(step):
        distances = usual - base
        rest = float(np.median(distances - np.rint(distances / step) * step))
        return _remainder(base + rest, step)

    def distances_to(step, offset):
        multiples = (values - offset) / step
        return np.abs(multiples - np.rint(multiples))

    offset = offset_of(step)
    reach = np.maximum(rounding / step, _SLACK)
    distances = distances_to(step, offset)
    near = distances <= np.minimum(reach, 1 / 8)
    near &= np.abs(values) / step < 1 / _EPS64
    if not _is_nearly_all(tally, near):
        return None, False
    numbers = np.where(near, np.rint((values - offset) / step), 0).astype(np.int64)
    is_no_chance = _is_no_chance(np.ones(near.sum()), reach[near], (~near).sum())
    if not is_no_chance and not _is_dense(tally, numbers[near], distances[near]):
        return None, False
    is_usual = near & ~tally.is_atom
    if _depends_on_size(numbers[is_usual], tally.counts[is_usual], 2):
        return None, True

    # The step and the offset that are written most simply, if they hold the values as well.
    def holds(step, offset):
        return np.all(distances_to(step, offset)[near] <= rounding[near] / step)

    step = next((s for s in _simpler(step) if s > 0 and holds(s, offset_of(s))), step)
    offset = offset_of(step)
    offset = next((o for o in (0.0, *_shorter(offset)) if o < step and holds(step, o)), offset)
    return Grid(step, offset, near), True


def _simpler(number):
    """Return decimals and fractions near a number, simple ones first."""
    decimals, number = _shorter(number), Fraction(number)
    fractions = [float(number.limit_denominator(most)) for most in (10, 100, 1000)]
    return decimals[:4] + fractions + decimals[4:]


def _remainder(value, step):
    """Return the remainder of a division, in [0, step)."""
    remainder = value % step
    # That of a small negative value is rounded to the step.
    return remainder if remainder < step else 0.0


def _shorter(number):
    """Return a number with one digit, with two, and so on."""
    return [float(f"{number:.{digits}g}") for digits in range(1, 17)]
