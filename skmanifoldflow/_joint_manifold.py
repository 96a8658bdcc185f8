"""JointManifoldFlow: a manifold and the density on it, learned in one step."""

import warnings
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._base import _DTYPES, BaseManifoldFlow
from ._dimension import spectral_dimension
from ._linear_start import supported_components
from .backend.architectures import density_flow, split_flow
from .backend.bijections import Chain, PrincipalAxes
from .backend.flow import ManifoldFlow, chunks
from .backend.geometry import jacobian_columns
from .backend.latents import PenalizedSplit
from .backend.objectives import JointLikelihood
from .backend.standardize import Standardizer
from .backend.training import train

__all__ = ["JointManifoldFlow"]

_N_STAGE_LAYERS = 4
_NOISE_READ = 0.02
_MAX_GEOMETRY_ROWS = 256
_MAX_GEOMETRY_ENTRIES = 2**20
_MAX_PCA_ROWS = 20_000


class JointManifoldFlow(BaseManifoldFlow):
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
        noise_floor=0.01,
        bounded=None,
        dequantize=False,
        max_iter=100,
        batch_size="auto",
        learning_rate_init=5e-3,
        weight_decay=0.0,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=20,
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

    def _check_method_parameters(self, n_features):
        pass

    def _auto_batch_size(self, n_samples, n_features):
        return max(64, min(512, n_samples // 40))

    def _flow_config(self, raw):
        shape = self.image_shape and tuple(int(k) for k in self.image_shape)
        if self.n_components is None:
            standardizer = Standardizer(raw.shape[1], self.bounded, shape).fit(raw)
            d = supported_components(standardizer.forward_and_log_det(raw)[0].numpy())
        else:
            d = int(self.n_components)
        further = self.stage_components
        if further is None:
            further = (d,) * (self.n_stages - 1)
        return {
            "flow": self.flow,
            "n_features": raw.shape[1],
            "components": (d, *map(int, further)),
            "n_layers": self.n_layers,
            "hidden_layer_sizes": tuple(int(size) for size in self.hidden_layer_sizes),
            "image_shape": shape,
            "split": self.split,
            "penalty": self.penalty,
            "noise_floor": self.noise_floor,
            "bounded": self.bounded,
        }

    @staticmethod
    def _build_flow(config, generator):
        sizes = config["hidden_layer_sizes"]
        widths = (config["n_features"], *config["components"])
        flows = []
        for i, (n_before, d) in enumerate(zip(widths, widths[1:], strict=False)):
            layers = []
            if i == 0:
                layers.append(PrincipalAxes(n_before, d, floor=config["noise_floor"]))
            if i == 0 or d < n_before:
                layers.append(
                    split_flow(
                        config["flow"], n_before, d, config["n_layers"], sizes, generator=generator
                    )
                )
            if i > 0 and d == n_before:
                layers.append(
                    density_flow("spline", d, _N_STAGE_LAYERS, sizes, generator=generator)
                )
            law = PenalizedSplit(n_before, d, penalty=config["penalty"])
            flows.append((Chain(layers), law))
        for (_, law), stage in zip(flows, flows[1:], strict=False):
            law.set_stage(*stage)
        return ManifoldFlow(*flows[0])

    def _make_objective(self, flow, rows, generator, is_warm):
        if not is_warm:
            self._start(flow, rows)
        objective = JointLikelihood(
            flow,
            reconstruction=self.reconstruction,
            noise_start=self.noise_start,
            noise_floor=self.noise_floor,
            generator=generator,
        )
        return objective

    def _start(self, flow, rows):
        law = flow.latent
        device = law.mean.device
        with torch.no_grad():
            flow.place(torch.device("cpu"), torch.float64)
            z = flow.bijection.start(rows[:_MAX_PCA_ROWS])
            axes = flow.bijection.bijections[0]
            d = law.n_components
            if d < law.n_features:
                floor = self.noise_floor / axes.scale[d:]
                law.start_scales(law.penalty.fit_scale(z[:, d:], 1e-3), floor)
            flow.place(device, torch.float32)

    def _train(self, objective, draw_rows, validation_rows, settings, generator, log):
        law = objective.law
        stages = [(law_.refinement, law_.inner) for law_ in law.stages[:-1]]
        law.set_stage(None, None)
        trainable = any(p.requires_grad for p in objective.parameters())
        report = train(objective, draw_rows, validation_rows, settings, generator, log)
        objective.stage_scores = [self._stage_score(objective, draw_rows, validation_rows)]
        for refinement, inner in stages:
            objective.flow.requires_grad_(False)
            objective.law.stages[-1].set_stage(refinement, inner)
            refinement.requires_grad_(trainable)
            inner.requires_grad_(trainable)
            inner.set_stage(None, None)
            train(objective, draw_rows, validation_rows, settings, generator, log)
            objective.stage_scores.append(
                self._stage_score(objective, draw_rows, validation_rows)
            )
        return report

    @staticmethod
    def _stage_score(objective, draw_rows, validation_rows):
        rows = draw_rows() if validation_rows is None else validation_rows
        with torch.no_grad():
            return float(torch.cat([objective.flow.log_prob(rows[c]) for c in chunks(len(rows), rows.shape[1])]).mean())

    def _finish(self, objective, rows):
        law = self._flow.latent
        d, n_features = law.n_components, rows.shape[1]
        self.n_components_ = d
        order = torch.randperm(len(rows), generator=objective.generator)
        picked = rows[order[: self._n_geometry_rows(n_features * d)].to(rows.device)]
        varies = (rows != 0).any(dim=0) if bool((rows != 0).any()) else torch.ones_like(rows[0])
        spectra = []
        metric = torch.zeros_like(law.components).cpu()
        with torch.no_grad():
            factor = law.covariance_factor()
            for chunk in chunks(self._n_geometry_rows(n_features**2), n_features**2):
                z = self._flow.bijection.forward_and_log_det(picked[chunk])[0]
                _, columns = jacobian_columns(self._flow.decode, z, factor.T.to(z))
                spectra.append(torch.linalg.svdvals(columns.to("cpu", torch.float64)).square())
            u = torch.cat([
                law.split_off(self._flow.bijection.forward_and_log_det(rows[c])[0])
                for c in chunks(len(rows), n_features)
            ]).to(law.mean)
            for chunk in chunks(len(picked), n_features * d):
                z = self._flow.bijection.forward_and_log_det(picked[chunk])[0]
                x, columns = jacobian_columns(
                    lambda u: self._flow.decode(law.complete(u)), z[:, :d], torch.eye(d).to(z)
                )
                slope = self._standardizer.inverse_slope(x.to("cpu", torch.float64)) * varies.cpu()
                columns = slope[:, :, None] * columns.to(slope)
                metric += (columns.mT @ columns).sum(0) / len(picked)
        eigenvalues, basis = torch.linalg.eigh(metric)
        eigenvalues = torch.where(eigenvalues > 0, eigenvalues, 1.0)
        root = basis * eigenvalues.sqrt() @ basis.T
        y = u.cpu() @ root
        y = y - y.mean(0)
        variances, axes = torch.linalg.eigh(y.T @ y / len(y))
        axes = axes.flip(1)
        axes = axes * torch.sign(axes.gather(0, axes.abs().argmax(0, keepdim=True)))
        law.components = (root @ axes).to(law.mean)
        self.local_spectrum_ = torch.cat(spectra).log().mean(0).exp().numpy()
        self._noise_variance = max(self.noise_floor, _NOISE_READ) ** 2
        self.intrinsic_dimension_ = int(spectral_dimension(self.local_spectrum_, self._noise_variance))
        self.stage_scores_ = objective.stage_scores

    def _n_geometry_rows(self, n_entries):
        return max(2, min(_MAX_GEOMETRY_ROWS, _MAX_GEOMETRY_ENTRIES // n_entries))
