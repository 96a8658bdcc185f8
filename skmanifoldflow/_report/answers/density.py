"""Which density fits best, and by how much."""

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student_t

from ..._checks import list_names
from ..._densities import TransformedDensity
from .answer import Answer

__all__ = ["about_density", "density_in_data_units"]

# With fewer test rows the order of densities is a matter of chance, and with fewer training rows a
# mixture is often the best one.
_FEW_TEST_ROWS, _FEW_ROWS = 20, 500
# Densities that are simpler than a mixture.
_SIMPLE = ("PCA", "FactorAnalysis")


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
    if n_test < _FEW_TEST_ROWS:
        answer.sentences.append("So few rows say little: with other rows another may be the best.")
    reference = mixture if mixture in results and best != mixture else None
    if best == mixture:
        reference = ranked[1] if len(ranked) > 1 else None
        among = "of those that there was time for" if skipped else "here"
        few = ", as often with few rows" if len(comparison.X_train) < _FEW_ROWS else ""
        answer.sentences.append(f"A mixture of Gaussians is the best {among}{few}, and it is fast.")
    if reference is not None:
        difference = scores[best] - scores[reference]
        mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(n_test)
        says = (
            f"{reference} has {results[reference].log_density:.2f}, {mean:.2f} ± {error:.2f} less"
        )
        # Two standard errors where there are many rows.
        if not mean > student_t.ppf(0.975, n_test - 1) * error:
            n_better = np.count_nonzero(difference > 0)
            if binomtest(n_better, n_test, alternative="greater").pvalue < 0.025:
                # A row far outside makes the error large.
                says += f", in {n_better} of the {n_test} rows"
            else:
                says += ", which may be chance"
                says += ": the mixture is simpler" * (reference == mixture and best not in _SIMPLE)
        answer.sentences.append(f"{says}.")
    if failed:
        answer.sentences.append(f"Failed: {list_names(failed)}; the table below says why.")
    if skipped:
        answer.sentences.append(f"There was no time for {list_names(skipped)} (--budget).")
    answer.code = (
        "skmanifoldflow.StackingDensity(random_state=0).fit(X).score_samples(X)  # nats of each row"
    )
    return best, answer


def density_in_data_units(pipeline, n_columns, names):
    """Return a fitted pipeline of a scaler and a density as one density of rows in data units."""
    density = TransformedDensity(pipeline[-1], transformer=pipeline[0])
    density.density_, density.transformer_ = pipeline[-1], pipeline[0]
    density.log_mass_, density.n_features_in_ = 0.0, n_columns
    return density
