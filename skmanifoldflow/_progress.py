"""What a fit says while it runs: to a reader of standard output, or to whoever listens."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from sklearn.exceptions import ConvergenceWarning

from ._checks import warn
from .backend.training_job import TrainingReport

__all__ = ["Progress", "epoch_log", "listening", "report", "warn_of_training"]

# Nats that a score may still rise by in the last epoch before anybody has to be told.
_WORTH_MORE_EPOCHS = 0.01
# Share of the gradient steps that may have been skipped before anybody has to be told.
_WORTH_A_WARNING = 0.1


class Progress(NamedTuple):
    """How far a fit is, after an epoch.

    Attributes
    ----------
    estimator : str
        Name of the class that is fitted.
    part : str
        Which of several trainings of the fit this is, such as "stage 2 of 3"; empty for the only
        one.
    epoch, n_epochs : int
        Epochs done, and the most that this training can take.
    score : float
        What is maximised, in nats per standardised row.
    elapsed, remaining : float
        Seconds since the fit began, and those that it takes at most from now on. Further starts of
        `JointManifoldFlow`, made only where one has not found the manifold, are not counted.
    """

    estimator: str
    part: str
    epoch: int
    n_epochs: int
    score: float
    elapsed: float
    remaining: float

    def __str__(self):
        part = f"{self.part}, " if self.part else ""
        return (
            f"{part}epoch {self.epoch} of {self.n_epochs}, score {self.score:.4f} nats, "
            f"{_duration(self.elapsed)} elapsed, at most {_duration(self.remaining)} left"
        )


def _duration(seconds):
    """Return seconds as text that a person reads at a glance."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 599.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


_listener: ContextVar[Callable[[Progress], None] | None] = ContextVar("_listener", default=None)


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Call `listener` with the `Progress` of every fit of a flow in this context.

    Fits in other processes or threads are not heard.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report(progress: Progress, verbose: int) -> None:
    """Hand progress to the listener, and print it as a line if `verbose` is positive."""
    listener = _listener.get()
    if listener is not None:
        listener(progress)
    if verbose:
        print(f"[{progress.estimator}] {progress}", flush=True)


def epoch_log(
    estimator: str,
    verbose: int,
    began: float,
    part: str = "",
    n_later: int = 0,
    deadline: float | None = None,
) -> Callable[[int, int, float], None] | None:
    """Return what reports the epochs of a training, or None if nobody would see it.

    Parameters
    ----------
    estimator : str
        Name of the class that is fitted.
    verbose : int
        Whether to print.
    began : float
        `time.monotonic` at the beginning of the fit.
    part : str, default=""
        Which training of the fit it is.
    n_later : int, default=0
        Epochs of the trainings that follow it.
    deadline : float, default=None
        `time.monotonic` at which the training ends at the latest.
    """
    if not verbose and _listener.get() is None:
        return None
    start = time.monotonic()

    def log(epoch: int, n_epochs: int, score: float) -> None:
        now = time.monotonic()
        remaining = (now - start) / epoch * (n_epochs - epoch + n_later)
        if deadline is not None:
            remaining = min(remaining, max(0.0, deadline - now))
        progress = Progress(estimator, part, epoch, n_epochs, score, now - began, remaining)
        report(progress, verbose)

    return log


def warn_of_training(
    estimator: str, report: TrainingReport, reached: str | None, tol: float, max_iter: int
) -> None:
    """Warn of a training that was interrupted, or that should have been another one.

    Parameters
    ----------
    estimator : str
        Name of the class that is fitted.
    report : TrainingReport
        What happened.
    reached : str or None
        How far the training had come when it was interrupted; None if it was not.
    tol : float
        What counts as better, in nats.
    max_iter : int
        Epochs that were asked for.
    """
    if reached is not None:
        warn(
            f"{estimator} was interrupted after {reached}: it has the best weights until then.",
            ConvergenceWarning,
        )
        return
    if report.n_skipped > _WORTH_A_WARNING * report.n_steps:
        warn(
            f"The gradient was not finite in {report.n_skipped} of {report.n_steps} steps, which "
            "were skipped. Use a smaller learning_rate_init or a larger noise_floor.",
            ConvergenceWarning,
        )
    least = max(tol, _WORTH_MORE_EPOCHS)
    if report.stopped_early or report.last_improvement <= least:
        return
    remedy = "Increase max_iter."
    if report.is_out_of_time:
        remedy = "The fit ended with its time: increase max_time."
    elif report.n_iter < max_iter:
        remedy = f"The fit ended after {report.n_steps} gradient steps: increase batch_size."
    warn(
        f"The score still rose by {report.last_improvement:.2g} nats in the last of "
        f"{report.n_iter} epochs, more than {least:g}. {remedy}",
        ConvergenceWarning,
    )
