"""Which rows are set aside: groups of rows stay on one side."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Split", "split_groups", "split_rows"]

# So many times the rows that are wanted may be set aside.
_MOST = 1.5


class Split(NamedTuple):
    """Order of the rows of a fit, those that are set aside first.

    Attributes
    ----------
    order : Tensor of int of shape (n,)
        Order of the rows.
    n_validation : int
        Number of rows that are set aside.
    groups : Tensor of int of shape (n,) or None
        Group of copies that each row of the table is in; None where none are copies.
    """

    order: Tensor
    n_validation: int
    groups: Tensor | None

    @property
    def validation(self) -> Tensor:
        """Indices of the rows that are set aside."""
        return self.order[: self.n_validation]

    @property
    def training(self) -> Tensor:
        """Indices of the rows that are trained on."""
        return self.order[self.n_validation :]

    def distinct(self, rows: Tensor) -> Tensor:
        """Return the first of each group among indices of rows, in their order."""
        if self.groups is None:
            return rows
        first = np.unique(self.groups[rows].numpy(), return_index=True)[1]
        return rows[torch.from_numpy(np.sort(first))]

    def weights_of(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Return the weights of rows and all of their copies, given those of all rows."""
        if self.groups is None:
            return weights[rows]
        return torch.bincount(self.groups, weights)[self.groups[rows]]

    def of_some(self, validation: Tensor, training: Tensor) -> "tuple[Tensor, Split]":
        """Return indices of some of the rows in the order of the table, and the split of these."""
        chosen = torch.cat([validation, training])
        index, places = chosen.sort(stable=True)
        return index, Split(torch.argsort(places), len(validation), None)


def split_rows(order, groups, n_validation, weights=None):
    """Set rows aside with their copies, at random.

    Parameters
    ----------
    order : Tensor of int of shape (n,)
        Random order of the rows.
    groups : ndarray of int of shape (n,)
        Group of copies that each row is in, from 0 on.
    n_validation : int
        Number of groups to set aside. Those that hold more than a tenth of all rows are trained on,
        and there are fewer where they would have half as many rows more than their share.
    weights : ndarray of shape (n,), default=None
        How many rows each of them counts for.

    Returns
    -------
    split : Split
        Where no rows are copies, the first `n_validation` rows of the order are set aside.
    """
    n_groups = int(groups.max()) + 1
    has_copies = n_groups < len(order)
    if weights is None and not has_copies:
        return Split(order, n_validation, None)
    sizes = np.bincount(groups, weights)
    n_rows = sizes.sum()
    one = n_rows / len(order)
    drawn = _drawn_groups(order, groups)
    drawn = drawn[sizes[drawn] <= max(one, n_rows // 10)]
    # Of groups of many sizes those drawn may have far more rows than their share.
    drawn = drawn[:n_validation]
    most = _MOST * n_validation * n_rows / n_groups
    drawn = drawn[np.cumsum(sizes[drawn]) <= max(most, one)]
    split = _aside(order, groups, drawn)
    return split._replace(groups=torch.from_numpy(groups)) if has_copies else split


def split_groups(order, groups, n_validation, weights=None):
    """Set groups of rows aside, at random.

    Parameters
    ----------
    order : Tensor of int of shape (n,)
        Random order of the rows.
    groups : ndarray of int of shape (n,)
        Group of each row, from 0 on.
    n_validation : int
        Number of rows that the groups set aside should have in all. They have half as many more at
        most, or are the smallest group of two rows and more, if that is at most half of the rows.
    weights : ndarray of shape (n,), default=None
        How many rows each of them counts for, relative to their mean.

    Returns
    -------
    split : Split
        No rows are copies.

    Raises
    ------
    ValueError
        If there is no such group.
    """
    if not n_validation:
        return Split(order, 0, None)
    counts = np.bincount(groups)
    sizes = counts if weights is None else np.bincount(groups, weights / weights.mean())
    chosen, size = [], 0
    most = min(_MOST * n_validation, len(order) - 2)
    for group in _drawn_groups(order, groups):
        if size < n_validation and size + sizes[group] <= most:
            chosen.append(group)
            size += sizes[group]
    if sum(counts[group] for group in chosen) < 2:
        smallest = int(np.where(counts > 1, counts, len(order)).argmin())
        if counts[smallest] > len(order) // 2:
            raise ValueError(
                f"Of {len(counts)} groups one has to be set aside, of two rows at least and half "
                f"of the {len(order)} rows at most: there is none."
            )
        chosen = [smallest]
    return _aside(order, groups, chosen)


def _drawn_groups(order, groups):
    """Return the groups in a random order.

    Where the first row of a group in the table has come in the order of the rows decides, so that
    large groups are not drawn earlier.
    """
    first = np.unique(groups, return_index=True)[1]
    return groups[order.numpy()[np.isin(order.numpy(), first)]]


def _aside(order, groups, chosen):
    """Return the split with groups set aside."""
    is_held_out = np.zeros(int(groups.max()) + 1, dtype=bool)
    is_held_out[chosen] = True
    of_order = groups[order.numpy()]
    # The order within both parts stays.
    sides = np.argsort(~is_held_out[of_order], kind="stable")
    return Split(order[torch.from_numpy(sides)], int(is_held_out[of_order].sum()), None)
