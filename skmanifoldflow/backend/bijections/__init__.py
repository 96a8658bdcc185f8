"""Bijections between data and latent space."""

from .autoregressive import MaskedAutoregressive
from .base import Bijection
from .chain import Chain
from .channel_split import ChannelSplit, squeezed_shapes
from .coupling import AdditiveCoupling, AffineCoupling, Coupling
from .elementwise import AffineMap, ElementwiseMap, ShiftMap
from .fixed_knot_spline import PooledSpline
from .linear import Orthogonal, Permutation, PrincipalAxes
from .marginal_spline import MarginalSpline
from .spline import SplineCoupling, SplineMap
from .stretched import StretchedChain

__all__ = [
    "AdditiveCoupling",
    "AffineCoupling",
    "AffineMap",
    "Bijection",
    "Chain",
    "ChannelSplit",
    "Coupling",
    "ElementwiseMap",
    "MarginalSpline",
    "MaskedAutoregressive",
    "Orthogonal",
    "Permutation",
    "PooledSpline",
    "PrincipalAxes",
    "ShiftMap",
    "SplineCoupling",
    "SplineMap",
    "StretchedChain",
    "squeezed_shapes",
]
