"""What the columns of a table hold: the spacing of their values, and ties."""

import sys

import numpy as np
import torch

from ._checks import column_names, list_names, warn

__all__ = ["dequantization_step", "spacing"]

# Spacings of columns with ties that one warning names.
_MAX_STEPS_NAMED = 3
# With fewer rows nobody is told of ties.
_MIN_ROWS_TOLD = 40


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


def dequantization_step(estimator, raw, is_image, eps=sys.float_info.epsilon):
    """Return the spacing of the values of each column, 0 where nothing is to be added.

    `eps` is the relative spacing of the numbers that the rows were given as.
    """
    n, n_features = raw.shape
    columns = list(raw.T)
    if is_image:
        # All pixels take the same values, though one of them may have taken few.
        columns = [raw.flatten()]
    step = torch.zeros(len(columns), dtype=torch.float64)
    is_tied = torch.zeros(len(columns), dtype=torch.bool)
    for j, column in enumerate(columns):
        values = torch.unique(column)
        is_tied[j] = 1 < len(values) < len(column) // 2
        if len(values) > 1 and (estimator.dequantize or is_tied[j]):
            step[j] = spacing(values.numpy(), eps)
    if estimator.dequantize:
        # A constant column has no spacing of its own: it gets the most common one.
        known = step[step > 0]
        step[step == 0] = known.mode().values if len(known) else 1.0
        step = step.expand(n_features) if len(step) == 1 else step
        if estimator.bounded is not None and (raw.amax(0) + step > estimator.bounded[1]).any():
            raise ValueError(
                f"With dequantize=True each value is spread over a step, so bounded="
                f"{estimator.bounded} must reach to the largest value plus its step."
            )
        return step
    if is_tied.any() and n >= _MIN_ROWS_TOLD:
        warn(
            f"Columns hold many ties, as integers do: {_tied(estimator, is_tied, step)}. A density "
            "can grow without bound there. Set dequantize=True to spread each value over its "
            "step."
        )
    return torch.zeros(n_features, dtype=torch.float64)


def _tied(estimator, is_tied, step):
    """Return the names of columns with ties as text, those of one step together.

    The columns of the largest steps come first.
    """
    if len(is_tied) < estimator.n_features_in_:
        return f"all pixels (step {step[0]:g})"
    names, step = column_names(estimator)[is_tied.numpy()], step[is_tied]
    parts = [
        f"{list_names(names[(step == size).numpy()])} (step {size:g})"
        for size in reversed(step.unique().tolist())
    ]
    return "; ".join(parts[:_MAX_STEPS_NAMED]) + ("; ..." * (len(parts) > _MAX_STEPS_NAMED))
