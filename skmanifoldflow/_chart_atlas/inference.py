"""Methods of a fitted ChartAtlasFlow that concern its charts: membership, coordinates, samples."""

import numpy as np
from scipy.special import softmax
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from .._checks import check_coordinates
from .._inference import FittedFlow
from ..backend.device import standard_context, to_host

__all__ = ["ChartInference"]


class ChartInference(FittedFlow):
    """Charts of rows, coordinates in charts, and samples from charts."""

    n_charts_: int
    chart_weights_: np.ndarray
    chart_dimensions_: np.ndarray

    @standard_context()
    def covering_charts(self, X):
        """Charts that cover each row, by the distances of its code from their centres.

        Let d_k be the distance of the code of a row, `transform(X)`, from the centre of chart k, an
        entry of `codebook_`. The chart covers the row if d_k is at most 1 + `overlap` times the
        m-th smallest of these distances (Sidheekh et al., 2022, U_k), where m is
        `n_neighbors_charts`. If there are several partitions of the rows, the distances are those
        within one partition; in a partition of fewer than m charts every chart covers every row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        covers : ndarray of bool of shape (n_samples, `n_charts_`)
            Whether each chart covers each row. At least m charts of each partition do.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Notes
        -----
        In training, the charts of a row are those that cover it and, on tables, the chart of each
        partition in which the row was most probable at the start. The density and `predict_proba`
        do not depend on the cover: they take all charts.

        Examples
        --------
        >>> from skmanifoldflow import ChartAtlasFlow
        >>> from skmanifoldflow.datasets import LinkedCircles
        >>> X, _ = LinkedCircles(noise=0.05).sample(30, random_state=0)
        >>> model = ChartAtlasFlow(n_charts=3, n_neighbors_charts=1, random_state=0).fit(X)
        >>> model.covering_charts(X).shape
        (30, 3)
        """
        X = self._check_rows(X)

        def covering(flow, rows):
            return flow.covering(self._to_flow(flow, rows)[0])

        n_elements = max(X.shape[1], self.n_charts_)
        return self._per_chunk(X, covering, X.dtype, n_elements).astype(bool)

    @standard_context()
    def predict_proba(self, X):
        """Probability of each chart given rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, `n_charts_`)
            p(k|x), proportional to p_k p(x|k); rows sum to 1. Where no chart has any density, far
            from the training rows, it is p_k.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from skmanifoldflow import ChartAtlasFlow
        >>> from skmanifoldflow.datasets import LinkedCircles
        >>> X, _ = LinkedCircles(noise=0.05).sample(30, random_state=0)
        >>> model = ChartAtlasFlow(n_charts=3, random_state=0).fit(X)
        >>> model.predict_proba(X[:5]).shape
        (5, 3)
        """
        return self._predict_proba(self._check_rows(X))

    def _predict_proba(self, X):
        def log_joint_of_all(flow, rows):
            return flow.log_joint_of_all(self._to_flow(flow, rows)[0])

        n_elements = max(X.shape[1], self.n_charts_)
        log_joint = self._per_chunk(X, log_joint_of_all, X.dtype, n_elements).astype(np.float64)
        # Where no chart has any density left the weights alone decide.
        is_lost = ~np.isfinite(log_joint).any(axis=1)
        log_joint[is_lost] = np.log(self.chart_weights_)
        return softmax(np.nan_to_num(log_joint, nan=-np.inf, posinf=np.inf), axis=1)

    def predict(self, X):
        """Most probable chart of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        charts : ndarray of int of shape (n_samples,)
            Index of the chart, from 0 to `n_charts_` - 1.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        Rows of two clusters, in two charts:

        >>> from skmanifoldflow import ChartAtlasFlow
        >>> X = [[0.0, 0.1], [0.3, 0.0], [0.1, 0.2], [8.0, 8.3], [8.1, 8.1], [8.4, 8.0]]
        >>> charts = ChartAtlasFlow(n_charts=2, random_state=0).fit(X).predict(X)
        >>> bool(charts[0] == charts[1] == charts[2]), bool(charts[0] == charts[3])
        (True, False)
        """
        return self.predict_proba(X).argmax(axis=1)

    @standard_context()
    def chart_transform(self, X, charts=None):
        """Coordinates of rows in the base space of charts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        charts : array-like of int of shape (n_samples,), default=None
            Chart of each row; None takes the most probable chart.

        Returns
        -------
        Z : ndarray of shape (n_samples, `n_features_in_`)
            f_k(x), standard normal under the model. The coordinates along the chart come first,
            as many as `chart_dimensions_` says, except for images.
        charts : ndarray of int of shape (n_samples,)
            Chart of each row.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.
            If `charts` does not hold one integer from 0 to `n_charts_` - 1 for each row.

        Examples
        --------
        >>> from skmanifoldflow import ChartAtlasFlow
        >>> from skmanifoldflow.datasets import LinkedCircles
        >>> X, _ = LinkedCircles(noise=0.05).sample(30, random_state=0)
        >>> model = ChartAtlasFlow(n_charts=3, random_state=0).fit(X)
        >>> Z, charts = model.chart_transform(X)
        >>> Z.shape, charts.shape
        ((30, 3), (30,))
        """
        X = self._check_rows(X)
        if charts is None:
            charts = self._predict_proba(X).argmax(axis=1)
        else:
            charts = self._check_charts(charts, len(X))
        return self._chart_transform(X, charts), charts

    def _chart_transform(self, X, charts):
        def to_latent(flow, rows, charts):
            return flow.to_latent(self._to_flow(flow, rows)[0], charts)

        return self._per_pair(to_latent, X, charts)

    @standard_context()
    def chart_inverse_transform(self, Z, charts):
        """Rows that have the given coordinates in the given charts: inverse of `chart_transform`.

        Parameters
        ----------
        Z : array-like of shape (n_samples, `n_features_in_`)
            Coordinates in the base space.
        charts : array-like of int of shape (n_samples,)
            Chart of each row.

        Returns
        -------
        X : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If coordinates are not finite, or do not have `n_features_in_` columns.
            If `charts` does not hold one integer from 0 to `n_charts_` - 1 for each row.

        Examples
        --------
        >>> import numpy as np
        >>> from skmanifoldflow import ChartAtlasFlow
        >>> from skmanifoldflow.datasets import LinkedCircles
        >>> X, _ = LinkedCircles(noise=0.05).sample(30, random_state=0)
        >>> model = ChartAtlasFlow(n_charts=3, random_state=0).fit(X)
        >>> bool(np.allclose(model.chart_inverse_transform(*model.chart_transform(X)), X))
        True
        """
        check_is_fitted(self)
        Z = check_coordinates(self, Z, self.n_features_in_, "chart_inverse_transform", "Z")

        def from_latent(flow, rows, charts):
            return self._from_flow(flow.from_latent(rows, charts))

        return self._per_pair(from_latent, Z, self._check_charts(charts, len(Z)))

    def _per_pair(self, function, rows, charts):
        """Apply a function of (flow, rows, charts) chunk by chunk to rows and their charts."""

        def of_pairs(flow, pairs):
            of_rows = pairs[:, -1].long().to(flow.weights.device)
            return function(flow, pairs[:, :-1], of_rows)

        # float64 holds all integers that number charts.
        pairs = np.column_stack([rows.astype(np.float64), charts])
        return self._per_chunk(pairs, of_pairs, rows.dtype, rows.shape[1])

    def _check_charts(self, charts, n_rows):
        charts = check_array(charts, ensure_2d=False, dtype=None)
        if charts.shape != (n_rows,) or not np.issubdtype(charts.dtype, np.integer):
            raise ValueError(
                f"charts must hold an integer for each of {n_rows} rows, got an array of shape "
                f"{charts.shape} and dtype {charts.dtype}."
            )
        if charts.min() < 0 or charts.max() >= self.n_charts_:
            raise ValueError(
                f"charts must lie between 0 and n_charts_ - 1 = {self.n_charts_ - 1}, got values "
                f"between {charts.min()} and {charts.max()}."
            )
        return charts

    @standard_context()
    def latent_samples(self, X, *, random_state=None):
        """Draw a chart of each row, k ~ p(k|x), and return the base coordinates in it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        random_state : int, RandomState instance or None, default=None
            Source of the draw; pass an int for the same charts at every call.

        Returns
        -------
        Z : ndarray of shape (n_samples, `n_features_in_`)
            f_k(x), the stochastic inference of Sidheekh et al. (2022).

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.
            If `random_state` is no seed.

        Examples
        --------
        >>> from skmanifoldflow import ChartAtlasFlow
        >>> from skmanifoldflow.datasets import LinkedCircles
        >>> X, _ = LinkedCircles(noise=0.05).sample(30, random_state=0)
        >>> model = ChartAtlasFlow(n_charts=3, random_state=0).fit(X)
        >>> model.latent_samples(X, random_state=0).shape
        (30, 3)
        """
        X = self._check_rows(X)
        edges = self._predict_proba(X).cumsum(axis=1)
        uniform = check_random_state(random_state).uniform(size=(len(X), 1))
        charts = np.minimum((edges < uniform * edges[:, -1:]).sum(axis=1), self.n_charts_ - 1)
        return self._chart_transform(X, charts)

    @standard_context()
    def expected_latent(self, X):
        """Mean of the base coordinates of rows over their charts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        Z : ndarray of shape (n_samples, `n_features_in_`)
            The sum over all charts of p(k|x) f_k(x), the deterministic inference of Sidheekh et al.
            (2022).

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from skmanifoldflow import ChartAtlasFlow
        >>> from skmanifoldflow.datasets import LinkedCircles
        >>> X, _ = LinkedCircles(noise=0.05).sample(30, random_state=0)
        >>> model = ChartAtlasFlow(n_charts=3, random_state=0).fit(X)
        >>> model.expected_latent(X).shape
        (30, 3)
        """
        X = self._check_rows(X)
        probabilities = self._predict_proba(X)
        Z = np.zeros(X.shape, dtype=X.dtype)
        for k in range(self.n_charts_):
            # A smaller probability is lost in rounding.
            rows = np.flatnonzero(probabilities[:, k] > np.finfo(np.float64).eps)
            if len(rows):
                z = self._chart_transform(X[rows], np.full(len(rows), k))
                Z[rows] += (probabilities[rows, k, None] * z).astype(X.dtype)
        return Z

    @standard_context()
    def sample(
        self,
        n_samples=1,
        *,
        random_state=None,
        temperature=1.0,
        manifold_deviation=1.0,
        rounded=True,
        return_charts=False,
    ):
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Source of the draw; pass an int for the same rows at every call.
        temperature : float, default=1.0
            Factor of the variance of the base coordinates along the chart; 1 is the fitted model.
        manifold_deviation : float, default=1.0
            Factor of the variance of the other base coordinates; 1 is the fitted model, 0 draws
            rows on the charts, and none of the background of heavy tails.
        rounded : bool, default=True
            Whether discrete columns get values of their grid, between the smallest and the largest
            one that was seen, atoms exactly their value, and dummies 0 or 1, as the training rows
            have them; False draws from the density of `score_samples`, in which these values are
            spread over an interval.
        return_charts : bool, default=False
            Whether to return the chart of each row too.

        Returns
        -------
        X : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units; a frame with the names of the columns where
            `set_output`, of the model or global, asks for frames.
        charts : ndarray of int of shape (n_samples,)
            Chart that each row was drawn from, -1 for rows of the background of heavy tails. Only
            with ``return_charts=True``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If `n_samples` is not a positive integer, if `temperature` or `manifold_deviation` is
            negative or not finite, or if `random_state` is no seed.

        Examples
        --------
        >>> from skmanifoldflow import ChartAtlasFlow
        >>> from skmanifoldflow.datasets import LinkedCircles
        >>> X, _ = LinkedCircles(noise=0.05).sample(30, random_state=0)
        >>> model = ChartAtlasFlow(n_charts=3, random_state=0).fit(X)
        >>> rows, charts = model.sample(5, random_state=0, return_charts=True)
        >>> rows.shape, charts.shape
        ((5, 3), (5,))
        """
        drawn = []

        def draw(n, generator, **options):
            charts = self._flow.sample_chart_indices(n, generator)
            rows = to_host(self._flow.sample_charts(charts, generator, **options))
            deviation = options["manifold_deviation"]
            rows, is_tail = self._with_background(rows, generator, deviation)
            drawn.append(np.where(is_tail, -1, charts.cpu()))
            return rows

        X = self._sample(draw, n_samples, random_state, temperature, manifold_deviation, rounded)
        return (X, np.concatenate(drawn)) if return_charts else X

    def local_dimension(self, X, *, scale=None):
        """Dimension of the chart of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        scale : None
            Charts have one dimension each, at no scale: anything but None is refused.

        Returns
        -------
        dimension : ndarray of int of shape (n_samples,)
            The entry of `chart_dimensions_` of the most probable chart.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns, or if `scale` is given.

        Examples
        --------
        >>> from skmanifoldflow import ChartAtlasFlow
        >>> from skmanifoldflow.datasets import LinkedCircles
        >>> X, _ = LinkedCircles(noise=0.05).sample(30, random_state=0)
        >>> model = ChartAtlasFlow(n_charts=3, random_state=0).fit(X)
        >>> model.local_dimension(X).shape
        (30,)
        """
        if scale is not None:
            raise ValueError(
                f"Charts have dimensions at no scale: scale must be None, got {scale}."
            )
        charts = self.predict(X)
        return self.chart_dimensions_[charts]
