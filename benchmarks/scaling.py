"""Cost of fit, log-density and samples against rows, columns and components.

    python benchmarks/scaling.py rows         # 1e3 to 1e6 rows of 16 columns, memory too
    python benchmarks/scaling.py columns      # 2 to 784 columns
    python benchmarks/scaling.py components   # 1 to 64 of 128 columns

A fit runs two epochs of `NoisyInjectiveFlow` with 4 affine couplings. Seconds are CPU time of one
thread, memory is what the peak of the process grows by. Exponents are slopes of least squares on
logarithmic scales over the upper half of the settings, where constant parts matter less.
``--plot FILE`` draws the table.
"""

import argparse
import resource
import sys
import time
import warnings
from multiprocessing import get_context

import numpy as np
import torch

from skmanifoldflow import NoisyInjectiveFlow

PARTS = ("fit", "score_samples", "sample")
SETTINGS = {
    "rows": (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
    "columns": (2, 8, 32, 128, 784),
    "components": (1, 4, 16, 64),
}


def peak_memory():
    """Largest memory of the process so far, in MB."""
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measured(what, value):
    """Seconds and megabytes of each part, measured in this process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    n, n_features, n_components = {
        "rows": (value, 16, 4),
        "columns": (3000, value, min(4, value)),
        "components": (3000, 128, value),
    }[what]
    rng = np.random.RandomState(0)
    factors = rng.standard_normal((n, n_components))
    X = factors @ rng.standard_normal((n_components, n_features))
    X += 0.1 * rng.standard_normal(X.shape)
    # What is imported and set up once is not counted.
    model = NoisyInjectiveFlow(n_components, flow="affine", n_layers=4, max_iter=2, random_state=0)
    model.fit(X[:200])
    n_inferred = n if what == "rows" else 10_000
    rows = X if what == "rows" else np.resize(X, (n_inferred, n_features))
    calls = {
        "fit": lambda: model.fit(X),
        "score_samples": lambda: model.score_samples(rows),
        "sample": lambda: model.sample(n_inferred, random_state=0),
    }
    results = {}
    for part, call in calls.items():
        before, start = peak_memory(), time.process_time()
        call()
        results[part] = time.process_time() - start, peak_memory() - before
    return results


def exponent(values, seconds):
    half = len(values) // 2
    return np.polyfit(np.log(values[half:]), np.log(seconds[half:]), 1)[0]


def draw(what, values, table, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4), layout="constrained")
    for part in PARTS:
        axes.loglog(values, [results[part][0] for results in table], "o-", label=part)
    axes.set(xlabel=f"number of {what}", ylabel="CPU seconds")
    axes.legend()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=SETTINGS)
    parser.add_argument("--values", type=int, nargs="+", help="settings, ascending")
    parser.add_argument("--plot", help="file of the plot")
    args = parser.parse_args()
    values = args.values or SETTINGS[args.what]
    print(f"{args.what:>10}  " + "  ".join(f"{part + ' s':>15} {'MB':>6}" for part in PARTS))
    table = []
    for value in values:
        # Each in a process of its own: the peak of a process never falls.
        with get_context("spawn").Pool(1) as pool:
            table.append(pool.apply(measured, (args.what, value)))
        cells = [f"{s:15.3f} {m:6.0f}" for s, m in (table[-1][part] for part in PARTS)]
        print(f"{value:10d}  " + "  ".join(cells), flush=True)
    if len(values) > 2:
        slopes = [exponent(values, [results[part][0] for results in table]) for part in PARTS]
        print(f"{'exponent':>10}  " + "  ".join(f"{slope:15.2f} {'':6}" for slope in slopes))
    if args.plot:
        draw(args.what, values, table, args.plot)


if __name__ == "__main__":
    main()
