"""Training of a flow stage after stage, each on the manifold coordinates of the one before."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch

from ..backend.training import train_all
from ..backend.training_job import (
    EpochLog,
    SecondInterrupt,
    TrainingInterrupted,
    TrainingJob,
    TrainingReport,
    TrainingSettings,
    finish,
)
from .objective import JointLikelihood

__all__ = ["TrainedStages", "train_stages"]


@dataclass(frozen=True)
class TrainedStages:
    """Result of the training of all stages of a flow.

    Scores and errors are those of the evaluation rows: the validation rows, or the training rows if
    there are no validation rows.

    Attributes
    ----------
    report : TrainingReport
        Report of the first stage, which also counts the gradient steps of the further stages.
    curves : tuple of pairs of list of float
        Losses and validation scores of the epochs of each finished stage.
    scores : tuple of float
        Mean log-likelihood after each finished stage, in nats per row.
    reconstruction_error : float
        Mean squared error per entry of the rows that the first stage reconstructs.
    pca_error : float
        The same error of PCA with as many components.
    is_interrupted : bool
        Whether Ctrl-C ended the first stage early, or left out a further stage.
    row_scores : Tensor of shape (n,)
        What the first stage scores the evaluation rows by.
    guide_score : float
        R^2 of the guide's coordinates of rows left out, nan without a guide.
    """

    report: TrainingReport
    curves: tuple[tuple[list[float], list[float]], ...]
    scores: tuple[float, ...]
    reconstruction_error: float
    pca_error: float
    is_interrupted: bool
    row_scores: torch.Tensor
    guide_score: float


def train_stages(job: TrainingJob, log: Callable[[str, int], EpochLog | None]) -> TrainedStages:
    """Train the stages of a flow one after the other, with the weights of earlier stages frozen.

    The flow keeps the stages that were finished before a Ctrl-C.

    Parameters
    ----------
    job : TrainingJob
        Training of the first stage, whose objective is a `JointLikelihood`. The others take half as
        many epochs and gradient steps.
    log : callable
        Takes the name of a stage and the number of epochs of the stages after it; returns the
        function that reports its epochs, or None.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C is pressed before the end of the first epoch, or twice.
    """
    objective, settings = cast(JointLikelihood, job.objective), job.settings
    latent = objective.latent
    further = [(outer.refinement, outer.inner) for outer in latent.stages[:-1]]
    n_stages, n_epochs = 1 + len(further), -(-settings.max_iter // 2)
    latent.set_stage(None, None)
    is_trained = any(p.requires_grad for p in objective.parameters())
    scores: list[float] = []
    errors: list[float] = []
    first: list[torch.Tensor] = []

    def train(job: TrainingJob, stage: int) -> TrainingReport:
        name = f"stage {stage} of {n_stages}" if n_stages > 1 else ""
        stage_log = log(name, (n_stages - stage) * n_epochs)
        return train_all([job], lambda members: stage_log)[0]

    def score() -> float:
        if is_trained and job.validation_rows is not None:
            objective.fit_deviations(job.validation_rows)
        return objective.mean_log_prob(evaluation_rows)

    def evaluate_first() -> None:
        scores[:] = [score()]
        errors[:] = [
            objective.mean_squared_residual(evaluation_rows),
            objective.mean_squared_pca_residual(evaluation_rows),
        ]
        first[:] = [objective.log_likelihood(evaluation_rows)]

    is_interrupted = False
    try:
        # A further stage takes half as long as the first one.
        report = train(job._replace(settings=_timed(settings, len(further) / 2)), 1)
    except TrainingInterrupted as interrupt:
        report, is_interrupted = interrupt.reports[0], True
    curves = [(report.loss_curve, report.validation_scores)]
    evaluation_rows = job.rows.sample if job.validation_rows is None else job.validation_rows
    is_interrupted = finish(evaluate_first, is_interrupted)
    settings = replace(settings, max_iter=n_epochs, max_steps=settings.max_steps // 2)
    for stage, (refinement, inner) in enumerate(further, start=2):
        if is_interrupted:
            break
        assert refinement is not None
        assert inner is not None
        before = {name: t.clone() for name, t in objective.state_dict().items()}
        try:
            objective.requires_grad_(False)
            inner.set_stage(None, None)
            latent.stages[-1].set_stage(refinement, inner)
            refinement.requires_grad_(is_trained)
            inner.requires_grad_(is_trained)
            of_stage = _timed(settings, n_stages - stage)
            stage_report = train(job._replace(settings=of_stage), stage)
            scores.append(score())
            curves.append((stage_report.loss_curve, stage_report.validation_scores))
            report.n_steps += stage_report.n_steps
            report.n_skipped += stage_report.n_skipped
        except SecondInterrupt:
            raise
        except KeyboardInterrupt:
            # The stages before this one are finished: they are kept as they were.
            latent.stages[stage - 2].set_stage(None, None)
            objective.load_state_dict(before)
            del scores[stage - 1 :], curves[stage - 1 :]
            is_interrupted = True
    error, pca_error = errors
    # The first stage has not changed since.
    guide_score = (
        math.nan if objective.guide is None else objective.guide.score(objective.flow.bijection)
    )
    return TrainedStages(
        report,
        tuple(curves),
        tuple(scores),
        error,
        pca_error,
        is_interrupted,
        first[0],
        guide_score,
    )


def _timed(settings: TrainingSettings, n_later: float) -> TrainingSettings:
    """Return settings with a share of the time, where trainings as long as `n_later` follow."""
    if settings.deadline is None:
        return settings
    now = time.monotonic()
    return replace(settings, deadline=now + (settings.deadline - now) / (1 + n_later))
