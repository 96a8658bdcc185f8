"""ManifoldPriorFlow on tables: dimension, likelihood, embedding, time and digits.

    python benchmarks/manifold_prior.py dimension     # 10 seeds of 8 data sets
    python benchmarks/manifold_prior.py likelihood    # gap to the exact density, 3 seeds
    python benchmarks/manifold_prior.py time          # beside Isomap and a grid of mixtures
    python benchmarks/manifold_prior.py digits        # Pipeline and GridSearchCV over n_components
    python benchmarks/manifold_prior.py rescaling     # units of the columns

Every number is that of the defaults unless the table says otherwise; times are CPU seconds of one
thread.
"""

import argparse
import time
import warnings

import numpy as np
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.manifold import Isomap
from sklearn.metrics import r2_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import ManifoldPriorFlow
from skmanifoldflow.datasets import Line, SCurve, SinCurve, SwissRoll


def affine_r2(embedding, coordinates):
    """R^2 of the true coordinates from the embedding by an affine map, mean over coordinates."""
    predicted = LinearRegression().fit(embedding, coordinates).predict(embedding)
    return r2_score(coordinates, predicted)


def timed_fit(model, X):
    start = time.process_time()
    model.fit(X)
    return time.process_time() - start


def dimension(n_seeds, only=""):
    """The dimension read, and on the S-curve embedding and scale, n = 2500."""
    sets = [
        (SinCurve(noise=0.0), "sin_curve, noise 0"),
        (SinCurve(noise=0.05), "sin_curve, noise .05"),
        (Line(noise=0.0), "line, noise 0"),
        (Line(noise=0.05), "line, noise .05"),
        (SCurve(noise=0.0), "s_curve, noise 0"),
        (SCurve(noise=0.05), "s_curve, noise .05"),
        (SwissRoll(noise=0.0), "swiss_roll, noise 0"),
        (SwissRoll(noise=0.05), "swiss_roll, noise .05"),
    ]
    print(
        f"{'set':22} {'truth':>5}  {'read':24} {'right':>6} {'R2 mean':>8} {'R2 min':>7} "
        f"{'eigenvalue / variance':>22} {'CPU s':>6}"
    )
    for data, name in sets:
        if not name.startswith(only):
            continue
        read, r2, ratios, seconds = [], [], [], []
        for seed in range(n_seeds):
            X, _ = data.sample(2500, random_state=seed)
            test, coordinates = data.sample(2500, random_state=seed + 1000)
            model = ManifoldPriorFlow(random_state=seed)
            seconds.append(timed_fit(model, X))
            read.append(model.intrinsic_dimension_)
            if model.intrinsic_dimension_ == data.dimension:
                r2.append(affine_r2(model.transform(test), coordinates))
                true = np.sort(coordinates.var(axis=0))[::-1]
                ratios.append(model.prior_eigenvalues_[: data.dimension] / true)
        right = np.mean(np.array(read) == data.dimension)
        ratios = np.array(ratios) if ratios else np.full((1, 1), np.nan)
        print(
            f"{name:22} {data.dimension:5d}  {' '.join(map(str, read)):24} {right:6.0%} "
            f"{np.mean(r2):8.3f} {np.min(r2):7.3f} "
            f"{ratios.min():10.2f} to {ratios.max():4.2f}   {np.mean(seconds):6.1f}",
            flush=True,
        )


def likelihood(n_seeds):
    """Mean of exact minus model log-density on 5000 test rows, 5000 training rows."""
    print(
        f"{'set':12} {'seed':>4} {'gap':>7} {'Gaussian gap':>13} {'R2':>6} {'PCA R2':>7} "
        f"{'Isomap R2':>10} {'CPU s':>6}"
    )
    for data, name in ((SinCurve(noise=0.05), "sin_curve"), (SCurve(noise=0.05), "s_curve")):
        gaps = []
        for seed in range(n_seeds):
            X, _ = data.sample(5000, random_state=2 * seed)
            test, coordinates = data.sample(5000, random_state=2 * seed + 1)
            model = ManifoldPriorFlow(random_state=seed)
            seconds = timed_fit(model, X)
            exact = data.log_density(test).mean()
            normal = multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(test).mean()
            gaps.append(exact - model.score(test))
            r2 = affine_r2(model.transform(test), coordinates)
            pca = affine_r2(PCA(data.dimension).fit(X).transform(test), coordinates)
            isomap = Isomap(n_neighbors=10, n_components=data.dimension).fit(X[:2500])
            isomap = affine_r2(isomap.transform(test), coordinates)
            print(
                f"{name:12} {seed:4d} {gaps[-1]:7.3f} {exact - normal:13.3f} {r2:6.3f} "
                f"{pca:7.3f} {isomap:10.3f} {seconds:6.1f}",
                flush=True,
            )
        print(f"{name:12} mean {np.mean(gaps):7.3f}", flush=True)


def duration(n_rounds):
    """Ratio of CPU times in alternating rounds: one fit against Isomap and 30 mixtures."""
    print(f"{'round':>5} {'flow s':>7} {'Isomap s':>9} {'mixtures s':>11} {'ratio':>6}")
    ratios = []
    for seed in range(n_rounds):
        X, _ = SCurve(noise=0.05).sample(2500, random_state=seed)
        flow = timed_fit(ManifoldPriorFlow(random_state=seed), X)
        isomap = timed_fit(Isomap(n_neighbors=10, n_components=2), X)
        mixtures = sum(timed_fit(GaussianMixture(k, random_state=seed), X) for k in range(1, 31))
        ratios.append(flow / (isomap + mixtures))
        print(f"{seed:5d} {flow:7.1f} {isomap:9.1f} {mixtures:11.1f} {ratios[-1]:6.2f}", flush=True)
    print(f"median ratio {np.median(ratios):.2f}")


def digits(n_seeds):
    """Held-out nats of (pixel + u) / 16 in original units, chosen by GridSearchCV."""
    X, _ = load_digits(return_X_y=True)
    rng = np.random.RandomState(0)
    order = rng.permutation(len(X))
    X = (X + rng.rand(*X.shape)) / 16
    n_test = round(0.2 * len(X))
    test, train = X[order[:n_test]], X[order[n_test:]]
    normal = multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(test).mean()
    print(f"normal law {normal:.2f}")
    for seed in range(n_seeds):
        pipeline = make_pipeline(StandardScaler(), ManifoldPriorFlow(random_state=seed))
        grid = {"manifoldpriorflow__n_components": [None, 20, 40]}
        start = time.perf_counter()
        search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(train)
        seconds = time.perf_counter() - start
        # The pipeline's score is in the scaler's units.
        to_data_units = -np.log(search.best_estimator_[0].scale_).sum()
        scores = search.cv_results_["mean_test_score"] + to_data_units
        for parameters, score in zip(search.cv_results_["params"], scores, strict=True):
            print(f"seed {seed}: cross-validated {score:6.2f}  {parameters}")
        print(
            f"seed {seed}: held out {search.score(test) + to_data_units:.2f} with "
            f"{search.best_params_}, {seconds:.0f} s",
            flush=True,
        )
        model = search.best_estimator_[1]
        print(f"seed {seed}: dimension read {model.intrinsic_dimension_}")


def rescaling(n_seeds):
    """Change of the mean score, after the log-Jacobian, under changes of units."""
    print(f"{'change':24} {'seed':>4} {'|difference|':>13}")
    for seed in range(n_seeds):
        X, _ = SCurve(noise=0.05).sample(2500, random_state=seed)
        reference = ManifoldPriorFlow(random_state=seed).fit(X).score(X)
        changes = {
            "x 2^-20": (2.0**-20, 0.0),
            "x 2^7": (2.0**7, 0.0),
            "x (2^3, 2^-9, 2^20)": (2.0 ** np.array([3, -9, 20]), 0.0),
            "x 1e-8": (1e-8, 0.0),
            "x 3.7": (3.7, 0.0),
            "x 1e8": (1e8, 0.0),
            "x (1e-8, 1, 1e8)": (np.array([1e-8, 1, 1e8]), 0.0),
            "+ 1000": (1.0, 1000.0),
            "x 0.01 - 300": (0.01, -300.0),
            "+ 1e6": (1.0, 1e6),
        }
        for name, (factor, shift) in changes.items():
            changed = X * factor + shift
            score = ManifoldPriorFlow(random_state=seed).fit(changed).score(changed)
            log_jacobian = -np.log(np.broadcast_to(factor, 3)).sum()
            difference = abs(score - reference - log_jacobian)
            print(f"{name:24} {seed:4d} {difference:13.2e}", flush=True)


def main():
    runs = {
        "dimension": (dimension, 10),
        "likelihood": (likelihood, 3),
        "time": (duration, 3),
        "digits": (digits, 1),
        "rescaling": (rescaling, 1),
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=runs)
    parser.add_argument("--seeds", type=int, help="number of seeds or rounds")
    parser.add_argument("--only", default="", help="dimension: sets whose name begins so")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    run, default = runs[args.what]
    options = {"only": args.only} if args.what == "dimension" else {}
    run(args.seeds or default, **options)


if __name__ == "__main__":
    main()
