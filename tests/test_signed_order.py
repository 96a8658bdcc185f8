"""Order and signs of columns make no difference to a fit."""

import pickle

import numpy as np
import pytest
import torch
from helpers import every_estimator
from scipy.stats import skew

from skmanifoldflow import NoisyInjectiveFlow
from skmanifoldflow._signed_order import signed_order
from skmanifoldflow.backend.standardize import SignedOrder

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 4, "random_state": 0}
ORDER = np.array([4, 0, 3, 2, 1])
SIGNS = np.array([-1.0, 1.0, 1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def table():
    """A column with a long tail, whole numbers, zeros in many rows, a sum and a normal one."""
    rng = np.random.RandomState(0)
    price, count = np.exp(rng.standard_normal(120)), rng.poisson(2.0, 120)
    rain = np.where(rng.rand(120) < 0.4, 0.0, -rng.gamma(2.0, 1.0, 120))
    normal = rng.standard_normal(120)
    return np.column_stack([price, count, rain, price + count + 0.1 * normal, normal])


def turned(X):
    return SIGNS * X[:, ORDER]


@every_estimator
@pytest.mark.parametrize(
    "parameters", [{}, {"discrete_features": None}, {"dequantize": True}], ids=str
)
def test_columns_in_another_order_give_the_same_model(Estimator, parameters, table):
    if parameters == {"dequantize": True}:
        # The noise U[0, step) of a negative number is on the other side of it.
        signs, given = np.ones(5), table.round()
    else:
        signs, given = SIGNS, table
    model = Estimator(**SMALL, **parameters).fit(given)
    other = Estimator(**SMALL, **parameters).fit(signs * given[:, ORDER])
    drawn = model.sample(50, random_state=0, rounded=False)
    again = other.sample(50, random_state=0, rounded=False)
    np.testing.assert_allclose(again, signs * drawn[:, ORDER], rtol=1e-6, atol=1e-6)
    # Draws are not where the density jumps, as rows may be.
    np.testing.assert_allclose(
        other.score_samples(again), model.score_samples(drawn), rtol=1e-6, atol=1e-6
    )
    if parameters:
        # Units of coordinates come from slopes at the rows, which are where a map has its knots.
        np.testing.assert_allclose(
            other.transform(again), model.transform(drawn), rtol=1e-5, atol=1e-5
        )
    assert model.intrinsic_dimension_ == other.intrinsic_dimension_


@every_estimator
def test_a_stored_model_keeps_the_order(Estimator, table):
    model = Estimator(**SMALL).fit(table)
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.score_samples(table), model.score_samples(table))
    np.testing.assert_array_equal(
        restored.sample(9, random_state=1), model.sample(9, random_state=1)
    )


def test_warm_start_keeps_the_order(table):
    """Rows that are skewed otherwise do not put the columns of trained weights in another order."""
    model = NoisyInjectiveFlow(warm_start=True, **SMALL).fit(table)
    order = model._standardizer.signed_order
    before = model.score(table)
    model.set_params(max_iter=1, learning_rate_init=1e-9).fit(turned(table)[:, ORDER.argsort()])
    assert torch.equal(model._standardizer.signed_order.order, order.order)
    assert not torch.equal(signed_order(-table).signs, order.signs)
    model.fit(table)
    assert model.score(table) == pytest.approx(before, abs=0.5)


def test_images_keep_the_order_of_pixels():
    X = np.random.RandomState(0).gamma(1.0, size=(60, 16))
    model = NoisyInjectiveFlow(2, image_shape=(1, 4, 4), **SMALL).fit(X)
    assert model._standardizer.signed_order is None


def test_order_is_that_of_skewness(table):
    order = signed_order(table)
    skewness = skew(table)
    np.testing.assert_array_equal(order.order, np.argsort(-np.abs(skewness)))
    np.testing.assert_array_equal(order.signs, np.sign(skewness)[order.order])
    rows = torch.tensor(table)
    np.testing.assert_array_equal(order.inverse(order.forward(rows)), rows)
    # Neither the order of rows nor units matter.
    shuffled = np.random.RandomState(1).permutation(table) * 10.0 ** np.arange(-2, 3) + 5
    np.testing.assert_array_equal(signed_order(shuffled).order, order.order)
    np.testing.assert_array_equal(
        signed_order(turned(table)).forward(torch.tensor(turned(table))), order.forward(rows)
    )


def test_columns_without_skewness_stay_where_they_are():
    X = np.column_stack([np.ones(8), np.tile([-1.0, 1.0], 4), np.zeros(8)])
    order = signed_order(X)
    np.testing.assert_array_equal(order.order, [0, 1, 2])
    np.testing.assert_array_equal(order.signs, [1, 1, 1])


def test_mirrored_uniform_numbers():
    order = SignedOrder(torch.tensor([1, 0]), torch.tensor([-1.0, 1.0], dtype=torch.float64))
    uniform = torch.tensor([[0.25, 0.1]], dtype=torch.float64)
    np.testing.assert_allclose(order.mirrored(uniform), [[0.1, 0.75]])
