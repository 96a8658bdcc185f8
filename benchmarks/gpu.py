"""Training steps, fits and scores on a GPU beside the CPU.

    python benchmarks/gpu.py          # all of it, less than four minutes
    python benchmarks/gpu.py steps    # training steps of affine and of spline chains
    python benchmarks/gpu.py fits     # fits of the four estimators

Takes CUDA where there is one, else MPS; without either it says so and ends. Seconds are those of
the clock, which is read when the device has done its work. The CPU has as many threads as a fit
would give it. A step is one of the training loop of `NoisyInjectiveFlow` without reconstruction, 8
affine or 4 spline couplings with two hidden layers of 64 units; its epochs of 10 steps are part of
it, what comes once in a training is not. Fits are at the defaults of the estimators but for
`max_iter`, on the S-curve. Scores of the same weights on both devices should agree.
"""

import argparse
import copy
import time
import warnings
from contextlib import suppress

import numpy as np
import torch

import skmanifoldflow
from skmanifoldflow._noisy_injective.distribution import NoisyInjection
from skmanifoldflow._noisy_injective.injections import LinearInjection
from skmanifoldflow._noisy_injective.objective import InjectionLikelihood
from skmanifoldflow.backend.architectures import density_flow
from skmanifoldflow.backend.bijections import Chain, MarginalSpline
from skmanifoldflow.backend.device import make_generator, single_threaded
from skmanifoldflow.backend.flow import ManifoldFlow
from skmanifoldflow.backend.rows import TrainingRows
from skmanifoldflow.backend.training import train
from skmanifoldflow.backend.training_job import TrainingSettings
from skmanifoldflow.datasets import SCurve

N_LAYERS = {"affine": 8, "spline": 4}
WIDTH = 64
STEPS_OF_AN_EPOCH = 10
ESTIMATORS = ("ManifoldPriorFlow", "NoisyInjectiveFlow", "ChartAtlasFlow", "JointManifoldFlow")


def find_gpu():
    """The device beside the CPU, or None."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else None


def clock(device):
    """Seconds, when the device has done its work."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


class StepsAlone(InjectionLikelihood):
    """A likelihood that judges no rows, so that a training is its steps."""

    def log_likelihood(self, rows):
        return torch.zeros(len(rows), device=rows.device)


class EnoughEpochs(Exception):
    """Ends a training that has been timed."""


def seconds_of_a_step(kind, n_features, batch_size, device, args):
    """Median over the epochs of a training but for the first."""
    generator = make_generator(0)
    rows = torch.randn(STEPS_OF_AN_EPOCH * batch_size, n_features, generator=generator)
    layers = density_flow(kind, n_features, N_LAYERS[kind], (WIDTH, WIDTH), generator=generator)
    spline = MarginalSpline(n_features)
    injection = LinearInjection(
        n_features, n_features // 4, noise_covariance="diag", noise_floor=0.01
    )
    flow = ManifoldFlow(Chain([spline, layers]), NoisyInjection(injection))
    spline.initialize(rows)
    flow.move_to(device, torch.float32)
    rows = rows.to(device)
    objective = StepsAlone(
        flow,
        objective="likelihood",
        noise_start=0.1,
        noise_floor=0.01,
        reconstruction=0.0,
        pca_error=1.0,
        n_rows=len(rows),
        generator=generator,
    )
    settings = TrainingSettings(
        max_iter=1000,
        max_steps=1000 * STEPS_OF_AN_EPOCH,
        batch_size=batch_size,
        learning_rate=1e-3,
        weight_decay=0.0,
        n_iter_no_change=1000,
        tol=0.0,
        averaging=objective.averaging,
    )
    ends = []

    def log(n_iter, n_epochs, score):
        ends.append(clock(device))
        if n_iter >= args.epochs and ends[-1] - ends[0] > args.slice:
            raise EnoughEpochs

    with single_threaded(batch_size * WIDTH * max(WIDTH, n_features)), suppress(EnoughEpochs):
        train(objective, TrainingRows.of(rows), None, settings, generator, log)
    return np.median(np.diff(ends)) / STEPS_OF_AN_EPOCH


def steps(gpu, args):
    """Time of a training step."""
    print(f"{'training step':28} {'CPU':>12} {gpu.type.upper():>12} {'CPU / GPU':>10}")
    for kind in N_LAYERS:
        for n_features in args.dims:
            for batch_size in args.batches:
                on_cpu, on_gpu = (
                    1e3 * seconds_of_a_step(kind, n_features, batch_size, device, args)
                    for device in (torch.device("cpu"), gpu)
                )
                setting = f"{kind} D={n_features} batch={batch_size}"
                ratio = on_cpu / on_gpu
                print(f"{setting:28} {on_cpu:9.3f} ms {on_gpu:9.3f} ms {ratio:10.2f}", flush=True)


def fits(gpu, args):
    """Time of a fit, score of test rows, and agreement of the scores of the same weights."""
    data = SCurve(noise=0.05)
    X, test = (data.sample(args.rows, random_state=seed)[0] for seed in (0, 1))
    header = f"{'CPU':>10} {gpu.type.upper():>10} {'CPU / GPU':>10} {'scores':>16}"
    print(f"{'fit':20} {header} {'same weights':>13}")
    for name in ESTIMATORS:
        seconds, models = [], []
        for device in (torch.device("cpu"), gpu):
            model = getattr(skmanifoldflow, name)(device=device, random_state=0)
            # What is loaded and set up once is not counted.
            model.set_params(max_iter=1).fit(X[:200])
            model.set_params(max_iter=args.max_iter)
            start = clock(device)
            model.fit(X)
            seconds.append(clock(device) - start)
            models.append(model)
        on_cpu, on_gpu = models
        scores = on_gpu.score_samples(test)
        moved = copy.deepcopy(on_gpu).to("cpu").score_samples(test)
        print(
            f"{name:20} {seconds[0]:8.2f} s {seconds[1]:8.2f} s {seconds[0] / seconds[1]:10.2f} "
            f"{on_cpu.score(test):8.4f}{scores.mean():8.4f} {np.abs(scores - moved).max():13.1e}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("all", "steps", "fits"), default="all")
    parser.add_argument("--slice", type=float, default=1.0, help="seconds of steps, at least")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of 10 steps, at least")
    parser.add_argument("--dims", type=int, nargs="+", default=(8, 64))
    parser.add_argument("--batches", type=int, nargs="+", default=(128, 1024, 8192))
    parser.add_argument("--rows", type=int, default=5000, help="rows of the fits")
    parser.add_argument("--max-iter", type=int, default=20, help="epochs of the fits")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    gpu = find_gpu()
    if gpu is None:
        print("There is no GPU: torch finds neither CUDA nor MPS on this machine.")
        return
    for run in (steps, fits):
        if args.what in ("all", run.__name__):
            run(gpu, args)


if __name__ == "__main__":
    main()
