"""The fit of every estimator: parameters that all have, and the steps that a method fills in."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight

from ._checks import (
    check_parameters,
    check_rows,
    column_bounds,
    is_pair,
    list_names,
    warn,
)
from ._columns import Spread, describe, spread_of
from ._config import FlowConfig
from ._dimension import read_distinct_rows
from ._duplicates import distinct_rows, find_duplicates, row_ranks
from ._few_rows import FewRows, Shrinkage, are_few, required_errors, shrinkage_of
from ._folds import scores_suffice
from ._inference import FittedFlow
from ._progress import epoch_log, warn_of_training
from ._split import Split, split_groups, split_rows
from ._table import ENOUGH_ROWS, Table, counted_once, drawn, drawn_anew, rows_to_tensor
from .backend.background import Background
from .backend.device import (
    make_generator,
    resolve_device,
    single_threaded,
    standard_context,
    statistics_dtype,
    to_host,
)
from .backend.flow import FlowModel, chunks
from .backend.objective import Objective
from .backend.rows import TrainingRows
from .backend.standardize import Standardizer
from .backend.training import train_all
from .backend.training_job import TrainingInterrupted, TrainingJob, TrainingSettings, finish

__all__ = ["BaseManifoldFlow"]

# With fewer rows there is nothing to validate on, and a network would only learn them by heart.
_MIN_ROWS_VALIDATED = 40
_MIN_VALIDATION_ROWS = 10
# Standardised values of training rows that are kept in the memory of the CPU and of another device,
# and rows that weights may make of few rows in an epoch.
_MAX_KEPT_VALUES, _MAX_KEPT_VALUES_ELSEWHERE, _MAX_DRAWN = 2**23, 2**28, 2**20
# Share of the rows that are copies from which on somebody has to be told.
_SHARE_TOLD = 0.05
# Dimensions, in those of the columns, from which on rows lie on no manifold to speak of.
_SHARE_FILLED = 0.7
# Share of the training before which it does not stop early: the first long steps may make a fit
# worse for a while.
_MIN_PROGRESS = 0.25
# Share of `max_time` after which the training ends: reading the fitted model takes time too.
_TRAINING_TIME = 0.9


class _FitInterrupted(KeyboardInterrupt):
    """Ctrl-C in a fit that leaves a fitted model."""


class _Plan(NamedTuple):
    """What is known before the first start of a fit."""

    table: Table
    split: Split
    # Raw rows that are validated on.
    validation: torch.Tensor | None
    # What is done with the values of its columns.
    spread: Spread
    # How much the covariance of few rows is shrunk, None for that of many.
    shrinkage: Shrinkage | None
    config: FlowConfig
    previous: FlowModel | None
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    seeds: list[int]
    # Rows that are copies of no other, which the dimension is read from.
    distinct: np.ndarray
    # Multiply-adds of the largest product of a step.
    work: float
    # `time.monotonic` when the fit began.
    began: float
    # Coordinates (n, d) that were given for the rows of the table.
    guide_coordinates: np.ndarray | None = None


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


def _in_own_order(X, groups, weights, index):
    """Return rows, groups, weights and indices in an order that depends on the rows alone."""
    if len(X) > ENOUGH_ROWS:
        # They may lie on a disk.
        return X, groups, weights, index
    # Equal rows may differ in their weights and groups.
    keys = [row_ranks(X)]
    if groups is not None:
        keys.insert(0, np.unique(groups, return_inverse=True)[1])
    if weights is not None:
        keys.insert(0, weights.numpy())
    order = np.lexsort(keys)
    groups = None if groups is None else groups[order]
    weights = None if weights is None else weights[torch.from_numpy(order)]
    return X[order], groups, weights, index[order]


class BaseManifoldFlow(FittedFlow, ABC):
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

    @abstractmethod
    def _check_method_parameters(self, n_features: int) -> None:
        """Raise ValueError where parameters contradict each other or the data."""

    @abstractmethod
    def _choices(self, n_features: int) -> FlowConfig:
        """Return what the flow is built from, with None for what is read from the rows."""

    def _read_rows(
        self,
        choices: FlowConfig,
        n_rows: int,
        rows: Callable[[], np.ndarray],
        shrinkage: Shrinkage | None,
    ) -> FlowConfig:
        """Return the choices with what is read from training rows, validation rows left out.

        `rows` returns them, spread and standardised; they are `n_rows`. `shrinkage` is that of
        their covariance, where they are few.
        """
        return choices

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
            self._background = self._learn_background(plan, restarts[best].job)
            self.tail_weight_ = float(self._background.weight)
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

    def _learn_background(self, plan, job) -> Background:
        """Return the background of a flow, whose weight is learned from the rows set aside."""
        background = Background(plan.config.n_features)
        background.fit(to_host(job.rows.sample), self.noise_floor)
        rows, flow, parts = job.validation_rows, job.objective.flow, []
        if rows is not None:
            with torch.no_grad():
                for chunk in chunks(*rows.shape):
                    parts.append(to_host(flow.log_prob(rows[chunk].to(**flow.tensor_options))))
            background.learn_weight(to_host(rows), torch.cat(parts), plan.table.n_counted)
        else:
            background.set_weight(0.0, plan.table.n_counted)
        return background

    def _reached(self, plan, report):
        """Return as text how far an interrupted fit had come."""
        return f"epoch {report.n_iter} of {self.max_iter}"

    def _plan(
        self, X, sample_weight=None, groups=None, X_val=None, guide_coordinates=None
    ) -> _Plan:
        """Check rows and parameters, and settle what all starts of a fit have in common."""
        began = time.monotonic()
        X = check_rows(self, X, ensure_min_samples=2)
        n_features = X.shape[1]
        check_parameters(self, X)
        self._check_method_parameters(n_features)
        device = resolve_device(self.device)
        dtype = statistics_dtype(device) if X.dtype == np.float64 else torch.float32
        if groups is not None:
            groups = column_or_1d(groups)
            check_consistent_length(X, groups)
        X, groups, weights, index = _in_own_order(*self._counted(X, groups, sample_weight))
        table = Table(X, weights)
        n_rows = table.n_counted

        random_state = check_random_state(self.random_state)
        self._dtype = X.dtype
        choices = replace(self._choices(n_features), bounded=self._bounds(n_features))
        # A start that has been fitted to the rows set aside cannot be compared on them.
        is_warm = self.warm_start and hasattr(self, "_config") and not self._is_refitted
        previous = self._flow if is_warm and self._config.agrees_with(choices) else None
        n_restarts = 1 if previous else self.n_init
        order_seed, *seeds = random_state.randint(2**31, size=1 + n_restarts).tolist()
        order = torch.randperm(len(table), generator=make_generator(order_seed))
        self._check_validation(groups, X_val)
        split = self._split(table, order, groups, X_val, is_told=sample_weight is None)
        if X_val is not None:
            X_val = check_rows(self, X_val, reset=False, ensure_min_samples=2)
            check_parameters(self, X_val)
            validation = rows_to_tensor(X_val)
        else:
            held_out = split.distinct(split.validation)
            if len(held_out) and weights is not None:
                # As many rows as these are worth, for the standard errors of their scores.
                of_rows = split.weights_of(held_out, weights)
                n_worth = of_rows.sum().square() / of_rows.square().sum()
                held_out = held_out[drawn(of_rows, max(2, round(float(n_worth))))]
            validation = table.take(held_out) if len(held_out) else None
        is_image = choices.image_shape is not None
        # Equal values of rows that repeat are no ties.
        distinct, has_copies = X, split.groups is not None
        if has_copies and len(X) <= ENOUGH_ROWS:
            has_copies = False
            distinct = X[split.distinct(torch.arange(len(X))).numpy()]
        eps = float(np.finfo(X.dtype).eps)
        self.columns_ = describe(self, distinct, is_image, eps)

        def counted():
            return table.take(table.repeated(order)).numpy()

        only = distinct if groups is None and not has_copies else distinct_rows(X)

        def fills_space():
            return read_distinct_rows(only).dimension > _SHARE_FILLED * n_features

        spread = spread_of(self, distinct, counted, is_image, fills_space, eps)
        if X_val is not None and self.bounded is not None and spread.step.any():
            if bool((validation.amax(0) + spread.step > self.bounded[1]).any()):
                raise ValueError(
                    "Each value of a discrete column of X_val is spread over a step, so bounded="
                    f"{self.bounded} must reach to the largest value plus its step."
                )
        # Copies of rows know no more than one of them.
        read = split.distinct(split.training)
        read = counted_once(read, None if weights is None else split.weights_of(read, weights))

        def standardized(standardizer=None):
            raw = spread.rows(table.take(read), make_generator(0))
            standardizer = standardizer or self._new_standardizer(choices, spread.maps)
            return standardizer.fit(raw).forward_and_log_det(raw)[0].numpy()

        shrinkage = None
        if not is_image and are_few(len(read), n_features):
            standardizer = self._new_standardizer(choices, spread.maps)
            shrinkage = shrinkage_of(standardized(standardizer), standardizer.scale.numpy())
        if previous:
            config = self._config
        else:
            config = self._read_rows(choices, len(read), standardized, shrinkage)
        width = max(self._layer_sizes(), default=1)
        batch_size = self._batch_size(n_rows, n_features)
        work = batch_size * width * max(width, n_features)
        return _Plan(
            table=table,
            split=split,
            validation=validation,
            spread=spread,
            shrinkage=shrinkage,
            config=config,
            previous=previous,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            seeds=seeds,
            distinct=only,
            work=work,
            began=began,
            guide_coordinates=None if guide_coordinates is None else guide_coordinates[index],
        )

    def _bounds(self, n_features):
        """Return `bounded` as tuples of floats, which a configuration compares, or None."""
        bounds = column_bounds(self, n_features)
        return bounds and (bounds[0] if is_pair(self.bounded) else tuple(bounds))

    def _counted(self, X, groups, sample_weight):
        """Return the rows that count, their groups, weights, None where all are 1, and indices."""
        index = np.arange(len(X))
        if sample_weight is None:
            return X, groups, None, index
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        counts = weights > 0
        if not counts.all():
            # Rows that do not count are absent.
            X, weights, index = X[counts], weights[counts], index[counts]
            groups = None if groups is None else groups[counts]
        total = float(weights.sum())
        if len(X) < 2 or not 2 <= total < np.inf:
            raise ValueError(
                f"sample_weight counts rows, of which two are needed: {len(X)} weights are "
                f"positive, and they sum to {total:g}. Multiply weights that sum to 1 by the "
                "number of rows."
            )
        if total < _MIN_ROWS_VALIDATED <= len(X) and self.early_stopping == "auto":
            warn(
                f"sample_weight counts rows, and sums to {total:g} for {len(X)} of them: fewer "
                f"than {_MIN_ROWS_VALIDATED} rows train no network. Multiply weights that sum to 1 "
                "by the number of rows."
            )
        if total <= ENOUGH_ROWS and np.array_equal(weights, np.rint(weights)):
            # Whole numbers are copies.
            repeated = np.repeat(np.arange(len(X)), weights.astype(np.intp))
            X, weights, index = X[repeated], np.ones(len(repeated)), index[repeated]
            groups = None if groups is None else groups[repeated]
        return X, groups, None if (weights == 1).all() else torch.tensor(weights), index

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

    def _layer_sizes(self):
        """Return `hidden_layer_sizes` as a tuple of int."""
        sizes = self.hidden_layer_sizes
        return (int(sizes),) if isinstance(sizes, Integral) else tuple(int(k) for k in sizes)

    def _batch_size(self, n_samples, n_features):
        """Return the rows of a gradient step."""
        if self.batch_size != "auto":
            return min(self.batch_size, n_samples)
        return min(n_samples, self._auto_batch_size(n_samples, n_features))

    def _auto_batch_size(self, n_samples, n_features):
        """Return the rows of a gradient step where they are not given.

        That is 64 to 128, and more where there are many columns, so that a batch has a covariance.
        """
        return max(64, min(max(128, min(512, 4 * n_features)), n_samples // 10))

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
            standardizer = self._new_standardizer(config, spread.maps).fit_blocks(blocks, pooling)
        flow = self._build_flow(config, generator)
        if plan.previous is not None:
            # Part of a new flow is float64, which cannot be filled from MPS.
            flow.load_state_dict({name: t.cpu() for name, t in plan.previous.state_dict().items()})
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

    def _check_validation(self, groups, X_val):
        """Raise ValueError where what a fit is validated on contradicts its parameters."""
        if X_val is not None and not self.early_stopping:
            raise ValueError("X_val is of use with early_stopping=True or 'auto' only.")
        if groups is not None and X_val is not None:
            raise ValueError("With X_val no rows of X are set aside: groups must be None.")

    def _split(self, table, order, groups, X_val, is_told) -> Split:
        """Set rows aside, and with each of them its copies or those of its group.

        Weights may be copies: whoever gives them need not be told.
        """
        X, most = table.X, table.n_counted
        weights = None if table.weights is None else table.weights.numpy()
        if groups is not None:
            groups = np.unique(groups, return_inverse=True)[1]
            return split_groups(order, groups, self._n_validation(min(most, len(X))), weights)
        duplicates = find_duplicates(X)
        groups = duplicates.groups
        n_distinct = min(most, int(groups.max()) + 1)
        n_validation = 0 if X_val is not None else self._n_validation(n_distinct)
        split = split_rows(order, groups, n_validation, weights)
        if is_told and split.n_validation and duplicates.n_repeated >= _SHARE_TOLD * len(X):
            nearly = "nearly " if duplicates.kind == "near" else ""
            warn(
                f"{duplicates.n_repeated} of {len(X)} rows are {nearly}equal to others: "
                f"{int(groups.max()) + 1} are distinct. A row and its copies are set aside, or "
                "trained on, together."
            )
        if is_told and split.n_validation and duplicates.kind == "suspected":
            warn(
                "Rows look like readings of the same places, which are not clearly apart: a row "
                "that is set aside may have others like it that are trained on. Give the place of "
                "each row as groups."
            )
        return split

    def _n_validation(self, n_samples):
        """Return the number of rows that are set aside; copies of rows do not count.

        They are no more than it takes to compare epochs.
        """
        validate = self.early_stopping
        if validate == "auto":
            validate = n_samples >= _MIN_ROWS_VALIDATED
        if not validate:
            return 0
        n_validation = max(_MIN_VALIDATION_ROWS, round(self.validation_fraction * n_samples))
        if n_samples - n_validation < 2:
            raise ValueError(
                f"early_stopping={self.early_stopping!r} with validation_fraction="
                f"{self.validation_fraction} sets {n_validation} rows aside and needs at least 2 "
                f"more to train on, got n_samples={n_samples}."
            )
        return min(n_validation, ENOUGH_ROWS)
