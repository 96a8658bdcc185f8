"""Maps of single columns: steps, atoms, bounds and dummies become columns that have a density."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ColumnMaps", "Dummies", "Shape"]

# Uniform numbers are kept so far from 0 and 1, where their normal quantile is infinite.
_TINY = 1e-12
# Largest normal quantile of a knot.
_MAX_LEVEL = 8.0
# Standard deviation of the noise that stands for the dummies of a category but the first.
_DUMMY_SCALE = 0.1


class Shape(NamedTuple):
    """Distribution function of a column: its knots, and what is between them.

    Attributes
    ----------
    knots : list of float
        Ascending, in units of the data; m + 1 of them.
    ranks : list of float
        Distribution function at the knots, ascending. A first one of 0, or a last one of 1, is a
        bound: beyond it there is no density.
    values : list of float or None
        For each of the m intervals the value whose rows are spread over it, or None.
    is_uniform : list of bool
        Whether the distribution in an interval is uniform, or is that of a normal variable that
        increases linearly. Intervals with a value, and those at a bound, are uniform.
    slopes : tuple of two floats
        Derivative of the normal variable below the first knot and above the last one.
    """

    knots: list[float]
    ranks: list[float]
    values: list[float | None]
    is_uniform: list[bool]
    slopes: tuple[float, float]

    def mirrored(self) -> "Shape":
        """Return the shape of the column times -1."""
        return Shape(
            [-knot for knot in self.knots[::-1]],
            [1 - rank for rank in self.ranks[::-1]],
            [None if value is None else 0.0 - value for value in self.values[::-1]],
            self.is_uniform[::-1],
            self.slopes[::-1],
        )


class Dummies(NamedTuple):
    """Columns that together encode a category, and the two values of each.

    The first of them becomes the number of the category, 0 to k - 1, which has a `Shape`, the
    others become noise.
    """

    columns: tuple[int, ...]
    low: list[float]
    high: list[float]


class ColumnMaps(nn.Module):
    """Spread values over intervals, and map columns to ones that are nearly normal.

    A value that many rows have is spread uniformly over an interval, by `spread`, and the density
    is that of the spread rows. Columns that have a `Shape` are mapped by the normal quantile of
    their distribution function, all others stay as they are. Of each set of dummies, spread over
    their step, the map is one-to-one: the number of the category takes the place of the first
    column, and the positions within the step become noise in the place of the others.

    Computes in float64 on the CPU.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    shapes : dict of int to Shape
        By column; that of a set of dummies by their first column.
    grids : dict of int to (step, offset, n_decimals, low, high)
        Columns of a step: their grid, the decimals of its values, -1 where they are none, and the
        smallest and the largest value.
    dummies : sequence of Dummies
        Disjoint sets.
    """

    columns: Tensor
    knots: Tensor
    ranks: Tensor
    levels: Tensor
    values: Tensor
    is_cell: Tensor
    is_uniform: Tensor
    n_intervals: Tensor
    slopes: Tensor
    grids: Tensor
    set_of: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        n_features: int,
        shapes: dict[int, Shape],
        grids: dict[int, tuple[float, float, int, float, float]],
        dummies: tuple[Dummies, ...] = (),
    ) -> None:
        super().__init__()
        order = sorted(shapes)
        m = max((len(shape.values) for shape in shapes.values()), default=0)
        n_shapes = len(order)
        # Unused places repeat the last knot.
        float64 = torch.float64
        knots, ranks = torch.zeros(2, n_shapes, m + 1, dtype=float64).unbind()
        values, slopes = (
            torch.zeros(n_shapes, m, dtype=float64),
            torch.zeros(n_shapes, 2, dtype=float64),
        )
        is_cell, is_uniform = torch.zeros(2, n_shapes, m, dtype=torch.bool).unbind()
        n_intervals = torch.zeros(n_shapes, dtype=torch.long)
        for i, j in enumerate(order):
            shape, k = shapes[j], len(shapes[j].values)
            for whole, part in ((knots, shape.knots), (ranks, shape.ranks)):
                whole[i, : k + 1] = torch.tensor(part, dtype=float64)
                whole[i, k + 1 :] = part[-1]
            is_cell[i, :k] = torch.tensor([v is not None for v in shape.values])
            values[i, :k] = torch.tensor([v or 0.0 for v in shape.values], dtype=float64)
            is_uniform[i, :k] = torch.tensor(shape.is_uniform)
            n_intervals[i] = k
            slopes[i] = torch.tensor(shape.slopes, dtype=float64)
        levels = torch.special.ndtri(ranks).clamp(-_MAX_LEVEL, _MAX_LEVEL)
        grid = torch.zeros(n_features, 5, dtype=float64)
        for j, numbers in grids.items():
            grid[j] = torch.tensor(numbers, dtype=float64)
        set_of = torch.full((n_features,), -1)
        low, high = torch.zeros(n_features, dtype=float64), torch.ones(n_features, dtype=float64)
        for i, one in enumerate(dummies):
            index = torch.tensor(one.columns)
            set_of[index] = i
            low[index] = torch.tensor(one.low, dtype=float64)
            high[index] = torch.tensor(one.high, dtype=float64)
        for name, tensor in {
            "columns": torch.tensor(order, dtype=torch.long),
            "knots": knots,
            "ranks": ranks,
            "levels": levels,
            "values": values,
            "is_cell": is_cell,
            "is_uniform": is_uniform,
            "n_intervals": n_intervals,
            "slopes": slopes,
            "grids": grid,
            "set_of": set_of,
            "low": low,
            "high": high,
        }.items():
            self.register_buffer(name, tensor)

    @classmethod
    def like(cls, arrays: Mapping[str, Any]) -> "ColumnMaps":
        """Return maps whose tensors have the shapes of stored arrays, which are to be loaded."""
        maps = cls(len(arrays["set_of"]), {}, {})
        for name, array in arrays.items():
            setattr(maps, name, torch.zeros(array.shape, dtype=getattr(maps, name).dtype))
        return maps

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.set_of)

    @property
    def is_random(self) -> bool:
        """Whether values are spread."""
        return bool(self.is_cell.any() or self.grids[:, 0].any() or (self.set_of >= 0).any())

    def _sets(self) -> list[Tensor]:
        """Return the indices of the columns of each set of dummies."""
        n_sets = int(self.set_of.max()) + 1 if len(self.set_of) else 0
        return [(self.set_of == i).nonzero().flatten() for i in range(n_sets)]

    # ------------------------------------------------------------------ values and intervals

    def spread(self, rows: Tensor, uniform: Tensor) -> Tensor:
        """Return rows (n, D) with values at random places of the intervals that they are in.

        Uniform numbers (n, D) are the places, from 0 to 1.
        """
        step = torch.where(self.set_of >= 0, self.high - self.low, self.grids[:, 0])
        spread = rows + step * (uniform - 0.5)
        columns = self._single()
        if not len(columns):
            return spread
        x = rows[:, self.columns[columns]].T.contiguous()
        at, inside = self._interval(x, columns)
        low, high = self._ends(at, columns)
        is_cell = self.is_cell[columns].gather(1, at) & inside
        cell = low + uniform[:, self.columns[columns]].T * (high - low)
        x = torch.where(is_cell, cell, spread[:, self.columns[columns]].T)
        spread[:, self.columns[columns]] = x.T
        return spread

    def rounded(self, rows: Tensor) -> Tensor:
        """Return rows with the values whose intervals they are in, on grids, and with dummies."""
        drawn, rows = rows, rows.clone()
        for j in self.grids[:, 0].nonzero().flatten().tolist():
            step, offset, n_decimals, low, high = self.grids[j].tolist()
            x = offset + step * ((drawn[:, j] - offset) / step).round()
            if n_decimals >= 0:
                x = torch.round(x, decimals=int(n_decimals))
            # Zero, not minus zero.
            rows[:, j] = x.clamp(low, high) + 0.0
        columns = self._single()
        if len(columns):
            index = self.columns[columns]
            x = drawn[:, index].T.contiguous()
            at, _ = self._interval(x, columns)
            low, high = self._ends(at, columns)
            is_cell, values = self.is_cell[columns], self.values[columns]
            # Where no rows are, and no grid, the nearer end is.
            is_gap = self._is_gap()[columns].gather(1, at) & (self.grids[index, 0] == 0)[:, None]
            is_lower = x - low < high - x
            end = torch.where(is_lower, low, high)
            beside = torch.where(is_lower, at - 1, at + 1)
            beside = beside.clamp(0, values.shape[1] - 1)
            end = torch.where(is_cell.gather(1, beside), values.gather(1, beside), end)
            x = torch.where(is_gap, end, rows[:, index].T)
            x = torch.where(is_cell.gather(1, at), values.gather(1, at), x)
            rows[:, index] = x.T
        for index in self._sets():
            low, high = self.low[index], self.high[index]
            category = ((drawn[:, index] - low) / (high - low)).argmax(dim=1)
            is_high = nn.functional.one_hot(category, len(index)).bool()
            rows[:, index] = torch.where(is_high, high, low)
        return rows

    def _single(self) -> Tensor:
        """Return which shapes are those of a column of the data."""
        return (self.set_of[self.columns] < 0).nonzero().flatten()

    def _interval(self, x: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
        """Return the interval (J, n) of each value, the nearest one outside, and which are inside.

        `of` are the shapes of the columns of x (J, n).
        """
        knots, n = self.knots[of], self.n_intervals[of, None]
        at = torch.searchsorted(knots, x, right=True) - 1
        last = knots.gather(1, n)
        return at.clamp_min(0).minimum(n - 1), (x >= knots[:, :1]) & (x <= last)

    def _is_gap(self) -> Tensor:
        """Return which intervals (J, m) hold no rows: uniform, but not at a bound."""
        at_bound = (self.ranks[:, :-1] == 0) | (self.ranks[:, 1:] == 1)
        return self.is_uniform & ~self.is_cell & ~at_bound

    def _ends(self, at: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
        return self.knots[of].gather(1, at), self.knots[of].gather(1, at + 1)

    # ------------------------------------------------------------------ the map

    def forward_and_log_det(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mapped rows (n, D) and the log-determinant (n,), -inf where there is no density.

        A row that has a value, and is not spread, is in the middle of its interval.
        """
        rows, log_det = self._without_dummies(rows)
        if not len(self.columns):
            return rows, log_det
        x = rows[:, self.columns].T.contiguous()
        every = torch.arange(len(self.columns))
        at, inside = self._interval(x, every)
        low, high = self._ends(at, every)
        is_value = self.is_cell.gather(1, at) & (x == self.values.gather(1, at))
        x = torch.where(is_value & inside, 0.5 * (low + high), x)
        share = ((x - low) / (high - low)).clamp(0, 1)
        uniform, log_slope = self._uniform(share, at)
        level = self.levels.gather(1, at)
        rise = self.levels.gather(1, at + 1) - level
        is_uniform = self.is_uniform.gather(1, at)
        z = torch.where(is_uniform, uniform, level + share * rise)
        log_slope = torch.where(is_uniform, log_slope, rise.log()) - (high - low).log()
        z, log_slope = self._beyond(x, z, log_slope)
        return self._put(rows, z), log_det + log_slope.sum(0)

    def log_crowding(self, rows: Tensor) -> Tensor:
        """Return how close to each other the values of columns are at rows, in nats (n,).

        It is the log-derivative of the maps where these are linear between knots. Of a value that
        is spread over an interval it is minus the logarithm of the width, so that a density
        without it tells how probable the value is; towards a bound it is that of the inner end of
        the interval, and where no rows are that of a straight line through the whole column.
        """
        step = (self.high - self.low)[self.set_of >= 0]
        rows, _ = self._without_dummies(rows)
        nats = rows.new_zeros(len(rows)) - step.abs().log().sum()
        if not len(self.columns):
            return nats
        x = rows[:, self.columns].T.contiguous()
        at, _ = self._interval(x, torch.arange(len(self.columns)))
        of_column = self._log_crowding_by_interval().gather(1, at)
        first, last = self.knots[:, :1], self.knots.gather(1, self.n_intervals[:, None])
        for is_out, side in ((x < first, 0), (x > last, 1)):
            is_open = is_out & ~self._is_closed(side)
            of_column = torch.where(is_open, self.slopes[:, side, None].log(), of_column)
        return nats + of_column.sum(0)

    def _log_crowding_by_interval(self) -> Tensor:
        """Return the logarithms (J, m) that `log_crowding` adds up."""
        log_width = self.knots.diff(dim=1).log()
        at_low, at_high = self.ranks[:, :-1] == 0, self.ranks[:, 1:] == 1
        inner = torch.where(at_low, self.levels[:, 1:], self.levels[:, :-1])
        log_normal = -0.5 * inner.square() - 0.5 * math.log(2 * math.pi)
        of_bound = self.ranks.diff(dim=1).log() - log_normal - log_width
        last = self.n_intervals[:, None]
        whole = (self.levels.gather(1, last) - self.levels[:, :1]).log()
        whole = whole - (self.knots.gather(1, last) - self.knots[:, :1]).log()
        nats = torch.where(self.is_uniform, of_bound, self.levels.diff(dim=1).log() - log_width)
        nats = torch.where(self._is_gap(), whole, nats)
        return torch.where(self.is_cell | (at_low & at_high), -log_width, nats)

    def _uniform(self, share: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return normal quantiles at shares of an interval, and their log-derivatives by them."""
        rank = self.ranks.gather(1, at)
        rise = self.ranks.gather(1, at + 1) - rank
        z = torch.special.ndtri((rank + share * rise).clamp(_TINY, 1 - _TINY))
        return z, rise.log() + 0.5 * z.square() + 0.5 * math.log(2 * math.pi)

    def _beyond(self, x: Tensor, z: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        """Replace what is outside the knots: straight lines, or nothing beyond a bound."""
        first, last = self.knots[:, :1], self.knots.gather(1, self.n_intervals[:, None])
        for is_out, end, side in ((x < first, first, 0), (x > last, last, 1)):
            level = self._end_level(side)
            is_closed = self._is_closed(side)
            slope = self.slopes[:, side, None]
            line = torch.where(is_closed, level, level + slope * (x - end))
            log_line = torch.where(is_closed, -torch.inf, slope.log())
            z = torch.where(is_out, line, z)
            log_slope = torch.where(is_out, log_line, log_slope)
        return z, log_slope

    def _is_closed(self, side: int) -> Tensor:
        rank = self.ranks[:, :1] if side == 0 else self.ranks[:, -1:]
        return rank == side

    def _end_level(self, side: int) -> Tensor:
        return self.levels[:, :1] if side == 0 else self.levels[:, -1:]

    def inverse(self, rows: Tensor) -> Tensor:
        """Return rows (n, D) in units of the data."""
        if len(self.columns):
            rows = self._put(rows, self._inverse_columns(rows)[0])
        return self._with_dummies(rows)

    def inverse_slope(self, rows: Tensor) -> Tensor:
        """Return the derivative (n, D) of each column of `inverse` at mapped rows."""
        slope = torch.ones_like(rows)
        if len(self.columns):
            slope = self._put(slope, self._inverse_columns(rows)[1])
        for index in self._sets():
            step = (self.high - self.low)[index]
            z = rows[:, index] / _DUMMY_SCALE
            density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi) / _DUMMY_SCALE
            slope[:, index[1:]] = (step * density)[:, 1:]
            slope[:, index[0]] *= step[0]
        return slope

    def _inverse_columns(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the columns (J, n) that have a shape in units of the data, and the slopes."""
        z = rows[:, self.columns].T.contiguous()
        n = self.n_intervals[:, None]
        at = torch.searchsorted(self.levels, z.detach(), right=True) - 1
        at = at.clamp_min(0).minimum(n - 1)
        low, high = self._ends(at, torch.arange(len(self.columns)))
        width = high - low
        rank, level = self.ranks.gather(1, at), self.levels.gather(1, at)
        rank_rise = self.ranks.gather(1, at + 1) - rank
        level_rise = self.levels.gather(1, at + 1) - level
        is_uniform = self.is_uniform.gather(1, at)
        share = torch.where(
            is_uniform, (torch.special.ndtr(z) - rank) / rank_rise, (z - level) / level_rise
        )
        x = low + share.clamp(0, 1) * width
        density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
        slope = width * torch.where(is_uniform, density / rank_rise, 1 / level_rise)
        for side in (0, 1):
            level = self._end_level(side)
            is_out = ((z < level) if side == 0 else (z > level)) & ~self._is_closed(side)
            end = self.knots[:, :1] if side == 0 else self.knots.gather(1, n)
            line = self.slopes[:, side, None].clamp_min(torch.finfo(z.dtype).tiny)
            x = torch.where(is_out, end + (z - level) / line, x)
            slope = torch.where(is_out, 1 / line, slope)
        return x, slope

    def _put(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return rows (n, D) with these columns (J, n) in the place of those that have a shape."""
        place = torch.zeros(self.n_features, dtype=torch.long)
        place[self.columns] = torch.arange(len(self.columns))
        has_shape = torch.zeros(self.n_features, dtype=torch.bool)
        has_shape[self.columns] = True
        return torch.where(has_shape, columns.T[:, place], rows)

    # ------------------------------------------------------------------ dummies

    def _without_dummies(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows with numbers of categories and noise for dummies, and the log-determinant."""
        log_det = rows.new_zeros(len(rows))
        for index in self._sets():
            step = (self.high - self.low)[index]
            share = (rows[:, index] - self.low[index]) / step
            category = share.argmax(dim=1)
            rest = share - nn.functional.one_hot(category, len(index))
            inside = (rest.abs() <= 0.5).all(dim=1)
            uniform = (rest + 0.5).clamp(_TINY, 1 - _TINY)
            z = torch.special.ndtri(uniform[:, 1:])
            half = 0.5 * math.log(2 * math.pi)
            log_slope = (0.5 * z.square() + half + math.log(_DUMMY_SCALE)).sum(1)
            log_slope = log_slope - step.abs().log().sum()
            log_det = log_det + torch.where(inside, log_slope, -torch.inf)
            first = category + rest[:, 0].clamp(-0.5, 0.5)
            rows = rows.clone()
            rows[:, index] = torch.cat([first[:, None], _DUMMY_SCALE * z], dim=1)
        return rows, log_det

    def _with_dummies(self, rows: Tensor) -> Tensor:
        """Return rows with dummies for numbers of categories and noise."""
        for index in self._sets():
            first = rows[:, index[0]]
            category = first.detach().round().clamp(0, len(index) - 1)
            within = torch.special.ndtr(rows[:, index[1:]] / _DUMMY_SCALE) - 0.5
            rest = torch.cat([(first - category)[:, None], within], dim=1)
            share = rest + nn.functional.one_hot(category.long(), len(index))
            dummies = self.low[index] + share * (self.high - self.low)[index]
            rows = rows.index_copy(1, index, dummies)
        return rows
