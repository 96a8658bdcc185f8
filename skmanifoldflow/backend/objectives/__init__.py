"""What is minimised to fit a flow."""

from .base import Objective
from .injection_likelihood import InjectionLikelihood
from .joint_likelihood import JointLikelihood
from .spread_likelihood import Geodesics, SpreadLikelihood

__all__ = ["Geodesics", "InjectionLikelihood", "JointLikelihood", "Objective", "SpreadLikelihood"]
