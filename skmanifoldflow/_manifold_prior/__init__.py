"""ManifoldPriorFlow: a volume-preserving flow with a learned prior (Zhang et al., 2023)."""

from .estimator import ManifoldPriorFlow

__all__ = ["ManifoldPriorFlow"]
