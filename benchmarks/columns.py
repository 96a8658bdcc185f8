"""Columns as they are: whether samples have their values, and densities their mass.

    python benchmarks/columns.py values       # zeros, imputed means, sentinels, counts, dummies
    python benchmarks/columns.py scales       # two sizes, heavy tails, a gross value
    python benchmarks/columns.py integrals    # of exp(score_samples), over grids of two columns
    python benchmarks/columns.py ends         # exponential, gamma and beta columns
    python benchmarks/columns.py order        # columns in another order, some with another sign

`values` fits 2500 rows and draws 5000: shares of the values, the spread of the other rows of a
column in that of the training rows, and of dummies (beside four continuous columns, which depend on
the category) the share of samples at a corner and the largest Kolmogorov-Smirnov distance of the
continuous columns.

`scales` tells the gap of each half of a column of two sizes to its true log-density, the share of
negative samples of a log-normal column, and what one gross value in 500 moons changes in
the log-density of fresh rows.

`integrals` sums the density over Gauss-Legendre nodes between the knots of both columns.

`ends` tells the gap of 2000 rows of two independent columns to the true log-density.

`order` tells the mean log-density of fresh rows, and by how much it changes where the columns are
in another order, and half of them have the other sign.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_wine, make_moons

import skmanifoldflow
from skmanifoldflow.datasets import SCurve

ESTIMATORS = ("NoisyInjectiveFlow", "ManifoldPriorFlow", "ChartAtlasFlow", "JointManifoldFlow")
N = 2500


def fitted(name, X, state, **parameters):
    """The fitted model and its CPU seconds."""
    model = getattr(skmanifoldflow, name)(random_state=state, **parameters)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X)
    return model, time.process_time() - began


def zeros(rng):
    return np.where(rng.rand(N) < 0.7, 0.0, np.exp(rng.normal(size=N)))


def imputed(rng):
    return np.where(rng.rand(N) < 0.3, 49.7, rng.normal(50, 10, N))


def sentinel(rng):
    return np.where(rng.rand(N) < 0.01, -9999.0, rng.normal(5, 1, N))


def counts(rng):
    return np.where(rng.rand(N) < 0.5, 0, rng.randint(1, 4, N)).astype(float)


ATOMS = {"zeros": (zeros, 0.0), "imputed": (imputed, 49.7), "sentinel": (sentinel, -9999.0)}


def values(name, state):
    """Shares of values and the spread of the others."""
    rng = np.random.RandomState(state)
    X = np.column_stack([draw(rng) for draw, _ in ATOMS.values()] + [counts(rng)])
    model, seconds = fitted(name, np.column_stack([X, rng.normal(size=N)]), state)
    drawn = model.sample(5000, random_state=state)
    parts = []
    for j, (kind, (_, atom)) in enumerate(ATOMS.items()):
        rest, seen = (rows[rows[:, j] != atom, j] for rows in (drawn, X))
        if kind == "zeros":
            rest, seen = np.log(rest[rest > 0]), np.log(seen)
        share, true = ((rows[:, j] == atom).mean() for rows in (drawn, X))
        parts.append(f"{kind} {share:.3f} ({true:.3f}), spread {rest.std() / seen.std():.2f}")
    shares = [abs((drawn[:, 3] == k).mean() - (X[:, 3] == k).mean()) for k in range(4)]
    whole = np.isin(drawn[:, 3], range(4)).mean()
    parts.append(f"counts within {max(shares):.3f}, whole {whole:.3f}")
    parts.append(f"negative {(drawn[:, [0, 3]] < 0).mean():.4f}")
    print(f"{name:19} {state}  {'; '.join(parts)}  {seconds:.0f} s", flush=True)
    for n_levels in (3, 8):
        category = rng.randint(n_levels, size=N)
        other = rng.normal(size=(N, 4)) + 0.5 * category[:, None] * np.arange(4)
        X = np.column_stack([np.eye(n_levels)[category], other])
        model, seconds = fitted(name, X, state)
        drawn = model.sample(5000, random_state=state)
        at_corner = np.isin(drawn[:, :n_levels], (0, 1)).all(1) & (drawn[:, :n_levels].sum(1) == 1)
        distance = max(
            stats.ks_2samp(drawn[:, n_levels + j], X[:, n_levels + j]).statistic for j in range(4)
        )
        print(
            f"{name:19} {state}  {n_levels} dummies: at a corner {at_corner.mean():.4f}, "
            f"others {distance:.3f}  {seconds:.0f} s",
            flush=True,
        )


def scales(name, state):
    """Two sizes in a column, heavy tails, and one gross value."""
    rng = np.random.RandomState(state)
    is_small = rng.rand(N) < 0.5
    x = np.where(is_small, rng.normal(size=N), rng.normal(1e4, 1e3, N))
    model, _ = fitted(name, np.column_stack([x, rng.normal(size=N)]), state)
    gaps = []
    for law in (stats.norm(0, 1), stats.norm(1e4, 1e3)):
        rows = np.column_stack([law.rvs(4000, random_state=rng), rng.normal(size=4000)])
        true = np.log(0.5) + law.logpdf(rows[:, 0]) + stats.norm.logpdf(rows[:, 1])
        gaps.append(float(true.mean() - model.score(rows)))
    X = np.column_stack([np.exp(3 * rng.normal(size=N)), rng.normal(size=N)])
    drawn = fitted(name, X, state)[0].sample(20_000, random_state=state)
    negative = (drawn[:, 0] < 0).mean()
    X, test = (
        make_moons(n, noise=0.1, random_state=state + s)[0] for n, s in ((500, 0), (5000, 9))
    )
    clean = fitted(name, X, state)[0].score(test)
    changes = []
    for size in (1e4, 1e6):
        gross = X.copy()
        gross[0, 0] = size
        changes.append(fitted(name, gross, state)[0].score(test) - clean)
    print(
        f"{name:19} {state}  gaps {gaps[0]:.3f} {gaps[1]:.3f}; negative {negative:.4f}; "
        f"1e4 {changes[0]:+.3f}, 1e6 {changes[1]:+.3f}",
        flush=True,
    )


#: Two columns, and their bounds.
PAIRS: dict[str, tuple[Callable, tuple | None]] = {
    "zeros, counts": (lambda rng: np.column_stack([zeros(rng), counts(rng)])[:600], None),
    "imputed, cents": (
        lambda rng: np.column_stack([imputed(rng), rng.randint(0, 300, N) / 100])[:600],
        None,
    ),
    "sentinel, normal": (lambda rng: np.column_stack([sentinel(rng), rng.normal(size=N)]), None),
    "5 % on a bound": (
        lambda rng: np.maximum(rng.normal(1.645, 1, (600, 2)), 0),
        ((0, None), (0, None)),
    ),
    "40 % on both ends": (
        lambda rng: rng.normal(0, 1.19, (600, 2)).clip(-1, 1),
        ((-1, 1), (-1, 1)),
    ),
    "beta, angle": (
        lambda rng: np.column_stack([rng.beta(0.3, 0.3, 600), rng.uniform(0, 360, 600)]),
        ((0, 1), (0, 360)),
    ),
}


def integrals(name, state):
    """Integrals of the density of two columns."""
    for kind, (draw, bounds) in PAIRS.items():
        model, seconds = fitted(
            name, draw(np.random.RandomState(state)), state, bounded=bounds, max_iter=30
        )
        maps = model._standardizer.maps
        axes = []
        for j in range(2):
            place = (maps.columns == j).nonzero().flatten().tolist()
            knots = maps.knots[place[0]].unique().numpy() if place else np.array([])
            center, scale = model.columns_[j].low, model.columns_[j].scale
            # Beyond the knots, and of a column without any, an even grid.
            low = -np.inf if bounds is None or bounds[j][0] is None else bounds[j][0]
            high = np.inf if bounds is None or bounds[j][1] is None else bounds[j][1]
            first = knots[0] if len(knots) else center
            last = knots[-1] if len(knots) else model.columns_[j].high
            outer = scale * np.r_[0.25:5.25:0.25, 6:40:1]
            ends = np.r_[first - outer[::-1], first, knots, last, last + outer]
            if not len(knots):
                ends = np.r_[ends, np.linspace(first, last, 60)]
            axes.append(nodes(np.unique(ends.clip(low, high)), 5))
        (x, u), (y, v) = axes
        grid = np.column_stack([np.repeat(x, len(y)), np.tile(y, len(x))])
        density = np.exp(model.score_samples(grid)).reshape(len(x), len(y))
        outside = 0
        if bounds is not None:
            drawn = model.sample(20_000, random_state=state)
            for j, (low, high) in enumerate(bounds):
                outside += int((drawn[:, j] < (-np.inf if low is None else low)).sum())
                outside += int((drawn[:, j] > (np.inf if high is None else high)).sum())
        total = u @ density @ v
        print(
            f"{name:19} {state}  {kind:18} {total:.4f}  outside {outside}  {seconds:.0f} s",
            flush=True,
        )


def nodes(ends, order):
    """Gauss-Legendre nodes and weights between neighbouring ends."""
    points, weights = np.polynomial.legendre.leggauss(order)
    half = np.diff(ends)[:, None] / 2
    middle = (ends[1:] + ends[:-1])[:, None] / 2
    return (middle + half * points).ravel(), (half * weights).ravel()


LAWS = {
    "exponential": stats.expon(),
    "gamma(2)": stats.gamma(2),
    "beta(.5, .5)": stats.beta(0.5, 0.5),
}


def ends(name, state):
    """Gaps of columns with hard ends."""
    for kind, law in LAWS.items():
        X, test = (law.rvs((n, 2), random_state=state + s) for n, s in ((2000, 0), (4000, 100)))
        model, seconds = fitted(name, X, state)
        drawn = model.sample(20_000, random_state=state)
        low, high = law.support()
        outside = ((drawn < low) | (drawn > high)).any(axis=1).mean()
        gap = law.logpdf(test).sum(axis=1).mean() - model.score(test)
        print(
            f"{name:19} {state}  {kind:13} gap {gap:.3f}, outside {outside:.4f}  {seconds:.0f} s",
            flush=True,
        )


def order(name, state):
    """Change of the log-density of fresh rows with the order and the signs of the columns."""
    rng = np.random.RandomState(state)
    wine = load_wine().data[rng.permutation(178)]
    curve = [SCurve(noise=0.05).sample(n, random_state=state + s)[0] for n, s in ORDERED_ROWS]
    moons = [make_moons(n, noise=0.1, random_state=state + s)[0] for n, s in ORDERED_ROWS]
    for kind, (X, test) in {
        "moons": moons,
        "S-curve": curve,
        "wine": (wine[:142], wine[142:]),
    }.items():
        n_features = X.shape[1]
        turned = rng.permutation(n_features)[::-1] if n_features > 2 else np.array([1, 0])
        signs = np.where(np.arange(n_features) % 2, 1.0, -1.0)
        model, seconds = fitted(name, X, state)
        other, _ = fitted(name, signs * X[:, turned], state)
        scores = model.score_samples(test), other.score_samples(signs * test[:, turned])
        change = scores[1] - scores[0]
        print(
            f"{name:19} {state}  {kind:8} {scores[0].mean():8.3f}  change {change.mean():+.4f}, "
            f"of a row at most {np.abs(change).max():.4f}  {seconds:.0f} s",
            flush=True,
        )


#: Numbers of rows to fit and to score, and what is added to the random state.
ORDERED_ROWS = (1000, 0), (5000, 9)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("values", "scales", "integrals", "ends", "order"))
    parser.add_argument("--estimators", nargs="+", default=ESTIMATORS, choices=ESTIMATORS)
    parser.add_argument("--states", type=int, nargs="+", default=[0, 1], help="random states")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.estimators:
        for state in args.states:
            globals()[args.what](name, state)


if __name__ == "__main__":
    main()
