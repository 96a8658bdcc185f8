"""Density and low-dimensional structure of data, behind scikit-learn's API."""

from ._chart_atlas import ChartAtlasFlow
from ._densities import (
    DensityClassifier,
    NoveltyDetector,
    StackingDensity,
    TransformedDensity,
    log_abs_det_jacobian,
)
from ._describe import Column, Columns
from ._dimension import DimensionReport, intrinsic_dimension
from ._joint_manifold import JointManifoldFlow
from ._manifold_prior import ManifoldPriorFlow
from ._noisy_injective import NoisyInjectiveFlow
from ._version import __version__

__all__ = [
    "ChartAtlasFlow",
    "Column",
    "Columns",
    "DensityClassifier",
    "DimensionReport",
    "JointManifoldFlow",
    "ManifoldPriorFlow",
    "NoisyInjectiveFlow",
    "NoveltyDetector",
    "StackingDensity",
    "TransformedDensity",
    "__version__",
    "intrinsic_dimension",
    "log_abs_det_jacobian",
]
