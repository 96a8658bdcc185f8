"""Maps of layers and their gradients, in buffers of their own."""

from .base import ElementwiseKernel, Entries, Kernel, Wiring
from .coupling import CouplingKernel
from .elementwise import AffineKernel, ShiftKernel
from .fixed_knot_spline import KnotMap, MarginalSplineKernel, MarginalTable, knot_table
from .linear import CopyKernel, MatrixKernel, PermutationKernel
from .spline import SplineKernel

__all__ = [
    "AffineKernel",
    "CopyKernel",
    "CouplingKernel",
    "ElementwiseKernel",
    "Entries",
    "Kernel",
    "KnotMap",
    "MarginalSplineKernel",
    "MarginalTable",
    "MatrixKernel",
    "PermutationKernel",
    "ShiftKernel",
    "SplineKernel",
    "Wiring",
    "knot_table",
]
