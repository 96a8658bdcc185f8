"""Which map each column of a table gets, from its description and its rows: numpy only."""

from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from .backend.column_maps import ColumnMaps, Dummies, Shape

__all__ = ["are_nearly_independent", "column_maps", "hard_ends"]

# Rows of each value, on average, from which on the share of every value is known well enough.
_ROWS_PER_VALUE = 20
# Width of the interval of an atom, in standard deviations of the other rows, at least.
_LEAST_WIDTH = 1e-3
# Rows between the knots of a continuous distribution, and the most of such intervals.
_ROWS_PER_INTERVAL, _MAX_INTERVALS = 32, 64
# Rows that an interval without rows, and each open end, is worth.
_EMPTY = 0.5
# Rows, in those of an open end, that tell how the distribution goes on beyond it.
_N_OUTER = 32
# An interval is cut where one distance between neighbouring rows is so much of it.
_GAP = 0.9
# Standard deviation of a column, in that of the rows without the outer two hundredths, from which
# on gross values make it.
_MAX_SPREAD, _PART_OF_GROSS = 8, 100
# Pairs of rows with equal values, in those that a normal variable on the same grid would have, and
# share of the rows that have such a value, from which on values recur on their own account.
_MIN_PAIRS_RATIO, _MIN_RECURRING = 5, 0.3
# Distance of the last twentieth of the rows to an end, in that of the last fifth, below which rows
# crowd there: .25 if they are spread evenly, .63 for 500 normal ones.
_EVEN = 0.48
# Distance to the nearest neighbour, in that of independent columns, from which on columns hardly
# depend on each other; and rows that are compared.
_INDEPENDENT, _MAX_COMPARED = 0.9, 2000
# Shares of an interval that are rounding.
_SLIVER = 1e-9
# Decimal places that are tried for the values of a grid.
_MAX_DECIMALS = 12


class _Piece(NamedTuple):
    """An interval of a distribution, the rows in it, and its value, if it is that of one."""

    low: float
    high: float
    n_rows: float
    value: float | None
    is_uniform: bool


def column_maps(columns, rows, counted, bounds, noise_floor, is_spread, is_mapped, signs):
    """Return the `ColumnMaps` of a table, or None where every column stays as it is.

    Parameters
    ----------
    columns : Columns
        Their description.
    rows : ndarray of shape (n, D)
        Rows of the table, some of many, which are not copies of each other.
    counted : ndarray of shape (m, D)
        Rows as often as they count.
    bounds : list of tuple of two floats
        Ends of each column, infinite where there are none.
    noise_floor : float
        Width of an atom in standard deviations, if it is more than a thousandth.
    is_spread : ndarray of bool of shape (D,)
        Columns whose values may be spread.
    is_mapped : ndarray of bool of shape (D,)
        Columns that get a shape whatever they hold.
    signs : ndarray of shape (D,)
        1 or -1: columns whose shape is that of the mirrored one are -1.
    """
    shapes, grids, dummies = {}, {}, []
    seen: set[int] = set()
    for j, column in enumerate(columns):
        if j in seen:
            continue
        x = np.sort(np.asarray(counted[:, j], dtype=np.float64))
        bound = bounds[j]
        is_set = column.dummies and all(is_spread[i] for i in column.dummies)
        if is_set and not np.isfinite([bounds[i] for i in column.dummies]).any():
            seen.update(column.dummies)
            dummies.append(_dummies(columns, column.dummies))
            shapes[j] = _categories(np.asarray(counted[:, column.dummies], dtype=np.float64))
            continue
        step = column.step if is_spread[j] and column.kind != "constant" else None
        if step is not None:
            # A bound holds values, which are spread on both of its sides.
            bound = (bound[0] - step / 2, bound[1] + step / 2)
        decimals = _decimals(step, column.offset) if step is not None else -1
        of_rows = np.asarray(rows[:, j], np.float64)
        if signs[j] < 0:
            column, x, of_rows = _mirrored(column), -x[::-1], -of_rows
            bound = (-bound[1], -bound[0])
        cells = []
        if is_spread[j] or column.kind == "constant":
            values, counts = np.unique(of_rows, return_counts=True)
            cells = _cells(column, values, counts, x, bound, noise_floor)
        rest = x[~np.isin(x, [cell.value for cell in cells])] if cells else x
        if step is not None and len(rest):
            low, high = sorted((signs[j] * float(rest[0]), signs[j] * float(rest[-1])))
            grids[j] = (step, columns[j].offset, decimals, low, high)
        has_bound = np.isfinite(bound).any()
        is_blurred = column.kind == "continuous" and _is_blurred(x, noise_floor)
        if cells or has_bound or is_mapped[j] or is_blurred:
            scale = column.scale or max(abs(column.low), 1.0)
            shape = _shape(cells, rest, bound, step or 0.0, scale, len(x))
            shapes[j] = shape if signs[j] > 0 else shape.mirrored()
    if not shapes and not grids:
        return None
    return ColumnMaps(len(columns), shapes, grids, tuple(dummies))


def _mirrored(column):
    """Return the description of the column times -1."""
    return replace(
        column,
        low=-column.high,
        high=-column.low,
        offset=None if column.offset is None else -column.offset,
        atoms=tuple(atom._replace(value=-atom.value) for atom in column.atoms),
    )


def _decimals(step, offset):
    """Return the decimal places of the points of a grid, or -1 if they have more than a few."""
    for n in range(_MAX_DECIMALS):
        unit = Fraction(10) ** n
        if all(
            float(Fraction(round(Fraction(number) * unit)) / unit) == number
            for number in (step, offset)
        ):
            return n
    return -1


def hard_ends(columns, rows):
    """Return which columns (D,) are continuous and end where many rows are, as exponential ones do.

    Near an end at which the density is finite the fifth of the rows next to it is spread evenly, or
    crowds at the end; a normal variable leaves most of that distance to the last few rows.
    """
    low = np.quantile(rows, [0, 0.05, 0.2], axis=0)
    high = -np.quantile(rows, [1, 0.95, 0.8], axis=0)
    tiny = np.finfo(float).tiny
    shares = [(q[1] - q[0]) / np.maximum(q[2] - q[0], tiny) for q in (low, high)]
    is_continuous = np.array([column.kind == "continuous" for column in columns])
    return is_continuous & (np.minimum(*shares) < _EVEN)


def are_nearly_independent(rows):
    """Tell whether rows are about as far from their nearest neighbours as independent columns are.

    On a manifold, and where columns depend on each other, they are much nearer.
    """
    # This import is slow.
    from sklearn.neighbors import NearestNeighbors

    rows = np.asarray(rows[:: -(-len(rows) // _MAX_COMPARED)], dtype=np.float64)
    rows = rows / np.maximum(rows.std(axis=0), np.finfo(float).tiny)
    rng = np.random.RandomState(0)
    shuffled = np.column_stack([rng.permutation(column) for column in rows.T])
    near, usual = (
        np.median(NearestNeighbors(n_neighbors=1).fit(x).kneighbors()[0]) for x in (rows, shuffled)
    )
    return bool(near > _INDEPENDENT * usual)


# ------------------------------------------------------------------ intervals of values


def _dummies(columns, indices):
    return Dummies(indices, [columns[i].low for i in indices], [columns[i].high for i in indices])


def _categories(rows):
    """Return the `Shape` of the number of the category that dummies encode."""
    middle = 0.5 * (rows.min(axis=0) + rows.max(axis=0))
    counts = np.maximum((rows > middle).sum(axis=0), _EMPTY)
    ranks = np.r_[0, np.cumsum(counts)] / counts.sum()
    k = len(counts)
    knots = [i - 0.5 for i in range(k + 1)]
    values: list[float | None] = [float(i) for i in range(k)]
    return Shape(knots, [*ranks[:-1].tolist(), 1.0], values, k * [True], (0.0, 0.0))


def _cells(column, values, counts, x, bound, noise_floor):
    """Return the intervals over which single values of a column are spread, in ascending order.

    `values` occur in `counts` rows, and in the rows x, sorted, as often as they count. Intervals
    are those of all values of a column that has few; else atoms, and where values recur those that
    did. Of their rows a part is left to values that have not been seen, by absolute discounting
    (Ney, Essen & Kneser, 1994).
    """
    discount, n = 0.0, counts.sum()
    is_constant = len(values) == 1
    if is_constant and not np.isfinite(bound).any():
        return []
    if is_constant or (column.kind == "discrete" and len(values) * _ROWS_PER_VALUE <= n):
        chosen = np.ones(len(values), dtype=bool)
    else:
        chosen = np.isin(values, [atom.value for atom in column.atoms])
        if _recur(column, counts):
            chosen |= counts > 1
            n_once, n_twice = (counts == 1).sum(), (counts == 2).sum()
            discount = float(n_once / max(n_once + 2 * n_twice, 1) * len(x) / n)
    if not chosen.any():
        return []
    values = values[chosen]
    counts = np.searchsorted(x, values, side="right") - np.searchsorted(x, values)
    n_rows = np.maximum(counts - discount, _EMPTY)
    width = max(noise_floor, _LEAST_WIDTH) * (column.scale or max(abs(column.low), 1.0))
    # Intervals of different values do not overlap.
    room = np.diff(values, prepend=-np.inf, append=np.inf)
    room = np.minimum(room[:-1], room[1:])
    cells = []
    for value, count, most in zip(values.tolist(), n_rows.tolist(), room.tolist(), strict=True):
        is_point = column.step is not None and _is_on_grid(value, column)
        half = 0.5 * (column.step if is_point else min(width, 0.5 * most))
        # At a bound the interval is on the inner side.
        shift = max(bound[0] - (value - half), 0.0) - max(value + half - bound[1], 0.0)
        cells.append(_Piece(value - half + shift, value + half + shift, count, value, True))
    for i in range(1, len(cells)):
        # Those of neighbours on a grid share their ends.
        before, cell = cells[i - 1], cells[i]
        if cell.low - before.high < 1e-6 * (cell.high - cell.low):
            cells[i] = cell._replace(low=before.high)
    return cells


def _recur(column, counts):
    """Tell whether values recur more often than those of a smooth distribution on the grid do."""
    n = counts.sum()
    n_pairs = (counts * (counts - 1.0)).sum() / 2
    # The integral of a squared normal density is 1 / (2 sqrt(pi) sd).
    chance = 0.0 if column.step is None else column.step / (2 * np.sqrt(np.pi) * column.scale)
    is_often = counts[counts > 1].sum() >= _MIN_RECURRING * n
    return bool(is_often and n_pairs > _MIN_PAIRS_RATIO * max(1.0, chance * n * (n - 1) / 2))


def _is_on_grid(value, column):
    multiple = (value - column.offset) / column.step
    return abs(multiple - round(multiple)) < 1e-3


# ------------------------------------------------------------------ distribution functions


def _is_blurred(x, noise):
    """Tell whether noise, in standard deviations of sorted rows, would blur many of them.

    That is so where a tenth of the rows lies within half of it, as in columns of two sizes, or
    where a few gross values make most of the standard deviation.
    """
    n_out = len(x) // _PART_OF_GROSS
    inner = x[n_out : len(x) - n_out] if n_out else x[1:-1]
    scale = inner.std() if len(inner) > 2 else x.std()
    if x.std() > _MAX_SPREAD * scale:
        return True
    return bool(np.diff(np.quantile(x, np.linspace(0.05, 0.95, 10))).min() < 0.5 * noise * scale)


def _shape(cells, rest, bound, step, scale, n):
    """Return the `Shape` of values that are spread over `cells` and of the `rest` of n rows.

    Each value of the rest is spread over `step`. Cells are cut out of its distribution.
    """
    pieces = _distribution(rest, step / 2)
    n_cells = sum(cell.n_rows for cell in cells)
    n_pieces = sum(piece.n_rows for piece in pieces)
    if n_pieces:
        # What cells leave to values that have not been seen.
        factor = max(n - n_cells, _EMPTY) / n_pieces
        pieces = [piece._replace(n_rows=factor * piece.n_rows) for piece in pieces]
    pieces = _cut(pieces, cells)
    ends = [(piece.low, piece.high) for piece in pieces]
    if np.isfinite(bound[0]) and bound[0] < ends[0][0]:
        pieces.insert(0, _Piece(bound[0], ends[0][0], _EMPTY, None, True))
    if np.isfinite(bound[1]) and ends[-1][1] < bound[1]:
        pieces.append(_Piece(ends[-1][1], bound[1], _EMPTY, None, True))
    first, last = (0.0 if np.isfinite(b) else _EMPTY for b in bound)
    counts = np.array([piece.n_rows for piece in pieces])
    total = first + counts.sum() + last
    ranks = ((first + np.r_[0, np.cumsum(counts)]) / total).tolist()
    if np.isfinite(bound[1]):
        ranks[-1] = 1.0
    knots = [pieces[0].low, *(piece.high for piece in pieces)]
    # Between a bound and the next knot a normal variable would have to be infinite.
    is_uniform = [piece.is_uniform for piece in pieces]
    is_uniform[0] |= ranks[0] == 0
    is_uniform[-1] |= ranks[-1] == 1
    values = [piece.value for piece in pieces]
    slopes = tuple(_slope_beyond(side, knots, ranks, values, scale) for side in (0, -1))
    return Shape(knots, ranks, values, is_uniform, slopes)


def _distribution(rest, half):
    """Return adjacent intervals of sorted rows, each of which is spread over twice `half`."""
    pieces: list[_Piece] = []
    if not len(rest):
        return pieces
    low = float(rest[0]) - half
    every = max(_ROWS_PER_INTERVAL, -(-len(rest) // _MAX_INTERVALS))
    for high, n_rows, is_gap in _knots(rest, half, every):
        if high > low:
            pieces.append(_Piece(low, float(high), n_rows, None, is_gap))
            low = float(high)
        elif pieces:
            # Rows with the same value.
            pieces[-1] = pieces[-1]._replace(n_rows=pieces[-1].n_rows + n_rows)
    return pieces


def _cut(pieces, cells):
    """Return intervals with those of values in the place of their parts, and gaps between them."""
    parts: list[_Piece] = []

    def add(low, high, n_rows, value, is_uniform):
        if parts and low > parts[-1].high:
            parts.append(_Piece(parts[-1].high, low, _EMPTY, None, True))
        parts.append(_Piece(low, high, n_rows, value, is_uniform))

    waiting = cells[::-1]
    for piece in pieces:
        low, density = piece.low, piece.n_rows / (piece.high - piece.low)
        while waiting and waiting[-1].low < piece.high:
            cell = waiting.pop()
            if cell.low - low > _SLIVER * (piece.high - piece.low):
                add(low, cell.low, density * (cell.low - low), None, piece.is_uniform)
            elif parts and low > piece.low:
                cell = cell._replace(low=parts[-1].high)
            add(*cell)
            low = max(cell.high, piece.low)
        if low < piece.high and parts:
            # A cell may reach beyond the piece in which it begins.
            low = max(low, parts[-1].high)
        if piece.high - low > _SLIVER * (piece.high - piece.low):
            add(low, piece.high, density * (piece.high - low), None, piece.is_uniform)
    for cell in waiting[::-1]:
        add(*cell)
    return parts


def _slope_beyond(side, knots, ranks, values, scale):
    """Return the derivative of the normal variable beyond the first or the last knot."""
    if ranks[side] in (0, 1):
        return 0.0
    if values[side] is not None:
        # The next value of a grid is a step away, however little the others vary.
        return 1 / max(scale, knots[1] - knots[0] if side == 0 else knots[-1] - knots[-2])
    # Over the outer rows, since the distance between the last two is chance.
    ranks, knots = np.array(ranks), np.array(knots)
    if side == 0:
        inner = min(np.searchsorted(ranks, (_N_OUTER + 1) * ranks[0]), len(knots) - 1)
        return float((ndtri(ranks[inner]) - ndtri(ranks[0])) / (knots[inner] - knots[0]))
    return _slope_beyond(0, -knots[::-1], 1 - ranks[::-1], values[::-1], scale)


def _knots(run, half, every):
    """Yield the knots after the first row of sorted rows, with the rows between, and if none are.

    Knots are every so many rows, and denser by a factor of two towards both ends, where few rows
    may be far from the others; and on both sides of a distance that is most of an interval.
    """
    last = len(run) - 1
    doubled = [2**k for k in range(int(np.log2(every)) + 1)]
    ranks = {0, last, *doubled, *(last - k for k in doubled), *range(0, last - every // 2, every)}
    places = sorted(k for k in ranks if 0 <= k <= last)
    before = 0
    if half:
        # Values that are spread reach to half a step beyond them: those that are equal are in one
        # interval, and the first ones are in the first interval.
        places = np.unique(np.searchsorted(run, run[places], side="right") - 1).tolist()
        before = -1
    for k in places:
        if k <= before:
            continue
        first = max(before, 0)
        distances = np.diff(run[first : k + 1])
        if k - first > 1 and distances.max() > _GAP * (run[k] - run[first]):
            widest = first + int(distances.argmax())
            if widest > before:
                yield run[widest] + half, widest - before, False
            yield run[widest + 1] - half, _EMPTY, True
            if widest + 1 < k:
                yield run[k] + half, k - widest - 1, False
        else:
            yield run[k] + half, k - before, False
        before = k
