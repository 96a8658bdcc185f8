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
