"""Displays in the manner of scikit-learn; matplotlib is imported when one is drawn.

Each has a class method ``from_estimator`` that computes what is drawn and draws it. The display
keeps the numbers and, after drawing, the matplotlib objects, in attributes that end in an
underscore: what is not an argument can be changed there.
"""

from ._atlas import AtlasDisplay

# Not part of the interface: the command line needs it too.
from ._base import check_matplotlib as check_matplotlib
from ._embedding import EmbeddingDisplay
from ._loss_curve import LossCurveDisplay
from ._samples import SampleDisplay
from ._spectrum import SpectrumDisplay

__all__ = [
    "AtlasDisplay",
    "EmbeddingDisplay",
    "LossCurveDisplay",
    "SampleDisplay",
    "SpectrumDisplay",
]
