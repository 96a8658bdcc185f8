"""Rows that are copies of others, exactly or nearly, which may not be split apart.

A row and its copy on both sides of a split make validation scores those of rows that were trained
on. Two rows are copies if they agree in all columns, up to a small distance, and chance does not
explain it: rows of a few dummies agree without being copies.
"""

from typing import NamedTuple

import numpy as np

from ._dummies import dummy_sets

__all__ = ["Duplicates", "distinct_rows", "find_duplicates", "row_ranks"]

# Rows from which distances are measured, and how many of their neighbours.
_N_MEASURED, _N_NEIGHBORS = 256, 64
# Copies are nearer than this share of the typical distance of rows that are none.
_NEAR = 1e-3
# Readings of one place: at least half of the rows have neighbours that are nearer than all others
# by a factor. Of few rows distances may lie in that gap where readings are joined, of more where
# they are suspected. With fewer places they may be the clusters of a mixture.
_SHARE_REPEATED = 0.5
_CLEAR_GAP, _SHARE_IN_CLEAR_GAP = 3.0, 0.05
_SUSPECT_GAP, _SHARE_IN_SUSPECT_GAP = 2.0, 0.25
_MIN_PLACES = 40
_N_DISTANCES = 400
# So many times as many pairs as independent columns would have are no chance.
_NO_CHANCE = 10.0
# A row that more than a few per cent of the rows are equal to, and many more than to others, is a
# point that has a probability of its own, such as zeros in all columns.
_SHARE_OF_POINT, _RATIO_OF_POINT, _MIN_POINT_ROWS = 0.03, 8, 10
# With fewer different rows, of columns that have values in common all the same, they are levels.
_MIN_DISTINCT = 40
# Distances, in standard deviations, that are rounding.
_ROUNDING = 1e-7
# Columns of the search for pairs, and elements of a block of distances.
_MAX_TREE_FEATURES, _MAX_ELEMENTS = 8, 2**20


class Duplicates(NamedTuple):
    """Groups of rows that are copies of each other.

    Attributes
    ----------
    groups : ndarray of int of shape (n,)
        Group of each row, numbered by their first rows.
    kind : {"none", "equal", "near", "suspected"}
        "none" where no rows are copies, or chance explains that some are equal. "suspected" where
        rows look like readings of some places that are not clearly apart: each is left a group of
        its own.
    """

    groups: np.ndarray
    kind: str

    @property
    def first(self) -> np.ndarray:
        """The first row of each group, in ascending order."""
        return np.unique(self.groups, return_index=True)[1]

    @property
    def n_repeated(self) -> int:
        """Number of rows that share their group with another."""
        counts = np.bincount(self.groups)
        return int(counts[counts > 1].sum())


def find_duplicates(rows):
    """Find the rows that are copies of others.

    Equal rows are copies if there are ten times as many pairs as columns drawn independently would
    give, but for a few rows of columns that have values in common, and for single rows that more
    than 3 % of the rows are equal to, such as zeros in all columns. Near copies are nearer to each
    other than a thousandth of the typical distance of nearest neighbours among the rows left after
    merging, and readings of at least 40 places nearer than a third of the distance to all others.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Rows, in any units.

    Returns
    -------
    duplicates : Duplicates
        The groups.
    """
    alone = np.arange(len(rows))
    groups = _equal_rows(rows)
    is_point = _are_of_points(groups)
    if is_point.any() and not is_point.all():
        found = find_duplicates(rows[~is_point])
        alone[~is_point] = np.flatnonzero(~is_point)[found.first][found.groups]
        return found._replace(groups=_by_first_row(alone))
    has_equal = int(groups.max()) + 1 < len(rows)
    if has_equal and (_are_levels(rows, groups) or not _is_no_chance(rows, groups)):
        return Duplicates(alone, "none")
    near, is_suspected = _near_rows(rows, groups)
    if near is not None:
        return Duplicates(_by_first_row(near), "near")
    if is_suspected:
        return Duplicates(groups, "suspected")
    return Duplicates(groups, "equal" if has_equal else "none")


def distinct_rows(rows):
    """Return the first of each group of copies."""
    return rows[find_duplicates(rows).first]


def _by_first_row(labels):
    """Return the labels renumbered in the order in which they first occur."""
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.intp)
    number[np.argsort(first)] = np.arange(len(first))
    return number[labels]


def _blocks(n, n_elements):
    """Return slices of n rows that have so many elements in memory."""
    size = max(1, _MAX_ELEMENTS // max(1, n_elements))
    return [slice(start, start + size) for start in range(0, n, size)]


def row_keys(rows):
    """Return a number (n,) for each row, the same for equal rows and hardly for others."""
    # Random sums of the bits of the values, modulo 2^64.
    factors = np.random.RandomState(0).randint(1, 2**63, rows.shape[1], dtype=np.uint64) | 1
    keys = np.empty(len(rows), dtype=np.uint64)
    for block in _blocks(len(rows), rows.shape[1]):
        # Minus zero is zero.
        bits = (rows[block].astype(np.float64) + 0.0).view(np.uint64)
        # Low bits of a product depend on low bits alone, and those of short numbers are zero.
        bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        keys[block] = ((bits ^ (bits >> np.uint64(29))) * factors).sum(axis=1)
    return keys


def row_ranks(rows):
    """Return the rank (n,) of each row in an order that depends on the rows alone.

    It is that of the first column, of rows that agree there of the second one, and so on: units do
    not matter either. Equal rows have the same rank.
    """
    n_distinct, found = len(np.unique(row_keys(rows))), np.zeros(len(rows), dtype=np.int64)
    for column in rows.T:
        if found.max() + 1 == n_distinct:
            break
        ranks = np.unique(column, return_inverse=True)[1]
        found = np.unique(found * len(rows) + ranks, return_inverse=True)[1]
    return found


def _equal_rows(rows):
    """Return labels that are the same for equal rows, numbered by first rows."""
    return _by_first_row(row_keys(rows))


def _are_of_points(groups):
    """Tell which rows are equal to so many that their point has a probability of its own."""
    counts = np.bincount(groups)
    least = max(_MIN_POINT_ROWS, _SHARE_OF_POINT * len(groups), _RATIO_OF_POINT * np.median(counts))
    return (counts >= least)[groups]


def _are_levels(rows, groups):
    """Tell whether the different rows are few, and have values in common in each column."""
    first = np.unique(groups, return_index=True)[1]
    if len(first) >= _MIN_DISTINCT:
        return False
    return all(len(np.unique(values)) <= len(first) / 2 for values in rows[first].T)


def _is_no_chance(rows, groups, distances=None):
    """Tell whether groups have many more pairs than columns drawn independently would give.

    Values agree that differ by at most the distance (D,) of their column, by default none. A
    complete set of dummies is one column.
    """
    n = len(rows)
    counts = np.bincount(groups)
    n_pairs = float((counts * (counts - 1.0)).sum()) / 2
    expected = n * (n - 1.0) / 2
    for j, values in _independent_columns(rows):
        if expected < n_pairs / _NO_CHANCE:
            return True
        expected *= _chance_of_agreement(values, 0.0 if distances is None else distances[j])
    return expected < n_pairs / _NO_CHANCE


def _chance_of_agreement(values, distance):
    """Return the share of the pairs of rows whose values (n,) differ by at most a distance."""
    n, values = len(values), np.sort(values)
    n_pairs = np.searchsorted(values, values + distance, side="right") - np.arange(1, n + 1)
    return 2 * float(n_pairs.sum()) / (n * (n - 1.0))


def _independent_columns(rows):
    """Yield columns (n,) and their indices, of each complete set of dummies the level in its place.

    Levels are as far from each other as the two values of a dummy.
    """
    sets = _complete_dummies(rows)
    in_sets = {j for members in sets for j in members}
    for members in sets:
        high = rows[:, list(members)] == rows[:, list(members)].max(axis=0)
        yield members[0], high.argmax(axis=1) * float(np.ptp(rows[:, members[0]]))
    for j in range(rows.shape[1]):
        if j not in in_sets:
            yield j, np.asarray(rows[:, j], dtype=np.float64)


def _complete_dummies(rows):
    """Return the sets of columns of two values of which each row has exactly one high."""
    is_high = {}
    for j, column in enumerate(rows.T):
        low, high = column.min(), column.max()
        if low < high and bool(((column == low) | (column == high)).all()):
            is_high[j] = np.packbits(column == high)
    return dummy_sets(is_high, len(rows))


def _near_rows(rows, groups):
    """Return the groups of near copies, or None, and whether rows are suspected to be readings."""
    first = np.unique(groups, return_index=True)[1]
    if len(first) < 3:
        return None, False
    centre, scale = _moments(rows)
    distances = _neighbor_distances(rows, first, centre, scale)
    if not np.median(distances[:, -1]) > _ROUNDING * np.sqrt(rows.shape[1]):
        # One value is so large that nothing is told of the others.
        return None, False

    def joined(distance):
        if not (distances[:, 0] <= distance).any():
            return None
        labels = _joined(rows, first, centre, scale, distance)
        if labels is None:
            return None
        # In each column rows of that distance differ by its share, or somewhat more.
        of_column = scale * distance * min(1.0, 2 / np.sqrt(rows.shape[1]))
        return labels[groups] if _is_no_chance(rows, labels[groups], of_column) else None

    n = len(first)
    places = joined(_distance_of_readings(distances, n, _CLEAR_GAP, _SHARE_IN_CLEAR_GAP))
    if places is not None:
        return places, False
    copies = joined(_distance_of_copies(distances))
    is_suspected = _distance_of_readings(distances, n, _SUSPECT_GAP, _SHARE_IN_SUSPECT_GAP) > 0
    return copies, is_suspected


def _moments(rows):
    """Return means and standard deviations of the columns, 1 where a column is constant."""
    n, n_features = rows.shape
    sums = np.zeros(n_features)
    blocks = _blocks(n, n_features)
    for block in blocks:
        sums += rows[block].sum(axis=0, dtype=np.float64)
    centre = sums / n
    squares = np.zeros(n_features)
    for block in blocks:
        squares += np.square(rows[block] - centre).sum(axis=0, dtype=np.float64)
    scale = np.sqrt(squares / n)
    return centre, np.where(scale > 0, scale, 1.0)


def _neighbor_distances(rows, first, centre, scale):
    """Return the distances of some rows to their nearest neighbours, ascending, units of scales.

    Rows that are equal count once.
    """
    measured = np.random.RandomState(0).permutation(len(first))[:_N_MEASURED]
    x = (rows[first[measured]] - centre) / scale
    squares = np.square(x).sum(axis=1)
    k = min(_N_NEIGHBORS, len(first) - 1)
    nearest = np.full((len(x), k), np.inf)
    for block in _blocks(len(first), max(rows.shape[1], 2 * len(x))):
        others = (rows[first[block]] - centre) / scale
        distances = squares[:, None] + np.square(others).sum(axis=1) - 2 * x @ others.T
        # A row is no neighbour of its own.
        own = (measured >= block.start) & (measured < block.stop)
        distances[own, measured[own] - block.start] = np.inf
        nearest = np.concatenate([nearest, distances], axis=1)
        nearest = np.partition(nearest, k - 1, axis=1)[:, :k]
    return np.sqrt(np.maximum(np.sort(nearest, axis=1), 0.0))


def _distance_of_copies(distances):
    """Return a thousandth of the typical distance of rows that are farther apart than that.

    It is approached from above: where all rows have copies the nearest neighbours tell nothing.
    """
    distance, previous = np.inf, np.inf
    typical = float(np.median(distances[:, -1]))
    while typical < previous:
        distance, previous = _NEAR * typical, typical
        farther = np.where(distances > distance, distances, np.inf).min(axis=1)
        typical = float(np.median(np.minimum(farther, distances[:, -1])))
    return distance


def _distance_of_readings(distances, n, gap, share):
    """Return the distance within groups of neighbours, of which all others are clear, or -1.

    Others are farther by a factor `gap`, but for a share of the rows, which are n in all.
    """
    positive = distances[distances > 0]
    best, fewest = -1.0, share
    for distance in np.geomspace(positive.min(), positive.max(), _N_DISTANCES):
        is_below = distances <= distance
        is_in_gap = ~is_below & (distances <= gap * distance)
        # The last neighbour that is known has to be one of another group.
        is_bad = is_in_gap.any(axis=1) | is_below[:, -1]
        n_places = n * np.mean(1 / (1 + is_below.sum(axis=1)))
        has_readings = n_places >= _MIN_PLACES and is_below[:, 0].mean() >= _SHARE_REPEATED
        if has_readings and is_bad.mean() < fewest:
            best, fewest = float(distance), is_bad.mean()
    return best


def _joined(rows, first, centre, scale, distance):
    """Return labels of distinct rows, the same for those that chains of near pairs join.

    Groups of more rows than there are neighbours measured are clusters, which are left alone. None
    where there are too many pairs.
    """
    # These imports would take a while at the top of the module.
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    n_features = rows.shape[1]
    k = min(n_features, _MAX_TREE_FEATURES)
    # A projection makes no distance longer.
    axes = np.linalg.qr(np.random.RandomState(0).standard_normal((n_features, k)))[0]
    projected = np.empty((len(first), k))
    for block in _blocks(len(first), n_features):
        projected[block] = (rows[first[block]] - centre) / scale @ axes
    tree = KDTree(projected)
    if tree.count_neighbors(tree, 1.0001 * distance) > _N_NEIGHBORS * len(first):
        return None
    pairs = tree.query_pairs(1.0001 * distance, output_type="ndarray")
    is_near = np.empty(len(pairs), dtype=bool)
    for block in _blocks(len(pairs), 2 * n_features):
        one, other = (rows[first[ends]] for ends in pairs[block].T)
        is_near[block] = np.linalg.norm((one - other) / scale, axis=1) <= distance
    # The search for components wants small integers.
    one, other = pairs[is_near].astype(np.int32).T
    shape = len(first), len(first)
    graph = csr_matrix((np.ones(len(one), dtype=np.int8), (one, other)), shape=shape)
    labels = connected_components(graph, directed=False)[1]
    is_cluster = np.bincount(labels)[labels] > _N_NEIGHBORS
    labels[is_cluster] = labels.max() + 1 + np.arange(is_cluster.sum())
    return labels
