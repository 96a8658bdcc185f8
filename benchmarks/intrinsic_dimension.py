"""The intrinsic dimension that ManifoldPriorFlow reads, beside estimators of scikit-dimension.

    python benchmarks/intrinsic_dimension.py manifolds   # the 24 BenchmarkManifolds, no noise
    python benchmarks/intrinsic_dimension.py untuned     # sets that no setting was chosen on
    python benchmarks/intrinsic_dimension.py noise       # noise N(0, .05^2)
    python benchmarks/intrinsic_dimension.py local       # a stick and a ball in one data set
    python benchmarks/intrinsic_dimension.py density     # density along curves against the truth
    python benchmarks/intrinsic_dimension.py real        # digits, and Fashion-MNIST with --data-dir
    python benchmarks/intrinsic_dimension.py time        # 2500 rows, 50 columns
    python benchmarks/intrinsic_dimension.py --quick     # 8 sets, 3 seeds, in ten minutes

n = 2500. Everything is at the defaults, but for images; those were chosen on draws with seeds of
100 and above and n = 1500 and 4000, ``--seeds-from 100 --n-samples 1500``; figures are of seeds
from 0. Times are CPU seconds of one thread. ``--peers ESS`` takes a minute or two a set.
"""

import argparse
import time
import warnings

import numpy as np
import skdim
import torch
from _data import load_fashion_mnist
from manifold_prior import IMAGES
from skdim.datasets import BenchmarkManifolds
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from skmanifoldflow import ManifoldPriorFlow
from skmanifoldflow.datasets import (
    Helix,
    Line,
    RandomNetwork,
    SCurve,
    SinCurve,
    Sphere,
    StickAndBall,
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
    print(
        f"{'set':24} {'truth':>5} {'seed':>4} " + " ".join(f"{name:>6}" for name in names), end=""
    )
    print(f" {'flow':>5} {'mixture':>7} {'model':>7} {'CPU s':>6}")
    errors, seconds = [], {name: [] for name in names}
    for name, truth, draw in sets:
        for seed in range(args.seeds_from, args.seeds_from + args.seeds):
            X = draw(args.n_samples, seed)
            model = ManifoldPriorFlow(random_state=seed)
            start = time.process_time()
            model.fit(X)
            seconds["ours"].append(time.process_time() - start)
            read = [model.intrinsic_dimension_]
            for peer in args.peers:
                start = time.process_time()
                read.append(peer_dimension(peer, X))
                seconds[peer].append(time.process_time() - start)
            errors.append(np.array(read) - truth)
            report = model.dimension_report_
            print(
                f"{name:24} {truth:5d} {seed:4d} {read[0]:6d} "
                + " ".join(f"{value:6.1f}" for value in read[1:])
                + f" {report.jacobian:5d} {report.mixture or '-':>7} {report.model:>7} "
                f"{seconds['ours'][-1]:6.1f}",
                flush=True,
            )
    errors = np.abs(np.array(errors))
    exact = (np.abs(errors) <= 0.5).mean(axis=0) * len(sets)
    rows = {
        "mean abs. error": [f"{value:6.2f}" for value in errors.mean(axis=0)],
        f"right after rounding, of {len(sets)}": [f"{value:6.1f}" for value in exact],
        "median CPU s": [f"{np.median(seconds[name]):6.1f}" for name in names],
    }
    for label, values in rows.items():
        print(f"{label:35} " + " ".join(values))


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
    """Digits, dequantised, and 10 000 images of Fashion-MNIST; peers take 5000 rows at most."""
    rng = np.random.RandomState(0)
    X = load_digits().data
    sets = {"digits": ((X + rng.uniform(size=X.shape)) / 16, {})}
    if args.data_dir:
        X = load_fashion_mnist(args.data_dir)[0][:10_000]
        X = (X + rng.uniform(size=X.shape)) / 256
        sets["Fashion-MNIST"] = (X, {"max_iter": 12, **IMAGES})
    for name, (X, parameters) in sets.items():
        start = time.process_time()
        model = ManifoldPriorFlow(random_state=0, **parameters).fit(X)
        print(f"{name}: {model.intrinsic_dimension_}, {time.process_time() - start:.0f} CPU s")
        print(model.dimension_report_)
        print("spectrum", " ".join(f"{value:.2g}" for value in model.local_spectrum_[:30]))
        for peer in args.peers:
            print(f"  {peer:6} {peer_dimension(peer, X[:5000]):6.1f}", flush=True)


def fit_time(args):
    """CPU seconds of a fit of 2500 rows and 50 columns."""
    X, _ = RandomNetwork(8, 50, noise=0.02).sample(2500, random_state=0)
    start = time.process_time()
    ManifoldPriorFlow(random_state=0).fit(X)
    print(f"{time.process_time() - start:.1f} CPU s")


QUESTIONS = {
    "manifolds": manifolds,
    "untuned": untuned,
    "noise": noise,
    "local": local,
    "density": density,
    "real": real,
    "time": fit_time,
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
