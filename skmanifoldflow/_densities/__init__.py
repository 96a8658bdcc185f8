"""Estimators around any density: what has `fit` and `score_samples`."""

from .classifier import DensityClassifier
from .jacobians import log_abs_det_jacobian
from .novelty import NoveltyDetector
from .stacking import StackingDensity
from .transformed import TransformedDensity

__all__ = [
    "DensityClassifier",
    "NoveltyDetector",
    "StackingDensity",
    "TransformedDensity",
    "log_abs_det_jacobian",
]
