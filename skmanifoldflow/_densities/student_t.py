"""The background of heavy tails as a density of its own: rows that no other density expects."""

import numpy as np
import torch

from .._checks import check_rows
from .._few_rows import FewRows, are_few, shrinkage_of
from .._table import rows_to_tensor
from ..backend.background import Background
from ..backend.device import make_generator, standard_context
from ..backend.standardize import Standardizer
from .base import BaseDensity

__all__ = ["StudentT"]

# The least scale, in those of the columns.
_FLOOR = 1e-3


class StudentT(BaseDensity):
    """Multivariate t distribution with 3 degrees of freedom, at maximum likelihood.

    It is the background of every flow (:class:`~skmanifoldflow.backend.background.Background`),
    fitted as it is there: where rows are few, to rows with their shrunk covariance.

    Attributes
    ----------
    location_ : ndarray of shape (n_features,)
        The centre m.
    scale_ : ndarray of shape (n_features, n_features)
        The matrix S.
    """

    @standard_context()
    def fit(self, X, y=None):
        """Fit the distribution to rows (n, D); y is ignored."""
        X = check_rows(self, X, ensure_min_samples=2)
        n_features, generator = X.shape[1], make_generator(0)
        raw = rows_to_tensor(X)[torch.randperm(len(X), generator=generator)]
        self._standardizer = Standardizer(n_features).fit(raw)
        rows = self._standardizer.forward_and_log_det(raw)[0]
        scale, shrinkage = self._standardizer.scale.numpy(), None
        if are_few(len(rows), n_features):
            shrinkage = shrinkage_of(rows.numpy(), scale)
        if shrinkage is not None:
            self._standardizer.fit_blocks([(raw, None)], shrinkage.pooling)
            rows = self._standardizer.forward_and_log_det(raw)[0]
            rows = FewRows(shrinkage, rows).sample(rows, generator)
        self._background = Background(n_features).fit(rows, _FLOOR)
        return self

    @property
    def location_(self):
        """The centre in the units of the rows."""
        return self._standardizer.inverse(self._background.location[None])[0].numpy()

    @property
    def scale_(self):
        """The matrix S in the units of the rows."""
        root, scale = self._background.root.numpy(), self._standardizer.scale.numpy()
        root = np.diag(root) if root.ndim == 1 else root
        return scale[:, None] * (root @ root.T) * scale

    @standard_context()
    def score_samples(self, X):
        """Return the log-density (n,) of rows, in nats in the units of X."""
        X = self._check_rows(X)
        rows, log_det = self._standardizer.forward_and_log_det(rows_to_tensor(X))
        return (self._background.log_prob(rows) + log_det).numpy().astype(X.dtype)

    @standard_context()
    def sample(self, n_samples=1, *, random_state=None):
        """Draw rows (n_samples, D)."""
        rng = self._check_sample(n_samples, random_state)
        generator = make_generator(rng.randint(2**31))
        return self._standardizer.inverse(self._background.sample(n_samples, generator)).numpy()
