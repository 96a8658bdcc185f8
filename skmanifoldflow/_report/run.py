"""The report, answer after answer, within its time: what is done is written at once."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import joblib
import numpy as np
from scipy.sparse import SparseEfficiencyWarning
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Bunch
from threadpoolctl import threadpool_limits

from .._checks import counted
from .._columns import spread
from .._progress import listening
from ..compare import Line, compare, first_sentence
from . import answers
from .answers import Answer, Map, StrangeRows
from .data import Data
from .files import Files, write_rows, write_table
from .results import Comparison

__all__ = ["Report", "rows_for", "run", "told"]

# Cells, and rows, that models are fitted to in three minutes.
_CELLS, _ROWS, _LEAST_ROWS = 250_000, 20_000, 1000
_USUAL_BUDGET = 180.0
# Seconds that are kept for pictures and files, and shares of what is left: the comparison, then the
# strange rows, then the map.
_RESERVE = 10.0
_SHARES = {"comparison": 0.5, "strange": 0.4, "map": 0.6}
_LEAST_SECONDS = 0.5
# Rows of the map for each second that it has.
_MAP_ROWS_PER_SECOND, _LEAST_MAP_ROWS = 80, 300
_N_NEW_ROWS = 1000
_FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, ValueError)


@dataclass
class Report:
    """Answers about a table, and what they are taken from.

    Attributes
    ----------
    name : str
        Name of the data.
    answers : list of Answer
        Each has a `title`, `sentences`, perhaps a `table` of text, and a line of `code`.
    comparison : Comparison or None
        Figures and fitted models of the estimators that were compared.
    dimension : DimensionReport or None
        Dimension of the columns of numbers and dates.
    log_density : ndarray of shape (n_rows,) or None
        Log-density of the rows, in nats, by a model that has not seen them; low for strange rows.
    p_value : ndarray of shape (n_rows,) or None
        Share of the rows with a log-density no higher.
    coordinates : ndarray of shape (n_rows, 2) or None
        Places of the rows on the map.
    islands : ndarray of int of shape (n_rows,) or None
        Island of each row, from 1; 0 for the mainland.
    new_rows : dict of str to list or None
        A table of new rows.
    model : Bunch
        What `model.joblib` holds: `encoder` with `transform` from tables to numbers and
        `inverse_transform` back, `density`, `detector` and `map`, as far as they are fitted.
    is_complete : bool
        Whether all answers were reached.
    """

    name: str
    data: Any
    answers: list[Answer] = field(default_factory=list)
    comparison: Comparison | None = None
    dimension: Any = None
    strange: StrangeRows | None = None
    map: Map | None = None
    new_rows: dict | None = None
    score: Any = None
    model: Bunch = field(default_factory=Bunch)
    is_complete: bool = False
    warnings: list = field(default_factory=list)

    @property
    def log_density(self):
        """Log-density of the rows."""
        return None if self.strange is None else self.strange.log_density

    @property
    def p_value(self):
        """Share of the rows with a log-density no higher."""
        return None if self.strange is None else answers.p_values_of(self.strange)

    @property
    def coordinates(self):
        """Places of the rows on the map."""
        return None if self.map is None else self.map.coordinates

    @property
    def islands(self):
        """Island of each row."""
        return None if self.map is None else self.map.islands

    def __str__(self):
        return "\n\n".join(f"{k}. {answer}" for k, answer in enumerate(self.answers, start=1))


def rows_for(n_columns, budget):
    """Return the number of rows that models are fitted to within so many seconds."""
    of_cells = _CELLS / n_columns * budget / _USUAL_BUDGET
    return int(max(_LEAST_ROWS, min(of_cells, _ROWS * budget / _USUAL_BUDGET)))


class _Clock:
    """What is left of the time."""

    def __init__(self, budget, began):
        self.deadline = began + budget - min(_RESERVE, budget / 4)

    def left(self):
        return max(self.deadline - time.monotonic(), _LEAST_SECONDS)

    def share(self, part):
        return max(_SHARES[part] * self.left(), _LEAST_SECONDS)


def run(
    data: Data,
    *,
    files: Files,
    say: Callable[[str], None],
    budget: float = _USUAL_BUDGET,
    began: float | None = None,
    estimators=None,
    n_components=None,
    max_rows=None,
    seed: int = 0,
    verbose: int = 1,
) -> Report:
    """Answer the questions about a table, one after the other.

    Parameters
    ----------
    data : Data
        All rows.
    files : Files
        Where the report is written.
    say : callable
        Takes text as it is known.
    budget : float, default=180
        Seconds of wall time in all.
    began : float, default=None
        `time.monotonic` when they began; None is now.
    estimators, n_components
        As in `compare`.
    max_rows : int, default=None
        Rows that models are fitted to; None is as many as the time allows.
    seed : int, default=0
        Source of everything random.
    verbose : int, default=1
        Whether to show progress.

    Returns
    -------
    report : Report
        Not complete after Ctrl-C.
    """
    report = Report(data.name, data)
    work = _Work(report, files, say, budget, began, seed, verbose)
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        # From inside Isomap, where the neighbourhood graph falls apart; another warning says so.
        warnings.simplefilter("ignore", SparseEfficiencyWarning)
        work.caught = caught
        try:
            work.answer_columns(max_rows, n_components)
            work.answer_dimension()
            work.answer_density(estimators, n_components)
            work.answer_strange_rows()
            work.answer_islands()
            work.answer_samples()
            report.is_complete = True
        except KeyboardInterrupt:
            work.end_line()
        report.warnings = list(caught)
    return report


class _Work:
    """A report on its way."""

    def __init__(self, report, files, say, budget, began, seed, verbose):
        self.report, self.files, self.say = report, files, say
        self.budget, self.seed, self.verbose = budget, seed, verbose
        self.clock = _Clock(budget, time.monotonic() if began is None else began)
        self.caught: list[warnings.WarningMessage] = []
        self.line: Line | None = None

    # -------------------------------------------------------------- how

    def add(self, answer):
        """Say an answer and keep it."""
        report = self.report
        if self.files.folder is not None:
            answer.code = answer.code.replace("{folder}", str(self.files.folder))
        report.answers.append(answer)
        self.say(f"\n{len(report.answers)}. {answer}")

    def end_line(self):
        if self.line is not None:
            self.line.end("interrupted")
            self.line = None

    def timed(self, what, function):
        """Return what a function gives, or the first sentence of what it fails with."""
        if self.verbose:
            self.say("")
            self.line = Line(f"{what} ... ")
        start = time.monotonic()
        try:
            if self.line is not None:
                with listening(self.line.show):
                    result, failure = function(), None
            else:
                result, failure = function(), None
        except _FAILURES as error:
            result, failure = None, first_sentence(error)
        if self.line is not None:
            seconds = f"{time.monotonic() - start:.1f} s"
            self.line.end(seconds if failure is None else f"failed: {failure}")
            self.line = None
        return result, failure

    def write_model(self):
        model = self.report.model
        self.files.write("model.joblib", lambda path: joblib.dump(model, path, compress=3))

    # -------------------------------------------------------------- what

    def answer_columns(self, max_rows, n_components):
        data = self.report.data
        self.n_components = data.n_components if n_components is None else n_components
        n_rows = rows_for(data.X.shape[1], self.budget) if max_rows is None else len(data.X)
        self.fitted = np.arange(len(data.X))
        if n_rows < len(data.X):
            drawn = np.random.RandomState(self.seed).choice(len(data.X), n_rows, replace=False)
            self.fitted = np.sort(drawn)
        answer = answers.about_columns(data, len(self.fitted))
        if self.files.folder is None:
            answer.code = ""
        self.add(answer)

    def answer_dimension(self):
        data = self.report.data
        found, failure = self.timed("Dimension", lambda: answers.about_dimension(data))
        if failure is not None:
            self.add(Answer("How many things vary?", [f"This failed: {failure}"]))
            return
        self.report.dimension, answer = found
        self.add(answer)

    def answer_density(self, estimators, n_components):
        report, data = self.report, self.report.data

        def keep(comparison):
            report.comparison = comparison
            self.files.write("results.csv", comparison.to_csv)

        if self.verbose:
            self.say("")
        first = len(self.caught)
        try:
            compare(
                data.X[self.fitted],
                None if data.y is None else data.y[self.fitted],
                estimators=estimators,
                n_components=self.n_components,
                value_step=data.value_step,
                max_time=self.clock.share("comparison"),
                random_state=self.seed,
                verbose=self.verbose,
                callback=keep,
            )
        except KeyboardInterrupt:
            if self.verbose:
                print()
            if report.comparison is not None and report.comparison.results:
                self.say_density(first)
            raise
        self.say_density(first)

    def say_density(self, first):
        report, data, comparison = self.report, self.report.data, self.report.comparison
        self.best, answer = answers.about_density(comparison)
        timed_out = [
            str(w.message).partition(":")[0]
            for w in self.caught[first:]
            if "increase max_time" in str(w.message)
        ]
        if timed_out:
            names = ", ".join(dict.fromkeys(timed_out))
            answer.sentences.append(f"With more time (--budget) these may get better: {names}.")
        if data.log_density is not None:
            exact = data.log_density(comparison.X_test).mean()
            answer.sentences.append(
                f"The distribution that the rows were drawn from has {exact:.2f} nats/row."
            )
        kept = comparison.kept_columns
        encoder = data.encoder.keep(kept)
        is_number = np.array([part.kind != "category" for part in encoder.parts])
        n_spread = np.count_nonzero(comparison.value_step[is_number])
        if n_spread and data.value_step == "auto":
            hold = "holds" if n_spread == 1 else "hold"
            n_columns = counted(np.count_nonzero(is_number), "column")
            answer.sentences.append(
                f"{n_spread} of {n_columns} of numbers {hold} integers or many ties: each value "
                "was spread uniformly over its step."
            )
        self.say("")
        self.say(comparison.table())
        self.add(answer)
        X = data.X[:, kept]
        report.data = replace(data, X=X, encoder=encoder.with_steps(comparison.value_step, X))
        report.model.encoder = report.data.encoder
        models = comparison.models
        samplers = [
            r.estimator for r in comparison.results if r.estimator in comparison.test_scores
        ]
        samplers = [name for name in samplers if hasattr(_within(models[name]), "sample")]
        samplers.sort(key=lambda name: -float(np.mean(comparison.test_scores[name])))
        self.sampler = samplers[0] if samplers else None
        if self.best is not None:
            report.model.density = self.density_of(self.best)
            self.write_model()

    def density_of(self, name):
        pipeline = self.report.comparison.models[name]
        return answers.density_in_data_units(
            [pipeline[0], _within(pipeline)], len(self.report.comparison.kept_columns), None
        )

    def answer_strange_rows(self):
        report, data = self.report, self.report.data
        steps = report.comparison.value_step
        rng = np.random.RandomState(self.seed)
        rows = spread(data.X, steps, rng)
        seconds = self.clock.share("strange")
        detector = answers.detector_of(len(self.fitted), rows.shape[1], self.seed, seconds)
        report.strange, failure = self.timed(
            "Strange rows",
            lambda: answers.find_strange_rows(
                detector, self.fitted, rows, data.encoder, rng, seconds
            ),
        )
        if failure is not None:
            self.add(Answer("Which rows are strange?", [f"This failed: {failure}"]))
            return
        self.add(answers.about_strange_rows(report.strange, data))
        report.model.detector = report.strange.detector
        self.write_model()
        self.files.write("rows.csv", lambda path: write_rows(report, path))

    def answer_islands(self):
        report, data = self.report, self.report.data
        seconds = self.clock.share("map")
        n_rows = int(
            max(_LEAST_MAP_ROWS, min(answers.MAX_MAP_ROWS, seconds * _MAP_ROWS_PER_SECOND))
        )
        rng = np.random.RandomState(self.seed)
        report.map, failure = self.timed(
            "Map", lambda: answers.fit_map(data, self.seed, seconds / 2, n_rows, rng)
        )
        if failure is not None:
            self.add(Answer("Are there groups of rows?", [f"This failed: {failure}"]))
            return
        self.add(answers.about_islands(report.map, data))
        if report.map is not None:
            report.model.map = report.map.model
            self.write_model()
            self.files.write("rows.csv", lambda path: write_rows(report, path))

    def answer_samples(self):
        report, data = self.report, self.report.data
        title = "Do new rows look real?"
        if self.sampler is None:
            self.add(Answer(title, ["No estimator that was compared can draw rows."]))
            return
        density = self.density_of(self.sampler)
        found, failure = self.timed(
            "New rows",
            lambda: answers.about_samples(density, report.comparison, data, self.seed),
        )
        if failure is not None:
            self.add(Answer(title, [f"This failed: {failure}"]))
            return
        new, report.score, answer = found
        if self.sampler != self.best:
            answer.sentences.append(f"They are drawn from {self.sampler}.")
        report.new_rows = data.encoder.inverse_transform(new[:_N_NEW_ROWS])
        self.add(answer)
        self.files.write("new_rows.csv", lambda path: write_table(report.new_rows, path))


def _within(pipeline):
    """Return the density at the end of a pipeline, the best one of a search."""
    return getattr(pipeline[-1], "best_estimator_", pipeline[-1])


def told(caught):
    """Return the warnings that tell a reader of the report something, each once."""
    texts = [str(w.message) for w in caught if not issubclass(w.category, ConvergenceWarning)]
    return list(dict.fromkeys(texts))
