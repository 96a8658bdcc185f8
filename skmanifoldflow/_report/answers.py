"""What the report answers, each answer in words and with a line of Python."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.cluster import DBSCAN
from sklearn.manifold import TSNE, trustworthiness
from sklearn.model_selection import KFold
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .._checks import counted, list_names
from .._densities import NoveltyDetector, TransformedDensity
from .._densities.base import draw
from .._densities.novelty import p_values
from .._dimension import intrinsic_dimension
from .._joint_manifold import JointManifoldFlow
from .._noisy_injective import NoisyInjectiveFlow
from ..metrics import classifier_two_sample_score

__all__ = [
    "Answer",
    "about_columns",
    "about_density",
    "about_dimension",
    "about_islands",
    "about_samples",
    "about_strange_rows",
    "detector_of",
    "fit_map",
]

# Values from which on a column has a dimension, and rows with which that is a guess.
_MANY_VALUES, _FEW_ROWS = 10, 50
# Rows and columns in the words.
N_STRANGE, _MAX_CAUSES = 10, 3
# A column has a part in strangeness from so many nats on, and from this share of the largest part.
_LEAST_NATS, _LEAST_SHARE = 1.0, 0.25
# Standard deviation of the noise of the detector's density and its rate, as of `NoveltyDetector`.
_NOISE_FLOOR, _FALSE_POSITIVE_RATE = 0.1, 0.05
# Folds of the detector with few columns, and with many, of which fits take long.
_N_FOLDS, _N_FOLDS_WIDE, _WIDE = 3, 2, 40
# Draws of the model for each row that tell how low a density may be by chance, and the least and
# the largest number of them.
_N_DRAWS, _RANGE_OF_DRAWS = 10, (2000, 50_000)
# Share of the rows below which the value of a category is a rare one.
_RARE = 0.03
# Rows of the map at most; t-SNE takes most of its time.
MAX_MAP_ROWS = 2000
_LEAST_MAP_ROWS = 40
# Steps of t-SNE: half of the usual number, after which maps hardly change.
_TSNE_STEPS = 500
# Rows are of one island that are nearer to each other, on the map, than this many times the usual
# distance to the fifth neighbour; and the rows that an island has at least.
_REACH, _LEAST_OF_ISLAND = 1.75, 8
_LEAST_SHARE_OF_ISLAND, _MAX_ISLANDS = 0.01, 8
# Share of the rows of an island whose nearest neighbour, in the table, is one of them.
_PURE = 0.85
# Probability that a value in an island is above one elsewhere from which on a column tells it.
_TELLS = 0.8
# Rows that are compared with new ones at most.
_MAX_COMPARED = 2000
# With fewer the classifier has too few rows to learn from.
_LEAST_COMPARED = 40


@dataclass
class Answer:
    """One answer of the report.

    Attributes
    ----------
    title : str
        The question.
    sentences : list of str
        The answer.
    table : list of list of str
        Rows of text below it, the first one of headings; empty for none.
    code : str
        A line of Python that gives the same.
    """

    title: str
    sentences: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    code: str = ""

    def __str__(self):
        parts = [self.title, "", *self.sentences]
        if self.table:
            parts += ["", *aligned(self.table)]
        if self.code:
            parts += ["", *(f"    {line}" for line in self.code.splitlines())]
        return "\n".join(parts)


def aligned(table):
    """Return rows of text as lines whose columns are as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def number(value, digits=3):
    """Return a number as a person writes it."""
    if not np.isfinite(value):
        return str(value)
    if value == round(value) and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"


# ------------------------------------------------------------------ columns


def about_columns(data, n_fitted):
    """Say how many rows and columns there are, and what the columns are taken for."""
    parts, encoder = data.encoder.parts, data.encoder
    kinds = {column: parts[encoder.parts_of(column)[0]].kind for column in encoder.columns}
    whole = []
    for column, kind in kinds.items():
        values = data.X[:, encoder.parts_of(column)[0]]
        is_whole = kind == "number" and data.image_shape is None
        if is_whole and (values == np.round(values)).all():
            whole.append(column)
    n = {kind: list(kinds.values()).count(kind) for kind in ("number", "date", "category")}
    taken = []
    if n["number"]:
        held = f", {len(whole)} of them whole numbers" if 0 < len(whole) < n["number"] else ""
        held = ", all of them whole numbers" if len(whole) == n["number"] else held
        taken.append(f"{counted(n['number'], 'column')} of numbers{held}")
    if n["date"]:
        taken.append(f"{counted(n['date'], 'column')} of dates, as days")
    if n["category"]:
        n_values = sum(part.kind == "category" for part in parts)
        names = [column for column, kind in kinds.items() if kind == "category"]
        taken.append(
            f"{counted(n['category'], 'column')} of categories ({list_names(names)}), as "
            f"{counted(n_values, 'column')} of 0 and 1"
        )
    answer = Answer("What is in the table?")
    answer.sentences.append(
        f"{counted(len(data.X), 'row')}; {'; '.join(taken)}."
        + (f" {data.units}" if data.units else "")
    )
    if n_fitted < len(data.X):
        answer.sentences.append(
            f"The models are fitted to {n_fitted} of the {len(data.X)} rows, drawn at random, as "
            "many as the time allows."
        )
    answer.sentences.extend(data.notes)
    if data.source:
        answer.code = (
            f'model = joblib.load("{{folder}}/model.joblib")\n'
            f'table = skmanifoldflow.report.read_table("{data.source}")\n'
            "X = model.encoder.transform(table)  # rows as numbers"
        )
    return answer


# ------------------------------------------------------------------ dimension


def about_dimension(data):
    """Return the report of the dimension, or None, and say how many numbers vary freely."""
    answer = Answer("How many things vary?")
    # Few values have no dimension, and are on their way to being categories.
    is_taken = np.array(
        [
            part.kind != "category" and len(np.unique(data.X[:, j])) >= _MANY_VALUES
            for j, part in enumerate(data.encoder.parts)
        ]
    )
    X = data.X[:, is_taken]
    n_columns = X.shape[1]
    if not n_columns:
        answer.sentences.append("All columns are categories or have few values: no dimension.")
        return None, answer
    report = intrinsic_dimension(X)
    d = report.dimension
    columns = "column" if n_columns == 1 else f"{n_columns} columns"
    of = "of numbers" if is_taken.all() else "that take many values"
    if d >= n_columns:
        answer.sentences.append(
            "As many as there are columns: none of them follows from the others."
            if n_columns > 1
            else "One: there is a single column that takes many values."
        )
    else:
        answer.sentences.append(
            f"About {d}: {counted(d, 'number')} would nearly tell all {columns} {of}."
        )
    if n_columns > 1:
        answer.sentences.append(_how_sure(report))
    answer.code = "skmanifoldflow.intrinsic_dimension(X)"
    return report, answer


def _how_sure(report):
    if not report.neighbors or report.n_rows < _FEW_ROWS:
        return f"With {report.n_rows} different rows this is a guess."
    says = f"nearest neighbours say {report.estimate:.1f}"
    if report.agreement == "good":
        return f"That is rather sure: {says}, from {report.n_rows} different rows."
    if report.agreement == "fair":
        return f"It may be one more or less: {says}, from {report.n_rows} different rows."
    return (
        f"That is a guess: {says}, which contradicts it. Values that repeat, clusters and few rows "
        "have no clear dimension."
    )


# ------------------------------------------------------------------ density


def about_density(comparison, mixture="GaussianMixture"):
    """Return the name of the best density, or None, and say by how much it is the best."""
    answer = Answer("Which density fits best?")
    results = {r.estimator: r for r in comparison.results if r.log_density is not None}
    results = {name: r for name, r in results.items() if np.isfinite(r.log_density)}
    failed = [r.estimator for r in comparison.results if (r.error or "").startswith("failed")]
    skipped = [r.estimator for r in comparison.results if (r.error or "").startswith("skipped")]
    if not results:
        answer.sentences.append("No estimator gave a density.")
        return None, answer
    ranked = sorted(results, key=lambda name: -results[name].log_density)
    best, scores = ranked[0], comparison.test_scores
    n_test = len(comparison.X_test)
    answer.sentences.append(
        f"{best}: {results[best].log_density:.2f} ± {results[best].log_density_error:.2f} nats a "
        f"row, the mean log-density of {n_test} rows that no model has seen."
    )
    reference = mixture if mixture in results and best != mixture else None
    others = [name for name in ranked[1:] if name != reference]
    if best == mixture:
        reference = others[0] if others else None
        few = ", as often with few rows" if len(comparison.X_train) < 500 else ""
        answer.sentences.append(f"A mixture of Gaussians is the best here{few}, and it is fast.")
    if reference is not None:
        difference = scores[best] - scores[reference]
        mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(n_test)
        says = (
            f"{reference} has {results[reference].log_density:.2f}, {mean:.2f} ± {error:.2f} less"
        )
        if not mean > 2 * error:
            says += ", which may be chance"
            says += ": the mixture is simpler" if reference == mixture else ""
        answer.sentences.append(f"{says}.")
    if failed:
        answer.sentences.append(f"Failed: {list_names(failed)}; the table below says why.")
    if skipped:
        answer.sentences.append(f"There was no time for {list_names(skipped)} (--budget).")
    answer.code = (
        "skmanifoldflow.StackingDensity(random_state=0).fit(X).score_samples(X)  # nats of each row"
    )
    return best, answer


# ------------------------------------------------------------------ strange rows


@dataclass
class StrangeRows:
    """The rows with the lowest density, and what makes them so.

    Attributes
    ----------
    detector : NoveltyDetector
        Fitted to the rows.
    log_density : ndarray of shape (n_rows,)
        Of all rows, those that were fitted by a density that has not seen them.
    order : ndarray of int
        Rows, the strangest first.
    causes : list of list of (str, float)
        For each of the first ten, columns and their shares in nats, largest first.
    expected : list of list of str
        For each of these columns the value that the other columns of the row suggest.
    n_far : int
        Rows whose log-density is far below the others.
    """

    detector: NoveltyDetector
    log_density: np.ndarray
    order: np.ndarray
    causes: list
    expected: list
    n_far: int


def detector_of(n_rows, n_columns, seed, max_time):
    """Return an unfitted detector of strange rows, which takes about so many seconds."""
    n_folds = _N_FOLDS if n_columns < _WIDE else _N_FOLDS_WIDE
    # With few rows no rate of false alarms is so small that the usual one would have a threshold.
    rate = max(_FALSE_POSITIVE_RATE, 1 / n_rows)
    density = NoisyInjectiveFlow(
        noise_floor=_NOISE_FLOOR, discrete_features=None, max_time=max_time / (n_folds + 1)
    )
    folds = KFold(n_folds, shuffle=True, random_state=seed)
    return NoveltyDetector(density, false_positive_rate=rate, cv=folds, random_state=seed)


def find_strange_rows(detector, fitted, rows, encoder, rng):
    """Fit a detector to some rows, and rank all of them.

    Parameters
    ----------
    detector : NoveltyDetector
        Unfitted.
    fitted : ndarray of int
        Indices of the rows that it is fitted to.
    rows : ndarray of shape (n_rows, n_parts)
        All rows, spread over the steps of their columns.
    encoder : Encoder
        What the columns are.
    rng : RandomState
        Source of the rows that the density draws.
    """
    detector.fit(rows[fitted])
    others = np.setdiff1d(np.arange(len(rows)), fitted)
    log_density = np.empty(len(rows))
    log_density[fitted] = detector.training_scores_
    if len(others):
        log_density[others] = detector.score_samples(rows[others])
    order = np.argsort(log_density, kind="stable")
    n_far = int((log_density < _far_below(detector.density_, log_density, rng)).sum())
    strangest = order[:N_STRANGE]
    shares = detector.explain(rows[strangest])
    causes = [_causes(row, encoder) for row in shares]
    expected = [
        [_expected(detector, encoder, rows[i], column) for column, _ in of_row]
        for i, of_row in zip(strangest, causes, strict=True)
    ]
    return StrangeRows(detector, log_density, order, causes, expected, n_far)


def _far_below(density, log_density, rng):
    """Return the log-density below which a row is far outside, that of the least of many draws.

    Rows that a density has not seen are less dense than its draws, and spread more: their middle
    and the range of their middle half tell by how much.
    """
    n_drawn = int(np.clip(_N_DRAWS * len(log_density), *_RANGE_OF_DRAWS))
    drawn = density.score_samples(draw(density, n_drawn, rng))
    (low, middle, high), ours = (np.quantile(v, [0.25, 0.5, 0.75]) for v in (drawn, log_density))
    wider = max(1.0, (ours[2] - ours[0]) / (high - low)) if high > low else 1.0
    return ours[1] - wider * (middle - drawn.min())


def _expected(detector, encoder, row, column):
    """Return as text the most probable value of a column given the others of a row."""
    indices = encoder.parts_of(column)
    candidates = detector._candidates[:, indices]
    if len(indices) > 1:
        # Each value of a category in turn, in the middle of its step.
        candidates = np.eye(len(indices)) + 0.5
    rows = np.repeat(row[None], len(candidates), axis=0)
    rows[:, indices] = candidates
    best = rows[int(np.argmax(detector.score_samples(rows)))]
    return str(encoder.inverse_transform(best[None])[column][0])


def _causes(shares, encoder):
    """Return the columns that make a row strange, with their nats, the first one first."""
    of_columns = {c: float(np.max(shares[encoder.parts_of(c)])) for c in encoder.columns}
    ranked = sorted(of_columns.items(), key=lambda item: -item[1])
    least = max(_LEAST_NATS, _LEAST_SHARE * ranked[0][1])
    named = [item for item in ranked[:_MAX_CAUSES] if item[1] >= least]
    return named or ranked[:1]


def about_strange_rows(strange, data):
    """Say which rows are the strangest, and which columns make them so."""
    n = len(strange.log_density)
    shown = strange.order[:N_STRANGE]
    middle = float(np.median(strange.log_density))
    answer = Answer("Which rows are strange?")
    if strange.n_far:
        far = "1 row lies" if strange.n_far == 1 else f"{strange.n_far} rows lie"
        answer.sentences.append(
            f"{far} far outside the rest of {n} rows: less dense than any of many rows that the "
            "model draws."
        )
    else:
        answer.sentences.append(
            f"None of {n} rows lies far outside: these are the edge of the table, not its errors."
        )
    answer.sentences.append(
        f"The {len(shown)} with the lowest density under a model that has not seen them, in nats "
        f"(the middle row has {number(middle)}):"
    )
    cells, usual = data.encoder.inverse_transform(data.X[shown]), usual_values(data)
    answer.table = [["row", "nats", "columns that make it so (nine tenths of the rows have)"]]
    for k, (i, causes) in enumerate(zip(shown, strange.causes, strict=True)):
        said = []
        for (column, _), expected in zip(causes, strange.expected[k], strict=True):
            value = cells[column][k]
            is_odd = not _is_usual(data, column, i)
            if not is_odd and expected == str(value):
                # What its neighbours on the scale have is odd, not the value itself.
                continue
            known = usual[column] if is_odd else f"the other columns suggest {expected}"
            said.append(f"{column} = {value} ({known})")
        why = "; ".join(said) or "many columns together"
        answer.table.append([_shortened(data.row_name(i)), number(strange.log_density[i]), why])
    answer.code = (
        "detector = skmanifoldflow.NoveltyDetector(random_state=0).fit(X)\n"
        "detector.training_scores_.argsort()[:10], detector.explain(X[:10])"
    )
    return answer


def _is_usual(data, column, i):
    """Return whether nine tenths of the rows hold values like that of a row."""
    indices = data.encoder.parts_of(column)
    values = data.X[:, indices]
    if data.encoder.parts[indices[0]].kind == "category":
        return (values == values[i]).all(axis=1).mean() >= _RARE
    low, high = np.quantile(values[:, 0], [0.05, 0.95], method="nearest")
    return low <= values[i, 0] <= high


def usual_values(data):
    """Return for each column, as text, the range of nine tenths of its values."""
    said, parts = {}, data.encoder.parts
    for column in data.encoder.columns:
        indices = data.encoder.parts_of(column)
        if parts[indices[0]].kind == "category":
            levels = data.encoder.inverse_transform(data.X)[column]
            values, counts = np.unique(levels, return_counts=True)
            most, share = values[counts.argmax()], counts.max() / len(levels)
            said[column] = f"mostly {most}" if share > 0.5 else "few rows have it"
            continue
        values = np.quantile(data.X, [0.05, 0.95], axis=0, method="nearest")
        low, high = data.encoder.inverse_transform(values)[column]
        said[column] = f"{low} to {high}" if low != high else f"mostly {low}"
    return said


def _shortened(text, most=40):
    return text if len(text) <= most else f"{text[: most - 20]}...{text[-17:]}"


# ------------------------------------------------------------------ map


@dataclass
class Map:
    """Two coordinates of each row, and the islands on them.

    Attributes
    ----------
    model : Pipeline or None
        What gives the coordinates; None where they are the columns themselves.
    coordinates : ndarray of shape (n_rows, 2)
        Of all rows.
    islands : ndarray of int of shape (n_rows,)
        Number of the island of each row, from 1 in descending size; 0 for the mainland.
    tells : list of list of (str, str)
        For each island, columns that distinguish it, with what is said of them.
    trust : float
        Trustworthiness of the map.
    """

    model: Any
    coordinates: np.ndarray
    islands: np.ndarray
    tells: list
    trust: float


def fit_map(data, seed, max_time, n_rows, rng):
    """Return the map of the rows, or None where there is one column or hardly a row.

    The model is fitted to at most `n_rows` of them, in about `max_time` seconds beside t-SNE.
    """
    X = data.X
    if X.shape[1] < 2 or len(X) < _LEAST_MAP_ROWS:
        return None
    model = None
    if X.shape[1] > 2:
        some = rng.permutation(len(X))[:n_rows]
        # t-SNE by itself, so that its time is not taken from that of the training.
        guide = _tsne(StandardScaler().fit_transform(X[some]), seed)
        flow = JointManifoldFlow(
            2,
            guide="precomputed",
            n_stages=1,
            n_init=1,
            discrete_features=None,
            max_time=max_time,
            random_state=seed,
        )
        model = make_pipeline(StandardScaler(), flow)
        model.fit(X[some], jointmanifoldflow__guide_coordinates=guide)
        coordinates = model.transform(X)
    else:
        coordinates = StandardScaler().fit_transform(X)
    some = rng.permutation(len(X))[:MAX_MAP_ROWS]
    scaled = StandardScaler().fit_transform(X)
    islands = _islands(coordinates, scaled, some)
    trust = float(
        trustworthiness(scaled[some], coordinates[some], n_neighbors=min(10, (len(some) - 1) // 2))
    )
    tells = [_tell(data, islands == k) for k in range(1, islands.max() + 1)]
    return Map(model, coordinates, islands, tells, trust)


def _tsne(rows, seed):
    """Return the coordinates (n, 2) of t-SNE."""
    tsne = TSNE(
        init="pca", perplexity=min(30, (len(rows) - 1) / 3), max_iter=_TSNE_STEPS, random_state=seed
    )
    return tsne.fit_transform(rows)


def _islands(coordinates, scaled, some):
    """Return the island (n,) of each row: 1, 2, ... in descending size, 0 for the mainland.

    Islands are parts of the map with water around them whose rows are neighbours in the table too.
    The mainland is the largest part. Rows beyond the ones looked at go with the nearest of them.
    """
    Z, rows = coordinates[some], scaled[some]
    neighbors = NearestNeighbors(n_neighbors=min(5, len(Z) - 1)).fit(Z)
    reach = _REACH * float(np.median(neighbors.kneighbors()[0][:, -1]))
    if not reach > 0:
        return np.zeros(len(coordinates), dtype=int)
    parts = DBSCAN(eps=reach, min_samples=2).fit(Z).labels_
    sizes = np.bincount(parts[parts >= 0], minlength=1)
    by_size = np.argsort(-sizes, kind="stable")
    least = max(_LEAST_OF_ISLAND, _LEAST_SHARE_OF_ISLAND * len(Z))
    nearest = NearestNeighbors(n_neighbors=1).fit(rows).kneighbors(return_distance=False)[:, 0]
    number_of = np.zeros(len(sizes) + 1, dtype=int)  # the last one is that of stray rows
    n_islands = 0
    for part in by_size[1:]:
        is_of_part = parts == part
        is_pure = is_of_part[nearest[is_of_part]].mean() >= _PURE
        if sizes[part] >= least and is_pure:
            n_islands += 1
            number_of[part] = n_islands
    of_some = number_of[parts]
    if len(some) == len(coordinates):
        islands = np.empty(len(coordinates), dtype=int)
        islands[some] = of_some
        return islands
    closest = NearestNeighbors(n_neighbors=1).fit(Z).kneighbors(coordinates, return_distance=False)
    return of_some[closest[:, 0]]


def _tell(data, is_inside):
    """Return the columns that distinguish rows from all others, each with what is said of it."""
    said = []
    n_inside = np.count_nonzero(is_inside)
    for column in data.encoder.columns:
        best = max(
            (abs(_probability(data.X[:, j], is_inside) - 0.5), j)
            for j in data.encoder.parts_of(column)
        )
        if best[0] < _TELLS - 0.5:
            continue
        part, values = data.encoder.parts[best[1]], data.X[:, best[1]]
        inside, outside = values[is_inside], values[~is_inside]
        if part.kind == "category":
            text = f"{column} is {part.level} in {inside.mean():.0%}, elsewhere in "
            text += f"{outside.mean():.0%}"
        else:
            middles = np.zeros((2, data.X.shape[1]))
            middles[:, best[1]] = np.median(inside), np.median(outside)
            here, there = data.encoder.inverse_transform(middles)[column]
            word = "high" if np.median(inside) > np.median(outside) else "low"
            text = f"{column} is {word} (middle {here}, elsewhere {there})"
        said.append((best[0], column, text))
    said.sort(key=lambda item: -item[0])
    assert n_inside
    return [(column, text) for _, column, text in said[:_MAX_CAUSES]]


def _probability(values, is_inside):
    """Return the probability that a value inside is above one outside, ties counted by half."""
    from scipy.stats import rankdata

    n_in = np.count_nonzero(is_inside)
    ranks = rankdata(values)
    return (ranks[is_inside].sum() - n_in * (n_in + 1) / 2) / (n_in * (len(values) - n_in))


def about_islands(found, data):
    """Say which islands the map has, and which columns distinguish them."""
    answer = Answer("Are there groups of rows?")
    if found is None:
        few = len(data.X) < _LEAST_MAP_ROWS
        answer.sentences.append(
            f"{len(data.X)} rows are too few for a map." if few else "One column needs no map."
        )
        return answer
    n, n_islands = len(found.islands), int(found.islands.max())
    if not n_islands:
        answer.sentences.append("No: on the map the rows are one piece.")
    else:
        answer.sentences.append(
            f"Yes: on the map {counted(n_islands, 'island')} "
            f"{'lies' if n_islands == 1 else 'lie'} beside the mainland."
        )
        for k, tells in enumerate(found.tells[:_MAX_ISLANDS], start=1):
            size = np.count_nonzero(found.islands == k)
            texts = "; ".join(text for _, text in tells)
            texts = texts or "no single column tells it from the rest"
            answer.sentences.append(
                f"Island {k}, {counted(size, 'row')} ({size / n:.1%}): {texts}."
            )
    if n_islands > _MAX_ISLANDS:
        answer.sentences.append(f"The other {n_islands - _MAX_ISLANDS} are smaller.")
    quality = (
        "keeps neighbours together" if found.trust > 0.95 else "keeps most neighbours together"
    )
    quality = quality if found.trust > 0.85 else "tears many neighbours apart, as it has to"
    answer.sentences.append(f"The map {quality} (trustworthiness {found.trust:.2f} of 1).")
    if found.model is not None:
        answer.code = (
            'flow = skmanifoldflow.JointManifoldFlow(2, guide="tsne", random_state=0)\n'
            "Z = flow.fit_transform(sklearn.preprocessing.scale(X))  # flow.inverse_transform(Z)"
        )
    return answer


# ------------------------------------------------------------------ new rows


def density_in_data_units(pipeline, n_columns, names):
    """Return a fitted pipeline of a scaler and a density as one density of rows in data units."""
    density = TransformedDensity(pipeline[-1], transformer=pipeline[0])
    density.density_, density.transformer_ = pipeline[-1], pipeline[0]
    density.log_mass_, density.n_features_in_ = 0.0, n_columns
    return density


def about_samples(density, comparison, data, seed):
    """Return new rows and the score of the classifier, or None, and say how real they look."""
    answer = Answer("Do new rows look real?")
    n = min(len(comparison.X_test), _MAX_COMPARED)
    new = density.sample(max(n, 10), random_state=seed)
    real = comparison.X_test[:n]
    score = None
    if n >= _LEAST_COMPARED:
        score = classifier_two_sample_score(real, new[:n], random_state=seed)
        area = score.auc
        says = "can hardly tell" if area < 0.6 else "can partly tell" if area < 0.75 else "can tell"
        answer.sentences.append(
            f"A classifier {says} {n} new rows from {n} rows that the model has not seen: of a "
            f"pair it knows the new one in {area:.0%} ± {score.standard_error:.0%} of cases, where "
            "guessing has 50 %."
        )
        if area >= 0.75:
            answer.sentences.append("Take new rows with care: they differ from those of the table.")
    else:
        answer.sentences.append(f"{n} rows left out are too few for a classifier to compare with.")
    encoder = data.encoder
    both = [("real", real[:4]), ("new", new[:4])]
    names = encoder.columns[:8]
    answer.table = [["", *names] + (["..."] if len(encoder.columns) > 8 else [])]
    for label, rows in both:
        cells = encoder.inverse_transform(rows)
        for k in range(len(rows)):
            more = ["..."] if len(encoder.columns) > 8 else []
            answer.table.append([label, *(_shortened(str(cells[c][k]), 24) for c in names), *more])
    answer.code = (
        "skmanifoldflow.StackingDensity(random_state=0).fit(X).sample(1000, random_state=0)"
    )
    return new, score, answer


def p_values_of(strange):
    """Return of each row the share of the rows that were fitted with a density no higher."""
    return p_values(strange.detector.calibration_scores_, strange.log_density)
