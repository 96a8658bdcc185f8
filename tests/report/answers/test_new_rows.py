"""How real new rows look, in words."""

from dataclasses import replace

import numpy as np
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline

from skmanifoldflow._report.answers import about_samples, density_in_data_units
from skmanifoldflow._report.answers.new_rows import ordered
from skmanifoldflow._report.data import table_of
from skmanifoldflow.compare import compare


def test_samples_are_judged_by_rows_left_out():
    X = np.random.RandomState(0).standard_normal((400, 2)) @ [[2, 1], [0, 1]] + [5, -9]
    data = table_of(X)
    estimators = {"good": GaussianMixture(1), "bad": make_pipeline(PCA(2), GaussianMixture(1))}
    comparison = compare(X, estimators=estimators, random_state=0)
    good = density_in_data_units(
        [comparison.models["good"][0], comparison.models["good"][1]], 2, None
    )
    new, score, answer = about_samples(good, comparison, data, 0)
    assert score.auc < 0.6
    assert "A classifier does not tell 80 new rows from" in answer.sentences[0]
    np.testing.assert_allclose(new.mean(axis=0), [5, -9], atol=0.5)

    class Shifted:
        def sample(self, n, random_state):
            return good.sample(n, random_state=random_state) + 3

    _, score, answer = about_samples(Shifted(), comparison, data, 0)
    assert score.auc > 0.9
    assert "Take new rows with care" in answer.sentences[1]


def test_values_below_zero_are_drawn_anew_where_there_are_none():
    rng = np.random.RandomState(0)
    X = np.column_stack([np.abs(rng.standard_normal(400)), rng.standard_normal(400)])
    data = table_of(X)
    comparison = compare(X, estimators={"mixture": GaussianMixture(1)}, random_state=0)
    pipeline = comparison.models["mixture"]
    density = density_in_data_units([pipeline[0], pipeline[1]], 2, None)
    n_below = (density.sample(80, random_state=0)[:, 0] < 0).sum()
    assert 2 < n_below < 20
    new, _, answer = about_samples(density, comparison, data, 0)
    assert len(new) == 80
    assert new[:, 0].min() >= 0 > new[:, 1].min()
    share, said = answer.sentences[-1].split("%", 1)
    np.testing.assert_allclose(float(share), 100 * n_below / 80, atol=0.51)
    assert said.startswith(" of the draws had values below 0 in columns that have none")


def test_grades_go_as_far_as_those_of_the_table():
    X = np.random.RandomState(0).randint(1, 3, size=(300, 4)).astype(float)
    data = table_of(X)
    comparison = compare(X, estimators={"mixture": GaussianMixture(1)}, random_state=0)
    data = replace(data, encoder=data.encoder.with_steps(comparison.value_step, data.X))
    pipeline = comparison.models["mixture"]
    density = density_in_data_units([pipeline[0], pipeline[1]], 4, None)
    assert np.floor(density.sample(60, random_state=0)).max() > 2
    new, _, _ = about_samples(density, comparison, data, 0)
    for values in data.encoder.inverse_transform(new).values():
        assert set(values) == {1, 2}


def test_orders_of_columns_are_kept():
    rng = np.random.RandomState(0)
    low = rng.standard_normal(400) - 5
    X = np.column_stack([low, low + np.abs(rng.standard_normal(400)), rng.standard_normal(400) + 9])
    # That the third is above both is no wonder.
    np.testing.assert_array_equal(ordered(X, np.ones(3, dtype=bool)), [[0], [1]])
    data = table_of(X)
    comparison = compare(X, estimators={"mixture": GaussianMixture(1)}, random_state=0)
    pipeline = comparison.models["mixture"]
    density = density_in_data_units([pipeline[0], pipeline[1]], 3, None)
    draws = density.sample(80, random_state=0)
    n_broken = (draws[:, 0] > draws[:, 1]).sum()
    assert n_broken > 4
    new, _, answer = about_samples(density, comparison, data, 0)
    assert (new[:, 0] <= new[:, 1]).all()
    share, said = answer.sentences[-1].split("%", 1)
    np.testing.assert_allclose(float(share), 100 * n_broken / 80, atol=0.51)
    assert said == (
        " of the draws broke an order that all rows keep, such as x0 <= x1, and were drawn anew."
    )
