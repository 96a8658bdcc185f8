"""Coordinates, densities and rows at each stage of a fitted JointManifoldFlow."""

from numbers import Integral

import numpy as np
import torch
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted

from .._checks import check_coordinates
from .._manifold_density import ManifoldDensityMixin
from .._nearest import nearer_coordinates
from ..backend.device import standard_context

__all__ = ["StagedFlow"]


class StagedFlow(ManifoldDensityMixin):
    """Methods of a fitted model that take a stage."""

    #: Median distance of training rows from their points on the manifold, and mean of these rows,
    #: in standardised units; None in models of earlier versions, whose coordinates are the flow's.
    _typical_distance: float | None = None
    _mean_row: np.ndarray | None = None

    def _project(self, flow, rows):
        x = self._to_flow(flow, rows)[0]
        return self._nearer(flow, x, flow.project(x))

    def _nearer(self, flow, x, u):
        """Return coordinates of standardised rows, others than u where these rebuild them poorly.

        With as many coordinates as columns there is nothing to rebuild.
        """
        if self._typical_distance is None or self.n_components_ == self.n_features_in_:
            return u
        mean = torch.tensor(self._mean_row)
        return nearer_coordinates(flow, x, u, self._typical_distance, mean)

    @standard_context()
    def transform(self, X, stage=None):
        """Return the manifold coordinates of rows.

        They are those of the flow. Where the point that these have on the manifold is farther from
        the row than five times the median distance of the training rows, or than twice that and the
        mean of these rows, they are those of a nearer point, found by a search.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        stage : int or None, default=None
            Stage whose coordinates are returned, from 1. None is the first stage, whose manifold
            contains those of the other stages.

        Returns
        -------
        X_new : ndarray of shape (n_samples, `stage_components_[stage - 1]`)
            Coordinates, in the dtype of X.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If X is not finite, if the number of its columns is not that of the training rows, or if
            the model has no such stage. Also if `set_output` asks for a frame and the stage has
            fewer coordinates than the first stage, since there are column names for that stage
            only.
        TypeError
            If X is sparse.

        Examples
        --------
        >>> from skmanifoldflow import JointManifoldFlow
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(100, random_state=0)
        >>> options = {"n_layers": 2, "max_iter": 2, "random_state": 0}
        >>> model = JointManifoldFlow(2, stage_components=(1,), **options).fit(X)
        >>> model.transform(X).shape, model.transform(X, stage=2).shape
        ((100, 2), (100, 1))
        """
        X = self._check_rows(X)
        stage = self._check_stage(stage)
        self._check_output_names(stage)

        def coordinates(flow, rows):
            u = self._project(flow, rows)
            if stage == 1:
                return u
            latent, z = flow.latent.stages[stage - 1], flow.latent.embed(u)
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
            Last stage that is used, from 1. With 1 the manifold coordinates have a normal
            distribution. None is `best_stage_`, which `score` and `sample` use too.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Natural logarithm of the density with respect to the Lebesgue measure of R^n_features,
            in the units of X. The density integrates to 1 for every `n_components` and every
            `stage`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If X is not finite, if the number of its columns is not that of the training rows, or if
            the model has no such stage.
        TypeError
            If X is sparse.
        FloatingPointError
            If the log-density of a row near the training rows is not a number.

        Examples
        --------
        >>> from skmanifoldflow import JointManifoldFlow
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(100, random_state=0)
        >>> model = JointManifoldFlow(2, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> model.score_samples(X).shape, model.score_samples(X, stage=1).shape
        ((100,), (100,))
        """
        # Rows are checked by `_score_samples`, and a stage that is not named needs no check.
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
            Stage of the coordinates, from 1; None is the first stage.

        Returns
        -------
        X_original : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units; a frame with the names of the columns if `set_output`, of the model
            or global, asks for frames.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If X is not finite, if the number of its columns is not that of the coordinates of the
            stage, or if the model has no such stage.
        TypeError
            If X is sparse.

        Examples
        --------
        >>> from skmanifoldflow import JointManifoldFlow
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(100, random_state=0)
        >>> options = {"n_layers": 2, "max_iter": 2, "random_state": 0}
        >>> model = JointManifoldFlow(2, stage_components=(1,), **options).fit(X)
        >>> on_curve = model.inverse_transform([[-1.0], [0.0], [1.0]], stage=2)
        >>> on_curve.shape
        (3, 3)
        """
        stage = self._check_stage(stage)
        if stage == 1:
            return super().inverse_transform(X)
        n_columns, method = self.stage_components_[stage - 1], f"inverse_transform at stage={stage}"
        given, X = X, check_coordinates(self, X, n_columns, method)

        def embed(flow, coordinates):
            u = flow.latent.stages[stage - 1].from_coordinates(coordinates.to(flow.latent.mean))
            return self._from_flow(flow.decode(flow.latent.embed_stage(u, stage)))

        return self._named(self._per_chunk(X, embed, X.dtype, self.n_features_in_), given)

    def _check_stage(self, stage):
        """Return the number of a stage, from 1; None is the first one."""
        check_is_fitted(self)
        n_stages = len(self.stage_components_)
        if stage is None:
            return 1
        if not isinstance(stage, Integral) or not 1 <= int(stage) <= n_stages:
            raise ValueError(f"stage must be between 1 and {n_stages}, or None, got {stage!r}.")
        return int(stage)

    def _check_output_names(self, stage):
        """Raise ValueError if `set_output` needs names for coordinates that have none."""
        n_columns = self.stage_components_[stage - 1]
        container = _get_output_config("transform", self)["dense"]
        if n_columns != self.n_components_ and container != "default":
            raise ValueError(
                f"set_output has names for {self.n_components_} columns only, but stage={stage} "
                f"has {n_columns}: use set_output(transform='default')."
            )
