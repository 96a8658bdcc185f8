"""The one training loop."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .objectives import Objective

__all__ = ["TrainingReport", "TrainingSettings", "train"]

_CLIP_NORM = 5.0
_WARM_UP = 0.1
_MAX_ROLLBACKS = 3


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
        Peak of the one-cycle schedule: a linear rise over the first tenth, then half a cosine to 0.
    weight_decay : float
        Decoupled weight decay.
    n_iter_no_change : int
        Epochs without a better validation score, or training loss without validation rows, after
        which training stops.
    tol : float
        What counts as better, in nats.
    min_progress : float
        Share of the training before which it does not stop early.
    """

    max_iter: int
    max_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    n_iter_no_change: int
    tol: float
    min_progress: float = 0.0


@dataclass
class TrainingReport:
    """What happened: epochs, mean loss of each and validation score after each, both in nats."""

    n_iter: int = 0
    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    best_score: float = -math.inf
    last_improvement: float = 0.0


def _flatten(parameters: list[nn.Parameter]) -> nn.Parameter:
    """Return one parameter whose storage, and whose gradient's, all `parameters` share.

    Optimiser and clipping then cost one call instead of one for each tensor.
    """
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for p in parameters:
        stop = start + p.numel()
        p.data = flat.data[start:stop].view_as(p)
        p.grad = flat.grad[start:stop].view_as(p)
        start = stop
    return flat


def _one_cycle(progress: float) -> float:
    """Return the factor of the learning rate."""
    if progress < _WARM_UP:
        return 0.1 + 0.9 * progress / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))


class _Optimizer:
    """Adam on one flat vector for the decayed and one for the undecayed parameters."""

    def __init__(self, objective: Objective, settings: TrainingSettings) -> None:
        undecayed = objective.undecayed_parameters()
        ids = {id(p) for p in undecayed}
        decayed = [p for p in objective.parameters() if id(p) not in ids]
        self.flat = [_flatten(group) for group in (decayed, undecayed) if group]
        self.learning_rate = settings.learning_rate
        self.adam = torch.optim.AdamW(
            [
                {"params": [flat], "weight_decay": settings.weight_decay * (flat is self.flat[0])}
                for flat in self.flat
            ],
            lr=settings.learning_rate,
            fused=True,
        )

    def is_finite(self) -> bool:
        return all(bool(torch.isfinite(flat).all()) for flat in self.flat)

    def step(self, loss: Tensor, progress: float) -> None:
        for flat in self.flat:
            flat.grad.zero_()
        loss.backward()
        nn.utils.clip_grad_norm_(self.flat, _CLIP_NORM)
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate * _one_cycle(progress)
        self.adam.step()


def _snapshot(objective: Objective) -> dict[str, Tensor]:
    return copy.deepcopy(objective.state_dict())


def train(
    objective: Objective,
    draw_rows: Callable[[], Tensor],
    validation_rows: Tensor | None,
    settings: TrainingSettings,
    generator: torch.Generator,
    log: Callable[[str], None] | None = None,
) -> TrainingReport:
    """Minimise an objective and leave it at its best weights.

    Rows are permuted once per epoch and sliced. With validation rows the weights of the epoch with
    the best validation score are restored, the closed-form start counting as epoch 0. A non-finite
    loss takes the fit back to the last good epoch with half the learning rate.

    Parameters
    ----------
    objective : Objective
        Loss and closed-form steps; changed in place.
    draw_rows : callable
        Returns the standardised training rows (n, D) of an epoch.
    validation_rows : Tensor of shape (n_validation, D) or None
        Rows that choose the best weights.
    settings : TrainingSettings
        How long and how fast.
    generator : torch.Generator
        Source of the permutations.
    log : callable or None, default=None
        Takes a line of text per epoch.

    Raises
    ------
    FloatingPointError
        If the loss became non-finite four times.
    """
    report = TrainingReport()
    rows = draw_rows()
    objective.refresh(rows)
    if validation_rows is not None:
        report.best_score = objective.log_likelihood(validation_rows)
    best = good = _snapshot(objective)
    if not any(p.requires_grad for p in objective.parameters()):
        # A flow without weights is at its optimum: its law has a closed form.
        report.n_iter = 1
        report.loss_curve = [-objective.log_likelihood(rows)]
        return report

    optimizer = _Optimizer(objective, settings)
    steps_per_epoch = -(-len(rows) // settings.batch_size)
    n_steps = min(settings.max_iter * steps_per_epoch, settings.max_steps)
    step = n_rollbacks = n_stalled = 0
    reference = report.best_score
    while step < n_steps:
        order = torch.randperm(len(rows), generator=generator).to(rows.device)
        shuffled = rows[order]
        total = torch.zeros((), device=rows.device)
        n_taken = 0
        for batch in shuffled.split(settings.batch_size):
            if step == n_steps:
                break
            # A last batch of a few rows has no covariance to speak of.
            if len(batch) < min(settings.batch_size, len(rows)) // 2:
                batch = shuffled[-settings.batch_size :]
            loss = objective.loss(batch, step / n_steps)
            optimizer.step(loss, step / n_steps)
            total += loss.detach()
            step += 1
            n_taken += 1
        mean_loss = float(total) / n_taken
        score = math.nan
        if math.isfinite(mean_loss) and optimizer.is_finite():
            objective.refresh(rows)
            score = -mean_loss
            if validation_rows is not None:
                score = objective.log_likelihood(validation_rows)
        if not math.isfinite(score):
            n_rollbacks += 1
            if n_rollbacks > _MAX_ROLLBACKS:
                raise FloatingPointError(
                    f"The training loss became non-finite {n_rollbacks} times, the last time after "
                    f"{step} steps at a learning rate of {optimizer.learning_rate:g}. Use a smaller "
                    "learning_rate_init or a larger noise_floor."
                )
            objective.load_state_dict(good)
            learning_rate = optimizer.learning_rate / 2
            optimizer = _Optimizer(objective, settings)
            optimizer.learning_rate = learning_rate
            continue
        good = _snapshot(objective)
        report.n_iter += 1
        report.loss_curve.append(mean_loss)
        if validation_rows is not None:
            report.validation_scores.append(score)
            if score > report.best_score:
                report.best_score, best = score, good
        if log is not None:
            log(f"Epoch {report.n_iter}, loss {mean_loss:.4f}, score {score:.4f}")
        report.last_improvement = score - reference
        if report.last_improvement > settings.tol:
            reference, n_stalled = score, 0
        elif step >= settings.min_progress * n_steps:
            n_stalled += 1
            if n_stalled >= settings.n_iter_no_change:
                break
        rows = draw_rows()
    if validation_rows is not None:
        objective.load_state_dict(best)
    return report
