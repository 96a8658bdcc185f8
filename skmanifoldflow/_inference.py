"""What a fitted flow answers: coordinates, log-densities, samples and local dimensions."""

import copy
import math
from collections.abc import Callable
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.utils import check_array, check_random_state
from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ._checks import DTYPES, as_array, check_rows
from ._dimension import spectral_dimension
from ._geometry import local_spectra
from ._state import StoredFlow
from .backend.device import (
    make_generator,
    resolve_device,
    standard_context,
    statistics_dtype,
    to_host,
)
from .backend.flow import FlowModel, chunks
from .backend.geometry import log_volume_element

__all__ = ["FittedFlow", "ManifoldDensityMixin", "rows_to_tensor"]

# Standardised values beyond which a flow may overflow: there the density is none.
_FAR = 1e4


def rows_to_tensor(rows):
    """Return a float64 CPU copy of rows, which may be read-only or have negative strides."""
    return torch.tensor(np.ascontiguousarray(rows), dtype=torch.float64)


class FittedFlow(
    StoredFlow, ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator
):
    """The methods of a model that is fitted."""

    def _flow_in(self, dtype) -> FlowModel:
        """Return the fitted flow in the dtype that rows of a numpy dtype are computed in."""
        options = self._flow.tensor_options
        wanted = torch.float32 if dtype == np.float32 else statistics_dtype(options["device"])
        if options["dtype"] == wanted:
            return self._flow
        return copy.deepcopy(self._flow).move_to(options["device"], wanted)

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
        """Project rows on the model's manifold, along its latent distribution.

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
        """Return the log-density of rows; keyword arguments go to `log_prob` of the flow."""
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

    def _flow_sample(self, n_samples, generator, **options):
        return self._flow.sample(n_samples, generator, **options)

    def _sample(self, draw, n_samples, random_state, temperature, manifold_deviation):
        """Check the arguments of `sample` and draw rows chunk by chunk."""
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples!r}. The sampling requires at least one "
                "sample."
            )
        options = {"temperature": temperature, "manifold_deviation": manifold_deviation}
        for name, value in options.items():
            if not isinstance(value, Real) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {value!r}.")
        generator = make_generator(check_random_state(random_state).randint(2**31))
        rows = np.empty((n_samples, self.n_features_in_), dtype=self._dtype)
        with torch.no_grad():
            for chunk in chunks(n_samples, self.n_features_in_):
                drawn = draw(chunk.stop - chunk.start, generator, **options)
                rows[chunk] = self._from_flow(drawn).numpy()
        return self._named(rows)

    @standard_context()
    def local_dimension(self, X):
        """Dimension of the model's manifold around each row.

        Read from the spectrum of the local covariance J C J' in standardised units, with J the
        Jacobian of the latent -> data map at the row and C the covariance of the latent
        distribution: the number of eigenvalues before the widest gap, on a log scale.

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

        def spectra(flow, rows):
            return local_spectra(flow, self._to_flow(flow, rows)[0])

        return self._per_chunk(X, spectra, dtype, X.shape[1] ** 2)

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
        dtype = statistics_dtype(target) if self._dtype == np.float64 else torch.float32
        self._flow.move_to(target, dtype)
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
