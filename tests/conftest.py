"""Settings that every test shares."""

import os

# scikit-learn's check of array API input runs only where scipy was imported with this setting.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import pytest
import torch
from threadpoolctl import threadpool_limits

# A second thread only slows these small products down, the more so beside a busy neighbour, and
# makes their rounding depend on the machine.
torch.set_num_threads(1)
threadpool_limits(1)


# Failures of its assertions show values too.
pytest.register_assert_rewrite("helpers")


@pytest.fixture
def generator():
    """A generator of fixed seed."""
    return torch.Generator().manual_seed(0)
