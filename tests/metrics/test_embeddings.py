"""Figures of embeddings against their definitions."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group

from skmanifoldflow.metrics import continuity


def continuity_by_definition(X, X_embedded, k):
    """Sum of Venna & Kaski (2001), row by row."""
    n = len(X)
    distance, distance_embedded = cdist(X, X), cdist(X_embedded, X_embedded)
    total = 0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        neighbors = sorted(others, key=lambda j: distance[i, j])[:k]
        ranks = {
            j: rank + 1 for rank, j in enumerate(sorted(others, key=distance_embedded[i].item))
        }
        total += sum(ranks[j] - k for j in neighbors if ranks[j] > k)
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * total


@pytest.mark.parametrize("n_neighbors", [1, 5, 14])
def test_continuity_is_its_definition(n_neighbors):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((30, 4))
    expected = continuity_by_definition(X, X[:, :1], n_neighbors)
    assert expected < 0.95
    assert continuity(X, X[:, :1], n_neighbors=n_neighbors) == pytest.approx(expected, abs=1e-12)


def test_continuity_of_an_isometry_is_one():
    X = np.random.RandomState(0).standard_normal((60, 3))
    assert continuity(X, 3 * X @ ortho_group.rvs(3, random_state=0) + 1) == 1


def test_continuity_sees_tears_and_not_folds():
    t = np.linspace(0, 1, 200)[:, None]
    torn = np.where(t < 0.5, t, t + 100 + 7 * np.sin(40 * t))
    circle = np.column_stack([np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)])
    # Closing a line to a circle keeps all neighbours and adds false ones, opening it loses some.
    assert continuity(t, circle) > 0.999
    assert continuity(circle, t) < 0.99
    assert continuity(t, torn) < 0.99


def test_continuity_refuses_too_many_neighbors():
    X = np.zeros((10, 2))
    with pytest.raises(ValueError, match="n_neighbors"):
        continuity(X, X, n_neighbors=5)
