"""Manifolds of known dimension, with exact densities, to judge estimators against.

Every data set is a small class: draw rows with ``sample``, compare a model's log-density with
``log_density`` (rows with noise, Lebesgue measure of R^D) or ``log_density_manifold`` (noiseless
rows, the manifold's own volume), and judge a model's samples with ``distance``.
"""

from ._composite import StickAndBall, TorusSphere
from ._curves import FigureEight, Helix, Line, SinCurve, TrefoilKnot
from ._high_dimensional import FadingSquare, RandomNetwork
from ._polynomial_surface import PolynomialSurface
from ._spheres import LinkedCircles, Sphere, TwoSpheres
from ._surfaces import Paraboloid, SCurve, SwissRoll, Torus

__all__ = [
    "FadingSquare",
    "FigureEight",
    "Helix",
    "Line",
    "LinkedCircles",
    "Paraboloid",
    "PolynomialSurface",
    "RandomNetwork",
    "SCurve",
    "SinCurve",
    "Sphere",
    "StickAndBall",
    "SwissRoll",
    "Torus",
    "TorusSphere",
    "TrefoilKnot",
    "TwoSpheres",
]
