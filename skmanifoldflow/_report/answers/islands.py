"""Whether there are groups of rows: a map, and the columns that distinguish its islands."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.cluster import DBSCAN
from sklearn.manifold import TSNE, trustworthiness
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..._checks import counted
from ..._columns import spread
from ..._joint_manifold import JointManifoldFlow
from .answer import Answer
from .dimension import has_many_values, steps_of_repeats

__all__ = ["MAX_MAP_ROWS", "Map", "about_islands", "fit_map", "islands_of", "set_apart", "tell"]

# Rows of the map at most; t-SNE takes most of its time.
MAX_MAP_ROWS = 2000
_LEAST_MAP_ROWS = 40
# Steps of t-SNE: half of the usual number, after which maps hardly change.
_TSNE_STEPS = 500
# Rows are of one island that are nearer to each other, on the map, than this many times the usual
# distance to the fifth neighbour; and the rows that an island has at least.
_REACH, _LEAST_OF_ISLAND = 1.75, 8
_LEAST_SHARE_OF_ISLAND, _MAX_ISLANDS = 0.01, 8
# Times that an island has to be farther from others than its own rows are from each other.
_GAP = 1.5
# Share of the rows of an island, and of a value, that both have where the island is the value.
_IS_VALUE = 0.95
# Share of the rows of an island whose nearest neighbour, in the table, is one of them.
_PURE = 0.85
# Probability that a value in an island is above one elsewhere from which on a column tells it, and
# the columns that are named.
_TELLS, _MAX_TELLS = 0.8, 3


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
    X = _spread_repeats(data)
    if X.shape[1] < 2 or len(X) < _LEAST_MAP_ROWS:
        return None
    scaled = StandardScaler().fit_transform(X)
    some = rng.permutation(len(X))[:n_rows]
    # t-SNE by itself, so that its time is not taken from that of the training.
    guide = _tsne(scaled[some], seed)
    apart = set_apart(guide, scaled, some)
    if X.shape[1] == 2:
        # The columns are the map, but their thin edges are no islands.
        model, coordinates, islands = None, scaled, np.zeros(len(X), dtype=int)
    else:
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
    some = rng.permutation(len(X))[:MAX_MAP_ROWS]
    if model is not None:
        islands = islands_of(coordinates, scaled, some)
    islands = _joined(islands, apart)
    trust = float(
        trustworthiness(scaled[some], coordinates[some], n_neighbors=min(10, (len(some) - 1) // 2))
    )
    tells = [tell(data, islands == k) for k in range(1, islands.max() + 1)]
    return Map(model, coordinates, islands, tells, trust)


def _spread_repeats(data):
    """Return the rows with values that repeat spread to the next one, in columns of many values.

    On a map they would lie in strips, which are no groups. The usual distance of values counts: the
    least one may be that of two at the end.
    """
    steps = np.where(has_many_values(data), steps_of_repeats(data.X), 0.0)
    for j in np.flatnonzero(steps):
        steps[j] = np.median(np.diff(np.unique(data.X[:, j])))
    return spread(data.X, steps, np.random.RandomState(0))


def _tsne(rows, seed):
    """Return the coordinates (n, 2) of t-SNE."""
    tsne = TSNE(
        init="pca", perplexity=min(30, (len(rows) - 1) / 3), max_iter=_TSNE_STEPS, random_state=seed
    )
    return tsne.fit_transform(rows)


def islands_of(coordinates, scaled, some):
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


def set_apart(guide, scaled, some):
    """Return the island (n,) of each row that lies apart in t-SNE and in the table, 0 for others.

    A flow that follows t-SNE for a short time does not yet tear small islands off. What t-SNE alone
    parts is put together again: an island joins what is no farther from it than its own rows are
    from each other.
    """
    rows, islands = scaled[some], islands_of(guide, scaled[some], np.arange(len(some)))
    waiting = list(range(1, islands.max() + 1))
    while waiting:
        is_inside = islands == waiting.pop()
        if not is_inside.any():
            continue
        inside, outside = rows[is_inside], rows[~is_inside]
        within = NearestNeighbors(n_neighbors=1).fit(inside).kneighbors()[0]
        across, nearest = NearestNeighbors(n_neighbors=1).fit(outside).kneighbors(inside)
        if across.min() <= _GAP * within.max():
            other = islands[~is_inside][nearest[across.argmin(), 0]]
            islands[is_inside] = other
            if other:
                waiting.append(int(other))
    closest = NearestNeighbors(n_neighbors=1).fit(rows).kneighbors(scaled, return_distance=False)
    return islands[closest[:, 0]]


def _joined(islands, apart):
    """Return numbers of islands of both kinds, in descending size, each island once.

    Where hardly a row is left for the mainland the largest island is it.
    """
    islands = islands.copy()
    for k in np.unique(apart[apart > 0]):
        is_inside = apart == k
        if 2 * np.count_nonzero(islands[is_inside]) < np.count_nonzero(is_inside):
            islands[is_inside & (islands == 0)] = islands.max() + 1
    sizes = np.bincount(islands)
    if sizes[0] < _LEAST_OF_ISLAND and len(sizes) > 1:
        islands[islands == 1 + sizes[1:].argmax()] = 0
        sizes = np.bincount(islands)
    sizes[0] = len(islands) + 1
    number_of = np.empty(len(sizes), dtype=int)
    number_of[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return number_of[islands]


def tell(data, is_inside):
    """Return the columns that distinguish rows from all others, each with what is said of it."""
    said = []
    for column in data.encoder.columns:
        best = max(
            (abs(_probability(data.X[:, j], is_inside) - 0.5), j)
            for j in data.encoder.parts_of(column)
        )
        if best[0] < _TELLS - 0.5:
            continue
        part, values = data.encoder.parts[best[1]], data.X[:, best[1]]
        inside, outside = values[is_inside], values[~is_inside]
        if part.kind == "category" or is_flag(values):
            text = f"{column} is {_said(part, inside.mean(), outside.mean())}"
        else:
            middles = np.zeros((2, data.X.shape[1]))
            middles[:, best[1]] = np.median(inside), np.median(outside)
            here, there = data.encoder.inverse_transform(middles)[column]
            word = "high" if np.median(inside) > np.median(outside) else "low"
            text = f"{column} is {word} (middle {here}, elsewhere {there})"
        said.append((best[0], column, text))
    said.sort(key=lambda item: -item[0])
    return [(column, text) for _, column, text in said[:_MAX_TELLS]]


def _said(part, inside, outside):
    """Say in which shares of the rows, inside and outside, a value is what it mostly is inside."""
    level = part.level if part.kind == "category" else "1"
    if inside < outside:
        others = [other for other in part.levels if other != part.level]
        level = others[0] if len(others) == 1 else "0" if level == "1" else f"not {level}"
        inside, outside = 1 - inside, 1 - outside
    return f"{level} in {inside:.0%}, elsewhere in {outside:.0%}"


def is_flag(values):
    """Return whether numbers are zeros and ones."""
    return bool(np.isin(values, (0, 1)).all())


def _probability(values, is_inside):
    """Return the probability that a value inside is above one outside, ties counted by half."""
    n_in = np.count_nonzero(is_inside)
    ranks = rankdata(values)
    return (ranks[is_inside].sum() - n_in * (n_in + 1) / 2) / (n_in * (len(values) - n_in))


def _of_values(islands, data):
    """Say, if so, that islands are nothing but the values of a category."""
    for column in data.encoder.columns:
        indices = data.encoder.parts_of(column)
        values = data.X[:, indices]
        if data.encoder.parts[indices[0]].kind != "category":
            continue
        if len(indices) == 1:
            values = np.column_stack([values, 1 - values])
        of_islands = np.array([values[islands == k].sum(axis=0) for k in np.unique(islands)])
        n_both = of_islands[1:].max(axis=1)
        levels = of_islands[1:].argmax(axis=1)
        n_rows, n_level = of_islands[1:].sum(axis=1), of_islands.sum(axis=0)[levels]
        if (n_both >= _IS_VALUE * np.maximum(n_rows, n_level)).all():
            return f", {'each ' * (len(levels) > 1)}the rows of one value of {column}"
    return ""


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
    told = [k for k, tells in enumerate(found.tells, start=1) if tells]
    if not n_islands:
        answer.sentences.append("No: on the map the rows are one piece.")
    else:
        lie = f"{counted(n_islands, 'island')} {'lies' if n_islands == 1 else 'lie'}"
        answer.sentences.append(
            f"Yes: {lie} beside the mainland{_of_values(found.islands, data)}."
            if told
            else f"Perhaps: {lie} beside the mainland, but no single column tells which rows these "
            "are."
        )
        for k in told[:_MAX_ISLANDS]:
            size = np.count_nonzero(found.islands == k)
            texts = "; ".join(text for _, text in found.tells[k - 1])
            answer.sentences.append(
                f"Island {k}, {counted(size, 'row')} ({size / n:.1%}): {texts}."
            )
        n_smaller, n_untold = max(0, len(told) - _MAX_ISLANDS), n_islands - len(told)
        if n_smaller:
            are = "is" if n_smaller == 1 else "are"
            answer.sentences.append(f"{n_smaller} more {are} no larger.")
        if told and n_untold:
            others = counted(n_untold, "other")
            answer.sentences.append(f"No single column tells the rows of {others}.")
    quality = (
        "keeps neighbours together" if found.trust > 0.95 else "keeps most neighbours together"
    )
    quality = quality if found.trust > 0.85 else "tears many neighbours apart"
    doubt = ", and may part what hangs together" * bool(n_islands)
    answer.sentences.append(f"The map {quality} (trustworthiness {found.trust:.2f} of 1){doubt}.")
    if found.model is not None:
        answer.code = (
            'flow = skmanifoldflow.JointManifoldFlow(2, guide="tsne", random_state=0)\n'
            "Z = flow.fit_transform(sklearn.preprocessing.scale(X))  # flow.inverse_transform(Z)"
        )
    return answer
