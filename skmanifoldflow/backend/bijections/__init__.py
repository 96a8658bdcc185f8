"""Bijections between data and latent space."""

from .base import Bijection
from .chain import Chain
from .coupling import AdditiveCoupling, AffineCoupling, Coupling
from .linear import Orthogonal, Permutation

__all__ = [
    "AdditiveCoupling",
    "AffineCoupling",
    "Bijection",
    "Chain",
    "Coupling",
    "Orthogonal",
    "Permutation",
]
