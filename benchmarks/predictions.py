"""Do fits of two versions of the package give the same predictions, bit for bit?

    python benchmarks/predictions.py --before DIR [--after DIR] [--only TEXT ...]

DIR is the root of a checkout; ``--after`` is by default that of this script, and ``--only`` takes
the cases that have one of the texts in their names. Each version runs in a process of its own, at
one thread, and fits the same short cases: all four estimators on a table, on small images and on
special rows, with parameters that change what is computed, each on float32 and float64 rows.
Densities, coordinates, reconstructions, samples and what else an estimator predicts for fresh rows,
and fitted attributes that are numbers, are compared by the SHA-256 of their bytes, dtype and shape;
what raises an exception, by its type and message.

There is a line for each case: "same" and the beginning of the digest of all its results, or which
results differ, with the largest absolute difference. The exit status is 1 if any do. Training
amplifies rounding: a large difference after some epochs may come from a sum in another order.
"""

import argparse
import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.model_selection import ParameterGrid

# The package is imported in the workers only, each of which has the version of its tree.

N_ROWS, N_FRESH = 300, 40
FIT = {"max_iter": 10, "random_state": 0}
IMAGES = {"image_shape": (1, 8, 8), "dequantize": True}
IMAGES |= {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 3}
#: Grids of parameters by kind of rows, of every estimator and of one. With the constant column of a
#: table short fits often keep the weights of their start: variants are fitted to a sheet instead.
COMMON = {
    "table": [{"n_components": [None, 2]}],
    "sheet": [{"n_components": [None]}, {"warm_start": [True]}, {"early_stopping": [False]}],
    "unit cube": [{"bounded": [(0.0, 1.0)]}],
    "30 rows": [{}],
    "one column": [{}],
    "images": [{"n_components": [8]}],
}
OWN = {
    "ManifoldPriorFlow": {
        "sheet": [
            {"flow": ["additive"]},
            {"n_components": [None, 2], "recipe": ["paper"]},
            {"n_components": [None, 2], "marginals": ["normal"]},
        ],
        "images": [{}],
    },
    "NoisyInjectiveFlow": {
        "sheet": [
            {"n_components": [2], "flow": ["affine", "additive", "autoregressive"]},
            {"n_components": [2], "objective": ["elbo"], "injection": ["linear", "coupling"]},
            {"n_components": [2], "objective": ["elbo"], "n_latent_layers": [2]},
            {"n_components": [2], "reconstruction": [0.1]},
            {"n_components": [2], "noise_covariance": ["diag"]},
            {"n_components": [2], "n_init": [2]},
            {"n_components": [4]},
        ],
        "images": [
            {"injection": ["upsampling"]},
            {"injection": ["upsampling"], "objective": ["elbo"], "n_latent_layers": [2]},
        ],
    },
    "ChartAtlasFlow": {
        "sheet": [
            {"n_charts": [6], "flow": ["autoregressive", "spline"]},
            {"n_charts": [6], "quantizer": ["kmeans"]},
            {"n_charts": [None, 6], "chart_map": ["conformal"]},
            {"n_charts": [None, 6], "objective": ["sampled"]},
        ],
        "images": [{"quantizer": ["kmeans"]}],
    },
    "JointManifoldFlow": {
        "sheet": [
            {"n_components": [3], "stage_components": [(2, 1)]},
            {"n_components": [2], "n_stages": [1]},
            {"n_components": [2], "flow": ["spline", "additive"]},
            {"n_components": [2], "penalty": ["laplace", "gaussian"]},
            {"n_components": [4]},
        ],
        "images": [{"n_components": [16], "split": ["channel"], "stage_components": [None, (4,)]}],
    },
}
#: What a parameter stands for in versions that do not have it.
FORMERLY = {"recipe": {"spread": "latent", "prior_update": "gradient"}}
#: Methods of rows, and of rows and a seed.
OF_ROWS = ("score_samples", "transform", "reconstruct", "local_dimension")
OF_ROWS += ("score_samples_manifold", "posterior_mean", "predict_proba", "expected_latent")
DRAWING = ("sample_latent", "latent_samples")


def all_cases(only):
    """Return estimator, kind of rows, dtype and parameters of the cases by their names."""
    cases = {}
    for estimator, own in OWN.items():
        for kind, common in COMMON.items():
            for parameters in ParameterGrid(common + own.get(kind, [])):
                values = [f"{name}={value!r}" for name, value in parameters.items()]
                for dtype in ("float32", "float64"):
                    name = ", ".join([estimator, kind, dtype, *values])
                    if not only or any(text in name for text in only):
                        cases[name] = estimator, kind, dtype, parameters
    return cases


# What a worker does


def rows_of(kind, dtype):
    """Return rows to fit and fresh ones."""
    if kind == "images":
        from sklearn.datasets import load_digits

        X = load_digits(return_X_y=True)[0][: N_ROWS + N_FRESH]
        # A model of dequantised rows is asked about the middles of their steps.
        X[N_ROWS:] += 0.5
    else:
        from skmanifoldflow.datasets import SCurve

        curved = SCurve(noise=0.05).sample(N_ROWS + N_FRESH, random_state=0)[0]
        if kind == "one column":
            X = curved[:, :1]
        elif kind == "unit cube":
            X = 1 / (1 + np.exp(-curved))
        else:
            noise = 0.1 * np.random.RandomState(0).standard_normal(len(curved))
            other = 1000 + 300 * (curved[:, 0] * curved[:, 1] + noise)
            X = np.column_stack([curved, other, *[np.full(len(curved), 3.0)] * (kind == "table")])
    X = X.astype(dtype)
    return X[: 30 if kind == "30 rows" else N_ROWS], X[N_ROWS:]


def predictions(model, X):
    """Yield the names of what a model predicts of rows X, with functions that return it."""
    for name in filter(partial(hasattr, model), OF_ROWS):
        yield name, partial(getattr(model, name), X)
    for name in filter(partial(hasattr, model), DRAWING):
        yield name, partial(getattr(model, name), X, random_state=0)
    yield "inverse_transform", lambda: model.inverse_transform(model.transform(X))
    yield "sample", partial(model.sample, 20, random_state=0)
    if hasattr(model, "chart_transform"):
        yield "chart_transform", lambda: np.column_stack(model.chart_transform(X))
    for stage in range(1, 1 + len(getattr(model, "stage_components_", ()))):
        for name in ("score_samples", "transform"):
            yield f"{name} of stage {stage}", partial(getattr(model, name), X, stage=stage)


def attempt(call):
    """Return what a function returns, or the type and the message of what it raises."""
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def results_of(estimator, kind, dtype, parameters):
    """Fit a case and return its results by their names: arrays, and texts for exceptions."""
    import skmanifoldflow

    X, fresh = rows_of(kind, dtype)
    results = {"rows": np.concatenate([X, fresh])}

    def fitted():
        given = FIT | (IMAGES if kind == "images" else {}) | parameters
        Estimator = getattr(skmanifoldflow, estimator)
        for name in given.keys() - Estimator._get_param_names():
            given = {k: v for k, v in given.items() if k != name} | FORMERLY[name]
        model = Estimator(**given).fit(X)
        return model.fit(X) if "warm_start" in parameters else model

    model = attempt(fitted)
    if isinstance(model, str):
        return results | {"fit": model}
    results |= {name: attempt(call) for name, call in predictions(model, fresh)}
    for name, value in sorted(vars(model).items()):
        if name.endswith("_") and not name.startswith("_"):
            array = np.asarray(value)
            if array.dtype.kind in "biuf":
                results[name] = array
    return results


def work(tree, path, *only):
    """Write the results of the version in a source tree to a file."""
    sys.path.insert(0, tree)
    warnings.simplefilter("ignore")
    import torch

    import skmanifoldflow

    if not Path(skmanifoldflow.__file__).is_relative_to(tree):
        raise SystemExit(f"{tree} has no package: {skmanifoldflow.__file__} was imported.")
    torch.set_num_threads(1)
    results = {name: results_of(*case) for name, case in all_cases(only).items()}
    Path(path).write_bytes(pickle.dumps(results))


# What the script itself does


def run(tree, folder, only):
    """Return the results of the version in a source tree."""
    path = Path(folder) / "results.pickle"
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", str(tree.resolve()), str(path), *only]
    status = subprocess.run(command, env=environment).returncode
    if status:
        raise SystemExit(f"The worker of {tree} ended with status {status}.")
    return pickle.loads(path.read_bytes())


def digest(result):
    """Return the SHA-256 of a result, with its dtype and shape."""
    array = np.asarray(result)
    head = f"{array.dtype.str} {array.shape} "
    return hashlib.sha256(head.encode() + array.tobytes()).hexdigest()


def difference(before, after):
    """Return in words how two results differ."""
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
        both = ("a result" if isinstance(r, np.ndarray) else r or "none" for r in (before, after))
        return " -> ".join(both)
    if (before.dtype, before.shape) != (after.dtype, after.shape):
        return f"{before.dtype} {before.shape} -> {after.dtype} {after.shape}"
    before, after = np.float64(before), np.float64(after)
    # Infinite values may agree, and so may those that are not numbers.
    is_equal = (before == after) | (np.isnan(before) & np.isnan(after))
    with np.errstate(invalid="ignore"):
        return f"{np.where(is_equal, 0.0, np.abs(before - after)).max(initial=0.0):.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).parents[1]
    parser.add_argument("--before", type=Path, required=True, help="root of a checkout")
    parser.add_argument(
        "--after", type=Path, default=here, help="root of the other, by default that of this script"
    )
    parser.add_argument("--only", nargs="+", default=[], help="parts of the names of cases")
    args = parser.parse_args()
    names = list(all_cases(args.only))
    if not names:
        parser.error("no case has that in its name")
    with tempfile.TemporaryDirectory() as folder:
        before, after = (run(tree, folder, args.only) for tree in (args.before, args.after))
    n_same = 0
    for name in names:
        old, new = before[name], after[name]
        old_digests, new_digests = ({k: digest(v) for k, v in r.items()} for r in (old, new))
        parts = [
            f"{key} ({difference(old.get(key), new.get(key))})"
            for key in old | new
            if old_digests.get(key) != new_digests.get(key)
        ]
        outcome = "differs" if parts else f"same {digest(' '.join(old_digests.values()))[:12]}"
        n_same += not parts
        # What raises in both versions is the same, but no prediction.
        parts = parts or [f"{k} raises {v}" for k, v in old.items() if isinstance(v, str)]
        print("; ".join([f"{name}: {outcome}", *parts]))
    print(f"{n_same} of {len(names)} cases have the same bits")
    return int(n_same < len(names))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        sys.exit(main())
