"""What was planted in a table is found and named."""

import functools
import re
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow._report.answers import islands
from skmanifoldflow.report import make_report

N, STRANGE, ISLAND = 500, [100, 200, 300, 400, 450], slice(0, 20)


@pytest.fixture(scope="module")
def planted():
    """Rows of 3 dimensions in 12 columns, an island of 3 %, and 5 strange rows."""
    rng = np.random.RandomState(0)
    u = rng.uniform(-1, 1, (N, 3))
    X = np.tanh(u @ rng.standard_normal((3, 12))) + 0.03 * rng.standard_normal((N, 12))
    X[ISLAND, 3] += 4
    X[ISLAND, 8] -= 4
    columns = [f"c{j}" for j in range(12)]
    frame = pd.DataFrame(X, columns=columns)
    # Two columns of a kind of their own: each value is usual, together they are not.
    frame["left"] = rng.standard_normal(N)
    frame["right"] = frame["left"] + 0.1 * rng.standard_normal(N)
    frame.loc[STRANGE[:3], "c5"] = [3.0, -3.5, 4.0]
    frame.loc[STRANGE[3:], "left"], frame.loc[STRANGE[3:], "right"] = [1.5, -1.4], [-1.5, 1.4]
    frame.insert(0, "number", rng.permutation(N))
    frame["number again"] = frame["number"]
    return frame


@pytest.fixture(scope="module")
def report(planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        # What the answers are does not depend on how busy the machine is: time ends no fit, and
        # epochs are few.
        few = functools.partial(JointManifoldFlow, max_iter=20)
        patch.setattr(islands, "JointManifoldFlow", few)
        return make_report(
            planted, output=folder, estimators=["GaussianMixture"], max_time=1e6
        ), folder


def test_copies_of_ids_are_left_out(report):
    first = report[0].answers[0]
    reason = "whole numbers that are different in every row, as ids and ranks are"
    assert f"Left out, {reason}: number, number again." in first.sentences
    assert first.sentences[0] == "500 rows; 14 columns of numbers."


def test_the_dimension(report):
    # Three, and one that left and right share.
    assert report[0].dimension.dimension in (4, 5)
    assert "5 numbers would" in str(report[0]) or "4 numbers would" in str(report[0])


def test_strange_rows_are_found_and_named(report):
    report = report[0]
    shown = report.strange.order[:10].tolist()
    assert set(STRANGE) <= set(shown)
    causes = dict(zip(shown, report.strange.causes, strict=True))
    for i in STRANGE[:3]:
        assert causes[i][0][0] == "c5"
    for i in STRANGE[3:]:
        assert {name for name, _ in causes[i][:2]} == {"left", "right"}
    lines = {row[0]: row[2] for row in report.answers[3].table[1:]}
    assert "c5 = 3 (" in lines["row 101"]
    assert "the other columns suggest" in lines["row 401"]
    assert (np.sort(report.p_value)[:5] < 0.015).all()
    np.testing.assert_allclose(report.p_value.mean(), 0.5, atol=0.01)


def test_the_island_is_found_and_named(report):
    report = report[0]
    sizes = np.bincount(report.islands)
    members = np.flatnonzero(report.islands == report.islands[0])
    assert report.islands[0] > 0
    assert np.isin(members, np.arange(20)).mean() > 0.9
    assert sizes[report.islands[0]] >= 16
    tells = {column for column, _ in report.map.tells[report.islands[0] - 1]}
    assert {"c3", "c8"} <= tells


def test_the_files(report, planted):
    report, folder = report
    files = {path.name for path in folder.iterdir()}
    assert files == {
        *("model.joblib", "new_rows.csv", "report.html", "report.png", "results.csv", "rows.csv"),
    }
    rows = pd.read_csv(folder / "rows.csv")
    assert rows["row"].tolist() == list(range(1, N + 1))
    np.testing.assert_allclose(rows["log_density"], report.log_density, rtol=1e-4)
    np.testing.assert_array_equal(rows["island"], report.islands)
    np.testing.assert_allclose(rows[["map_1", "map_2"]], report.coordinates, rtol=1e-4, atol=1e-5)
    new = pd.read_csv(folder / "new_rows.csv")
    assert list(new) == report.data.encoder.columns
    np.testing.assert_allclose(new.mean(), planted[list(new)].mean(), atol=0.25)


def test_the_model_answers_for_new_tables(report, planted):
    report, folder = report
    model = joblib.load(folder / "model.joblib")
    X = model.encoder.transform(planted)
    np.testing.assert_allclose(X, report.data.X)
    best = max(report.comparison.test_scores, key=lambda k: report.comparison.test_scores[k].mean())
    expected = report.comparison.test_scores[best]
    np.testing.assert_allclose(model.density.score_samples(report.comparison.X_test), expected)
    assert model.density.sample(3, random_state=0).shape == (3, 14)
    np.testing.assert_allclose(model.map.transform(X), report.coordinates)
    assert model.detector.predict(X[STRANGE]).tolist() == [-1] * 5


def test_the_code_of_the_page_runs(report, planted, tmp_path, monkeypatch):
    """The block of docs/user_guide/command_line.rst, as it stands there."""
    page = Path(__file__).parents[3] / "docs/user_guide/command_line.rst"
    (block,) = re.findall(r"code-block:: python\n\n((?: +.*\n|\n)+)", page.read_text())
    (tmp_path / "skmanifoldflow-report").symlink_to(report[1], target_is_directory=True)
    planted.to_csv(tmp_path / "rows_of_the_same_kind.csv", index=False)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(textwrap.dedent(block), page.name, "exec"), names)
    np.testing.assert_allclose(names["X"], report[0].data.X)


def test_every_answer_has_a_line_of_python(report):
    for answer in report[0].answers[1:]:
        compile(answer.code, "answer", "exec")
        assert "skmanifoldflow." in answer.code
