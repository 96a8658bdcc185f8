"""What Ctrl-C at random moments of a fit leaves behind.

    python benchmarks/interrupts.py [--moments 20]

Of each fit either the model of before it, byte for byte, or, after the first epoch, a fitted model,
a warning and KeyboardInterrupt. Threads, random states and gradient mode are as before, and the
next fit is that of an estimator that was never interrupted. A line for each kind of fit.
"""

import argparse
import pickle
import signal
import time
import warnings

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning

from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, ManifoldPriorFlow, NoisyInjectiveFlow
from skmanifoldflow._progress import listening

ESTIMATORS = (ManifoldPriorFlow, NoisyInjectiveFlow, ChartAtlasFlow, JointManifoldFlow)
VARIANTS = {"plain": {}, "3 starts": {"n_init": 3}, "warm start": {"warm_start": True}}
SMALL = {"max_iter": 15, "n_layers": 3, "hidden_layer_sizes": (16,), "random_state": 0}


def press(*args):
    """Do what Python does at Ctrl-C."""
    raise KeyboardInterrupt


def surroundings():
    """Return what a fit must leave alone."""
    return (
        torch.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes(),  # noqa: NPY002
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )


def fit_with_alarm(model, X, seconds):
    """Fit, and press Ctrl-C; return "finished", "kept" or "as before", and the epochs.

    These are the epochs that were finished when Ctrl-C came.
    """
    epochs = []
    with warnings.catch_warnings(record=True) as caught, listening(epochs.append):
        warnings.simplefilter("always")
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            model.fit(X)
            return "finished", epochs
        except KeyboardInterrupt:
            told = [w for w in caught if "was interrupted after" in str(w.message)]
            assert all(w.category is ConvergenceWarning for w in told)
            return "kept" if told else "as before", epochs
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def check(model, first, second, n_moments, rng):
    """Return how often each thing happened, and what was wrong."""
    start = time.perf_counter()
    fitted = clone(model).fit(first)
    length = time.perf_counter() - start
    stored = pickle.dumps(fitted)
    whole = pickle.loads(stored).fit(second)
    clean, n_epochs = whole.score_samples(second), whole.n_iter_
    counts, faults = {}, []
    for _ in range(n_moments):
        moment = rng.uniform(0.002, 1.1 * length)
        tried, before = pickle.loads(stored), surroundings()
        state = pickle.dumps(tried)
        outcome, epochs = fit_with_alarm(tried, second, moment)
        if outcome == "as before" and pickle.dumps(tried) != state:
            # All was done but to return: that is no interrupted training.
            outcome = "finished"
        counts[outcome] = counts.get(outcome, 0) + 1
        if surroundings() != before:
            faults.append(f"surroundings after {moment:.3f} of {length:.3f} s")
            torch.set_num_threads(1)
        if outcome == "finished" and tried.n_iter_ != n_epochs and not model.warm_start:
            faults.append(f"{tried.n_iter_} epochs after {moment:.3f} of {length:.3f} s")
        if outcome == "kept" and pickle.dumps(tried) == state:
            faults.append(f"nothing kept after {moment:.3f} of {length:.3f} s")
        if epochs and outcome == "as before":
            faults.append(f"lost {len(epochs)} epochs after {moment:.3f} of {length:.3f} s")
        if not np.isfinite(tried.score_samples(second)).all() or tried.n_iter_ < 1:
            faults.append(f"broken model after {moment:.3f} of {length:.3f} s")
        # A warm start goes on from what was kept.
        if not model.warm_start and not np.array_equal(
            tried.fit(second).score_samples(second), clean
        ):
            faults.append(f"another next fit after {moment:.3f} of {length:.3f} s")
    return counts, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=20, help="interrupts of each kind of fit")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, press)
    first = make_moons(300, noise=0.05, random_state=0)[0]
    second = 3 * make_moons(300, noise=0.1, random_state=1)[0]
    rng = np.random.RandomState(0)
    n_faults = 0
    for Estimator in ESTIMATORS:
        for name, options in VARIANTS.items():
            model = Estimator(**SMALL, **options)
            counts, faults = check(model, first, second, args.moments, rng)
            n_faults += len(faults)
            print(f"{Estimator.__name__:20} {name:12} {counts}", *faults[:3], flush=True)
    print(f"{n_faults} faults")


if __name__ == "__main__":
    main()
