"""What the columns of a table hold, and how their values are spread and mapped."""

import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from ._checks import column_bounds, column_names, discrete_features_mask, is_pair, warn
from ._column_maps import are_nearly_independent, column_maps, hard_ends
from ._describe import describe_columns, describe_pixels, some_images
from ._grid import distinct
from ._table import ENOUGH_ROWS
from .backend.column_maps import ColumnMaps
from .backend.standardize import SignedOrder

__all__ = ["Spread", "dequantization_step", "describe", "spacing", "spread", "spread_of"]

# With fewer rows nothing is spread that nobody asked for.
_MIN_ROWS_SPREAD = 40
# With fewer rows an end is not seen.
_MIN_ROWS_MAPPED = 500


def describe(estimator, rows, is_image, eps):
    """Return the `Columns` of rows; `eps` is the relative spacing of their numbers."""
    if is_image:
        # All pixels take the same values, though one of them may have taken few.
        return describe_pixels(rows, eps)
    return describe_columns(rows, column_names(estimator).tolist(), eps)


def spacing(values, eps=sys.float_info.epsilon):
    """Return the least distance of sorted distinct values that is more than rounding, or 0.

    `eps` is the relative spacing of the numbers that they were given as.
    """
    distances, largest = np.diff(values), float(np.abs(values).max())
    rounding = max(1e-10 * float(values[-1] - values[0]), 4 * eps * largest)
    if largest < 1 / np.finfo(np.float64).eps and np.array_equal(values, np.round(values)):
        # Integers are exact.
        rounding = 0.0
    distances = distances[distances > rounding]
    return float(distances.min()) if len(distances) else 0.0


def spread(X, steps, rng):
    """Return rows (n, D) whose values are spread uniformly over the step above each of them.

    Where a column has no step, 0 stands for it.
    """
    return X + steps * rng.random_sample(X.shape)


class Spread(NamedTuple):
    """What is done with the values of columns before rows are standardised.

    Attributes
    ----------
    step : Tensor of shape (D,)
        Width of the noise U[0, step) that `dequantize` adds.
    maps : ColumnMaps or None
        What spreads and maps columns otherwise.
    signed_order : SignedOrder or None
        Order and signs of the columns, which the random numbers go by.
    """

    step: torch.Tensor
    maps: ColumnMaps | None
    signed_order: SignedOrder | None

    @property
    def is_random(self):
        """Whether rows are other ones each time."""
        return bool(self.step.any()) or (self.maps is not None and self.maps.is_random)

    def rows(self, rows, generator):
        """Return float64 rows with their values spread."""
        if not self.is_random:
            return rows
        uniform = torch.rand(rows.shape, dtype=rows.dtype, generator=generator)
        if self.signed_order is not None:
            uniform = self.signed_order.mirrored(uniform)
        if self.maps is not None:
            return self.maps.spread(rows, uniform)
        return rows + self.step * uniform


def spread_of(estimator, rows, counted, is_image, fills_space, order, eps=sys.float_info.epsilon):
    """Return the `Spread` of a fit to rows, whose description `columns_` is known.

    The rows are no copies of each other; `counted` returns them as often as they count, some of
    many, in float64. With ``dequantize=True`` and for images there are steps of noise, else maps of
    columns, those with hard ends among them where the estimator maps such and the rows lie on no
    manifold, as `fills_space` says. `order` is the `SignedOrder` of the columns, or None, and
    `eps` the relative spacing of the numbers that the rows were given as.
    """
    n, n_features = rows.shape
    given = estimator.discrete_features
    is_all = estimator.dequantize or (isinstance(given, str) and given == "all")
    if is_image and estimator.bounded is not None and not is_pair(estimator.bounded):
        raise ValueError(
            f"With image_shape bounded must be one pair (low, high), got {estimator.bounded}."
        )
    if is_image or is_all:
        return Spread(dequantization_step(estimator, rows, is_image, eps), None, order)
    is_spread, columns = discrete_features_mask(estimator, n_features), estimator.columns_
    if isinstance(given, str):
        is_spread = np.full(n_features, n >= _MIN_ROWS_SPREAD)
    else:
        columns = [
            _with_step(column, rows[:, j], eps) if is_spread[j] else column
            for j, column in enumerate(columns)
        ]
    bounds = column_bounds(estimator, n_features) or [(-np.inf, np.inf)] * n_features
    some = rows[:: -(-n // ENOUGH_ROWS)]
    is_mapped = np.zeros(n_features, dtype=bool)
    if estimator._maps_hard_ends and n >= _MIN_ROWS_MAPPED:
        is_mapped = hard_ends(columns, some)
        compared = some if order is None else some[:, order.order.numpy()]
        if is_mapped.any() and not (are_nearly_independent(compared) or fills_space()):
            is_mapped[:] = False
    signs = np.ones(n_features) if order is None else order.signs[order.order.argsort()].numpy()
    maps = column_maps(
        columns, some, counted(), bounds, estimator.noise_floor, is_spread, is_mapped, signs
    )
    return Spread(torch.zeros(n_features, dtype=torch.float64), maps, order)


def _with_step(column, values, eps):
    """Return the description of a column of which somebody says that it is discrete."""
    if column.step is not None or column.kind != "continuous":
        return column
    step = _spacing_of(values, eps)
    return replace(column, kind="discrete", step=step, offset=column.low % step)


def dequantization_step(estimator, rows, is_image, eps=sys.float_info.epsilon):
    """Return the step of each column over which `dequantize` spreads its values, or zeros.

    Steps are the least distances of the values; those of images are one.
    """
    n, n_features = rows.shape
    step = torch.zeros(n_features, dtype=torch.float64)
    if not discrete_features_mask(estimator, n_features).any():
        if estimator.discrete_features is not None and n >= _MIN_ROWS_SPREAD:
            _warn_of_ties(estimator.columns_[0], rows.size)
        return step
    if is_image:
        step[:] = _spacing_of(some_images(rows), eps)
    else:
        for j in range(n_features):
            step[j] = _spacing_of(rows[:, j], eps)
    # A constant column has no spacing of its own: it gets the most common one.
    known = step[step > 0]
    step[step == 0] = known.mode().values if len(known) else 1.0
    if estimator.bounded is not None:
        if not is_pair(estimator.bounded):
            raise ValueError(
                "dequantize=True spreads all columns alike, so bounded must be one pair (low, "
                f"high), got {estimator.bounded}. Leave dequantize and discrete_features at their "
                "defaults."
            )
        largest = torch.from_numpy(np.asarray(rows.max(axis=0), dtype=np.float64))
        if (largest + step > estimator.bounded[1]).any():
            raise ValueError(
                f"Each value of a discrete column is spread over a step, so bounded="
                f"{estimator.bounded} must reach to the largest value plus its step."
            )
    return step


def _spacing_of(column, eps):
    return spacing(distinct(np.sort(column, axis=None).astype(np.float64)), eps)


def _warn_of_ties(pixels, n):
    """Warn of pixels that hold fewer different values than half of their number n."""
    if not 1 < pixels.n_values < n // 2:
        return
    kind = f"step {pixels.step:g}" if pixels.step is not None else "repeated values"
    warn(
        f"{pixels.name.capitalize()} hold many ties, as integers do: {kind}. A density can grow "
        "without bound there. Set dequantize=True to spread each value over its step."
    )
