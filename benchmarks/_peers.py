"""Densities to compare with: those of scikit-learn, and the splines of zuko and nflows."""

import time
from functools import partial

import numpy as np
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KernelDensity

MIXTURE_SIZES = (1, 2, 5, 10, 15, 20, 25, 30)
BANDWIDTHS = np.geomspace(0.01, 2, 24)


def timed(function, *args):
    start = time.process_time()
    result = function(*args)
    return result, time.process_time() - start


# Each function of rows returns a fitted model and its setting, chosen without the test rows.


def by_validation(candidates, X, n_validation=None):
    """The best of (setting, estimator) on a fifth of the rows, then fitted to all of them."""
    n_validation = min(n_validation or len(X), len(X) // 5)
    fit, validation = train_test_split(X, test_size=n_validation, random_state=0)
    scored = [
        (model.fit(fit).score_samples(validation).mean(), i, setting, model)
        for i, (setting, model) in enumerate(candidates)
    ]
    _, _, setting, model = max(scored)
    return model.fit(X), setting


def normal_distribution(X):
    return GaussianMixture(1, reg_covar=0).fit(X), ""


def mixture_by_bic(X, sizes=range(1, 31)):
    fitted = [GaussianMixture(size, random_state=0).fit(X) for size in sizes]
    best = min(fitted, key=lambda model: model.bic(X))
    return best, f"K={best.n_components}"


def mixture_by_validation(X):
    grid = [(k, reg) for k in MIXTURE_SIZES for reg in (1e-6, 1e-4, 1e-2, 1e-1)]
    return by_validation(
        [
            (f"K={k}, reg {reg:g}", GaussianMixture(k, reg_covar=reg, n_init=3, random_state=0))
            for k, reg in grid
        ],
        X,
    )


def kernel_density(X):
    # The tolerance is relative to the density: 1e-4 nats.
    grid = [(f"h={h:.3g}", KernelDensity(bandwidth=h, rtol=1e-4)) for h in BANDWIDTHS]
    return by_validation(grid, X, n_validation=1000)


def linear_model(kind, X):
    """Factor analysis, or PCA's density, which is that of probabilistic PCA."""
    n_features = X.shape[1]
    sizes = {round(share * n_features) for share in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)}
    grid = [(f"d={d}", kind(d)) for d in sorted(sizes) if 0 < d < n_features]
    return by_validation(grid, X)


TOY_PEERS = {
    "GaussianMixture, BIC": mixture_by_bic,
    "KernelDensity": kernel_density,
    "normal distribution": normal_distribution,
}
TABLE_PEERS = {
    "GaussianMixture, BIC": partial(mixture_by_bic, sizes=MIXTURE_SIZES),
    "GaussianMixture, valid.": mixture_by_validation,
    "KernelDensity": kernel_density,
    "FactorAnalysis": partial(linear_model, FactorAnalysis),
    "PCA": partial(linear_model, PCA),
    "normal distribution": normal_distribution,
}


def zuko_spline(n_features, n_transforms):
    """Autoregressive rational-quadratic splines, 8 bins, 64 x 64, random orders."""
    import zuko

    flow = zuko.flows.NSF(
        n_features, transforms=n_transforms, bins=8, hidden_features=(64, 64), randperm=True
    )
    return flow, lambda rows: flow().log_prob(rows)


def nflows_spline(n_features, n_transforms):
    """Rational-quadratic coupling splines, 8 bins, 64 x 64, random permutations."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import (
        CompositeTransform,
        PiecewiseRationalQuadraticCouplingTransform,
        RandomPermutation,
    )
    from nflows.utils import create_alternating_binary_mask

    transforms = []
    for i in range(n_transforms):
        transforms += [
            RandomPermutation(n_features),
            PiecewiseRationalQuadraticCouplingTransform(
                create_alternating_binary_mask(n_features, even=i % 2 == 0),
                lambda n_in, n_out: ResidualNet(n_in, n_out, hidden_features=64, num_blocks=1),
                num_bins=8,
                tails="linear",
                tail_bound=5.0,
            ),
        ]
    flow = Flow(CompositeTransform(transforms), StandardNormal([n_features]))
    return flow, flow.log_prob


def seconds_to_gap(build, X, test, target, settings, limit, seed):
    """CPU seconds of Adam until the mean of test log-densities reaches a target, inf if never.

    Rows are standardised tensors. A look at the test rows every 100 steps is not counted.
    """
    n_transforms, learning_rate, batch_size = settings
    torch.manual_seed(seed)
    flow, log_prob = build(X.shape[1], n_transforms)
    optimizer = torch.optim.Adam(flow.parameters(), learning_rate, fused=True)
    seconds, best, step = 0.0, -np.inf, 0
    while seconds < limit:
        start = time.process_time()
        for _ in range(100):
            batch = X[torch.randint(len(X), (batch_size,))]
            optimizer.zero_grad()
            (-log_prob(batch).mean()).backward()
            optimizer.step()
        seconds += time.process_time() - start
        step += 100
        with torch.no_grad():
            best = max(best, log_prob(test).mean().item())
        if best >= target:
            return seconds, step, best
    return np.inf, step, best


SPLINES = {"zuko NSF": zuko_spline, "nflows RQ-NSF": nflows_spline}
