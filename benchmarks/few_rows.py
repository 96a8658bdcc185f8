"""Fits to few rows of many columns, beside normal distributions whose covariance is shrunk.

    python benchmarks/few_rows.py                              # all sets, one seed
    python benchmarks/few_rows.py made                         # normal rows and digits
    python benchmarks/few_rows.py wine --rows 50 --seeds 3     # three draws of 50 rows
    python benchmarks/few_rows.py pima yeast1 --data-dir DIR   # tables of the KEEL repository

Figures are nats per row that was not fitted to, less those of the Ledoit-Wolf normal of the same
rows (of scikit-learn, of the columns as they are or standardised, whichever is better), and after
the bar the least score of such a row; CPU s of the four fits. Columns of tables of which more than
half of the rows share their value are filled up with U[0, step) once for all, those of one value
left out, and of spambase the first ten are taken. Sizes of a table that leave fewer than 50 rows to
score are left out.
"""

import argparse
import time
import warnings

import numpy as np
import sklearn.datasets
import torch
from _data import ENVIRONMENT_VARIABLE, fill_up, load_keel
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, ManifoldPriorFlow, NoisyInjectiveFlow

TABLES = ("wine", "breast_cancer", "diabetes")
KEEL = ("pima", "yeast1", "segment", "winequality-red-4", "spambase")
ESTIMATORS = (NoisyInjectiveFlow, ManifoldPriorFlow, ChartAtlasFlow, JointManifoldFlow)
MIN_TEST_ROWS = 50


def made(args, seed):
    """Normal rows, independent and correlated, and the first digits: name, rows, other rows."""
    rng = np.random.RandomState(seed)
    for n, n_features in ((60, 200), (10, 10), (30, 40)):
        yield f"{n} normal", rng.randn(n, n_features), rng.randn(1000, n_features)
    factor = rng.randn(30, 30)
    yield "45 correlated", rng.randn(45, 30) @ factor, rng.randn(1000, 30) @ factor
    if seed == 0:
        digits = sklearn.datasets.load_digits().data
        yield "50 digits", digits[:50], digits[500:1000]


def table(name, args, seed):
    """Some rows of a table, and all others: name, rows, other rows."""
    rng = np.random.RandomState(seed)
    if name in TABLES:
        X = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)[0].astype(float)
    else:
        X = load_keel(name, args.data_dir)[:, : 10 if name == "spambase" else None]
        X = X[:, np.ptp(X, axis=0) > 0]
    fill_up(X, rng)
    X = X[rng.permutation(len(X))]
    for n in args.rows:
        if len(X) - n >= MIN_TEST_ROWS:
            yield f"{n} {name}", X[:n], X[n:]


def shrunk_normal(X, test):
    """Log-densities of the Ledoit-Wolf normal: of the columns in their units, or standardised."""
    scale = X.std(axis=0)
    scale[scale == 0] = 1.0
    scores = []
    for unit in (np.ones_like(scale), scale):
        model = LedoitWolf().fit(X / unit)
        normal = multivariate_normal(model.location_, model.covariance_, allow_singular=True)
        scores.append(normal.logpdf(test / unit) - np.log(unit).sum())
    return max(scores, key=np.mean)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", default=["made", *TABLES], help="made, or tables")
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 100, 200], metavar="N")
    parser.add_argument("--seeds", type=int, default=1, help="draws of each set")
    parser.add_argument("--data-dir", help=f"or {ENVIRONMENT_VARIABLE}; of the KEEL tables")
    args = parser.parse_args()
    unknown = set(args.sets) - {"made", *TABLES, *KEEL}
    if unknown:
        parser.error(f"no set of the name {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    names = "".join(f"{E.__name__:>24}" for E in ESTIMATORS)
    print(f"{'rows':20} {'D':>4} {'Ledoit-Wolf':>12}{names} {'CPU s':>7}")
    for name in args.sets:
        for seed in range(args.seeds):
            sets = made(args, seed) if name == "made" else table(name, args, seed)
            for label, X, test in sets:
                start, cells = time.process_time(), []
                normal = shrunk_normal(X, test)
                for Estimator in ESTIMATORS:
                    scores = Estimator(random_state=seed).fit(X).score_samples(test)
                    cells.append(f"{scores.mean() - normal.mean():12.2f} | {scores.min():9.1f}")
                seconds = time.process_time() - start
                row = "".join(cells)
                mean = f"{normal.mean():12.2f}"
                print(f"{label:20} {X.shape[1]:4} {mean}{row} {seconds:7.1f}", flush=True)


if __name__ == "__main__":
    main()
