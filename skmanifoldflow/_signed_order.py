"""Order and signs of columns that depend on what they hold, not on where they stand."""

import numpy as np
import torch

from ._table import ENOUGH_ROWS
from .backend.standardize import SignedOrder

__all__ = ["signed_order"]

# Decimals of a skewness that are no rounding.
_DECIMALS = 9


def signed_order(X):
    """Return the order and the signs that columns have within a fit.

    They are those of what is in the columns, descending by how skewed they are, with long tails to
    the right, so that a table whose columns were put in another order, or multiplied by -1, gives
    the same model. Columns that are skewed alike to nine decimals, as symmetric ones are, stay in
    their order.
    """
    # Sorted, because the order of rows does not matter either.
    columns = np.sort(X[:: -(-len(X) // ENOUGH_ROWS)], axis=0).astype(np.float64)
    centred = columns - columns.mean(axis=0)
    largest = np.abs(centred).max(axis=0)
    centred /= np.where(largest > 0, largest, 1.0)
    scale = np.sqrt(np.square(centred).mean(axis=0))
    third = (centred**3).mean(axis=0) / np.where(scale > 0, scale, 1.0) ** 3
    skewness = third.round(_DECIMALS)
    order = np.argsort(-np.abs(skewness), kind="stable")
    signs = np.where(skewness < 0, -1.0, 1.0)[order]
    return SignedOrder(torch.from_numpy(order), torch.from_numpy(signs))
