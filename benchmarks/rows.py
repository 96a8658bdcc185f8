"""Rows as people have them: what copies of rows do to a density.

    python benchmarks/rows.py copies                   # normal rows and copies: gap to the truth
    python benchmarks/rows.py tables --data-dir DIR    # tables with and without their repeats

The rows of `copies` are normal in six columns, whose log-density is known: 400 of them each two,
five and ten times, a bootstrap sample of 800, 1000 rows of which 100 are there nine times, each row
ten times with a jitter of 1e-9 and 1e-4, and 20 readings of 150 places with a jitter of .02. Beside
each is the gap of the rows without copies; fresh rows are scored.

Of `tables` a fifth of the distinct rows is the test part, and a column of which more than half of
them share their value is filled up with U[0, step). The rest is fitted once, and as often as the
rows are in the table. Columns are standardised by the distinct training rows.
"""

import argparse
import os
import warnings

import numpy as np
import torch
from _data import ENVIRONMENT_VARIABLE, fill_up, load_keel
from scipy.stats import norm

import skmanifoldflow

ESTIMATORS = ("NoisyInjectiveFlow", "ManifoldPriorFlow", "ChartAtlasFlow", "JointManifoldFlow")
N_FEATURES = 6


def repeated(times):
    return lambda rng: np.repeat(rng.standard_normal((400, N_FEATURES)), times, axis=0)


def bootstrapped(rng):
    X = rng.standard_normal((400, N_FEATURES))
    return X[rng.randint(len(X), size=800)]


def oversampled(rng):
    X = rng.standard_normal((1000, N_FEATURES))
    return np.concatenate([X, *8 * [X[:100]]])


def read_again(n_places, n_readings, jitter):
    def rows(rng):
        X = np.repeat(rng.standard_normal((n_places, N_FEATURES)), n_readings, axis=0)
        return X + jitter * rng.standard_normal(X.shape)

    return rows


#: What is fitted, by what has the same rows without copies.
COPIES = {
    "400 rows": {
        "twice": repeated(2),
        "5 times": repeated(5),
        "10 times": repeated(10),
        "bootstrap of 800": bootstrapped,
        "10 times, jitter 1e-9": read_again(400, 10, 1e-9),
        "10 times, jitter 1e-4": read_again(400, 10, 1e-4),
    },
    "1000 rows": {"100 of them 9 times": oversampled},
    "150 rows": {"20 readings, jitter .02": read_again(150, 20, 0.02)},
}
TABLES = ("winequality-red-4", "winequality-white-3-9_vs_5", "marketing")


def copies(args):
    """Gap to the truth in nats, mean and all random states."""
    for name in args.estimators:
        Estimator = getattr(skmanifoldflow, name)
        for distinct, cases in COPIES.items():
            n_rows = int(distinct.split()[0])
            for case, draw in ({distinct: read_again(n_rows, 1, 0.0)} | cases).items():
                gaps = []
                for seed in args.states:
                    X = draw(np.random.RandomState(seed))
                    fresh = np.random.RandomState(1000 + seed).standard_normal((4000, N_FEATURES))
                    model = Estimator(random_state=seed).fit(X)
                    gaps.append(norm.logpdf(fresh).sum(axis=1).mean() - model.score(fresh))
                print(f"{name:19} {case:24} {np.mean(gaps):7.3f}  {told(gaps)}", flush=True)


def tables(args):
    """Held-out nats without and with the rows that repeat."""
    for name in args.estimators:
        Estimator = getattr(skmanifoldflow, name)
        for table in TABLES:
            X, counts = np.unique(load_keel(table), axis=0, return_counts=True)
            X = X[:, np.ptp(X, axis=0) > 0]
            fill_up(X, np.random.RandomState(0))
            order = np.random.RandomState(0).permutation(len(X))
            test, train = np.split(order, [len(X) // 5])
            mean, scale = X[train].mean(axis=0), X[train].std(axis=0)
            X = (X - mean) / scale
            differences, nats = [], []
            for seed in args.states:
                scores = [
                    Estimator(random_state=seed).fit(rows).score_samples(X[test])
                    for rows in (X[train], np.repeat(X[train], counts[train], axis=0))
                ]
                nats.append([part.mean() for part in scores])
                differences.append(scores[1] - scores[0])
            without, with_ = np.mean(nats, axis=0)
            share = 1 - len(X) / counts.sum()
            print(
                f"{name:19} {table:27} {share:4.0%} repeated, {without:8.3f} without, "
                f"{with_:8.3f} with them, differences {told(np.mean(differences, axis=1))}",
                flush=True,
            )


def told(values):
    return " ".join(f"{value:.3f}" for value in values)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    for run in (copies, tables):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--estimators", nargs="+", default=ESTIMATORS, help="these only")
        command.add_argument("--states", type=int, nargs="+", default=[0, 1, 2])
        command.add_argument("--data-dir", help="folder of unpacked data files")
    args = parser.parse_args()
    if args.data_dir:
        os.environ[ENVIRONMENT_VARIABLE] = args.data_dir
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    args.run(args)


if __name__ == "__main__":
    main()
