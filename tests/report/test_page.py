"""The page: one file without network, with all that its script reads."""

import base64
import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import NoveltyDetector
from skmanifoldflow.__main__ import main
from skmanifoldflow._report import answers, command_line, names
from skmanifoldflow._report import page as page_module
from skmanifoldflow._report.answers import Map
from skmanifoldflow._report.data import _READERS as READERS
from skmanifoldflow._report.data import BUILT_IN
from skmanifoldflow._report.page import page, page_data, shown_rows
from skmanifoldflow.compare import ESTIMATORS
from skmanifoldflow.report import make_report

N = 300


@pytest.fixture(scope="module")
def report():
    """A report of simple models on a table of all kinds of columns."""
    patch = pytest.MonkeyPatch()

    def detector_of(n_rows, n_columns, seed, max_time):
        return NoveltyDetector(GaussianMixture(random_state=0), cv=2, random_state=seed)

    def fit_map(data, seed, max_time, n_rows, rng):
        model = make_pipeline(StandardScaler(), PCA(2)).fit(data.X)
        Z = model.transform(data.X)
        islands = (Z[:, 0] > np.quantile(Z[:, 0], 0.9)).astype(int)
        return Map(model, Z, islands, [[("a", "a is high")]], 0.9)

    patch.setattr(answers, "detector_of", detector_of)
    patch.setattr(answers, "fit_map", fit_map)
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {
            "a<b>": rng.standard_normal(N).round(3),
            "count": rng.randint(7, size=N),
            "kind": np.array(["x", "</script>", "z & y"])[rng.randint(3, size=N)],
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.randint(400, size=N), "D"),
        },
        index=[f"row <{i}>" for i in range(N)],
    )
    label = pd.Series(np.array(["one", "two"])[rng.randint(2, size=N)], name="label")
    with patch.context():
        yield make_report(frame, label, estimators=["GaussianMixture"], name="a <table>")
    patch.undo()


class Elements(HTMLParser):
    """What a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.sources, self.open, self.scripts = [], [], [], [], []
        self.texts = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.sources += [attributes[k] for k in ("src", "href", "action") if k in attributes]
        if tag not in ("meta", "input", "br", "option"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] == "script" else self.texts).append(data)


@pytest.fixture(scope="module")
def elements(report):
    return Elements(page(report))


def test_the_page_needs_no_network(report, elements):
    assert all(source.startswith("#") for source in elements.sources)
    targets = {source[1:] for source in elements.sources}
    assert targets <= set(elements.ids)
    assert len(elements.ids) == len(set(elements.ids))
    assert not re.search(r"url\(|@import", "".join(elements.texts))
    tags = [tag for tag, _ in elements.tags]
    assert not {"img", "link", "iframe"} & set(tags)


def test_all_answers_are_on_the_page(report, elements):
    text = " ".join(" ".join(elements.texts).split())
    for answer in report.answers:
        assert answer.title in text
        for sentence in answer.sentences:
            assert " ".join(sentence.split()) in text
        for line in answer.code.splitlines():
            assert " ".join(line.split()) in text
    assert "What is in a <table>" in text
    buttons = [a for tag, a in elements.tags if tag == "button" and "data-row" in a]
    assert [int(a["data-row"]) for a in buttons] == report.strange.order[:10].tolist()


def test_fields_have_labels(elements):
    fields = {a["id"] for tag, a in elements.tags if tag in ("input", "select")}
    labelled = {a["for"] for tag, a in elements.tags if tag == "label"}
    assert fields == labelled == {"colour", "find", "which", "step"}


def test_the_data_of_the_page(report, elements):
    (text,) = [script for script in elements.scripts if script.startswith('{"rows"')]
    data = json.loads(text)
    assert data["rows"][3] == "row <3> (row 4)"
    assert [column["name"] for column in data["columns"]] == ["a<b>", "count", "kind", "day"]
    numbers, _, kind, day = data["columns"]
    np.testing.assert_allclose(unpacked(numbers), report.data.X[:, 0], rtol=1e-6)
    table = report.data.encoder.inverse_transform(report.data.X)
    levels = np.frombuffer(base64.b64decode(kind["packed"]), "u1")
    assert [kind["levels"][k] for k in levels] == table["kind"]
    origin = np.datetime64(day["origin"])
    days = (origin + unpacked(day).astype(int)).astype(str)
    assert days.tolist() == table["day"]
    x = np.frombuffer(base64.b64decode(data["x"]), "<f4")
    np.testing.assert_allclose(x, report.coordinates[:, 0], rtol=1e-6)
    np.testing.assert_allclose(data["logd"], report.log_density, rtol=1e-3, atol=1e-3)
    assert data["islands"] == report.islands.tolist()
    assert data["label"]["levels"] == ["one", "two"]
    for walk, j in zip(data["walks"], (0, 1), strict=True):
        along = walk["xy"[j]]
        assert (np.diff(along) > 0).all()
        assert len(along) == len(walk["cells"]) == 25
        assert all(len(cells) == 4 for cells in walk["cells"])
        # The row at a step is where the model puts it.
        place = np.column_stack([walk["x"], walk["y"]])
        rows = report.map.model.inverse_transform(place)
        low, high = report.data.X.min(axis=0), report.data.X.max(axis=0)
        expected = np.clip(rows, low, high)[:, 0]
        np.testing.assert_allclose([cells[0] for cells in walk["cells"]], expected, atol=2e-3)


def unpacked(column):
    return np.frombuffer(base64.b64decode(column["packed"]), "<f4")


def test_the_data_of_many_rows_are_small(report, monkeypatch):
    monkeypatch.setattr(page_module, "_MAX_ROWS", 50)
    monkeypatch.setattr(page_module, "_MAX_CELLS", 100)
    few = shown_rows(report)
    # At least 200 rows, the strangest among them.
    assert 190 <= len(few) <= 200
    assert set(report.strange.order[:10]) <= set(few)
    data = page_data(report, few)
    assert len(data["rows"]) == len(few)
    row = [few.tolist().index(i) for i in report.strange.order[:10]]
    assert [strange["row"] for strange in data["strange"]] == row


def test_twenty_thousand_rows_of_fifty_columns_are_below_two_megabytes():
    n, n_columns = 20_000, 50
    data = answers_of(np.random.RandomState(0).standard_normal((n, n_columns)))
    text = json.dumps(page_data(data, shown_rows(data)), separators=(",", ":"))
    assert len(text) < 2e6


def answers_of(X):
    """A report of rows with a map and no models."""
    from skmanifoldflow._report.data import table_of
    from skmanifoldflow._report.run import Report

    report = Report("table", table_of(X), map=Map(None, X[:, :2], np.zeros(len(X), int), [], 1.0))
    return report


def test_a_page_without_plotly(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"\[plot\].*pip install plotly"):
        page(report)


def test_the_page_of_a_report_that_has_just_begun(report):
    data = answers_of(np.random.RandomState(0).standard_normal((20, 2)))
    data.map = None
    text = page(data)
    assert "The report was interrupted" in text
    assert "Plotly.newPlot" not in text


# ------------------------------------------------------------------ the help


def test_names_in_the_help_are_those_there_are():
    assert tuple(BUILT_IN) == names.BUILT_IN
    assert tuple(ESTIMATORS) == names.ESTIMATORS
    assert {*names.TEXT_FILES, *READERS} == set(names.FILES)


def test_the_help_imports_neither_torch_nor_scikit_learn():
    code = (
        "import sys\n"
        "import skmanifoldflow.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'numpy', 'pandas', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import resource\n"
        "print(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *said, seconds = done.stdout.splitlines()
    assert float(seconds) < 0.3
    assert sum(line.startswith("  skmanifoldflow ") for line in said) == 3
    for word in ("minutes", "model.joblib", "--budget", "--impute"):
        assert word in done.stdout


def test_names_of_the_package_are_there_when_asked_for():
    import skmanifoldflow

    for name in skmanifoldflow.__all__:
        assert name in dir(skmanifoldflow)
        assert getattr(skmanifoldflow, name) is not None
    assert skmanifoldflow.metrics.__name__ == "skmanifoldflow.metrics"
    with pytest.raises(AttributeError, match="has no attribute 'TSNE'"):
        skmanifoldflow.TSNE  # noqa: B018


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("3min", 180), ("1.5 min", 90), ("1h", 3600)]
)
def test_times_on_the_command_line(text, seconds):
    assert command_line._seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "-3min", "3 weeks", "min", "0.5s"])
def test_times_that_are_none(text, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["iris", "--budget", text] if text else ["iris", "--budget="])
    assert exit_.value.code == 2
    assert "such as 90s, 3min or 1h" in capsys.readouterr().err or text.startswith("-")


def test_the_first_line_comes_at_once():
    """Before what takes seconds to be imported."""
    command = [sys.executable, "-u", "-m", "skmanifoldflow", "nothing.csv"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        process.wait()
    assert line.startswith(b"Report on nothing.csv, within 3 min")
    assert seconds < 3
    assert process.returncode == 2
