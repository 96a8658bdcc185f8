"""Columns of a fit: their description, and the steps over which values are spread."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import every_estimator
from sklearn.base import clone
from sklearn.datasets import load_digits

from skmanifoldflow import Columns, NoisyInjectiveFlow
from skmanifoldflow._columns import dequantization_step

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}


def steps(X, **options):
    X = np.asarray(X)
    model = NoisyInjectiveFlow(dequantize=True, **options)
    is_image = "image_shape" in options
    return dequantization_step(model, X, is_image, np.finfo(X.dtype).eps).tolist()


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


# ------------------------------------------------------------------ what a fit knows of its columns


@pytest.fixture(scope="module")
def table():
    rng = np.random.RandomState(0)
    return pd.DataFrame(
        {
            "height": 170 + 10 * rng.standard_normal(120),
            "age": rng.randint(18, 90, 120),
            "rating": 0.5 * rng.randint(0, 11, 120),
            "rain": np.where(rng.rand(120) < 0.6, 0, rng.lognormal(size=120)),
        }
    )


def ties(caught):
    return [str(w.message) for w in caught if "many ties" in str(w.message)]


def fitted(model, X):
    """Return the fitted model, and its warnings of ties."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X)
    return model, ties(caught)


@every_estimator
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_fit_describes_its_columns(Estimator, dtype, table):
    model = Estimator(1, discrete_features=None, **SMALL).fit(table.astype(dtype))
    columns = model.columns_
    assert isinstance(columns, Columns)
    assert [column.name for column in columns] == list(table)
    assert [column.kind for column in columns] == ["continuous", "discrete", "discrete", "mixed"]
    assert [column.step for column in columns] == [None, 1.0, 0.5, None]
    assert columns["rain"].atoms[0] == (0.0, pytest.approx((table["rain"] == 0).mean()))
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other.columns_ == columns
    assert not hasattr(clone(model), "columns_")
    assert [c.name for c in clone(model).fit(table.to_numpy(dtype)).columns_] == [0, 1, 2, 3]


def test_description_is_that_of_the_last_fit(table):
    model = NoisyInjectiveFlow(1, **SMALL).fit(table)
    before = model.columns_
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        model.set_params(hidden_layer_sizes=(0,)).fit(table[["age", "rain"]])
    assert model.columns_ is before
    assert len(model.set_params(hidden_layer_sizes=(8,)).fit(table[["age", "rain"]]).columns_) == 2


def test_pixels_are_one_kind_of_column():
    images = load_digits().data[:60]
    model = NoisyInjectiveFlow(2, image_shape=(1, 8, 8), dequantize=True, **SMALL).fit(images)
    assert len(model.columns_) == 64
    # Some pixels are always empty.
    assert {(c.kind, c.step, c.low, c.high) for c in model.columns_} == {("discrete", 1.0, 0, 16)}
    model, messages = fitted(model.set_params(dequantize=False), images)
    assert len(messages) == 1
    assert "All pixels hold many ties, as integers do: step 1." in messages[0]
    with pytest.raises(ValueError, match="With image_shape all pixels are of one kind"):
        model.set_params(discrete_features=[0]).fit(images)


# ------------------------------------------------------------------ discrete_features


def spread_steps(model, X):
    """Return the steps over which a fit spreads the columns, and those with intervals of values."""
    maps = model._plan(X).spread.maps
    if maps is None:
        return [0] * np.shape(X)[1], []
    is_cell = maps.is_cell.any(dim=1)
    return maps.grids[:, 0].tolist(), maps.columns[is_cell].tolist()


@every_estimator
def test_names_indices_and_masks_select_columns(Estimator, table):
    model = Estimator(1, **SMALL)
    for given in (
        ["age", "rating"],
        np.array(["rating", "age"]),
        pd.Index(["age", "rating"]),
        (1, 2),
        np.array([2, 1]),
        [False, True, True, False],
        pd.Series([False, True, True, False]),
    ):
        model.set_params(discrete_features=given)
        assert spread_steps(model, table) == ([0, 1.0, 0.5, 0], [])
    for given in ([], np.zeros(4, dtype=bool), None):
        assert spread_steps(model.set_params(discrete_features=given), table) == ([0] * 4, [])
    model.set_params(discrete_features="auto")
    assert spread_steps(model, table) == ([0, 1.0, 0.5, 0], [3])


@every_estimator
def test_selected_columns_are_spread_over_their_steps(Estimator, table):
    """What is trained on fills the steps of the selected column; another one is as it was."""
    model = Estimator(1, discrete_features=["rating"], **SMALL).fit(table)
    restart = model._prepare_restart(model._plan(table), 0, None)
    rows = restart.standardizer.inverse(restart.prepare(torch.tensor(table.to_numpy())))
    added = rows.numpy() - table.to_numpy()
    assert np.abs(np.delete(added, 2, axis=1)).max() < 1e-10
    assert -0.25 <= added[:, 2].min() < -0.2
    assert 0.2 < added[:, 2].max() <= 0.25


@every_estimator
def test_all_columns_are_those_of_dequantize(Estimator):
    X = np.random.RandomState(0).binomial(9, 0.4, (80, 2)).astype(float)
    expected = Estimator(1, dequantize=True, **SMALL).fit(X).score_samples(X)
    for settings in (
        {"discrete_features": "all"},
        {"discrete_features": "all", "dequantize": True},
    ):
        scores = Estimator(1, **settings, **SMALL).fit(X).score_samples(X)
        np.testing.assert_array_equal(scores, expected)


def test_a_value_that_recurs_on_no_grid_is_spread_if_it_is_selected():
    """As many columns are: over the least distance of their values."""
    X = np.random.RandomState(0).standard_normal((100, 2)).round(12)
    steps, _ = spread_steps(NoisyInjectiveFlow(1, discrete_features=[1], **SMALL), X)
    assert steps[0] == 0 < steps[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("age", "array-like, a str among"),
        ("every", "array-like, a str among"),
        (1, "array-like, a str among"),
        ([1.0, 2.0], "array-like of bool, int or str in one dimension"),
        ([[1], [2]], "array-like of bool, int or str in one dimension"),
        ([4], r"integer indices must be in \[0, n_features - 1\] = \[0, 3\], got 4"),
        ([-1], r"integer indices must be in \[0, n_features - 1\]"),
        ([True, False], r"boolean mask must have shape \(n_features,\) = \(4,\), got \(2,\)"),
        (["age", "weight"], "has the items weight, which are not feature names"),
    ],
)
@every_estimator
def test_bad_discrete_features(Estimator, given, message, table):
    with pytest.raises(ValueError, match=message):
        Estimator(1, discrete_features=given, **SMALL).fit(table)


@every_estimator
def test_discrete_features_that_cannot_be(Estimator, table):
    with pytest.raises(ValueError, match="array of integers or as a boolean mask when"):
        Estimator(1, discrete_features=["age"], **SMALL).fit(table.to_numpy())
    for given in (None, ["age"], [1], [True] * 4):
        with pytest.raises(ValueError, match="dequantize=True spreads the values of all columns"):
            Estimator(1, dequantize=True, discrete_features=given, **SMALL).fit(table)
