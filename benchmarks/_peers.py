"""Densities to compare with: those of scikit-learn, and the splines of zuko, nflows and flowjax."""

import os
import time
from functools import partial

import numpy as np
import torch
from scipy.stats import norm, rankdata
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KernelDensity

MIXTURE_SIZES = (1, 2, 5, 10, 15, 20, 25, 30)
BANDWIDTHS = np.geomspace(0.01, 2, 24)
# Rows by which a setting is chosen.
MAX_CHOICE = 5000


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


def validated_mixture(X):
    """The best of full and diagonal mixtures of many sizes and regularisations."""
    grid = [
        (f"K={k}", GaussianMixture(k, covariance_type=shape, reg_covar=reg, random_state=0))
        for k in (1, 2, 4, 8, 16, 32)
        for shape in ("full", "diag")
        for reg in (1e-6, 1e-2, 5e-2)
        if k < min(len(X), MAX_CHOICE) // 5
    ]
    best, _ = by_validation(grid, X[:MAX_CHOICE])
    return best.fit(X)


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


class GaussianCopula:
    """A Gaussian copula between the distributions of the columns as they are in the rows.

    Ties, as those of integers, are intervals of the normal scores. They are filled up by a Gibbs
    sampler: each column is drawn within its intervals given the others, and the correlation is
    that of the draws, averaged over the later half of the sweeps (the extended rank likelihood of
    Hoff, Annals of Applied Statistics 1, 2007). Values of samples are values of the rows.
    """

    def __init__(self, n_sweeps=100, random_state=None):
        self.n_sweeps, self.random_state = n_sweeps, random_state

    def fit(self, X):
        n, n_features = X.shape
        rng = np.random.RandomState(self.random_state)
        low, high = ((rankdata(X, m, axis=0) - k) / n for m, k in (("min", 1), ("max", 0)))
        z = norm.ppf(low + (high - low) * rng.uniform(size=X.shape))
        correlations = []
        for sweep in range(self.n_sweeps):
            correlation = np.corrcoef(z.T) if n_features > 1 else np.eye(1)
            # Constant columns, and columns that repeat others, have no place of their own.
            precision = np.linalg.inv(np.nan_to_num(correlation) + 1e-6 * np.eye(n_features))
            for j in range(n_features):
                deviation = precision[j, j] ** -0.5
                mean = z[:, j] - z @ precision[:, j] / precision[j, j]
                ends = (norm.ppf(level[:, j]) for level in (low, high))
                start, stop = (norm.cdf((end - mean) / deviation) for end in ends)
                level = start + (stop - start) * rng.uniform(size=n)
                drawn = mean + deviation * norm.ppf(np.clip(level, 1e-12, 1 - 1e-12))
                # Where the interval is far from the mean no digits are left.
                z[:, j] = np.clip(drawn, norm.ppf(low[:, j]), norm.ppf(high[:, j]))
            if sweep >= self.n_sweeps // 2:
                correlations.append(np.nan_to_num(np.corrcoef(z.T)))
        self.sorted_, self.correlation_ = np.sort(X, axis=0), np.mean(correlations, axis=0)
        self.rng_ = rng
        return self

    def sample(self, n_samples):
        n, n_features = self.sorted_.shape
        z = self.rng_.multivariate_normal(np.zeros(n_features), self.correlation_, n_samples)
        index = np.minimum((norm.cdf(z) * n).astype(int), n - 1)
        return np.take_along_axis(self.sorted_, index, axis=0)


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


# Each function of standardised rows, the settings and a seed returns a function that takes a number
# of steps of Adam, and one that returns the mean log-density of rows.


def torch_training(build, X, settings, seed):
    """Training of a flow of torch."""
    n_transforms, learning_rate, batch_size = settings
    torch.manual_seed(seed)
    X = torch.as_tensor(X, dtype=torch.float32)
    flow, log_prob = build(X.shape[1], n_transforms)
    optimizer = torch.optim.Adam(flow.parameters(), learning_rate, fused=True)

    def train(n_steps):
        for _ in range(n_steps):
            batch = X[torch.randint(len(X), (batch_size,))]
            optimizer.zero_grad()
            (-log_prob(batch).mean()).backward()
            optimizer.step()

    @torch.no_grad()
    def mean_log_density(rows):
        return log_prob(torch.as_tensor(rows, dtype=torch.float32)).mean().item()

    return train, mean_log_density


def compiled_by_jax(flow, learning_rate, batch):
    """A step of Adam for batches of one size, compiled as a whole, and the log-density of rows."""
    import equinox
    import optax

    params, static = equinox.partition(flow, equinox.is_inexact_array)
    optimizer = optax.adam(learning_rate)
    state = optimizer.init(params)

    @equinox.filter_value_and_grad
    def loss_and_gradient(params, batch):
        return -equinox.combine(params, static).log_prob(batch).mean()

    @equinox.filter_jit
    def update(params, state, batch):
        loss, gradient = loss_and_gradient(params, batch)
        updates, state = optimizer.update(gradient, state)
        return equinox.apply_updates(params, updates), state, loss

    @equinox.filter_jit
    def log_prob(params, rows):
        return equinox.combine(params, static).log_prob(rows)

    def step(batch):
        nonlocal params, state
        params, state, loss = update(params, state, batch)
        return params, loss

    update(params, state, batch)
    return step, lambda rows: log_prob(params, rows)


def flowjax_training(X, settings, seed):
    """Training of rational-quadratic couplings, 8 bins, 64 x 64, compiled before it starts."""
    # JAX reads it when it starts; XLA_FLAGS do not keep its matrix products to one thread.
    os.environ["PJRT_NPROC"] = "1"
    import jax
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import StandardNormal
    from flowjax.flows import coupling_flow

    n_transforms, learning_rate, batch_size = settings
    flow = coupling_flow(
        jax.random.key(seed),
        base_dist=StandardNormal((X.shape[1],)),
        transformer=RationalQuadraticSpline(knots=8, interval=5),
        flow_layers=n_transforms,
        nn_width=64,
        nn_depth=2,
    )
    X, rng = np.asarray(X, np.float32), np.random.RandomState(seed)
    step, log_prob = compiled_by_jax(flow, learning_rate, X[:1].repeat(batch_size, axis=0))

    def train(n_steps):
        for _ in range(n_steps):
            done = step(X[rng.randint(len(X), size=batch_size)])
        jax.block_until_ready(done)

    return train, lambda rows: float(log_prob(np.asarray(rows, np.float32)).mean())


def looks(start, X, test, settings, seed, limit, every=100, growth=0.0):
    """CPU seconds, steps and the mean test log-density, again and again while a flow is trained.

    The next look comes `every` steps later, or a share `growth` of the steps until then if that is
    more. Looks are not counted. There are no more of them after `limit` seconds.
    """
    train, mean_log_density = start(X, settings, seed)
    seconds, step = 0.0, 0
    while seconds < limit:
        n_steps = max(every, round(growth * step))
        seconds += timed(train, n_steps)[1]
        step += n_steps
        yield seconds, step, mean_log_density(test)


def seconds_to_gap(start, X, test, target, settings, limit, seed):
    """CPU seconds of Adam until the mean of test log-densities reaches a target, inf if never."""
    best, step = -np.inf, 0
    for seconds, step, value in looks(start, X, test, settings, seed, limit):
        best = max(best, value)
        if best >= target:
            return seconds, step, best
    return np.inf, step, best


SPLINES = {
    "zuko NSF": partial(torch_training, zuko_spline),
    "nflows RQ-NSF": partial(torch_training, nflows_spline),
}
