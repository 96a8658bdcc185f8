"""StackingDensity on real tables, beside its members and the densities that people take first.

    python benchmarks/tables.py --data-dir DIR              # 14 tables
    python benchmarks/tables.py wine pima --split 100       # some of them, another split
    python benchmarks/tables.py few --data-dir DIR          # fits to 50 to 500 rows of five tables
    python benchmarks/tables.py cost                        # CPU s in default fits of one flow

Copies of rows are left out, a fifth is the test part by a permutation of seed `--split`. Columns
are spread once for all: those of a grid by U[0, step), atoms of at least 5 % of the rows by U of
.02 standard deviations around them, integers of satellite, shuttle and letter in all cells. All are
standardised by the training part. Figures are nats per test row in that space, and +- one paired
standard error. Choices were made on splits of seeds 100 and above. KEEL tables need files, see
`_data.py`, satellite and the like ``pip install rdata`` too, and the vine
``pip install pyvinecopulib``.
"""

import argparse
import warnings

import numpy as np
import sklearn.datasets
import torch
from _data import load_keel, load_table, spread_values
from _peers import kernel_density, mixture_by_bic, timed, validated_mixture
from convergence import generated
from scipy.special import logsumexp

from skmanifoldflow import NoisyInjectiveFlow, StackingDensity, TransformedDensity
from skmanifoldflow._densities.normal_scores import NormalScores
from skmanifoldflow._densities.student_t import StudentT

try:
    from pyvinecopulib.sklearn import VineDensity
except ImportError:
    VineDensity = None

SCIKIT_LEARN = ("wine", "diabetes")
INTEGERS = ("satellite", "shuttle", "letter")
TABLES = (
    *SCIKIT_LEARN,
    "wdbc",
    "pima",
    "vehicle",
    "contraceptive",
    "winequality-red-4",
    "yeast1",
    "segment",
    "spambase",
    "twonorm",
    *INTEGERS,
)
# The most rows that a kernel density and a vine are fitted to, and columns of a vine.
MAX_KERNEL, MAX_VINE = 6000, 30
# Tables of which few rows are fitted, how many, and columns of these.
FEW = ("pima", "yeast1", "segment", "winequality-red-4", "spambase")
N_FEW, FIRST_COLUMNS = (50, 100, 200, 500), {"spambase": 10}


def split(name, seed, data_dir, n_train=None):
    """Training and test rows of a table, standardised; `n_train` of them, or four fifths."""
    rng = np.random.RandomState(seed)
    if name in SCIKIT_LEARN:
        X = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)[0]
    else:
        X = (load_table if name in INTEGERS else load_keel)(name, data_dir)
    if name in INTEGERS:
        X = X + rng.random_sample(X.shape)
    else:
        if n_train is not None:
            X = X[:, : FIRST_COLUMNS.get(name)]
        X = np.unique(X, axis=0)
        X = X[:, np.ptp(X, axis=0) > 0]
        spread_values(X, rng)
    X = X[rng.permutation(len(X))]
    test, train = np.split(X, [len(X) // 5 if n_train is None else len(X) - n_train])
    # A column may be constant in few rows.
    varies = np.ptp(train, axis=0) > 0
    train, test = train[:, varies], test[:, varies]
    mean, scale = train.mean(axis=0), train.std(axis=0)
    return (train - mean) / scale, (test - mean) / scale


def mixture_of_scores(X):
    """The same on normal scores of the columns."""
    best = validated_mixture(NormalScores().fit_transform(X))
    return TransformedDensity(best, transformer=NormalScores()).fit(X)


def peers(n_rows, n_columns):
    """Functions of rows that return a fitted density, by name."""
    found = {
        "t": StudentT().fit,
        "GMM, BIC": lambda X: mixture_by_bic(X, (1, 2, 4, 8, 16))[0],
        "GMM, valid.": validated_mixture,
        "GMM, scores": mixture_of_scores,
        "KDE": lambda X: kernel_density(X)[0],
    }
    if n_rows > MAX_KERNEL:
        del found["KDE"]
    elif VineDensity is not None and n_columns <= MAX_VINE:
        found["vine"] = VineDensity(random_state=0).fit
    return found


def averaged(stack, test):
    """Log-densities of the mixture in equal parts of the flows of a stack."""
    flows = [m for m in stack.estimators_ if isinstance(m, NoisyInjectiveFlow)]
    scores = [flow.score_samples(test) for flow in flows]
    return logsumexp(scores, axis=0) - np.log(len(flows))


def tables(args):
    """Every density on every table, and what the stack is ahead of the best other one."""
    warnings.simplefilter("ignore")
    leads, ranks = [], []
    for name in args.tables:
        train, test = split(name, args.split, args.data_dir)
        print(f"\n{name}, {len(train)} x {train.shape[1]}")
        stack, seconds = timed(StackingDensity(random_state=args.split).fit, train)
        own = stack.score_samples(test)
        others = {}
        for label, member, weight, score in zip(
            stack.named_estimators_, stack.estimators_, stack.weights_, stack.scores_, strict=True
        ):
            others[f"{label}, weight {weight:.2f}"] = member.score_samples(test), score, None
        others["three flows, averaged"] = averaged(stack, test), np.nan, None
        for label, fit in peers(*train.shape).items():
            model, duration = timed(fit, train)
            others[label] = model.score_samples(test), np.nan, duration
        print(f"  {'stack':26} {own.mean():9.3f} {'':8} worst {own.min():10.1f} {seconds:7.1f} s")
        for label, (scores, left_out, duration) in others.items():
            with np.errstate(invalid="ignore"):
                behind = own - scores
                error = behind.std() / np.sqrt(len(behind))
            time = "" if duration is None else f"{duration:7.1f} s"
            print(
                f"  {label:26} {scores.mean():9.3f} +-{error:6.3f} worst {scores.min():10.1f} "
                f"{left_out:8.3f} {time}"
            )
        # The average is a stack too.
        del others["three flows, averaged"]
        means = {label: scores.mean() for label, (scores, _, _) in others.items()}
        best = max(means, key=means.get)
        leads.append(own.mean() - means[best])
        ranks.append(1 + sum(value > own.mean() for value in means.values()))
        error = (own - others[best][0]).std() / np.sqrt(len(own))
        print(f"  ahead of {best}: {leads[-1]:.3f} +- {error:.3f}, rank {ranks[-1]}", flush=True)
    print(
        f"\nfirst on {ranks.count(1)} of {len(ranks)} tables, mean rank {np.mean(ranks):.2f}, mean "
        f"lead {np.mean(leads):.3f} +- {np.std(leads) / np.sqrt(len(leads)):.3f}, worst loss "
        f"{min(leads):.3f}"
    )


def few(args):
    """The stack on few rows, and the best of its members and peers, means of draws."""
    warnings.simplefilter("ignore")
    print(f"{'table':18} {'rows':>4} {'stack':>8} {'best':>8} {'ahead':>7} {'s.e.':>6}  which")
    leads = []
    for name in FEW:
        for n in N_FEW:
            means, seconds = {}, 0.0
            for draw in range(args.split, args.split + args.draws):
                train, test = split(name, draw, args.data_dir, n)
                stack, duration = timed(StackingDensity(random_state=draw).fit, train)
                seconds += duration / args.draws
                found = {"stack": stack.score_samples(test)}
                for label, member in zip(stack.named_estimators_, stack.estimators_, strict=True):
                    found[label] = member.score_samples(test)
                for label, fit in peers(*train.shape).items():
                    found[label] = fit(train).score_samples(test)
                for label, scores in found.items():
                    means.setdefault(label, []).append(scores.mean())
            own = np.array(means.pop("stack"))
            best = max(means, key=lambda label: np.mean(means[label]))
            ahead = own - means[best]
            leads.append(ahead.mean())
            error = ahead.std() / np.sqrt(len(ahead))
            print(
                f"{name:18} {n:4d} {own.mean():8.2f} {np.mean(means[best]):8.2f} "
                f"{ahead.mean():+7.2f} {error:6.2f}  {best}, {seconds:.1f} s",
                flush=True,
            )
    is_near = np.array(leads) >= -0.1
    print(f"first on {(np.array(leads) >= 0).sum()}, first or within .1 on {is_near.sum()} of 20")


def cost(args):
    """CPU seconds of a stack beside those of one flow, on generated rows."""
    warnings.simplefilter("ignore")
    for n, n_features in ((1000, 10), (10_000, 30)):
        rng = np.random.RandomState(args.split)
        # Blocks of ten columns that depend on each other.
        X = np.hstack([generated(n, rng) for _ in range(n_features // 10)])
        _, alone = timed(NoisyInjectiveFlow(random_state=0).fit, X)
        _, stacked = timed(StackingDensity(random_state=0).fit, X)
        print(f"{n} x {n_features}: {stacked:.1f} s, {stacked / alone:.1f} fits", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", default=TABLES, metavar="TABLE")
    parser.add_argument("--split", type=int, default=0, help="seed of the test part")
    parser.add_argument("--draws", type=int, default=3, help="draws of `few`")
    parser.add_argument("--data-dir")
    args = parser.parse_args()
    torch.set_num_threads(1)
    unknown = set(args.tables) - {*TABLES, "cost", "few"}
    if unknown:
        parser.error(f"unknown tables {sorted(unknown)}: there are {', '.join(TABLES)}")
    parts = {("cost",): cost, ("few",): few}
    parts.get(tuple(args.tables), tables)(args)


if __name__ == "__main__":
    main()
