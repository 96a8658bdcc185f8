"""The answers of the report: what was planted in a table is found and named."""

import functools
import re
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import JointManifoldFlow, NoveltyDetector
from skmanifoldflow._report import answers
from skmanifoldflow._report import run as run_module
from skmanifoldflow._report.answers import Map, about_density, about_islands, about_samples
from skmanifoldflow._report.data import table_of
from skmanifoldflow._report.run import rows_for
from skmanifoldflow.compare import Comparison, Result, compare
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
        patch.setattr(answers, "JointManifoldFlow", few)
        return make_report(
            planted, output=folder, estimators=["GaussianMixture"], max_time=1e6
        ), folder


def test_copies_of_ids_are_left_out(report):
    first = report[0].answers[0]
    assert "Left out, numbers of the rows, or ranks: number, number again." in first.sentences
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
    page = Path(__file__).parents[2] / "docs/user_guide/command_line.rst"
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


# ------------------------------------------------------------------ words


def scored(best, mixture, n=100):
    """A comparison of a flow and a mixture with these scores of the test rows."""
    scores = {"Flow": np.broadcast_to(best, n), "GaussianMixture": np.broadcast_to(mixture, n)}
    results = [
        Result(name, float(s.mean()), None, None, None, None, None, 1.0, None, 0.1)
        for name, s in scores.items()
    ]
    return Comparison(
        results, {}, np.zeros((80, 2)), np.zeros((n, 2)), None, None, None, None, [], [], scores
    )


def test_the_better_density_is_told_with_its_error():
    noise = np.random.RandomState(0).standard_normal(100)
    noise -= noise.mean()
    name, answer = about_density(scored(1 + 0.5 * noise, -1 + noise))
    assert name == "Flow"
    error = 0.5 * noise.std(ddof=1) / 10
    assert answer.sentences[1] == f"GaussianMixture has -1.00, 2.00 ± {error:.2f} less."
    name, answer = about_density(scored(0.1 + 3 * noise, noise))
    assert answer.sentences[1].endswith("which may be chance: the mixture is simpler.")
    name, answer = about_density(scored(-2 + noise, noise))
    assert name == "GaussianMixture"
    assert answer.sentences[1].startswith("A mixture of Gaussians is the best here, as often with")
    assert answer.sentences[2].startswith("Flow has -2.00, 2.00 ± 0.00 less")


def test_no_density_at_all():
    failed = [Result("Flow", None, None, None, None, None, None, 1.0, "failed: no.")]
    comparison = Comparison(failed, {}, None, None, None, None, None, None)
    name, answer = about_density(comparison)
    assert name is None
    assert answer.sentences == ["No estimator gave a density."]


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
    _, answer = answers.about_dimension(table_of(pd.DataFrame(columns)))
    assert answer.sentences[0].startswith(said)


def test_a_category_that_is_strange_is_named():
    rng = np.random.RandomState(0)
    kind = np.array(["low", "high"])[rng.randint(2, size=300)]
    value = np.where(kind == "low", -3, 3) + 0.3 * rng.standard_normal(300)
    kind[7] = "low" if value[7] > 0 else "high"
    frame = pd.DataFrame({"value": value, "kind": kind, "other": rng.standard_normal(300)})
    data = table_of(frame)
    detector = NoveltyDetector(GaussianMixture(2, reg_covar=1e-3, random_state=0), cv=3)
    rows = data.X + [0, 1, 0] * rng.random_sample((300, 3))
    data_of_steps = data.encoder.with_steps([0, 1, 0])
    found = answers.find_strange_rows(detector, np.arange(300), rows, data_of_steps, rng)
    assert found.order[0] == 7
    assert {name for name, _ in found.causes[0]} >= {"value", "kind"}
    place = [name for name, _ in found.causes[0]].index("kind")
    assert found.expected[0][place] == ("high" if value[7] > 0 else "low")


@pytest.mark.parametrize("n_columns", [1, 2, 8])
def test_few_rows_of_a_cloud_are_far_outside(n_columns):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((500, n_columns))
    X[:2] = 9
    scores = -0.5 * (X**2).sum(axis=1)
    model = GaussianMixture(random_state=0).fit(X[2:])
    limit = answers._far_below(model, scores, rng)
    # By chance a tenth of a row of 500 lies there.
    assert 2 <= (scores < limit).sum() <= 3


def test_islands_are_told_apart_by_their_columns():
    rng = np.random.RandomState(0)
    n, is_far = 400, np.arange(400) < 40
    frame = pd.DataFrame(
        {
            "size": rng.standard_normal(n) + 9 * is_far,
            "kind": np.where(is_far, "rare", "usual"),
            "other": rng.standard_normal(n),
        }
    )
    data = table_of(frame)
    tells = answers._tell(data, is_far)
    assert [column for column, _ in tells] == ["size", "kind"]
    assert tells[1][1] == "kind is rare in 100%, elsewhere in 0%" or "usual" in tells[1][1]
    # As on a map of t-SNE, where rows are about equally dense everywhere.
    places = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2)
    coordinates = places[::-1] + rng.uniform(-0.3, 0.3, (n, 2)) + 9.0 * is_far[:, None]
    islands = answers._islands(coordinates, coordinates, np.arange(n))
    np.testing.assert_array_equal(islands, is_far)
    found = Map(None, coordinates, islands, [tells], 0.9)
    said = about_islands(found, data).sentences
    assert said[0] == "Yes: on the map 1 island lies beside the mainland."
    assert said[1].startswith("Island 1, 40 rows (10.0%): size is high (middle ")


def test_a_cloud_has_no_islands():
    data = table_of(np.random.RandomState(0).standard_normal((200, 5)))
    found = answers.fit_map(data, 0, 2, 200, np.random.RandomState(0))
    assert not found.islands.any()
    assert about_islands(found, data).sentences[0] == "No: on the map the rows are one piece."


def test_samples_are_judged_by_rows_left_out():
    X = np.random.RandomState(0).standard_normal((400, 2)) @ [[2, 1], [0, 1]] + [5, -9]
    data = table_of(X)
    estimators = {"good": GaussianMixture(1), "bad": make_pipeline(PCA(2), GaussianMixture(1))}
    comparison = compare(X, estimators=estimators, random_state=0)
    good = answers.density_in_data_units(
        [comparison.models["good"][0], comparison.models["good"][1]], 2, None
    )
    new, score, answer = about_samples(good, comparison, data, 0)
    assert score.auc < 0.6
    assert "can hardly tell" in answer.sentences[0]
    np.testing.assert_allclose(new.mean(axis=0), [5, -9], atol=0.5)

    class Shifted:
        def sample(self, n, random_state):
            return good.sample(n, random_state=random_state) + 3

    _, score, answer = about_samples(Shifted(), comparison, data, 0)
    assert score.auc > 0.9
    assert "Take new rows with care" in answer.sentences[1]


# ------------------------------------------------------------------ time and rows


def test_rows_that_there_is_time_for():
    assert rows_for(50, 180) == 5000
    assert rows_for(2, 180) == 20_000
    assert rows_for(2, 360) == 40_000
    assert rows_for(10_000, 180) == 1000


@pytest.fixture
def fast(monkeypatch):
    def detector_of(n_rows, n_columns, seed, max_time):
        return NoveltyDetector(GaussianMixture(random_state=0), cv=2, random_state=seed)

    def fit_map(data, seed, max_time, n_rows, rng):
        model = make_pipeline(StandardScaler(), PCA(2)).fit(data.X)
        Z = model.transform(data.X)
        return Map(model, Z, np.zeros(len(Z), dtype=int), [], 0.9)

    monkeypatch.setattr(answers, "detector_of", detector_of)
    monkeypatch.setattr(answers, "fit_map", fit_map)


def test_of_many_rows_some_are_fitted_and_all_are_ranked(fast, monkeypatch):
    monkeypatch.setattr(run_module, "rows_for", lambda n_columns, budget: 200)
    X = np.random.RandomState(0).standard_normal((2000, 3))
    X[1234, 1] = 40
    report = make_report(X, estimators=["PCA"])
    assert len(report.comparison.X_train) == 160
    assert "The models are fitted to 200 of the 2000 rows" in report.answers[0].sentences[1]
    assert report.log_density.shape == (2000,)
    assert report.strange.order[0] == 1234
    assert report.coordinates.shape == (2000, 2)
    whole = make_report(X, estimators=["PCA"], max_rows=1000)
    assert len(whole.comparison.X_train) == 800
    assert whole.data.X.shape == (1000, 3)


def test_what_fails_is_an_answer(fast, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError("No room. None at all.")

    X = np.random.RandomState(0).standard_normal((60, 3))
    monkeypatch.setattr(answers, "about_dimension", fail)
    monkeypatch.setattr(answers, "find_strange_rows", fail)
    monkeypatch.setattr(answers, "fit_map", fail)
    monkeypatch.setattr(answers, "about_samples", fail)
    report = make_report(X, estimators=["GaussianMixture"])
    assert report.is_complete
    said = [answer.sentences for answer in report.answers]
    assert said.count(["This failed: No room."]) == 4
    assert report.log_density is report.p_value is report.coordinates is report.islands is None


def test_an_interruption_in_python(fast, monkeypatch, tmp_path):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(answers, "about_islands", interrupt)
    X = np.random.RandomState(0).standard_normal((60, 3))
    with pytest.warns(UserWarning, match="The report was interrupted after 4 of 6 answers"):
        report = make_report(X, estimators=["GaussianMixture"], output=tmp_path)
    assert not report.is_complete
    assert (tmp_path / "rows.csv").is_file()


def test_a_disk_that_is_full(fast, monkeypatch, tmp_path, capsys):
    from skmanifoldflow.__main__ import main

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module.joblib, "dump", full)
    status = main(["iris", "--estimators", "GaussianMixture", "--output", str(tmp_path)])
    out, err = capsys.readouterr()
    assert status == 1
    assert err == "model.joblib cannot be written: No space left on device.\n"
    assert "6. Do new rows look real?" in out
    assert (tmp_path / "report.html").is_file()
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_written(fast, tmp_path, capsys):
    from skmanifoldflow.__main__ import main

    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as exit_:
        main(["iris", "--output", str(tmp_path / "file" / "folder")])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: The folder ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": np.eye(5)}, "5 rows to compare: at least 12"),
        ({"X": "iris", "y": [1]}, "y is for a table of its own"),
        ({"X": np.eye(20), "max_time": 0}, "max_time must be a number > 0"),
        ({"X": np.eye(20), "max_rows": 3}, "At least 12 rows"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_report(**arguments)
