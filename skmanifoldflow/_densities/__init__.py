"""Estimators around any density: what has `fit` and `score_samples`."""

from .classifier import DensityClassifier
from .jacobians import log_abs_det_jacobian
from .novelty import NoveltyDetector
from .transformed import TransformedDensity

__all__ = ["DensityClassifier", "NoveltyDetector", "TransformedDensity", "log_abs_det_jacobian"]
