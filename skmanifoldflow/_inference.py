"""What a fitted flow answers: coordinates, log-densities, samples and local dimensions."""

import math
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ._checks import check_coordinates
from ._chunked import ChunkedFlow
from ._dimension import check_scale, dimension_at_scale, spectral_dimension
from ._geometry import MAX_FULL_FEATURES, local_spectra, spectra_in_data_units
from .backend.device import (
    make_generator,
    resolve_device,
    standard_context,
    statistics_dtype,
    to_host,
)
from .backend.flow import chunks

__all__ = ["FittedFlow", "mean_log_density"]

# Standardised values beyond which a flow may overflow: there the density is none.
_FAR = 1e4


def mean_log_density(log_density, sample_weight=None):
    """Return the mean of log-densities of rows, which may have weights, as a float."""
    if sample_weight is None:
        return float(np.mean(log_density, dtype=np.float64))
    weights = _check_sample_weight(
        sample_weight, log_density, dtype=np.float64, ensure_non_negative=True
    )
    # A row that does not count may have no density.
    counts = weights > 0
    return float(np.average(log_density[counts], weights=weights[counts]))


class FittedFlow(
    ChunkedFlow, ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator
):
    """The methods of a model that is fitted."""

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

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> model = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> model.transform(X).shape
        (200, 1)
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

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If coordinates are not finite, or are not `n_components_` columns.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> model = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> model.inverse_transform([[0.0], [1.0]]).shape
        (2, 2)
        """
        check_is_fitted(self)
        given, X = X, check_coordinates(self, X, self.n_components_, "inverse_transform")
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

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> model = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> bool(((X - model.reconstruct(X)) ** 2).mean() < X.var(axis=0).mean())
        True
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

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.
        FloatingPointError
            If the log-density of a row near the training rows is not a number.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> model = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> log_density = model.score_samples([[0.0, 0.0], [9.0, 9.0]])
        >>> bool(log_density[0] > log_density[1])
        True
        """
        return self._score_samples(X)

    def _score_samples(self, X, **kwargs):
        """Return the log-density of rows; keyword arguments go to `log_prob` of the flow."""
        X = self._check_rows(X)

        def log_density(flow, rows):
            standardized, log_det = self._standardizer.forward_and_log_det(rows)
            log_prob = to_host(flow.log_prob(standardized.to(**flow.tensor_options), **kwargs))
            is_nan = log_prob.isnan()
            is_near = standardized.abs().amax(dim=1) <= _FAR
            n_broken = int((is_nan & is_near).sum())
            if n_broken:
                raise FloatingPointError(
                    f"The log-density of {n_broken} rows is not a number, although they are not "
                    "far from the training rows: fit the model again with a smaller "
                    "learning_rate_init or a larger noise_floor."
                )
            # Where a row is so far away that the flow overflows it has no density either.
            log_prob = torch.where(is_nan, -torch.inf, log_prob)
            if self._background is not None:
                log_prob = self._background.mix(standardized, log_prob)
            return log_prob + log_det

        return self._per_chunk(X, log_density, X.dtype, X.shape[1])

    @standard_context()
    def _log_crowding(self, X):
        """Return how close to each other the values of mapped columns are at rows, in nats (n,)."""
        X = self._check_rows(X)

        def log_crowding(flow, rows):
            return self._standardizer.log_crowding(rows)

        return self._per_chunk(X, log_crowding, X.dtype, X.shape[1])

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

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.
            If weights are negative, or not one for each row.
        FloatingPointError
            If the log-density of a row near the training rows is not a number.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> model = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> bool(model.score(X) == model.score_samples(X).mean())
        True
        """
        return mean_log_density(self.score_samples(X), sample_weight)

    @standard_context()
    def sample(
        self,
        n_samples=1,
        *,
        random_state=None,
        temperature=1.0,
        manifold_deviation=1.0,
        rounded=True,
    ):
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
            rows on the manifold, and none of the background of heavy tails.
        rounded : bool, default=True
            Whether discrete columns get values of their grid, between the smallest and the largest
            one that was seen, atoms exactly their value, and dummies 0 or 1, as the training rows
            have them; False draws from the density of `score_samples`, in which these values are
            spread over an interval.

        Returns
        -------
        X : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units; a frame with the names of the columns where
            `set_output`, of the model or global, asks for frames.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If `n_samples` is not an integer >= 1, or `temperature` or `manifold_deviation` is
            negative or not finite.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> model = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> model.sample(3, random_state=0).shape
        (3, 2)
        """
        return self._sample(
            self._flow_sample, n_samples, random_state, temperature, manifold_deviation, rounded
        )

    def _flow_sample(self, n_samples, generator, **options):
        drawn = to_host(self._flow.sample(n_samples, generator, **options))
        return self._with_background(drawn, generator, options["manifold_deviation"])[0]

    def _with_background(self, drawn, generator, manifold_deviation):
        """Draw the share of standardised rows (n, D) anew that follows the background.

        Return rows and which of them are such.
        """
        is_tail = torch.zeros(len(drawn), dtype=torch.bool)
        if self._background is not None and manifold_deviation:
            share = torch.rand(len(drawn), dtype=torch.float64, generator=generator)
            is_tail = share < self._background.weight
            tail = self._background.sample(int(is_tail.sum()), generator)
            drawn = drawn.clone()
            drawn[is_tail] = tail.to(drawn)
        return drawn, is_tail

    def _sample(self, draw, n_samples, random_state, temperature, manifold_deviation, rounded):
        """Check the arguments of `sample` and draw rows chunk by chunk."""
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or int(n_samples) < 1:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples!r}. The sampling requires at least one "
                "sample."
            )
        options = {"temperature": temperature, "manifold_deviation": manifold_deviation}
        for name, value in options.items():
            if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {value!r}.")
        generator = make_generator(check_random_state(random_state).randint(2**31))
        rows = np.empty((n_samples, self.n_features_in_), dtype=self._dtype)
        with torch.no_grad():
            for chunk in chunks(int(n_samples), self.n_features_in_):
                drawn = draw(chunk.stop - chunk.start, generator, **options)
                drawn = self._from_flow(drawn)
                rows[chunk] = self._standardizer.rounded(drawn) if rounded else drawn
        return self._named(rows)

    @standard_context()
    def local_dimension(self, X, *, scale=None):
        """Dimension of the model's manifold around each row.

        Read from the spectrum of the local covariance J C J' in standardised units, with J the
        Jacobian of the latent -> data map at the row and C the covariance of the latent
        distribution: the number of eigenvalues before the widest gap, on a log scale.

        With a scale s it is the number of eigenvalues in units of the data that are above s^2: the
        derivative of the log-density by the log of added noise (LIDL [1]_) where they are far above
        and below. Near s^2 that derivative counts parts of them, which in many columns of noise add
        up to dimensions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        scale : float, default=None
            Standard deviation, in units of the data, up to which a direction counts as noise: at
            least twice that of the noise of the rows, and below that of the shapes. None takes the
            widest gap, which needs no scale but may lie within a manifold that is thin in some
            directions. With more than 256 columns at most 20 dimensions are told apart.

        Returns
        -------
        dimension : ndarray of int of shape (n_samples,)
            Between 1 and `n_features_in_`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.
            If a row is so far from the training rows that the model overflows there, or if `scale`
            is not positive and finite.

        References
        ----------
        .. [1] Tempczyk, P. et al. "LIDL: Local Intrinsic Dimension Estimation Using Approximate
           Likelihood". ICML 2022.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> model = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> model.local_dimension(X).shape
        (200,)
        >>> model.local_dimension(X, scale=0.2).shape
        (200,)
        """
        X = self._check_rows(X)
        if scale is not None:
            return self._dimension_at_scale(X, check_scale(scale))
        spectra = self._local_spectra(X, np.dtype(np.float64))
        return spectral_dimension(spectra, self._noise_variance)

    def _dimension_at_scale(self, X, scale):
        """Return the dimensions (n,) of rows from their spectra in units of the data."""

        def spectra(flow, rows):
            return spectra_in_data_units(flow, self._standardizer, self._to_flow(flow, rows)[0])

        n_entries = X.shape[1] * min(X.shape[1], MAX_FULL_FEATURES)
        values = self._per_chunk(X, spectra, np.dtype(np.float64), n_entries)
        return dimension_at_scale(values, scale)

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

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If there is no such device, or torch was built without it.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> model = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> model.to("cpu").device_
        'cpu'
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
