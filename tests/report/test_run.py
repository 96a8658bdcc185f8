"""The run of a report: time, failures, interruptions, and files that cannot be written."""

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import NoveltyDetector
from skmanifoldflow.__main__ import main
from skmanifoldflow._report import answers
from skmanifoldflow._report import run as run_module
from skmanifoldflow._report.answers import Map
from skmanifoldflow._report.run import rows_for
from skmanifoldflow.report import make_report


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a limit of a process of POSIX")
def test_files_that_are_too_large_leave_no_part(tmp_path):
    code = (
        "import resource, signal\n"
        "from skmanifoldflow.compare import Comparison, Result\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "results = [Result('PCA', *[None] * 6, 0.1) for _ in range(20)]\n"
        "try: Comparison(results, *[None] * 7).to_csv('results.csv')\n"
        "except OSError as error: print(error.strerror)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "File too large\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a signal of POSIX")
def test_an_interruption_while_modules_are_imported():
    code = (
        "import os, signal\n"
        # A shell may have told the processes in its background to ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Finder(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            raise ImportError('whatever an import makes of it')\n"
        "import sys\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from skmanifoldflow.__main__ import main\n"
        "sys.exit(main(['iris']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "\nInterrupted: nothing was done yet.\n"
    assert done.stdout.startswith("Report on iris, within 3 min")


def test_a_folder_that_cannot_be_written(fast, tmp_path, capsys):
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
