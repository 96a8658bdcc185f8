"""Figures are not shown, and closed after each test; a small flow and a table with names."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from skmanifoldflow import ManifoldPriorFlow

matplotlib.use("Agg")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def flow():
    t = np.random.RandomState(0).standard_normal((80, 1))
    X = t * [1.0, 2.0, -1.0] + 0.01 * np.random.RandomState(1).standard_normal((80, 3))
    return ManifoldPriorFlow(
        n_layers=1, hidden_layer_sizes=(4,), isometry=0, max_iter=1, random_state=0
    ).fit(X)


@pytest.fixture(scope="session")
def frame():
    X = load_iris(as_frame=True).data
    # Spread over the millimetre that they are rounded to.
    return X + np.random.RandomState(0).uniform(0, 0.1, X.shape)
