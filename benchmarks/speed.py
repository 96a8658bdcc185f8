"""Time of the backend's flows beside other libraries and beside their matrix products alone.

    python benchmarks/speed.py steps       # a training step of RealNVP
    python benchmarks/speed.py splines     # a training step of rational-quadratic couplings
    python benchmarks/speed.py inference   # log-density and samples of 10 000 rows
    python benchmarks/speed.py fits        # whole fits, with other versions of the package
    python benchmarks/speed.py search      # StackedSearchCV and GridSearchCV
    python benchmarks/speed.py neighbour   # fits beside a busy process
    python benchmarks/speed.py memory      # peak of score_samples for a million rows
    python benchmarks/speed.py imports     # the package beside torch and scikit-learn

One round runs everything once for a slice of time, in an order that rotates; figures are medians
over the rounds of the ratio within a round, with its quartiles, of CPU time at one thread, or of
time on the clock with ``--threads``. RealNVP is 8 affine couplings with two hidden layers, N(0, I),
Adam, float32. ``floor`` is its matrix products alone. The conditioners have SiLU units in all
libraries, with ``--units ReLU`` the cheaper ones in all but ours. A peer that is not installed is
left out: ``pip install --no-deps nflows UMNN normflows zuko FrEIA`` beside torch, matplotlib and
tqdm, and for training steps compiled by JAX ``pip install flowjax``.
"""

import argparse
import importlib.util
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _peers import compiled_by_jax
from sklearn.model_selection import GridSearchCV
from torch import nn

import skmanifoldflow
from skmanifoldflow._manifold_prior.distribution import LearnedCovariance
from skmanifoldflow.backend.architectures import density_flow
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.engine import KnownLoss
from skmanifoldflow.backend.flow import ManifoldFlow, chunks
from skmanifoldflow.backend.objective import Objective
from skmanifoldflow.backend.optimizer import Optimizer
from skmanifoldflow.datasets import SCurve
from skmanifoldflow.model_selection import StackedSearchCV

N_LAYERS = 8
LOG_2PI = math.log(2 * math.pi)


class Peer(NamedTuple):
    """A flow: its module, the log-density of rows, and a function that draws n rows."""

    module: nn.Module
    log_prob: Callable
    sample: Callable


def normal_log_prob(z, log_det):
    return log_det - 0.5 * (z.square().sum(1) + z.shape[1] * LOG_2PI)


class Perceptron(nn.Sequential):
    """Two hidden layers; a context is ignored."""

    def __init__(self, n_inputs, n_outputs, width, units):
        super().__init__(
            nn.Linear(n_inputs, width),
            units(),
            nn.Linear(width, width),
            units(),
            nn.Linear(width, n_outputs),
        )

    def forward(self, x, context=None):
        return super().forward(x)


def nflows_real_nvp(n_features, width, units):
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import AffineCouplingTransform, CompositeTransform
    from nflows.utils import create_alternating_binary_mask

    couplings = [
        AffineCouplingTransform(
            create_alternating_binary_mask(n_features, even=i % 2 == 0),
            partial(Perceptron, width=width, units=units),
        )
        for i in range(N_LAYERS)
    ]
    flow = Flow(CompositeTransform(couplings), StandardNormal([n_features]))
    return Peer(flow, flow.log_prob, flow.sample)


def normflows_real_nvp(n_features, width, units):
    import normflows

    layers = []
    for _ in range(N_LAYERS):
        network = Perceptron(n_features // 2, n_features, width, units)
        nn.init.zeros_(network[-1].weight)
        nn.init.zeros_(network[-1].bias)
        layers += [
            normflows.flows.AffineCouplingBlock(network),
            normflows.flows.Permute(n_features, mode="swap"),
        ]
    base = normflows.distributions.DiagGaussian(n_features, trainable=False)
    flow = normflows.NormalizingFlow(base, layers)
    return Peer(flow, flow.log_prob, lambda n: flow.sample(n)[0])


def zuko_real_nvp(n_features, width, units):
    import zuko

    flow = zuko.flows.RealNVP(
        n_features, transforms=N_LAYERS, hidden_features=(width, width), activation=units
    )
    return Peer(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def freia_real_nvp(n_features, width, units):
    import FrEIA.framework
    import FrEIA.modules

    flow = FrEIA.framework.SequenceINN(n_features)
    for _ in range(N_LAYERS):
        flow.append(
            FrEIA.modules.AllInOneBlock,
            subnet_constructor=partial(Perceptron, width=width, units=units),
            permute_soft=False,
        )
    return Peer(
        flow,
        lambda x: normal_log_prob(*flow(x)),
        lambda n: flow(torch.randn(n, n_features), rev=True)[0],
    )


PEERS = {
    "nflows": nflows_real_nvp,
    "normflows": normflows_real_nvp,
    "zuko": zuko_real_nvp,
    "FrEIA": freia_real_nvp,
}


def zuko_spline(n_features, n_transforms, units):
    import zuko

    flow = zuko.flows.NSF(
        n_features,
        transforms=n_transforms,
        bins=8,
        hidden_features=(64, 64),
        activation=units,
        passes=2,
        randperm=False,
    )
    return flow, lambda rows: flow().log_prob(rows)


def nflows_spline(n_features, n_transforms, units):
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import (
        CompositeTransform,
        PiecewiseRationalQuadraticCouplingTransform,
    )
    from nflows.utils import create_alternating_binary_mask

    couplings = [
        PiecewiseRationalQuadraticCouplingTransform(
            create_alternating_binary_mask(n_features, even=i % 2 == 0),
            partial(Perceptron, width=64, units=units),
            num_bins=8,
            tails="linear",
            tail_bound=5.0,
        )
        for i in range(n_transforms)
    ]
    flow = Flow(CompositeTransform(couplings), StandardNormal([n_features]))
    return flow, flow.log_prob


SPLINE_PEERS = {"nflows": nflows_spline, "zuko": zuko_spline}


class MaximumLikelihood(Objective):
    """Negative log-likelihood of a bijection under N(0, I)."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def loss(self, batch, progress):
        """The gradient with respect to latent rows is known, as it is in the estimators."""
        n = len(batch)
        z, log_det, _, vjp = self.flow.bijection.forward_with_vjp(batch)
        grad_z = z / n
        loss = 0.5 * torch.vdot(grad_z.view(-1), z.view(-1)) - log_det.mean()
        grad_log_det = torch.full_like(log_det, -1 / n)
        value = loss + 0.5 * z.shape[1] * LOG_2PI
        return KnownLoss(value, lambda: vjp(grad_z, grad_log_det, 0.0))

    def update_closed_form(self, rows, *, roughly=False):
        pass

    def log_likelihood(self, rows):
        return self.flow.log_prob(rows)


def our_flow(kind, n_features, n_layers, width):
    bijection = density_flow(
        kind, n_features, n_layers, (width, width), generator=make_generator(0)
    )
    return ManifoldFlow(bijection, LearnedCovariance(n_features))


def our_step(kind, n_features, n_layers, width, X):
    """A step as the training loop takes it, clipping included."""
    objective = MaximumLikelihood(our_flow(kind, n_features, n_layers, width))
    optimizer = Optimizer([objective], [0.0])

    def step():
        objective.loss(X, 0.5).backward()
        optimizer.step([1e-3])

    return step


def peer_step(module, log_prob, X):
    """A step with torch's Adam as its documentation has it."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = -log_prob(X).mean()
        loss.backward()
        optimizer.step()

    return step


def flowjax_step(n_features, width, units, X):
    """A step as flowjax takes it, compiled as a whole; its rows are a JAX array."""
    import jax
    from flowjax.bijections import Affine
    from flowjax.distributions import StandardNormal
    from flowjax.flows import coupling_flow

    flow = coupling_flow(
        jax.random.key(0),
        base_dist=StandardNormal((n_features,)),
        transformer=Affine(),
        flow_layers=N_LAYERS,
        nn_width=width,
        nn_depth=2,
        nn_activation=getattr(jax.nn, units.__name__.lower()),
    )
    X = jax.numpy.asarray(X.numpy())
    step, _ = compiled_by_jax(flow, 1e-3, X)
    return lambda: jax.block_until_ready(step(X))


COMPILED_STEPS = {"flowjax": flowjax_step}


class Floor:
    """The matrix products of RealNVP, and nothing else, into memory that is there."""

    def __init__(self, n_features, width, n_rows):
        n_half = n_features // 2
        self.forward, self.all = [], []
        for i in range(N_LAYERS):
            for n_in, n_out in ((n_half, width), (width, width), (width, 2 * n_half)):
                x, weight, y = (
                    torch.randn(shape) for shape in ((n_rows, n_in), (n_in, n_out), (n_rows, n_out))
                )
                self.forward.append((x, weight, y))
                self.all += [(x, weight, y), (x.T, y, torch.empty(n_in, n_out))]
                # The first network needs no gradient of the rows.
                if i or n_in == width:
                    self.all.append((y, weight.T, torch.empty(n_rows, n_in)))

    @staticmethod
    def run(products):
        for a, b, result in products:
            torch.mm(a, b, out=result)


def timed_rounds(competitors, args):
    """Seconds of a call of each competitor in each round."""
    clock = time.process_time if args.threads == 1 else time.perf_counter
    n_calls = {}
    for name, call in competitors.items():
        for _ in range(3):
            call()
        start = clock()
        call()
        n_calls[name] = max(1, int(args.slice / max(clock() - start, 1e-6)))
    seconds = {name: [] for name in competitors}
    names = list(competitors)
    for i in range(args.rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            call = competitors[name]
            start = clock()
            for _ in range(n_calls[name]):
                call()
            seconds[name].append((clock() - start) / n_calls[name])
    return {name: np.array(values) for name, values in seconds.items()}


def report(setting, seconds):
    """A line for each competitor: its time over ours, and ours over the floor."""
    ours = seconds.pop("ours")
    print(f"{setting:34} {'ours':10} {1e3 * np.median(ours):9.3f} ms", flush=True)
    for name, values in seconds.items():
        ratio = ours / values if name == "floor" else values / ours
        low, middle, high = np.percentile(ratio, (25, 50, 75))
        label = "ours / floor" if name == "floor" else f"{name} / ours"
        print(f"{setting:34} {label:18} {middle:6.2f}  ({low:.2f} to {high:.2f})", flush=True)


def installed(args, peers):
    chosen = {name: peer for name, peer in peers.items() if name in (args.only or peers)}
    return {name: peer for name, peer in chosen.items() if importlib.util.find_spec(name)}


def steps(args):
    """Time of a training step of RealNVP."""
    units = getattr(nn, args.units)
    for width in args.widths:
        for batch_size in args.batches:
            for n_features in args.dims:
                torch.manual_seed(0)
                X = torch.randn(batch_size, n_features)
                competitors = {"ours": our_step("affine", n_features, N_LAYERS, width, X)}
                for name, build in installed(args, PEERS).items():
                    module, log_prob, _ = build(n_features, width, units)
                    competitors[name] = peer_step(module, log_prob, X)
                for name, build in installed(args, COMPILED_STEPS).items():
                    competitors[name] = build(n_features, width, units, X)
                floor = Floor(n_features, width, batch_size)
                competitors["floor"] = partial(floor.run, floor.all)
                setting = f"W={width} batch={batch_size} D={n_features}"
                report(setting, timed_rounds(competitors, args))


def splines(args):
    """Time of a training step of 4 rational-quadratic couplings with 8 bins, 64 x 64 units."""
    units = getattr(nn, args.units)
    for batch_size in args.batches:
        for n_features in args.dims:
            torch.manual_seed(0)
            X = torch.randn(batch_size, n_features)
            competitors = {"ours": our_step("spline", n_features, 4, 64, X)}
            for name, build in installed(args, SPLINE_PEERS).items():
                competitors[name] = peer_step(*build(n_features, 4, units), X)
            report(f"splines batch={batch_size} D={n_features}", timed_rounds(competitors, args))


def inference(args):
    """Time of log-densities and samples."""
    n, units = args.rows, getattr(nn, args.units)
    for width in args.widths:
        for n_features in args.dims:
            torch.manual_seed(0)
            X = torch.randn(n, n_features)
            flow = our_flow("affine", n_features, N_LAYERS, width).requires_grad_(False)
            pieces = list(chunks(n, n_features))

            def our_log_prob(X=X, flow=flow, pieces=pieces):
                bijection = flow.bijection
                return torch.cat(
                    [normal_log_prob(*bijection.forward_and_log_det(X[rows])) for rows in pieces]
                )

            def our_sample(flow=flow, n_features=n_features, pieces=pieces):
                return torch.cat(
                    [
                        flow.decode(torch.randn(rows.stop - rows.start, n_features))
                        for rows in pieces
                    ]
                )

            log_prob, sample = {"ours": our_log_prob}, {"ours": our_sample}
            for name, build in installed(args, PEERS).items():
                peer = build(n_features, width, units)
                log_prob[name] = partial(peer.log_prob, X)
                sample[name] = partial(peer.sample, n)
            floor = Floor(n_features, width, 1000)

            def of_floor(floor=floor):
                for _ in range(n // 1000):
                    floor.run(floor.forward)

            log_prob["floor"] = sample["floor"] = of_floor
            with torch.no_grad():
                setting = f"W={width} D={n_features}"
                report(f"log-density {setting}", timed_rounds(log_prob, args))
                report(f"sample {setting}", timed_rounds(sample, args))


def run_python(code, *arguments, path=None, **variables):
    """What a fresh interpreter prints last, as numbers."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    if path:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    # The working directory comes before all other paths.
    output = subprocess.run(
        command, env=environment, cwd=path, check=True, capture_output=True, text=True
    )
    return [float(value) for value in output.stdout.split()]


FIT = """
import sys, time, torch, skmanifoldflow
from skmanifoldflow.datasets import SCurve
torch.set_num_threads(1)
name, n, max_iter = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = SCurve(noise=0.05)
X, test = data.sample(n, random_state=0)[0], data.sample(n, random_state=1)[0]
# As many epochs in every version: rounding may move an early stop.
model = getattr(skmanifoldflow, name)(max_iter=max_iter, n_iter_no_change=max_iter, random_state=0)
model.fit(X[:200])
start = time.process_time()
model.fit(X)
print(time.process_time() - start, model.score(test))
"""


def fits(args):
    """CPU seconds and test score of whole fits on the S-curve."""
    versions = {"this": Path(__file__).resolve().parents[1]} | dict(args.version)
    for name in ("NoisyInjectiveFlow", "ManifoldPriorFlow"):
        results = {label: [] for label in versions}
        for _ in range(args.rounds):
            for label, path in versions.items():
                results[label].append(run_python(FIT, name, args.rows, args.max_iter, path=path))
        ours = np.array(results["this"])
        for label, values in results.items():
            seconds, scores = np.array(values).T
            ratio = np.median(seconds / ours[:, 0])
            print(
                f"{name:20} {label:10} {np.median(seconds):7.2f} s, {ratio:.2f} of this, "
                f"score {scores[0]:.4f}",
                flush=True,
            )


def search(args):
    """Seconds on the clock of a search with 8 candidates and 5 folds on the S-curve."""
    X, _ = SCurve(noise=0.05).sample(args.rows, random_state=0)
    flow = skmanifoldflow.NoisyInjectiveFlow(2, max_iter=args.max_iter, random_state=0)
    grid = {"learning_rate_init": [1e-3, 2e-3, 5e-3, 1e-2], "weight_decay": [0.0, 1e-2]}
    searches = {
        "StackedSearchCV": StackedSearchCV(flow, grid, refit=False),
        "GridSearchCV, n_jobs=1": GridSearchCV(flow, grid, refit=False),
        "GridSearchCV, n_jobs=2": GridSearchCV(flow, grid, refit=False, n_jobs=2),
    }
    seconds = {name: [] for name in searches}
    for _ in range(args.rounds):
        for name, one in searches.items():
            start = time.perf_counter()
            one.fit(X)
            seconds[name].append(time.perf_counter() - start)
    scores = {name: one.cv_results_["mean_test_score"] for name, one in searches.items()}
    ours, theirs = scores["StackedSearchCV"], scores["GridSearchCV, n_jobs=1"]
    error = searches["GridSearchCV, n_jobs=1"].cv_results_["std_test_score"] / math.sqrt(5)
    for name, values in seconds.items():
        ratio = np.median(np.array(values) / np.array(seconds["StackedSearchCV"]))
        print(f"{name:24} {np.median(values):7.1f} s  {ratio:.2f} of the stack", flush=True)
    print(f"largest difference of mean scores: {np.abs((ours - theirs) / error).max():.2f} s.e.")


BUSY = "while True: sum(range(10000))"
NEIGHBOUR = """
import sys, time, torch, skmanifoldflow
from skmanifoldflow.datasets import SCurve
X, _ = SCurve(noise=0.05).sample(2000, random_state=0)
if sys.argv[1] != "default":
    torch.set_num_threads(int(sys.argv[1]))
model = getattr(skmanifoldflow, sys.argv[2])(max_iter=5, random_state=0).fit(X[:200])
start = time.perf_counter()
model.fit(X)
print(time.perf_counter() - start)
"""


def neighbour(args):
    """Fits with the threads that torch takes by default, over fits with one, beside a busy loop."""
    threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        try:
            for name in ("NoisyInjectiveFlow", "ManifoldPriorFlow"):
                ratios = []
                for _ in range(args.rounds):
                    of_default, of_one = (
                        run_python(NEIGHBOUR, setting, name, **threads)[0]
                        for setting in ("default", 1)
                    )
                    ratios.append(of_default / of_one)
                low, middle, high = np.percentile(ratios, (25, 50, 75))
                print(f"{name:20} default / one thread {middle:.2f} ({low:.2f} to {high:.2f})")
        finally:
            busy.kill()


MEMORY = """
import resource, sys, time, numpy as np, torch, skmanifoldflow
torch.set_num_threads(1)
X = np.random.RandomState(0).standard_normal((int(sys.argv[1]), 16))
model = skmanifoldflow.NoisyInjectiveFlow(2, max_iter=1, random_state=0).fit(X[:2000])
model.score_samples(X[:1000])
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
model.score_samples(X)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / 1024, time.process_time() - start)
"""


def memory(args):
    """Peak memory above the input and time of score_samples, 16 columns."""
    for n in (10_000, 100_000, 1_000_000):
        megabytes, seconds = run_python(MEMORY, n)
        print(f"{n:8d} rows {megabytes:6.0f} MB {seconds:8.2f} s", flush=True)


IMPORTS = """
import sys, time
start = time.process_time()
import torch, sklearn
if sys.argv[1] == "package":
    import skmanifoldflow
print(time.process_time() - start)
"""


def imports(args):
    """CPU seconds that the package adds to `import torch, sklearn`."""
    added = [
        run_python(IMPORTS, "package")[0] - run_python(IMPORTS, "nothing")[0]
        for _ in range(args.rounds)
    ]
    print("seconds added: {1:.3f} ({0:.3f} to {2:.3f})".format(*np.percentile(added, (25, 50, 75))))


def version(text):
    """The label and path of ``--version LABEL=PATH``."""
    label, _, path = text.partition("=")
    return label, path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    for run in (steps, splines, inference, fits, search, neighbour, memory, imports):
        command = commands.add_parser(run.__name__, help=run.__doc__.splitlines()[0])
        n_rounds = {fits: 3, search: 1}.get(run, 7)
        command.set_defaults(run=run, threads=1)
        command.add_argument("--rounds", type=int, default=n_rounds, help="number of rounds")
        if run in (steps, splines, inference):
            command.add_argument("--slice", type=float, default=0.1, help="seconds of a turn")
            command.add_argument("--threads", type=int, default=1, help="intra-op threads")
            command.add_argument("--only", nargs="+", help="peers")
            command.add_argument(
                "--units", choices=("SiLU", "ReLU"), default="SiLU", help="those of the peers"
            )
            dims = (2, 8, 64) if run is splines else (2, 8, 64, 784)
            command.add_argument("--dims", type=int, nargs="+", default=dims)
        if run in (steps, inference):
            command.add_argument("--widths", type=int, nargs="+", default=(64, 256))
        if run in (steps, splines):
            command.add_argument("--batches", type=int, nargs="+", default=(128, 1024))
        if run in (inference, fits, search):
            n_rows = {inference: 10_000, fits: 5000, search: 1000}[run]
            command.add_argument("--rows", type=int, default=n_rows)
        if run in (fits, search):
            command.add_argument("--max-iter", type=int, default=20, help="epochs of a fit")
        if run is fits:
            command.add_argument(
                "--version",
                type=version,
                action="append",
                default=[],
                metavar="LABEL=PATH",
                help="another source tree of the package",
            )
    args = parser.parse_args()
    # Short fits say that they have not converged, in worker processes too.
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"
    torch.set_num_threads(args.threads)
    # JAX reads it when it starts; XLA_FLAGS do not keep its matrix products to one thread.
    os.environ["PJRT_NPROC"] = str(args.threads)
    args.run(args)


if __name__ == "__main__":
    main()
