"""The intrinsic dimension that `intrinsic_dimension` reads, beside estimators of scikit-dimension.

    python benchmarks/intrinsic_dimension.py manifolds   # the 24 BenchmarkManifolds, no noise
    python benchmarks/intrinsic_dimension.py untuned     # networks, and torus x sphere
    python benchmarks/intrinsic_dimension.py noise       # noise N(0, .05^2)
    python benchmarks/intrinsic_dimension.py levels      # four shapes, four levels of noise, two n
    python benchmarks/intrinsic_dimension.py units       # columns in other units, or others beside
    python benchmarks/intrinsic_dimension.py copies      # rows again, exactly and nearly
    python benchmarks/intrinsic_dimension.py local       # a stick and a ball in one data set
    python benchmarks/intrinsic_dimension.py local3      # a stick, a sheet and a ball, at a scale
    python benchmarks/intrinsic_dimension.py density     # density along curves against the truth
    python benchmarks/intrinsic_dimension.py real        # tables, and Fashion-MNIST with --data-dir
    python benchmarks/intrinsic_dimension.py time        # CPU seconds, alone and in a fit
    python benchmarks/intrinsic_dimension.py --quick     # 8 sets, 3 seeds, in a minute

n = 2500. Everything is at the defaults, which were chosen on draws with seeds of 100 and above,
``--seeds-from 100``; figures are of seeds from 0. Times are CPU seconds of one thread. ``--peers
ESS`` takes a minute or two a set.
"""

import argparse
import time
import warnings

import numpy as np
import skdim
import torch
from _data import load_fashion_mnist
from scipy.spatial.distance import cdist
from skdim.datasets import BenchmarkManifolds
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_moons,
)
from threadpoolctl import threadpool_limits

from skmanifoldflow import (
    ChartAtlasFlow,
    JointManifoldFlow,
    ManifoldPriorFlow,
    NoisyInjectiveFlow,
    intrinsic_dimension,
)
from skmanifoldflow._dimension import read_distinct_rows
from skmanifoldflow.datasets import (
    Helix,
    Line,
    RandomNetwork,
    SCurve,
    SinCurve,
    Sphere,
    StickAndBall,
    SwissRoll,
    Torus,
    TorusSphere,
)

PEERS = {
    # The table of calibration, instead of a simulation of half a minute, needs n <= 5000.
    "DANCo": lambda: skdim.id.DANCo(ver="DANCoFit"),
    "TwoNN": skdim.id.TwoNN,
    "MLE": skdim.id.MLE,
    "ESS": skdim.id.ESS,
    "lPCA": skdim.id.lPCA,
}
# Of each kind in BenchmarkManifolds: closed, curved, nearly one-dimensional, hulls of twice the
# dimension, uniform and normal distributions, skewed distributions.
QUICK = (
    "M1_Sphere",
    "M4_Nonlinear",
    "M6_Nonlinear",
    "M11_Moebius",
    "M12_Norm",
    "M13b_Spiral",
    "Mn1_Nonlinear",
    "Mp2_Paraboloid",
)


def peer_dimension(name, X):
    """The dimension that an estimator reads; one that reads places is averaged over them."""
    estimator = PEERS[name]()
    if name == "DANCo":
        # Its table ends there.
        estimator.set_params(D=min(X.shape[1], 100))
    return float(np.mean(estimator.fit_transform(X)))


def table(args, sets):
    """Print what each estimator reads of sets (name, truth, draw), and the errors over all."""
    names = ["ours", *args.peers]
    columns = " ".join(f"{name:>6}" for name in names)
    print(f"{'set':30} {'truth':>5} {'seed':>4} {columns} {'estimate':>8} agreement")
    errors, seconds = [], {name: [] for name in names}
    for name, truth, draw in sets:
        for seed in range(args.seeds_from, args.seeds_from + args.seeds):
            X = draw(args.n_samples, seed)
            start = time.process_time()
            report = intrinsic_dimension(X)
            seconds["ours"].append(time.process_time() - start)
            read = [report.dimension]
            for peer in args.peers:
                start = time.process_time()
                read.append(peer_dimension(peer, X))
                seconds[peer].append(time.process_time() - start)
            errors.append(np.array(read) - truth)
            print(
                f"{name:30} {truth:5d} {seed:4d} {read[0]:6d} "
                + " ".join(f"{value:6.1f}" for value in read[1:])
                + f" {report.estimate:8.2f} {report.agreement}",
                flush=True,
            )
    errors = np.abs(np.array(errors))
    exact = (errors <= 0.5).mean(axis=0)
    rows = {
        "mean abs. error": [f"{value:6.2f}" for value in errors.mean(axis=0)],
        f"right after rounding, of {len(sets)}": [f"{value * len(sets):6.1f}" for value in exact],
        "share right": [f"{value:6.3f}" for value in exact],
        "median CPU s": [f"{np.median(seconds[name]):6.2f}" for name in names],
    }
    for label, values in rows.items():
        print(f"{label:41} " + " ".join(values))


def manifolds(args):
    known = BenchmarkManifolds().truth["Intrinsic Dimension"]
    cache = {}

    def draw(name, n, seed):
        if (n, seed) not in cache:
            cache[n, seed] = BenchmarkManifolds(random_state=seed).generate(n=n)
        return cache[n, seed][name]

    names = [name for name in known.index if not args.only or name in args.only]
    table(
        args,
        [
            (name, int(known[name]), lambda n, seed, name=name: draw(name, n, seed))
            for name in names
        ],
    )


def with_noise(data, name):
    """A set (name, truth, draw) of one of our data sets."""
    return name, data.dimension, lambda n, seed: data.sample(n, random_state=seed)[0]


def untuned(args):
    sets = []
    for noise in (0.0, 0.02):
        for d, n_features in ((3, 20), (3, 50), (8, 20), (8, 50)):
            data = RandomNetwork(d, n_features, noise=noise)
            sets.append(with_noise(data, f"network {d} in {n_features}, {noise:g}"))
        data = TorusSphere(noise=noise)
        sets.append((f"torus x sphere, {noise:g}", 4, with_noise(data, "")[2]))
    table(args, [one for one in sets if not args.only or one[0] in args.only])


def noise(args):
    table(
        args,
        [
            with_noise(SCurve(noise=0.05), "S-curve"),
            with_noise(Sphere(4, 15, noise=0.05), "sphere 4 in 15"),
            with_noise(Helix(noise=0.05), "helix"),
        ],
    )


def shape(kind, n, rng):
    """Rows of a shape of unit root mean square radius, its dimension, and its number of columns."""
    if kind.startswith("sphere"):
        d, n_features = int(kind.split()[1]), 15
        X = rng.standard_normal((n, d + 1))
        X /= np.linalg.norm(X, axis=1)[:, None]
    elif kind == "torus":
        d, n_features = 2, 10
        u, v = rng.uniform(0, 2 * np.pi, (2, n))
        ring = 2 + np.cos(u)
        X = np.column_stack([ring * np.cos(v), ring * np.sin(v), np.sin(u)])
    else:
        d, n_features = 6, 40
        u = rng.uniform(-1, 1, (n, 6))
        X = np.column_stack([u, np.sin(2 * u[:, :3]), u[:, 3:] ** 2])
    X = X - X.mean(axis=0)
    return X / np.sqrt(np.square(X).sum(axis=1).mean()), d, n_features


def levels(args):
    """Noise in each column of shapes in the first columns, or turned into all of them."""
    for turned in (True, False):
        sets = []
        for kind in ("sphere 2", "sphere 4", "torus", "bent sheet"):
            for n in (1000, 2500):
                for sigma in (0.01, 0.02, 0.05, 0.1):

                    def draw(_, seed, kind=kind, n=n, sigma=sigma, turned=turned):
                        rng = np.random.RandomState(seed)
                        X, _, n_features = shape(kind, n, rng)
                        axes = np.eye(n_features)
                        if turned:
                            axes = np.linalg.qr(rng.standard_normal(axes.shape))[0]
                        X = X @ axes[: X.shape[1]]
                        return X + sigma * rng.standard_normal(X.shape)

                    truth = shape(kind, 2, np.random.RandomState(0))[1]
                    sets.append((f"{kind}, {n} rows, {sigma:g}", truth, draw))
        print("turned" if turned else "in the first columns")
        table(args, sets)


def known(n, seed):
    """Sets whose dimension should not depend on units or copies."""
    rng = np.random.RandomState(seed)
    hour = rng.uniform(0, 2 * np.pi, n)
    ours = {
        "sphere 2 in 3": Sphere(2, 3, noise=0.0),
        "torus": Torus(noise=0.01),
        "network 3 in 20": RandomNetwork(3, 20, noise=0.0),
        "network 5 in 20": RandomNetwork(5, 20, noise=0.01),
        "torus x sphere": TorusSphere(noise=0.0),
        "swiss roll": SwissRoll(noise=0.05),
    }
    sets = {name: data.sample(n, random_state=seed)[0] for name, data in ours.items()}
    sets["moons"] = make_moons(n, noise=0.05, random_state=seed)[0]
    sets["four normals"] = rng.standard_normal((n, 4))
    temperature = 15 + 5 * np.sin(hour - 1) + 3 * rng.standard_normal(n)
    sets["clock and temperature"] = np.column_stack([np.sin(hour), np.cos(hour), temperature])
    return sets


def compare(args, variants):
    """Print how many variants of each set of `known` read as the set itself does."""
    for seed in range(args.seeds_from, args.seeds_from + args.seeds):
        for name, X in known(args.n_samples, seed).items():
            rng, plain = np.random.RandomState(seed), intrinsic_dimension(X).dimension
            parts = []
            for label, rows, added in variants(X, rng):
                read = [intrinsic_dimension(one).dimension for one in rows]
                right = sum(one == plain + added for one in read)
                parts.append(f"{label} {right}/{len(read)}")
            print(f"{seed:4d} {name:22} {plain:2d}  " + ", ".join(parts), flush=True)


def units(args):
    def variants(X, rng):
        n, n_features = X.shape
        yield "scaled", [X * 10 ** rng.uniform(-2, 2, n_features) for _ in range(10)], 0
        identity = np.eye(n_features)[:4]
        yield "one", [X * f**row for row in identity for f in (0.01, 0.1, 10, 100)], 0
        beside = [np.arange(n), 5 + 1e-3 * np.arange(n)]
        yield "a number beside", [np.column_stack([X, column]) for column in beside], 1
        sums = [np.column_stack([X, X[:, 0]]), np.column_stack([X, X[:, :2].sum(axis=1)])]
        yield "repeated", [*sums, np.column_stack([X, X])], 0
        maps = [np.linalg.qr(rng.standard_normal((2, n_features, n_features)))[0] for _ in range(3)]
        spread, standardised = np.geomspace(1, 0.1, n_features), (X - X.mean(0)) / X.std(0)
        yield "mapped", [standardised @ (u * spread) @ v for u, v in maps], 0

    compare(args, variants)


def copies(args):
    def variants(X, rng):
        scale, distances = X.std(axis=0), np.sort(cdist(X[:300], X), axis=1)[:, 1]
        sizes = {"exact": 0, "1e-9": 1e-9 * scale, "1e-6": 1e-6 * scale}
        sizes["near"] = 1e-4 * np.median(distances) / np.sqrt(X.shape[1])
        for label, size in sizes.items():
            rows = []
            for share in (0.05, 0.15, 0.47):
                again = X[: int(share * len(X))]
                rows.append(np.r_[X, again + size * rng.standard_normal(again.shape)])
            yield label, rows, 0

    compare(args, variants)


def stick_sheet_ball(n, n_features, noise, rng):
    """Rows (3 n, n_features) of a stick, a bent sheet and a ball, and their dimensions."""
    stick, sheet = rng.uniform(-2, 2, n), rng.uniform(-1, 1, (2, n))
    ball = rng.standard_normal((n, 3))
    ball *= (rng.uniform(size=n) ** (1 / 3) / np.linalg.norm(ball, axis=1))[:, None]
    X = np.zeros((3 * n, n_features))
    X[:n, :3] = np.column_stack([np.full(n, -4), np.zeros(n), stick])
    X[n : 2 * n, :3] = np.column_stack([*sheet, 0.5 * sheet[0] ** 2])
    X[2 * n :, :3] = ball + np.array([4, 0, 0])
    return X + noise * rng.standard_normal(X.shape), np.repeat([1, 2, 3], n)


def local3(args):
    """Rows whose `local_dimension` is right, at the widest gap and at two scales."""
    for n_features, sigma, scales in ((10, 0.02, (0.15, 0.2)), (3, 0.05, (0.1, 0.15))):
        for seed in range(args.seeds_from, args.seeds_from + args.seeds):
            rng = np.random.RandomState(seed)
            X, _ = stick_sheet_ball(args.n_samples // 3, n_features, sigma, rng)
            test, truth = stick_sheet_ball(333, n_features, sigma, rng)
            model = ManifoldPriorFlow(random_state=seed).fit(X)
            read = {s: model.local_dimension(test, scale=s) == truth for s in (None, *scales)}
            print(
                f"{n_features} columns, noise {sigma}, seed {seed}: "
                + ", ".join(f"scale {s}: {right.mean():.3f}" for s, right in read.items()),
                flush=True,
            )


def local(args):
    data = StickAndBall(noise=args.noise)
    print(f"{'seed':>4} {'part':6} {'truth':>5} {'median':>6} {'mean':>6} {'right':>6}")
    for seed in range(args.seeds_from, args.seeds_from + args.seeds):
        X, _ = data.sample(args.n_samples, random_state=seed)
        test, coordinates = data.sample(1000, random_state=seed + 1000)
        truth = data.local_dimension(coordinates)
        read = ManifoldPriorFlow(random_state=seed).fit(X).local_dimension(test)
        for part, d in (("stick", 1), ("ball", 3)):
            mine = read[truth == d]
            print(
                f"{seed:4d} {part:6} {d:5d} {np.median(mine):6.1f} {mine.mean():6.2f} "
                f"{(mine == d).mean():6.1%}",
                flush=True,
            )


def density(args):
    """Total variation between the density along a curve and the model's, 4001 points.

    As far as the rows of the fit reach: points of the curve beyond are not on the model's manifold,
    and what is scored is their projection.
    """
    print(f"{'set':10} {'noise':>6} {'seed':>4} {'total variation':>15}")
    for make, name in ((SinCurve, "sin curve"), (Line, "line")):
        for sigma in (0.0, 0.05):
            data = make(noise=sigma)
            for seed in range(args.seeds_from, args.seeds_from + args.seeds):
                X, length = data.sample(args.n_samples, random_state=seed)
                model = ManifoldPriorFlow(1, random_state=seed).fit(X)
                grid = np.linspace(length.min(), length.max(), 4001)[:, None]
                true = np.exp(data.log_density_manifold(grid))
                ours = np.exp(model.score_samples_manifold(data.embed(grid)))
                variation = 0.5 * np.trapezoid(np.abs(ours - true), grid[:, 0])
                print(f"{name:10} {sigma:6g} {seed:4d} {variation:15.4f}", flush=True)


def real(args):
    """Tables of scikit-learn, and 10 000 images of Fashion-MNIST; peers take 5000 rows at most."""
    loaders = (load_iris, load_wine, load_diabetes, load_breast_cancer, load_digits)
    sets = {load.__name__[5:]: load().data for load in loaders}
    if args.data_dir:
        sets["Fashion-MNIST"] = load_fashion_mnist(args.data_dir)[0][:10_000]
    for name, X in sets.items():
        start = time.process_time()
        report = intrinsic_dimension(X)
        print(f"{name}: {report.dimension}, {time.process_time() - start:.2f} CPU s\n  {report}")
        for peer in args.peers:
            print(f"  {peer:6} {peer_dimension(peer, X[:5000]):6.1f}", flush=True)


def cpu_time(args):
    """CPU seconds of the function, and of what fits spend on it."""
    rng = np.random.RandomState(0)
    for n, n_features in ((2500, 20), (20_000, 50)):
        X, _ = RandomNetwork(8, n_features, noise=0.02).sample(n, random_state=0)
        start = time.process_time()
        intrinsic_dimension(X)
        print(f"{n} x {n_features}: {time.process_time() - start:.2f} CPU s")
    tables = {"iris": load_iris().data, "normal 1000 x 10": rng.standard_normal((1000, 10))}
    tables["network 2500 x 20"] = RandomNetwork(8, 20, noise=0.02).sample(2500, random_state=0)[0]
    for name, X in tables.items():
        start = time.process_time()
        read_distinct_rows(X)
        reading = time.process_time() - start
        for Flow in (NoisyInjectiveFlow, ManifoldPriorFlow, ChartAtlasFlow, JointManifoldFlow):
            start = time.process_time()
            Flow(random_state=0).fit(X)
            fit = time.process_time() - start
            print(f"{name}: {reading:.2f} of {fit:.2f} CPU s of {Flow.__name__}", flush=True)


QUESTIONS = {
    "manifolds": manifolds,
    "untuned": untuned,
    "noise": noise,
    "levels": levels,
    "units": units,
    "copies": copies,
    "local": local,
    "local3": local3,
    "density": density,
    "real": real,
    "time": cpu_time,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", nargs="*", choices=[[], *QUESTIONS], default=[])
    parser.add_argument("--quick", action="store_true", help="8 of the manifolds, 3 seeds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seeds-from", type=int, default=0)
    parser.add_argument("--n-samples", type=int, default=2500)
    parser.add_argument("--noise", type=float, default=0.0, help="of the stick and the ball")
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument(
        "--peers",
        nargs="*",
        default=["DANCo", "TwoNN", "MLE", "lPCA"],
        choices=PEERS,
        help="ESS takes a minute or two a set",
    )
    parser.add_argument("--data-dir")
    args = parser.parse_args()
    if args.quick:
        args.questions, args.only = ["manifolds"], QUICK
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        for question in args.questions or QUESTIONS:
            print(f"\n{question}")
            QUESTIONS[question](args)


if __name__ == "__main__":
    main()
