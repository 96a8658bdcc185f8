"""Laws of the latent variable."""

from .base import LatentLaw
from .injections import (
    GaussianInjection,
    Injection,
    LinearInjection,
    SquareInjection,
    StochasticCoupling,
    UpsamplingInjection,
)
from .learned_covariance import LearnedCovariance
from .noisy_injection import NoisyInjection

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
