"""The fit of every estimator: parameters that all have, and the steps that a method fills in."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from ._checks import list_names
from ._config import FlowConfig
from ._dimension import read_distinct_rows
from ._few_rows import FewRows, required_errors
from ._folds import scores_suffice
from ._plan import PlannedFlow
from ._progress import epoch_log, warn_of_training
from ._split import Split
from ._table import ENOUGH_ROWS, drawn_anew
from .backend.background import Background
from .backend.device import (
    make_generator,
    single_threaded,
    standard_context,
    to_host,
)
from .backend.flow import FlowModel, chunks
from .backend.objective import Objective
from .backend.rows import TrainingRows
from .backend.standardize import Standardizer
from .backend.training import train_all
from .backend.training_job import TrainingInterrupted, TrainingJob, TrainingSettings, finish

__all__ = ["BaseManifoldFlow"]

# Standardised values of training rows that are kept in the memory of the CPU and of another device,
# and rows that weights may make of few rows in an epoch.
_MAX_KEPT_VALUES, _MAX_KEPT_VALUES_ELSEWHERE, _MAX_DRAWN = 2**23, 2**28, 2**20
# Share of the training before which it does not stop early: the first long steps may make a fit
# worse for a while.
_MIN_PROGRESS = 0.25
# Share of `max_time` after which the training ends: reading the fitted model takes time too.
_TRAINING_TIME = 0.9


class _FitInterrupted(KeyboardInterrupt):
    """Ctrl-C in a fit that leaves a fitted model."""


class FittedRows(NamedTuple):
    """Rows that tell how the fitted model lies in the data: all of them, or some of many.

    Attributes
    ----------
    rows : Tensor of shape (n, D)
        Standardised rows in the order of the table, in the dtype and on the device of the flow.
    split : Split
        Which of them were set aside.
    sample : Tensor of shape (m, D)
        `rows`, or what stands for few of them where moments are taken.
    """

    rows: torch.Tensor
    split: Split
    sample: torch.Tensor


class _Restart(NamedTuple):
    """One start of a fit, and what turns raw rows into standardised ones."""

    seed: int
    job: TrainingJob
    standardizer: Standardizer
    prepare: Callable[[torch.Tensor], torch.Tensor]
    # What else a method knows of its training.
    result: Any = None
    # Whether it has been fitted to the rows set aside too.
    is_refitted: bool = False


class BaseManifoldFlow(PlannedFlow, ABC):
    """Base of the estimators: a flow fitted to rows near a low-dimensional manifold.

    A subclass names its parameters and its `_config_type`, and implements `_choices`, perhaps
    `_read_rows`, `_build_flow`, `_make_objective` and `_finish`. The methods of the fitted model,
    but for those of a method alone, are written in `FittedFlow`.
    """

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "noise_start": [Interval(Real, 0, None, closed="neither")],
        "noise_floor": [Interval(Real, 0, None, closed="neither")],
        "bounded": [tuple, list, dict, None],
        "dequantize": ["boolean"],
        "discrete_features": ["array-like", StrOptions({"auto", "all"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # Whether columns that end where many rows are get a map of their own, since no layer has one.
    _maps_hard_ends = False

    # Whether the fitted model is a start that has been fitted to the rows set aside too.
    _is_refitted = False

    # Where the HTML representation of scikit-learn finds the documentation of a class.
    _doc_link_module = "skmanifoldflow"
    _doc_link_template = (
        "https://skmanifoldflow.readthedocs.io/en/stable/generated/"
        "{estimator_module}.{estimator_name}.html"
    )

    # Gradient steps after which a fit ends.
    _max_steps = 20_000

    # ------------------------------------------------------------------ what a method provides

    @staticmethod
    @abstractmethod
    def _build_flow(config: FlowConfig, generator: torch.Generator) -> FlowModel:
        """Return an unfitted flow."""

    @abstractmethod
    def _make_objective(
        self,
        flow: FlowModel,
        rows: torch.Tensor,
        n_rows: int,
        generator: torch.Generator,
        is_warm: bool,
    ) -> Objective:
        """Return the objective of a fit, given standardised training rows (float64, on the CPU).

        They are in random order, and of more than `ENOUGH_ROWS` they are some; `n_rows` is the
        number of all. A flow that is warm has the weights of an earlier fit.
        """

    @abstractmethod
    def _finish(self, restart: _Restart, fitted: FittedRows) -> None:
        """Set the fitted attributes of the method.

        `n_components_` and `_noise_variance` are among them; `intrinsic_dimension_` is known.
        """

    # ------------------------------------------------------------------ fit

    @standard_context()
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, *, groups=None, X_val=None):
        """Fit the model to data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. float32 rows give a model that computes in float32, all others one that
            computes in float64; the weights are trained in float32.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            How many rows each row counts for: 2 is the row twice, 0 leaves it out. All that goes by
            the number of rows goes by the sum of the weights, so weights that sum to 1 have to be
            multiplied by the number of rows. In each epoch a row is trained on as often as its
            weight, rounded up or down at random. None counts each row once.
        groups : array-like of shape (n_samples,), default=None
            Labels of groups of rows that depend on each other, such as the readings of one place or
            the rows of one patient. The rows of a group are set aside, or trained on, together. By
            default copies of rows, exact or near ones, are found and kept together.
        X_val : array-like of shape (n_validation_samples, n_features), default=None
            Rows to validate on in place of those that are set aside from X: all of X is then
            trained on.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the rows are not finite, fewer than two, or if parameters contradict each other; if
            weights are negative, not finite, not one for each row, or sum to less than two; if
            rows are to be set aside and no group has two rows at least and half of them at most; if
            `groups` is given with `X_val`, or `X_val` with ``early_stopping=False``.
        FloatingPointError
            If the training loss kept becoming non-finite at ever smaller learning rates.
        KeyboardInterrupt
            If Ctrl-C was pressed. After the first epoch the model is fitted all the same, with the
            best weights until then, as after an early stop: of several starts the best one, of
            several stages those that were finished. Before that, and at a second Ctrl-C, the
            estimator is as it was before the call, which holds for every other exception too.

        Warns
        -----
        ConvergenceWarning
            If the score was still rising by more than `tol` and by more than 0.01 nats when
            `max_iter` or `max_time` was reached, if a tenth of the gradients were not finite, or if
            the fit was interrupted after its first epoch.
        UserWarning
            If the pixels of images hold many ties, as integers do, `dequantize` is False and
            `discrete_features` is "auto". If rows are set aside, there are no weights, and a
            twentieth of the rows are copies of others, exactly or nearly, which are set aside, or
            trained on, together; or if rows look like readings of the same places. If weights sum
            to so little that nothing
            is trained.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        NoisyInjectiveFlow(max_iter=2, n_components=1, n_layers=2, random_state=0)
        """
        return self._fit_or_restore(X, sample_weight, groups, X_val)

    def _fit_or_restore(self, *rows):
        """Fit as `_fit` does, or leave the estimator as it was."""
        before = dict(vars(self))
        try:
            return self._fit(*rows)
        except _FitInterrupted:
            raise
        except BaseException:
            # A failed fit leaves the estimator, and the model of an earlier fit, as it was.
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _fit(self, *rows):
        plan = self._plan(*rows)
        with single_threaded(plan.work):
            restarts, reports, is_interrupted = self._train_restarts(plan)
            report, is_interrupted = self._finish_fit(plan, restarts, reports, is_interrupted)
        try:
            name, reached = type(self).__name__, self._reached(plan, report)
            warn_of_training(
                name, report, reached if is_interrupted else None, self.tol, self.max_iter
            )
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            if is_interrupted:
                raise _FitInterrupted
        return self

    def _finish_fit(self, plan, restarts, reports, is_interrupted):
        """Make the best start the fitted model; return its report, and whether Ctrl-C has come.

        Where it comes meanwhile, all is done again from the trained weights.
        """
        trained: dict[str, Any] = {}

        def conclude():
            best = max(range(len(restarts)), key=lambda i: self._rank(restarts[i], reports[i]))
            flow, generator = restarts[best].job.objective.flow, restarts[best].job.generator
            if trained:
                # As it was trained: what is orthogonal is made so again in each dtype.
                flow.move_to(plan.device, torch.float32).load_state_dict(trained["weights"])
                generator.set_state(trained["generator"])
            else:
                weights = {name: t.clone() for name, t in flow.state_dict().items()}
                trained.update(best=best, weights=weights, generator=generator.get_state())
            restart = self._refitted_start(plan, restarts[best], reports[best])
            self._adopt(plan, restart)
            read = self._read_density if scores_suffice() else self._read
            read(plan, restart)
            self._learn_background(plan, restarts[best])
            self.n_iter_ = reports[best].n_iter
            self.kept_start_ = reports[best].is_start
            self.loss_curve_ = reports[best].loss_curve
            self.validation_scores_ = reports[best].validation_scores

        try:
            is_interrupted = finish(conclude, is_interrupted)
            return reports[trained["best"]], is_interrupted
        except Exception as error:
            if is_interrupted:
                # A search would go on after another exception.
                raise KeyboardInterrupt from error
            raise

    def _read(self, plan, restart):
        """Set the attributes that are read from the rows and the trained flow."""
        self.dimension_report_ = read_distinct_rows(plan.distinct)
        self.intrinsic_dimension_ = self.dimension_report_.dimension
        self._finish(restart, self._fitted_rows(plan, restart))

    def _read_density(self, plan, restart):
        """Set those of them that log-densities need; a method may know that these are few."""
        self._read(plan, restart)

    def _learn_background(self, plan, restart):
        """Learn the background of the flow of a start that was trained."""
        job, background = restart.job, Background(plan.config.n_features)
        background.fit(to_host(job.rows.sample), self.noise_floor)
        rows, flow, parts = job.validation_rows, job.objective.flow, []
        if rows is not None:
            with torch.no_grad():
                for chunk in chunks(*rows.shape):
                    parts.append(to_host(flow.log_prob(rows[chunk].to(**flow.tensor_options))))
            background.learn_weight(to_host(rows), torch.cat(parts), plan.table.n_counted)
        else:
            background.set_weight(0.0, plan.table.n_counted)
        self._background, self.tail_weight_ = background, float(background.weight)

    def _reached(self, plan, report):
        """Return as text how far an interrupted fit had come."""
        return f"epoch {report.n_iter} of {self.max_iter}"

    def _train_restarts(self, plan):
        """Prepare and train all starts; return them, their reports, and whether of Ctrl-C."""
        restarts: list[_Restart] = []
        for seed in plan.seeds:
            # Scores of several starts can be compared only on the same rows in the same units.
            restarts.append(self._prepare_restart(plan, seed, restarts[0] if restarts else None))
        n_restarts = len(restarts)

        def log(members):
            part = f"{len(members)} starts at once"
            if len(members) == 1:
                part = "" if n_restarts == 1 else f"start {members[0] + 1} of {n_restarts}"
            n_later = n_restarts - 1 - members[-1] if len(members) == 1 else 0
            return self._log(plan, part, n_later * self.max_iter)

        try:
            return restarts, train_all([restart.job for restart in restarts], log), False
        except TrainingInterrupted as interrupt:
            reports = interrupt.reports
            return [restarts[i] for i in reports], list(reports.values()), True

    def _rank(self, restart, report):
        """Return by what the best start is chosen: its validation score, or minus its loss."""
        return -report.loss_curve[-1] if restart.job.validation_rows is None else report.best_score

    def _log(self, plan, part="", n_later=0):
        """Return what is told of the epochs of a training, or None."""
        name, deadline = type(self).__name__, self._deadline(plan)
        return epoch_log(name, self.verbose, plan.began, part, n_later, deadline)

    def _adopt(self, plan, restart):
        """Take the flow of a trained start as that of the estimator."""
        self._config = plan.config
        self._is_refitted = restart.is_refitted
        self._standardizer = restart.standardizer
        flow = restart.job.objective.flow
        broken = [name for name, t in flow.state_dict().items() if not bool(t.isfinite().all())]
        if broken:
            raise FloatingPointError(
                f"The fit ended with weights that are not finite: {list_names(broken)}. Use a "
                "smaller learning_rate_init or a larger noise_floor."
            )
        self._flow = flow.move_to(plan.device, plan.dtype).requires_grad_(False)
        self.device_ = str(plan.device)

    def _set_spectral_dimension(self, dimension):
        """Keep in the report what the spectrum of the model alone says."""
        report = replace(self.dimension_report_, spectral_dimension=int(dimension))
        self.dimension_report_ = report

    def _image_shape(self):
        """Return `image_shape` as a tuple of int, or None."""
        return self.image_shape and tuple(int(k) for k in self.image_shape)

    def _step_limit(self, batch_size):
        """Return the gradient steps after which a fit ends."""
        return self._max_steps

    def _weight_decay(self, n_samples):
        """Return the weight decay of the networks."""
        return self.weight_decay

    def _prepare_restart(self, plan, seed, first) -> _Restart:
        """Prepare one random start of a fit, or one from the weights of a previous flow.

        Standardisation is that of the first start, where there was one.
        """
        table, split, spread = plan.table, plan.split, plan.spread
        config, device = plan.config, plan.device
        generator = make_generator(seed)

        def prepare(rows):
            return standardizer.forward_and_log_det(spread.rows(rows, generator))[0]

        standardizer = first and first.standardizer
        if standardizer is None:
            blocks = ((spread.rows(rows, generator), w) for rows, w in table.blocks())
            pooling = plan.shrinkage.pooling if plan.shrinkage else 0.0
            standardizer = self._new_standardizer(config, spread.maps, spread.signed_order)
            standardizer.fit_blocks(blocks, pooling)
        flow = self._build_flow(config, generator)
        if plan.previous is not None:
            # Part of a new flow is float64, which cannot be filled from MPS. One that was stored by
            # an earlier version may have more.
            known = plan.previous.state_dict()
            flow.load_state_dict({name: known[name].cpu() for name in flow.state_dict()})
        flow.move_to(device, torch.float32)
        validation = plan.validation
        if validation is not None:
            validation = prepare(validation).to(device, torch.float32)
        elif self.early_stopping == "auto":
            flow.requires_grad_(False)
        sample = prepare(table.take(table.repeated(split.training)))
        few = plan.shrinkage and FewRows(plan.shrinkage, sample)
        if few:
            sample = few.sample(sample, generator)

            def with_noise(rows):
                return few.draw(prepare(rows), generator)

        rows = self._training_rows(plan, with_noise if few else prepare, sample)
        is_warm = plan.previous is not None
        objective = self._make_objective(flow, sample, rows.n_rows, generator, is_warm)
        # While the noise falls the score of an epoch says little about the next one.
        anneals = objective.noise_start > objective.noise_floor
        errors = required_errors(len(validation)) if few and validation is not None else 1.0
        settings = TrainingSettings(
            max_iter=self.max_iter,
            max_steps=self._step_limit(plan.batch_size),
            batch_size=min(plan.batch_size, rows.n_rows),
            learning_rate=self.learning_rate_init,
            weight_decay=self._weight_decay(table.n_counted),
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
            min_progress=objective.annealing if anneals else _MIN_PROGRESS,
            averaging=objective.averaging,
            required_errors=errors,
            deadline=self._deadline(plan),
        )
        job = TrainingJob(objective, rows, validation, settings, generator)
        return _Restart(seed, job, standardizer, prepare)

    def _deadline(self, plan):
        """Return the time of `time.monotonic` at which the training ends, or None."""
        return None if self.max_time is None else plan.began + _TRAINING_TIME * self.max_time

    def _training_rows(self, plan, prepare, sample) -> TrainingRows:
        """Return the rows that are trained on, standardised at once if they are not too many."""
        table, training, device = plan.table, plan.split.training, plan.device

        def take(index):
            return prepare(table.take(training[index])).to(device, torch.float32)

        n_rows, draw = len(training), None
        if table.weights is not None:
            weights = table.weights[training]
            n_rows = min(max(_MAX_DRAWN, n_rows), max(1, round(float(weights.sum()))))
            draw = partial(drawn_anew, weights, n_rows)
        few = sample.to(device, torch.float32)
        most = _MAX_KEPT_VALUES if device.type == "cpu" else _MAX_KEPT_VALUES_ELSEWHERE
        is_kept = len(training) * table.X.shape[1] <= most
        if plan.spread.is_random or plan.shrinkage or not is_kept:
            return TrainingRows(take, n_rows, few, draw)
        if draw is None and n_rows == len(few):
            return TrainingRows.of(few)
        kept = torch.cat([take(part) for part in torch.arange(len(training)).split(ENOUGH_ROWS)])
        return TrainingRows(kept.__getitem__, n_rows, few, draw, device)

    def _refitted_start(self, plan, restart, report) -> _Restart:
        """Return a start, fitted to the rows set aside too if no epoch has bettered it."""
        table, split = plan.table, plan.split
        is_final = not report.is_start or plan.previous is not None
        if is_final or not split.n_validation or len(table) > ENOUGH_ROWS:
            return restart
        # The draws of the start, so that its parts are the same ones.
        generator = make_generator(restart.seed)
        index = torch.cat([split.training, split.validation])
        rows = self._standing_for(plan, restart, restart.prepare(table.take(table.repeated(index))))
        flow = self._build_flow(plan.config, generator).move_to(plan.device, torch.float32)
        objective = self._make_objective(flow, rows, len(index), generator, False)
        objective.update_closed_form(rows.to(plan.device, torch.float32))
        objective.take_validation_weights(restart.job.objective)
        job = restart.job._replace(objective=objective)
        return restart._replace(job=job, is_refitted=True)

    def _fitted_rows(self, plan, restart) -> FittedRows:
        """Return all rows as they were trained on, or some of many, validation rows among them."""
        table, split = plan.table, plan.split
        index = torch.arange(len(table))
        if table.weights is not None or len(table) > ENOUGH_ROWS:
            share = split.n_validation / len(table)
            n_validation = round(share * ENOUGH_ROWS)
            index, split = split.of_some(
                table.repeated(split.validation, n_validation) if n_validation else index[:0],
                table.repeated(split.training, ENOUGH_ROWS - n_validation),
            )
        rows = restart.prepare(table.take(index))
        sample = self._standing_for(plan, restart, rows).to(plan.device, plan.dtype)
        return FittedRows(rows.to(plan.device, plan.dtype), split, sample)

    def _standing_for(self, plan, restart, rows):
        """Return rows (n, D), or what stands for few of them."""
        if plan.shrinkage is None:
            return rows
        return FewRows(plan.shrinkage, rows).sample(rows, make_generator(restart.seed))
