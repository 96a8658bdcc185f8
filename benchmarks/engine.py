"""Two versions of the backend side by side: time, likelihood, and searches in a stack.

    python benchmarks/engine.py steps --before DIR     # a training step, 12 shapes
    python benchmarks/engine.py fits --before DIR      # fits, scores, samples and a search
    python benchmarks/engine.py nats --before DIR      # held-out likelihood of default fits
    python benchmarks/engine.py stacked                # StackedSearchCV against GridSearchCV

DIR is the root of a checkout; ``--after DIR`` names the other one, which is else that of this
script. Each version runs in a process of its own, at one thread. Times are CPU times. In a round
both versions do the same thing one after the other, and the next round has the other order; every
few rounds both processes are new ones. Ratios are medians over the rounds of after / before within
a round, with their quartiles: below 1 the later version is the faster one.
"""

import argparse
import contextlib
import gc
import io
import json
import math
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from _workers import VERSIONS, Worker, WorkerError, add_versions, fingerprint, progress, serve

# The package is imported in the workers only, each of which has the version of its tree.

LAYERS, UNITS = 8, (64, 64)
KINDS, BATCHES, DIMS = ("affine", "spline"), (128, 1024), (2, 8, 64)

N_ROWS, N_INFERRED, N_SEARCHED = 5000, 20_000, 500
#: Estimator, rows, and parameters of the fits that are timed. There are fewer epochs than by
#: default, and as many in every version: rounding may move an early stop.
FITS = {
    "NoisyInjectiveFlow, S-curve": {"n_components": 2, "max_iter": 25},
    "ManifoldPriorFlow, S-curve": {"n_components": 2, "max_iter": 15},
    "ChartAtlasFlow, S-curve": {"n_components": 2, "max_iter": 5},
    "JointManifoldFlow, S-curve": {"n_components": 2, "max_iter": 10},
    "NoisyInjectiveFlow, digits": {"n_components": 8, "max_iter": 10},
    "ManifoldPriorFlow, digits": {"n_components": 8, "max_iter": 15},
}
SEARCH = {"learning_rate_init": [2e-3, 5e-3], "weight_decay": [0.0, 0.1]}

TOYS = ("SinCurve", "SCurve", "SwissRoll", "Torus", "TwoSpheres")
TABLES = ("iris", "wine", "breast_cancer", "diabetes", "digits")
ESTIMATORS = ("NoisyInjectiveFlow", "ManifoldPriorFlow")
OTHER_ESTIMATORS = ("ChartAtlasFlow", "JointManifoldFlow")

#: What the candidates of a random search differ in, and what they have in common.
CHOICES = {
    "n_components": [1, 2, None],
    "flow": ["spline", "spline", "affine", "affine", "additive", "autoregressive"],
    "n_layers": [1, 2, 3, 4],
    "hidden_layer_sizes": [(8,), (16,), (8, 8), (16, 16)],
    "noise_covariance": ["spherical", "diag"],
    "objective": ["likelihood", "likelihood", "elbo"],
    # A fit with a flow as the prior is trained alone.
    "n_latent_layers": [*9 * [0], 2],
    "reconstruction": [0.0, 0.0, 0.5],
    "noise_start": [None, 0.05, 0.3],
    "noise_floor": [1e-3, 1e-2],
    "batch_size": ["auto", 32, 50],
    "learning_rate_init": [1e-3, 2e-3, 5e-3, 1e-2, 2e-2],
    "weight_decay": [0.0, 1e-2, 0.1],
    "early_stopping": ["auto", True, False],
    "n_iter_no_change": [2, 5, 20],
    "tol": [1e-4, 1e-2],
    "random_state": [0, 1, 2],
    "max_iter": [4, 10, 20, 40],
}
#: Fits that differ in these only are trained as one stack; they are drawn more often.
STACKABLE = (
    "learning_rate_init",
    "weight_decay",
    "noise_start",
    "n_iter_no_change",
    "tol",
    "random_state",
)


# What a worker does


def step_turn(kind, n_features, batch_size):
    """Return a function that trains a flow for a number of steps and returns their mean loss."""
    import torch

    from skmanifoldflow.backend.architectures import density_flow
    from skmanifoldflow.backend.bijections import Chain, MarginalSpline
    from skmanifoldflow.backend.device import make_generator
    from skmanifoldflow.backend.flow import ManifoldFlow
    from skmanifoldflow.backend.training import train

    try:
        from skmanifoldflow._noisy_injective.distribution import NoisyInjection
        from skmanifoldflow._noisy_injective.injections import LinearInjection
        from skmanifoldflow._noisy_injective.objective import InjectionLikelihood
        from skmanifoldflow.backend.training_job import TrainingSettings

        initialize, move_to = MarginalSpline.initialize, ManifoldFlow.move_to
    except ModuleNotFoundError:
        # Where versions before a folder for each method had them.
        from skmanifoldflow.backend.latents import LinearInjection, NoisyInjection
        from skmanifoldflow.backend.objectives import InjectionLikelihood
        from skmanifoldflow.backend.training import TrainingSettings

        initialize, move_to = MarginalSpline.start, ManifoldFlow.place

    try:
        from skmanifoldflow.backend.rows import TrainingRows
    except ModuleNotFoundError:
        TrainingRows = None

    class Unjudged(InjectionLikelihood):
        """An objective of which nothing is computed but the steps."""

        def log_likelihood(self, rows):
            return torch.zeros(len(rows))

    bijection = density_flow(kind, n_features, LAYERS, UNITS, generator=make_generator(0))
    if kind == "spline":
        spline = MarginalSpline(n_features, 16)
        initialize(spline, torch.randn(2000, n_features, generator=make_generator(1)))
        bijection = Chain([spline, bijection])
    injection = LinearInjection(
        n_features, min(2, n_features - 1), noise_covariance="spherical", noise_floor=0.01
    )
    flow = ManifoldFlow(bijection, NoisyInjection(injection))
    move_to(flow, torch.device("cpu"), torch.float32)
    objective = Unjudged(
        flow,
        objective="likelihood",
        noise_start=0.1,
        noise_floor=0.01,
        reconstruction=0.0,
        pca_error=1.0,
        n_rows=N_ROWS,
        generator=make_generator(2),
    )
    # Layers start as identity maps, with zeros in their networks.
    generator = make_generator(3)
    with torch.no_grad():
        for _, p in sorted(objective.named_parameters()):
            p.add_(0.05 * torch.randn(p.shape, generator=generator).to(p))
    all_rows = {}

    def turn(n_steps):
        if n_steps not in all_rows:
            shape = (n_steps * batch_size, n_features)
            all_rows[n_steps] = torch.randn(shape, generator=make_generator(4))
        rows = all_rows[n_steps]
        settings = TrainingSettings(
            max_iter=1,
            max_steps=n_steps,
            batch_size=batch_size,
            learning_rate=1e-3,
            weight_decay=0.1,
            n_iter_no_change=1,
            tol=0.0,
            averaging=InjectionLikelihood.averaging,
        )
        objective.generator = make_generator(5)
        trained = TrainingRows.of(rows) if TrainingRows else lambda: rows
        report = train(objective, trained, None, settings, make_generator(6))
        if report.n_steps != n_steps or report.n_skipped:
            raise RuntimeError(f"{report.n_steps} steps, {report.n_skipped} of them skipped")
        return report.loss_curve[0]

    return turn


def build_steps():
    """Return the turns of all shapes by their names."""
    return {
        f"{kind:6}  batch {batch_size:4}  D {n_features:2}": step_turn(kind, n_features, batch_size)
        for kind in KINDS
        for batch_size in BATCHES
        for n_features in DIMS
    }


def fit_turns(name):
    """Return the turns of one fit and of what the fitted model is used for."""
    from sklearn.datasets import load_digits

    import skmanifoldflow
    from skmanifoldflow.datasets import SCurve

    estimator, rows = name.split(", ")
    if rows == "digits":
        X = load_digits(return_X_y=True)[0]
        rng = np.random.RandomState(0)
        test = X[rng.randint(len(X), size=N_INFERRED)] + rng.random_sample((N_INFERRED, X.shape[1]))
        X = X + rng.random_sample(X.shape)
    else:
        X, test = (
            SCurve(noise=0.05).sample(n, random_state=k)[0]
            for k, n in enumerate((N_ROWS, N_INFERRED))
        )
    parameters = FITS[name]
    model = getattr(skmanifoldflow, estimator)(
        **parameters, n_iter_no_change=parameters["max_iter"], random_state=0
    )

    def fitted():
        return model if hasattr(model, "n_features_in_") else model.fit(X)

    def fit(n_calls):
        for _ in range(n_calls):
            model.fit(X)
        return model.loss_curve_[-1]

    def score(n_calls):
        for _ in range(n_calls):
            scores = fitted().score_samples(test)
        return float(scores.mean())

    def sample(n_calls):
        for k in range(n_calls):
            drawn = fitted().sample(N_INFERRED, random_state=k)
        return float(np.asarray(drawn).mean())

    return {f"fit            {name}": fit} | {
        f"{what:14} {name}": turn for what, turn in (("score_samples", score), ("sample", sample))
    }


def search_turn(n_calls):
    """Search over 4 candidates and 5 folds; return the best mean score."""
    from skmanifoldflow import NoisyInjectiveFlow
    from skmanifoldflow.datasets import SCurve
    from skmanifoldflow.model_selection import StackedSearchCV

    X, _ = SCurve(noise=0.05).sample(N_SEARCHED, random_state=0)
    flow = NoisyInjectiveFlow(2, max_iter=20, n_iter_no_change=20, random_state=0)
    for _ in range(n_calls):
        search = StackedSearchCV(flow, SEARCH, cv=5, refit=False).fit(X)
    return float(search.best_score_)


def build_fits():
    """Return the turns of fits, of their use and of a search by their names."""
    turns = {}
    for name in FITS:
        turns |= fit_turns(name)
    turns["search         StackedSearchCV, 4 x 5 fits"] = search_turn
    return turns


def columns_of(table):
    """Return the rows of a table of scikit-learn, of which digits have 4 x 4 pixels.

    What a column is rounded to is filled up with uniform noise: the density has no atoms.
    """
    import sklearn.datasets

    X = getattr(sklearn.datasets, f"load_{table}")(return_X_y=True)[0]
    if table == "digits":
        X = X.reshape(-1, 4, 2, 4, 2).sum(axis=(2, 4)).reshape(len(X), 16)
    steps = [np.diff(np.unique(column)).min() for column in X.T]
    return X + steps * np.random.RandomState(0).random_sample(X.shape)


def split(name, seed):
    """Return 1000 rows of a toy and 5000 fresh ones, or four fifths of a table and the rest."""
    import skmanifoldflow.datasets

    if name in TOYS:
        distribution = getattr(skmanifoldflow.datasets, name)(noise=0.05)
        return (
            distribution.sample(n, random_state=k)[0]
            for n, k in ((1000, seed), (5000, 1000 + seed))
        )
    X = columns_of(name)
    order = np.random.RandomState(seed).permutation(len(X))
    n_test = round(0.2 * len(X))
    return X[order[n_test:]], X[order[:n_test]]


def held_out(estimator, name, seed):
    """Return the mean log-likelihood of held-out rows under a default fit."""
    import skmanifoldflow

    X, test = split(name, seed)
    model = getattr(skmanifoldflow, estimator)(random_state=seed).fit(X)
    return float(model.score(test))


def random_search(seed):
    """Return a toy, rows, an estimator, what candidates differ in, these, and how many folds."""
    import skmanifoldflow.datasets

    rng = np.random.RandomState(seed)

    def drawn(values):
        return values[rng.randint(len(values))]

    toy = drawn(TOYS)
    n_rows = int(rng.randint(150, 401))
    X, _ = getattr(skmanifoldflow.datasets, toy)(noise=0.05).sample(n_rows, random_state=seed)
    parameters = {name: drawn(values) for name, values in CHOICES.items()}
    names = [name for name in CHOICES if rng.random_sample() < (0.4 if name in STACKABLE else 0.1)]
    names = names or ["learning_rate_init"]
    n_candidates, candidates = int(rng.randint(2, 4)), []
    while len(candidates) < 2:
        drawn_ones = [{name: drawn(CHOICES[name]) for name in names} for _ in range(n_candidates)]
        candidates = [c for k, c in enumerate(drawn_ones) if c not in drawn_ones[:k]]
    # There is no closed form of the likelihood with a flow as the prior.
    for candidate in candidates:
        if {**parameters, **candidate}["n_latent_layers"]:
            candidate["objective"] = "elbo"
    flow = skmanifoldflow.NoisyInjectiveFlow(**parameters)
    return toy, X, flow, names, candidates, drawn([2, 3])


def compare_searches(seed):
    """Run a random search in a stack and one by one, and return how their scores differ."""
    from sklearn.model_selection import GridSearchCV

    from skmanifoldflow.model_selection import StackedSearchCV

    toy, X, flow, names, candidates, n_folds = random_search(seed)
    grid = [{name: [value] for name, value in c.items()} for c in candidates]
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        searches = [
            Search(flow, grid, cv=n_folds, refit=False, verbose=1).fit(X)
            for Search in (StackedSearchCV, GridSearchCV)
        ]
    ours, theirs = (
        np.array([s.cv_results_[f"split{k}_test_score"] for k in range(n_folds)]) for s in searches
    )
    # A candidate that fails has a score that is not a number.
    is_equal = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    reasons = [line for line in told.getvalue().splitlines() if "not stacked" in line]
    return {
        "label": f"{toy}, {len(X)} rows, {flow.flow}, {len(candidates)} x {n_folds}",
        "varied": names,
        "difference": float(np.where(is_equal, 0.0, np.abs(ours - theirs)).max()),
        "is_equal": bool(is_equal.all()),
        "is_best_same": searches[0].best_params_ == searches[1].best_params_,
        "note": "; ".join(reasons),
    }


def timed(turn, n):
    """Return the CPU seconds of a turn and what it returned."""
    gc.collect()
    start = time.process_time()
    value = turn(n)
    return {"seconds": time.process_time() - start, "value": value}


def work():
    """Answer requests."""
    turns = {}

    def build(what):
        turns.update({"steps": build_steps, "fits": build_fits}[what]())
        return list(turns)

    serve(
        {
            "build": build,
            "time": lambda name, n: timed(turns[name], n),
            "held_out": held_out,
            "compare_searches": compare_searches,
        }
    )


# What the script itself does


def start_pair(what, args, n_calls):
    """Start a process for each version and warm it up; return both processes.

    How many calls a turn has is found out by the first pair, and added to `n_calls`.
    """
    workers = {label: Worker(getattr(args, label)) for label in VERSIONS}
    for worker in workers.values():
        names = worker.ask("build", what)
    least = 5 if what == "steps" else 1
    for name in names:
        if args.only and not any(word in name for word in args.only):
            continue
        progress(f"warm-up: {name}")
        if name not in n_calls:
            firsts = [worker.ask("time", name, least) for worker in workers.values()]
            first = firsts[0]
            if first["seconds"] < args.slice:
                first = workers[VERSIONS[0]].ask("time", name, least)
            n_calls[name] = math.ceil(least * max(1.0, args.slice / first["seconds"]))
            if n_calls[name] == least:
                continue
        for worker in workers.values():
            worker.ask("time", name, n_calls[name])
    return workers


def timed_rounds(what, args, seconds, values):
    """Time all turns in both versions, round by round.

    Add the seconds of a call before and after to `seconds`, by the name of the turn, and what the
    last turns returned to `values`.
    """
    n_calls, workers = {}, {}
    # Where the memory of a process lies makes it faster or slower for as long as it lives.
    n_rounds = -(-args.rounds // args.processes)
    for i in range(args.rounds):
        if i % n_rounds == 0:
            for worker in workers.values():
                worker.end()
            workers = start_pair(what, args, n_calls)
        for name, n in n_calls.items():
            progress(f"round {i + 1} of {args.rounds}: {name}")
            order = VERSIONS if i % 2 == 0 else VERSIONS[::-1]
            replies = {label: workers[label].ask("time", name, n) for label in order}
            pair = [replies[label]["seconds"] / n for label in VERSIONS]
            seconds.setdefault(name, []).append(pair)
            values[name] = [replies[label]["value"] for label in VERSIONS]
    for worker in workers.values():
        worker.end()


def compare_times(what, args, unit):
    """Print a table of times and ratios; after Ctrl-C, of the rounds until then."""
    seconds, values = {}, {}
    with contextlib.suppress(KeyboardInterrupt):
        timed_rounds(what, args, seconds, values)
    if not seconds:
        raise SystemExit("Nothing was timed.")
    names = list(seconds)
    progress("")
    progress("\r")
    factor = {"ms": 1e3, "s": 1.0}[unit]
    width = max(map(len, names))
    print(f"{what:{width}} {'before':>9} {'after':>9}  ratio (quartiles)     value differs by")
    ratios = []
    for name in names:
        before, after = np.transpose(seconds[name])
        low, middle, high = np.percentile(after / before, (25, 50, 75))
        ratios.append(middle)
        difference = values[name][1] - values[name][0]
        print(
            f"{name:{width}} {factor * np.median(before):6.3f} {unit:2} "
            f"{factor * np.median(after):6.3f} {unit:2}  {middle:.3f} ({low:.3f} to {high:.3f})"
            f"  {difference:9.1e}"
        )
    groups = list(dict.fromkeys(name.split()[0] for name in names))
    for group in groups if len(groups) > 1 else []:
        of_group = [r for name, r in zip(names, ratios, strict=True) if name.split()[0] == group]
        print(f"mean of {len(of_group):2} ratios, {group:14} {np.mean(of_group):.3f}")
    print(f"mean of {len(ratios):2} ratios {'':15} {np.mean(ratios):.3f}")


def steps(args):
    """Time of a training step of affine and spline chains, 12 shapes."""
    compare_times("steps", args, "ms")


def fits(args):
    """Time of fits, scores, samples and a search."""
    compare_times("fits", args, "s")


class Results:
    """Figures by version, estimator, set and seed, in a file that is written after each.

    A version is known by its sources: figures of another one are kept but not used.
    """

    def __init__(self, path):
        self.path = path
        self.figures = json.loads(path.read_text()) if path and path.exists() else {}
        self.lock = threading.Lock()

    def __contains__(self, key):
        return "/".join(map(str, key)) in self.figures

    def __getitem__(self, key):
        value = self.figures.get("/".join(map(str, key)))
        return math.nan if value is None else value

    def add(self, key, value):
        with self.lock:
            self.figures["/".join(map(str, key))] = value
            if self.path:
                temporary = self.path.with_name(self.path.name + ".part")
                temporary.write_text(json.dumps(self.figures, indent=0))
                temporary.replace(self.path)


def nats(args):
    """Held-out log-likelihood of default fits in both versions."""
    estimators = args.estimators or ESTIMATORS + (OTHER_ESTIMATORS if args.all else ())
    results = Results(args.out)
    trees = (args.before, args.after)
    versions = [fingerprint(tree) for tree in trees]
    own, all_workers = threading.local(), []

    def run(seed, estimator, name):
        for tree, version in zip(trees, versions, strict=True):
            key = (version, estimator, name, seed)
            if key in results:
                continue
            if not hasattr(own, "workers"):
                own.workers = {}
            if tree not in own.workers:
                own.workers[tree] = Worker(tree)
                all_workers.append(own.workers[tree])
            try:
                value = own.workers[tree].ask("held_out", estimator, name, seed)
            except WorkerError as error:
                print(f"{estimator}, {name}, seed {seed}, {tree}:\n{error}", file=sys.stderr)
                value = None
            results.add(key, value)

    jobs = [
        (seed, estimator, name)
        for seed in range(args.seeds)
        for estimator in estimators
        for name in args.sets
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(run, *job) for job in jobs]
        try:
            for i, future in enumerate(as_completed(futures)):
                future.result()
                progress(f"{i + 1} of {len(jobs)}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    progress("")
    progress("\r")
    for worker in all_workers:
        worker.end()
    print("nats per held-out row               before      after  after - before (s.e.)")
    n_worse = n_pairs = 0
    for estimator in estimators:
        differences = []
        for name in args.sets:
            before, after = (
                np.array([results[version, estimator, name, k] for k in range(args.seeds)])
                for version in versions
            )
            difference = after - before
            error = difference.std(ddof=1) / math.sqrt(len(difference)) if args.seeds > 1 else 0.0
            differences.append(difference.mean())
            # What failed is not a number, and worse than any.
            is_worse = not difference.mean() >= -2 * error
            n_worse += is_worse
            n_pairs += 1
            print(
                f"{estimator:20} {name:13} {before.mean():8.3f}   {after.mean():8.3f}  "
                f"{difference.mean():+8.4f} ({error:.4f}){'  WORSE' if is_worse else ''}"
            )
        print(f"{estimator:20} {'mean':13} {'':8}   {'':8}  {np.mean(differences):+8.4f}")
    print(f"worse by more than 2 standard errors: {n_worse} of {n_pairs}")


def stacked(args):
    """Random searches by StackedSearchCV and by GridSearchCV."""
    for tree in filter(None, (args.before, args.after)):
        print(tree)
        worker = Worker(tree)
        replies = []
        for seed in range(args.seed, args.seed + args.grids):
            reply = worker.ask("compare_searches", seed)
            replies.append(reply)
            print(
                f"{seed:3} {reply['label']:45} {reply['difference']:8.1e} "
                f"{'equal' if reply['is_equal'] else '     '} "
                f"{'same best ' if reply['is_best_same'] else 'OTHER BEST'} "
                f"{', '.join(reply['varied'])} {reply['note']}".rstrip(),
                flush=True,
            )
        worker.end()
        n_equal, n_best = (sum(r[key] for r in replies) for key in ("is_equal", "is_best_same"))
        print(
            f"{len(replies)} searches: largest difference "
            f"{max(r['difference'] for r in replies):.1e}, bit-equal {n_equal}, "
            f"same best candidate {n_best}, not stacked {sum(bool(r['note']) for r in replies)}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    for run in (steps, fits, nats, stacked):
        command = commands.add_parser(run.__name__, help=run.__doc__.splitlines()[0])
        command.set_defaults(run=run)
        add_versions(command, required=run is not stacked)
        if run in (steps, fits):
            command.add_argument("--rounds", type=int, default=9, help="number of rounds")
            command.add_argument("--slice", type=float, help="least seconds of a turn")
            command.set_defaults(slice=0.3 if run is steps else 0.6)
            command.add_argument(
                "--processes", type=int, default=3, help="pairs of processes that share the rounds"
            )
            command.add_argument("--only", nargs="+", help="parts of the names of what is timed")
        if run is nats:
            command.add_argument("--all", action="store_true", help="all four estimators")
            command.add_argument("--estimators", nargs="+", help="these only")
            command.add_argument("--sets", nargs="+", default=TOYS + TABLES, help="these only")
            command.add_argument("--seeds", type=int, default=5, help="number of seeds")
            command.add_argument("--jobs", type=int, default=2, help="fits at a time")
            command.add_argument("--out", type=Path, help="JSON file to write to and resume from")
        if run is stacked:
            command.add_argument("--grids", type=int, default=20, help="number of searches")
            command.add_argument("--seed", type=int, default=0, help="seed of the first")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        work()
    else:
        main()
