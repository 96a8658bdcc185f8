"""TransformedDensity: a density behind a transformer, in the units of the data."""

import warnings

import numpy as np
from sklearn.base import _fit_context, clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state, metadata_routing
from sklearn.utils._param_validation import HasMethods

from .._checks import check_rows
from .base import DENSITY, BaseDensity, draw, log_crowding, new_density
from .jacobians import has_inverse, in_domain, log_abs_det_jacobian, reaches_all, transformed

__all__ = ["TransformedDensity"]

# Draws by which the share of a density within the range of a transformer is measured, to a
# standard error of .002 at worst, and how many of them are made at once.
_N_DRAWS, _N_AT_ONCE = 50_000, 10_000
# Relative error up to which a row that went back and forth is the same.
_TOLERANCE = 1e-4


class TransformedDensity(BaseDensity):
    r"""Density of transformed rows that scores and samples in the units of the data.

    A density behind a scaler in a :class:`~sklearn.pipeline.Pipeline` scores in the units that the
    scaler makes, so that a search over scalers chooses the one that makes the smallest rows. Here

    .. math:: \log p(x) = \log p_z(T(x)) + \log |\det J_T(x)| - \log P_z(T(R^D))

    has the log-Jacobian of the transformer T (:func:`log_abs_det_jacobian`), and scores of
    different transformers can be compared. The last term is zero unless the transformer reaches
    only a part of the space, as `QuantileTransformer` reaches the unit cube: what the density gives
    to the rest is then left out, of samples too.

    Parameters
    ----------
    density : estimator instance, default=None
        Density of the transformed rows, with `fit` and `score_samples`; None is
        :class:`NoisyInjectiveFlow`.
    transformer : estimator instance, default=None
        One-to-one transformer whose Jacobian is known, or a pipeline of such. None is
        :class:`~sklearn.preprocessing.StandardScaler`, the units in which bandwidths and
        regularised covariances mean the same for every column.

    Attributes
    ----------
    density_ : estimator instance
        The fitted density.
    transformer_ : estimator instance
        The fitted transformer.
    log_mass_ : float
        :math:`\log P_z(T(R^D))`, the log of the share of `density_` that lies in the range of
        `transformer_`. Zero where the transformer is affine or the density cannot be sampled; else
        by 50 000 draws, with a standard error of .002 at worst.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X had any.

    See Also
    --------
    sklearn.compose.TransformedTargetRegressor : The same for the target of a regression.

    Notes
    -----
    Beyond the rows that it was fitted to `QuantileTransformer` is constant: new rows that lie
    there, as one of fifty may with 100 training rows, have the density zero. Of more than 10 000
    rows it draws so many for its quantiles, and some of the others lie beyond them; with
    ``subsample=None`` it takes all. Rows that the transformer does not take, as the logarithm does
    not take negative ones, have the density zero too.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skmanifoldflow import TransformedDensity
    >>> X = np.exp(np.random.RandomState(0).standard_normal((1000, 2)))
    >>> log = FunctionTransformer(np.log, np.exp)
    >>> model = TransformedDensity(GaussianMixture(random_state=0), transformer=log).fit(X)
    >>> bool(model.score(X) > GaussianMixture(random_state=0).fit(X).score(X) + 0.9)
    True
    >>> bool(model.sample(5, random_state=0).min() > 0)
    True
    """

    _parameter_constraints: dict = {
        "density": DENSITY,
        "transformer": [HasMethods(["fit", "transform"]), None],
    }

    def __init__(self, density=None, *, transformer=None):
        self.density = density
        self.transformer = transformer

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **params):
        """Fit the transformer, and the density to the transformed rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : Ignored
            Not used, present for API consistency by convention.
        **params : dict
            Parameters of `fit` of the density, such as `sample_weight`, `groups` and `X_val`, which
            is in the units of X. With metadata routing both parts get what they ask for.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If rows are not finite, if the Jacobian of the transformer is not known or zero, or if
            the density does not reach the range of the transformer.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import TransformedDensity
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(200, random_state=0)
        >>> TransformedDensity(GaussianMixture(5)).fit(X).transformer_
        StandardScaler()
        """
        X = check_rows(self, X)
        if metadata_routing._routing_enabled():
            routed = metadata_routing.process_routing(self, "fit", **params)
            to_transformer, to_density = dict(routed.transformer.fit), dict(routed.density.fit)
        else:
            to_transformer, to_density = {}, dict(params)
        transformer = StandardScaler() if self.transformer is None else clone(self.transformer)
        self.transformer_ = transformer.fit(X.copy(), **to_transformer)
        # An unknown Jacobian is told before the density is trained.
        log_abs_det_jacobian(self.transformer_, X[:1])
        if to_density.get("X_val") is not None:
            X_val = check_rows(self, to_density["X_val"], reset=False)
            to_density["X_val"] = transformed(self.transformer_, X_val)
        Z = transformed(self.transformer_, X)
        self.density_ = new_density(self.density).fit(Z, **to_density)
        self.log_mass_ = self._log_mass()
        return self

    def _log_mass(self):
        """Return the log of the share of the density in the range of the transformer."""
        if reaches_all(self.transformer_) or not (
            has_inverse(self.transformer_) and hasattr(self.density_, "sample")
        ):
            return 0.0
        rng = check_random_state(0)
        n_inside = 0
        for _ in range(_N_DRAWS // _N_AT_ONCE):
            try:
                Z = draw(self.density_, _N_AT_ONCE, rng)
            except (NotImplementedError, AttributeError):
                # The kernel, a member or a transformer within the density cannot be sampled.
                return 0.0
            n_inside += self._inverse(Z)[1].sum()
        if not n_inside:
            raise ValueError("The density gives no probability to the range of the transformer.")
        return float(np.log(n_inside / _N_DRAWS))

    def _inverse(self, Z):
        """Return rows in data units, and which of them are those of rows in transformed units."""
        if reaches_all(self.transformer_):
            X = np.asarray(self.transformer_.inverse_transform(Z.copy()))
            return X, np.ones(len(Z), dtype=bool)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # What is out of range has no inverse, which is what is asked here.
            warnings.simplefilter("ignore")
            X = np.asarray(self.transformer_.inverse_transform(Z.copy()))
            is_inside = np.isfinite(X).all(axis=1)
            if is_inside.any():
                is_inside[is_inside] = in_domain(self.transformer_, X[is_inside])
            if not is_inside.any():
                return X, is_inside
            back = transformed(self.transformer_, X[is_inside])
        errors = np.abs(back - Z[is_inside])
        tolerance = _TOLERANCE * (Z.std(axis=0) + np.abs(back))
        is_inside[is_inside] = (errors <= tolerance).all(axis=1)
        return X, is_inside

    def score_samples(self, X):
        """Log-density of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Natural logarithm of the density with respect to Lebesgue measure, in the units of X.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import TransformedDensity
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(200, random_state=0)
        >>> model = TransformedDensity(GaussianMixture(5, random_state=0)).fit(X)
        >>> log_density = model.score_samples([[0.0, 1.0, 0.0], [9.0, 9.0, 9.0]])
        >>> bool(log_density[0] > log_density[1])
        True
        """
        X = self._check_rows(X)
        log_density = np.full(len(X), -np.inf, dtype=X.dtype)
        is_inside = in_domain(self.transformer_, X)
        if is_inside.any():
            X = X[is_inside]
            scores = self.density_.score_samples(transformed(self.transformer_, X))
            log_det = log_abs_det_jacobian(self.transformer_, X)
            log_density[is_inside] = scores - self.log_mass_ + log_det
        return log_density

    def _log_crowding(self, X):
        """Return what the transformed values gain by crowding (n,)."""
        X = self._check_rows(X)
        nats = np.zeros(len(X))
        is_inside = in_domain(self.transformer_, X)
        if is_inside.any():
            nats[is_inside] = log_crowding(
                self.density_, transformed(self.transformer_, X[is_inside])
            )
        return nats

    def sample(self, n_samples=1, *, random_state=None):
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Source of the draw; pass an int for the same rows at every call.

        Returns
        -------
        X : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If `n_samples` is not an integer >= 1.
        AttributeError
            If the density has no method `sample`, or the transformer no inverse.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import TransformedDensity
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(200, random_state=0)
        >>> model = TransformedDensity(GaussianMixture(5, random_state=0)).fit(X)
        >>> model.sample(3, random_state=0).shape
        (3, 3)
        """
        rng = self._check_sample(n_samples, random_state)
        if not has_inverse(self.transformer_):
            raise AttributeError(f"{type(self.transformer_).__name__} has no inverse.")
        if reaches_all(self.transformer_):
            return self._inverse(draw(self.density_, n_samples, rng))[0]
        kept, n_kept = [], 0
        while n_kept < n_samples:
            missing = int((n_samples - n_kept) / np.exp(self.log_mass_)) + 1
            rows, is_inside = self._inverse(draw(self.density_, missing, rng))
            # A mixture returns its components one after the other, and the last rows are cut off.
            kept.append(rng.permutation(rows[is_inside]))
            n_kept += len(kept[-1])
        return np.concatenate(kept)[:n_samples]

    def get_metadata_routing(self):
        """Return which parameters of `fit` go to the transformer, and which to the density.

        Returns
        -------
        routing : MetadataRouter
            The routing, as described in the user guide of scikit-learn.
        """
        mapping = metadata_routing.MethodMapping().add(caller="fit", callee="fit")
        transformer = StandardScaler() if self.transformer is None else self.transformer
        return (
            metadata_routing.MetadataRouter(owner=self)
            .add_self_request(self)
            .add(transformer=transformer, method_mapping=mapping)
            .add(density=new_density(self.density), method_mapping=mapping)
        )
