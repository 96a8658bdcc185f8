"""JointManifoldFlow: a manifold and the density on it, learned together."""

from .estimator import JointManifoldFlow

__all__ = ["JointManifoldFlow"]
