"""Memory of one pass through layers that know their gradient in closed form.

Rows (n, D) are columns (D, n) here, so that parts of them are contiguous. A tape that is used again
finds the same tensors in the same places: it makes views of a tensor where that comes first.
"""

from abc import ABC, abstractmethod

from torch import Tensor

__all__ = ["Pass", "Tape"]


class Pass:
    """What the tapes of one pass have in common.

    Parameters
    ----------
    rows : Tensor of shape (n, D)
        Rows like those that are passed.
    context : Tensor of shape (n, n_context) or None
        Context like that of the rows.
    inverse : bool
        Whether the pass goes from latent to data.
    keeps : bool
        Whether gradients will be asked for.
    """

    def __init__(self, rows: Tensor, context: Tensor | None, inverse: bool, keeps: bool) -> None:
        self.n_rows = len(rows)
        self.inverse = inverse
        self.keeps = keeps
        self._like = rows.new_empty(0)
        self._shared: dict[tuple[str, int], Tensor] = {}
        self.context = None if context is None else self.columns(context.shape[1])

    def columns(self, n_columns: int) -> Tensor:
        """Return memory of shape (n_columns, n)."""
        return self._like.new_empty(n_columns, self.n_rows)

    def rows(self, n_columns: int) -> Tensor:
        """Return memory of shape (n, n_columns)."""
        return self._like.new_empty(self.n_rows, n_columns)

    def constant(self, value: float) -> Tensor:
        """Return a number as a tensor, which costs half of the call that a number costs."""
        return self._like.new_tensor(value)

    def shared_rows(self, name: str, n_columns: int) -> Tensor:
        """Return memory of shape (n, n_columns), the same for every layer."""
        key = (name, n_columns)
        if key not in self._shared:
            self._shared[key] = self.rows(n_columns)
        return self._shared[key]


class Tape(ABC):
    """One layer in one pass."""

    # Log-determinants (n,), None where they are zero.
    log_det: Tensor | None = None
    # Gradient (n_context, n) of the context.
    grad_context: Tensor | None = None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map columns (D, n), which stay as they are."""

    @abstractmethod
    def backward(self, grad: Tensor, grad_log_det: Tensor, needs_grad: bool) -> Tensor:
        """Return the gradient of the columns, given those of the results.

        Gradients of weights go into the memory that the tape was given for them. Unless
        `needs_grad` what is returned may be anything.
        """
