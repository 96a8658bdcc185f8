"""Shares of near copies against distances to all training rows."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import norm

from skmanifoldflow.metrics import near_copy_share


def test_distances_are_to_the_nearest_training_row_in_scales_of_the_columns():
    rng = np.random.RandomState(0)
    sigma = np.array([1e-3, 1.0, 1e4])
    training, fresh, samples = (sigma * rng.normal(size=(n, 3)) + 1e4 for n in (300, 200, 100))
    # Half the distance of the quantiles at -1 and 1 standard deviations.
    low, high = np.quantile(training, norm.cdf([-1, 1]), axis=0)
    scale = (high - low) / 2
    copies = near_copy_share(samples, training, fresh)
    for rows, distances in ((samples, copies.sample_distances), (fresh, copies.fresh_distances)):
        expected = cdist(rows / scale, training / scale).min(axis=1)
        # Quantiles are those of other interpolations.
        np.testing.assert_allclose(distances, expected, rtol=0.05)
    assert copies.distance == np.sort(copies.fresh_distances)[9]
    assert copies.fresh_share == 0.05
    assert copies.share == (copies.sample_distances <= copies.distance).mean()


def test_scales_do_not_depend_on_outliers():
    rng = np.random.RandomState(0)
    training, fresh, samples = rng.normal(size=(3, 400, 2))
    before = near_copy_share(samples, training, fresh)
    training[0] = 1e9
    after = near_copy_share(samples, training, fresh)
    np.testing.assert_allclose(before.sample_distances, after.sample_distances, rtol=0.05)


def test_rows_learned_by_heart_are_found_and_new_ones_are_not():
    rng = np.random.RandomState(0)
    training, fresh, new = rng.normal(size=(3, 1000, 4))
    chosen = training[rng.randint(1000, size=1000)]
    is_new = rng.rand(1000, 1) < 0.7
    for noise in (0.0, 1e-3):
        samples = np.where(is_new, new, chosen + noise * rng.normal(size=chosen.shape))
        copies = near_copy_share(samples, training, fresh)
        assert copies.share == pytest.approx(0.3 + 0.7 * 0.05, abs=0.05)
    assert near_copy_share(new, training, fresh).share == pytest.approx(0.05, abs=0.03)
    # A distribution of its own is farther away.
    assert near_copy_share(new + 3, training, fresh).share < 0.01


def test_exact_copies():
    rng = np.random.RandomState(0)
    training, fresh = rng.normal(size=(2, 100, 30)) + 1e6
    samples = np.r_[training[:25], training[:25] + 1e-6, fresh[:50]]
    copies = near_copy_share(samples, training, fresh, distance=0)
    assert (copies.share, copies.fresh_share, copies.distance) == (0.25, 0.0, 0.0)
    assert (copies.sample_distances[:25] == 0).all()


def test_tables_of_few_values_have_copies_by_chance():
    rng = np.random.RandomState(0)
    training, fresh, samples = rng.randint(2, size=(3, 300, 6)).astype(float)
    copies = near_copy_share(samples, training, fresh)
    there = {tuple(row) for row in training}
    expected = [np.mean([tuple(row) in there for row in rows]) for rows in (samples, fresh)]
    assert copies.distance == 0
    assert [copies.share, copies.fresh_share] == expected


def test_near_copies_are_found_beside_exact_ones_by_chance():
    """Zeros in many rows, and whole numbers beside them, are copies that say nothing."""
    rng = np.random.RandomState(0)

    def rows(n):
        amounts = np.where(rng.rand(n) < 0.3, 0, rng.lognormal(3, 0.5, n))
        return np.c_[rng.randint(18, 80, n), amounts]

    training, fresh, new = rows(1000), rows(1000), rows(1000)
    exact, near = (near_copy_share(new, training, fresh, distance=d) for d in (0, None))
    assert 0.25 < exact.fresh_share < 0.35
    assert near.fresh_share == pytest.approx(0.95 * exact.fresh_share + 0.05, abs=0.002)
    assert near.share == pytest.approx(near.fresh_share, abs=0.06)
    by_heart = training + np.array([0, 0.01])
    assert near_copy_share(by_heart, training, fresh).share == 1
    assert near_copy_share(by_heart, training, fresh, distance=0).share < 0.01


def test_equal_distances_are_near_or_far_together():
    training, rest = np.zeros((50, 1)), np.repeat([[1.0], [2.0]], 49, axis=0)
    # Of 100 fresh rows that are no copies four, or six, are nearer than the others.
    for k, expected in ((4, 0.04), (6, 0.0)):
        fresh = np.r_[np.full((k, 1), 0.5), rest[: 100 - k]]
        copies = near_copy_share(training, training, fresh)
        assert copies.fresh_share == expected
        assert copies.distance == (0.5 if expected else 0)
        assert copies.share == 1


@pytest.mark.parametrize("n_fresh", [1, 2, 5])
def test_few_fresh_rows(n_fresh):
    training, fresh = np.random.RandomState(0).normal(size=(2, 50, 2))
    copies = near_copy_share(training, training, fresh[:n_fresh])
    assert copies.fresh_share == (1 / n_fresh if n_fresh > 1 else 0)


def test_constant_columns_do_no_harm():
    rng = np.random.RandomState(0)
    training, fresh, samples = (np.c_[rng.normal(size=(50, 1)), np.full(50, 7.0)] for _ in "123")
    copies = near_copy_share(samples, training, fresh)
    assert np.isfinite(copies.sample_distances).all()
    samples[:, 1] = 8
    assert (near_copy_share(samples, training, fresh).sample_distances >= 1).all()


@pytest.mark.parametrize(
    ("fresh", "options", "message"),
    [
        (np.zeros((4, 3)), {}, "samples, training and fresh must have as many columns"),
        (np.full((4, 2), np.nan), {}, "Input fresh contains NaN"),
        (pd.DataFrame(np.zeros((4, 2)), columns=["x", "y"]), {}, "same columns in the same order"),
        (np.zeros((4, 2)), {"distance": -1}, "distance must be a finite number >= 0"),
        (np.zeros((4, 2)), {"distance": np.inf}, "distance must be a finite number >= 0"),
        (np.zeros((4, 2)), {"distance": "near"}, "distance must be a finite number >= 0"),
    ],
)
def test_near_copy_errors(fresh, options, message):
    rows = pd.DataFrame(np.zeros((4, 2)), columns=["a", "b"])
    with pytest.raises(ValueError, match=message):
        near_copy_share(rows, rows, fresh, **options)
