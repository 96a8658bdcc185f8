"""What the report answers: each answer in words, and with a line of Python."""

from .answer import Answer
from .columns import about_columns
from .density import about_density, density_in_data_units
from .dimension import about_dimension
from .islands import MAX_MAP_ROWS, Map, about_islands, fit_map
from .new_rows import about_samples
from .strange_rows import (
    N_STRANGE,
    StrangeRows,
    about_strange_rows,
    detector_of,
    find_strange_rows,
    p_values_of,
)

__all__ = [
    "MAX_MAP_ROWS",
    "N_STRANGE",
    "Answer",
    "Map",
    "StrangeRows",
    "about_columns",
    "about_density",
    "about_dimension",
    "about_islands",
    "about_samples",
    "about_strange_rows",
    "density_in_data_units",
    "detector_of",
    "find_strange_rows",
    "fit_map",
    "p_values_of",
]
