"""What the columns of a table hold, and the steps over which values are spread in training."""

import sys

import numpy as np
import torch

from ._checks import column_names, discrete_features_mask, list_names, warn
from ._describe import describe_columns, describe_pixels, some_images
from ._grid import distinct

__all__ = ["dequantization_step", "describe", "spacing"]

# Kinds of columns with ties that one warning names.
_MAX_KINDS_NAMED = 3
# With fewer rows nobody is told of ties.
_MIN_ROWS_TOLD = 40


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


def dequantization_step(estimator, rows, is_image, eps=sys.float_info.epsilon):
    """Return the step of each column over which its values are spread, 0 where they are not.

    `eps` is the relative spacing of the numbers that the rows were given as. With
    ``dequantize=True`` steps are least distances of values; of columns that are selected they are
    those of `columns_`, which have to be known.
    """
    n, n_features = rows.shape
    is_keyword = isinstance(estimator.discrete_features, str)
    is_spread = torch.from_numpy(discrete_features_mask(estimator, n_features))
    if not is_spread.any():
        if is_keyword and n >= _MIN_ROWS_TOLD:
            columns = estimator.columns_
            _warn_of_ties(columns[:1] if is_image else columns, rows.size if is_image else n)
        return torch.zeros(n_features, dtype=torch.float64)
    step = torch.zeros(n_features, dtype=torch.float64)
    if is_image:
        step[:] = _spacing_of(some_images(rows), eps)
    else:
        for j in is_spread.nonzero().flatten().tolist():
            known = None if is_keyword else estimator.columns_[j].step
            step[j] = _spacing_of(rows[:, j], eps) if known is None else known
    # A constant column has no spacing of its own: it gets the most common one.
    known = step[step > 0]
    step[is_spread & (step == 0)] = known.mode().values if len(known) else 1.0
    largest = torch.from_numpy(np.asarray(rows.max(axis=0), dtype=np.float64))
    if estimator.bounded is not None and (largest + step > estimator.bounded[1]).any():
        raise ValueError(
            f"Each value of a discrete column is spread over a step, so bounded="
            f"{estimator.bounded} must reach to the largest value plus its step."
        )
    return step


def _spacing_of(column, eps):
    return spacing(distinct(np.sort(column, axis=None).astype(np.float64)), eps)


def _warn_of_ties(columns, n):
    """Warn of columns that hold fewer different values than half of the rows, in n rows."""
    is_tied = [1 < column.n_values < n // 2 for column in columns]
    if not any(is_tied):
        return
    kinds: dict[tuple[float, str], list] = {}
    for column, tied in zip(columns, is_tied, strict=True):
        if tied:
            # Those of the largest steps come first, and those without a step last.
            kinds.setdefault((-(column.step or 0), _kind(column)), []).append(column.name)
    parts = [f"{list_names(names)} ({kind})" for (_, kind), names in sorted(kinds.items())]
    more = "; ..." * (len(parts) > _MAX_KINDS_NAMED)
    warn(
        "Columns hold many ties, as integers do: "
        f"{'; '.join(parts[:_MAX_KINDS_NAMED])}{more}. A density can grow without bound there. Set "
        "dequantize=True to spread each value over its step, or name in discrete_features the "
        "columns whose values are to be spread."
    )


def _kind(column):
    """Return in some words why a column holds ties."""
    if column.step is not None:
        return f"step {column.step:g}"
    if column.atoms:
        value, share = max(column.atoms, key=lambda atom: atom.share)
        return f"{value:g} in {share:.0%} of the rows"
    return "repeated values"
