"""Rows as people have them: copies and weights of rows, and many rows.

    python benchmarks/rows.py copies                   # normal rows and copies: gap to the truth
    python benchmarks/rows.py tables --data-dir DIR    # tables with and without their repeats
    python benchmarks/rows.py weights                  # weighted rows of another distribution
    python benchmarks/rows.py memory                   # a float32 matrix on the disk (Linux)
    python benchmarks/rows.py time                     # CPU time a row, many rows and few

The rows of `copies` are normal in six columns, whose log-density is known: 400 of them each two,
five and ten times, a bootstrap sample of 800, 1000 rows of which 100 are there nine times, each row
ten times with a jitter of 1e-9 and 1e-4, and 20 readings of 150 places with a jitter of .02. Beside
each is the gap of the rows without copies; fresh rows are scored.

Of `tables` a fifth of the distinct rows is the test part, and a column of which more than half of
them share their value is filled up with U[0, step). The rest is fitted once, and as often as the
rows are in the table. Columns are standardised by the distinct training rows.

The 1200 rows of `weights` are drawn from a normal distribution 1.3 times as wide as the one that is
scored, and weighted by the ratio of both densities; beside them are as many rows of the latter as
the weights are worth, (sum w)^2 / sum w^2.

`memory` tells by how many bytes of anonymous memory a process grows in one epoch (n_layers=2,
batch_size=8192), for each byte of a float32 matrix of 100 columns that is mapped from a file.
`time` takes three epochs of normal rows of 10 columns.
"""

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
import warnings
from pathlib import Path

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


def weights(args):
    """Gap to the truth in nats of weighted rows, of as many rows as they are worth, unweighted."""
    wide = 1.3
    for name in args.estimators:
        Estimator, gaps = getattr(skmanifoldflow, name), []
        for seed in args.states:
            rng = np.random.RandomState(seed)
            X, fresh = (
                wide * rng.standard_normal((1200, N_FEATURES)),
                rng.standard_normal((4000, 6)),
            )
            ratio = np.exp(norm.logpdf(X) - norm.logpdf(X, scale=wide)).prod(axis=1)
            ratio *= len(X) / ratio.sum()
            n_worth = int(ratio.sum() ** 2 / (ratio**2).sum())
            model, truth = Estimator(random_state=seed), norm.logpdf(fresh).sum(axis=1).mean()
            fits = (
                model.fit(X, sample_weight=ratio).score(fresh),
                model.fit(X[:n_worth] / wide).score(fresh),
                model.fit(X).score(fresh),
            )
            gaps.append(truth - np.array(fits))
        cases = "weighted", "as many", "unweighted"
        for case, of_case in zip(cases, np.transpose(gaps), strict=True):
            print(f"{name:19} {case:12} {np.mean(of_case):7.3f}  {told(of_case)}", flush=True)


def memory(args):
    """Bytes of anonymous memory that a fit takes, for each byte of the rows."""
    n_rows = int(args.megabytes * 1e6 / 400)
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        path = Path(folder) / "rows.f32"
        X = np.memmap(path, np.float32, "w+", shape=(n_rows, 100))
        for start in range(0, n_rows, 100_000):
            stop = min(n_rows, start + 100_000)
            rng = np.random.RandomState(start)
            X[start:stop] = rng.standard_normal((stop - start, 10)) @ rng.standard_normal((10, 100))
            X[start:stop] += 0.1 * rng.standard_normal((stop - start, 100))
        X.flush()
        for name in args.estimators:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                peak, seconds = pool.apply(growth, (name, path, n_rows))
            print(
                f"{name:19} {n_rows} x 100, {peak / 1e6:6.0f} MB, {peak / (400 * n_rows):.2f} bytes"
                f" a byte, {seconds:.0f} CPU s",
                flush=True,
            )


def growth(name, path, n_rows):
    """Return the bytes of anonymous memory by which a fit makes this process grow, and CPU s."""
    torch.set_num_threads(1)
    X = np.memmap(path, np.float32, "r", shape=(n_rows, 100))
    before = peak = anonymous()
    is_over = threading.Event()

    def watch():
        nonlocal peak
        while not is_over.wait(0.02):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {"n_layers": 2, "max_iter": 1, "batch_size": 8192, "random_state": 0}
        getattr(skmanifoldflow, name)(**settings).fit(X)
    seconds = time.process_time() - began
    is_over.set()
    watcher.join()
    return peak - before, seconds


def anonymous():
    """Return the bytes of anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon")


def time_a_row(args):
    """CPU microseconds a row and epoch of 1e4 and of 1e5 rows, and their ratio."""
    for name in args.estimators:
        Estimator, costs = getattr(skmanifoldflow, name), []
        for n_rows in (10_000, 100_000):
            X = np.random.RandomState(0).standard_normal((n_rows, 10))
            began = time.process_time()
            Estimator(max_iter=3, random_state=0).fit(X)
            costs.append(1e6 * (time.process_time() - began) / (3 * n_rows))
        print(f"{name:19} {told(costs)} us, ratio {costs[1] / costs[0]:.2f}", flush=True)


def told(values):
    return " ".join(f"{value:.3f}" for value in values)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    runs = {
        "copies": copies,
        "tables": tables,
        "weights": weights,
        "memory": memory,
        "time": time_a_row,
    }
    for name, run in runs.items():
        command = commands.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--estimators", nargs="+", default=ESTIMATORS, help="these only")
        command.add_argument("--states", type=int, nargs="+", default=[0, 1, 2])
        command.add_argument("--data-dir", help="folder of unpacked data files")
        if run is memory:
            command.add_argument("--megabytes", type=float, default=1000, help="of the matrix")
            command.add_argument("--scratch", help="folder to write it to")
    args = parser.parse_args()
    if args.data_dir:
        os.environ[ENVIRONMENT_VARIABLE] = args.data_dir
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    args.run(args)


if __name__ == "__main__":
    main()
