"""The rows of a fit as they were given, taken as they are needed, and how often each counts."""

import numpy as np
import torch

from .backend.flow import chunks

__all__ = ["ENOUGH_ROWS", "Table", "counted_once", "drawn", "drawn_anew", "rows_to_tensor"]

# So many rows tell as much as all of them where a fit starts, compares and reads.
ENOUGH_ROWS = 16_384


def rows_to_tensor(rows):
    """Return a float64 CPU copy of rows, which may be read-only or have negative strides."""
    return torch.tensor(np.ascontiguousarray(rows), dtype=torch.float64)


def drawn(weights, n_rows, shift=0.5):
    """Return indices of rows, each as often as its weight says: systematic sampling.

    A row is drawn floor(w) or ceil(w) times, where w is its weight times `n_rows` over their sum:
    exactly w times where all w are integers, and w times in the mean over shifts otherwise.

    Parameters
    ----------
    weights : Tensor of shape (n,)
        float64, positive.
    n_rows : int
        Number of indices.
    shift : float, default=0.5
        From 0 to below 1; uniform numbers make random draws.

    Returns
    -------
    indices : Tensor of int of shape (n_rows,)
        In ascending order.
    """
    ends = weights.cumsum(0)
    ends = ends * (n_rows / float(ends[-1])) if float(ends[-1]) != n_rows else ends
    ends[-1] = n_rows
    places = (ends + shift).floor().clamp_max(n_rows)
    counts = torch.diff(places, prepend=ends.new_zeros(1)).long()
    return torch.repeat_interleave(torch.arange(len(weights)), counts)


def drawn_anew(weights, n_rows, generator):
    """Return what `drawn` does, at random and in random order."""
    shift = float(torch.rand((), dtype=torch.float64, generator=generator))
    return drawn(weights, n_rows, shift)[torch.randperm(n_rows, generator=generator)]


class Table:
    """Rows as they were given, which may lie on a disk, and their weights.

    Parameters
    ----------
    X : ndarray of shape (n, D)
        float64 or float32.
    weights : Tensor of shape (n,) or None
        float64, positive: how many rows each of them counts for. None where each counts once.
    """

    def __init__(self, X, weights=None):
        self.X = X
        self.weights = weights

    def __len__(self):
        return len(self.X)

    @property
    def n_counted(self):
        """The sum of the weights, as the number of rows that all rules go by."""
        return len(self.X) if self.weights is None else round(float(self.weights.sum()))

    def take(self, index):
        """Return rows (n, D) in float64 on the CPU, given their indices."""
        return torch.from_numpy(np.asarray(self.X[index.numpy()], dtype=np.float64))

    def blocks(self):
        """Yield all rows in float64, and the weights of each block or None."""
        for block in chunks(len(self.X), self.X.shape[1]):
            weights = None if self.weights is None else self.weights[block]
            yield rows_to_tensor(self.X[block]), weights

    def repeated(self, index, most=None):
        """Return rows as often as they count, of more than `most`, by default `ENOUGH_ROWS`, some.

        Rows that count once are cut off, so their order should be random.
        """
        return _some(index, None if self.weights is None else self.weights[index], most)


def counted_once(index, weights):
    """Return rows once each, those of weights below 1 with that probability, or some of many."""
    return _some(index, None if weights is None else weights.clamp_max(1.0), None)


def _some(index, weights, most):
    most = ENOUGH_ROWS if most is None else most
    if weights is None:
        return index[:most]
    return index[drawn(weights, max(1, min(most, round(float(weights.sum())))))]
