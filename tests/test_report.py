"""The report on the command line: data in, table, file and picture out."""

import csv
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

import skmanifoldflow.compare as compare_module
from skmanifoldflow import (
    ChartAtlasFlow,
    JointManifoldFlow,
    ManifoldPriorFlow,
    NoisyInjectiveFlow,
)
from skmanifoldflow.__main__ import main
from skmanifoldflow._report_data import BUILT_IN, load
from skmanifoldflow._report_picture import draw
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

    monkeypatch.setitem(compare_module.ESTIMATORS, "JointManifoldFlow", joint_manifold)
    monkeypatch.setitem(compare_module.ESTIMATORS, "ManifoldPriorFlow", manifold_prior)
    monkeypatch.setitem(compare_module.ESTIMATORS, "NoisyInjectiveFlow", noisy_injective)
    monkeypatch.setitem(compare_module.ESTIMATORS, "ChartAtlasFlow", chart_atlas)


# Data


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_built_in_data(name):
    data, again = load(name), load(name)
    assert len(data.X) == len(data.y) >= 150
    assert 1 <= data.n_components < data.X.shape[1]
    np.testing.assert_array_equal(data.X, again.X)


def test_digits_are_sixteenths_with_a_step():
    data = load("digits")
    np.testing.assert_array_equal(data.X * 16, load_digits().data)
    assert data.value_step == 1 / 16 and data.image_shape == (8, 8)


def test_toys_know_their_law():
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
    assert data.y is None and data.name == "table" and data.n_components == 2


def test_npy(tmp_path):
    X = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.save(tmp_path / "rows.npy", X)
    data = load(str(tmp_path / "rows.npy"))
    np.testing.assert_array_equal(data.X, X)
    assert data.X.dtype == np.float64 and data.n_components == 1
    data = load(str(tmp_path / "rows.npy"), target="1")
    np.testing.assert_array_equal(data.X, X[:, :1])
    np.testing.assert_array_equal(data.y, X[:, 1])


def test_parquet(table, tmp_path, monkeypatch):
    # The engine that pandas reads parquet with is not among the packages that tests need.
    path = tmp_path / "table.parquet"
    path.touch()
    monkeypatch.setattr(pd, "read_parquet", {path: table}.__getitem__)
    data = load(str(path), target="kind")
    np.testing.assert_array_equal(data.X, table.drop(columns="kind"))
    np.testing.assert_array_equal(data.y, table["kind"])
    assert data.y_name == "kind"


def test_boolean_columns_are_numbers(table, tmp_path):
    path = tmp_path / "table.csv"
    table.assign(kind=table["kind"] == "tall").to_csv(path, index=False)
    np.testing.assert_array_equal(load(str(path)).X[:, 3], table["kind"] == "tall")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2], [1, 2]), ([0.5, 1.5], [0.5, 1.5]), (["b", "a"], ["b", "a"])],
)
def test_targets_keep_their_values(tmp_path, values, expected):
    path = tmp_path / "table.csv"
    pd.DataFrame({"x": [1.0, 2.0], "label": values}).to_csv(path, index=False)
    assert load(str(path), target="label").y.tolist() == expected


def write(path, content):
    if isinstance(content, pd.DataFrame):
        content.to_csv(path, index=False)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    elif content is not None:
        path.write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "target", "message"),
    [
        ("gone.csv", None, None, "There is no file .*gone.csv"),
        ("rows.txt", "1 2", None, "Unknown data .*digits, iris.*.csv"),
        (
            "t.csv",
            pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}),
            None,
            r"numeric: \['a'\].*--target",
        ),
        ("t.csv", pd.DataFrame({"a": [1, None], "b": [1, 2]}), None, r"\['a'\], in 1 of 2 rows"),
        ("t.csv", pd.DataFrame({"a": [1, np.inf]}), None, r"infinite values in columns \['a'\]"),
        ("t.csv", pd.DataFrame({"a": [1, 2]}), "b", r"no column 'b' in .*t.csv: it has \['a'\]"),
        ("t.csv", pd.DataFrame({"a": [1, 2]}), "a", "no columns besides the target"),
        ("t.csv", pd.DataFrame({"a": [1, 2], "b": ["x", None]}), "b", "missing in the target"),
        ("t.csv", pd.DataFrame({"a": [1, 2], "b": [1, None]}), "b", "missing in the target"),
        ("t.csv", "", None, "cannot be read as comma-separated"),
        ("t.csv", "a,b\n1,2\n3,4,5\n", None, "cannot be read as comma-separated"),
        ("t.npy", np.zeros(3), None, r"shape \(rows, columns\), got \(3,\)"),
        ("t.npy", np.array([[None]]), None, "cannot be read as an array of numbers"),
        ("t.npy", np.array([["a"]]), None, "not numeric"),
        ("t.npy", "no array", None, "cannot be read as an array of numbers"),
    ],
)
def test_data_errors(tmp_path, name, content, target, message):
    write(tmp_path / name, content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(str(tmp_path / name), target)


def test_built_in_data_have_no_target():
    with pytest.raises(ValueError, match="for files only, not for 'iris'"):
        load("iris", target="0")


def test_missing_packages_are_named(table, tmp_path, monkeypatch):
    (tmp_path / "t.parquet").touch()
    table.to_csv(tmp_path / "t.csv")

    def no_engine(path):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", no_engine)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        load(str(tmp_path / "t.parquet"))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="t.csv needs pandas: pip install pandas"):
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
    figure = draw(comparison)
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


def test_samples_in_the_picture_have_the_law_of_the_data():
    mean, covariance = [3, -50], [[4, 30], [30, 400]]
    X = multivariate_normal(mean, covariance).rvs(1200, random_state=0)
    estimators = {
        "mixture": GaussianMixture(random_state=0),
        "kernels": KernelDensity(bandwidth=0.1),
    }
    figure = draw(compare(X, estimators=estimators, random_state=0))
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
    figure = draw(comparison, y_name="colour of the wine")
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
    figure = draw(compare(X, y, estimators=estimators, random_state=0))
    FigureCanvasAgg(figure).draw()
    boxes = [
        text.get_window_extent()
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text()
    ]
    assert len(boxes) > 20
    width, height = figure.canvas.get_width_height()
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize(
    ("n", "rows", "columns"), [(1, 1, 1), (4, 1, 4), (5, 1, 5), (6, 2, 3), (7, 2, 4)]
)
def test_panels_leave_few_gaps(n, rows, columns):
    estimators = {f"PCA {i}": PCA(2) for i in range(n)}
    X = np.random.RandomState(0).standard_normal((60, 3))
    figure = draw(compare(X, estimators=estimators, random_state=0))
    assert figure.axes[0].get_gridspec().get_geometry() == (rows, columns)


# Command line


def test_report_on_a_file(table, tmp_path, fast_flows, capsys):
    table.to_csv(tmp_path / "table.csv", index=False)
    output = tmp_path / "new" / "folder"
    status = main([str(tmp_path / "table.csv"), "--target", "kind", "--output", str(output)])
    out = capsys.readouterr().out
    assert status == 0
    assert "table: 80 rows, 3 columns." in out
    with open(output / "results.csv", newline="") as file:
        lines = {line["estimator"]: line for line in csv.DictReader(file)}
    assert list(lines) == list(compare_module.ESTIMATORS)
    expected = compare(
        table.drop(columns="kind"), table["kind"], estimators=["PCA"], random_state=0
    ).results[0]
    assert float(lines["PCA"]["log_density"]) == expected.log_density
    assert float(lines["PCA"]["knn_accuracy"]) == expected.knn_accuracy
    printed = [line for line in out.splitlines() if line.startswith("PCA ")]
    assert printed[0].split()[1] == f"{expected.log_density:.2f}"
    assert imread(output / "report.png").shape[1] == 1399


def test_report_on_digits(tmp_path, capsys):
    arguments = ["--estimators", "GaussianMixture", "PCA", "--output", str(tmp_path)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "(pixel + u) / 16" in out
    pca = next(line for line in out.splitlines() if line.startswith("PCA "))
    # PCA's law by hand, on the split and the spreading that a seed stands for.
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


def test_report_on_a_toy_prints_the_exact_law(tmp_path, capsys):
    arguments = ["sin_curve", "--estimators", "PCA", "--output", str(tmp_path)]
    assert main([*arguments, "--n-components", "2"]) == 0
    out = capsys.readouterr().out
    assert "The law that the rows were drawn from has " in out
    assert "spread uniformly" not in out


@pytest.mark.filterwarnings("default:Constant columns")
def test_report_says_what_was_done_to_the_columns(tmp_path, capsys):
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.randint(9, size=100), rng.standard_normal((100, 2)), np.ones(100)])
    np.save(tmp_path / "rows.npy", X)
    assert main([str(tmp_path / "rows.npy"), "--estimators", "PCA", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "1 of 3 columns hold integers or many ties" in out
    assert "Warning: Constant columns are left out: [3]." in out


def test_without_matplotlib_there_is_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["iris", "--estimators", "PCA", "--output", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "nats/row" in out and (tmp_path / "results.csv").is_file()
    assert "No picture: " in err and "[plot]" in err
    assert not (tmp_path / "report.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "Error: Unknown data 'nothing'"),
        (["gone.csv"], "Error: There is no file 'gone.csv'"),
        (["iris", "--n-components", "9"], "Error: n_components must be .* got 9"),
        (["iris", "--n-components", "0"], "Error: n_components must be .* got 0"),
        (["iris", "--estimators", "TSNE"], "invalid choice: 'TSNE'"),
    ],
)
def test_errors_on_the_command_line(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--output", str(tmp_path)])
    assert exit_.value.code == 2
    assert re.search(message, capsys.readouterr().err)
