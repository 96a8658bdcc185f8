"""What is trained and how, what came of it, and what Ctrl-C does."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .objective import Objective
from .rows import TrainingRows

__all__ = [
    "EpochLog",
    "SecondInterrupt",
    "TrainingInterrupted",
    "TrainingJob",
    "TrainingReport",
    "TrainingSettings",
    "finish",
]

# Of fewer rows the last bits of a product depend on where in the stack they lie.
_MIN_ROWS = 16

#: Takes the number of epochs done, the largest number there can be, and the score of the last one.
EpochLog = Callable[[int, int, float], None]


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast to train.

    Parameters
    ----------
    max_iter : int
        Epochs.
    max_steps : int
        Gradient steps after which training ends whatever `max_iter` is.
    batch_size : int
        Rows of a gradient step.
    learning_rate : float
        Peak of the schedule: a linear rise over the first tenth, then half a cosine or a line to 0.
    weight_decay : float
        Decoupled weight decay.
    n_iter_no_change : int
        Epochs without a better validation score, or training loss without validation rows, after
        which training stops.
    tol : float
        What counts as better, in nats.
    min_progress : float
        Share of the training before which it does not stop early.
    averaging : float
        Share of the steps of a training over which weights are averaged (Polyak & Juditsky, 1992);
        the averages are judged and kept. 0 for none.
    required_errors : float
        Standard errors by which the end has to be better than the start.
    deadline : float or None
        `time.monotonic` at which training ends. The schedule then reaches its end with the time, if
        not with the steps before.
    """

    max_iter: int
    max_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    n_iter_no_change: int
    tol: float
    min_progress: float = 0.0
    averaging: float = 0.0
    required_errors: float = 1.0
    deadline: float | None = None


@dataclass
class TrainingReport:
    """What happened: mean loss of each epoch and validation score after it, both in nats.

    `n_skipped` of the `n_steps` gradients were not finite.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    best_score: float = -math.inf
    last_improvement: float = 0.0
    stopped_early: bool = False
    # Whether the weights are those of the start, which no epoch has bettered.
    is_start: bool = False
    # Whether time ended it.
    is_out_of_time: bool = False
    n_steps: int = 0
    n_skipped: int = 0

    @property
    def n_iter(self) -> int:
        """Epochs done."""
        return len(self.loss_curve)

    def check_gradients(self) -> None:
        """Raise FloatingPointError if no step of the training had a gradient."""
        if self.n_steps and self.n_skipped == self.n_steps:
            raise FloatingPointError(
                f"The gradient of the training loss was not finite in any of {self.n_steps} steps. "
                "Use a smaller learning_rate_init or a larger noise_floor."
            )


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C in a training that had finished an epoch.

    Attributes
    ----------
    reports : dict of int to TrainingReport
        By the index of the job, those whose objectives have been left at their best weights.
    """

    def __init__(self, reports: dict[int, TrainingReport]) -> None:
        super().__init__()
        self.reports = reports


class SecondInterrupt(KeyboardInterrupt):
    """A second Ctrl-C: nothing of the fit is kept."""


def finish(conclude: Callable[[], None], is_interrupted: bool) -> bool:
    """Conclude what has been trained, and once more if Ctrl-C comes meanwhile.

    Tell whether Ctrl-C has come, then or before; raise `SecondInterrupt` if it comes twice.
    """
    try:
        conclude()
        return is_interrupted
    except KeyboardInterrupt as interrupt:
        if is_interrupted:
            raise SecondInterrupt from interrupt
    try:
        conclude()
    except KeyboardInterrupt as interrupt:
        raise SecondInterrupt from interrupt
    return True


class TrainingJob(NamedTuple):
    """What is trained, on what, and how.

    Attributes
    ----------
    objective : Objective
        Loss and closed-form steps; changed in place. If nothing in it requires a gradient, only
        the closed-form step is taken.
    rows : TrainingRows
        The standardised training rows.
    validation_rows : Tensor of shape (n_validation, D) or None
        Rows that choose the best weights.
    settings : TrainingSettings
        How long and how fast.
    generator : torch.Generator
        Source of the permutations.
    """

    objective: Objective
    rows: TrainingRows
    validation_rows: Tensor | None
    settings: TrainingSettings
    generator: torch.Generator

    def structure(self) -> Hashable | None:
        """Return what jobs have in common that can be trained as one, None if this one cannot."""
        structure, s = self.objective.structure(), self.settings
        if structure is None or min(s.batch_size, self.rows.n_rows) < _MIN_ROWS:
            return None
        schedule = s.max_iter, s.max_steps, s.batch_size, s.averaging, s.deadline is None
        validation = None if self.validation_rows is None else self.validation_rows.shape
        return structure, self.rows.n_rows, validation, schedule
