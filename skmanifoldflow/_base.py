"""The scikit-learn contract of every estimator."""

import copy
import math
import warnings
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
from sklearn.utils.validation import check_is_fitted, validate_data

from . import __version__
from ._dimension import spectral_dimension
from .backend.device import make_generator, resolve_device, single_threaded
from .backend.flow import FlowModel, chunks
from .backend.geometry import jacobian_columns, log_volume_element
from .backend.objectives import Objective
from .backend.serialization import arrays_from_module, load_arrays
from .backend.stacked import train_all
from .backend.standardize import Standardizer
from .backend.training import TrainingJob, TrainingSettings, train

__all__ = ["BaseManifoldFlow"]

_DTYPES = [np.float64, np.float32]
# With fewer rows there is nothing to validate on, and a network would only learn them by heart.
_MIN_ROWS_VALIDATED = 40
_MIN_VALIDATION_ROWS = 10


def _tensor(rows):
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
        "hidden_layer_sizes": ["array-like"],
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
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

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

        Warns
        -----
        ConvergenceWarning
            If the score was still rising by more than `tol` when `max_iter` was reached.
        UserWarning
            If columns hold many ties, as integers do, and `dequantize` is False.
        """
        before = dict(vars(self))
        try:
            return self._fit(X)
        except BaseException:
            # A failed fit leaves the estimator, and the model of an earlier fit, as it was.
            vars(self).clear()
            vars(self).update(before)
            raise

    def _fit(self, X):
        plan = self._plan(X)
        with single_threaded(plan.work):
            starts, reports = self._train_starts(plan)
            best = max(range(len(starts)), key=lambda i: self._rank(starts[i], reports[i]))
            report, start = reports[best], starts[best]
            self._adopt(plan, start)
            rows = start.prepare(plan.raw).to(plan.device, plan.dtype)
            self._finish(start, rows)
        self.n_iter_ = report.n_iter
        self.loss_curve_ = report.loss_curve
        self.validation_scores_ = report.validation_scores
        if not report.stopped_early and report.last_improvement > self.tol:
            knob = "Increase max_iter."
            if report.n_iter < self.max_iter:
                knob = (
                    f"The fit ended at its {self._max_steps} gradient steps: increase batch_size."
                )
            warnings.warn(
                f"The score still rose by {report.last_improvement:.3g} nats in the last of "
                f"{report.n_iter} epochs, more than tol={self.tol:g}. {knob}",
                ConvergenceWarning,
                stacklevel=4,
            )
        return self

    def _plan(self, X) -> _Plan:
        """Check rows and parameters, and settle what all starts of a fit have in common."""
        X = validate_data(self, X, dtype=_DTYPES, ensure_min_samples=2)
        n_features = X.shape[1]
        if self.n_components is not None and self.n_components > n_features:
            raise ValueError(
                f"n_components={self.n_components} must be between 1 and "
                f"n_features={n_features}, or None."
            )
        self._check_parameters(X)
        self._check_method_parameters(n_features)
        device = resolve_device(self.device)
        dtype = torch.float32
        if X.dtype == np.float64 and device.type != "mps":
            dtype = torch.float64

        random_state = check_random_state(self.random_state)
        raw = _tensor(X)
        config = self._flow_config(raw)
        step = self._dequantization_step(raw, config)
        previous = None
        if self.warm_start and self._is_same_model(config):
            config, previous = self._config, self._flow
        width = max(self.hidden_layer_sizes, default=1)
        batch_size = self._batch_size(len(raw), n_features)
        seeds = random_state.randint(2**31, size=1 if previous else self.n_init)
        work = batch_size * width * max(width, n_features)
        self._dtype = X.dtype
        return _Plan(raw, step, config, previous, device, dtype, batch_size, seeds, work)

    def _train_starts(self, plan):
        """Prepare and train all starts; return them and their reports."""
        starts = []
        for seed in plan.seeds:
            # Scores of several starts can be compared only on the same rows in the same units.
            starts.append(self._start_fit(plan, seed, starts[0] if starts else None))
        jobs = [start.job for start in starts]
        if len(jobs) == 1 or self.verbose:
            return starts, [train(*job[:-1], self._log) for job in jobs]
        return starts, train_all(jobs)

    def _rank(self, start, report):
        """Return by what the best start is chosen: its validation score, or minus its loss."""
        return -report.loss_curve[-1] if start.job.validation_rows is None else report.best_score

    @property
    def _log(self):
        """What takes a line of text per epoch, or None."""
        if not self.verbose:
            return None
        return lambda line: print(f"[{type(self).__name__}] {line}")

    def _adopt(self, plan, start):
        """Take the flow of a trained start as that of the estimator."""
        self._config = plan.config
        self._standardizer = start.standardizer
        flow = start.job.objective.flow
        self._flow = flow.place(plan.device, plan.dtype).requires_grad_(False)
        self.device_ = str(plan.device)

    def _is_same_model(self, config):
        """Tell whether the weights of the last fit are those of a flow of this configuration."""
        return getattr(self, "_config", None) == config

    def _check_parameters(self, X):
        """Check what `_parameter_constraints` cannot express."""
        sizes = self.hidden_layer_sizes
        if any(not isinstance(size, Integral) or size < 1 for size in sizes):
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

    def _check_image_shape(self, n_features):
        """Check the `image_shape` of a method that has one."""
        shape = tuple(self.image_shape)
        if len(shape) != 3 or any(not isinstance(k, Integral) or k < 1 for k in shape):
            raise ValueError(f"image_shape must be (C, H, W), got {self.image_shape!r}.")
        if np.prod(shape) != n_features:
            raise ValueError(
                f"image_shape={shape} has {np.prod(shape)} pixels, but X has {n_features} features."
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

    def _dequantization_step(self, raw, config):
        """Return the spacing of the values of each column, 0 where nothing is to be added."""
        n, n_features = raw.shape
        columns = list(raw.T)
        if config.get("image_shape"):
            # All pixels take the same values, though one of them may have taken few.
            columns = [raw.flatten()]
        step = torch.zeros(len(columns), dtype=torch.float64)
        n_tied = 0
        for j, column in enumerate(columns):
            values = torch.unique(column)
            if 1 < len(values) < len(column) // 2:
                n_tied += n_features // len(columns)
            if self.dequantize and len(values) > 1:
                spacings = values.diff()
                # Equal values that were rounded differently are not a spacing.
                step[j] = spacings[spacings > 1e-9 * values.abs().max()].min()
        if self.dequantize:
            # A constant column has no spacing of its own: it gets the most common one.
            known = step[step > 0]
            step[step == 0] = known.mode().values if len(known) else 1.0
        step = step.expand(n_features) if len(step) == 1 else step
        if self.dequantize:
            if self.bounded is not None and (raw.amax(0) + step > self.bounded[1]).any():
                raise ValueError(
                    f"With dequantize=True each value is spread over a step, so bounded="
                    f"{self.bounded} must reach to the largest value plus its step."
                )
        elif n_tied and n >= _MIN_ROWS_VALIDATED:
            warnings.warn(
                f"{n_tied} columns hold many ties, as integers do: a density can grow without "
                "bound there. Set dequantize=True to spread each value over its step.",
                UserWarning,
                stacklevel=6,
            )
        return step

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
            flow.load_state_dict(previous.state_dict())
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
        wanted = torch.float32 if dtype == np.float32 else torch.float64
        options = self._flow.tensor_options
        if options["device"].type == "mps" or options["dtype"] == wanted:
            return self._flow
        return copy.deepcopy(self._flow).place(options["device"], wanted)

    def _per_chunk(self, rows, function: Callable, dtype, elements_per_row: int):
        """Apply a function of (flow, float64 CPU rows) chunk by chunk; results come to the host."""
        flow = self._flow_in(dtype)
        results = []
        with torch.no_grad():
            for chunk in chunks(len(rows), elements_per_row):
                result = function(flow, _tensor(rows[chunk]))
                results.append(result.to(device="cpu", dtype=torch.float64).numpy())
        # float32 has no room for the density of a row that is very far away: it becomes -inf.
        with np.errstate(over="ignore"):
            return np.concatenate(results).astype(dtype, copy=False)

    def _check_rows(self, X):
        check_is_fitted(self)
        return validate_data(self, X, dtype=_DTYPES, reset=False)

    def _to_flow(self, flow, rows):
        """Return rows for the flow and the log-determinant of their standardisation."""
        standardized, log_det = self._standardizer.forward_and_log_det(rows)
        return standardized.to(**flow.tensor_options), log_det

    def _from_flow(self, rows):
        return self._standardizer.inverse(rows.to(device="cpu", dtype=torch.float64))

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

    def inverse_transform(self, X):
        """Return the rows on the model's manifold that have given coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, `n_components_`)
            Coordinates.

        Returns
        -------
        X_original : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units.
        """
        check_is_fitted(self)
        X = check_array(X, dtype=_DTYPES)
        if X.shape[1] != self.n_components_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_components_} features as input of inverse_transform."
            )
        return self._per_chunk(X, self._embed, X.dtype, self.n_features_in_)

    def _embed(self, flow, u):
        return self._from_flow(flow.embed(u))

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
        X = self._check_rows(X)

        def project_and_embed(flow, rows):
            return self._embed(flow, self._project(flow, rows))

        return self._per_chunk(X, project_and_embed, X.dtype, X.shape[1])

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
            log_prob = flow.log_prob(standardized, **kwargs).to("cpu", torch.float64) + log_det
            # Where a row is so far away that the flow overflows there is no density either.
            return torch.where(log_prob.isnan(), -torch.inf, log_prob)

        return self._per_chunk(X, log_density, X.dtype, X.shape[1])

    def score(self, X, y=None):
        """Mean log-density of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        score : float
            Mean of `score_samples(X)` in nats per row.
        """
        return float(np.mean(self.score_samples(X), dtype=np.float64))

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
            slope = self._standardizer.inverse_slope(embedded.to("cpu", torch.float64))
            jacobian = slope[:, :, None] * jacobian.to("cpu", torch.float64)
            return flow.latent.log_prob_manifold(u).cpu() - log_volume_element(jacobian)

        return self._per_chunk(X, log_density, X.dtype, X.shape[1] * self.n_components_)

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
            Rows in data units.
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
        return rows

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
            return torch.linalg.svdvals(columns.to("cpu", torch.float64)).square()

        return self._per_chunk(X, spectrum, dtype, X.shape[1] ** 2)

    # ------------------------------------------------------------------ device and state

    def to(self, device):
        """Move the fitted model to a device; the parameter `device` stays as it is.

        Parameters
        ----------
        device : str
            "auto", "cpu", "cuda", "cuda:<index>" or "mps".

        Returns
        -------
        self : object
            The estimator.
        """
        check_is_fitted(self)
        target = resolve_device(device)
        dtype = torch.float32
        if target.type != "mps" and self._dtype == np.float64:
            dtype = torch.float64
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

    def __getstate__(self):
        """Turn the weights into numpy arrays, so that no torch object, no device and no code of the
        network travels with a pickle; everything else is kept."""
        state = super().__getstate__().copy()
        if "_flow" in state:
            state["_flow"] = arrays_from_module(self._flow)
            state["_standardizer"] = arrays_from_module(self._standardizer)
            state["_version"] = __version__
        return state

    def __setstate__(self, state):
        """Rebuild the flow on the device it was fitted on, or on the CPU where that is missing."""
        state = dict(state)
        version = state.pop("_version", __version__)
        if version != __version__:
            warnings.warn(
                f"Loading a {type(self).__name__} of skmanifoldflow {version} with {__version__}: "
                "its results may differ.",
                UserWarning,
                stacklevel=2,
            )
        arrays = state.pop("_flow", None)
        standardizer = state.pop("_standardizer", None)
        super().__setstate__(state)
        if arrays is None:
            return
        self._flow = self._build_flow(self._config, make_generator(0))
        load_arrays(self._flow, arrays)
        self._flow.n_components = self.n_components_
        self._standardizer = self._new_standardizer(self._config)
        load_arrays(self._standardizer, standardizer)
        try:
            self.to(self.device_)
        except ValueError:
            self.to("cpu")
