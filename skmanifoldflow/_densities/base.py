"""What all estimators around a density have in common."""

import copy
from inspect import signature
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import _num_samples, check_is_fitted

from .._base import BaseManifoldFlow
from .._checks import check_rows
from .._inference import mean_log_density
from .._noisy_injective import NoisyInjectiveFlow
from .._unwrap import unwrap

__all__ = [
    "DENSITY",
    "SMOOTH",
    "BaseDensity",
    "DocumentedEstimator",
    "draw",
    "draw_by_seed",
    "log_crowding",
    "new_density",
    "novelty_scores",
    "without_crowding",
]

#: Constraint of the parameter `density`.
DENSITY = [HasMethods(["fit", "score_samples"]), None]

#: Parameters of the default density of rows that are judged by it: noise of a tenth of the standard
#: deviations washes out the streaks and spikes in which rows of other kinds often are.
SMOOTH = {"noise_floor": 0.1}


class DocumentedEstimator(BaseEstimator):
    """An estimator whose HTML representation has links to the documentation."""

    _doc_link_module = BaseManifoldFlow._doc_link_module
    _doc_link_template = BaseManifoldFlow._doc_link_template

    def _check_rows(self, X):
        check_is_fitted(self)
        return check_rows(self, X, reset=False)


class BaseDensity(DensityMixin, DocumentedEstimator):
    """A density of rows: `score_samples` is that of a subclass."""

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
            Mean of `score_samples(X)` in nats per row, in the units of X.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, do not have `n_features_in_` columns, or weights are negative or
            not one for each row.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from skmanifoldflow import TransformedDensity
        >>> from skmanifoldflow.datasets import SCurve
        >>> X, _ = SCurve(noise=0.05).sample(200, random_state=0)
        >>> model = TransformedDensity(GaussianMixture(5, random_state=0)).fit(X)
        >>> bool(model.score(X) == model.score_samples(X).mean())
        True
        """
        return mean_log_density(self.score_samples(X), sample_weight)

    def _check_sample(self, n_samples, random_state):
        """Check the arguments of `sample` and return the random state."""
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples!r}. The sampling requires at least one "
                "sample."
            )
        return check_random_state(random_state)


def new_density(density, random_state=None, **default):
    """Return an unfitted copy of a density, by default `NoisyInjectiveFlow` with some parameters.

    A random state other than None gives each one of its parameters that is None an integer.
    """
    density = NoisyInjectiveFlow(**default) if density is None else clone(density)
    if random_state is not None:
        random_state = check_random_state(random_state)
        seeds = {
            name: random_state.randint(2**31)
            for name, value in sorted(density.get_params().items())
            if name.split("__")[-1] == "random_state" and value is None
        }
        density.set_params(**seeds)
    return density


def novelty_scores(density, X):
    """Return the log-densities (n,) of rows without what values gain by crowding, in float64."""
    return without_crowding(density.score_samples(X), log_crowding(density, X))


def log_crowding(density, X):
    """Return how close to each other values of columns are at rows, in nats (n,).

    Where values of a column recur or crowd, the density in units of the data is as high as they are
    close, which says nothing of how strange a row is. It is 0 for densities that have no maps of
    single columns.
    """
    model, steps = unwrap(density)
    for step in steps:
        X = step.transform(X)
    of_model = getattr(model, "_log_crowding", None)
    return np.zeros(_num_samples(X)) if of_model is None else of_model(X)


def without_crowding(log_density, crowding):
    """Return log-densities less nats of crowding, in float64."""
    return np.subtract(log_density, crowding, dtype=np.float64)


def draw(density, n_samples, random_state):
    """Draw rows from a fitted density, whatever form its method `sample` has."""
    return draw_by_seed(density, n_samples, random_state.randint(2**31))


def draw_by_seed(density, n_samples, seed, **options):
    """Draw rows as `draw` does, with an integer as the random state and options of `sample`."""
    if not hasattr(density, "sample"):
        raise AttributeError(f"{type(density).__name__} has no method sample.")
    if "random_state" in signature(density.sample).parameters:
        rows = density.sample(n_samples, random_state=seed, **options)
    elif "random_state" in density.get_params(deep=False):
        # GaussianMixture draws with the random state of its fit, and returns the components too.
        rows = copy.copy(density).set_params(random_state=seed).sample(n_samples, **options)
    else:
        rows = density.sample(n_samples, **options)
    return np.asarray(rows[0] if isinstance(rows, tuple) else rows)
