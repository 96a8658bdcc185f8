"""The model in a pipeline or a search."""

from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

__all__ = ["unwrap"]


def unwrap(estimator):
    """Return the model at the end of pipelines and within searches, and all steps before it.

    Parameters
    ----------
    estimator : estimator instance
        A model, a :class:`~sklearn.pipeline.Pipeline` that ends in one, or a search over either,
        whose best estimator is taken.

    Returns
    -------
    model : estimator instance
        The model, which need not be fitted unless it is that of a search.
    steps : list of estimator instances
        The transformers before it, in order; pipelines among them are taken apart.

    Raises
    ------
    ValueError
        If a search has no best estimator.
    sklearn.exceptions.NotFittedError
        If a search is not fitted.
    """
    steps = []
    while isinstance(estimator, Pipeline) or _is_search(estimator):
        if isinstance(estimator, Pipeline):
            *before, estimator = [step for _, step in estimator.steps]
            steps += before
            continue
        check_is_fitted(estimator)
        if not hasattr(estimator, "best_estimator_"):
            raise ValueError(
                f"{type(estimator).__name__} has no best_estimator_: it needs refit=True."
            )
        estimator = estimator.best_estimator_
    return estimator, _flat(steps)


def _is_search(estimator):
    # Searches by halving are experimental, and known by what they find.
    searches = GridSearchCV, RandomizedSearchCV
    return isinstance(estimator, searches) or hasattr(estimator, "best_estimator_")


def _flat(steps):
    """Return transformers with the steps of pipelines among them, without those that do nothing."""
    flat = []
    for step in steps:
        if isinstance(step, Pipeline):
            flat += _flat([part for _, part in step.steps])
        elif step is not None and step != "passthrough":
            flat.append(step)
    return flat
