"""By how much a density is the best, in words."""

from dataclasses import replace

import numpy as np

from skmanifoldflow._report.answers import about_density
from skmanifoldflow.compare import Comparison, Result


def scored(best, mixture, n=100):
    """A comparison of a flow and a mixture with these scores of the test rows."""
    scores = {"Flow": np.broadcast_to(best, n), "GaussianMixture": np.broadcast_to(mixture, n)}
    results = [
        Result(name, float(s.mean()), None, None, None, None, None, 1.0, None, 0.1)
        for name, s in scores.items()
    ]
    return Comparison(
        results, {}, np.zeros((80, 2)), np.zeros((n, 2)), None, None, None, None, [], [], scores
    )


def test_the_better_density_is_told_with_its_error():
    noise = np.random.RandomState(0).standard_normal(100)
    noise -= noise.mean()
    name, answer = about_density(scored(1 + 0.5 * noise, -1 + noise))
    assert name == "Flow"
    error = 0.5 * noise.std(ddof=1) / 10
    assert answer.sentences[1] == f"GaussianMixture has -1.00, 2.00 ± {error:.2f} less."
    name, answer = about_density(scored(0.1 + 3 * noise, noise))
    assert answer.sentences[1].endswith("which may be chance: the mixture is simpler.")
    name, answer = about_density(scored(-2 + noise, noise))
    assert name == "GaussianMixture"
    assert answer.sentences[1].startswith("A mixture of Gaussians is the best here, as often with")
    assert answer.sentences[2].startswith("Flow has -2.00, 2.00 ± 0.00 less")


def test_with_few_rows_all_may_be_chance():
    scores = np.array([1.0, 0.5, 2.0, 1.5])
    _, answer = about_density(scored(scores + np.array([1.0, 0.8, 1.6, 0.2]), scores, n=4))
    assert "So few rows say little" in answer.sentences[1]
    # 0.9 with a standard error of .29: with 4 rows 3.18 of them are nothing.
    assert answer.sentences[2].endswith("which may be chance: the mixture is simpler.")


def test_a_row_far_outside_does_not_make_all_chance():
    scores = np.where(np.arange(100) == 7, -900.0, np.where(np.arange(100) < 30, 0.5, -2))
    _, answer = about_density(scored(0.0, scores))
    assert answer.sentences[1].endswith(" less, in 71 of the 100 rows.")
    _, answer = about_density(scored(0.0, scores[:50], n=50))
    assert answer.sentences[1].endswith("which may be chance: the mixture is simpler.")


def test_a_simple_density_is_not_said_to_be_less_simple():
    noise = np.random.RandomState(0).standard_normal(100)
    comparison = scored(0.1 + 3 * noise, noise)
    comparison.results[0] = replace(comparison.results[0], estimator="PCA")
    comparison.test_scores["PCA"] = comparison.test_scores.pop("Flow")
    name, answer = about_density(comparison)
    assert name == "PCA"
    assert answer.sentences[1].endswith("which may be chance.")


def test_a_mixture_is_the_best_of_what_there_was_time_for():
    comparison = scored(-2.0, 0.0)
    skipped = Result("Slow", *[None] * 6, 0.0, "skipped: no time was left")
    comparison.results.append(skipped)
    _, answer = about_density(comparison)
    assert "is the best of those that there was time for" in answer.sentences[1]
    assert answer.sentences[-1] == "There was no time for Slow (--budget)."


def test_no_density_at_all():
    failed = [Result("Flow", None, None, None, None, None, None, 1.0, "failed: no.")]
    comparison = Comparison(failed, {}, None, None, None, None, None, None)
    name, answer = about_density(comparison)
    assert name is None
    assert answer.sentences == ["No estimator gave a density."]
