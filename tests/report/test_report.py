"""The report on the command line: data in, table, file and picture out."""

import bz2
import csv
import gzip
import lzma
import re
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from matplotlib.text import Text
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.manifold import Isomap
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import FunctionTransformer

import skmanifoldflow._report.text_format as text_format
import skmanifoldflow.compare as compare_module
from skmanifoldflow import (
    ChartAtlasFlow,
    JointManifoldFlow,
    ManifoldPriorFlow,
    NoisyInjectiveFlow,
    NoveltyDetector,
    StackingDensity,
)
from skmanifoldflow.__main__ import main
from skmanifoldflow._report import answers, command_line
from skmanifoldflow._report.data import BUILT_IN, load
from skmanifoldflow._report.picture import report_figure
from skmanifoldflow.compare import compare
from skmanifoldflow.datasets import SCurve


@pytest.fixture
def table():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(rng.standard_normal((80, 3)), columns=["height", "width", "depth"])
    return frame.assign(kind=np.where(frame["height"] > 0, "tall", "short"))


@pytest.fixture
def fast_flows(monkeypatch):
    small = {"n_layers": 1, "hidden_layer_sizes": (4,), "max_iter": 1}

    def manifold_prior(d, shape, seed):
        return ManifoldPriorFlow(d, isometry=0, random_state=seed, **small)

    def noisy_injective(d, shape, seed):
        return NoisyInjectiveFlow(d, random_state=seed, **small)

    def chart_atlas(d, shape, seed):
        return ChartAtlasFlow(d, n_charts=2, random_state=seed, **small)

    def joint_manifold(d, shape, seed):
        return JointManifoldFlow(d, random_state=seed, **small)

    def stack(d, shape, seed):
        return StackingDensity([("mixture", GaussianMixture())], random_state=seed)

    monkeypatch.setitem(compare_module.ESTIMATORS, "StackingDensity", stack)
    monkeypatch.setitem(compare_module.ESTIMATORS, "JointManifoldFlow", joint_manifold)
    monkeypatch.setitem(compare_module.ESTIMATORS, "ManifoldPriorFlow", manifold_prior)
    monkeypatch.setitem(compare_module.ESTIMATORS, "NoisyInjectiveFlow", noisy_injective)
    monkeypatch.setitem(compare_module.ESTIMATORS, "ChartAtlasFlow", chart_atlas)


@pytest.fixture(autouse=True)
def other_answers_are_fast(monkeypatch):
    """What these tests are about is the comparison: the other fits are those of simple models."""

    def detector_of(n_rows, n_columns, seed, max_time):
        return NoveltyDetector(GaussianMixture(random_state=0), cv=2, random_state=seed)

    def fit_map(data, seed, max_time, n_rows, rng):
        return None

    monkeypatch.setattr(answers, "detector_of", detector_of)
    monkeypatch.setattr(answers, "fit_map", fit_map)


# Data


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_built_in_data(name):
    data, again = load(name), load(name)
    assert len(data.X) == len(data.y) >= 150
    assert data.n_components is None or 1 <= data.n_components < data.X.shape[1]
    np.testing.assert_array_equal(data.X, again.X)


def test_digits_are_sixteenths_with_a_step():
    data = load("digits")
    np.testing.assert_array_equal(data.X * 16, load_digits().data)
    assert data.value_step == 1 / 16
    assert data.image_shape == (8, 8)


def test_toys_know_their_distribution():
    data = load("s_curve", seed=3)
    X, coordinates = SCurve().sample(len(data.X), random_state=3)
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.y, coordinates[:, 0])
    np.testing.assert_allclose(data.log_density(X[:5]), SCurve().log_density(X[:5]))


@pytest.mark.parametrize(
    "form", [{"index": False}, {"index": True}, {"index": False, "header": False}]
)
def test_csv(table, tmp_path, form):
    path = tmp_path / "table.csv"
    numbers = table.drop(columns="kind")
    numbers.to_csv(path, **form)
    data = load(str(path))
    np.testing.assert_allclose(data.X, numbers)
    assert data.y is None
    assert data.name == "table"
    assert data.n_components is None


def test_npy(tmp_path):
    X = np.random.RandomState(0).standard_normal((12, 2)).astype(np.float32)
    np.save(tmp_path / "rows.npy", X)
    data = load(str(tmp_path / "rows.npy"))
    np.testing.assert_array_equal(data.X, X)
    assert data.X.dtype == np.float64
    data = load(str(tmp_path / "rows.npy"), target="1")
    np.testing.assert_array_equal(data.X, X[:, :1])
    np.testing.assert_array_equal(data.y, X[:, 1])


def test_parquet(table, tmp_path, monkeypatch):
    # The engine that pandas reads parquet with is not among the packages that tests need.
    path = tmp_path / "table.parquet"
    path.touch()
    counts = pd.array([None, *RNG.randint(9, size=79)], dtype="Int64")
    frame = table.assign(count=counts, size=pd.Categorical([1, 2] * 40))
    monkeypatch.setattr(pd, "read_parquet", {path: frame}.__getitem__)
    data = load(str(path), target="kind")
    kept = frame.drop(columns="kind").iloc[1:].astype(float)
    np.testing.assert_array_equal(data.X, kept.drop(columns="size").assign(size=kept["size"]))
    np.testing.assert_array_equal(data.y, table["kind"].iloc[1:])
    assert data.y_name == "kind"


def test_boolean_columns_are_numbers(table, tmp_path):
    path = tmp_path / "table.csv"
    flag = np.where(table["kind"] == "tall", "TRUE", "FALSE")
    other = np.where(table["depth"] > 0, "TRUE", "FALSE")
    holes = np.where(np.arange(80) == 3, "", other)
    table.assign(kind=flag, again=holes).to_csv(path, index=False)
    X = load(str(path)).X
    expected = np.delete(np.column_stack([flag, other]) == "TRUE", 3, axis=0)
    np.testing.assert_array_equal(X[:, 3:], expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([0.5, 1.5, 2.5], [0.5, 1.5, 2.5]),
        (["b", "a", "b"], ["b", "a", "b"]),
        ([1, None, 3], [1, 3]),
        (["b", None, "a"], ["b", "a"]),
    ],
)
def test_targets_keep_their_values(tmp_path, values, expected):
    path = tmp_path / "table.csv"
    x = np.random.RandomState(0).standard_normal(60)
    pd.DataFrame({"x": x, "label": values * 20}).to_csv(path, index=False)
    data = load(str(path), target="label")
    assert data.y.tolist() == expected * 20
    np.testing.assert_allclose(data.X[:, 0], x[np.array(values * 20, dtype=object) != None])  # noqa: E711
    assert ("Left out: 20 rows without 'label'." in data.notes) == (None in values)


RNG = np.random.RandomState(0)
DECIMALS, INTEGERS = RNG.standard_normal((30, 3)).round(3), RNG.randint(9, size=(30, 3))
NAMED = np.column_stack([range(90, 60, -1), INTEGERS])  # with the names of the rows
CUT_ARCHIVE = gzip.compress(RNG.bytes(9).hex().encode() * 10, mtime=0)[:-9]


def lines(rows, separator=",", end="\n"):
    return end.join(separator.join(map(str, row)) for row in rows) + end


def german(text):
    return text.replace(",", ";").replace(".", ",")


@pytest.mark.parametrize(
    ("name", "content", "expected", "said"),
    [
        ("t.csv", "a,b,c\n" + lines(DECIMALS), DECIMALS, "',', encoding utf-8, header, 3 columns"),
        ("t.csv", german("ä,b,c\n" + lines(DECIMALS)).encode("latin-1"), DECIMALS, "decimal comma"),
        ("t.tsv", "a\tb\tc\n" + lines(DECIMALS, "\t"), DECIMALS, "separated by tabs"),
        ("t.txt", "a|b|c\n" + lines(DECIMALS, "|"), DECIMALS, "separated by '|'"),
        ("t.dat", " " + lines(DECIMALS, "   ", "\n "), DECIMALS, "white space.*no header"),
        ("t.csv", "a, b, c\n" + lines(DECIMALS, ", "), DECIMALS, "separated by ','"),
        (
            "t.csv",
            german("x\n" + lines(DECIMALS[:, :1])),
            DECIMALS[:, :1],
            "comma.*1 col",
        ),
        ("t.csv", ("a\tb\tc\n" + lines(DECIMALS, "\t")).encode("utf-16"), DECIMALS, "utf-16"),
        ("t.csv", ("a,b,c\n" + lines(DECIMALS)).encode("utf-8-sig"), DECIMALS, "utf-8-sig"),
        ("t.csv.gz", gzip.compress(lines(DECIMALS).encode(), mtime=0), DECIMALS, "no header"),
        ("t.csv.bz2", bz2.compress(lines(DECIMALS).encode()), DECIMALS, "no header"),
        ("t.csv.xz", lzma.compress(lines(DECIMALS).encode()), DECIMALS, "no header"),
        # Headers of numbers, and rows that look like them.
        ("t.csv", "2019,2020,2021\n" + lines(DECIMALS), DECIMALS, " header"),
        ("t.csv", "2019,2020,2021\n" + lines(INTEGERS), INTEGERS, " header"),
        ("t.csv", "1,2,3\n" + lines(INTEGERS), INTEGERS, " header"),
        ("t.csv", "450,470,530\n" + lines(DECIMALS), DECIMALS, " header"),
        ("t.csv", "0\n" + lines(DECIMALS[:, :1]), DECIMALS[:, :1], " header"),
        ("t.csv", lines(INTEGERS), INTEGERS, "no header"),
        ("t.csv", lines(100 + INTEGERS), 100 + INTEGERS, "no header"),
        ("t.csv", "1,2,3\n4,5,6\n" + lines(INTEGERS), None, "no header, 3 columns"),
        (
            "t.csv",
            '"","16.5","17","18"\n' + lines(NAMED),
            INTEGERS,
            "row names",
        ),
        # Text that could be taken for numbers, and numbers for text.
        ("t.csv", german(lines(["x", "no", "b", *row] for row in DECIMALS)), DECIMALS, "';'"),
        ("t.csv", german(lines(abs(DECIMALS[:, :1]) / 9)), abs(DECIMALS[:, :1]) / 9, "comma"),
        (
            "t.tsv",
            lines(([f"c {i}", *row] for i, row in enumerate(INTEGERS)), "\t"),
            INTEGERS,
            "tabs",
        ),
        (
            "t.csv",
            "1 or 2,4.5,5.5\n" + lines(DECIMALS),
            None,
            "no header.*other text for missing values: 0",
        ),
        (
            "t.csv",
            "1 or 2,4,5\n" + lines(INTEGERS),
            None,
            "no header.*other text for missing values: 0",
        ),
        ("t.csv", "1.5,2.5,4.25,5,6\n" + lines(np.c_[INTEGERS, INTEGERS[:, :2]]), None, " header"),
        # Row names without a heading, as pandas and R write them.
        ("t.csv", ",0,1,2\n" + lines(NAMED), INTEGERS, "row names"),
        ("t.csv", "rownames,a,b,c\n" + lines(NAMED), INTEGERS, "row names"),
        (
            "t.txt",
            '"a" "b" "c"\n' + lines(NAMED, " "),
            INTEGERS,
            "row names",
        ),
        # Separators at the ends of lines.
        ("t.csv", lines(DECIMALS, end=",\n"), DECIMALS, "3 columns"),
        ("t.csv", "a,b,c\n" + lines(DECIMALS, end=",\n"), DECIMALS, "3 columns"),
        ("t.csv", "a,b,c,\n" + lines(DECIMALS, end=",\n"), DECIMALS, "3 columns"),
        # Lines of other lengths.
        ("t.csv", "A title\n\na,b,c\n" + lines(DECIMALS), DECIMALS, "2 lines above the table"),
        (
            "t.csv",
            "Title\na,b\n" + lines(INTEGERS[:, :2]),
            INTEGERS[:, :2],
            "1 line above the table",
        ),
        ("t.csv", "a,b,c\n" + lines(DECIMALS) + "1,2,3,4\n", DECIMALS, "1 line with too many"),
        ("t.csv", "a,b,c\n" + lines(DECIMALS) + "1,2\n", DECIMALS, "1 of 31 rows, .* in c"),
        ("t.csv", "a,b,c\n1,2,3,4\n" + lines(DECIMALS), None, "beyond the last column"),
        ("t.csv", "a,a,\n" + lines(DECIMALS), DECIMALS, " header, 3 columns"),
    ],
)
def test_tables_of_text(tmp_path, name, content, expected, said):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    data = load(str(tmp_path / name))
    if expected is not None:
        np.testing.assert_array_equal(data.X, expected)
    assert data.notes[0].startswith(f"Read {name}: ")
    assert re.search(said, " ".join(data.notes))


@pytest.mark.parametrize(
    ("header", "separator", "cell", "said"),
    [
        ("a;b", ";", "1.234,5", "decimal comma, thousands by '.'"),
        ("a,b", ",", '"1,234.5"', "thousands by ','"),
        ("a,b", ",", '"1234,5"', "decimal comma"),
    ],
)
def test_marks_of_thousands(tmp_path, header, separator, cell, said):
    cells = [[cell.replace("4", str(i % 10)), i % 7] for i in range(20)]
    (tmp_path / "t.csv").write_text(header + "\n" + lines(cells, separator))
    data = load(str(tmp_path / "t.csv"))
    np.testing.assert_array_equal(data.X[:, 0], [1230.5 + i % 10 for i in range(20)])
    assert said in data.notes[0]


def test_a_table_without_header_keeps_its_first_row(tmp_path):
    cities = ["Zürich", "Bern"] * 15
    text = lines([a, b, city] for (a, b, _), city in zip(INTEGERS, cities, strict=True))
    (tmp_path / "t.csv").write_text(text, encoding="cp1252")
    data = load(str(tmp_path / "t.csv"), target="2")
    np.testing.assert_array_equal(data.X, INTEGERS[:, :2])
    assert data.y.tolist() == cities


def test_an_encoding_that_shows_late(tmp_path, monkeypatch):
    monkeypatch.setattr(text_format, "_HEAD_BYTES", 100)
    text = "a,b,c\n" + lines(INTEGERS) + "1,2,Köln\n"
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    data = load(str(tmp_path / "t.csv"), target="c")
    assert "encoding cp1252" in data.notes[0]
    assert data.y[-1] == "Köln"


def test_what_cannot_be_compared_is_left_out(tmp_path):
    n = 60
    frame = pd.DataFrame({"id": np.arange(100, 100 + n), "city": ["x", "y"] * 30, "one": 1.0})
    frame["date"] = pd.date_range("2020-01-01", periods=n).strftime("%Y-%m-%d")
    frame["rare"] = np.where(np.arange(n) % 5, np.nan, np.arange(n))
    frame["half"] = np.where(np.arange(n) % 2, np.nan, np.arange(n) ** 2)
    frame["often"] = np.where(np.arange(n) % 10 == 1, np.inf, np.arange(n) ** 3)
    frame["word"] = [f"word {i % 31}" for i in range(n)]
    frame["name"] = [f"name {i}" for i in range(n)]
    frame["key"] = np.random.RandomState(1).permutation(n)
    frame["degrees"] = 32 + 1.8 * frame["half"]
    frame["x"], frame["y"] = np.random.RandomState(0).standard_normal((2, n))
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = load(str(tmp_path / "t.csv"), drop=["y"])
    is_complete = np.isfinite(frame["often"]) & frame["half"].notna()
    expected = frame.loc[is_complete, ["half", "often", "x"]]
    np.testing.assert_allclose(data.X, expected)
    assert data.notes[1:] == [
        "Taken for categories, a column for each value (number of values): city (2).",
        "Left out, text that is different in every row: name.",
        "Left out, text with many values: word.",
        "Left out, numbers that go by the same step from row to row: id.",
        "Left out, whole numbers that are different in every row, as ids and ranks are: key.",
        "Left out, dates in the order of the rows: date.",
        "Left out, more than half missing: rare.",
        "Left out, the same in all rows: one.",
        "Left out, the same as another column, or in other units: degrees (as half).",
        "Left out: 30 of 60 rows, with missing or infinite values in half, often "
        "(--impute fills them in).",
        "Left out, the same in all complete rows: city.",
    ]
    assert data.labels.tolist() == frame.loc[is_complete, "name"].tolist()
    assert data.row_name(1) == "name 2 (row 3)"
    # Neither of the two has many holes, but few rows have both.
    frame["third"] = np.where(np.arange(n) % 5 < 2, np.nan, np.arange(n) ** 2)
    frame["fourth"] = np.where(np.arange(n) % 7 < 3, np.nan, np.arange(n) ** 2)
    frame[["x", "third", "fourth"]].to_csv(tmp_path / "t.csv", index=False)
    data = load(str(tmp_path / "t.csv"))
    assert "Left out, so that half of the rows are complete: fourth." in data.notes
    np.testing.assert_allclose(data.X, frame.loc[frame["third"].notna(), ["x", "third"]])


def test_max_rows_are_drawn_at_random(table, tmp_path):
    table.to_csv(tmp_path / "t.csv", index=False)
    whole = load(str(tmp_path / "t.csv"), target="kind")
    data = load(str(tmp_path / "t.csv"), target="kind", max_rows=20)
    places = [np.flatnonzero((whole.X == row).all(axis=1))[0] for row in data.X]
    assert len(set(places)) == 20
    assert max(places) > 40
    np.testing.assert_array_equal(data.y, whole.y[places])
    assert data.notes[-1] == "Drawn at random: 20 of 80 rows."
    again = load(str(tmp_path / "t.csv"), max_rows=20, seed=1)
    assert not np.array_equal(again.X, data.X)
    assert len(load("iris", max_rows=50).X) == len(load("iris", max_rows=50).y) == 50


NUMBERS = pd.DataFrame({"a": range(0, 28, 2), "b": np.arange(14) % 5})


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("gone.csv", None, {}, "There is no file .*gone.csv"),
        ("rows.ods", "1 2", {}, "Unknown data .*digits, iris.*.csv"),
        ("rows.xlsx", "1 2", {}, "rows.xlsx cannot be read as Excel|needs openpyxl"),
        ("rows.npy.gz", "1 2", {}, "Unknown data"),
        ("t.csv", NUMBERS, {"target": "c"}, "no column 'c' in .*t.csv: it has a, b"),
        ("t.csv", NUMBERS, {"drop": ["a", "c"]}, "no column 'c' in .*t.csv: it has a, b"),
        ("t.csv", NUMBERS, {"drop": ["a"], "target": "a"}, "cannot be the target"),
        ("t.csv", NUMBERS, {"max_rows": 11}, "At least 12 rows are needed"),
        ("t.csv", NUMBERS[["a"]], {"target": "a"}, "No column of numbers, dates or cat"),
        ("t.csv", NUMBERS[:11], {}, "11 rows to compare: at least 12"),
        ("t.csv", NUMBERS.where(NUMBERS["b"] > 0), {}, "11 rows to compare: .*3 of 14 rows"),
        ("t.csv", NUMBERS.where(NUMBERS["b"] > 4), {"target": "b"}, "0 rows to compare"),
        ("t.csv", NUMBERS.astype(str) + "x", {}, "No column of numbers, .*every row: a.*values: b"),
        ("t.csv", NUMBERS * 0, {}, "No column is left that varies.*same in all rows: a, b"),
        ("t.csv", "", {}, "t.csv is empty"),
        ("t.csv", "\n\n", {}, "t.csv is empty"),
        ("t.csv", "a,b\n", {}, "has a header, and no rows"),
        ("t.csv", lines(["1"] * (1 + i % 7) for i in range(40)), {}, "different numbers of fields"),
        ("t.csv", "a,b\n" + lines(DECIMALS[:12, :2]) * 90 + lines(DECIMALS) * 200, {}, "different"),
        ("t.csv", bytes(range(256)), {}, "t.csv is no text"),
        ("t.csv.gz", "no archive", {}, "t.csv.gz cannot be read"),
        ("t.csv.zip", "no archive", {}, "t.csv.zip cannot be read"),
        (
            "t.csv.gz",
            CUT_ARCHIVE,
            {},
            "cannot be read",
        ),
        ("t.npy", np.zeros(3), {}, r"shape \(rows, columns\), got \(3,\)"),
        ("t.npy", np.array([[None]]), {}, "cannot be read as an array of numbers"),
        ("t.npy", np.full((20, 2), "a"), {}, "No column of numbers, .*same in all rows: 0"),
        ("t.npy", "no array", {}, "cannot be read as an array of numbers"),
        ("t.npy", "", {}, "cannot be read as an array of numbers"),
    ],
)
def test_data_errors(tmp_path, name, content, options, message):
    write(tmp_path / name, content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(str(tmp_path / name), **options)


def write(path, content):
    if isinstance(content, pd.DataFrame):
        content.to_csv(path, index=False)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)


@pytest.mark.parametrize("options", [{"target": "0"}, {"drop": ["0"]}])
def test_columns_of_built_in_data_have_no_names(options):
    with pytest.raises(ValueError, match="for files only, not for 'iris'"):
        load("iris", **options)


def test_missing_packages_are_named(table, tmp_path, monkeypatch):
    (tmp_path / "t.parquet").touch()
    table.to_csv(tmp_path / "t.csv")

    def no_engine(path):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", no_engine)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        load(str(tmp_path / "t.parquet"))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"t.csv needs pandas.*\[plot\].*pip install pandas"):
        load(str(tmp_path / "t.csv"))


# Picture


def texts(figure):
    found = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
    return Counter(text for text in found if text)


@pytest.mark.parametrize("n_columns", [1, 2, 3, 5])
def test_picture_of_tables(n_columns):
    X = np.random.RandomState(0).standard_normal((60, n_columns))
    estimators = {"PCA": PCA(1), "mixture": GaussianMixture(2, random_state=0)}
    estimators["kernels"] = KernelDensity()
    comparison = compare(X, estimators=estimators, random_state=0)
    figure = report_figure(comparison)
    FigureCanvasAgg(figure).draw()
    titles = texts(figure)
    assert {"PCA", "Training rows", "mixture", "kernels"} <= set(titles)
    assert titles["Embeddings of the test rows (colour: first column)"] == 1
    embedding, data, *_ = figure.axes
    drawn = embedding.collections[0].get_offsets()
    np.testing.assert_allclose(
        drawn[:, 0], comparison.models["PCA"].transform(comparison.X_test)[:, 0]
    )
    np.testing.assert_allclose(drawn[:, 1], comparison.X_test[:, 0])
    if n_columns == 2:
        np.testing.assert_allclose(data.collections[0].get_offsets(), comparison.X_train)


def test_samples_in_the_picture_have_the_distribution_of_the_data():
    mean, covariance = [3, -50], [[4, 30], [30, 400]]
    X = multivariate_normal(mean, covariance).rvs(1200, random_state=0)
    estimators = {
        "mixture": GaussianMixture(random_state=0),
        "kernels": KernelDensity(bandwidth=0.1),
    }
    figure = report_figure(compare(X, estimators=estimators, random_state=0))
    assert len(figure.axes) == 3
    for ax in figure.axes[1:]:
        samples = ax.collections[1].get_offsets()
        np.testing.assert_allclose(samples.mean(axis=0), mean, atol=3)
        np.testing.assert_allclose(np.cov(samples.T), covariance, rtol=0.15)


def test_picture_has_a_colour_and_a_name_for_each_class():
    X, y = load_wine(return_X_y=True)
    names = np.array(["red", "rosé", "white"])[y]
    estimators = {"PCA": PCA(2), "Isomap": Isomap(n_components=2)}
    comparison = compare(X, names, estimators=estimators, random_state=0)
    figure = report_figure(comparison, y_name="colour of the wine")
    FigureCanvasAgg(figure).draw()
    titles = texts(figure)
    assert {"red", "rosé", "white", "PCA", "Isomap"} <= set(titles)
    assert "Embeddings of the test rows (colour: colour of the wine)" in titles
    assert "Samples" not in titles
    for ax in figure.axes:
        colors = ax.collections[0].get_facecolors()
        pairs = {
            (name, tuple(color)) for name, color in zip(comparison.y_test, colors, strict=True)
        }
        assert len(pairs) == len({name for name, _ in pairs}) == 3


def test_texts_do_not_overlap():
    X, y = load_wine(return_X_y=True)
    estimators = {f"an estimator {i}": PCA(2) for i in range(6)}
    estimators["mixture"] = GaussianMixture(random_state=0)
    figure = report_figure(compare(X, y, estimators=estimators, random_state=0))
    FigureCanvasAgg(figure).draw()
    boxes = [
        text.get_window_extent()
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text()
    ]
    assert len(boxes) > 20
    width, height = figure.canvas.get_width_height()
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize(
    ("n", "rows", "columns"), [(1, 1, 1), (4, 1, 4), (5, 1, 5), (6, 2, 3), (7, 2, 4)]
)
def test_panels_leave_few_gaps(n, rows, columns):
    estimators = {f"PCA {i}": PCA(2) for i in range(n)}
    X = np.random.RandomState(0).standard_normal((60, 3))
    figure = report_figure(compare(X, estimators=estimators, random_state=0))
    assert figure.axes[0].get_gridspec().get_geometry() == (rows, columns)


@pytest.mark.parametrize("n", [2, 6])
def test_rows_of_images_are_near_each_other(n):
    X = np.random.RandomState(0).uniform(size=(40, 64))
    estimators = {f"mixture {i}": GaussianMixture(covariance_type="diag") for i in range(n)}
    figure = report_figure(compare(X, estimators=estimators, random_state=0), image_shape=(8, 8))
    FigureCanvasAgg(figure).draw()
    boxes = [ax.get_window_extent() for ax in figure.axes]
    n_columns = figure.axes[0].get_gridspec().ncols
    # Of the width of the figure hardly anything is lost, and of its height little.
    # The first ones are test rows, of which there are few.
    assert n_columns * boxes[1].width > 0.85 * figure.bbox.width
    if n == 6:
        assert boxes[1].y0 - boxes[4].y1 < 0.3 * boxes[1].height


# Command line


def test_report_on_a_file(table, tmp_path, fast_flows, capsys):
    table.to_csv(tmp_path / "table.csv", index=False)
    output = tmp_path / "new" / "folder"
    status = main([str(tmp_path / "table.csv"), "--target", "kind", "--output", str(output)])
    out = capsys.readouterr().out
    assert status == 0
    assert "80 rows; 3 columns of numbers." in out
    rows = read_results(output)
    assert list(rows) == list(compare_module.ESTIMATORS)
    expected = compare(
        table.drop(columns="kind"), table["kind"], estimators=["PCA"], random_state=0
    ).results[0]
    assert float(rows["PCA"]["log_density"]) == expected.log_density
    assert float(rows["PCA"]["knn_accuracy"]) == expected.knn_accuracy
    printed = [line for line in out.splitlines() if line.startswith("PCA ")]
    assert printed[0].split()[1] == f"{expected.log_density:.2f}"
    assert imread(output / "report.png").shape[1] == 1399


def test_report_on_digits(tmp_path, capsys):
    arguments = ["--estimators", "GaussianMixture", "PCA", "--output", str(tmp_path)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "(pixel + u) / 16" in out
    pca = next(line for line in out.splitlines() if line.startswith("PCA "))
    # PCA's distribution by hand, on the split and the spreading that a seed stands for.
    rng = np.random.RandomState(0)
    order = rng.permutation(1797)
    X = (load_digits().data + rng.random_sample((1797, 64))) / 16
    test, train = X[order[:359]], X[order[359:]]
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    values, vectors = np.linalg.eigh(np.cov(((train - mean) / deviation).T))
    values[:-10] = values[:-10].mean()
    covariance = deviation[:, None] * (vectors * values @ vectors.T) * deviation
    expected = multivariate_normal(mean, covariance).logpdf(test).mean()
    assert pca.split()[1] == f"{expected:.2f}"
    assert pca.split()[5] == "10"


def test_report_on_a_toy_prints_the_exact_distribution(tmp_path, capsys):
    arguments = ["sin_curve", "--estimators", "PCA", "--output", str(tmp_path)]
    assert main([*arguments, "--n-components", "2"]) == 0
    out = capsys.readouterr().out
    assert "The distribution that the rows were drawn from has " in out
    assert "spread uniformly" not in out


def test_report_says_what_was_done_to_the_columns(tmp_path, capsys):
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.randint(9, size=100), rng.standard_normal((100, 2)), np.ones(100)])
    np.save(tmp_path / "rows.npy", X)
    assert main([str(tmp_path / "rows.npy"), "--estimators", "PCA", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "1 of 3 columns of numbers holds integers or many ties" in out
    assert "Left out, the same in all rows: 3." in out


@pytest.fixture
def broken(monkeypatch):
    """An estimator that fails among those of the command line, and one that is interrupted."""

    def fail(X):
        raise MemoryError("No room is left. Not for\nanything.")

    def interrupt(X):
        raise KeyboardInterrupt

    def build(function):
        def fit(d, shape, seed):
            return FunctionTransformer(function)

        return fit

    names = (*command_line.ESTIMATORS, "Broken", "Interrupted")
    monkeypatch.setattr(command_line, "ESTIMATORS", names)
    monkeypatch.setitem(compare_module.ESTIMATORS, "Broken", build(fail))
    monkeypatch.setitem(compare_module.ESTIMATORS, "Interrupted", build(interrupt))


def read_results(folder):
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        return {line["estimator"]: line for line in csv.DictReader(file)}


def test_an_estimator_that_fails_is_a_row(broken, tmp_path, capsys):
    arguments = ["iris", "--output", str(tmp_path), "--estimators"]
    assert main([*arguments, "PCA", "Broken", "FactorAnalysis"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\[3/3\] Broken \.\.\. failed: No room is left\.$", out, re.MULTILINE)
    assert re.search(r"^Broken +failed: No room is left\.$", out, re.MULTILINE)
    rows = read_results(tmp_path)
    assert {name: row["error"] for name, row in rows.items()} == {
        "PCA": "",
        "Broken": "failed: No room is left.",
        "FactorAnalysis": "",
    }
    assert rows["FactorAnalysis"]["log_density"]
    assert not rows["Broken"]["log_density"]
    assert (tmp_path / "report.png").exists()
    # The picture beside a table is never the one of an earlier report.
    assert main([*arguments, "Broken"]) == 1
    assert "every estimator failed" in capsys.readouterr().err
    assert list(read_results(tmp_path)) == ["Broken"]
    assert not (tmp_path / "report.png").exists()


def test_an_interruption_keeps_the_rows_that_are_done(broken, tmp_path, capsys):
    arguments = ["iris", "--output", str(tmp_path), "--estimators"]
    assert main([*arguments, "PCA", "Broken", "Interrupted", "FactorAnalysis"]) == 130
    out = capsys.readouterr().out
    assert list(read_results(tmp_path)) == ["PCA", "Broken", "FactorAnalysis"]
    written = {"model.joblib", "report.html", "report.png", "results.csv"}
    assert {path.name for path in tmp_path.iterdir()} == written
    assert re.search(r"^PCA +-\d", out, re.MULTILINE)
    assert re.search(r"^(PCA|FactorAnalysis): -\d", out, re.MULTILINE)
    assert out.endswith("Interrupted: 3 of 6 answers are there.\n")
    page = (tmp_path / "report.html").read_text()
    assert "The report was interrupted" in page


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("data.load", "nothing was done yet"),
        ("answers.about_dimension", "1 of 6 answers are there"),
        ("answers.find_strange_rows", "3 of 6 answers are there"),
        ("answers.about_islands", "4 of 6 answers are there"),
        ("answers.about_samples", "5 of 6 answers are there"),
        ("picture.report_figure", "all answers are there"),
        ("page.write_page", "all answers are there"),
    ],
)
def test_an_interruption_is_no_traceback(where, said, tmp_path, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"skmanifoldflow._report.{where}", interrupt)
    estimators = ["--estimators", "GaussianMixture"]
    assert main(["iris", *estimators, "--output", str(tmp_path)]) == 130
    out, err = capsys.readouterr()
    assert said in out + err
    assert not list(tmp_path.glob(".*"))


def test_the_command_drops_columns_and_samples_rows(table, tmp_path, capsys):
    table.to_csv(tmp_path / "t.csv", index=False)
    arguments = [str(tmp_path / "t.csv"), "--output", str(tmp_path), "--estimators", "PCA"]
    assert main([*arguments, "--max-rows", "40", "--drop", "depth", "kind"]) == 0
    out = capsys.readouterr().out
    assert "40 rows; 2 columns of numbers." in out
    assert "Drawn at random: 40 of 80 rows.\n" in out


def test_a_large_file_is_announced(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("skmanifoldflow._report.command_line._LARGE_FILE", 100)
    table.to_csv(tmp_path / "t.csv", index=False)
    assert main([str(tmp_path / "t.csv"), "--estimators", "PCA", "--output", str(tmp_path)]) == 0
    assert re.search(r"\nReading .*t.csv \(0 MB\) \.\.\.\n", capsys.readouterr().out)


def test_the_picture_says_that_a_model_has_no_samples(tmp_path):
    class Silent(GaussianMixture):
        def sample(self, n_samples=1):
            raise ValueError("nothing to say")

    X = np.random.RandomState(0).standard_normal((60, 4))
    comparison = compare(X, estimators={"silent": Silent(), "PCA": PCA(2)}, random_state=0)
    with pytest.warns(UserWarning, match="silent failed in the picture: nothing to say"):
        figure = report_figure(comparison)
    assert {"silent: failed", "PCA", "Training rows"} <= set(texts(figure))


@pytest.mark.parametrize("n", [12, 15, 20])
def test_a_small_table_has_a_report(n, fast_flows, tmp_path, capsys):
    pd.DataFrame(DECIMALS[:n]).to_csv(tmp_path / "t.csv")
    assert main([str(tmp_path / "t.csv"), "--output", str(tmp_path)]) == 0
    rows = read_results(tmp_path)
    assert list(rows) == list(compare_module.ESTIMATORS)
    assert not any(row["error"] for row in rows.values())


def test_without_matplotlib_there_is_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["iris", "--estimators", "PCA", "--output", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "nats/row" in out
    assert (tmp_path / "results.csv").is_file()
    assert "No picture: " in err
    assert "[plot]" in err
    assert not (tmp_path / "report.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "Error: Unknown data 'nothing'"),
        (["gone.csv"], "Error: There is no file 'gone.csv'"),
        (["empty.csv"], "Error: .*empty.csv is empty"),
        (["iris", "--drop", "a"], "Error: Columns can be named for files only"),
        (["iris", "--max-rows", "5"], "Error: At least 12 rows are needed"),
        (["iris", "--n-components", "9"], "Error: n_components must be .* got 9"),
        (["iris", "--n-components", "0"], "Error: n_components must be .* got 0"),
        (["iris", "--estimators", "TSNE"], "invalid choice: 'TSNE'"),
    ],
)
def test_errors_on_the_command_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--output", str(tmp_path)])
    assert exit_.value.code == 2
    assert re.search(message, capsys.readouterr().err)
