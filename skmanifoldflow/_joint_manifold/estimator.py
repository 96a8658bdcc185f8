"""JointManifoldFlow: a manifold and the density on it, learned in one step."""

import math
from dataclasses import replace
from itertools import pairwise
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted

from .._base import BaseManifoldFlow
from .._checks import DTYPES, as_array, check_image_shape, warn
from .._dimension import spectral_dimension
from .._geometry import (
    affordable_rows,
    columns_in_data_units,
    in_float64_on_cpu,
    mean_spectrum,
    noise_variance_read,
    varying_columns,
)
from .._linear import principal_axes, supported_components
from .._manifold_density import ManifoldDensityMixin
from ..backend.bijections import ChannelSplit, squeezed_shapes
from ..backend.device import standard_context, to_host
from ..backend.flow import chunks
from ..backend.geometry import jacobian_columns
from ..backend.training import SecondInterrupt, TrainingInterrupted, finish, train
from .build import JointManifoldConfig, build_flow
from .objective import JointLikelihood

__all__ = ["JointManifoldFlow"]

# A reconstruction error above that of PCA by this factor is a manifold that was not found. PCA has
# the least squared error; where nothing is curved the Huber penalty loses some per cent against it.
_PCA_MARGIN = 1.1
# Rows from which the principal axes are taken.
_MAX_INITIAL_ROWS = 20_000


class JointManifoldFlow(ManifoldDensityMixin, BaseManifoldFlow):
    r"""Flow whose latent space is split into a manifold and deviations from it, learned jointly.

    The rows x, standardised, are mapped by a bijection g to (u, v): d coordinates u on the manifold
    v = 0, and D - d deviations v that are penalised by a distribution of their own, narrow and
    normalised,

    .. math:: \log p(x) = \log p_U(u) + \sum_j \log \rho(v_j) + \log |\det J_g(x)| .

    With a heavy-tailed rho a small share of the rows may follow a broad normal distribution
    instead, and then hardly counts for the manifold.

    In one step the likelihood of noisy rows is maximised together with the reconstruction of the
    clean ones from u alone, so that the density and the manifold come from the same fit. Further
    stages, each a flow on the manifold coordinates of the one before, then improve the density on
    the manifold, and can narrow it to nested manifolds of lower dimension.

    The method is built after the abstract of [1]_: one step, a penalised split, training by stages.
    The equations, the constants and the reconstruction of clean rows, which comes from [2]_, are
    choices of this package.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of coordinates d of the manifold. None takes the number of principal components, less
        than that of the columns, whose probabilistic PCA has the best Bayesian information
        criterion, which sees no curvature: give the dimension of a curved sheet where it is known.
        Equal to the number of columns there are no deviations, and the model is a plain flow.
    n_stages : int, default=2
        Number of stages, all with d coordinates; 1 leaves u ~ N(0, I). Not used where
        `stage_components` is given.
    stage_components : tuple of int or None, default=None
        Numbers of coordinates of the stages after the first, none larger than the one before. With
        ``n_components=10, stage_components=(8, 2)`` the manifold of 10 dimensions contains one of
        8, and that one of 2: see the argument `stage` of `transform`.
    flow : {"affine", "spline", "additive"}, default="affine"
        Kind of coupling between coordinates and deviations. Stages that
        keep the number of coordinates take splines.
    n_layers : int, default=8
        Number of couplings, which map by turns the coordinates given the deviations and the
        deviations given the coordinates.
    hidden_layer_sizes : int or tuple of int, default=(64, 64)
        Hidden layers of the network of each coupling. With ``split="channel"`` the first entry is
        the number of hidden channels.
    image_shape : tuple of int or None, default=None
        (C, H, W) of rows that are flattened images, channel by channel: pixels of a channel are
        then standardised alike, so that errors count the same in all of them.
    split : {"flat", "channel"}, default="flat"
        What the coordinates are at the start: leading principal components of the rows, or leading
        channels of a squeezed image (C, H, W) -> (4C, H/2, W/2), turned to principal axes, at each
        of its pixels, with convolutional couplings. The latter needs `image_shape` and a multiple
        of the number of pixels after one or more squeezes as `n_components`.
    penalty : {"huber", "laplace", "gaussian"}, default="huber"
        rho, the distribution of a deviation in units of its scale, of which each has its own: a
        normal distribution with exponential tails beyond 1.345 scales, a Laplace distribution, or a
        normal distribution. It is the distribution of the residuals of reconstructions too. With
        heavy tails a share of the rows, learned, may follow a broad normal distribution instead:
        such outliers hardly count for the manifold. They are part of the density but not of
        `sample`.
    reconstruction : float, default=1.0
        Weight of the log-density of residuals, relative to the log-likelihood. The scale of the
        residuals is estimated from the rows at every step, so that it does not depend on units.
        With 0 the likelihood alone decides which part of a row is manifold, and the manifold is
        rarely found.
    noise_start : float, default=0.3
        Standard deviation of the noise added to training rows at first, in standardised units. It
        falls to `noise_floor` over the first half of the training, from coarse structure to fine;
        it must not be below `noise_floor`.
    noise_floor : float, default=0.002
        Standard deviation of the noise that is added to training rows in the end, and the least
        scale of a deviation, in standardised units. It bounds the likelihood on exact manifolds.
    bounded : tuple of two floats or None, default=None
        Interval (low, high) that contains every value of X; the density is zero outside. With
        `dequantize` it must reach to the largest value plus its step.
    dequantize : bool, default=False
        Add U[0, step) to the training rows, anew in every epoch, step being the spacing of the
        values of each column, or of all pixels. For integers and other data with ties. The model is
        then one of X + U: rows that are scored are taken as they are given, so score X + step / 2,
        or X + U, and round samples down.
    max_iter : int, default=200
        Largest number of epochs of the first stage; further ones take half as many. Whatever it is,
        the first stage ends after 8000 gradient steps, which is what counts from some thousand rows
        on, and the others after 4000.
    batch_size : int or "auto", default="auto"
        Rows of a gradient step; by default an eightieth of them, between 64 and 256.
    learning_rate_init : float, default=5e-3
        Peak of the one-cycle learning rate.
    weight_decay : float, default=0.0
        Decoupled weight decay of the networks.
    early_stopping : bool or "auto", default="auto"
        Whether rows are set aside to choose the best weights and to stop. "auto" does so from 40
        rows on; with fewer nothing is trained and the model is its linear start.
    validation_fraction : float, default=0.1
        Share of the rows set aside, at least 10 rows.
    n_iter_no_change : int, default=40
        Epochs without an improvement by `tol`, after the noise has reached its floor, that end the
        training.
    tol : float, default=1e-4
        Smallest improvement, in nats per row.
    n_init : int, default=3
        Largest number of fits from different random weights. Another one is made only where the
        last one reconstructs rows worse than PCA with as many components; among those that do not,
        or among all, the one with the best validation score is kept.
    warm_start : bool, default=False
        Start from the weights of the previous fit if the parameters that shape the model and the
        number of columns are the same; `n_init` is then ignored. After Ctrl-C in a further stage
        the model has fewer stages, and the next fit starts anew.
    device : str or torch.device, default="auto"
        "auto" (CUDA if present, else CPU), "cpu", "cuda", "cuda:<index>" or "mps". MPS has no
        float64, so results there have float32 accuracy.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, noise and validation rows.
    verbose : int, default=0
        If positive, print a line per epoch: epoch of how many, score, and the time elapsed and at
        most left. The model does not depend on it.

    Attributes
    ----------
    n_components_ : int
        Number of coordinates.
    stage_components_ : tuple of int
        Number of coordinates of every stage, the first one included.
    stage_scores_ : list of float
        Mean log-likelihood after each stage of the rows that were set aside, or of the training
        rows where none were, in nats per standardised row.
    best_stage_ : int
        Stage with the best of these scores, from 1: the last one that `score_samples`, `score` and
        `sample` use. A nested stage of fewer coordinates can fit the rows less well than the one
        before, since what it leaves out gets the simpler distribution of a deviation.
    reconstruction_error_ : float
        Mean squared error per entry of the same rows reconstructed from their coordinates, in
        standardised units, weighted by their probability to be no outliers; 0 with as many
        coordinates as columns.
    pca_reconstruction_error_ : float
        The same of PCA with as many components, fitted to the training rows.
    deviation_scale_ : ndarray of shape (`n_features_in_` - `n_components_`,)
        Scale of each deviation, in units of the latent space: that of the training, times the
        factor of maximum likelihood of the rows that were set aside, which all have in common.
    outlier_share_ : float
        Share of the rows that follow the broad distribution of outliers; 0 with the normal penalty,
        0.01 where nothing is trained.
    intrinsic_dimension_ : int
        Number of eigenvalues of `local_spectrum_` before its widest gap on a log scale, a standard
        deviation of 0.02 in standardised units counting as noise; `n_components` does not enter
        directly.
    local_spectrum_ : ndarray of shape (`n_features_in_`,)
        Geometric mean over training rows, at most 256 and fewer for many columns, of the
        eigenvalues of the model's local covariance J C J', J the Jacobian of the inverse flow and C
        the covariance of (u, v), in standardised units, descending.
    n_iter_ : int
        Epochs run in the first stage.
    loss_curve_ : list of float
        Mean training loss of each epoch of the first stage, in nats per standardised row: negative
        log-likelihood of noisy rows plus that of the residuals.
    validation_scores_ : list of float
        Mean of log-likelihood plus log-density of the residuals of the validation rows, after each
        epoch of the first stage, in nats per standardised row; empty where none were set aside.
    device_ : str
        Where the model computes.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X had any.

    Warns
    -----
    ConvergenceWarning
        If no fit reconstructs the rows that were set aside as well as PCA.

    See Also
    --------
    ManifoldPriorFlow : Finds the dimension, keeps distances.
    NoisyInjectiveFlow : Density first, with a linear map in the latent space.
    sklearn.decomposition.PCA : Linear manifold, the start of this model.

    Notes
    -----
    Coordinates have the units of the data, as those of PCA: moving one of them by one moves a row
    by one unit, root mean square over training rows, and different ones move it in directions that
    are orthogonal in the mean. They are in descending order of their variance over the training
    rows.

    References
    ----------
    .. [1] "Joint Manifold Learning and Density Estimation Using Normalizing Flows". 2022.
       arXiv:2206.03293.
    .. [2] Horvat, C., Pfister, J.-P. "Denoising Normalizing Flow". NeurIPS 2021.
    .. [3] Brehmer, J., Cranmer, K. "Flows for simultaneous manifold learning and density
       estimation". NeurIPS 2020. arXiv:2003.13913.

    Examples
    --------
    >>> from skmanifoldflow import JointManifoldFlow
    >>> from skmanifoldflow.datasets import SCurve
    >>> X, _ = SCurve(noise=0.05).sample(500, random_state=0)
    >>> model = JointManifoldFlow(2, n_layers=4, max_iter=40, random_state=0).fit(X)
    >>> model.transform(X).shape
    (500, 2)
    >>> model.reconstruction_error_ < model.pca_reconstruction_error_
    True
    >>> model.sample(3, manifold_deviation=0.0, random_state=0).shape
    (3, 3)
    """

    _parameter_constraints: dict = {
        **BaseManifoldFlow._parameter_constraints,
        "n_stages": [Interval(Integral, 1, None, closed="left")],
        "stage_components": [tuple, list, None],
        "flow": [StrOptions({"affine", "spline", "additive"})],
        "image_shape": [tuple, list, None],
        "split": [StrOptions({"flat", "channel"})],
        "penalty": [StrOptions({"huber", "laplace", "gaussian"})],
        "reconstruction": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components=None,
        *,
        n_stages=2,
        stage_components=None,
        flow="affine",
        n_layers=8,
        hidden_layer_sizes=(64, 64),
        image_shape=None,
        split="flat",
        penalty="huber",
        reconstruction=1.0,
        noise_start=0.3,
        noise_floor=0.002,
        bounded=None,
        dequantize=False,
        max_iter=200,
        batch_size="auto",
        learning_rate_init=5e-3,
        weight_decay=0.0,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=40,
        tol=1e-4,
        n_init=3,
        warm_start=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.n_components = n_components
        self.n_stages = n_stages
        self.stage_components = stage_components
        self.flow = flow
        self.n_layers = n_layers
        self.hidden_layer_sizes = hidden_layer_sizes
        self.image_shape = image_shape
        self.split = split
        self.penalty = penalty
        self.reconstruction = reconstruction
        self.noise_start = noise_start
        self.noise_floor = noise_floor
        self.bounded = bounded
        self.dequantize = dequantize
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.n_init = n_init
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------ fit

    _config_type = JointManifoldConfig
    _max_steps = 8000

    def _check_method_parameters(self, n_features):
        if self.image_shape is not None:
            check_image_shape(self, n_features)
        if self.split == "channel":
            self._check_channels(n_features)
        if self.stage_components is not None:
            sizes = tuple(self.stage_components)
            if not sizes or any(not isinstance(k, Integral) or k < 1 for k in sizes):
                raise ValueError(
                    f"stage_components must hold integers >= 1, got {self.stage_components!r}."
                )
            first = n_features if self.n_components is None else self.n_components
            if any(after > before for before, after in pairwise((first, *sizes))):
                raise ValueError(
                    f"stage_components={sizes} must not rise, nor begin above n_components={first}."
                )

    def _check_channels(self, n_features):
        if self.image_shape is None:
            raise ValueError("split='channel' needs image_shape.")
        if len(self._layer_sizes()) == 0:
            raise ValueError("split='channel' needs hidden_layer_sizes to hold at least one size.")
        sizes = [h * w for _, h, w in squeezed_shapes(tuple(self.image_shape))]
        d = self.n_components
        if d is None or d >= n_features or not any(d % size == 0 for size in sizes):
            raise ValueError(
                f"split='channel' with image_shape={tuple(self.image_shape)} needs n_components "
                f"below {n_features} that is a multiple of one of {sizes}, got {d}."
            )

    def _auto_batch_size(self, n_samples, n_features):
        return max(64, min(256, n_samples // 80))

    def _choices(self, n_features):
        further = self.stage_components
        return JointManifoldConfig(
            n_features=n_features,
            n_layers=self.n_layers,
            hidden_layer_sizes=self._layer_sizes(),
            flow=self.flow,
            image_shape=self._image_shape(),
            bounded=self.bounded,
            n_components=None if self.n_components is None else int(self.n_components),
            n_stages=self.n_stages,
            stage_components=None if further is None else tuple(map(int, further)),
            split=self.split,
            penalty=self.penalty,
            noise_floor=self.noise_floor,
        )

    def _read_rows(self, choices, raw):
        if choices.n_components is not None:
            return choices
        rows = self._new_standardizer(choices).fit(raw).forward_and_log_det(raw)[0].numpy()
        d = supported_components(principal_axes(rows)[2], len(rows))
        return replace(choices, n_components=int(d))

    @staticmethod
    def _build_flow(config, generator):
        return build_flow(config, generator)

    def _make_objective(self, flow, rows, generator, is_warm):
        rows = rows[:_MAX_INITIAL_ROWS]
        if not is_warm:
            self._initialize(flow, rows)
        objective = JointLikelihood(
            flow,
            reconstruction=self.reconstruction,
            noise_start=self.noise_start,
            noise_floor=self.noise_floor,
            generator=generator,
        )
        mean, axes, _ = principal_axes(rows.numpy())
        objective.linear_manifold = mean, axes[:, : flow.latent.n_components]
        return objective

    def _initialize(self, flow, rows):
        """Start at probabilistic PCA, but for the distribution of the deviations."""
        latent = flow.latent
        d = latent.n_components
        with in_float64_on_cpu(flow):
            deviations = flow.bijection.initialize(rows)[:, d:]
            if not deviations.shape[1]:
                return
            bijection = flow.bijection
            axes = bijection if isinstance(bijection, ChannelSplit) else bijection.bijections[0]
            scale = latent.penalty.fit_scale(deviations, torch.finfo(deviations.dtype).tiny)
            # Their mean was fitted too.
            scale = scale * math.sqrt(len(rows) / (len(rows) - 1))
            latent.set_scales(scale, self.noise_floor / axes.scale()[d:])

    def _train_restarts(self, plan):
        """Train one start after the other, until one has found the manifold."""
        restarts, reports, is_interrupted = [], [], False
        try:
            for seed in plan.seeds:
                restart = self._prepare_restart(plan, seed, restarts[0] if restarts else None)
                part = f"start {len(restarts) + 1}, " if restarts else ""
                report, is_interrupted = self._train_stages(plan, restart.job, part)
                restarts, reports = [*restarts, restart], [*reports, report]
                if is_interrupted or self._is_settled(restart.job.objective):
                    break
        except SecondInterrupt:
            raise
        except KeyboardInterrupt:
            if not restarts:
                raise
            # A start that was finished is a model.
            is_interrupted = True
        return restarts, reports, is_interrupted

    def _rank(self, restart, report):
        return self._is_settled(restart.job.objective), super()._rank(restart, report)

    def _train_stages(self, plan, job, part):
        """Train stage after stage, the earlier ones frozen.

        Return the report of the first one, which counts skipped steps of all, and whether Ctrl-C
        has ended it or left out a further stage.
        """
        objective, epoch_rows, validation_rows, settings, generator, _ = job
        latent = objective.latent
        further = [(outer.refinement, outer.inner) for outer in latent.stages[:-1]]
        n_stages = 1 + len(further)
        latent.set_stage(None, None)
        is_trained = any(p.requires_grad for p in objective.parameters())
        n_epochs = -(-settings.max_iter // 2)

        def log(stage):
            of_stage = f"stage {stage} of {n_stages}" if n_stages > 1 else ""
            n_later = (n_stages - stage) * n_epochs
            return self._log(plan, f"{part}{of_stage}".rstrip(", "), n_later)

        def measure():
            """Return the score of the stages so far on the rows that judge them."""
            if is_trained and validation_rows is not None:
                objective.fit_deviations(validation_rows)
            return objective.mean_log_prob(evaluation_rows)

        def measure_first():
            objective.stage_scores = [measure()]
            objective.reconstruction_error = objective.mean_squared_residual(evaluation_rows)
            inlying = objective.inlying(evaluation_rows)
            objective.pca_error = _linear_error(
                *objective.linear_manifold, evaluation_rows, inlying
            )

        is_interrupted = False
        try:
            report = train(objective, epoch_rows, validation_rows, settings, generator, log(1))
        except TrainingInterrupted as interrupt:
            report, is_interrupted = interrupt.reports[0], True
        evaluation_rows = epoch_rows() if validation_rows is None else validation_rows
        if finish(measure_first, is_interrupted):
            return report, True
        settings = replace(settings, max_iter=n_epochs, max_steps=settings.max_steps // 2)
        for stage, (refinement, inner) in enumerate(further, start=2):
            before = {name: t.clone() for name, t in objective.state_dict().items()}
            try:
                objective.flow.requires_grad_(False)
                inner.set_stage(None, None)
                latent.stages[-1].set_stage(refinement, inner)
                refinement.requires_grad_(is_trained)
                inner.requires_grad_(is_trained)
                of_stage = train(
                    objective, epoch_rows, validation_rows, settings, generator, log(stage)
                )
                objective.stage_scores.append(measure())
                report.n_steps += of_stage.n_steps
                report.n_skipped += of_stage.n_skipped
            except SecondInterrupt:
                raise
            except KeyboardInterrupt:
                # What was finished is kept: the stages before.
                latent.stages[stage - 2].set_stage(None, None)
                objective.load_state_dict(before)
                del objective.stage_scores[stage - 1 :]
                return report, True
        return report, False

    def _reached(self, plan, report):
        n_stages = len(plan.config.all_stages)
        if n_stages == 1:
            return super()._reached(plan, report)
        return f"{super()._reached(plan, report)} in stage {len(self.stage_scores_)} of {n_stages}"

    def _adopt(self, plan, restart):
        """Take the flow of a trained start, which has fewer stages after Ctrl-C."""
        config, n_stages = plan.config, len(restart.job.objective.latent.stages)
        if n_stages < len(config.all_stages):
            further = config.stage_components
            further = None if further is None else further[: n_stages - 1]
            config = replace(config, n_stages=n_stages, stage_components=further)
        super()._adopt(plan._replace(config=config), restart)

    def _restore(self, flow):
        super()._restore(flow)
        # Models of the first version have no best stage, and use all.
        flow.latent.n_used = getattr(self, "best_stage_", None)

    def _is_settled(self, objective):
        """Tell whether a trained start reconstructs so well that no other one has to be tried."""
        slack = self.noise_floor**2
        return objective.reconstruction_error <= _PCA_MARGIN * objective.pca_error + slack

    def _finish(self, restart, rows):
        objective = restart.job.objective
        latent = self._flow.latent
        self.n_components_ = latent.n_components
        self.stage_components_ = tuple(stage.n_components for stage in latent.stages)
        self.stage_scores_ = objective.stage_scores
        self.best_stage_ = latent.n_used = 1 + int(np.argmax(self.stage_scores_))
        self.reconstruction_error_ = objective.reconstruction_error
        self.pca_reconstruction_error_ = objective.pca_error
        order = torch.randperm(len(rows), generator=objective.generator).to(rows.device)
        rows = rows[order]
        is_inlying = objective.inlying(rows) >= 0.5
        # Far from all others the map is arbitrary.
        rows = rows[is_inlying] if is_inlying.sum() >= 2 else rows
        self.local_spectrum_ = mean_spectrum(
            self._flow, rows[: affordable_rows(rows.shape[1] ** 2)]
        )
        self._noise_variance = noise_variance_read(self.noise_floor)
        self.intrinsic_dimension_ = int(
            spectral_dimension(self.local_spectrum_, self._noise_variance)
        )
        for stage in range(1, len(latent.stages) + 1):
            self._set_coordinates(stage, rows)
        self.deviation_scale_ = latent.scales().cpu().numpy()
        outliers = self._flow.outliers
        self.outlier_share_ = 0.0 if outliers is None else float(outliers.share)
        if not self._is_settled(objective):
            warn(
                f"The manifold was not found: rows set aside are reconstructed with a mean squared "
                f"error of {self.reconstruction_error_:.3g} per entry in standardised units, "
                f"by PCA with {self.n_components_} components with "
                f"{self.pca_reconstruction_error_:.3g}. Increase max_iter, n_layers, "
                "reconstruction or n_init.",
                ConvergenceWarning,
            )

    def _latents(self, rows):
        """Return the latent rows (n, D) of standardised rows."""
        parts = [
            self._flow.bijection.forward_and_log_det(rows[chunk])[0]
            for chunk in chunks(len(rows), rows.shape[1])
        ]
        return torch.cat(parts)

    def _set_coordinates(self, stage, rows):
        """Choose the matrix that turns the manifold parts of a stage into coordinates.

        With M the mean of J'J over rows, J the Jacobian of rows in data units, moving u M^(1/2) by
        a unit moves a row by a unit in the mean. Its principal axes give the coordinates.
        """
        flow, latent = self._flow, self._flow.latent.stages[stage - 1]
        n_features, d = rows.shape[1], latent.n_components

        def decode(u):
            return flow.decode(flow.latent.embed_stage(u, stage))

        varies = varying_columns(rows)
        metric = torch.zeros(d, d, dtype=torch.float64)
        with torch.no_grad():
            u = flow.latent.project_stage(self._latents(rows), stage)
            picked = u[: affordable_rows(n_features * d)]
            for chunk in chunks(len(picked), n_features * d):
                x, columns = jacobian_columns(decode, picked[chunk], torch.eye(d).to(picked))
                columns = columns_in_data_units(self._standardizer, x, columns, varies)
                metric += (columns.mT @ columns).sum(0) / len(picked)
        lengths, directions = torch.linalg.eigh(metric)
        # Where a coordinate moves nothing its unit is that of the one that moves rows most, so that
        # the matrix keeps its rank in any units of the rows.
        largest = lengths.max() if lengths.max() > 0 else lengths.new_ones(())
        lengths = torch.where(lengths > 0, lengths, largest).sqrt()
        root = directions * lengths @ directions.T
        _, axes, _ = principal_axes((to_host(u) @ root).numpy())
        latent.components = (root @ torch.tensor(axes)).to(latent.components)

    # ------------------------------------------------------------------ inference

    def _check_stage(self, stage):
        """Return the number of a stage, the first one where none is named."""
        n_stages = len(self.stage_components_)
        if stage is None:
            return 1
        if not isinstance(stage, Integral) or not 1 <= stage <= n_stages:
            raise ValueError(f"stage must be between 1 and {n_stages}, or None, got {stage!r}.")
        return int(stage)

    @standard_context()
    def transform(self, X, stage=None):
        """Return the manifold coordinates of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        stage : int or None, default=None
            Stage whose coordinates are returned, from 1. None is the first one, whose manifold
            contains those of the others. Output other than arrays has column names for that one
            only.

        Returns
        -------
        X_new : ndarray of shape (n_samples, `stage_components_[stage - 1]`)
            Coordinates, in the dtype of X.
        """
        X = self._check_rows(X)
        stage = self._check_stage(stage)
        n_columns = self.stage_components_[stage - 1]
        if n_columns != self.n_components_ and (
            _get_output_config("transform", self)["dense"] != "default"
        ):
            raise ValueError(
                f"set_output has names for {self.n_components_} columns only, but stage={stage} "
                f"has {n_columns}: use set_output(transform='default')."
            )

        def coordinates(flow, rows):
            z, _ = flow.bijection.forward_and_log_det(self._to_flow(flow, rows)[0])
            latent = flow.latent.stages[stage - 1]
            return flow.latent.project_stage(z, stage).to(latent.mean) @ latent.components

        return self._per_chunk(X, coordinates, X.dtype, X.shape[1])

    @standard_context()
    def score_samples(self, X, stage=None):
        """Log-density of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        stage : int or None, default=None
            Last stage that is used; with 1 the manifold coordinates are taken as normal. None is
            `best_stage_`, which `score` and `sample` use too.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Natural logarithm of the density with respect to Lebesgue measure of R^n_features, in
            the units of X: it integrates to 1, whatever `n_components` and `stage` are.
        """
        check_is_fitted(self)
        n_stages = None if stage is None else self._check_stage(stage)
        return self._score_samples(X, n_stages=n_stages)

    @standard_context()
    def inverse_transform(self, X, stage=None):
        """Return the rows on the model's manifold that have given coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, `stage_components_[stage - 1]`)
            Coordinates.
        stage : int or None, default=None
            Stage of which they are coordinates, from 1; None is the first one.

        Returns
        -------
        X_original : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units.
        """
        check_is_fitted(self)
        stage = self._check_stage(stage)
        if stage == 1:
            return super().inverse_transform(X)
        given, X = X, check_array(as_array(X), dtype=DTYPES)
        if X.shape[1] != self.stage_components_[stage - 1]:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.stage_components_[stage - 1]} features as input of inverse_transform at "
                f"stage={stage}."
            )

        def embed(flow, coordinates):
            u = flow.latent.stages[stage - 1].from_coordinates(coordinates.to(flow.latent.mean))
            return self._from_flow(flow.decode(flow.latent.embed_stage(u, stage)))

        return self._named(self._per_chunk(X, embed, X.dtype, self.n_features_in_), given)


def _linear_error(mean, axes, rows, weight):
    """Return the mean squared error per entry of rows projected on axes (D, d) through a mean."""
    centred = to_host(rows).numpy() - mean
    errors = np.mean((centred - centred @ axes @ axes.T) ** 2, axis=1)
    weight = to_host(weight).numpy()
    return float(np.average(errors, weights=weight + np.finfo(float).tiny))
