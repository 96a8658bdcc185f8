"""Several fits of one architecture as one: their weights are stacked, their products batched.

A step of a small flow costs calls rather than arithmetic, and a stack of flows costs hardly more
calls than one. Each fit has its own rows, noise, clipping, learning rate and end, as in `train`.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from .device import head_dtype
from .objectives import InjectionLikelihood, Objective
from .stacked_step import StackedStep
from .training import (
    CLIP_NORM,
    EpochLog,
    SecondInterrupt,
    TrainingInterrupted,
    TrainingJob,
    TrainingReport,
    VectorAdam,
    finish,
    one_cycle,
    train,
)

__all__ = ["train_all"]

# Rows of one product of a stack; so many fits share a step.
_MAX_ROWS = 8192
# What may differ between the objectives of a stack.
_PER_FIT = ("noise_start", "noise_floor")


def train_all(
    jobs: Sequence[TrainingJob],
    log: Callable[[Sequence[int]], EpochLog | None] = lambda members: None,
) -> list[TrainingReport]:
    """Train as `train` does, jobs that have the same shapes together.

    Parameters
    ----------
    jobs : sequence of TrainingJob
        Objectives, which are left at their best weights, with their rows and settings.
    log : callable, optional
        Gives what is told of the epochs of some jobs, by their indices; the score is the best one.

    Raises
    ------
    TrainingInterrupted
        If a KeyboardInterrupt came after the first epoch of a job.
    """
    groups: dict[Any, list[int]] = {}
    for i, job in enumerate(jobs):
        groups.setdefault(_shape(job) or i, []).append(i)
    stacks = []
    for group in groups.values():
        size = max(1, _MAX_ROWS // jobs[group[0]].settings.batch_size)
        stacks += [group[start : start + size] for start in range(0, len(group), size)]
    reports: dict[int, TrainingReport] = {}
    try:
        while stacks:
            members = stacks.pop(0)
            done = _train_members([jobs[i] for i in members], log(members))
            reports |= {members[i]: report for i, report in done.items()}
            # Alone a fit whose loss is lost can go back to the last good weights.
            stacks += [[member] for member in members if member not in reports]
    except SecondInterrupt:
        raise
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, TrainingInterrupted):
            reports |= {members[i]: report for i, report in interrupt.reports.items()}
        if not reports:
            raise
        raise TrainingInterrupted(reports) from interrupt
    return [reports[i] for i in range(len(jobs))]


def _train_members(jobs: Sequence[TrainingJob], log: EpochLog | None) -> dict[int, TrainingReport]:
    """Train jobs of one shape; return the reports, without those of a stack that are lost."""
    if len(jobs) == 1:
        return {0: train(*jobs[0][:-1], log)}
    return _train_stack(jobs, log)


def _shape(job: TrainingJob) -> Any:
    """Return what two jobs have in common if they can be stacked, None if this one cannot."""
    objective, settings = job.objective, job.settings
    trained = [name for name, p in objective.named_parameters() if p.requires_grad]
    # Other objectives set their closed forms with decisions that depend on the data, and
    # importance samples are drawn, which a batched call cannot do.
    if not isinstance(objective, InjectionLikelihood) or not objective.law.is_exact or not trained:
        return None
    constants = [
        (name, type(module), key, value)
        for name, module in objective.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (bool, int, float, str, tuple)) and (name or key not in _PER_FIT)
    ]
    tensors = [(name, t.shape, t.dtype, t.device) for name, t in objective.state_dict().items()]
    validation = None if job.validation_rows is None else job.validation_rows.shape
    schedule = (settings.max_iter, settings.max_steps, settings.batch_size, settings.averaging)
    shape = (constants, tensors, trained, validation, job.n_rows, schedule)
    return repr(shape)


class _Method(nn.Module):
    """A method of an objective as the call of a module, which `functional_call` wants."""

    def __init__(self, objective: Objective, name: str) -> None:
        super().__init__()
        self.objective = objective
        self.name = name

    def forward(self, *args: Any) -> Tensor:
        return getattr(self.objective, self.name)(*args)


class _Group:
    """Parameters of one dtype and decay of all fits, as the rows of a matrix."""

    def __init__(self, names: list[str], objectives: Sequence[Objective], decays: Sequence[float]):
        self.names, self.decays = names, list(decays)
        parameters = [dict(objective.named_parameters()) for objective in objectives]
        self.shapes = [parameters[0][name].shape for name in names]
        rows = [torch.cat([p[name].detach().flatten() for name in names]) for p in parameters]
        self._set(torch.stack(rows))
        self.averages = self.values.clone()
        self.optimizers = self._new_optimizers()

    def _new_optimizers(self) -> list[VectorAdam]:
        rows = zip(self.values, self.gradient, self.decays, strict=True)
        return [VectorAdam(values, gradient, decay) for values, gradient, decay in rows]

    def _set(self, values: Tensor) -> None:
        self.values, self.gradient = values, torch.zeros_like(values)
        self.leaves = {name: leaf.requires_grad_() for name, leaf in self.cut(values).items()}

    def cut(self, matrix: Tensor) -> dict[str, Tensor]:
        """Return the parameters, each with one entry per row of a matrix."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = matrix.split(sizes, dim=1)
        return {
            f"objective.{name}": part.unflatten(1, shape) if shape else part[:, 0]
            for name, shape, part in zip(self.names, self.shapes, parts, strict=True)
        }

    def keep(self, which: list[int]) -> None:
        """Drop all rows but some."""
        old = [self.optimizers[i] for i in which]
        self.decays = [self.decays[i] for i in which]
        self.averages = self.averages[which]
        self._set(self.values[which])
        self.optimizers = self._new_optimizers()
        for new, before in zip(self.optimizers, old, strict=True):
            new.mean, new.square, new.n_steps = before.mean, before.square, before.n_steps


class _Fit:
    """What one fit of a stack remembers."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.report = TrainingReport()
        self.rows = job.draw_rows()
        job.objective.refresh(self.rows)
        self.start = {name: t.clone() for name, t in job.objective.state_dict().items()}
        judged = self.rows if job.validation_rows is None else job.validation_rows
        self.judged = judged
        self.start_scores = self.best_scores = job.objective.log_likelihood(judged)
        self.best: list[Tensor] | None = None
        self.reference: float | None = None
        if job.validation_rows is not None:
            self.report.best_score = self.reference = float(self.start_scores.mean())
        self.n_stalled = 0
        self.is_lost = False

    def shuffled(self) -> Tensor:
        """Return the rows of an epoch in a new order."""
        order = torch.randperm(len(self.rows), generator=self.job.generator)
        return self.rows[order.to(self.rows.device)]

    def judge(
        self,
        mean_loss: float,
        scores: Tensor | None,
        progress: float,
        weights: Callable[[], list[Tensor]],
    ) -> float:
        """Take the results of an epoch, and its weights if it is the best one; return its score."""
        report, settings = self.report, self.job.settings
        score = -mean_loss if scores is None else float(scores.mean())
        if not (math.isfinite(mean_loss) and math.isfinite(score)):
            self.is_lost = True
            return score
        if scores is None:
            self.best = weights()
        else:
            report.validation_scores.append(score)
            if score > report.best_score:
                best = weights()
                report.best_score, self.best_scores, self.best = score, scores, best
        report.loss_curve.append(mean_loss)
        report.last_improvement = 0.0 if self.reference is None else score - self.reference
        if self.reference is None or report.last_improvement > settings.tol:
            self.reference, self.n_stalled = score, 0
        elif progress >= settings.min_progress:
            self.n_stalled += 1
            report.stopped_early = self.n_stalled >= settings.n_iter_no_change
        return score

    def finish(self, groups: Sequence[_Group]) -> TrainingReport:
        """Leave the objective at its best weights."""
        objective = self.job.objective
        parameters = dict(objective.named_parameters())
        with torch.no_grad():
            for group, best in zip(groups, self.best or [], strict=False):
                sizes = [shape.numel() for shape in group.shapes]
                for name, part in zip(group.names, best.split(sizes), strict=True):
                    parameters[name].copy_(part.view_as(parameters[name]))
        if self.job.validation_rows is None:
            self.best_scores = objective.log_likelihood(self.judged)
        gain = self.best_scores - self.start_scores
        if not gain.mean() > gain.std() / math.sqrt(len(gain)):
            objective.load_state_dict(self.start)
            self.report.best_score = float(self.start_scores.mean())
        return self.report


class _Stack:
    """Fits under way, all of them at the same step."""

    def __init__(self, jobs: Sequence[TrainingJob]) -> None:
        self.fits = [_Fit(job) for job in jobs]
        objectives = [job.objective for job in jobs]
        model = cast(InjectionLikelihood, objectives[0])
        undecayed = {id(p) for p in model.undecayed_parameters()}
        names: dict[Any, list[str]] = {}
        for name, p in model.named_parameters():
            if p.requires_grad:
                names.setdefault((p.dtype, id(p) not in undecayed), []).append(name)
        decays = [job.settings.weight_decay for job in jobs]
        self.groups = [
            _Group(of_group, objectives, decays if is_decayed else [0.0] * len(jobs))
            for (_, is_decayed), of_group in names.items()
        ]
        trained = {name for group in self.groups for name in group.names}
        states = [objective.state_dict() for objective in objectives]
        self.constants = {
            f"objective.{name}": torch.stack([state[name] for state in states])
            for name in states[0]
            if name not in trained
        }
        # Its tensors are exchanged during a call, and Ctrl-C may come just then: so it is a copy.
        called = copy.deepcopy(model, {id(model.generator): model.generator})
        self.loss = _Method(called, "loss_given")
        self._start_step()
        self.log_likelihood = _Method(called, "log_likelihood")

    def _start_step(self) -> None:
        objectives = [cast(InjectionLikelihood, fit.job.objective) for fit in self.fits]
        parts = [group.cut(group.values.detach()) for group in self.groups]
        parameters = {
            name.removeprefix("objective."): part
            for of_group in parts
            for name, part in of_group.items()
        }
        self.closed_form = StackedStep.of(objectives, parameters)

    def _gradients(self, batches: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Set the gradients of all groups; return the losses."""
        if self.closed_form is not None:
            losses, gradients = self.closed_form(batches + noise[0])
            for group in self.groups:
                parts = [gradients[name].view(len(self.fits), -1) for name in group.names]
                torch.cat(parts, dim=1, out=group.gradient)
            return losses
        losses = self.call(self.loss, [group.leaves for group in self.groups], batches, *noise)
        leaves = [leaf for group in self.groups for leaf in group.leaves.values()]
        found = iter(torch.autograd.grad(losses.sum(), leaves, materialize_grads=True))
        for group in self.groups:
            parts = [next(found).flatten(1) for _ in group.leaves]
            torch.cat(parts, dim=1, out=group.gradient)
        return losses.detach()

    def call(self, method: nn.Module, parameters: list[dict[str, Tensor]], *args: Tensor) -> Tensor:
        """Call a method of every objective with its own tensors and arguments."""
        tensors = dict(self.constants)
        for part in parameters:
            tensors |= part

        def call(tensors: dict[str, Tensor], *args: Tensor) -> Tensor:
            return cast(Tensor, functional_call(method, tensors, args))

        return vmap(call)(tensors, *args)

    def step(self, batches: Tensor, progress: float) -> Tensor:
        """Take a gradient step of every fit with its batch; return the losses."""
        objectives = [cast(InjectionLikelihood, fit.job.objective) for fit in self.fits]
        draws = [o.draw(batch, progress) for o, batch in zip(objectives, batches, strict=True)]
        noise = [torch.stack(of_fits) for of_fits in zip(*draws, strict=True)]
        losses = self._gradients(batches, noise)
        of_groups = [torch.linalg.vector_norm(group.gradient, dim=1) for group in self.groups]
        norms = torch.stack([norm.to(head_dtype(norm.device)) for norm in of_groups])
        norms = norms.square().sum(0).sqrt()
        is_finite = norms.isfinite()
        if not is_finite.all():
            for group in self.groups:
                # A gradient that overflows says nothing: such a step follows the momentum alone.
                group.gradient[~is_finite] = 0
            for fit, has_gradient in zip(self.fits, is_finite.tolist(), strict=True):
                fit.report.n_skipped += not has_gradient
        scales = (norms / CLIP_NORM).clamp(min=1).where(is_finite, 1.0).tolist()
        for i, (fit, scale) in enumerate(zip(self.fits, scales, strict=True)):
            fit.report.n_steps += 1
            learning_rate = fit.job.settings.learning_rate * one_cycle(progress)
            for group in self.groups:
                group.optimizers[i].step(learning_rate, scale)
        return losses

    def scores(self, averaged: bool) -> Tensor | None:
        """Return the log-likelihoods (K, n) of the validation rows, if there are any."""
        if self.fits[0].job.validation_rows is None:
            return None
        rows = torch.stack([cast(Tensor, fit.job.validation_rows) for fit in self.fits])
        parameters = [
            group.cut(group.averages if averaged else group.values) for group in self.groups
        ]
        with torch.no_grad():
            pieces = rows.split(max(1, _MAX_ROWS // len(rows)), dim=1)
            return torch.cat(
                [self.call(self.log_likelihood, parameters, piece) for piece in pieces], dim=1
            )

    def weights(self, i: int, averaged: bool) -> list[Tensor]:
        """Return a copy of the weights of a fit, by groups."""
        return [(group.averages if averaged else group.values)[i].clone() for group in self.groups]

    def keep(self, which: list[int]) -> None:
        """Go on with some of the fits only."""
        self.fits = [self.fits[i] for i in which]
        self.constants = {name: tensor[which] for name, tensor in self.constants.items()}
        for group in self.groups:
            group.keep(which)
        if self.fits:
            self._start_step()


def _train_stack(jobs: Sequence[TrainingJob], log: EpochLog | None) -> dict[int, TrainingReport]:
    stack = _Stack(jobs)
    fits = list(stack.fits)
    is_interrupted = False
    try:
        _run_stack(stack, jobs[0], log)
    except KeyboardInterrupt:
        if not any(fit.report.n_iter and not fit.is_lost for fit in fits):
            raise
        is_interrupted = True
    reports: dict[int, TrainingReport] = {}
    needs_gradients = not is_interrupted

    def conclude() -> None:
        for i, fit in enumerate(fits):
            if fit.is_lost or not fit.report.n_iter:
                continue
            if needs_gradients:
                fit.report.check_gradients()
            del fit.report.validation_scores[fit.report.n_iter :]
            reports[i] = fit.finish(stack.groups)

    if finish(conclude, is_interrupted):
        raise TrainingInterrupted(reports)
    return reports


def _run_stack(stack: _Stack, like: TrainingJob, log: EpochLog | None) -> None:
    """Train a stack of fits that have numbers of rows and steps in common with a job."""
    settings = like.settings
    batch_size, per_epoch = settings.batch_size, -(-like.n_rows // settings.batch_size)
    n_steps = min(settings.max_iter * per_epoch, settings.max_steps)
    horizon = max(1.0, settings.averaging * n_steps)
    step = n_epochs = 0
    while stack.fits and step < n_steps:
        shuffled = torch.stack([fit.shuffled() for fit in stack.fits])
        total, n_taken = shuffled.new_zeros(len(stack.fits)).to(head_dtype(shuffled.device)), 0
        for batches in shuffled.split(batch_size, dim=1):
            if step == n_steps:
                break
            # A few left-over rows have no covariance to speak of: fill them up from the others.
            if 2 * batches.shape[1] < batch_size:
                batches = shuffled[:, -batch_size:]
            total += stack.step(batches, step / n_steps)
            step += 1
            n_taken += 1
            if settings.averaging:
                for group in stack.groups:
                    group.averages.lerp_(group.values, 1 / min(step, horizon))
        mean_losses = (total / n_taken).tolist()
        scores = stack.scores(bool(settings.averaging))
        n_epochs += 1
        of_fits = []
        for i, fit in enumerate(stack.fits):
            of_fit = None if scores is None else scores[i]
            weights = partial(stack.weights, i, bool(settings.averaging))
            of_fits.append(fit.judge(mean_losses[i], of_fit, step / n_steps, weights))
        if log is not None:
            log(n_epochs, -(-n_steps // per_epoch), max(of_fits))
        going = [
            i for i, fit in enumerate(stack.fits) if not (fit.is_lost or fit.report.stopped_early)
        ]
        if len(going) < len(stack.fits):
            stack.keep(going)
        for fit in stack.fits:
            fit.rows = fit.job.draw_rows()
