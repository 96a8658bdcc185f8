"""The report of the intrinsic dimension, and how its readings are combined."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .neighbors import calibrate, neighbor_dimension
from .spectra import Reading

__all__ = ["Candidate", "DimensionReport", "read_dimension"]


@dataclass(frozen=True)
class DimensionReport:
    """The intrinsic dimension of the rows of a fit, and the readings that it is based on.

    `ManifoldPriorFlow.dimension_report_` is one; the user guide explains the readings.

    Attributes
    ----------
    dimension : int
        The dimension of the rows, `intrinsic_dimension_`: the reading of the better model,
        calibrated by nearest neighbours.
    model : {"flow", "mixture"}
        The model with the higher log-likelihood on the rows set aside: the flow, or a mixture of
        probabilistic PCAs, whose parts cover closed and branching shapes.
    prior : int
        Number of eigenvalues before the widest gap in the prior of the flow.
    jacobian : int
        The same in the local covariance J C J' of the flow.
    mixture : int or None
        The same in the covariances of the mixture; None where no mixture was fitted.
    neighbors : float
        Nearest-neighbour estimate for the rows, which high dimension biases downwards and noise
        upwards; NaN with fewer than 100 different rows.
    with_noise, on_manifold : float
        The same estimate, calibrated by samples of the better model with its noise, and by samples
        on its manifold; NaN where `neighbors` is.
    flow_score, mixture_score : float
        Mean log-likelihood of the rows set aside under each model, in nats per standardised row;
        NaN where no rows were set aside, or no mixture was fitted.
    units : {"standardised", "data"}
        Units in which the better model was read: those that show the wider gap.

    Examples
    --------
    >>> from skmanifoldflow import ManifoldPriorFlow
    >>> from skmanifoldflow.datasets import SinCurve
    >>> X, _ = SinCurve(noise=0.05).sample(500, random_state=0)
    >>> model = ManifoldPriorFlow(max_iter=5, tol=1.0, random_state=0).fit(X)
    >>> model.dimension_report_.dimension
    1
    """

    dimension: int
    model: str
    prior: int
    jacobian: int
    mixture: int | None
    neighbors: float
    with_noise: float
    on_manifold: float
    flow_score: float
    mixture_score: float
    units: str

    def disagreement(self):
        """Return a warning if nearest neighbours contradict the better model.

        They do if the reading of that model and `dimension` differ by more than one and by more
        than a quarter of `dimension`.

        Returns
        -------
        message : str or None
            What `ManifoldPriorFlow.fit` warns of where ``n_components=None``; None if model and
            neighbours agree.

        Examples
        --------
        >>> from skmanifoldflow import ManifoldPriorFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(500, random_state=0)
        >>> model = ManifoldPriorFlow(max_iter=5, tol=1.0, random_state=0).fit(X)
        >>> model.dimension_report_.disagreement() is None
        True
        """
        read = self.jacobian if self.model == "flow" else self.mixture
        assert read is not None
        if abs(read - self.dimension) <= max(1, 0.25 * self.dimension):
            return None
        return (
            f"The fitted {self.model} is {read}-dimensional, but nearest neighbours of its samples "
            f"are not like those of the rows, which look {self.dimension}-dimensional. The shape "
            "may be closed, or the fit too short: see dimension_report_."
        )


class Candidate(NamedTuple):
    """A model whose dimension is known: its name, `Reading`, samples, and log-likelihood.

    `sample` is a function as in `calibrate`.
    """

    name: str
    reading: Reading
    sample: Callable[[int | None], np.ndarray]
    score: float


def read_dimension(rows, candidates, prior, n_features, noise_variance):
    """Return the report of the dimension of rows.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Rows in data units.
    candidates : list of Candidate
        The flow, and the mixture if there is one.
    prior : int
        Reading of the prior of the flow.
    n_features : int
        Number of columns that vary.
    noise_variance : float
        Variance of the noise that was added.

    Returns
    -------
    report : DimensionReport
    """
    flow, *others = candidates
    best = max([flow, *others], key=lambda candidate: candidate.score)
    data = neighbor_dimension(rows)
    dimension, with_noise, on_manifold = calibrate(
        best.reading, noise_variance, data, best.sample, n_features
    )
    return DimensionReport(
        dimension=dimension,
        model=best.name,
        prior=prior,
        jacobian=flow.reading.dimension,
        mixture=others[0].reading.dimension if others else None,
        neighbors=float(data),
        with_noise=float(with_noise),
        on_manifold=float(on_manifold),
        flow_score=flow.score,
        mixture_score=others[0].score if others else np.nan,
        units=best.reading.units,
    )
