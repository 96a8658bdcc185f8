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
from .penalized_split import PenalizedSplit
from .penalties import PENALTIES, Penalty
from .stochastic_coupling import StochasticCoupling

__all__ = [
    "PENALTIES",
    "GaussianInjection",
    "Injection",
    "LatentLaw",
    "LearnedCovariance",
    "LinearInjection",
    "NoisyInjection",
    "PenalizedSplit",
    "Penalty",
    "SquareInjection",
    "StochasticCoupling",
    "UpsamplingInjection",
]
