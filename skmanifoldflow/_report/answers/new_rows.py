"""Whether new rows look real."""

import numpy as np

from ...metrics import classifier_two_sample_score
from .answer import Answer, shortened
from .dimension import has_many_values

__all__ = ["about_samples"]

# Rows that are compared with new ones at most.
_MAX_COMPARED = 2000
# With fewer the classifier has too few rows to learn from.
_LEAST_COMPARED = 40
# Draws for each row that is wanted, at most, and standard errors within which nothing is told.
_MAX_DRAWS, _N_ERRORS = 5, 2.0
# Share of a step at its end that belongs to the next value.
_WITHIN = 1e-6


def about_samples(density, comparison, data, seed):
    """Return new rows and the score of the classifier, or None, and say how real they look."""
    answer = Answer("Do new rows look real?")
    n = min(len(comparison.X_test), _MAX_COMPARED)
    new, share_redrawn = _possible_rows(density, data, max(n, 10), seed)
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
            f"{share_redrawn:.0%} of the draws had values below 0 in columns that have none, and "
            "were drawn anew."
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
    """Return draws with values that columns may have, and the share of those that were drawn anew.

    In columns that have no values below 0 there are none; few values, such as grades, go as far as
    those of the table.
    """
    X, steps = data.X, np.array([part.step for part in data.encoder.parts])
    is_number = np.array([part.kind == "number" for part in data.encoder.parts])
    has_none = is_number & (X.min(axis=0) >= 0)
    draws = density.sample(n, random_state=seed)
    is_graded = (steps > 0) & ~has_many_values(data)
    highest = X.max(axis=0) + (1 - _WITHIN) * steps

    def within(rows):
        rows = rows.copy()
        rows[:, is_graded] = np.clip(rows, X.min(axis=0), highest)[:, is_graded]
        return rows, (rows[:, has_none] >= 0).all(axis=1)

    draws, is_possible = within(draws)
    share = 1 - is_possible.mean()
    if 0 < share < 1:
        more, is_possible_too = within(density.sample(_MAX_DRAWS * n, random_state=seed + 1))
        # Where hardly any draw is possible some of the others have to do.
        order = np.r_[np.flatnonzero(is_possible), n + np.flatnonzero(is_possible_too)]
        order = np.r_[order, np.flatnonzero(~is_possible)][:n]
        draws = np.concatenate([draws, more])[order]
    return draws, float(share)
