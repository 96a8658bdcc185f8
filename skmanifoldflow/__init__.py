"""Density and low-dimensional structure of data, behind scikit-learn's API."""

__version__ = "0.1.0"

from ._manifold_prior import ManifoldPriorFlow

__all__ = ["ManifoldPriorFlow", "__version__"]
