"""Strange rows, how far they are, and the columns that are named."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from skmanifoldflow import NoveltyDetector
from skmanifoldflow._report.answers.strange_rows import far_below, find_strange_rows
from skmanifoldflow._report.data import table_of


def test_a_category_that_is_strange_is_named():
    rng = np.random.RandomState(0)
    kind = np.array(["low", "high"])[rng.randint(2, size=300)]
    value = np.where(kind == "low", -3, 3) + 0.3 * rng.standard_normal(300)
    kind[7] = "low" if value[7] > 0 else "high"
    frame = pd.DataFrame({"value": value, "kind": kind, "other": rng.standard_normal(300)})
    data = table_of(frame)
    detector = NoveltyDetector(GaussianMixture(2, reg_covar=1e-3, random_state=0), cv=3)
    rows = data.X + [0, 1, 0] * rng.random_sample((300, 3))
    data_of_steps = data.encoder.with_steps([0, 1, 0], data.X)
    found = find_strange_rows(detector, np.arange(300), rows, data_of_steps, rng)
    assert found.order[0] == 7
    assert {name for name, _ in found.causes[0]} >= {"value", "kind"}
    place = [name for name, _ in found.causes[0]].index("kind")
    assert found.expected[0][place] == ("high" if value[7] > 0 else "low")


def test_a_row_that_the_density_has_learned_is_named_by_its_outliers():
    rng = np.random.RandomState(0)
    X = rng.standard_normal((300, 3))
    X[7] = 0, 30, 0
    data = table_of(X)
    # A mixture with a component for the row: only those that have not seen it find it strange.
    detector = NoveltyDetector(GaussianMixture(3, reg_covar=1e-3, random_state=0), cv=3)
    found = find_strange_rows(detector, np.arange(300), X, data.encoder, rng)
    assert found.order[0] == 7
    assert detector.explain(X[[7]]).max() < 1
    assert [name for name, _ in found.causes[0]] == ["x1"]


@pytest.mark.parametrize("n_columns", [1, 2, 8])
def test_few_rows_of_a_cloud_are_far_outside(n_columns):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((500, n_columns))
    X[:2] = 9
    scores = -0.5 * (X**2).sum(axis=1)
    model = GaussianMixture(random_state=0).fit(X[2:])
    limit = far_below(model, scores, 5000, rng)
    # By chance a tenth of a row of 500 lies there.
    assert 2 <= (scores < limit).sum() <= 3


def test_rows_are_not_far_outside_a_density_that_is_too_narrow():
    rng = np.random.RandomState(0)
    X = rng.standard_normal((4000, 6))
    scores = multivariate_normal(np.zeros(6), 0.3 * np.eye(6)).logpdf(X)
    model = GaussianMixture(random_state=0).fit(np.sqrt(0.3) * X)
    assert (scores < far_below(model, scores, 4000, rng)).sum() <= 1
