"""Which rows are strange, and which columns make them so."""

import time
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import KFold

from ..._densities import NoveltyDetector
from ..._densities.base import draw, novelty_scores
from ..._densities.novelty import p_values
from ..._noisy_injective import NoisyInjectiveFlow
from .answer import Answer, number, shortened

__all__ = [
    "N_STRANGE",
    "StrangeRows",
    "about_strange_rows",
    "detector_of",
    "far_below",
    "find_strange_rows",
    "p_values_of",
]

# Rows and columns in the words.
N_STRANGE, _MAX_CAUSES = 10, 3
# A column has a part in strangeness from so many nats on, and from this share of the largest part.
_LEAST_NATS, _LEAST_SHARE = 1.0, 0.25
# Standard deviation of the noise of the detector's density and its rate, as of `NoveltyDetector`.
_NOISE_FLOOR, _FALSE_POSITIVE_RATE = 0.1, 0.05
# Folds of the detector with few columns, and with many, of which fits take long.
_N_FOLDS, _N_FOLDS_WIDE, _WIDE = 3, 2, 40
# Share of the time for fits, and for the draws of the model.
_TIME_OF_FITS, _TIME_OF_DRAWS = 0.7, 0.1
_N_MEASURED = 500
# Share of the rows whose distance from the middle is compared with that of draws, and whose tail is
# followed: strange rows are fewer.
_LOW_SHARE = 0.1
# Draws of the model for each row that tell how low a density may be by chance, and the least and
# the largest number of them.
_N_DRAWS, _RANGE_OF_DRAWS = 10, (2000, 50_000)
# Share of the rows below which the value of a category is a rare one.
_RARE = 0.03


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
        noise_floor=_NOISE_FLOOR,
        discrete_features=None,
        max_time=_TIME_OF_FITS * max_time / (n_folds + 1),
    )
    folds = KFold(n_folds, shuffle=True, random_state=seed)
    return NoveltyDetector(density, false_positive_rate=rate, cv=folds, random_state=seed)


def find_strange_rows(detector, fitted, rows, encoder, rng, seconds=np.inf):
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
    seconds : float, default=inf
        Time for all, of which draws get a part.
    """
    detector.fit(rows[fitted])
    began = time.monotonic()
    n_measured = len(detector.score_samples(rows[:_N_MEASURED]))
    # To draw a row takes about as long as to score it.
    n_affordable = _TIME_OF_DRAWS * seconds * n_measured / (2 * (time.monotonic() - began))
    others = np.setdiff1d(np.arange(len(rows)), fitted)
    log_density = np.empty(len(rows))
    log_density[fitted] = detector.training_scores_
    if len(others):
        log_density[others] = detector.score_samples(rows[others])
    order = np.argsort(log_density, kind="stable")
    n_drawn = np.clip(_N_DRAWS * len(rows), *_RANGE_OF_DRAWS)
    n_drawn = int(max(_RANGE_OF_DRAWS[0], min(n_drawn, n_affordable)))
    n_far = int((log_density < far_below(detector.density_, log_density, n_drawn, rng)).sum())
    strangest = order[:N_STRANGE]
    shares = detector.explain(rows[strangest])
    causes = [
        _causes(of_row, encoder) or _outliers(rows, encoder, i, of_row)
        for i, of_row in zip(strangest, shares, strict=True)
    ]
    expected = [
        [_expected(detector, encoder, rows[i], column) for column, _ in of_row]
        for i, of_row in zip(strangest, causes, strict=True)
    ]
    return StrangeRows(detector, log_density, order, causes, expected, n_far)


def far_below(density, log_density, n_drawn, rng):
    """Return the log-density below which a row is far outside.

    Of rows that the density draws, a tenth of one in so many would be there. Rows that it has not
    seen are less dense than its draws, and spread more: the middle, the range of the middle half
    and the distance of the lowest tenth tell by how much.
    """
    drawn = novelty_scores(density, draw(density, n_drawn, rng))
    levels = [_LOW_SHARE, 0.25, 0.5, 0.75]
    (low, *box), (our_low, *our_box) = (np.quantile(v, levels) for v in (drawn, log_density))
    ratios = [1.0]
    if box[2] > box[0]:
        ratios += [
            (our_box[2] - our_box[0]) / (box[2] - box[0]),
            (our_box[1] - our_low) / (box[1] - low),
        ]
    # The tail is that of an exponential distribution.
    excess = low - drawn[drawn < low].mean() if (drawn < low).any() else 0.0
    lowest = low - excess * np.log(_LOW_SHARE * _N_DRAWS * len(log_density))
    return our_box[1] - max(ratios) * (box[1] - lowest)


def _expected(detector, encoder, row, column):
    """Return as text the most probable value of a column given the others of a row."""
    indices = encoder.parts_of(column)
    candidates = detector._candidates[:, indices]
    if len(indices) > 1:
        # Each value of a category in turn, in the middle of its step.
        candidates = np.eye(len(indices)) + 0.5
    rows = np.repeat(row[None], len(candidates), axis=0)
    rows[:, indices] = candidates
    best = rows[int(np.argmax(detector.density_.score_samples(rows)))]
    return str(encoder.inverse_transform(best[None])[column][0])


def _causes(shares, encoder):
    """Return the columns that make a row strange, with their nats, the first one first."""
    of_columns = _of_columns(shares, encoder)
    ranked = sorted(of_columns.items(), key=lambda item: -item[1])
    least = max(_LEAST_NATS, _LEAST_SHARE * ranked[0][1])
    return [item for item in ranked[:_MAX_CAUSES] if item[1] >= least]


def _outliers(rows, encoder, i, shares):
    """Return the columns in which a row lies farthest outside most others, with their nats.

    A density that has seen a row need not find any column of it strange.
    """
    low, middle, high = np.quantile(rows, [0.05, 0.5, 0.95], axis=0)
    scale = np.maximum(middle - low, high - middle)
    scale = np.where(scale > 0, scale, np.ptp(rows, axis=0))
    beyond = np.maximum(low - rows[i], rows[i] - high) / scale
    numbers = [
        c for c in encoder.columns if encoder.parts[encoder.parts_of(c)[0]].kind != "category"
    ]
    of_columns = {c: float(beyond[encoder.parts_of(c)[0]]) for c in numbers}
    ranked = sorted(of_columns, key=lambda column: -of_columns[column])[:_MAX_CAUSES]
    nats = _of_columns(shares, encoder)
    return [
        (column, max(0.0, nats[column]))
        for column in ranked
        if of_columns[column] > _LEAST_SHARE * max(0.0, of_columns[ranked[0]])
    ]


def _of_columns(shares, encoder):
    return {c: float(np.max(shares[encoder.parts_of(c)])) for c in encoder.columns}


def about_strange_rows(strange, data):
    """Say which rows are the strangest, and which columns make them so."""
    n = len(strange.log_density)
    shown = strange.order[:N_STRANGE]
    middle = float(np.median(strange.log_density))
    answer = Answer("Which rows are strange?")
    if strange.n_far:
        far = "1 row lies" if strange.n_far == 1 else f"{strange.n_far} rows lie"
        answer.sentences.append(
            f"{far} far outside the rest of {n} rows: less dense than rows that the model draws "
            "would be by chance."
        )
    else:
        answer.sentences.append(
            f"None of {n} rows lies far outside the others: those below are the edge of the table, "
            "and need not be errors."
        )
    answer.sentences.append(
        f"The {len(shown)} with the lowest density under a model that has not seen them, in nats "
        f"(the middle row has {number(middle)}):"
    )
    cells, usual = data.encoder.inverse_transform(data.X[shown]), usual_values(data)
    answer.table = [["row", "nats", "columns that make it so (values of nine tenths of the rows)"]]
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
        answer.table.append([shortened(data.row_name(i)), number(strange.log_density[i]), why])
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


def p_values_of(strange):
    """Return of each row the share of the rows that were fitted with a density no higher."""
    return p_values(strange.detector.calibration_scores_, strange.log_density)
