"""Monotone rational-quadratic splines."""

from collections.abc import Hashable, Sequence
from typing import Any

from ..engine.kernels import Entries, SplineKernel
from .coupling import Coupling
from .elementwise import ElementwiseMap

__all__ = ["SplineCoupling", "SplineMap"]


class SplineMap(ElementwiseMap):
    """Monotone rational-quadratic spline on [-B, B], the identity outside.

    Parameters of an entry are the logarithms of the relative widths and heights of the K bins, from
    which a softmax makes shares of the interval, and the slopes at the K - 1 inner knots before a
    softplus. The slope is 1 at both ends, so the map is continuously differentiable.

    Parameters
    ----------
    n_bins : int, default=8
        Number of bins K >= 2.
    bound : float, default=5.0
        B, in standardised units.
    """

    # Shares of the interval and slopes that no bin and no knot can fall below: without them a bin
    # may vanish in float32, and the inverse with it.
    min_share = 1e-3
    min_slope = 1e-3

    def __init__(self, n_bins: int = 8, bound: float = 5.0) -> None:
        super().__init__()
        if not 2 <= n_bins < 1 / self.min_share:
            raise ValueError(f"n_bins must be between 2 and 999, got {n_bins}.")
        self.n_bins = n_bins
        self.n_params = 3 * n_bins - 1
        self.bound = float(bound)

    def structure(self) -> Hashable:
        return "spline", self.n_bins, self.bound, self.min_share, self.min_slope

    def kernel(self, entries: Entries) -> SplineKernel:
        return SplineKernel(entries, self.n_bins, self.bound, self.min_share, self.min_slope)


class SplineCoupling(Coupling):
    """Spline coupling (neural spline flow, Durkan et al., NeurIPS 2019), see `SplineMap`.

    Parameters are those of `Coupling`, and:

    n_bins : int, default=8
        Number of bins.
    bound : float, default=5.0
        The map is the identity outside [-bound, bound].
    """

    def __init__(
        self,
        n_features: int,
        n_transformed: int,
        hidden_layer_sizes: Sequence[int],
        *,
        n_bins: int = 8,
        bound: float = 5.0,
        **kwargs: Any,
    ) -> None:
        spline = SplineMap(n_bins, bound)
        super().__init__(n_features, n_transformed, spline, hidden_layer_sizes, **kwargs)
