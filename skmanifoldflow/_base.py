"""The scikit-learn contract of every estimator."""

import copy
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from . import __version__
from ._dimension import spectral_dimension
from ._progress import epoch_log
from ._validation import DTYPES, as_array, check_rows, list_names, spacing, warn
from .backend.device import (
    head_dtype,
    make_generator,
    resolve_device,
    single_threaded,
    standard_context,
    to_host,
)
from .backend.flow import FlowModel, chunks
from .backend.geometry import jacobian_columns, log_volume_element, squared_singular_values
from .backend.objectives import Objective
from .backend.serialization import arrays_from_module, digest, load_arrays
from .backend.standardize import Standardizer
from .backend.training import (
    TrainingInterrupted,
    TrainingJob,
    TrainingSettings,
    finish,
    train_all,
)

__all__ = ["BaseManifoldFlow", "ManifoldDensityMixin", "rows_to_tensor"]

# With fewer rows there is nothing to validate on, and a network would only learn them by heart.
_MIN_ROWS_VALIDATED = 40
_MIN_VALIDATION_ROWS = 10
# Nats that a score may still rise by in the last epoch before anybody has to be told.
_WORTH_MORE_EPOCHS = 0.01
# Share of the gradient steps that may have been skipped before anybody has to be told.
_WORTH_A_WARNING = 0.1
# Columns that vary by less have variances near the smallest numbers there are.
_SMALLEST_RANGE = 1e-150
# Spacings of columns with ties that one warning names.
_MAX_STEPS_NAMED = 3
# Channels that images have: gray, colours, and colours with opacity.
_N_COLORS = (1, 3, 4)
# Layers of one column have no weights, and a model of a thousand such is not a damaged one.
_MAX_LAYERS_PER_ARRAY = 200
# What a stored model is recognised by.
_DIGESTED = ("_flow", "_standardizer", "_config", "n_components_")
# Standardised values beyond which a flow may overflow: there the density is none.
_FAR = 1e4


class _FitInterrupted(KeyboardInterrupt):
    """Ctrl-C in a fit that leaves a fitted model."""


def rows_to_tensor(rows):
    """Return a float64 CPU copy of rows, which may be read-only or have negative strides."""
    return torch.tensor(np.ascontiguousarray(rows), dtype=torch.float64)


class _Plan(NamedTuple):
    """What is known before the first start of a fit."""

    raw: torch.Tensor
    step: torch.Tensor
    config: dict
    previous: FlowModel | None
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    seeds: list[int]
    # Multiply-adds of the largest product of a step.
    work: float
    # `time.monotonic` when the fit began.
    began: float


class _Start(NamedTuple):
    """One start of a fit, and what turns raw rows into standardised ones."""

    job: TrainingJob
    standardizer: Standardizer
    prepare: Callable[[torch.Tensor], torch.Tensor]
    order: torch.Tensor


class BaseManifoldFlow(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator, ABC
):
    """Base of the estimators: a flow fitted to rows near a low-dimensional manifold.

    A subclass names its parameters and implements `_check_method_parameters`, `_build_flow`,
    `_make_objective` and `_finish`; everything that scikit-learn expects is written here.
    """

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "noise_start": [Interval(Real, 0, None, closed="neither")],
        "noise_floor": [Interval(Real, 0, None, closed="neither")],
        "bounded": [tuple, None],
        "dequantize": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
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

    # Where the HTML representation of scikit-learn finds the documentation of a class.
    _doc_link_module = "skmanifoldflow"
    _doc_link_template = (
        "https://skmanifoldflow.readthedocs.io/en/stable/generated/"
        "{estimator_module}.{estimator_name}.html"
    )

    # Gradient steps after which a fit ends: ten passes over a million rows in batches of 512.
    _max_steps = 20_000

    # ------------------------------------------------------------------ what a method provides

    @abstractmethod
    def _check_method_parameters(self, n_features: int) -> None:
        """Raise ValueError where parameters contradict each other or the data."""

    @abstractmethod
    def _flow_config(self, raw: torch.Tensor) -> dict:
        """Return what `_build_flow` needs, frozen at fit, given the raw training rows."""

    def _flow_configs(self, raw: torch.Tensor, random_state: np.random.RandomState) -> list[dict]:
        """Return the configurations that are fitted, the best of which is kept."""
        return [self._flow_config(raw)]

    @staticmethod
    @abstractmethod
    def _build_flow(config: dict, generator: torch.Generator) -> FlowModel:
        """Return an unfitted flow."""

    @abstractmethod
    def _make_objective(
        self, flow: FlowModel, rows: torch.Tensor, generator: torch.Generator, is_warm: bool
    ) -> Objective:
        """Return the objective of a fit on standardised training rows (float64, on the CPU).

        A flow that is warm has the weights of an earlier fit.
        """

    @abstractmethod
    def _finish(self, start: _Start, rows: torch.Tensor) -> None:
        """Set the fitted attributes of the method, given the start and all standardised rows."""

    # ------------------------------------------------------------------ fit

    @standard_context()
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Fit the model to data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. float32 rows give a model that computes in float32, all others one that
            computes in float64; the weights are trained in float32.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the rows are not finite, fewer than two, or if parameters contradict each other.
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
            `max_iter` was reached, if a tenth of the gradients were not finite, or if the fit was
            interrupted after its first epoch.
        UserWarning
            If columns hold many ties, as integers do, and `dequantize` is False.
        """
        before = dict(vars(self))
        try:
            return self._fit(X)
        except _FitInterrupted:
            raise
        except BaseException:
            # A failed fit leaves the estimator, and the model of an earlier fit, as it was.
            vars(self).clear()
            vars(self).update(before)
            raise

    def _fit(self, X):
        plan = self._plan(X)
        with single_threaded(plan.work):
            starts, reports, is_interrupted = self._train_starts(plan)
            report, is_interrupted = self._finish_fit(plan, starts, reports, is_interrupted)
        try:
            self._warn_of(plan, report, is_interrupted)
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            if is_interrupted:
                raise _FitInterrupted
        return self

    def _finish_fit(self, plan, starts, reports, is_interrupted):
        """Make the best start the fitted model; return its report, and whether Ctrl-C has come.

        Where it comes meanwhile, all is done again from the trained weights.
        """
        trained = {}

        def conclude():
            best = max(range(len(starts)), key=lambda i: self._rank(starts[i], reports[i]))
            flow, generator = starts[best].job.objective.flow, starts[best].job.generator
            if trained:
                # As it was trained: what is orthogonal is made so again in each dtype.
                flow.place(plan.device, torch.float32).load_state_dict(trained["weights"])
                generator.set_state(trained["generator"])
            else:
                weights = {name: t.clone() for name, t in flow.state_dict().items()}
                trained.update(best=best, weights=weights, generator=generator.get_state())
            self._conclude(plan, starts[best], reports[best])

        try:
            is_interrupted = finish(conclude, is_interrupted)
            return reports[trained["best"]], is_interrupted
        except Exception as error:
            if is_interrupted:
                # A search would go on after another exception.
                raise KeyboardInterrupt from error
            raise

    def _conclude(self, plan, start, report):
        """Set the attributes of a fitted model."""
        self._adopt(plan, start)
        rows = start.prepare(plan.raw).to(plan.device, plan.dtype)
        self._finish(start, rows)
        self.n_iter_ = report.n_iter
        self.loss_curve_ = report.loss_curve
        self.validation_scores_ = report.validation_scores

    def _reached(self, plan, report):
        """Return as text how far an interrupted fit had come."""
        return f"epoch {report.n_iter} of {self.max_iter}"

    def _warn_of(self, plan, report, is_interrupted):
        """Warn of a training that was interrupted, or should have been another one."""
        if is_interrupted:
            warn(
                f"{type(self).__name__} was interrupted after {self._reached(plan, report)}: it "
                "has the best weights until then.",
                ConvergenceWarning,
            )
            return
        if report.n_skipped > _WORTH_A_WARNING * report.n_steps:
            warn(
                f"The gradient was not finite in {report.n_skipped} of {report.n_steps} steps, "
                "which were skipped. Use a smaller learning_rate_init or a larger noise_floor.",
                ConvergenceWarning,
            )
        least = max(self.tol, _WORTH_MORE_EPOCHS)
        if report.stopped_early or report.last_improvement <= least:
            return
        knob = "Increase max_iter."
        if report.n_iter < self.max_iter:
            knob = f"The fit ended at its {self._max_steps} gradient steps: increase batch_size."
        warn(
            f"The score still rose by {report.last_improvement:.2g} nats in the last of "
            f"{report.n_iter} epochs, more than {least:g}. {knob}",
            ConvergenceWarning,
        )

    def _plan(self, X) -> _Plan:
        """Check rows and parameters, and settle what all starts of a fit have in common."""
        began = time.monotonic()
        X = check_rows(self, X, ensure_min_samples=2)
        n_features = X.shape[1]
        if self.n_components is not None and self.n_components > n_features:
            raise ValueError(
                f"n_components={self.n_components} must be between 1 and "
                f"n_features={n_features}, or None."
            )
        self._check_parameters(X)
        self._check_method_parameters(n_features)
        device = resolve_device(self.device)
        dtype = head_dtype(device) if X.dtype == np.float64 else torch.float32

        random_state = check_random_state(self.random_state)
        self._dtype = X.dtype
        raw = rows_to_tensor(X)
        config = self._flow_config(raw)
        step = self._dequantization_step(raw, config, np.finfo(X.dtype).eps)
        previous = None
        if self.warm_start and self._is_same_model(config):
            config, previous = self._config, self._flow
        width = max(self._layer_sizes(), default=1)
        batch_size = self._batch_size(len(raw), n_features)
        seeds = random_state.randint(2**31, size=1 if previous else self.n_init)
        work = batch_size * width * max(width, n_features)
        return _Plan(raw, step, config, previous, device, dtype, batch_size, seeds, work, began)

    def _train_starts(self, plan):
        """Prepare and train all starts; return them, their reports, and whether of Ctrl-C."""
        starts = []
        for seed in plan.seeds:
            # Scores of several starts can be compared only on the same rows in the same units.
            starts.append(self._start_fit(plan, seed, starts[0] if starts else None))
        n_starts = len(starts)

        def log(members):
            part = f"{len(members)} starts at once"
            if len(members) == 1:
                part = "" if n_starts == 1 else f"start {members[0] + 1} of {n_starts}"
            n_later = n_starts - 1 - members[-1] if len(members) == 1 else 0
            return self._log(plan, part, n_later * self.max_iter)

        try:
            return starts, train_all([start.job for start in starts], log), False
        except TrainingInterrupted as interrupt:
            reports = interrupt.reports
            return [starts[i] for i in reports], list(reports.values()), True

    def _rank(self, start, report):
        """Return by what the best start is chosen: its validation score, or minus its loss."""
        return -report.loss_curve[-1] if start.job.validation_rows is None else report.best_score

    def _log(self, plan, part="", n_later=0):
        """Return what is told of the epochs of a training, or None."""
        return epoch_log(type(self).__name__, self.verbose, plan.began, part, n_later)

    def _adopt(self, plan, start):
        """Take the flow of a trained start as that of the estimator."""
        self._config = plan.config
        self._standardizer = start.standardizer
        flow = start.job.objective.flow
        broken = [name for name, t in flow.state_dict().items() if not bool(t.isfinite().all())]
        if broken:
            raise FloatingPointError(
                f"The fit ended with weights that are not finite: {list_names(broken)}. Use a "
                "smaller learning_rate_init or a larger noise_floor."
            )
        self._flow = flow.place(plan.device, plan.dtype).requires_grad_(False)
        self.device_ = str(plan.device)

    def _is_same_model(self, config):
        """Tell whether the weights of the last fit are those of a flow of this configuration."""
        return getattr(self, "_config", None) == config

    def _check_parameters(self, X):
        """Check what `_parameter_constraints` cannot express."""
        sizes = self.hidden_layer_sizes
        if not isinstance(sizes, Integral) and any(
            not isinstance(size, Integral) or size < 1 for size in sizes
        ):
            raise ValueError(f"hidden_layer_sizes must hold integers >= 1, got {sizes!r}.")
        if self.noise_start is not None and self.noise_start < self.noise_floor:
            raise ValueError(
                f"noise_start={self.noise_start} must not be below noise_floor={self.noise_floor}."
            )
        if self.bounded is not None:
            ends = self.bounded
            are_finite = all(isinstance(end, Real) and math.isfinite(end) for end in ends)
            if len(ends) != 2 or not are_finite or not ends[0] < ends[1]:
                raise ValueError(
                    f"bounded must be (low, high), finite, with low < high, got {self.bounded}."
                )
            low, high = self.bounded
            if X.min() < low or X.max() > high:
                raise ValueError(
                    f"bounded={self.bounded} must contain every value of X, got values between "
                    f"{X.min()} and {X.max()}."
                )
        with np.errstate(over="ignore"):
            sum_of_squares = float(np.square(X, dtype=np.float64).sum())
        if not math.isfinite(sum_of_squares):
            raise ValueError(
                "The variance of X overflows: its values are too large. Rescale the columns."
            )
        low, high = X.min(axis=0).astype(np.float64), X.max(axis=0).astype(np.float64)
        # A few units in the last place of the values are rounding, not variation.
        rounding = 4 * np.finfo(np.float64).eps * np.maximum(-low, high)
        is_small = (high - low > rounding) & (high - low < _SMALLEST_RANGE)
        if is_small.any():
            raise ValueError(
                f"The variance of X underflows in columns "
                f"{list_names(self._column_names()[is_small])}: their values are too small. "
                "Rescale the columns."
            )

    def _column_names(self):
        """Return the names of the columns, or their numbers."""
        return np.asarray(getattr(self, "feature_names_in_", range(self.n_features_in_)))

    def _layer_sizes(self):
        """Return `hidden_layer_sizes` as a tuple of int."""
        sizes = self.hidden_layer_sizes
        return (int(sizes),) if isinstance(sizes, Integral) else tuple(int(k) for k in sizes)

    def _check_image_shape(self, n_features):
        """Check the `image_shape` of a method that has one."""
        shape = tuple(self.image_shape)
        if len(shape) != 3 or any(not isinstance(k, Integral) or k < 1 for k in shape):
            raise ValueError(f"image_shape must be (C, H, W), got {self.image_shape!r}.")
        if np.prod(shape) != n_features:
            raise ValueError(
                f"image_shape={shape} has {np.prod(shape)} pixels, but X has {n_features} features."
            )
        last = shape[2]
        if last in _N_COLORS and shape[0] not in _N_COLORS[:2] and min(shape[:2]) > last:
            warn(
                f"image_shape is (channels, height, width), and {shape} looks like (height, width, "
                f"channels). If it is, give X.reshape(-1, *{shape}).transpose(0, 3, 1, 2)"
                f".reshape(len(X), -1) with image_shape=({last}, {shape[0]}, {shape[1]})."
            )

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

    def _dequantization_step(self, raw, config, eps=sys.float_info.epsilon):
        """Return the spacing of the values of each column, 0 where nothing is to be added.

        `eps` is the relative spacing of the numbers that the rows were given as.
        """
        n, n_features = raw.shape
        columns = list(raw.T)
        if config.get("image_shape"):
            # All pixels take the same values, though one of them may have taken few.
            columns = [raw.flatten()]
        step = torch.zeros(len(columns), dtype=torch.float64)
        is_tied = torch.zeros(len(columns), dtype=torch.bool)
        for j, column in enumerate(columns):
            values = torch.unique(column)
            is_tied[j] = 1 < len(values) < len(column) // 2
            if len(values) > 1 and (self.dequantize or is_tied[j]):
                step[j] = spacing(values.numpy(), eps)
        if self.dequantize:
            # A constant column has no spacing of its own: it gets the most common one.
            known = step[step > 0]
            step[step == 0] = known.mode().values if len(known) else 1.0
            step = step.expand(n_features) if len(step) == 1 else step
            if self.bounded is not None and (raw.amax(0) + step > self.bounded[1]).any():
                raise ValueError(
                    f"With dequantize=True each value is spread over a step, so bounded="
                    f"{self.bounded} must reach to the largest value plus its step."
                )
            return step
        if is_tied.any() and n >= _MIN_ROWS_VALIDATED:
            warn(
                f"Columns hold many ties, as integers do: {self._tied(is_tied, step)}. A density "
                "can grow without bound there. Set dequantize=True to spread each value over its "
                "step."
            )
        return torch.zeros(n_features, dtype=torch.float64)

    def _tied(self, is_tied, step):
        """Return the names of columns with ties as text, those of one step together.

        The columns of the largest steps come first.
        """
        if len(is_tied) < self.n_features_in_:
            return f"all pixels (step {step[0]:g})"
        names, step = self._column_names()[is_tied.numpy()], step[is_tied]
        parts = [
            f"{list_names(names[(step == size).numpy()])} (step {size:g})"
            for size in reversed(step.unique().tolist())
        ]
        return "; ".join(parts[:_MAX_STEPS_NAMED]) + ("; ..." * (len(parts) > _MAX_STEPS_NAMED))

    def _start_fit(self, plan, seed, first) -> _Start:
        """Prepare one random start of a fit, or one from the weights of a previous flow.

        Standardisation and validation rows are those of the first start, where there was one.
        """
        raw, step, config, previous, device = plan[:5]
        generator = make_generator(int(seed))

        def dequantize(rows):
            if not step.any():
                return rows
            return rows + step * torch.rand(rows.shape, dtype=rows.dtype, generator=generator)

        def prepare(rows):
            return standardizer.forward_and_log_det(dequantize(rows))[0]

        standardizer = first and first.standardizer
        if standardizer is None:
            standardizer = self._new_standardizer(config).fit(dequantize(raw))
        flow = self._build_flow(config, generator)
        if previous is not None:
            # Part of a new flow is float64, which cannot be filled from MPS.
            flow.load_state_dict({name: t.cpu() for name, t in previous.state_dict().items()})
        flow.place(device, torch.float32)
        if self.early_stopping == "auto" and len(raw) < _MIN_ROWS_VALIDATED:
            flow.requires_grad_(False)

        order = first.order if first else torch.randperm(len(raw), generator=generator)
        n_validation = self._n_validation(len(raw))
        validation = None
        if n_validation:
            validation = prepare(raw[order[:n_validation]]).to(device, torch.float32)
        train_raw = raw[order[n_validation:]]
        prepared = prepare(train_raw)
        train_rows = prepared.to(device, torch.float32)

        def draw():
            if step.any():
                return prepare(train_raw).to(device, torch.float32)
            return train_rows

        objective = self._make_objective(flow, prepared, generator, previous is not None)
        settings = TrainingSettings(
            max_iter=self.max_iter,
            max_steps=self._max_steps,
            batch_size=min(plan.batch_size, len(train_raw)),
            learning_rate=self.learning_rate_init,
            weight_decay=self.weight_decay,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
            min_progress=objective.annealing,
            averaging=objective.averaging,
        )
        job = TrainingJob(objective, draw, validation, settings, generator, len(train_raw))
        return _Start(job, standardizer, prepare, order)

    def _new_standardizer(self, config):
        """Return the standardisation of a model, yet to be fitted."""
        return Standardizer(
            self.n_features_in_,
            config["bounded"],
            config.get("image_shape"),
            config.get("isotropic", False),
        )

    def _n_validation(self, n_samples):
        """Return the number of rows that are set aside."""
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
        return n_validation

    # ------------------------------------------------------------------ inference

    def _flow_in(self, dtype) -> FlowModel:
        """Return the fitted flow in the dtype that rows of a numpy dtype are computed in."""
        options = self._flow.tensor_options
        wanted = torch.float32 if dtype == np.float32 else head_dtype(options["device"])
        if options["dtype"] == wanted:
            return self._flow
        return copy.deepcopy(self._flow).place(options["device"], wanted)

    def _per_chunk(self, rows, function: Callable, dtype, elements_per_row: int):
        """Apply a function of (flow, float64 CPU rows) chunk by chunk; results come to the host."""
        flow = self._flow_in(dtype)
        results = []
        with torch.no_grad():
            for chunk in chunks(len(rows), elements_per_row):
                result = function(flow, rows_to_tensor(rows[chunk]))
                results.append(to_host(result).numpy())
        # float32 has no room for the density of a row that is very far away: it becomes -inf.
        with np.errstate(over="ignore"):
            return np.concatenate(results).astype(dtype, copy=False)

    def _check_rows(self, X):
        check_is_fitted(self)
        return check_rows(self, X, reset=False)

    def _to_flow(self, flow, rows):
        """Return rows for the flow and the log-determinant of their standardisation."""
        standardized, log_det = self._standardizer.forward_and_log_det(rows)
        return standardized.to(**flow.tensor_options), log_det

    def _from_flow(self, rows):
        return self._standardizer.inverse(to_host(rows))

    def _named(self, rows, X=None):
        """Return rows in data units as `set_output` wants them, with the names of the columns.

        The index is that of the rows X that they come from, if it has one.
        """
        container = _get_output_config("transform", self)["dense"]
        if container == "default":
            return rows
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            names = [f"x{j}" for j in range(self.n_features_in_)]
        adapter = ADAPTERS_MANAGER.adapters[container]
        return adapter.create_container(rows, rows if X is None else X, columns=list(names))

    @standard_context()
    def transform(self, X):
        """Return the manifold coordinates of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        X_new : ndarray of shape (n_samples, `n_components_`)
            Coordinates, in the dtype of X.
        """
        X = self._check_rows(X)
        return self._per_chunk(X, self._project, X.dtype, X.shape[1])

    def _project(self, flow, rows):
        return flow.project(self._to_flow(flow, rows)[0])

    @standard_context()
    def inverse_transform(self, X):
        """Return the rows on the model's manifold that have given coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, `n_components_`)
            Coordinates.

        Returns
        -------
        X_original : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units; a frame with the names of the columns where
            `set_output`, of the model or global, asks for frames.
        """
        check_is_fitted(self)
        given, X = X, check_array(as_array(X), dtype=DTYPES)
        if X.shape[1] != self.n_components_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_components_} features as input of inverse_transform."
            )
        return self._named(self._per_chunk(X, self._embed, X.dtype, self.n_features_in_), given)

    def _embed(self, flow, u):
        return self._from_flow(flow.embed(u))

    @standard_context()
    def reconstruct(self, X):
        """Project rows on the model's manifold, along its latent law.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        X_projected : ndarray of shape (n_samples, n_features)
            `inverse_transform(transform(X))`.
        """
        given, X = X, self._check_rows(X)

        def project_and_embed(flow, rows):
            return self._embed(flow, self._project(flow, rows))

        return self._named(self._per_chunk(X, project_and_embed, X.dtype, X.shape[1]), given)

    @standard_context()
    def score_samples(self, X):
        """Log-density of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Natural logarithm of the density with respect to Lebesgue measure of R^n_features, in
            the units of X: it integrates to 1, whatever `n_components` is.
        """
        return self._score_samples(X)

    def _score_samples(self, X, **kwargs):
        """Return the log-density of rows, with keyword arguments of the law's `log_prob`."""
        X = self._check_rows(X)

        def log_density(flow, rows):
            standardized, log_det = self._to_flow(flow, rows)
            log_prob = to_host(flow.log_prob(standardized, **kwargs)) + log_det
            is_nan = log_prob.isnan()
            if not is_nan.any():
                return log_prob
            is_near = (standardized.abs().amax(dim=1) <= _FAR).cpu()
            n_broken = int((is_nan & is_near).sum())
            if n_broken:
                raise FloatingPointError(
                    f"The log-density of {n_broken} rows is not a number, although they are not "
                    "far from the training rows: fit the model again with a smaller "
                    "learning_rate_init or a larger noise_floor."
                )
            # Where a row is so far away that the flow overflows there is no density either.
            return torch.where(is_nan, -torch.inf, log_prob)

        return self._per_chunk(X, log_density, X.dtype, X.shape[1])

    def score(self, X, y=None, sample_weight=None):
        """Mean log-density of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean; None weighs all alike.

        Returns
        -------
        score : float
            Mean of `score_samples(X)` in nats per row.
        """
        log_density = self.score_samples(X)
        if sample_weight is None:
            return float(np.mean(log_density, dtype=np.float64))
        weights = _check_sample_weight(
            sample_weight, log_density, dtype=np.float64, ensure_non_negative=True
        )
        # A row that does not count may have no density.
        counts = weights > 0
        return float(np.average(log_density[counts], weights=weights[counts]))

    @standard_context()
    def sample(self, n_samples=1, *, random_state=None, temperature=1.0, manifold_deviation=1.0):
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Source of the draw; pass an int for the same rows at every call.
        temperature : float, default=1.0
            Factor of the variance of the manifold coordinates; 1 is the fitted model.
        manifold_deviation : float, default=1.0
            Factor of the variance of the noise around the manifold; 1 is the fitted model, 0 draws
            rows on the manifold.

        Returns
        -------
        X : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units; a frame with the names of the columns where
            `set_output`, of the model or global, asks for frames.
        """
        return self._sample(
            self._flow_sample, n_samples, random_state, temperature, manifold_deviation
        )

    def _flow_sample(self, n_samples, generator, **knobs):
        return self._flow.sample(n_samples, generator, **knobs)

    def _sample(self, draw, n_samples, random_state, temperature, manifold_deviation):
        """Check the arguments of `sample` and draw rows chunk by chunk."""
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples!r}. The sampling requires at least one "
                "sample."
            )
        knobs = {"temperature": temperature, "manifold_deviation": manifold_deviation}
        for name, value in knobs.items():
            if not isinstance(value, Real) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {value!r}.")
        generator = make_generator(check_random_state(random_state).randint(2**31))
        rows = np.empty((n_samples, self.n_features_in_), dtype=self._dtype)
        with torch.no_grad():
            for chunk in chunks(n_samples, self.n_features_in_):
                drawn = draw(chunk.stop - chunk.start, generator, **knobs)
                rows[chunk] = self._from_flow(drawn).numpy()
        return self._named(rows)

    @standard_context()
    def local_dimension(self, X):
        """Dimension of the model's manifold around each row.

        Read from the spectrum of the local covariance J C J' in standardised units, with J the
        Jacobian of the latent -> data map at the row and C the covariance of the latent law: the
        number of eigenvalues before the widest gap, on a log scale.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        dimension : ndarray of int of shape (n_samples,)
            Between 1 and `n_features_in_`.

        Raises
        ------
        ValueError
            If a row is so far from the training rows that the model overflows there.
        """
        X = self._check_rows(X)
        spectra = self._local_spectra(X, np.dtype(np.float64))
        return spectral_dimension(spectra, self._noise_variance)

    def _local_spectra(self, X, dtype):
        """Return the eigenvalues (n, D) of the local covariance at rows, descending."""

        def spectrum(flow, rows):
            z = flow.bijection.forward_and_log_det(self._to_flow(flow, rows)[0])[0]
            factor = flow.latent.covariance_factor().to(z)
            _, columns = jacobian_columns(flow.decode, z, factor.T)
            return squared_singular_values(columns)

        return self._per_chunk(X, spectrum, dtype, X.shape[1] ** 2)

    # ------------------------------------------------------------------ device and state

    @standard_context()
    def to(self, device):
        """Move the fitted model to a device; the parameter `device` stays as it is.

        Parameters
        ----------
        device : str or torch.device
            "auto", "cpu", "cuda", "cuda:<index>" or "mps".

        Returns
        -------
        self : object
            The estimator.
        """
        check_is_fitted(self)
        target = resolve_device(device)
        dtype = head_dtype(target) if self._dtype == np.float64 else torch.float32
        self._flow.place(target, dtype)
        self.device_ = str(target)
        return self

    @property
    def _n_features_out(self):
        return self.n_components_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_flow")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _restore(self, flow):
        """Set what a stored flow has beside its weights."""
        flow.n_components = self.n_components_

    def __getstate__(self):
        """Turn the weights into numpy arrays, so that no tensor, no device of theirs and no code of
        the network travels with a pickle; everything else is kept."""
        state = super().__getstate__().copy()
        if "_flow" in state:
            state["_flow"] = arrays_from_module(self._flow)
            state["_standardizer"] = arrays_from_module(self._standardizer)
            state["_version"] = __version__
            state["_digest"] = digest(*(state[name] for name in _DIGESTED))
        return state

    @standard_context()
    def __setstate__(self, state):
        """Rebuild the flow on the device it was fitted on, or on the CPU where that is missing."""
        state = dict(state)
        version = state.pop("_version", __version__)
        if version != __version__:
            warn(
                f"Loading a {type(self).__name__} of skmanifoldflow {version} with {__version__}: "
                "its results may differ."
            )
        expected = state.pop("_digest", None)
        arrays = state.pop("_flow", None)
        standardizer = state.pop("_standardizer", None)
        super().__setstate__(state)
        if arrays is None:
            return
        try:
            config, n_components = self._config, self.n_components_
            if expected is not None:
                found = digest(arrays, standardizer, config, n_components)
                if found != expected:
                    raise ValueError("weights and digest disagree")
            elif config["n_layers"] > _MAX_LAYERS_PER_ARRAY * len(arrays):
                # Models of the first version have no digest, and layers take time to build.
                raise ValueError(f"it has {len(arrays)} arrays for {config['n_layers']} layers")
            self._flow = self._build_flow(config, make_generator(0))
            load_arrays(self._flow, arrays)
            self._restore(self._flow)
            self._standardizer = self._new_standardizer(config)
            load_arrays(self._standardizer, standardizer)
            device = self.device_
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            # Half a model must not look like a fitted one.
            vars(self).pop("_flow", None)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"The stored {type(self).__name__} is damaged, or was changed: {reason}."
            ) from error
        try:
            self.to(device)
        except (TypeError, ValueError):
            self.to("cpu")


class ManifoldDensityMixin:
    """Density on the manifold, of the estimators that have a single one."""

    @standard_context()
    def score_samples_manifold(self, X):
        """Log-density on the model's manifold, at the projection of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; each is projected on the manifold first.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Natural logarithm of the density with respect to the volume of the manifold in data
            units, log p(u) - 1/2 logdet(J'J) with J the exact Jacobian of the embedding.
        """
        X = self._check_rows(X)

        def log_density(flow, rows):
            u = self._project(flow, rows)
            embedded, jacobian = flow.embedding_jacobian(u)
            slope = self._standardizer.inverse_slope(to_host(embedded))
            jacobian = slope[:, :, None] * to_host(jacobian)
            return flow.latent.log_prob_manifold(u).cpu() - log_volume_element(jacobian)

        return self._per_chunk(X, log_density, X.dtype, X.shape[1] * self.n_components_)
