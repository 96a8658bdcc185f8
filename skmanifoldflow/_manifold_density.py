"""Density on the manifold of a fitted flow that has a single one."""

from ._inference import FittedFlow
from .backend.device import standard_context, to_host
from .backend.geometry import log_volume_element

__all__ = ["ManifoldDensityMixin"]


class ManifoldDensityMixin(FittedFlow):
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
        >>> model.score_samples_manifold(X).shape
        (200,)
        """
        X = self._check_rows(X)

        def log_density(flow, rows):
            u = self._project(flow, rows)
            embedded, jacobian = flow.embedding_jacobian(u)
            slope = self._standardizer.inverse_slope(to_host(embedded))
            jacobian = slope[:, :, None] * to_host(jacobian)
            return flow.latent.log_prob_manifold(u).cpu() - log_volume_element(jacobian)

        return self._per_chunk(X, log_density, X.dtype, X.shape[1] * self.n_components_)
