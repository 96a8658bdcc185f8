"""Laws of the latent variable."""

from .base import LatentLaw
from .learned_covariance import LearnedCovariance

__all__ = ["LatentLaw", "LearnedCovariance"]
