"""Layers that know their gradient in closed form, on the way of rows through them.

Rows (n, D) are columns (D, n) here, so that parts of them are contiguous. What a pass computes lies
in memory that is the same from step to step, so a step is a list of calls with fixed arguments:
they are made once while the list is written, and again for other rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["Calls", "Pass", "Tape"]

# Up to so many rows their sum is faster as a product with ones.
_MAX_SUMMED_ROWS = 256


class Calls:
    """Calls that write into memory, made at once and, if they are kept, remembered.

    Parameters
    ----------
    like : Tensor
        Whose dtype and device the memory has.
    inverse : bool
        Whether what is computed goes from latent to data.
    keeps : bool
        Whether calls are remembered.

    Attributes
    ----------
    made : list of callable
        The calls that are remembered.
    """

    def __init__(self, like: Tensor, *, inverse: bool, keeps: bool) -> None:
        self._like = like.detach().new_empty(0)
        self.inverse = inverse
        self.keeps = keeps
        self.made: list[Callable[[], Any]] = []

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call a function that writes into its arguments."""
        function(*args, **kwargs)
        if self.keeps:
            self.made.append(partial(function, *args, **kwargs))

    def memory(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return memory of a shape."""
        return self._like.new_empty(shape, dtype=dtype)

    def scratch(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return memory whose contents the gradient does not need."""
        return self.memory(*shape, dtype=dtype)

    def like(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return memory of the shape of a tensor, with the dtype of `like` unless given."""
        return self.memory(*tensor.shape, dtype=dtype)

    def constant(self, value: float) -> Tensor:
        """Return a number as a tensor, which costs half of the call that a number costs."""
        return self._like.new_tensor(value)


class Pass(Calls):
    """What the tapes of one pass have in common.

    Parameters
    ----------
    rows : Tensor of shape (n, D)
        Rows like those that are passed.
    context : Tensor of shape (n, n_context) or None
        Context like theirs.
    n_log_slopes : int
        Columns of log-derivatives that all layers write together.
    inverse : bool
        Whether the pass goes from latent to data.
    keeps : bool
        Whether there will be other rows.
    trains : bool
        Whether gradients will be asked for.
    n_stack : int, default=1
        Number K of fits whose rows lie one after the other; all weights are stacks of K.

    Attributes
    ----------
    columns : Tensor of shape (D, n)
        Memory for the rows.
    context : Tensor of shape (n_context, n) or None
        Memory for the context.
    log_slopes : Tensor of shape (n_log_slopes, n)
        Memory for log-derivatives of the direction taken, whose sum is the log-determinant.
    grad_log_det : Tensor of shape (n,)
        Memory for the gradient of the log-determinants.
    grad_log_prior : Tensor of shape ()
        Memory for the gradient of the log-density of the parameters under their prior.
    grad_context : Tensor of shape (n_context, n) or None
        Memory for the gradient of the context, which the layers add to.
    reuses : bool
        Whether all memory is that of the layers before, whose contents no gradient needs any more.
    """

    def __init__(
        self,
        rows: Tensor,
        context: Tensor | None,
        n_log_slopes: int,
        *,
        inverse: bool,
        keeps: bool,
        trains: bool,
        n_stack: int = 1,
    ) -> None:
        super().__init__(rows, inverse=inverse, keeps=keeps)
        self.n_rows = len(rows)
        self.trains = trains
        self.n_stack = n_stack
        self.reuses = False
        self.columns = self.memory(rows.shape[1], len(rows))
        self.context = self.grad_context = None
        if context is not None:
            self.context = self.memory(context.shape[1], len(rows))
        if trains:
            self.grad_log_det = self.memory(len(rows))
            self.grad_log_prior = self.memory()
            if context is not None:
                self.grad_context = self.memory(context.shape[1], len(rows))
        self.log_slopes = self.memory(n_log_slopes, len(rows))
        self.reuses = not trains
        self._n_taken = 0
        self._multiples: dict[float, Tensor] = {}
        self._ones: Tensor | None = None
        # Memory by shape and dtype, how much of it the present layer has, and two tensors of which
        # each layer gets one and fills the other.
        self._pool: dict[Any, list[Tensor]] = {}
        self._n_used: dict[Any, int] = {}
        self._passed: list[Tensor] = []

    def start_layer(self) -> None:
        """Begin with the memory of the next layer."""
        self._n_used.clear()

    def memory(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        if self.reuses:
            return self.scratch(*shape, dtype=dtype)
        return super().memory(*shape, dtype=dtype)

    def scratch(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        key = shape, dtype
        of_shape, n_used = self._pool.setdefault(key, []), self._n_used.get(key, 0)
        self._n_used[key] = n_used + 1
        if n_used == len(of_shape):
            of_shape.append(super().memory(*shape, dtype=dtype))
        return of_shape[n_used]

    def sum_rows(self, tensor: Tensor, out: Tensor) -> None:
        """Sum (m, n) over the rows of the pass."""
        if self.n_rows > _MAX_SUMMED_ROWS:
            self.call(torch.sum, tensor, 1, out=out)
            return
        if self._ones is None:
            self._ones = torch.ones_like(tensor[0])
        self.call(torch.mv, tensor, self._ones, out=out)

    def after(self, x: Tensor) -> Tensor:
        """Return memory for what a layer makes of columns x and the next layer gets."""
        if not self.reuses:
            return torch.empty_like(x)
        other = next((memory for memory in self._passed if memory is not x), None)
        if other is None:
            other = torch.empty_like(x)
            self._passed.append(other)
        return other

    def take_log_slopes(self, n_columns: int) -> Tensor:
        """Return the part (n_columns, n) of the log-derivatives that belongs to a layer."""
        start = self._n_taken
        self._n_taken += n_columns
        return self.log_slopes[start : self._n_taken]

    def times_grad_log_det(self, factor: float) -> Tensor:
        """Return a multiple (n,) of the gradient of the log-determinants."""
        if factor not in self._multiples:
            self._multiples[factor] = torch.empty_like(self.grad_log_det)
            multiple = self.constant(factor)
            self.call(torch.mul, self.grad_log_det, multiple, out=self._multiples[factor])
        return self._multiples[factor]


class Tape(ABC):
    """One layer in one pass."""

    #: Whether columns are mapped in their own memory.
    in_place = False
    #: Log-densities (K,) of the weights under their prior, but for constants, where they have one.
    log_prior: Tensor | None = None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map columns (D, n)."""

    @abstractmethod
    def backward(self, grad: Tensor, needs_grad: bool) -> Tensor:
        """Return the gradient of the columns, given that of the results.

        The memory of the latter may be used.

        Gradients of weights go into the memory that the tape was given for them. Unless
        `needs_grad` what is returned may be anything.
        """
