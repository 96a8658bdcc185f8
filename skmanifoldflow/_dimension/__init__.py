"""Reading a dimension: nearest neighbours calibrated by a mixture, and gaps of spectra."""

from .calibration import calibrate
from .intrinsic import intrinsic_dimension, read_distinct_rows
from .mixture import LocalMixture, fit_local_mixture, fit_local_mixtures
from .neighbors import SCALES, neighbor_dimensions
from .report import DimensionReport
from .spectra import (
    Reading,
    check_scale,
    dimension_at_scale,
    read_spectra,
    read_spectrum,
    spectral_dimension,
)
from .units import prepare_rows

__all__ = [
    "SCALES",
    "DimensionReport",
    "LocalMixture",
    "Reading",
    "calibrate",
    "check_scale",
    "dimension_at_scale",
    "fit_local_mixture",
    "fit_local_mixtures",
    "intrinsic_dimension",
    "neighbor_dimensions",
    "prepare_rows",
    "read_distinct_rows",
    "read_spectra",
    "read_spectrum",
    "spectral_dimension",
]
