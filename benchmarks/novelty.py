"""NoveltyDetector: rate of false alarms, strange rows of tables, and the columns that are to blame.

    python benchmarks/novelty.py alarms     # share of new normal rows that are called strange
    python benchmarks/novelty.py s_curve    # 300 rows of an S-curve against uniform rows
    python benchmarks/novelty.py columns    # is the column that was changed the first?
    python benchmarks/novelty.py tables --data-dir DIR   # AUC beside other detectors

Everything is at the defaults. Seeds of 100 and above are for choices, those from 0 on are
reported. Of `tables` twelve are imbalanced ones of KEEL, whose minority is strange, and four have
strange rows made of normal ones. Half of the normal rows are trained on, standardised by
themselves; columns of which more than half of the rows share their value are filled up with
U[0, step). Tables need files, see `_data.py`, and ECOD ``pip install pyod``.
"""

import argparse
import warnings

import numpy as np
import torch
from _data import fill_up, load_keel
from _peers import mixture_by_bic, timed
from scipy.stats import rankdata
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.svm import OneClassSVM

import skmanifoldflow
from skmanifoldflow import NoveltyDetector
from skmanifoldflow.datasets import SCurve

FLOWS = ("NoisyInjectiveFlow", "ChartAtlasFlow", "ManifoldPriorFlow", "JointManifoldFlow")
IMBALANCED = (
    "abalone9-18",
    "ecoli1",
    "glass1",
    "new-thyroid1",
    "page-blocks0",
    "segment0",
    "vehicle2",
    "vowel0",
    "winequality-red-4",
    "wisconsin",
    "yeast3",
    "yeast4",
)
#: Tables, and how their strange rows are made.
PLANTED = {"wdbc": "permuted", "pima": "cell", "vehicle": "permuted", "segment": "cell"}


def ten_columns(n, rng):
    """Rows of skewed, heavy-tailed, bent and bimodal columns with correlations below .7."""
    z, X = rng.standard_normal((n, 10)), np.empty((n, 10))
    X[:, 0] = z[:, 0]
    X[:, 1] = 0.6 * X[:, 0] + 0.8 * z[:, 1]
    X[:, 2] = np.exp(0.5 * z[:, 2])
    X[:, 3] = 0.5 * X[:, 1] ** 2 + 0.5 * z[:, 3]
    X[:, 4] = rng.standard_t(5, n)
    X[:, 5] = 0.7 * X[:, 4] + z[:, 5]
    X[:, 6] = np.sin(2 * X[:, 0]) + 0.3 * z[:, 6]
    X[:, 7] = np.exp(0.3 * X[:, 1]) * z[:, 7]
    X[:, 8] = 0.5 * X[:, 6] + 0.5 * X[:, 2] + 0.5 * z[:, 8]
    X[:, 9] = np.where(z[:, 9] > 0, 2, -2) + 0.5 * rng.standard_normal(n)
    return X


def with_odd_cell(X, train, rng, deviations=5.0):
    """Rows with one cell of the value of another row plus some standard deviations, and which."""
    X, columns = X.copy(), rng.randint(X.shape[1], size=len(X))
    other = train[rng.randint(len(train), size=len(X)), columns]
    X[np.arange(len(X)), columns] = other + deviations * train.std(axis=0)[columns]
    return X, columns


def seeds_of(args):
    return range(args.seeds_from, args.seeds_from + args.seeds)


def alarms(args):
    """Share of 20 000 new rows that are called strange, 2000 training rows, rate .05."""
    densities = {name: getattr(skmanifoldflow, name)() for name in args.flows}
    densities["GaussianMixture(10)"] = GaussianMixture(10)
    print(f"{'density':20} {'mean':>6}  of seeds")
    for name, density in densities.items():
        shares, seconds = [], 0.0
        for seed in seeds_of(args):
            X, T = (
                SCurve(noise=0.05).sample(n, random_state=s)[0]
                for n, s in ((2000, 2 * seed), (20_000, 2 * seed + 1))
            )
            detector = NoveltyDetector(density, random_state=seed)
            seconds += timed(detector.fit, X)[1]
            shares.append((detector.predict(T) < 0).mean())
        print(
            f"{name:20} {np.mean(shares):6.4f}  {np.round(shares, 4)}  "
            f"{seconds / len(shares):.0f} CPU s",
            flush=True,
        )


def s_curve(args):
    """AUC of 2000 new rows against 2000 uniform rows of the box of the training rows."""
    data = SCurve(noise=0.05)
    print(f"{'density':20} {'mean':>6}  of seeds")
    mixture = "GaussianMixture(10)"
    results = {name: [] for name in ("exact density", *args.flows, mixture)}
    for seed in seeds_of(args):
        X, T = (
            data.sample(n, random_state=s)[0] for n, s in ((300, 2 * seed), (2000, 2 * seed + 1))
        )
        uniform = np.random.RandomState(seed).uniform(X.min(axis=0), X.max(axis=0), (2000, 3))
        rows, is_normal = np.r_[T, uniform], np.arange(4000) < 2000
        results["exact density"].append(roc_auc_score(is_normal, data.log_density(rows)))
        for name in args.flows:
            density = getattr(skmanifoldflow, name)(n_components=args.d)
            # Folds are for the threshold, which the AUC does not see.
            detector = NoveltyDetector(density, cv=2, random_state=seed).fit(X)
            results[name].append(roc_auc_score(is_normal, detector.score_samples(rows)))
        scores = GaussianMixture(10, random_state=seed).fit(X).score_samples(rows)
        results[mixture].append(roc_auc_score(is_normal, scores))
    for name, values in results.items():
        print(f"{name:20} {np.mean(values):6.3f}  {np.round(values, 3)}")


def columns(args):
    """Share of rows whose changed column has the first share; whose odd pair has the first two."""
    densities = {"NoisyInjectiveFlow": None, "GaussianMixture(10)": GaussianMixture(10)}
    print(f"{'density':20} {'seed':>4} {'cell':>6} {'pair':>6}  CPU s of 500 rows")
    for seed in seeds_of(args):
        rng = np.random.RandomState(seed)
        X, T = ten_columns(2000, rng), ten_columns(500, rng)
        cells, changed = with_odd_cell(T, X, rng)
        # Column 6 follows column 0 no more; what depends on it follows.
        pairs = T.copy()
        pairs[:, 6] = np.where(np.sin(2 * T[:, 0]) > 0, -0.9, 0.9)
        pairs[:, 8] += 0.5 * (pairs[:, 6] - T[:, 6])
        for name, density in densities.items():
            detector = NoveltyDetector(density, random_state=seed).fit(X)
            shares, seconds = timed(detector.explain, cells)
            first = (shares.argmax(axis=1) == changed).mean()
            two = np.sort(np.argsort(-detector.explain(pairs), axis=1)[:, :2], axis=1)
            both = (two == [0, 6]).all(axis=1).mean()
            print(f"{name:20} {seed:4d} {first:6.3f} {both:6.3f}  {seconds:.1f}", flush=True)


def kernel_density(X):
    grid = {"bandwidth": np.geomspace(0.05, 2, 12)}
    return GridSearchCV(KernelDensity(), grid).fit(X).best_estimator_


def detectors(seed):
    """Functions of normal rows that return a fitted detector, by name."""
    found = {
        "NoveltyDetector": NoveltyDetector(random_state=seed).fit,
        "IsolationForest": IsolationForest(random_state=seed).fit,
        "LocalOutlierFactor": LocalOutlierFactor(novelty=True).fit,
        "OneClassSVM": OneClassSVM().fit,
        "GaussianMixture": lambda X: mixture_by_bic(X, range(1, 11))[0],
        "KernelDensity": kernel_density,
    }
    try:
        from pyod.models.ecod import ECOD
    except ImportError as error:
        print(f"ECOD is left out: {error}")
    else:
        found["ECOD"] = ECOD().fit
    return found


def normality(detector, X):
    """Scores of rows that are high for normal ones."""
    if hasattr(detector, "score_samples"):
        return detector.score_samples(X)
    # Those of pyod are high for strange rows.
    return -detector.decision_function(X)


def novelty_table(name, seed, data_dir):
    """Normal training rows, and test rows with the sign of each, standardised."""
    rng = np.random.RandomState(seed)
    X, is_strange = load_keel(name, data_dir, with_class=True)
    X = X[:, np.ptp(X, axis=0) > 0]
    fill_up(X, rng)
    if name in PLANTED:
        is_strange = np.zeros(len(X), dtype=bool)
    normal = rng.permutation(np.flatnonzero(~is_strange))
    train, test = X[normal[: len(normal) // 2]], X[normal[len(normal) // 2 :]]
    strange = X[is_strange]
    if PLANTED.get(name) == "permuted":
        strange = np.column_stack([rng.permutation(column) for column in test.T])
    elif PLANTED.get(name) == "cell":
        strange, _ = with_odd_cell(test, train, rng, deviations=1.0)
    mean, scale = train.mean(axis=0), train.std(axis=0)
    keep = scale > 0
    rows = (np.r_[test, strange] - mean)[:, keep] / scale[keep]
    return (train - mean)[:, keep] / scale[keep], rows, np.arange(len(rows)) < len(test)


def tables(args):
    """AUC of normal against strange rows, mean over the seeds, and mean rank over the tables."""
    names, results, seconds = (*IMBALANCED, *PLANTED), {}, {}
    for name in names:
        for seed in seeds_of(args):
            train, rows, is_normal = novelty_table(name, seed, args.data_dir)
            for label, fit in detectors(seed).items():
                detector, duration = timed(fit, train)
                auc = roc_auc_score(is_normal, normality(detector, rows))
                results.setdefault((name, label), []).append(auc)
                seconds[label] = seconds.get(label, 0.0) + duration
        labels = list(seconds)
        if name == names[0]:
            print(f"{'table':18} {'n x D':>9} " + " ".join(f"{label[:15]:>15}" for label in labels))
        size = f"{len(train)} x {train.shape[1]}"
        means = [np.mean(results[name, label]) for label in labels]
        print(f"{name:18} {size:>9} " + " ".join(f"{v:15.3f}" for v in means), flush=True)
    table = np.array([[np.mean(results[name, label]) for label in labels] for name in names])
    ranks = rankdata(-table, axis=1).mean(axis=0)
    for title, values in (("mean AUC", table.mean(axis=0)), ("mean rank", ranks)):
        print(f"{title:28} " + " ".join(f"{v:15.3f}" for v in values))
    of_fits = [seconds[label] / len(names) / args.seeds for label in labels]
    print(f"{'CPU s':28} " + " ".join(f"{v:15.2f}" for v in of_fits))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["alarms", "s_curve", "columns", "tables"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seeds-from", type=int, default=0)
    parser.add_argument("--flows", nargs="+", choices=FLOWS, default=FLOWS)
    parser.add_argument("--d", type=int, help="n_components of `s_curve`")
    parser.add_argument("--data-dir")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    globals()[args.part](args)


if __name__ == "__main__":
    main()
