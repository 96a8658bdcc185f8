"""Injections start at a linear factor model of the rows: probabilistic PCA or factor analysis."""

import numpy as np
import torch

from .._linear import factor_analysis, principal_axes
from .injections import SquareInjection
from .stochastic_coupling import StochasticCoupling
from .upsampling import UpsamplingInjection

__all__ = ["initialize_injection"]


def initialize_injection(injection, y, noise_covariance, smallest):
    """Start an injection at its linear ancestor, fitted to rows y: PCA or factor analysis."""
    if isinstance(injection, UpsamplingInjection):
        injection.initialize(torch.tensor(y), smallest)
    elif isinstance(injection, StochasticCoupling):
        n_first = injection.first.n_features
        initialize_injection(injection.first, y[:, :n_first], noise_covariance, smallest)
        initialize_injection(injection.second, y[:, n_first:], noise_covariance, smallest)
    elif isinstance(injection, SquareInjection):
        injection.initialize(*map(torch.tensor, principal_axes(y)))
    else:
        d = injection.n_components
        mean, axes, eigenvalues = principal_axes(y)
        rest = eigenvalues[d:].mean(keepdims=True) if d < len(eigenvalues) else np.zeros(1)
        noise = np.maximum(rest, injection.noise_floor**2)
        directions, variances = axes[:, :d], eigenvalues[:d] - noise
        if noise_covariance == "diag":
            variances = np.maximum(variances, 0.0)
            start = (directions, variances, np.broadcast_to(noise, mean.shape))
            directions, variances, noise = factor_analysis(
                y - mean, start, injection.noise_floor**2
            )
        injection.initialize(*map(torch.tensor, (mean, directions, variances, noise)), smallest)
