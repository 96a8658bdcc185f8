"""Density and low-dimensional structure of data, behind scikit-learn's API."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
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

# Importing torch and scikit-learn takes seconds, which `skmanifoldflow --help` does without.
_MODULES = {
    "ChartAtlasFlow": "_chart_atlas",
    "Column": "_describe",
    "Columns": "_describe",
    "DensityClassifier": "_densities",
    "DimensionReport": "_dimension",
    "JointManifoldFlow": "_joint_manifold",
    "ManifoldPriorFlow": "_manifold_prior",
    "NoisyInjectiveFlow": "_noisy_injective",
    "NoveltyDetector": "_densities",
    "StackingDensity": "_densities",
    "TransformedDensity": "_densities",
    "intrinsic_dimension": "_dimension",
    "log_abs_det_jacobian": "_densities",
}
_PUBLIC_MODULES = {"compare", "datasets", "metrics", "model_selection", "plotting", "report"}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    if name in _PUBLIC_MODULES:
        return import_module(f".{name}", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PUBLIC_MODULES})
