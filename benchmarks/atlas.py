"""ChartAtlasFlow on data of any topology: gaps, gains, samples, clusters and cost.

    python benchmarks/atlas.py gaps      # beside the plain flow, NoisyInjectiveFlow and a mixture
    python benchmarks/atlas.py gains     # with and without charts, for each base flow
    python benchmarks/atlas.py charts    # the score over the number of charts
    python benchmarks/atlas.py clusters  # digits: predict against k-means
    python benchmarks/atlas.py cost      # training step with and without charts; scoring

A gap is the mean of exact minus model log-density on 5000 test rows, in nats; rows have normal
noise of standard deviation .05 around curves and surfaces of unit scale. Defaults are tuned on
seeds of 100 and above, ``--seeds-from 100``; those reported start at 0. Times are CPU seconds of
one thread. ``--only NAME`` takes one data set, ``--set name=value`` sets a parameter of the atlas.
"""

import argparse
import ast
import time
import warnings

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from skmanifoldflow import ChartAtlasFlow, NoisyInjectiveFlow
from skmanifoldflow.datasets import (
    FigureEight,
    Helix,
    LinkedCircles,
    Torus,
    TrefoilKnot,
    TwoSpheres,
)

SETS = {
    "helix": Helix,
    "linked_circles": LinkedCircles,
    "trefoil_knot": TrefoilKnot,
    "figure_eight": FigureEight,
    "torus": Torus,
    "two_spheres": TwoSpheres,
}
NOISE = 0.05
MIXTURE_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 100)
# The plain flow gets the epochs that cost as much as the charts of a row.
PLAIN = {"n_charts": 1, "max_iter": 120}


def atlas(args, **parameters):
    """The estimator with the parameters of a benchmark, those of ``--set`` above them."""
    return ChartAtlasFlow(**(parameters | dict(args.set)))


def best_mixture(X):
    """Normal mixture of full covariances whose BIC is best, up to 100 components."""
    mixtures = [
        GaussianMixture(k, reg_covar=1e-5, random_state=0).fit(X)
        for k in MIXTURE_SIZES
        if 10 * k < len(X)
    ]
    return min(mixtures, key=lambda mixture: mixture.bic(X))


def timed(fit, *args):
    start = time.process_time()
    return fit(*args), time.process_time() - start


def draws(args, name, n_rows):
    """Yield seed, data set, training and test rows, mean exact log-density of the test rows."""
    data = SETS[name](noise=NOISE)
    for seed in range(args.seeds_from, args.seeds_from + args.seeds):
        X, _ = data.sample(n_rows, random_state=2 * seed)
        test, _ = data.sample(5000, random_state=2 * seed + 1)
        yield seed, data, X, test, data.log_density(test).mean()


def far(data, model):
    """Fraction of 5000 samples farther than 4 standard deviations of the noise from the truth."""
    samples = model.sample(5000, random_state=0)
    return np.mean(data.distance(samples) > 4 * NOISE)


def chosen(args):
    return [name for name in SETS if name.startswith(args.only)]


def gaps(args):
    print(f"{'set':15} {'rows':>6} {'model':20} {'gap':>7} {'far':>7} {'CPU s':>6}  gaps")
    for n_rows in args.rows:
        for name in chosen(args):
            results = {}
            for seed, data, X, test, exact in draws(args, name, n_rows):
                models = {
                    "ChartAtlasFlow": atlas(args, random_state=seed).fit,
                    "without charts": atlas(args, random_state=seed, **PLAIN).fit,
                    "NoisyInjectiveFlow": NoisyInjectiveFlow(random_state=seed).fit,
                    "GaussianMixture": best_mixture,
                }
                for label, fit in models.items():
                    model, seconds = timed(fit, X)
                    share = np.nan
                    if isinstance(model, ChartAtlasFlow):
                        share = far(data, model)
                    row = exact - model.score_samples(test).mean(), share, seconds
                    results.setdefault(label, []).append(row)
            for label, rows in results.items():
                gap, share, seconds = np.mean(rows, axis=0)
                values = " ".join(f"{row[0]:.3f}" for row in rows)
                print(
                    f"{name:15} {n_rows:6d} {label:20} {gap:7.3f} {share:7.4f} {seconds:6.1f}  "
                    f"{values}",
                    flush=True,
                )


def gains(args):
    print(f"{'flow':15} {'rows':>6} {'set':15} {'plain':>7} {'atlas':>7} {'gain':>7} {'CPU s':>12}")
    for n_rows in args.rows:
        for flow in ("affine", "spline", "autoregressive"):
            of_flow = []
            for name in chosen(args):
                rows = []
                for seed, _, X, test, exact in draws(args, name, n_rows):
                    row = []
                    for parameters in (PLAIN, {}):
                        model = atlas(args, flow=flow, random_state=seed, **parameters)
                        _, seconds = timed(model.fit, X)
                        row += [exact - model.score(test), seconds]
                    rows.append(row)
                plain, plain_s, charts, charts_s = np.mean(rows, axis=0)
                of_flow.append(plain - charts)
                print(
                    f"{flow:15} {n_rows:6d} {name:15} {plain:7.3f} {charts:7.3f} "
                    f"{plain - charts:7.3f} {plain_s:5.1f} {charts_s:6.1f}",
                    flush=True,
                )
            print(f"{flow:15} {n_rows:6d} {'mean gain':15} {np.mean(of_flow):23.3f}", flush=True)


def charts(args):
    numbers = (4, 6, 8, 12, 16, 24, 32)
    print(
        f"{'set':15} {'rows':>6}  gap with so many charts: " + " ".join(f"{k:>6}" for k in numbers)
    )
    for n_rows in args.rows:
        for name in chosen(args):
            table = [
                [
                    exact - atlas(args, n_charts=k, random_state=seed).fit(X).score(test)
                    for k in numbers
                ]
                for seed, _, X, test, exact in draws(args, name, n_rows)
            ]
            values = " ".join(f"{gap:6.3f}" for gap in np.mean(table, axis=0))
            print(f"{name:15} {n_rows:6d} {'':25}{values}", flush=True)


def clusters(args):
    X, y = load_digits(return_X_y=True)
    print(
        f"{'charts':>6} {'seed':>4} {'atlas':>7} {'k-means':>7} {'CPU s':>6}   adjusted Rand index"
    )
    for n_charts in (10, 16, 24):
        for seed in range(args.seeds_from, args.seeds_from + args.seeds):
            model = atlas(args, n_charts=n_charts, dequantize=True, random_state=seed)
            _, seconds = timed(model.fit, X)
            labels = KMeans(n_charts, n_init=10, random_state=seed).fit(X).labels_
            print(
                f"{n_charts:6d} {seed:4d} {adjusted_rand_score(y, model.predict(X)):7.3f} "
                f"{adjusted_rand_score(y, labels):7.3f} {seconds:6.1f}",
                flush=True,
            )


def cost(args):
    """Time a training step with charts against the same flow without; scoring over charts."""
    X, _ = Torus(noise=NOISE).sample(5000, random_state=0)
    batch = 256
    print(f"{'flow':15} {'charts':>6} {'per row':>8} {'ms a step':>10} {'plain':>7} {'ratio':>6}")
    for flow in ("affine", "spline", "autoregressive"):
        models = {
            k: atlas(args, flow=flow, n_charts=k, max_iter=1, random_state=0).fit(X)
            for k in (1, 8, 32)
        }
        steps = {k: training_step(model, X, batch) for k, model in models.items()}
        times = {k: [] for k in steps}
        for _ in range(15):
            for k, (step, _) in steps.items():
                start = time.perf_counter()
                for _ in range(10):
                    step()
                times[k].append((time.perf_counter() - start) / 10)
        for k in (8, 32):
            ratio = np.median(np.divide(times[k], times[1]))
            per_row = steps[k][1]
            print(
                f"{flow:15} {k:6d} {per_row:8.2f} {1e3 * np.median(times[k]):10.2f} "
                f"{1e3 * np.median(times[1]):7.2f} {ratio:6.2f} = {ratio / per_row:.2f} x charts",
                flush=True,
            )
    print(f"\n{'charts':>6} {'score_samples, us a row and chart':>34}")
    for k in (4, 8, 16, 32, 64):
        model = atlas(args, n_charts=k, max_iter=1, random_state=0).fit(X)
        model.score_samples(X)
        seconds = [timed(model.score_samples, X)[1] for _ in range(5)]
        print(f"{k:6d} {1e6 * np.median(seconds) / len(X) / k:34.2f}", flush=True)


def training_step(model, X, batch):
    """Return a function that computes the loss of a batch and its gradient, and charts per row."""
    from skmanifoldflow._chart_atlas.objective import AtlasLikelihood

    generator = torch.Generator().manual_seed(0)
    flow = model._flow.move_to(torch.device("cpu"), torch.float32).requires_grad_(True)
    flow.quantizer.requires_grad_(False)
    rows = model._standardizer.forward_and_log_det(torch.tensor(X))[0].float()[:batch]
    objective = AtlasLikelihood(
        flow,
        objective="sum",
        noise_start=1e-3,
        noise_floor=1e-3,
        n_batches=20,
        generator=generator,
    )

    def step():
        objective.zero_grad()
        objective.loss(rows, 1.0).backward()

    return step, float(flow.contained(rows).sum(1).float().mean())


def parse_setting(text):
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    benchmarks = {f.__name__: f for f in (gaps, gains, charts, clusters, cost)}
    parser.add_argument("benchmark", choices=benchmarks)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seeds-from", type=int, default=0)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 10_000])
    parser.add_argument("--only", default="")
    parser.add_argument("--set", type=parse_setting, action="append", default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        benchmarks[args.benchmark](args)


if __name__ == "__main__":
    main()
