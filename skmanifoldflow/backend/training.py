"""The one training loop, for one fit or several at once."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .device import statistics_dtype
from .objective import Objective
from .optimizer import Optimizer, State, release
from .rows import TrainingRows
from .training_job import (
    EpochLog,
    SecondInterrupt,
    TrainingInterrupted,
    TrainingJob,
    TrainingReport,
    TrainingSettings,
    finish,
)

__all__ = ["train", "train_all"]

_MAX_ROLLBACKS = 3
# Rows of one batch of a stack; so many fits share a step.
_MAX_ROWS = 8192
# Share of the training over which the learning rate rises.
_WARM_UP = 0.1
# Share of the time of a training by which its steps may be late before they count for less.
_GRACE = 0.05


def schedule(progress: float, is_linear: bool) -> float:
    """Return the factor of the learning rate: a rise, then a line or half a cosine to zero."""
    if progress < _WARM_UP:
        return 0.1 + 0.9 * progress / _WARM_UP
    share = (progress - _WARM_UP) / (1 - _WARM_UP)
    return 1 - share if is_linear else 0.5 * (1 + math.cos(math.pi * share))


class _Fit:
    """One fit under way: when it ends, which weights are kept, and what it goes back to.

    Parameters
    ----------
    index : int
        Which of the jobs it is.
    job : TrainingJob
        The job.
    n_shares : int
        Trainings, this one among them, that share the time until the deadline.
    """

    def __init__(self, index: int, job: TrainingJob, n_shares: int = 1) -> None:
        self.index, self.job = index, job
        self.objective, self.settings = job.objective, job.settings
        self.report = TrainingReport()
        self.sample = job.rows.sample
        self.evaluation_rows = self.sample if job.validation_rows is None else job.validation_rows
        self.learning_rate = job.settings.learning_rate
        self.n_rollbacks = self.step = self.first_step = self.n_stalled = 0
        self.per_epoch = -(-job.rows.n_rows // job.settings.batch_size)
        self.n_steps = min(job.settings.max_iter * self.per_epoch, job.settings.max_steps)
        # The initial state, the best epoch, the last one, and the last one before averaging.
        self.initial = self.best = self.last = self.good = State([], [], {})
        self.initial_scores = self.best_scores = torch.empty(0)
        self.reference: float | None = None
        self.is_lost = False
        self.began, self.deadline = time.monotonic(), job.settings.deadline
        if self.deadline is not None:
            self.deadline = self.began + (self.deadline - self.began) / n_shares
        self.is_over = not any(p.requires_grad for p in job.objective.parameters())

    def evaluate_initial(self) -> None:
        """Take the closed-form steps, and the scores that the end will be compared with."""
        self.objective.update_closed_form(self.sample)
        if self.job.validation_rows is not None:
            self.objective.fit_validation_weights(self.evaluation_rows)
        self.initial_scores = self.best_scores = self.objective.log_likelihood(self.evaluation_rows)
        if self.job.validation_rows is not None:
            self.report.best_score = self.reference = float(self.initial_scores.mean())
        if self.is_over:
            self.report.stopped_early = True
            scores = self.objective.log_likelihood(self.sample)
            self.report.loss_curve = [-float(scores.mean())]

    def progress(self, step: int) -> float:
        """Return the share of the training that is done after a step, or by its time."""
        share = step / self.n_steps
        if self.deadline is None:
            return share
        passed = (time.monotonic() - self.began) / max(self.deadline - self.began, 1e-9)
        # Steps that are slow at first change nothing where there is time enough.
        return max(share, min((passed - _GRACE) / (1 - _GRACE), 1.0))

    def update_closed_form(self) -> None:
        """Take the closed-form steps between two epochs."""
        self.objective.update_closed_form(self.sample, roughly=True)
        if self.job.validation_rows is not None:
            self.objective.fit_validation_weights(self.evaluation_rows)

    def evaluate_epoch(self, mean_loss: float, scores: Tensor, state: State, good: State) -> float:
        """Take the results of an epoch: the mean of the scores is maximised. Return it.

        Scores are the log-likelihoods of the validation rows, or minus the mean loss of the epoch.
        """
        report, settings = self.report, self.settings
        score = float(scores.mean())
        self.last, self.good = state, good
        if self.job.validation_rows is not None:
            report.validation_scores.append(score)
            if score > report.best_score:
                report.best_score, self.best, self.best_scores = score, state, scores
        report.loss_curve.append(mean_loss)
        # The first loss has none before it to be compared with.
        report.last_improvement = 0.0 if self.reference is None else score - self.reference
        if self.reference is None or report.last_improvement > settings.tol:
            self.reference, self.n_stalled = score, 0
        elif self.progress(self.step) >= settings.min_progress:
            self.n_stalled += 1
            report.stopped_early = self.n_stalled >= settings.n_iter_no_change
        report.is_out_of_time = self.deadline is not None and time.monotonic() >= self.deadline
        is_at_end = self.step >= self.n_steps or report.is_out_of_time
        self.is_over = report.stopped_early or is_at_end
        return score

    def roll_back(self) -> None:
        """Return to where the epoch began with half the learning rate."""
        self.n_rollbacks += 1
        if self.n_rollbacks > _MAX_ROLLBACKS:
            raise FloatingPointError(
                f"The training loss became non-finite {self.n_rollbacks} times, the last time "
                f"after {self.step} steps at a learning rate of {self.learning_rate:g}. Use a "
                "smaller learning_rate_init or a larger noise_floor."
            )
        self.good.load(self.objective)
        self.objective.reset_running_moments()
        self.step = self.first_step
        self.learning_rate /= 2

    def conclude(self, needs_gradients: bool) -> None:
        """Leave the objective at its best weights, or at its start if that is as good.

        As good is what is not better by the required standard errors of the paired differences.
        """
        report = self.report
        if needs_gradients:
            report.check_gradients()
        del report.validation_scores[report.n_iter :]
        kept, scores = self.best, self.best_scores
        if self.job.validation_rows is None:
            kept = self.last
            kept.load(self.objective)
            scores = self.objective.log_likelihood(self.evaluation_rows)
        gain = scores - self.initial_scores
        required = self.settings.required_errors
        if not gain.mean() > required * gain.std() / math.sqrt(len(gain)):
            kept, report.best_score = self.initial, float(self.initial_scores.mean())
            report.is_start = True
        kept.load(self.objective)
        release(self.objective)


class _Together:
    """Fits of one structure under way, all of them at the same step.

    Parameters
    ----------
    fits : sequence of _Fit
        One fit, or several that are stacked.
    """

    def __init__(self, fits: Sequence[_Fit]) -> None:
        self.fits = list(fits)
        self.settings = fits[0].settings
        self.step, self.n_steps = fits[0].step, fits[0].n_steps
        decays = [fit.settings.weight_decay for fit in fits]
        self.optimizer = Optimizer([fit.objective for fit in fits], decays)
        self._stack()
        for k, fit in enumerate(fits):
            if not fit.initial.weights:
                fit.initial = fit.best = fit.last = fit.good = self.optimizer.state(k)

    def _stack(self) -> None:
        objectives = [fit.objective for fit in self.fits]
        self.is_single = len(objectives) == 1
        self.objective = objectives[0] if self.is_single else type(objectives[0]).stack(objectives)

    def _together(self, tensors: Sequence[Tensor]) -> Tensor:
        return tensors[0] if self.is_single else torch.stack(list(tensors))

    def _progress(self) -> float:
        """Return the share of the training that is done, of the fit that has the most to do."""
        return min(fit.progress(self.step) for fit in self.fits)

    def _horizon(self, progress: float) -> float:
        """Return the steps over which weights are averaged; fewer at first, when there are no more.

        Where time ends the training, its steps are those that it comes to at this pace.
        """
        n_steps = min(self.n_steps, (self.step + 1) / progress) if progress else self.n_steps
        return max(1.0, self.settings.averaging * n_steps)

    def epoch(self) -> list[float]:
        """Take the gradient steps of one epoch; return the mean loss of each fit."""
        batch_size = self.settings.batch_size
        rows = [fit.job.rows for fit in self.fits]
        orders = [fit.job.rows.order(fit.job.generator) for fit in self.fits]
        device = rows[0].sample.device
        total = torch.zeros(len(rows), dtype=statistics_dtype(device), device=device)
        n_taken = 0
        for start in range(0, rows[0].n_rows, batch_size):
            progress = self._progress()
            if progress >= 1 and n_taken:
                break
            # A few left-over rows have no covariance to speak of: fill them up from the others.
            if start and 2 * (rows[0].n_rows - start) < batch_size:
                start = rows[0].n_rows - batch_size
            of_step = [order[start : start + batch_size] for order in orders]
            batch = self._together([r.take(i) for r, i in zip(rows, of_step, strict=True)])
            loss = self.objective.loss(batch, progress)
            (loss.sum() if isinstance(loss, Tensor) else loss).backward()
            total += loss.detach()
            factor = schedule(progress, self.objective.decays_linearly)
            is_finite = self.optimizer.step([factor * fit.learning_rate for fit in self.fits])
            for fit, has_gradient in zip(self.fits, is_finite, strict=True):
                fit.report.n_steps += 1
                fit.report.n_skipped += not has_gradient
            if self.settings.averaging:
                horizon = self._horizon(progress)
                self.optimizer.move_averages(1 / min(self.optimizer.n_steps, horizon))
            self.step += 1
            n_taken += 1
        return (total / n_taken).tolist()

    def evaluate_epoch(self, mean_losses: Sequence[float]) -> float:
        """Let every fit take the results of an epoch; return the best score.

        Where weights are averaged, these are the results of the averages.
        """
        optimizer, averages = self.optimizer, bool(self.settings.averaging)
        is_finite = optimizer.are_finite()
        if averages:
            optimizer.swap()
        for fit, mean_loss, has_weights in zip(self.fits, mean_losses, is_finite, strict=True):
            fit.first_step, fit.step = fit.step, self.step
            fit.is_lost = not (math.isfinite(mean_loss) and has_weights)
            if not fit.is_lost:
                fit.update_closed_form()
        scores: Sequence[Tensor] = [torch.tensor([-mean_loss]) for mean_loss in mean_losses]
        first = self.fits[0]
        if first.job.validation_rows is not None and not (self.is_single and first.is_lost):
            together = self._together([fit.evaluation_rows for fit in self.fits])
            of_fits = self.objective.log_likelihood(together)
            scores = [of_fits] if self.is_single else list(of_fits)
        states = goods = [optimizer.state(k) for k in range(len(self.fits))]
        if averages:
            optimizer.swap()
            goods = [optimizer.state(k) for k in range(len(self.fits))]
        best = -math.inf
        parts = zip(self.fits, mean_losses, scores, states, goods, strict=True)
        for fit, mean_loss, of_fit, state, good in parts:
            fit.is_lost |= not bool(of_fit.mean().isfinite())
            if not fit.is_lost:
                best = max(best, fit.evaluate_epoch(mean_loss, of_fit, state, good))
        return best

    def go_on(self) -> None:
        """Go on with the fits that are not over and not lost."""
        going = [k for k, fit in enumerate(self.fits) if not (fit.is_over or fit.is_lost)]
        if len(going) < len(self.fits):
            fits = self.fits
            self.fits = [fits[k] for k in going]
            if going:
                self.optimizer = self.optimizer.keep(going)
                self._stack()


def train_all(
    jobs: Sequence[TrainingJob],
    log: Callable[[Sequence[int]], EpochLog | None] = lambda members: None,
) -> list[TrainingReport]:
    """Minimise objectives and leave them at their best weights, those of one structure together.

    Rows are permuted once per epoch, and taken batch by batch. With validation rows the weights of
    the epoch with the best validation score are kept, without them those of the last epoch; or the
    closed-form start if they are not better, on the validation or else the training rows, by so
    many standard errors of the paired difference as `TrainingSettings` requires. A non-finite loss
    takes a fit back to the last good epoch with half the learning rate. A step of a small flow
    costs calls rather than arithmetic, and a stack of flows costs hardly more calls than one; what
    a fit comes to does not depend on the others.

    Parameters
    ----------
    jobs : sequence of TrainingJob
        What is trained.
    log : callable, optional
        Gives what is told of the epochs of some jobs, by their indices; the score is the best one.

    Raises
    ------
    FloatingPointError
        If a loss became non-finite four times, or no gradient was finite.
    TrainingInterrupted
        If a KeyboardInterrupt came after the first epoch of a job.
    """
    pending = _stacks(jobs)
    reports: dict[int, TrainingReport] = {}
    try:
        while pending:
            members = pending.pop(0)
            n_shares = 1 + len(pending)
            fits = [m if isinstance(m, _Fit) else _Fit(m, jobs[m], n_shares) for m in members]
            reports |= _train_and_conclude(fits, log([fit.index for fit in fits]))
            # Alone they go back, at once: Ctrl-C keeps what they have.
            pending[:0] = [[fit] for fit in fits if fit.is_lost]
    except SecondInterrupt:
        raise
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, TrainingInterrupted):
            reports |= interrupt.reports
        if not reports:
            raise
        raise TrainingInterrupted(reports) from interrupt
    return [reports[i] for i in range(len(jobs))]


def _stacks(jobs: Sequence[TrainingJob]) -> list[list[Any]]:
    """Return the indices of jobs that are trained together."""
    groups: dict[Any, list[int]] = {}
    for i, job in enumerate(jobs):
        structure = job.structure() if len(jobs) > 1 else None
        groups.setdefault((i,) if structure is None else structure, []).append(i)
    stacks = []
    for group in groups.values():
        size = max(1, _MAX_ROWS // jobs[group[0]].settings.batch_size)
        stacks += [group[start : start + size] for start in range(0, len(group), size)]
    return stacks


def _run_epochs(fits: Sequence[_Fit], log: EpochLog | None) -> None:
    """Run epochs until every fit is over; a lost one starts from its last good epoch."""
    for fit in fits:
        if fit.is_lost:
            fit.roll_back()
        else:
            fit.evaluate_initial()
    going = [fit for fit in fits if not fit.is_over]
    if not going:
        return
    together = _Together(going)
    while together.fits:
        score = together.evaluate_epoch(together.epoch())
        if log is not None and math.isfinite(score):
            n_epochs = -(-together.n_steps // going[0].per_epoch)
            log(max(fit.report.n_iter for fit in together.fits), n_epochs, score)
        together.go_on()


def _train_and_conclude(fits: Sequence[_Fit], log: EpochLog | None) -> dict[int, TrainingReport]:
    """Train fits of one structure; return the reports of those that are not lost."""
    is_interrupted = False
    try:
        _run_epochs(fits, log)
    except Exception:
        for fit in fits:
            release(fit.objective)
        raise
    except KeyboardInterrupt:
        if not any(fit.report.n_iter for fit in fits):
            raise
        # What was done until now is kept, as after an early stop.
        is_interrupted = True
    reports: dict[int, TrainingReport] = {}
    needs_gradients = not is_interrupted

    def conclude() -> None:
        for fit in fits:
            # What is lost goes on from its last good epoch, unless there is no more to come.
            if fit.report.n_iter and not (fit.is_lost and needs_gradients):
                fit.conclude(needs_gradients)
                reports[fit.index] = fit.report

    if finish(conclude, is_interrupted):
        raise TrainingInterrupted(reports)
    return reports


def train(
    objective: Objective,
    rows: TrainingRows,
    validation_rows: Tensor | None,
    settings: TrainingSettings,
    generator: torch.Generator,
    log: EpochLog | None = None,
) -> TrainingReport:
    """Train one objective, see `TrainingJob` and `train_all`."""
    job = TrainingJob(objective, rows, validation_rows, settings, generator)
    return train_all([job], lambda members: log)[0]
