"""Random tables and random valid parameters: every result finite, or one clear error.

    python benchmarks/fuzz.py [--estimators NoisyInjectiveFlow ...] [--seeds 0 200]

A seed makes a table (13 kinds of rows, 12 dtypes, scales from 1e-300 to 1e150, 7 layouts) and
parameters, fits, and calls every method. A case ends as

* finite: all results are finite;
* clear: ValueError or TypeError that this library or scikit-learn raises on purpose;
* gave up: FloatingPointError, whose message names what to change;
* bad: NaN or infinite results;
* bare: any other exception.

Cases that are neither finite nor clear are printed, with what a known fault may have to do with it:
bounded columns with rows on the bound, fewer rows than columns, a gross outlier.
"""

import argparse
import collections
import os
import tempfile
import traceback
import warnings

import numpy as np
import pandas as pd
import torch

import skmanifoldflow

ESTIMATORS = ("ManifoldPriorFlow", "NoisyInjectiveFlow", "ChartAtlasFlow", "JointManifoldFlow")
DTYPES = "f8 f8 f8 f4 f2 i8 i4 i2 i1 u1 u2 ?".split()
SIZES = [(), (4,), (8,), (16, 16), (1,), 32]


def pick(rng, *choices):
    return choices[rng.randint(len(choices))]


def make_kind(rng, kind, n, d):
    """Return the values of a table."""
    if kind == "normal":
        return rng.standard_normal((n, d))
    if kind == "cauchy":
        return rng.standard_cauchy((n, d))
    if kind == "lognormal":
        return np.exp(5 * rng.standard_normal((n, d)))
    if kind == "uniform":
        return rng.random_sample((n, d))
    if kind == "curve":
        t = rng.random_sample((n, 1))
        return np.sin(2 * np.pi * (2 * t * rng.random_sample((1, d)) + rng.random_sample((1, d))))
    if kind == "integers":
        return rng.randint(-5, 20, (n, d)).astype(float)
    if kind == "binary":
        return rng.randint(0, 2, (n, d)).astype(float)
    if kind == "few values":
        return rng.standard_normal(4)[rng.randint(0, 4, (n, d))]
    if kind == "low rank":
        k = max(1, d // 3)
        return rng.standard_normal((n, k)) @ rng.standard_normal((k, d))
    if kind == "constant":
        return np.full((n, d), float(pick(rng, 0, 1, -3.7, 1e8)))
    if kind == "clusters":
        centres = 10 * rng.standard_normal((3, d))
        return centres[rng.randint(0, 3, n)] + 1e-3 * rng.standard_normal((n, d))
    return rng.standard_normal((n, d)) * (rng.random_sample((n, d)) < 0.05)


KINDS = "normal normal cauchy lognormal uniform curve integers binary few_values low_rank constant"
KINDS = [kind.replace("_", " ") for kind in f"{KINDS} clusters sparse".split()]


def distort(rng, X):
    """Return a table with columns, rows and scales as some tables have them, and their names."""
    n, d = X.shape
    names = []

    def happens(share, name):
        yes = rng.random_sample() < share
        names.extend([name] * yes)
        return yes

    if happens(0.15, "constant column"):
        X[:, rng.randint(d)] = float(pick(rng, 0, 1, 1e6, -1e-6))
    if d > 1 and happens(0.15, "repeated column"):
        X[:, rng.randint(d)] = X[:, rng.randint(d)]
    if d > 2 and happens(0.15, "collinear column"):
        X[:, -1] = X[:, 0] + 2 * X[:, 1]
    if happens(0.15, "repeated rows"):
        X = X[rng.randint(0, max(1, n // 3), n)]
    if happens(0.12, "outlier"):
        X[rng.randint(n), rng.randint(d)] = pick(rng, 1e6, 1e12, -1e6)
    share = rng.random_sample()
    exponents = ((0.25, -12, 12), (0.45, -300, 150), (0.48, -160, -140))
    for edge, low, high in exponents:
        if share < edge:
            scale = 10.0 ** rng.uniform(low, high)
            X, names = X * scale, [*names, f"scale {scale:.0e}"]
            break
    if happens(0.1, "scales of columns"):
        X = X * 10.0 ** rng.uniform(-12, 12, d)
    if happens(0.2, "shift"):
        X = X + float(pick(rng, 1e3, 1e6, -1e6, 1e9, 1e12))
    return X, names


def cast(rng, X):
    """Return a table in some dtype."""
    dtype = pick(rng, *DTYPES)
    if dtype == "f8":
        return X
    if dtype == "?":
        return np.median(X, axis=0) < X
    if dtype in ("f4", "f2"):
        with np.errstate(all="ignore"):
            smaller = X.astype(dtype)
        return smaller if np.isfinite(smaller).all() else X
    low, high = np.iinfo(dtype).min // 2, np.iinfo(dtype).max // 2
    return np.clip(np.round(X), low, high).astype(dtype)


def lay_out(rng, X, folder):
    """Return a table in some container and memory layout."""
    layout = pick(rng, "C", "C", "F", "reversed", "strided", "memmap", "list", "frame")
    if layout == "F":
        return np.asfortranarray(X)
    if layout == "reversed":
        return np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1]
    if layout == "strided":
        return np.repeat(np.repeat(X, 2, axis=0), 2, axis=1)[::2, ::2]
    if layout == "memmap":
        path = os.path.join(folder, "rows.npy")
        np.save(path, X)
        return np.load(path, mmap_mode="r")
    if layout == "list":
        return X.tolist()
    return pd.DataFrame(X, columns=[f"c{j}" for j in range(X.shape[1])]) if layout == "frame" else X


def make_table(rng, folder):
    """Return a table, and a description."""
    n = int(pick(rng, 2, 3, 5, rng.randint(2, 40), rng.randint(10, 60), rng.randint(40, 201), 200))
    d = int(pick(rng, 1, 2, 3, rng.randint(1, 10), rng.randint(1, 41)))
    kind = pick(rng, *KINDS)
    X, names = distort(rng, make_kind(rng, kind, n, d))
    X = cast(rng, X)
    return lay_out(rng, X, folder), {"rows": n, "columns": d, "kind": kind, "with": names}


def make_parameters(rng, name, X):
    """Return parameters of an estimator that are valid by themselves."""
    values = np.asarray(X, dtype=float)
    d = values.shape[1]
    p = {
        "max_iter": int(pick(rng, 1, 2, 3, 5)),
        "n_layers": int(pick(rng, 1, 2, 3, 4, 8)),
        "hidden_layer_sizes": pick(rng, *SIZES),
        "random_state": int(rng.randint(1000)),
    }

    def sometimes(share, key, *choices):
        if rng.random_sample() < share:
            p[key] = pick(rng, *choices)

    sometimes(0.6, "n_components", int(rng.randint(1, d + 1)))
    sometimes(0.2, "batch_size", 1, 2, 3, 7, 32, 1000)
    sometimes(0.2, "learning_rate_init", 1e-6, 1e-2, 0.1, 1.0)
    sometimes(0.2, "early_stopping", True, False)
    sometimes(0.1, "validation_fraction", 0.01, 0.5, 0.9, 0.99)
    sometimes(0.15, "n_init", 2)
    sometimes(0.15, "dequantize", True)
    sometimes(0.15, "warm_start", True)
    sometimes(0.1, "weight_decay", 0.0, 1.0, 10.0)
    sometimes(0.1, "noise_floor", 1e-6, 0.01, 0.1)
    low, high = values.min(), values.max()
    width = high - low
    if low < high:
        sometimes(
            0.12,
            "bounded",
            (low, high),
            (low - 0.1 * width, high + 0.1 * width),
            (low, high + width),
        )
    if d % 2 == 0:
        sometimes(0.1, "image_shape", (1, 2, d // 2), (2, 1, d // 2), (d, 1, 1))
    flows = ["affine", "additive"]
    if name == "ManifoldPriorFlow":
        p |= {"flow": pick(rng, *flows), "recipe": pick(rng, "default", "default", "paper")}
        p |= {"marginals": pick(rng, "spline", "normal"), "isometry": pick(rng, 0.0, 0.1, 10.0)}
    elif name == "NoisyInjectiveFlow":
        p |= {"flow": pick(rng, "spline", "spline", "autoregressive", *flows)}
        p |= {"noise_covariance": pick(rng, "spherical", "diag")}
        p |= {"reconstruction": pick(rng, 0.0, 0.0, 0.1, 1.0)}
        if rng.random_sample() < 0.25:
            p |= {"objective": "elbo", "n_latent_layers": int(pick(rng, 0, 1, 2))}
            p |= {"n_importance_samples": int(pick(rng, 1, 2, 8, 32))}
        if d > 1 and rng.random_sample() < 0.12:
            p |= {"objective": "elbo", "injection": "coupling"}
            p |= {"n_components": int(rng.randint(2, d + 1))}
    elif name == "ChartAtlasFlow":
        p |= {"flow": pick(rng, "autoregressive", "spline", *flows)}
        p |= {"chart_map": pick(rng, "ambient", "ambient", "ambient", "conformal")}
        p |= {"quantizer": pick(rng, "vq-ae", "kmeans"), "overlap": pick(rng, 0.0, 0.1, 1.0)}
        p |= {"objective": pick(rng, "sum", "sampled")}
        sometimes(0.6, "n_charts", 1, 2, 3, 8, 20)
        sometimes(0.2, "n_neighbors_charts", 1, 2, 5, 50)
    else:
        p |= {"flow": pick(rng, "spline", *flows), "n_stages": int(pick(rng, 1, 2, 2, 3))}
        p |= {"penalty": pick(rng, "huber", "laplace", "gaussian")}
        p |= {"reconstruction": pick(rng, 1.0, 1.0, 0.0, 10.0)}
        if p.get("n_components", 1) > 1 and rng.random_sample() < 0.25:
            first = int(rng.randint(1, p["n_components"] + 1))
            p["stage_components"] = (first, int(rng.randint(1, first + 1)))
    return p


def call_everything(model, X):
    """Yield the results of every method by name."""
    yield "score_samples", model.score_samples(X)
    Z = model.transform(X)
    yield "transform", Z
    yield "inverse_transform", model.inverse_transform(Z)
    yield "reconstruct", model.reconstruct(X)
    drawn = model.sample(30, random_state=0)
    yield "sample", drawn
    yield "score_samples of samples", model.score_samples(drawn)
    dimension = model.local_dimension(X)
    yield "local_dimension", dimension
    assert 1 <= dimension.min() <= dimension.max() <= model.n_features_in_
    assert 1 <= model.intrinsic_dimension_ <= model.n_features_in_
    for name in ("score_samples_manifold", "posterior_mean", "predict_proba", "expected_latent"):
        if hasattr(model, name):
            yield name, getattr(model, name)(X)
    if hasattr(model, "sample_latent"):
        yield "sample_latent", model.sample_latent(X, 2, random_state=0)
    if hasattr(model, "chart_transform"):
        coordinates, charts = model.chart_transform(X)
        yield "chart_transform", coordinates
        yield "chart_inverse_transform", model.chart_inverse_transform(coordinates, charts)
        yield "latent_samples", model.latent_samples(X, random_state=0)
    for name, value in vars(model).items():
        if name.endswith("_") and isinstance(value, (np.ndarray, float)) and name[-3:] != "in_":
            yield name, np.asarray(value, dtype=float)


def is_clear(error):
    """Tell whether an error was raised on purpose, by this library or scikit-learn."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    on_purpose = "raise" in (last.line or "")
    ours = "skmanifoldflow" in last.filename or "sklearn" in last.filename
    kinds = isinstance(error, (ValueError, TypeError)) and not isinstance(
        error, np.linalg.LinAlgError
    )
    return on_purpose and ours and kinds


def run_case(name, seed, folder):
    """Return how a case ended, what is to be said of it, and what it was."""
    rng = np.random.RandomState(seed)
    X, about = make_table(rng, folder)
    parameters = make_parameters(rng, name, X)
    about["parameters"] = parameters
    known = []
    if "bounded" in parameters:
        known.append("bounded")
    if about["rows"] <= about["columns"]:
        known.append("few rows")
    if "outlier" in about["with"] or about["kind"] in ("cauchy", "lognormal", "sparse"):
        known.append("outlier")
    about["known"] = known
    try:
        model = getattr(skmanifoldflow, name)(**parameters).fit(X)
        if parameters.get("warm_start"):
            model.fit(X)
        for tag, value in call_everything(model, X):
            if not np.isfinite(value).all():
                return "bad", tag, about
    except FloatingPointError as error:
        return "gave up", str(error), about
    except Exception as error:
        return "clear" if is_clear(error) else "bare", f"{type(error).__name__}: {error}", about
    return "finite", "", about


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=ESTIMATORS)
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 200), metavar=("FIRST", "LAST"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.estimators:
            counts = collections.Counter()
            for seed in range(*args.seeds):
                outcome, text, about = run_case(name, seed, folder)
                counts[outcome] += 1
                if outcome not in ("finite", "clear"):
                    print(f"{name} seed {seed}: {outcome}: {text[:200]}\n    {about}", flush=True)
            print(f"{name}: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
