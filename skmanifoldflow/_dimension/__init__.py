"""Reading a dimension: gaps of spectra, calibrated by nearest neighbours."""

from .mixture import LocalMixture, fit_local_mixture
from .neighbors import calibrate, neighbor_dimension
from .report import Candidate, DimensionReport, read_dimension
from .spectra import Reading, read_spectra, read_spectrum, spectral_dimension

__all__ = [
    "Candidate",
    "DimensionReport",
    "LocalMixture",
    "Reading",
    "calibrate",
    "fit_local_mixture",
    "neighbor_dimension",
    "read_dimension",
    "read_spectra",
    "read_spectrum",
    "spectral_dimension",
]
