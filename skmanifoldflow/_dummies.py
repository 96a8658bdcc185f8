"""Complete sets of dummy columns: two-valued columns, one of which is high in every row."""

import numpy as np

__all__ = ["dummy_sets"]

# With fewer rows columns exclude each other by accident.
_MIN_ROWS = 20
# Bytes that a search compares before it is given up.
_MAX_BYTES = 2e8


def dummy_sets(is_high, n):
    """Return the sets of columns of which exactly one is high in every row.

    Parameters
    ----------
    is_high : dict of int to ndarray of uint8
        For each two-valued column, by its index, the rows where it has the larger value, packed.
    n : int
        Number of rows.

    Returns
    -------
    sets : list of tuple of int
        Disjoint sets of indices, ascending in each.
    """
    sets: list[tuple[int, ...]] = []
    if n < _MIN_ROWS or len(is_high) < 2:
        return sets
    indices, bits = np.array(list(is_high)), np.array(list(is_high.values()))
    complete, is_left = np.packbits(np.ones(n, dtype=bool)), np.ones(len(indices), dtype=bool)
    budget = _MAX_BYTES
    while budget > 0:
        found, budget = _cover(indices, bits, is_left, complete, budget)
        if found is None:
            break
        sets.append(tuple(int(j) for j in sorted(indices[found])))
        is_left[found] = False
    return sets


def _cover(indices, bits, is_left, complete, budget):
    """Return columns that are high once in every row, or None, and what is left of the budget.

    The first row without a high column is given one in every possible way, at first by the column
    next to the last one: dummies of a category mostly stand together.
    """
    # Partial sets: the rows that are covered, and the columns that cover them.
    partial: list[tuple[np.ndarray, list[int]]] = [(np.zeros_like(complete), [])]
    while partial and budget > 0:
        covered, chosen = partial.pop()
        if np.array_equal(covered, complete):
            return chosen, budget
        byte = int(np.argmax(covered != complete))
        bit = 1 << (int(complete[byte] & ~covered[byte]).bit_length() - 1)
        options = np.flatnonzero(is_left & (bits[:, byte] & bit > 0))
        options = options[~(bits[options] & covered).any(axis=1)]
        budget -= (1 + len(options)) * bits.shape[1]
        distance = np.abs(indices[options] - (indices[chosen[-1]] if chosen else 0))
        for option in options[np.argsort(-distance, kind="stable")]:
            partial.append((covered | bits[option], [*chosen, int(option)]))
    return None, budget
