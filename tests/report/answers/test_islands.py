"""The islands of a map, and the columns that distinguish them."""

import numpy as np
import pandas as pd
import pytest

from skmanifoldflow._report.answers.islands import (
    Map,
    about_islands,
    fit_map,
    islands_of,
    set_apart,
    tell,
)
from skmanifoldflow._report.data import table_of


def test_islands_are_told_apart_by_their_columns():
    rng = np.random.RandomState(0)
    n, is_far = 400, np.arange(400) < 40
    frame = pd.DataFrame(
        {
            "size": rng.standard_normal(n) + 9 * is_far,
            "kind": np.where(is_far, "rare", "usual"),
            "other": rng.standard_normal(n),
            "flag": (rng.random_sample(n) < np.where(is_far, 1.0, 0.05)).astype(int),
        }
    )
    data = table_of(frame)
    tells = tell(data, is_far)
    assert [column for column, _ in tells] == ["size", "kind", "flag"]
    assert tells[2][1].startswith("flag is 1 in 100%, elsewhere in ")
    assert tells[1][1] == "kind is rare in 100%, elsewhere in 0%"
    # As on a map of t-SNE, where rows are about equally dense everywhere.
    places = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2)
    coordinates = places[::-1] + rng.uniform(-0.3, 0.3, (n, 2)) + 9.0 * is_far[:, None]
    islands = islands_of(coordinates, coordinates, np.arange(n))
    np.testing.assert_array_equal(islands, is_far)
    found = Map(None, coordinates, islands, [tells], 0.9)
    said = about_islands(found, data).sentences
    assert said[0] == ("Yes: 1 island lies beside the mainland, the rows of one value of kind.")
    assert said[1].startswith("Island 1, 40 rows (10.0%): size is high (middle ")
    assert said[2].endswith("(trustworthiness 0.90 of 1), and may part what hangs together.")


def test_islands_that_no_column_tells():
    data = table_of(np.random.RandomState(0).standard_normal((60, 3)))
    islands = np.repeat([0, 1, 2], 20)
    found = Map(None, np.zeros((60, 2)), islands, [[], []], 0.9)
    said = about_islands(found, data).sentences
    assert said[0].startswith("Perhaps: 2 islands lie beside the mainland, but no")
    found = Map(None, np.zeros((60, 2)), islands, [[], [("x0", "x0 is high")]], 0.9)
    said = about_islands(found, data).sentences
    assert said[:3] == [
        "Yes: 2 islands lie beside the mainland.",
        "Island 2, 20 rows (33.3%): x0 is high.",
        "No single column tells the rows of 1 other.",
    ]


def test_islands_that_are_the_values_of_a_category():
    rng = np.random.RandomState(0)
    kinds, islands = np.array(["a", "b", "c"])[np.arange(60) % 3], np.arange(60) % 3
    data = table_of(pd.DataFrame({"x": rng.standard_normal(60), "kind": kinds}))
    tells = [tell(data, islands == k) for k in (1, 2)]
    found = Map(None, np.zeros((60, 2)), islands, tells, 0.9)
    said = about_islands(found, data).sentences
    assert said[0] == (
        "Yes: 2 islands lie beside the mainland, each the rows of one value of kind."
    )
    assert said[1] == "Island 1, 20 rows (33.3%): kind is b in 100%, elsewhere in 0%."
    found = Map(None, np.zeros((60, 2)), np.where(islands == 2, 1, 0), tells[1:], 0.9)
    assert about_islands(found, data).sentences[0].endswith(", the rows of one value of kind.")
    both = np.minimum(islands, 1)
    found = Map(None, np.zeros((60, 2)), both, [tell(data, both == 1)], 0.9)
    assert about_islands(found, data).sentences[0] == "Yes: 1 island lies beside the mainland."


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["no", "yes"], "paid is no in 100%, elsewhere in 0%"),
        (["bar", "card", "yes"], "paid is not yes in 100%, elsewhere in 0%"),
        ([0, 1], "paid is 0 in 100%, elsewhere in 0%"),
    ],
)
def test_what_an_island_has_not(values, said):
    last = np.arange(60) % 2 == 0
    others = np.array(values[:-1])[np.arange(60) // 2 % (len(values) - 1)]
    frame = pd.DataFrame({"x": np.random.RandomState(0).standard_normal(60)})
    data = table_of(frame.assign(paid=np.where(last, values[-1], others)))
    assert tell(data, ~last) == [("paid", said)]


def test_values_that_repeat_are_no_strips_of_a_map():
    rng = np.random.RandomState(0)
    years = 1932.0 + 4 * rng.randint(21, size=400)
    data = table_of(np.column_stack([rng.standard_normal(400), years]))
    found = fit_map(data, 0, 1, 400, np.random.RandomState(0))
    # Of two columns the map is the columns themselves, which the steps are spread of.
    assert len(np.unique(found.coordinates[:, 1])) == 400
    assert not found.islands.any()


def test_values_of_uneven_steps_are_no_islands():
    rng = np.random.RandomState(0)
    # As heights in classes of an inch, with half of one at both ends.
    edges = np.r_[61.7, 62.2 + np.arange(12), 73.7]
    heights = edges[np.digitize(68 + 2 * rng.standard_normal((300, 2)), edges[1:-1])]
    found = fit_map(table_of(heights), 0, 1, 300, np.random.RandomState(0))
    assert not found.islands.any()


def test_a_cloud_has_no_islands():
    data = table_of(np.random.RandomState(0).standard_normal((200, 5)))
    found = fit_map(data, 0, 2, 200, np.random.RandomState(0))
    assert not found.islands.any()
    assert about_islands(found, data).sentences[0] == "No: on the map the rows are one piece."


def test_an_island_that_a_short_fit_does_not_tear_off():
    rng = np.random.RandomState(0)
    X = np.tanh(rng.standard_normal((300, 3)) @ rng.standard_normal((3, 8)))
    X += 0.05 * rng.standard_normal(X.shape)
    X[:12, 2] += 4
    X[:12, 5] -= 4
    found = fit_map(table_of(X), 0, 0.01, 300, np.random.RandomState(0))
    is_planted = np.arange(300) < 12
    island = found.islands[0]
    assert island > 0
    np.testing.assert_array_equal(found.islands == island, is_planted)
    assert {"x2", "x5"} <= {column for column, _ in found.tells[island - 1]}


def test_the_largest_of_islands_without_a_mainland_is_it():
    rng = np.random.RandomState(0)
    rows = rng.standard_normal((120, 2)) + 40 * np.eye(3, 2)[np.arange(120) % 4 % 3]
    found = fit_map(table_of(rows), 0, 1, 120, np.random.RandomState(0))
    np.testing.assert_array_equal(np.bincount(found.islands), [60, 30, 30])


def test_what_tsne_alone_parts_is_no_island():
    rng = np.random.RandomState(0)
    # A line cut in two on the map, and a cluster that is far in the table too.
    line = np.column_stack([np.arange(200) / 10, np.zeros(200)])
    cluster = [30, 30] + 0.1 * rng.standard_normal((40, 2))
    rows = np.concatenate([line, cluster])
    guide = rows + [0.0, 1.0] * np.where(np.arange(240) < 80, 9.0, 0.0)[:, None]
    expected = np.where(np.arange(240) < 200, 0, 2)
    np.testing.assert_array_equal(set_apart(guide, rows, np.arange(240)), expected)
    # Other rows go with the nearest one.
    some = np.arange(0, 240, 2)
    np.testing.assert_array_equal(set_apart(guide[some], rows, some) > 0, expected > 0)
