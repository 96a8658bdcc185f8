"""Rows of a training, taken from their table batch by batch."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["TrainingRows"]


class TrainingRows:
    """Standardised rows that are trained on, taken as they are needed.

    Parameters
    ----------
    take : callable
        Takes indices (n,), returns the standardised rows (n, D) in the dtype and on the device of
        the flow.
    n_rows : int
        Number of rows of an epoch.
    sample : Tensor of shape (m, D)
        Rows in random order that stand for all, where all are not needed: closed-form steps, and
        comparisons where there are no validation rows.
    draw : callable or None, default=None
        Takes a generator, returns the indices of the rows of an epoch in a new order. By default
        they are the numbers below `n_rows`, each once.
    device : torch.device or None, default=None
        Where `take` wants its indices; None for the CPU.
    """

    def __init__(
        self,
        take: Callable[[Tensor], Tensor],
        n_rows: int,
        sample: Tensor,
        draw: Callable[[torch.Generator], Tensor] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.take = take
        self.n_rows = n_rows
        self.sample = sample
        self.draw = draw
        self.device = device

    @classmethod
    def of(cls, rows: Tensor, sample: Tensor | None = None) -> "TrainingRows":
        """Return rows that lie in memory; by default all of them are the sample."""
        return cls(
            rows.__getitem__, len(rows), rows if sample is None else sample, device=rows.device
        )

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the indices (n_rows,) of the rows of an epoch in a new order."""
        if self.draw is not None:
            return self.draw(generator).to(self.device)
        return torch.randperm(self.n_rows, generator=generator).to(self.device)
