"""Rows that the coordinates of a flow rebuild poorly get those of a nearer point."""

import numpy as np
import pytest

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow.datasets import SinCurve


@pytest.fixture(scope="module")
def model():
    X, _ = SinCurve(noise=0.05).sample(800, random_state=0)
    return JointManifoldFlow(1, n_layers=4, max_iter=60, random_state=0).fit(X)


@pytest.fixture
def searching(model, monkeypatch):
    """The model, which takes every row for one that is rebuilt poorly."""
    monkeypatch.setattr(model, "_typical_distance", 1e-9)
    return model


def rows_around(model):
    low, high = -2.0, 2.0
    return np.random.RandomState(0).uniform(low, high, (50, 2))


def test_the_point_is_the_nearest_of_the_manifold(searching):
    X = rows_around(searching)
    curve = searching.inverse_transform(np.linspace(-12, 12, 20_001)[:, None])
    # In standardised units, which are those of the search.
    scale = searching._standardizer
    x, points, found = (
        scale.forward_and_log_det(scale.mean.new_tensor(rows))[0].numpy()
        for rows in (X, curve, searching.reconstruct(X))
    )
    nearest = np.linalg.norm(x[:, None] - points, axis=2).min(axis=1)
    distance = np.linalg.norm(x - found, axis=1)
    assert np.mean(distance <= nearest + 1e-3) >= 0.96
    assert (distance <= 1.5 * nearest + 1e-3).all()


def test_other_rows_make_no_difference(searching):
    X = rows_around(searching)
    np.testing.assert_allclose(searching.transform(X[:7]), searching.transform(X)[:7], atol=1e-6)


def test_typical_rows_keep_their_coordinates(model, monkeypatch):
    X, _ = SinCurve(noise=0.02).sample(100, random_state=1)
    Z = model.transform(X)
    monkeypatch.setattr(model, "_typical_distance", None)
    kept = (model.transform(X) == Z).mean()
    assert kept > 0.9


def test_a_torn_map_is_mended(model, monkeypatch):
    """Rows whose coordinates are wrong by far are rebuilt like the others."""
    X, _ = SinCurve(noise=0.02).sample(200, random_state=2)
    flow, project = model._flow, type(model._flow).project

    def torn(self, x):
        u = project(self, x).clone()
        # Draws of the manifold, 2048 rows, keep theirs.
        if len(x) == 200:
            u[:20] += 6.0
        return u

    expected = np.linalg.norm(model.reconstruct(X) - X, axis=1)
    monkeypatch.setattr(type(flow), "project", torn)
    assert np.linalg.norm(model.reconstruct(X) - X, axis=1).max() < 2 * expected.max()
    monkeypatch.setattr(model, "_typical_distance", None)
    assert np.linalg.norm(model.reconstruct(X) - X, axis=1).max() > 4 * expected.max()


@pytest.mark.parametrize("far", [1e3, 1e9, 1e30])
def test_rows_far_away_have_finite_coordinates(model, far):
    rows = np.array([[far, 0.0], [0.0, -far], [0.0, 0.0]])
    assert np.isfinite(model.transform(rows)).all()
