"""Held-out density against the CPU time of a fit: two versions of the package and other libraries.

    python benchmarks/convergence.py fits --before DIR     # default fits: CPU s and nats
    python benchmarks/convergence.py curves --before DIR   # nats by CPU s, beside other libraries
    python benchmarks/convergence.py large --before DIR    # CPU s to the same nats, 1e5 or 1e6 rows
    python benchmarks/convergence.py images --before DIR   # CPU s and bits per dimension
    python benchmarks/convergence.py others --before DIR   # the other three estimators

DIR is the root of a checkout; ``--after DIR`` names the other one, which is else that of this
script, and ``--set name=value`` sets a parameter of that version alone. Each version runs in a
process of its own, at one thread, and gets the same rows. Times are CPU seconds of `fit` alone; of
each random state both versions are fitted one after the other, and the next has the other order.

Settings are chosen on the tuning sets only, with random states of 100 and above; what is reported
has the states 0, 1 and 2. The larger sets are for a look beyond: of them LetterRecognition has the
rows of the tuning set letter, and spambase and Shuttle are among those reported.

Of a table exact duplicates of rows are dropped, and columns that are constant or linear functions
of those before. A column of which more than half of the rows share their value with another one is
filled up with U[0, step), step being the smallest gap between values. A fifth of the rows, at most
20 000, is the test part; Satellite, Shuttle, LetterRecognition and digits are split and filled up
as in `_data.split_table`. Toys have noise .05, 5000 training rows and 5000 fresh ones. Columns are
standardised by the training rows, and nats are per test row in these units.

The standard error of a difference is the larger of two: over test rows of the paired differences of
a row averaged over the random states, and over the random states of the mean differences.

Images are the first 10 000 of Fashion-MNIST and the official test images, and the flow is the plain
one of `density.py images`; in place of nats stand bits per dimension with a minus sign.

Other libraries train with Adam at their fastest setting on the S-curve. Their curves are the best
value so far on the test rows, in their favour; compilation by JAX, about 7 CPU s, is not counted.

Tables need files: ``--data-dir``, see `_data.py`, and ``pip install rdata``. Other libraries are
``pip install --no-deps nflows==0.14 UMNN zuko==1.6.0`` and ``pip install flowjax``.
"""

import argparse
import functools
import gc
import hashlib
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import sklearn.datasets
from _data import (
    ENVIRONMENT_VARIABLE,
    fill_up,
    load_fashion_mnist,
    load_keel,
    load_table,
    split_table,
)
from _peers import SPLINES, flowjax_training, looks, timed
from _workers import VERSIONS, Worker, WorkerError, add_set, add_versions, fingerprint, serve

# The package is imported in the workers only, each of which has the version of its tree.

TOYS = ("sin_curve", "s_curve", "swiss_roll", "torus", "two_spheres")
SCIKIT_LEARN = ("iris", "wine", "diabetes", "breast_cancer")
KEEL = ("vehicle", "contraceptive", "abalone19", "spambase", "banana", "ring", "magic")
KEEL_TUNING = ("pima", "winequality-red-4", "yeast1", "segment", "twonorm", "penbased", "letter")
#: By their names in `split_table`.
SPLIT = dict(Satellite="satellite", Shuttle="shuttle", LetterRecognition="letter", digits="digits")
SETS = {
    "tuning": (*KEEL_TUNING, "marketing", "s_curve", "torus", "swiss_roll"),
    "reported": (*SCIKIT_LEARN, *KEEL, "shuttle", *TOYS),
    "larger": (*SPLIT, "spambase"),
}
CURVES = ("segment", "penbased", "s_curve", "torus", "magic", "spambase")
#: Sets of the other estimators and their numbers of components; of magic 5000 training rows.
OTHERS = {"s_curve": 2, "torus": 2} | dict.fromkeys(("digits", "vehicle", "diabetes", "magic:5000"))
MAX_TEST_ROWS = 20_000
#: Number of transforms, learning rate and batch size: the fastest to .1 nat of the S-curve.
PEERS = {
    "zuko": (SPLINES["zuko NSF"], (4, 5e-3, 256)),
    "nflows": (SPLINES["nflows RQ-NSF"], (4, 2e-3, 256)),
    "flowjax": (flowjax_training, (4, 5e-3, 256)),
}
#: Colours of Okabe and Ito, which stay apart with the common kinds of colour blindness.
COLORS = dict(
    before="#D55E00", after="#0072B2", zuko="#009E73", nflows="#CC79A7", flowjax="#E69F00"
)


# What a worker does


def generated(n_rows, rng):
    """Ten columns: bananas, mixtures, heavy tails, and noise that depends on other columns."""
    z = rng.standard_normal((n_rows, 10))
    group = rng.randint(3, size=n_rows)
    X = np.empty_like(z)
    X[:, 0] = z[:, 0]
    X[:, 1] = 0.3 * z[:, 1] + 0.5 * X[:, 0] ** 2
    X[:, 2] = 0.3 * z[:, 2] + np.array([-1.5, 0.0, 1.5])[group]
    X[:, 3] = 0.3 * z[:, 3] + np.array([0.0, 2.0, 0.0])[group] + 0.3 * X[:, 1]
    X[:, 4] = rng.standard_t(5, size=n_rows)
    X[:, 5] = np.exp(0.5 * X[:, 0]) * z[:, 5]
    X[:, 6] = 0.2 * z[:, 6] + np.sin(2 * X[:, 3])
    X[:, 7] = 0.2 * z[:, 7] + np.tanh(X[:, 4]) * X[:, 2]
    X[:, 8] = (0.1 + 0.5 * (X[:, 6] > 0)) * z[:, 8] + 0.3 * X[:, 4]
    X[:, 9] = 0.2 * z[:, 9] + np.hypot(X[:, 5], X[:, 7])
    return X


@functools.lru_cache(1)
def table(name):
    """Training and test rows of a table."""
    if name in SPLIT:
        return split_table(SPLIT[name])[1:]
    if name in SCIKIT_LEARN:
        X = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)[0]
    else:
        X = load_table(name) if name == "shuttle" else load_keel(name)
    X = np.unique(X, axis=0)
    X = X[:, np.ptp(X, axis=0) > 0]
    # The diagonal of R is what the columns before leave of each.
    R = np.linalg.qr((X - X.mean(axis=0)) / X.std(axis=0), mode="r")
    X = X[:, np.abs(np.diag(R)) > 1e-5 * math.sqrt(len(X))]
    rng = np.random.RandomState(0)
    fill_up(X, rng)
    order = rng.permutation(len(X))
    n_test = min(round(0.2 * len(X)), MAX_TEST_ROWS)
    return X[order[n_test:]], X[order[:n_test]]


def rows_of(name, state):
    """Standardised training and test rows, and true coordinates of the latter or None.

    A number after a colon is that of the training rows.
    """
    name, _, n_rows = name.partition(":")
    coordinates = None
    if name in TOYS:
        import skmanifoldflow.datasets

        toy = getattr(skmanifoldflow.datasets, name.title().replace("_", ""))(noise=0.05)
        train, _ = toy.sample(5000, random_state=2 * state)
        test, coordinates = toy.sample(5000, random_state=2 * state + 1)
    elif name == "generated":
        X = generated(int(n_rows) + MAX_TEST_ROWS, np.random.RandomState(state))
        train, test = X[MAX_TEST_ROWS:], X[:MAX_TEST_ROWS]
    else:
        train, test = table(name)
        train = train[: int(n_rows or len(train))]
    mean, scale = train.mean(axis=0), train.std(axis=0)
    return (train - mean) / scale, (test - mean) / scale, coordinates


def images_of(state):
    """Integer training images, and test images with U[0, 1) added."""
    train, _, test, _ = load_fashion_mnist()
    noise = np.random.RandomState(state).random_sample(test.shape)
    return train[:10_000].astype(np.float32), (test + noise).astype(np.float32), None


@functools.lru_cache
def warm_up(Estimator):
    """What a process does only once must not count."""
    Estimator(n_components=1, max_iter=2).fit(np.random.RandomState(0).randn(200, 3))


def fitted(estimator, name, state, parameters, is_embedding):
    """Fit an estimator and return its CPU seconds, epochs and what it says of the test rows."""
    import skmanifoldflow

    is_image = name == "Fashion-MNIST"
    train, test, coordinates = images_of(state) if is_image else rows_of(name, state)
    Estimator = getattr(skmanifoldflow, estimator)
    warm_up(Estimator)
    # JSON has no tuples.
    parameters = {key: tuple(p) if isinstance(p, list) else p for key, p in parameters.items()}
    if is_image:
        from density import IMAGE_FLOW, IMAGE_MODELS

        parameters = IMAGE_FLOW | IMAGE_MODELS["plain flow"] | parameters
        # All epochs are run; the best one is kept all the same.
        parameters["n_iter_no_change"] = parameters["max_iter"]
    model = Estimator(random_state=state, **parameters)
    gc.collect()
    _, seconds = timed(model.fit, train)
    scores = model.score_samples(test)
    if is_image:
        scores = scores / (math.log(2) * test.shape[1])
    reply = {
        "rows": hashlib.sha256(train.tobytes() + test.tobytes()).hexdigest()[:16],
        "shape": train.shape,
        "seconds": seconds,
        "epochs": model.n_iter_,
        "scores": scores.round(4).tolist(),
    }
    if is_embedding:
        from manifold_prior import affine_r2

        reply["error"] = float(np.mean((test - model.reconstruct(test)) ** 2))
        if coordinates is not None:
            reply["r2"] = affine_r2(model.transform(test), coordinates)
    return reply


def peer_curve(library, name, state, limit):
    """CPU seconds, steps and mean log-density of test rows while another library trains."""
    train, test, _ = rows_of(name, state)
    start, settings = PEERS[library]
    return list(looks(start, train, test, settings, state, limit, every=20, growth=0.2))


# What the script itself does


class Versions:
    """A process for each version, and what was asked of them until now.

    Questions and replies are kept in a file of JSON lines if one is named, and read from there
    the next time. A version is known by its sources.
    """

    def __init__(self, args):
        self.args, self.workers, self.replies = args, {}, {}
        self.fingerprints = [fingerprint(getattr(args, label)) for label in VERSIONS]
        if args.out and args.out.exists():
            for line in args.out.read_text().splitlines():
                question, reply = json.loads(line)
                self.replies[json.dumps(question)] = reply

    def ask(self, label, task, *arguments):
        """Return the reply of a version."""
        # Other libraries are the same beside all versions.
        question = [*(self.fingerprints if task == "fitted" else []), label, task, *arguments]
        key = json.dumps(question)
        if key not in self.replies:
            if label not in self.workers:
                self.workers[label] = Worker(getattr(self.args, label))
            self.replies[key] = self.workers[label].ask(task, *arguments)
            if self.args.out:
                with self.args.out.open("a") as file:
                    file.write(json.dumps([question, self.replies[key]]) + "\n")
        return self.replies[key]

    def fit(self, estimator, name, states, before, after, is_embedding=False):
        """Return the replies of both with their parameters by random state, None if a fit fails."""
        parameters = {"before": before, "after": after | dict(self.args.set)}
        replies = {label: [] for label in VERSIONS}
        for state in states:
            for label in VERSIONS[:: -1 if state % 2 else 1]:
                question = (estimator, name, state, parameters[label], is_embedding)
                try:
                    replies[label].append(self.ask(label, "fitted", *question))
                except WorkerError as error:
                    print(f"{estimator}, {name}, state {state}, {label}:\n{error}", file=sys.stderr)
                    return None
        return replies

    def end(self):
        """End both processes: where its memory lies makes one slower for as long as it lives."""
        for worker in self.workers.values():
            worker.end()
        self.workers = {}


def states_of(args, group, n_states):
    first = 100 if group == "tuning" else 0
    return range(first, first + (args.states or n_states))


def chosen(args, names):
    """The names after ``--only``, else all of them."""
    unknown = set(args.only or ()).difference(names)
    if unknown:
        raise SystemExit(f"No set {', '.join(sorted(unknown))} among {', '.join(names)}.")
    return args.only or list(names)


def mean_of(replies, key):
    """The means over the random states before and after."""
    return [float(np.mean([reply[key] for reply in replies[label]])) for label in VERSIONS]


HEADER = (
    f"{'set':17} {'rows':>7} x D   {'CPU s':>6} {'after':>6}  ratio  {'nats':>8} {'after':>8}  "
    f"{'difference (s.e.)':17} epochs"
)


def report(name, replies):
    """Print a row of a table; return the ratio of CPU seconds, the gain in nats and its error."""
    before, after = (replies[label] for label in VERSIONS)
    if [reply["rows"] for reply in before] != [reply["rows"] for reply in after]:
        raise SystemExit(f"{name}: the versions were given different rows.")
    differences = np.subtract(*([r["scores"] for r in replies] for replies in (after, before)))
    of_rows, of_states = differences.mean(axis=0), differences.mean(axis=1)
    error = max(
        part.std(ddof=1) / math.sqrt(len(part)) if len(part) > 1 else 0.0
        for part in (of_rows, of_states)
    )
    seconds, epochs = mean_of(replies, "seconds"), mean_of(replies, "epochs")
    nats, ratio, gain = mean_of(replies, "scores"), seconds[1] / seconds[0], differences.mean()
    line = (
        f"{name:17} {before[0]['shape'][0]:7d} x {before[0]['shape'][1]:2d}  "
        f"{seconds[0]:6.1f} {seconds[1]:6.1f}  {ratio:5.3f}  {nats[0]:8.3f} {nats[1]:8.3f}  "
        f"{gain:+8.3f} ({error:.3f})  {epochs[0]:4.0f} {epochs[1]:4.0f}"
    )
    for key, title in (("error", "error"), ("r2", "R2")):
        if key in before[0]:
            values = mean_of(replies, key)
            line += f"  {title} {values[0]:.3g} {values[1]:.3g}"
    print(line, flush=True)
    return ratio, gain, error


def compare(versions, estimator, names, states, n_components=None):
    """Print a table of default fits and what it comes to; of embeddings where `n_components` is."""
    print(f"{estimator}\n{HEADER}", flush=True)
    rows = {}
    for name in names:
        n = n_components and n_components[name]
        parameters = {"n_components": n} if n else {}
        is_embedding = n_components is not None
        replies = versions.fit(estimator, name, states, parameters, parameters, is_embedding)
        versions.end()
        if replies:
            rows[name] = report(name, replies)
    failed = [name for name in names if name not in rows]
    worse = [name for name, (_, gain, error) in rows.items() if gain < -max(2 * error, 0.02)]
    if rows:
        ratios, slowest = [ratio for ratio, _, _ in rows.values()], max(rows, key=rows.get)
        print(f"ratio of CPU s: geometric mean {np.exp(np.mean(np.log(ratios))):.3f}, ", end="")
        print(f"largest {max(ratios):.3f} ({slowest})")
    if gains := [gain for name, (_, gain, _) in rows.items() if name not in TOYS]:
        print(f"mean gain on {len(gains)} tables: {np.mean(gains):+.3f} nats")
    print(f"worse by more than max(2 s.e., .02): {', '.join(worse) or 'none'}")
    print(f"failed: {', '.join(failed) or 'none'}\n", flush=True)


def fits(args):
    """CPU seconds and held-out nats of default fits."""
    names = chosen(args, SETS[args.sets])
    compare(Versions(args), args.estimator, names, states_of(args, args.sets, 3))


def others(args):
    """The other three estimators, with embedding and reconstruction."""
    versions, names = Versions(args), chosen(args, OTHERS)
    for estimator in args.estimators:
        compare(versions, estimator, names, states_of(args, "reported", 3), OTHERS)


def large(args):
    """CPU seconds to the held-out nats of a default fit of the version before, generated rows."""
    versions, name, reached = Versions(args), f"generated:{args.rows}", "never"
    states = states_of(args, "reported", 3 if args.rows < 1_000_000 else 1)
    print(f"{args.estimator}, {name}, random states {list(states)}\n{HEADER}", flush=True)
    for max_iter in args.max_iter_after:
        # The version before is fitted once: its question stays the same.
        replies = versions.fit(args.estimator, name, states, {}, {"max_iter": max_iter})
        if replies:
            ratio, gain, _ = report(f"max_iter {max_iter}", replies)
            if reached == "never" and gain >= 0:
                reached = f"with max_iter {max_iter}, ratio of CPU s {ratio:.3f}"
    versions.end()
    print(f"as many nats as before: {reached}")


def images(args):
    """CPU seconds and bits per dimension on Fashion-MNIST, fewer epochs after than before."""
    versions = Versions(args)
    print(f"NoisyInjectiveFlow, Fashion-MNIST\n{HEADER}", flush=True)
    for epochs in zip(args.max_iter, args.max_iter_after, strict=True):
        before, after = ({"max_iter": max_iter} for max_iter in epochs)
        states = states_of(args, "reported", 1)
        replies = versions.fit("NoisyInjectiveFlow", "Fashion-MNIST", states, before, after)
        versions.end()
        if replies:
            report(f"epochs {epochs[0]}, {epochs[1]}", replies)


def curves(args):
    """Held-out nats by CPU seconds for several numbers of epochs, beside other libraries."""
    versions, lines = Versions(args), {}
    groups = {name: group for group in ("tuning", "larger", "reported") for name in SETS[group]}
    for name in chosen(args, groups) if args.only else CURVES:
        states, lines[name] = states_of(args, groups[name], 1), {}
        print(f"{args.estimator}, {name}, random states {list(states)}\n{HEADER}", flush=True)
        for max_iter in args.max_iter:
            parameters = {"max_iter": max_iter}
            replies = versions.fit(args.estimator, name, states, parameters, parameters)
            if replies:
                report(f"max_iter {max_iter}", replies)
                seconds, nats = mean_of(replies, "seconds"), mean_of(replies, "scores")
                for label, *point in zip(VERSIONS, seconds, nats, strict=True):
                    lines[name].setdefault(label, []).append(point)
        for library in args.peers:
            try:
                curve = versions.ask("after", "peer_curve", library, name, states[0], args.limit)
            except WorkerError as error:
                print(f"{library}: {str(error).splitlines()[-1]}")
                continue
            seconds, _, nats = np.transpose(curve)
            nats = np.fmax.accumulate(nats)
            lines[name][library] = np.column_stack([seconds, nats])
            told = [np.searchsorted(seconds, s) for s in (1, 2, 5, 10, 20, 50, 100)]
            told = [f"{nats[i]:.3f} at {seconds[i]:.1f} s" for i in told if i < len(seconds)]
            print(f"{library:8} best so far {', '.join(told)}", flush=True)
        versions.end()
    if args.figure:
        draw(lines, args.figure)


def draw(lines, path):
    """Small multiples of nats by CPU seconds, a line for each version and library."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    n_columns = min(3, len(lines))
    n_rows = -(-len(lines) // n_columns)
    size = 3.2 * n_columns, 2.5 * n_rows
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=size, squeeze=False, layout="constrained"
    )
    for ax, (name, curves) in zip(axes.flat, lines.items(), strict=False):
        curves = {label: np.transpose(points) for label, points in curves.items()}
        curves = dict(sorted(curves.items(), key=lambda item: item[1][1, -1]))
        own = np.hstack([curves[label] for label in VERSIONS])
        (left, low), (right, top) = own.min(axis=1), np.hstack(list(curves.values())).max(axis=1)
        left, right, height = 0.8 * left, 1.2 * right, 1.2 * (top - low)
        ax.set(xscale="log", xlim=(left, right), ylim=(top - height, top + 0.05 * height))
        multiples = (1, 3) if right > 10 * left else (1, 2, 5)
        ticks = [m * 10.0**k for k in range(-2, 5) for m in multiples]
        ax.set_xticks([tick for tick in ticks if left < tick < right])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.set_title(name)
        for label, (seconds, nats) in curves.items():
            style = {"color": COLORS[label], "linewidth": 1.2}
            if label in VERSIONS:
                style |= {"linewidth": 2, "marker": "o", "markersize": 3.5, "zorder": 3}
            ax.plot(seconds, nats, **style)
            # The last value, as far as the label.
            ax.plot([seconds[-1], right], 2 * [nats[-1]], ":", color=COLORS[label], linewidth=0.8)
        # The height of each label in the axes, as far apart as labels are high.
        ends = [(nats[-1] - top) / height / 1.05 + 1 / 1.05 for _, nats in curves.values()]
        gaps = 0.1 * np.arange(len(ends))
        y = np.maximum.accumulate(np.maximum(ends, 0) - gaps) + gaps
        y = np.minimum.accumulate((np.minimum(y, 1) + gaps[::-1])[::-1])[::-1] - gaps[::-1]
        for label, end, at in zip(curves, ends, y, strict=True):
            text = "skmanifoldflow" if label == "after" else label
            text += " (below)" if end < 0 else ""
            ax.text(1.03, at, text, color=COLORS[label], transform=ax.transAxes, va="center")
    for ax in axes.flat[len(lines) :]:
        ax.remove()
    figure.supxlabel("CPU seconds of training", fontsize=9)
    figure.supylabel("held-out nats per row", fontsize=9)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    for run in (fits, curves, large, images, others):
        command = commands.add_parser(run.__name__, help=run.__doc__.splitlines()[0])
        command.set_defaults(run=run)
        add_versions(command)
        add_set(command, "the later version")
        add = command.add_argument
        add("--states", type=int, help="number of random states")
        add("--out", type=Path, help="JSON lines to write to and resume from")
        add("--data-dir", help="folder of unpacked data files")
        if run is others:
            estimators = ["ManifoldPriorFlow", "ChartAtlasFlow", "JointManifoldFlow"]
            add("--estimators", nargs="+", default=estimators, help="these only")
        elif run is not images:
            add("--estimator", default="NoisyInjectiveFlow", help="its name")
        if run is large:
            add("--rows", type=int, default=100_000, help="training rows")
            add("--max-iter-after", type=int, nargs="+", default=[5, 10, 20], help="epochs after")
        elif run is images:
            add("--max-iter", type=int, nargs="+", default=[6, 8, 16], help="epochs before")
            add("--max-iter-after", type=int, nargs="+", default=[4, 5, 10], help="epochs after")
        else:
            add("--only", nargs="+", help="sets of these names")
        if run is fits:
            add("--sets", choices=SETS, default="reported", help="which sets")
        if run is curves:
            epochs = [5, 10, 20, 40, 100, 300]
            add("--max-iter", type=int, nargs="+", default=epochs, help="epochs of both versions")
            add("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="other libraries")
            add("--limit", type=float, default=100.0, help="CPU seconds of another library")
            add("--figure", type=Path, help="picture to draw")
    args = parser.parse_args()
    if args.data_dir:
        os.environ[ENVIRONMENT_VARIABLE] = args.data_dir
    args.run(args)


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        serve({"fitted": fitted, "peer_curve": peer_curve})
    else:
        main()
