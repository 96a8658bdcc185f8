"""The buffers of the kernels of one pass."""

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["NO_BUFFERS", "Workspace", "aligned", "without_gaps"]

# Elements, a multiple of which are the buffers of each fit and its weights. Vectorised loops treat
# the last few elements apart, and products depend on where in a line of the cache they begin, with
# other roundings; so those of one fit are the same in any stack.
_VECTOR = 32


def aligned(size: int) -> int:
    """Return the number of elements that so many elements take in memory."""
    return -(-size // _VECTOR) * _VECTOR


def without_gaps(view: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return memory of the shape of a view (K, ...), and pairs of which the first is copied to.

    A product of all fits is one call where there are no gaps between its results. It has the bits
    of one fit if these are aligned alike and have more than one row; otherwise the view itself is
    returned.
    """
    size = view[0].numel()
    if view.is_contiguous() or size != aligned(size) or view.shape[1] == 1:
        return view, []
    memory = view.new_empty(view.shape)
    return memory, [(view, memory)]


class Workspace:
    """Gives out the buffers of the kernels of a pass, one for each fit of a stack.

    Parameters
    ----------
    like : Tensor
        Whose dtype and device the buffers have.
    n_fits : int
        Number K of fits, the first dimension of every buffer.
    trains : bool
        Whether there will be a backward pass.
    """

    def __init__(self, like: Tensor, n_fits: int, *, trains: bool) -> None:
        self._like = like.detach().new_empty(0)
        self.n_fits = n_fits
        self.trains = trains
        self.has_buffers = True
        # Scratch buffers by shape and dtype, and how many of each are in use.
        self._scratch: dict[Any, list[Tensor]] = {}
        self._n_used: dict[Any, int] = {}

    def new(self, *shape: int, dtype: torch.dtype | None = None) -> Any:
        """Return a buffer (K, *shape) that nothing else uses."""
        size = math.prod(shape)
        # A product with one row has other bits together, so there is a gap then.
        padded = aligned(size + (shape[:1] == (1,)))
        buffer = self._like.new_empty(self.n_fits, padded, dtype=dtype)
        return buffer[:, :size].view(self.n_fits, *shape)

    def kept(self, *shape: int, dtype: torch.dtype | None = None) -> Any:
        """Return a buffer (K, *shape) whose contents last until the backward pass."""
        return (self.new if self.trains else self.scratch)(*shape, dtype=dtype)

    def scratch(self, *shape: int, dtype: torch.dtype | None = None) -> Any:
        """Return a buffer (K, *shape) that other kernels use too."""
        key = shape, dtype
        buffers, n_used = self._scratch.setdefault(key, []), self._n_used.get(key, 0)
        self._n_used[key] = n_used + 1
        if n_used == len(buffers):
            buffers.append(self.new(*shape, dtype=dtype))
        return buffers[n_used]

    def reuse_scratch(self) -> None:
        """Let all scratch buffers be given out again."""
        self._n_used.clear()


class _NoBuffers(Workspace):
    """Every buffer is None, so that `out=` makes a new tensor and autograd sees the operations."""

    def __init__(self) -> None:
        super().__init__(torch.empty(0), 1, trains=False)
        self.has_buffers = False

    def new(self, *shape: int, dtype: torch.dtype | None = None) -> Any:
        return None

    kept = scratch = new


#: The workspace of formulas that are to be differentiated by autograd or torch.func.
NO_BUFFERS = _NoBuffers()
