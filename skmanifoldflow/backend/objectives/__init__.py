"""What is minimised to fit a flow."""

from .atlas_likelihood import AtlasLikelihood
from .base import Objective
from .injection_likelihood import InjectionLikelihood
from .joint_likelihood import JointLikelihood
from .quantization import Quantization
from .spread_likelihood import Geodesics, SpreadLikelihood

__all__ = [
    "AtlasLikelihood",
    "Geodesics",
    "InjectionLikelihood",
    "JointLikelihood",
    "Objective",
    "Quantization",
    "SpreadLikelihood",
]
