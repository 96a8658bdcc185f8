"""Which rows are set aside: groups of rows stay on one side."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Split", "split_rows"]


class Split(NamedTuple):
    """Order of the rows of a fit, those that are set aside first.

    Attributes
    ----------
    order : Tensor of int of shape (n,)
        Order of the rows.
    n_validation : int
        Number of rows that are set aside.
    groups : Tensor of int of shape (n,) or None
        Group of each row, those of a table; None where each row is a group of its own.
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


def split_rows(order, groups, n_validation):
    """Set groups of rows aside, at random.

    Parameters
    ----------
    order : Tensor of int of shape (n,)
        Random order of the rows.
    groups : ndarray of int of shape (n,)
        Group of each row, from 0 on.
    n_validation : int
        Number of groups to set aside. Those that hold more than a tenth of all rows are trained on.

    Returns
    -------
    split : Split
        Where each row is a group, the first `n_validation` rows of the order are set aside.
    """
    n_rows = len(order)
    counts = np.bincount(groups)
    if len(counts) == n_rows:
        return Split(order, n_validation, None)
    of_order = groups[order.numpy()]
    # Each group is as likely as another: where its first row has come in the order decides.
    first = np.unique(groups, return_index=True)[1]
    by_first = of_order[np.isin(order.numpy(), first)]
    may_be = by_first[counts[by_first] <= max(1, n_rows // 10)]
    is_held_out = np.zeros(len(counts), dtype=bool)
    is_held_out[may_be[:n_validation]] = True
    # The order within both parts stays.
    sides = np.argsort(~is_held_out[of_order], kind="stable")
    n_held_out = int(counts[is_held_out].sum())
    return Split(order[torch.from_numpy(sides)], n_held_out, torch.from_numpy(groups))
