"""NoisyInjectiveFlow: a flow above an injective map with normal noise (Cunningham et al., 2020)."""

from .estimator import NoisyInjectiveFlow

__all__ = ["NoisyInjectiveFlow"]
