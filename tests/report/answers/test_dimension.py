"""How many things vary, in words."""

import numpy as np
import pandas as pd
import pytest

from skmanifoldflow._report.answers import about_dimension
from skmanifoldflow._report.data import table_of


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": np.arange(50) ** 1.5}, "One: there is a single column"),
        (
            {"k": np.array(["a", "b"] * 25, dtype=object)},
            "All columns are categories or have few values",
        ),
        (dict(zip("xy", np.random.RandomState(0).normal(size=(2, 50)), strict=True)), "As many as"),
    ],
)
def test_dimensions_without_a_manifold(columns, said):
    _, answer = about_dimension(table_of(pd.DataFrame(columns)))
    assert answer.sentences[0].startswith(said)


def test_independent_columns_are_not_said_to_follow_from_each_other():
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.standard_normal(1000), 1932 + 4 * rng.randint(21, size=1000)])
    report, answer = about_dimension(table_of(X))
    # Whatever it reads in the units of the columns.
    assert report.dimension < X.shape[1]
    assert answer.sentences[0].startswith("Between 1 and 2, of 2 columns of numbers")
    assert not any("sure" in sentence for sentence in answer.sentences)
    # Long tails alone do not mislead it.
    _, answer = about_dimension(table_of(np.exp(2 * rng.standard_normal((2000, 4)))))
    assert answer.sentences[0].startswith("As many as there are columns of numbers, 4")


def test_one_column_of_many_values_among_others_of_few():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(rng.randint(6, size=(200, 8))).assign(age=rng.randint(20, 70, 200))
    _, answer = about_dimension(table_of(frame))
    assert answer.sentences == [
        "Only age takes many values: of the other columns there is no dimension."
    ]


def test_a_surface_in_space():
    u = np.random.RandomState(0).uniform(-1, 1, (600, 2))
    X = np.column_stack([u, (u**2).sum(axis=1)])
    _, answer = about_dimension(table_of(X))
    assert answer.sentences[0] == "About 2: 2 numbers would nearly tell all 3 columns of numbers."
    assert answer.sentences[1].startswith("That is rather sure: nearest neighbours say ")
