"""What the columns of a table hold, learned from its rows: numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ._dummies import dummy_sets
from ._grid import Tally, find_grid

__all__ = ["Atom", "Column", "Columns", "describe_columns", "describe_pixels", "some_images"]

# Standard deviation, in steps, and share of the rows from which on a value of a grid is an atom:
# where there are few points each has a probability of its own, and some round numbers are frequent.
_MIN_STEPS, _MIN_SHARE_OF_GRID = 10, 0.1
# Pixels that tell what all of them hold.
_MAX_PIXELS = 2_000_000
# Lines of a table that are shown, and of those left out how many come from its end.
_MAX_LINES, _N_LAST = 40, 10


class Atom(NamedTuple):
    """A single value that many rows have, and their share of all rows."""

    value: float
    share: float


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes
    ----------
    name : str or int
        Its name, or its index where the columns have no names; "all pixels" of images.
    kind : {"continuous", "discrete", "mixed", "constant"}
        "discrete" if the values lie on a grid, but for a few per cent of the rows and for `atoms`,
        or are few and recur; "mixed" if they are continuous but for `atoms`; "constant" if there is
        one.
    step, offset : float or None
        Values of a discrete column are ``offset + k * step`` with integers k; None if there is no
        such grid. Where decimals fit, these are the ones: 0.1, not 0.1000000001.
    atoms : tuple of Atom
        Single values, each the `value` of a `share` of more than 3 % of the rows, beside the grid
        or the continuous part. A value on a grid is among them only where its neighbours are far
        less frequent, or where it stands alone, as -9999 does.
    low, high : float
        The least and the largest value.
    scale : float
        Standard deviation of the rows beside the atoms, from the 16 % and 84 % quantiles, so that
        outliers do not count; the usual one where these quantiles agree.
    n_values : int
        Number of different values.
    off_grid : float
        Share of the rows that are neither on the grid nor atoms.
    dummies : tuple of int
        Indices of the columns, this one among them, that together encode a category: each has two
        values, and every row has the larger one in exactly one of them. Empty for other columns.
    """

    name: str | int
    kind: str
    low: float
    high: float
    scale: float
    n_values: int
    step: float | None = None
    offset: float | None = None
    atoms: tuple[Atom, ...] = ()
    off_grid: float = 0.0
    dummies: tuple[int, ...] = ()


@dataclass(frozen=True, repr=False)
class Columns(Sequence):
    """The columns of the rows of a fit, a sequence of `Column` that prints as a table.

    The attribute `columns_` of a fitted estimator is one. A column is found by its index or its
    name. The page on columns in the user guide has the rules by which they are described.

    Parameters
    ----------
    columns : tuple of Column
        In the order of the table; those of images are all the same.

    Examples
    --------
    >>> import numpy as np
    >>> from skmanifoldflow import NoisyInjectiveFlow
    >>> rng = np.random.RandomState(0)
    >>> X = np.column_stack([
    ...     rng.normal(size=300),
    ...     rng.randint(18, 90, 300),
    ...     np.where(rng.rand(300) < 0.6, 0, rng.lognormal(size=300)),
    ... ])
    >>> model = NoisyInjectiveFlow(1, n_layers=1, max_iter=1, discrete_features=None).fit(X)
    >>> model.columns_[1].kind, model.columns_[1].step
    ('discrete', 1.0)
    """

    columns: tuple[Column, ...]

    def __getitem__(self, index):
        if isinstance(index, str):
            for column in self.columns:
                if column.name == index:
                    return column
            raise KeyError(index)
        return Columns(self.columns[index]) if isinstance(index, slice) else self.columns[index]

    def __len__(self):
        return len(self.columns)

    def __repr__(self):
        return _table(self.columns)


# ------------------------------------------------------------------ description


def describe_columns(rows, names, eps):
    """Describe the columns of a table.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        One column at a time is copied.
    names : sequence of str or int, of length D
        Names of the columns.
    eps : float
        Relative spacing of the numbers that the rows were given as.

    Returns
    -------
    columns : Columns
    """
    columns, is_high = [], {}
    for j, name in enumerate(names):
        column = np.array(rows[:, j], dtype=np.float64)
        tally = Tally.of(np.sort(column), eps)
        columns.append(_describe(tally, name))
        if len(tally.values) == 2:
            is_high[j] = np.packbits(column > tally.values.mean())
    for indices in dummy_sets(is_high, len(rows)):
        for j in indices:
            columns[j] = replace(columns[j], dummies=indices)
    return Columns(tuple(columns))


def describe_pixels(rows, eps):
    """Describe the pixels of images together, given as in `describe_columns`.

    Of many images only some are looked at, but for the bounds.
    """
    values = np.sort(some_images(rows), axis=None).astype(np.float64)
    pixels = _describe(Tally.of(values, eps), "all pixels")
    pixels = replace(pixels, low=float(rows.min()), high=float(rows.max()))
    return Columns((pixels,) * rows.shape[1])


def some_images(rows):
    """Return images from all over the table, so many that their pixels tell what all hold."""
    return rows[:: max(1, rows.size // _MAX_PIXELS)]


def _describe(tally, name):
    """Return the `Column` of these values."""
    values, counts, n = tally.values, tally.counts, tally.n
    common = {
        "name": name,
        "low": float(values[0]),
        "high": float(values[-1]),
        "n_values": len(values),
    }
    if len(values) == 1:
        return Column(kind="constant", scale=0.0, **common)
    grid, is_atom = find_grid(tally), tally.is_atom
    step = offset = None
    off_grid = 0.0
    if grid is not None:
        kind, step, offset = "discrete", grid.step, grid.offset
        is_atom = (~grid.holds & tally.is_frequent) | (grid.holds & _is_atom_of_grid(tally, step))
        off_grid = float(counts[~grid.holds & ~is_atom].sum() / n)
    elif (~is_atom).sum() ** 2 < counts[~is_atom].sum():
        kind, is_atom = "discrete", np.zeros_like(is_atom)
    else:
        kind = "mixed" if is_atom.any() else "continuous"
    return Column(
        kind=kind,
        scale=tally.spread(~is_atom),
        step=step,
        offset=offset,
        atoms=tuple(
            Atom(float(value), float(count / n))
            for value, count in zip(values[is_atom], counts[is_atom], strict=True)
        ),
        off_grid=off_grid,
        **common,
    )


def _is_atom_of_grid(tally, step):
    """Return which values of a grid are atoms of their own."""
    is_fine = tally.spread(~tally.is_atom) >= _MIN_STEPS * step
    has_many = tally.counts >= _MIN_SHARE_OF_GRID * tally.n
    return tally.is_atom & (tally.stands_alone | has_many & is_fine)


# ------------------------------------------------------------------ as text


def _table(columns):
    """Return the columns as an aligned table; features that no column has are left out."""
    # Pixels are described together.
    are_same = all(column is columns[0] for column in columns)
    shown, counted = list(columns[:1] if are_same else columns), ""
    if len(shown) > _MAX_LINES:
        kinds = [column.kind for column in shown]
        counts = [f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))]
        counted = f"\n{len(kinds)} columns: {', '.join(counts)}"
        shown = shown[: _MAX_LINES - _N_LAST] + shown[-_N_LAST:]
    cells = {
        "column": [str(column.name) for column in shown],
        "kind": [column.kind for column in shown],
        "step": [_number(column.step, 10) for column in shown],
        "offset": [_number(column.offset, 10) if column.offset else "" for column in shown],
        "off grid": [f"{column.off_grid:.1%}" if column.off_grid else "" for column in shown],
        "atoms": [_atoms(column.atoms) for column in shown],
        "low": [_number(column.low, 6) for column in shown],
        "high": [_number(column.high, 6) for column in shown],
        "scale": [_number(column.scale, 4) for column in shown],
        "values": [str(column.n_values) for column in shown],
        "dummies": [_indices(column.dummies) for column in shown],
    }
    lines = [""] * (1 + len(shown))
    for head, texts in cells.items():
        if not any(texts):
            continue
        width = max(len(text) for text in (head, *texts))
        is_text = head in ("column", "kind", "atoms", "dummies")
        for i, text in enumerate((head, *texts)):
            lines[i] += (text.ljust(width) if is_text else text.rjust(width)) + "  "
    lines = [line.rstrip() for line in lines]
    if counted:
        lines.insert(1 + _MAX_LINES - _N_LAST, "...")
    return "\n".join(lines) + counted


def _number(value, digits):
    """Return a number as text, with more digits where many are before the decimal point."""
    if value is None:
        return ""
    is_whole = abs(value) < 1e15 and value == round(value)
    digits = 10 if 10.0**digits <= abs(value) < 1e9 else digits
    return f"{value:.0f}" if is_whole else f"{value:.{digits}g}"


def _atoms(atoms, most=2):
    parts = [f"{_number(value, 6)} ({share:.0%})" for value, share in atoms[:most]]
    return ", ".join(parts) + (f" and {len(atoms) - most} more" if len(atoms) > most else "")


def _indices(indices):
    """Return indices as text, consecutive ones by the first and the last."""
    if indices and indices == tuple(range(indices[0], indices[-1] + 1)):
        return f"{indices[0]}-{indices[-1]}"
    return ", ".join(map(str, indices))
