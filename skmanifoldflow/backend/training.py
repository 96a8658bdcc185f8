"""The one training loop."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .bijections import Chain
from .bijections.fused import BoundWeights
from .objectives import Objective

__all__ = [
    "EpochLog",
    "SecondInterrupt",
    "TrainingInterrupted",
    "TrainingJob",
    "TrainingReport",
    "TrainingSettings",
    "finish",
    "train",
]

CLIP_NORM = 5.0
_WARM_UP = 0.1
_MAX_ROLLBACKS = 3

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
    averaging : float
        Share of the steps of a training over which weights are averaged (Polyak & Juditsky, 1992);
        the averages are judged and kept. 0 for none.
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
    """The arguments of `train`, and the number of rows that `draw_rows` returns."""

    objective: Objective
    draw_rows: Callable[[], Tensor]
    validation_rows: Tensor | None
    settings: TrainingSettings
    generator: torch.Generator
    n_rows: int


class VectorAdam:
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019) on one flat vector.

    `torch.optim` takes more than a second of a process to import what its first step needs.

    Parameters
    ----------
    values, gradient : Tensor of shape (n,)
        What is trained, in place, and its gradient.
    weight_decay : float
        Share of the parameters that is taken off in each step, times the learning rate.
    """

    def __init__(self, values: Tensor, gradient: Tensor, weight_decay: float) -> None:
        self.values = values
        self.gradient = gradient
        self.weight_decay = weight_decay
        self.mean = torch.zeros_like(values)
        self.square = torch.zeros_like(values)
        self.n_steps = 0
        self._count = torch.zeros((), device=values.device)

    @torch.no_grad()
    def step(self, learning_rate: float, scale: float = 1.0) -> None:
        """Move the parameters along their gradient, which is divided by a scale."""
        self.n_steps += 1
        if scale != 1.0:
            self.gradient.div_(scale)
        torch._fused_adamw_(
            [self.values],
            [self.gradient],
            [self.mean],
            [self.square],
            [],
            [self._count.fill_(self.n_steps)],
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self.weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


class Adam(VectorAdam):
    """Adam on parameters that become views of one vector, and their gradients of another.

    A step and the clipping cost a handful of calls instead of a handful for each tensor.

    Parameters
    ----------
    parameters : list of Parameter
        What is trained; their storage changes.
    weight_decay : float
        Share of the parameters that is taken off in each step, times the learning rate.
    """

    def __init__(self, parameters: list[nn.Parameter], weight_decay: float) -> None:
        values = torch.cat([p.detach().flatten() for p in parameters])
        super().__init__(values, torch.zeros_like(values), weight_decay)
        # Where each of them starts, by its identity.
        self.starts: dict[int, int] = {}
        start = 0
        for p in parameters:
            stop = start + p.numel()
            p.data = self.values[start:stop].view_as(p)
            p.grad = self.gradient[start:stop].view_as(p)
            self.starts[id(p)] = start
            start = stop


def one_cycle(progress: float) -> float:
    """Return the factor of the learning rate."""
    if progress < _WARM_UP:
        return 0.1 + 0.9 * progress / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))


class Optimizer:
    """Adam for the decayed and for the undecayed parameters, with one clipping for both."""

    def __init__(self, objective: Objective, settings: TrainingSettings) -> None:
        undecayed = objective.undecayed_parameters()
        ids = {id(p) for p in undecayed}
        trained = [p for p in objective.parameters() if p.requires_grad]
        decayed = [p for p in trained if id(p) not in ids]
        # One flat vector has one dtype, and the latent law may be trained in float64.
        self.groups = [
            Adam([p for p in parameters if p.dtype == dtype], decay)
            for parameters, decay in ((decayed, settings.weight_decay), (undecayed, 0.0))
            for dtype in dict.fromkeys(p.dtype for p in parameters)
        ]
        self.bound: list[BoundWeights] = []
        inner: set[nn.Module] = set()
        for module in objective.modules():
            if isinstance(module, Chain) and module not in inner:
                self._bind(module)
                if module.bound_weights is not None:
                    inner.update(module.modules())
        self.learning_rate = settings.learning_rate
        self.averages = [group.values.clone() for group in self.groups]

    def _bind(self, chain: Chain) -> None:
        """Let the weights of a chain be parts of the vectors, if all of them lie there."""
        chain.bound_weights = None
        runs: list[tuple[Adam, int, int]] = []
        for w in (w for layer in chain.fused_layers for w in layer.weights()):
            group = next((group for group in self.groups if id(w) in group.starts), None)
            if group is None:
                return
            start = group.starts[id(w)]
            if runs and runs[-1][0] is group and runs[-1][2] == start:
                start = runs.pop()[1]
            runs.append((group, start, group.starts[id(w)] + w.numel()))
        vectors = []
        for group, start, stop in runs:
            vector = group.values[start:stop].requires_grad_()
            vector.grad = group.gradient[start:stop]
            vectors.append(vector)
        if vectors:
            chain.bound_weights = BoundWeights(vectors, chain.fused_layers)
            self.bound.append(chain.bound_weights)

    @torch.no_grad()
    def average(self, share: float) -> None:
        """Move the averages by a share of the way to the weights."""
        for group, average in zip(self.groups, self.averages, strict=True):
            average.lerp_(group.values, share)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their averages."""
        for group, average in zip(self.groups, self.averages, strict=True):
            values = group.values.clone()
            group.values.copy_(average)
            average.copy_(values)

    @staticmethod
    def release(objective: Objective) -> None:
        """Give every parameter storage of its own again, and no gradient."""
        for module in objective.modules():
            if isinstance(module, Chain):
                module.bound_weights = None
        for p in objective.parameters():
            p.grad = None
            p.data = p.data.clone()

    def is_finite(self) -> bool:
        return all(bool(torch.isfinite(group.values).all()) for group in self.groups)

    @property
    def n_steps(self) -> int:
        """Steps taken so far."""
        return self.groups[0].n_steps

    def step(self, progress: float) -> bool:
        """Take a step along the gradient, and set it to zero; tell whether it was finite."""
        norm = math.hypot(*(float(group.gradient.norm()) for group in self.groups))
        if not math.isfinite(norm):
            # A gradient that overflows says nothing: such a step follows the momentum alone.
            for group in self.groups:
                group.gradient.zero_()
        scale = max(1.0, norm / CLIP_NORM) if math.isfinite(norm) else 1.0
        for group in self.groups:
            group.step(self.learning_rate * one_cycle(progress), scale)
            group.gradient.zero_()
        for bound in self.bound:
            bound.is_clean = True
        return math.isfinite(norm)


def _snapshot(objective: Objective) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in objective.state_dict().items()}


class _Run:
    """The state of one call of `train`."""

    def __init__(
        self,
        objective: Objective,
        n_rows: int,
        validation_rows: Tensor | None,
        settings: TrainingSettings,
        generator: torch.Generator,
        report: TrainingReport,
    ) -> None:
        self.objective = objective
        self.report = report
        self.validation_rows = validation_rows
        self.settings = settings
        self.generator = generator
        self.optimizer = Optimizer(objective, settings)
        self.step = self.epoch_start = 0
        per_epoch = -(-n_rows // settings.batch_size)
        self.n_steps = min(settings.max_iter * per_epoch, settings.max_steps)
        self.n_epochs = -(-self.n_steps // per_epoch)
        self.n_rollbacks = 0
        # Steps over which weights are averaged; fewer at first, when there are no more.
        self.horizon = max(1.0, settings.averaging * self.n_steps)

    def epoch(self, rows: Tensor) -> float:
        """Take the gradient steps of one epoch and return their mean loss."""
        self.epoch_start = self.step
        batch_size = self.settings.batch_size
        order = torch.randperm(len(rows), generator=self.generator).to(rows.device)
        shuffled = rows[order]
        total = torch.zeros((), device=rows.device)
        n_taken = 0
        for batch in shuffled.split(batch_size):
            if self.step == self.n_steps:
                break
            # A few left-over rows have no covariance to speak of: fill them up from the others.
            if 2 * len(batch) < batch_size:
                batch = shuffled[-batch_size:]
            progress = self.step / self.n_steps
            total += self.objective.add_gradient(batch, progress)
            self.report.n_skipped += not self.optimizer.step(progress)
            self.report.n_steps += 1
            if self.settings.averaging:
                self.optimizer.average(1 / min(self.optimizer.n_steps, self.horizon))
            self.step += 1
            n_taken += 1
        return float(total) / n_taken

    def judge(self, rows: Tensor, mean_loss: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Take the closed-form steps and return the scores whose mean is maximised, and the state.

        Scores are the log-likelihoods of the validation rows, or minus the mean loss of the epoch;
        NaN if the fit is lost. Where weights are averaged, validation and state are those of the
        averages.
        """
        if not (math.isfinite(mean_loss) and self.optimizer.is_finite()):
            return torch.tensor([math.nan]), {}
        if self.settings.averaging:
            self.optimizer.swap()
        self.objective.refresh(rows, roughly=True)
        scores = torch.tensor([-mean_loss])
        if self.validation_rows is not None:
            self.objective.calibrate(self.validation_rows)
            scores = self.objective.log_likelihood(self.validation_rows)
        state = _snapshot(self.objective)
        if self.settings.averaging:
            self.optimizer.swap()
        return scores, state

    def roll_back(self, good: dict[str, Tensor]) -> None:
        """Return to the last good weights with half the learning rate."""
        learning_rate = self.optimizer.learning_rate
        self.n_rollbacks += 1
        if self.n_rollbacks > _MAX_ROLLBACKS:
            raise FloatingPointError(
                f"The training loss became non-finite {self.n_rollbacks} times, the last time "
                f"after {self.step} steps at a learning rate of {learning_rate:g}. Use a smaller "
                "learning_rate_init or a larger noise_floor."
            )
        self.objective.load_state_dict(good)
        self.objective.forget_batches()
        self.step = self.epoch_start
        self.optimizer = Optimizer(self.objective, self.settings)
        self.optimizer.learning_rate = learning_rate / 2


def train(
    objective: Objective,
    draw_rows: Callable[[], Tensor],
    validation_rows: Tensor | None,
    settings: TrainingSettings,
    generator: torch.Generator,
    log: EpochLog | None = None,
) -> TrainingReport:
    """Minimise an objective and leave it at its best weights.

    Rows are permuted once per epoch and sliced. With validation rows the weights of the epoch with
    the best validation score are kept, without them those of the last epoch; or the closed-form
    start if they are not better, on the validation or else the training rows, by one standard error
    of the paired difference. A non-finite loss takes the fit back to the last good epoch with half
    the learning rate.

    Parameters
    ----------
    objective : Objective
        Loss and closed-form steps; changed in place. If nothing in it requires a gradient, only
        the closed-form step is taken.
    draw_rows : callable
        Returns the standardised training rows (n, D) of an epoch.
    validation_rows : Tensor of shape (n_validation, D) or None
        Rows that choose the best weights.
    settings : TrainingSettings
        How long and how fast.
    generator : torch.Generator
        Source of the permutations.
    log : callable or None, default=None
        Is told of every epoch.

    Raises
    ------
    FloatingPointError
        If the loss became non-finite four times, or no gradient was finite.
    TrainingInterrupted
        If a KeyboardInterrupt came after the first epoch; the objective is at its best weights.
    """
    report = TrainingReport()
    rows = draw_rows()
    objective.refresh(rows)
    judged = rows if validation_rows is None else validation_rows
    if validation_rows is not None:
        objective.calibrate(validation_rows)
    start_scores = best_scores = objective.log_likelihood(judged)
    if validation_rows is not None:
        report.best_score = float(start_scores.mean())
    if not any(p.requires_grad for p in objective.parameters()):
        report.stopped_early = True
        report.loss_curve = [-float(objective.log_likelihood(rows).mean())]
        return report

    start = best = last = good = _snapshot(objective)
    run = _Run(objective, len(rows), validation_rows, settings, generator, report)
    reference = report.best_score if validation_rows is not None else None
    n_stalled = 0
    is_interrupted = False
    try:
        while run.step < run.n_steps:
            mean_loss = run.epoch(rows)
            scores, state = run.judge(rows, mean_loss)
            score = float(scores.mean())
            if not math.isfinite(score):
                run.roll_back(good)
                continue
            last = state
            good = _snapshot(objective) if settings.averaging else last
            if validation_rows is not None:
                report.validation_scores.append(score)
                if score > report.best_score:
                    report.best_score, best, best_scores = score, last, scores
            report.loss_curve.append(mean_loss)
            if log is not None:
                log(report.n_iter, run.n_epochs, score)
            # The first loss has none before it to be compared with.
            report.last_improvement = 0.0 if reference is None else score - reference
            if reference is None or report.last_improvement > settings.tol:
                reference, n_stalled = score, 0
            elif run.step >= settings.min_progress * run.n_steps:
                n_stalled += 1
                if n_stalled >= settings.n_iter_no_change:
                    report.stopped_early = True
                    break
            rows = draw_rows()
    except KeyboardInterrupt:
        if not report.n_iter:
            raise
        # What was done until now is kept, as after an early stop.
        is_interrupted = True
        del report.validation_scores[report.n_iter :]
    needs_gradients = not is_interrupted

    def conclude() -> None:
        if needs_gradients:
            report.check_gradients()
        kept, scores = best, best_scores
        if validation_rows is None:
            kept = last
            objective.load_state_dict(kept)
            scores = objective.log_likelihood(judged)
        gain = scores - start_scores
        if not gain.mean() > gain.std() / math.sqrt(len(gain)):
            kept, report.best_score = start, float(start_scores.mean())
        objective.load_state_dict(kept)
        run.optimizer.release(objective)

    if finish(conclude, is_interrupted):
        raise TrainingInterrupted({0: report})
    return report
