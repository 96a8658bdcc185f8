"""ManifoldPriorFlow: a volume-preserving flow with a learned, degenerate normal prior."""

from numbers import Real

import numpy as np
import torch
from scipy.sparse.csgraph import shortest_path
from sklearn.neighbors import kneighbors_graph
from sklearn.utils._param_validation import Interval, StrOptions

from ._base import BaseManifoldFlow
from ._dimension import spectral_dimension
from .backend.architectures import volume_preserving_flow
from .backend.flow import ManifoldFlow, chunks
from .backend.geometry import jacobian_columns
from .backend.latents import LearnedCovariance
from .backend.objectives import Geodesics, SpreadLikelihood

__all__ = ["ManifoldPriorFlow"]

# Rows whose neighbourhood graph gives geodesic distances, the rows between which they are taken,
# and the neighbours of each.
_MAX_GRAPH_ROWS = 4000
_MAX_LANDMARKS = 500
_N_NEIGHBORS = 10
# Below this many rows a neighbourhood graph says nothing about a shape.
_MIN_GRAPH_ROWS = 100
# Rows at which the local covariance is looked at for the global answer.
_MAX_SPECTRUM_ROWS = 256


class ManifoldPriorFlow(BaseManifoldFlow):
    __doc__ = "PLACEHOLDER"

    _parameter_constraints: dict = {
        **BaseManifoldFlow._parameter_constraints,
        "flow": [StrOptions({"affine", "additive"})],
        "spread": [StrOptions({"data", "latent"})],
        "prior_update": [StrOptions({"closed_form", "gradient"})],
        "entropy": [StrOptions({"ignore", "taylor"})],
        "isometry": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components=None,
        *,
        flow="affine",
        n_layers=8,
        hidden_layer_sizes=(64, 64),
        spread="data",
        prior_update="closed_form",
        entropy="ignore",
        isometry=0.1,
        noise_start=0.3,
        noise_floor=0.02,
        bounded=None,
        dequantize=False,
        max_iter=100,
        batch_size="auto",
        learning_rate_init=2e-3,
        weight_decay=0.0,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=20,
        tol=1e-4,
        n_init=1,
        warm_start=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.n_components = n_components
        self.flow = flow
        self.n_layers = n_layers
        self.hidden_layer_sizes = hidden_layer_sizes
        self.spread = spread
        self.prior_update = prior_update
        self.entropy = entropy
        self.isometry = isometry
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
        if self.entropy == "taylor" and self.spread == "data":
            raise ValueError(
                "entropy='taylor' needs spread='latent': with spread='data' the entropy does not "
                "depend on the flow."
            )

    def _flow_config(self, n_features):
        return {
            "flow": self.flow,
            "n_features": n_features,
            "n_layers": self.n_layers,
            "hidden_layer_sizes": tuple(int(size) for size in self.hidden_layer_sizes),
            "n_free": self.n_components,
            "bounded": self.bounded,
        }

    @staticmethod
    def _build_flow(config, generator):
        bijection = volume_preserving_flow(
            config["flow"],
            config["n_features"],
            config["n_layers"],
            config["hidden_layer_sizes"],
            generator=generator,
        )
        return ManifoldFlow(bijection, LearnedCovariance(config["n_features"], config["n_free"]))

    def _make_objective(self, flow, rows, generator):
        geodesics = None
        if self.isometry and len(rows) >= _MIN_GRAPH_ROWS and rows.shape[1] > 1:
            geodesics = _geodesics(rows, generator)
        objective = SpreadLikelihood(
            flow,
            spread=self.spread,
            prior_update=self.prior_update,
            entropy=self.entropy,
            isometry=self.isometry,
            noise_start=self.noise_start,
            noise_floor=self.noise_floor,
            geodesics=geodesics,
            generator=generator,
        )
        objective.start_prior(rows)
        return objective

    def _finish(self, objective, rows):
        objective.refresh(rows)
        law = self._flow.latent
        order = torch.randperm(len(rows), generator=objective.generator)
        picked = rows[order[:_MAX_SPECTRUM_ROWS].to(rows.device)]
        spectra, lengths = [], []
        with torch.no_grad():
            for chunk in chunks(len(picked), rows.shape[1] ** 2):
                z = self._flow.bijection.forward_and_log_det(picked[chunk])[0]
                x, columns = jacobian_columns(self._flow.decode, z, law.eigenvectors.T.to(z))
                local = columns.to(law.spectrum) * law.spectrum.sqrt()
                spectra.append(torch.linalg.svdvals(local).square())
                slope = self._standardizer.inverse_slope(x.to("cpu", torch.float64))
                lengths.append((slope[:, :, None] * columns.cpu()).square().sum(1))
        self.local_spectrum_ = torch.cat(spectra).log().mean(0).exp().cpu().numpy()
        self.intrinsic_dimension_ = int(
            spectral_dimension(self.local_spectrum_, self.noise_floor**2)
        )
        self.n_components_ = self.n_components or self.intrinsic_dimension_
        law.set_components(self.n_components_, torch.cat(lengths).mean(0).sqrt())
        variance = law.eigenvalues * law.component_scale.square()
        self.prior_eigenvalues_ = variance.cpu().numpy()


def _geodesics(rows, generator):
    """Return rows and their distances along the nearest-neighbour graph (as Isomap measures them).

    Tenenbaum, de Silva & Langford, Science 290 (2000); computed on a random part of many rows.
    """
    n = len(rows)
    picked = torch.randperm(n, generator=generator)[:_MAX_GRAPH_ROWS].to(rows.device)
    graph_rows = rows[picked]
    graph = kneighbors_graph(graph_rows.cpu().numpy(), _N_NEIGHBORS, mode="distance")
    n_landmarks = min(len(picked), _MAX_LANDMARKS)
    distances = shortest_path(graph, directed=False, indices=np.arange(n_landmarks))
    distances = torch.tensor(distances[:, :n_landmarks], dtype=rows.dtype)
    mean_square = float(distances[torch.isfinite(distances)].square().mean())
    if mean_square == 0.0:
        return None
    return Geodesics(graph_rows[:n_landmarks], distances.to(rows.device), mean_square)
