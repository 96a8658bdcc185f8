"""Laws of the latent variable."""

from .base import LatentLaw
from .injections import (
    GaussianInjection,
    Injection,
    LinearInjection,
    SquareInjection,
    UpsamplingInjection,
)
from .learned_covariance import LearnedCovariance
from .noisy_injection import NoisyInjection
from .stochastic_coupling import StochasticCoupling

__all__ = [
    "GaussianInjection",
    "Injection",
    "LatentLaw",
    "LearnedCovariance",
    "LinearInjection",
    "NoisyInjection",
    "SquareInjection",
    "StochasticCoupling",
    "UpsamplingInjection",
]
