"""Density and low-dimensional structure of data, behind scikit-learn's API."""

from ._chart_atlas import ChartAtlasFlow
from ._dimension import DimensionReport, intrinsic_dimension
from ._joint_manifold import JointManifoldFlow
from ._manifold_prior import ManifoldPriorFlow
from ._noisy_injective import NoisyInjectiveFlow
from ._version import __version__

__all__ = [
    "ChartAtlasFlow",
    "DimensionReport",
    "JointManifoldFlow",
    "ManifoldPriorFlow",
    "NoisyInjectiveFlow",
    "__version__",
    "intrinsic_dimension",
]
