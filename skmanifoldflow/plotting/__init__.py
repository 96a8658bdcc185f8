"""Displays in the manner of scikit-learn; matplotlib is imported when one is drawn.

Each has a class method ``from_estimator`` that computes what is drawn and draws it, of a model, a
pipeline or a search. Options of matplotlib are given in dictionaries such as ``scatter_kw``; all
else can be changed after drawing through the matplotlib objects that the display keeps, such as
``display.ax_`` and ``display.scatter_``.
"""

from ._anomaly import AnomalyDisplay
from ._atlas import AtlasDisplay

# Not part of the interface: the command line needs it too.
from ._base import check_matplotlib as check_matplotlib
from ._calibration import CalibrationDisplay
from ._density import DensityDisplay
from ._dimension import DimensionDisplay
from ._embedding import EmbeddingDisplay
from ._explanation import ExplanationDisplay
from ._loss_curve import LossCurveDisplay
from ._pairs import PairDisplay
from ._reconstruction import ReconstructionDisplay
from ._samples import SampleDisplay
from ._spectrum import SpectrumDisplay
from ._walk import WalkDisplay

__all__ = [
    "AnomalyDisplay",
    "AtlasDisplay",
    "CalibrationDisplay",
    "DensityDisplay",
    "DimensionDisplay",
    "EmbeddingDisplay",
    "ExplanationDisplay",
    "LossCurveDisplay",
    "PairDisplay",
    "ReconstructionDisplay",
    "SampleDisplay",
    "SpectrumDisplay",
    "WalkDisplay",
]
