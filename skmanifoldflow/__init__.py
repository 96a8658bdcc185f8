"""Density and low-dimensional structure of data, behind scikit-learn's API."""

from ._chart_atlas import ChartAtlasFlow
from ._describe import Column, Columns
from ._dimension import DimensionReport
from ._joint_manifold import JointManifoldFlow
from ._manifold_prior import ManifoldPriorFlow
from ._noisy_injective import NoisyInjectiveFlow
from ._version import __version__

__all__ = [
    "ChartAtlasFlow",
    "Column",
    "Columns",
    "DimensionReport",
    "JointManifoldFlow",
    "ManifoldPriorFlow",
    "NoisyInjectiveFlow",
    "__version__",
]
