"""Spacing of the repeated values of columns."""

import numpy as np
import pytest
import torch

from skmanifoldflow import NoisyInjectiveFlow
from skmanifoldflow._columns import dequantization_step

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}


def steps(X, **options):
    X = np.asarray(X)
    model = NoisyInjectiveFlow(dequantize=True, **options)
    is_image = "image_shape" in options
    raw = torch.tensor(X, dtype=torch.float64)
    return dequantization_step(model, raw, is_image, np.finfo(X.dtype).eps).tolist()


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (1_700_000_000.0 + np.arange(50), 1.0),
        (1_700_000_000.0 + np.array([0.0, 1.0] * 25), 1.0),
        # Two values 1e-9 of their size apart.
        (np.array([1e9, 1e9 + 1] * 25), 1.0),
        (1_700_000_000.0 + 0.25 * np.arange(50), 0.25),
        (np.arange(50) * 1e-9, 1e-9),
        # The same number by two ways: its last digit is no spacing.
        (np.r_[0.1 * np.arange(50), np.cumsum(np.full(49, 0.1))], 0.1),
        (np.float32(1e6) + np.arange(50, dtype=np.float32), 1.0),
        # Nothing but rounding.
        (np.array([0.3, 0.1 * 3] * 25), 1.0),
    ],
)
def test_spacing_of_values(values, step):
    assert steps(values[:, None]) == pytest.approx([step], rel=1e-6)


def test_seconds_can_be_dequantized():
    """Of a day in Unix time, as one column: the density is that of uniform seconds."""
    rng = np.random.RandomState(0)
    X = 1.7e9 + rng.randint(0, 100, (400, 1))
    model = NoisyInjectiveFlow(dequantize=True, max_iter=20, n_layers=2, random_state=0).fit(X)
    assert model.score(X + 0.5) == pytest.approx(-np.log(100), abs=0.2)
    two = 1.7e9 + rng.randint(0, 2, (300, 2))
    assert np.isfinite(NoisyInjectiveFlow(dequantize=True, **SMALL).fit(two).score(two + 0.5))
