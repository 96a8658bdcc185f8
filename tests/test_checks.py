"""Rows that cannot be used, or that need something: the message names columns and the remedy."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import every_estimator
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from skmanifoldflow import NoisyInjectiveFlow

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}


@pytest.fixture
def table():
    rng = np.random.RandomState(0)
    return pd.DataFrame(rng.standard_normal((80, 3)), columns=["height", "weight", "age"])


def with_column(table, name, values):
    return table.assign(**{name: values})


TEXT = ["Ulm", "Bonn"] * 40
DATES = pd.date_range("2020-01-01", periods=80)
BAD_COLUMNS = {
    "text": ("city", TEXT, "Column 'city' holds text: encode it .*OneHotEncoder"),
    "category": ("city", pd.Categorical(TEXT), "Column 'city' holds text: .*OneHotEncoder"),
    "dates": ("day", DATES, "^Column 'day' holds dates: turn them into numbers"),
    "python dates": ("day", pd.Series(DATES.date), "Column 'day' holds dates"),
    "missing": ("size", [1.5, np.nan] * 40, "NaN.* Column 'size' has missing cells.*SimpleImputer"),
    "none": ("size", pd.Series([1.5, None] * 40, dtype=object), "Column 'size' has missing cells"),
    "NA": ("size", pd.array([1, None] * 40, dtype="Int64"), "Column 'size' has missing cells"),
    "infinite": ("size", [1.5, np.inf] * 40, "infinity.* Column 'size' has infinite values"),
}


@pytest.mark.parametrize("case", BAD_COLUMNS)
@pytest.mark.parametrize("method", ["fit", "score_samples", "transform"])
def test_columns_that_cannot_be_used_are_named(table, case, method):
    name, values, message = BAD_COLUMNS[case]
    model = NoisyInjectiveFlow(**SMALL).fit(with_column(table, name, 1.0 + table["age"] ** 2))
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(model, method)(with_column(table, name, values))


def test_several_columns_are_named_together(table):
    X = table.assign(city=TEXT, street=TEXT, size=np.nan)
    with pytest.raises(ValueError, match=r"Columns 'city', 'street' hold text.* Column 'size' has"):
        NoisyInjectiveFlow().fit(X)
    many = pd.DataFrame({f"c{j}": TEXT for j in range(9)})
    with pytest.raises(ValueError, match="'c4' and 4 more hold text"):
        NoisyInjectiveFlow().fit(many)


def test_columns_of_arrays_have_numbers(table):
    X = table.to_numpy().copy()
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="Column 1 has missing cells"):
        NoisyInjectiveFlow().fit(X)
    with pytest.raises(ValueError, match=r"'Ulm'. Column 3 holds text"):
        NoisyInjectiveFlow().fit(np.column_stack([table.astype(object), TEXT]))


def test_arrays_of_images_are_to_be_flattened():
    with pytest.raises(ValueError, match=r"dim 3.*X\.reshape\(len\(X\), -1\).*image_shape"):
        NoisyInjectiveFlow().fit(load_digits().images)


@every_estimator
def test_image_shape_with_channels_last_warns(Estimator):
    X = np.random.RandomState(0).random_sample((60, 48))
    with pytest.warns(UserWarning, match=r"looks like \(height, width, channels\).*\(3, 4, 4\)"):
        Estimator(3, image_shape=(4, 4, 3), **SMALL).fit(X)
    # Channels first, or small images of many channels.
    for shape in ((3, 4, 4), (1, 6, 8), (12, 2, 2)):
        Estimator(3, image_shape=shape, **SMALL).fit(X)


def test_tensors_are_rows_of_their_dtype(table):
    X = torch.tensor(table.to_numpy(), dtype=torch.float32, requires_grad=True)
    model = NoisyInjectiveFlow(**SMALL).fit(X)
    expected = NoisyInjectiveFlow(**SMALL).fit(X.detach().numpy())
    assert model.transform(X).dtype == np.float32
    np.testing.assert_array_equal(
        model.score_samples(X), expected.score_samples(X.detach().numpy())
    )


def test_small_gains_of_the_last_epoch_are_not_worth_a_warning(monkeypatch, table):
    model = NoisyInjectiveFlow(**SMALL)
    for gain, warns in ((0.009, False), (0.011, True)):
        train_all = "skmanifoldflow._base.train_all"
        from skmanifoldflow.backend.training import train_all as train

        def trained(jobs, log, train=train, gain=gain):
            reports = train(jobs, log)
            for report in reports:
                report.last_improvement, report.stopped_early = gain, False
            return reports

        monkeypatch.setattr(train_all, trained)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(table)
        messages = [str(w.message) for w in caught if w.category is ConvergenceWarning]
        assert bool(messages) == warns
        if warns:
            assert messages == [
                "The score still rose by 0.011 nats in the last of 2 epochs, more than 0.01. "
                "Increase max_iter."
            ]


@every_estimator
@pytest.mark.parametrize("exponent", [-155, -170, -300])
def test_underflow_is_named(Estimator, exponent, table):
    X = table.to_numpy() * [1.0, 10.0**exponent, 1.0]
    with pytest.raises(ValueError, match=r"underflows in columns 1.*Rescale"):
        Estimator(**SMALL).fit(X)


@every_estimator
def test_small_rows_above_it_are_a_matter_of_units(Estimator, table):
    X = table.to_numpy()
    factor = 2.0**-480
    model, small = Estimator(**SMALL).fit(X), Estimator(**SMALL).fit(X * factor)
    np.testing.assert_allclose(
        small.score_samples(X * factor) + 3 * np.log(factor), model.score_samples(X), atol=1e-8
    )


def test_other_columns_than_in_fit_are_named_by_scikit_learn(table):
    model = NoisyInjectiveFlow(**SMALL).fit(table)
    other = table.rename(columns={"age": "years"}).assign(weight=np.nan)
    with pytest.raises(ValueError, match=r"feature names should match(.|\n)*years(.|\n)*age"):
        model.score_samples(other)


def test_coordinates_as_tensors(table):
    table = table.to_numpy()
    model = NoisyInjectiveFlow(2, **SMALL).fit(table)
    Z = model.transform(table)
    np.testing.assert_array_equal(
        model.inverse_transform(torch.tensor(Z, requires_grad=True)), model.inverse_transform(Z)
    )
    assert model.transform(torch.tensor(table).bfloat16()).dtype == np.float32
