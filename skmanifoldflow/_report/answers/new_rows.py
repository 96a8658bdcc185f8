"""Whether new rows look real."""

import numpy as np

from ...metrics import classifier_two_sample_score
from ..encoding import at_or_below
from .answer import Answer, shortened
from .dimension import has_many_values

__all__ = ["about_samples", "ordered"]

# Rows that are compared with new ones at most.
_MAX_COMPARED = 2000
# With fewer the classifier has too few rows to learn from.
_LEAST_COMPARED = 40
# Draws for each row that is wanted, at most, and standard errors within which nothing is told.
_MAX_DRAWS, _N_ERRORS = 5, 2.0
# Logarithm of the probability by which an order of two columns may be chance.
_LOG_CHANCE = -14.0
# Share of a step at its end that belongs to the next value.
_WITHIN = 1e-6


def about_samples(density, comparison, data, seed):
    """Return new rows and the score of the classifier, or None, and say how real they look."""
    answer = Answer("Do new rows look real?")
    n = min(len(comparison.X_test), _MAX_COMPARED)
    new, share_redrawn, faults = _possible_rows(density, data, max(n, 10), seed)
    real = comparison.X_test[:n]
    score = None
    if n >= _LEAST_COMPARED:
        score = classifier_two_sample_score(real, new[:n], random_state=seed)
        area = score.auc
        says = "can hardly tell" if area < 0.6 else "can partly tell" if area < 0.75 else "can tell"
        if area - 0.5 < _N_ERRORS * score.standard_error:
            says = "does not tell"
        answer.sentences.append(
            f"A classifier {says} {n} new rows from {n} rows that the model has not seen: of a "
            f"pair it knows the new one in {area:.0%} ± {score.standard_error:.0%} of cases, where "
            "guessing has 50 %."
        )
        if area >= 0.75:
            answer.sentences.append("Take new rows with care: they differ from those of the table.")
    else:
        answer.sentences.append(f"{n} rows left out are too few for a classifier to compare with.")
    if share_redrawn >= 0.005:
        answer.sentences.append(
            f"{share_redrawn:.0%} of the draws {' or '.join(faults)}, and were drawn anew."
        )
    encoder = data.encoder
    both = [("real", real[:4]), ("new", new[:4])]
    names = encoder.columns[:8]
    answer.table = [["", *names] + (["..."] if len(encoder.columns) > 8 else [])]
    for label, rows in both:
        cells = encoder.inverse_transform(rows)
        for k in range(len(rows)):
            more = ["..."] if len(encoder.columns) > 8 else []
            answer.table.append([label, *(shortened(str(cells[c][k]), 24) for c in names), *more])
    answer.code = (
        "skmanifoldflow.StackingDensity(random_state=0).fit(X).sample(1000, random_state=0)"
    )
    return new, score, answer


def _possible_rows(density, data, n, seed):
    """Return draws that may be rows, the share of those that were drawn anew, and their faults.

    In columns that have no values below 0 there are none, and what is never above another column is
    not; few values, such as grades, go as far as those of the table.
    """
    X, parts = data.X, data.encoder.parts
    steps = np.array([part.step for part in parts])
    is_number = np.array([part.kind == "number" for part in parts])
    has_none = is_number & (X.min(axis=0) >= 0)
    draws = density.sample(n, random_state=seed)
    is_graded = (steps > 0) & ~has_many_values(data)
    highest = X.max(axis=0) + (1 - _WITHIN) * steps
    low, high = ordered(X, is_number) if data.image_shape is None else np.zeros((2, 0), dtype=int)

    def within(rows):
        rows = rows.copy()
        rows[:, is_graded] = np.clip(rows, X.min(axis=0), highest)[:, is_graded]
        cells = np.column_stack([at_or_below(p, rows[:, j]) for j, p in enumerate(parts)])
        return rows, (rows[:, has_none] < 0).any(axis=1), cells[:, low] > cells[:, high]

    draws, is_negative, is_broken = within(draws)
    faults = ["had values below 0 in columns that have none"] * bool(is_negative.any())
    if is_broken.any():
        most = is_broken.sum(axis=0).argmax()
        faults.append(
            f"broke an order that all rows keep, such as {parts[low[most]].name} <= "
            f"{parts[high[most]].name}"
        )
    is_possible = ~is_negative & ~is_broken.any(axis=1)
    share = 1 - is_possible.mean()
    if 0 < share < 1:
        more, is_negative, is_broken = within(density.sample(_MAX_DRAWS * n, random_state=seed + 1))
        is_possible_too = ~is_negative & ~is_broken.any(axis=1)
        # Where hardly any draw is possible some of the others have to do.
        order = np.r_[np.flatnonzero(is_possible), n + np.flatnonzero(is_possible_too)]
        order = np.r_[order, np.flatnonzero(~is_possible)][:n]
        draws = np.concatenate([draws, more])[order]
    return draws, float(share), faults


def ordered(X, is_number):
    """Return the indices of columns that are in no row above another one, and of the other one.

    Values of different rows have to break the order so often that it is no chance.
    """
    n, some, columns = len(X), X[:_MAX_COMPARED], np.flatnonzero(is_number)
    pairs = []
    for j in columns:
        sorted_values = np.sort(some[:, j])
        for k in columns[(some[:, [j]] <= some[:, columns]).all(axis=0)]:
            n_keep = np.searchsorted(sorted_values, some[:, k], side="right")
            chance = n * np.log(n_keep.mean() / len(some))
            if j != k and chance < _LOG_CHANCE and (X[:, j] <= X[:, k]).all():
                pairs.append((j, k))
    return np.array(pairs, dtype=int).reshape(-1, 2).T
