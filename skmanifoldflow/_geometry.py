"""Local geometry of a fitted flow: spectra of its covariance, and lengths in data units."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .backend.device import to_host
from .backend.flow import ManifoldFlow, chunks
from .backend.geometry import (
    jacobian_columns,
    leading_singular_values,
    squared_singular_values,
)

__all__ = [
    "MAX_FULL_FEATURES",
    "affordable_rows",
    "columns_in_data_units",
    "in_float64_on_cpu",
    "local_spectra",
    "mean_spectrum",
    "noise_variance_read",
    "spectra_in_data_units",
    "timed_chunks",
    "varying_columns",
]

# Standard deviation, in standardised units, of what counts as noise when a dimension is read.
_NOISE_READ = 0.02
# Rows and matrix entries that a global reading of the geometry may cost.
_MAX_ROWS = 256
_MAX_ENTRIES = 2**20
# Rows that are read whatever the time.
_TIMED_ROWS = 32
# With more columns only so many leading eigenvalues are computed at a scale.
MAX_FULL_FEATURES = 256
_N_LEADING = 20


def noise_variance_read(noise_floor):
    """Return the variance, in standardised units, of what counts as noise."""
    return max(noise_floor, _NOISE_READ) ** 2


def affordable_rows(n_entries, max_rows=_MAX_ROWS, max_entries=_MAX_ENTRIES):
    """Return the number of rows whose Jacobians of so many entries are affordable."""
    return max(2, min(max_rows, max_entries // n_entries))


def varying_columns(rows):
    """Return which columns (D,) of standardised rows vary, all of them if none does.

    A constant column has a scale by convention only, on which no length should depend.
    """
    varies = (rows != 0).any(dim=0)
    return varies if bool(varies.any()) else torch.ones_like(varies)


def columns_in_data_units(standardizer, x, columns, varies):
    """Return derivatives (n, D, k) of standardised rows x (n, D) in data units."""
    slope = standardizer.inverse_slope(to_host(x)) * varies.cpu()
    return slope[:, :, None] * to_host(columns)


def local_spectra(flow, rows):
    """Return the eigenvalues (n, D) of J C J' at standardised rows, descending.

    J is the Jacobian of the latent -> data map and C the covariance of the latent distribution.
    """
    z = flow.bijection.forward_and_log_det(rows)[0]
    factor = flow.latent.covariance_factor().to(z)
    _, columns = jacobian_columns(flow.decode, z, factor.T)
    return squared_singular_values(columns)


def spectra_in_data_units(flow, standardizer, rows):
    """Return the eigenvalues (n, k) of J C J' at standardised rows, in squared units of the data.

    They are all of them, descending, with at most 256 columns, and the 20 largest with more.
    """

    def decode(z):
        return standardizer.inverse(to_host(flow.decode(z)))

    z = flow.bijection.forward_and_log_det(rows)[0]
    factor = flow.latent.covariance_factor().to(z)
    if rows.shape[1] > MAX_FULL_FEATURES:
        longest = factor.norm(dim=0).argsort(descending=True, stable=True)
        return leading_singular_values(decode, z, factor[:, longest], _N_LEADING).square()
    return squared_singular_values(jacobian_columns(decode, z, factor.T)[1])


def timed_chunks(n_rows, elements_per_row, deadline):
    """Cut n rows into slices; after the deadline, of `time.monotonic`, there is only the first."""
    if deadline is None:
        yield from chunks(n_rows, elements_per_row)
        return
    for start in range(0, n_rows, _TIMED_ROWS):
        if start and time.monotonic() > deadline:
            return
        for chunk in chunks(min(_TIMED_ROWS, n_rows - start), elements_per_row):
            yield slice(start + chunk.start, start + chunk.stop)


def mean_spectrum(flow, rows, deadline=None):
    """Return the geometric mean (D,) of the local spectra at rows, as an ndarray.

    After the deadline it is that of the first of them.
    """
    spectra = []
    with torch.no_grad():
        for chunk in timed_chunks(len(rows), rows.shape[1] ** 2, deadline):
            spectra.append(local_spectra(flow, rows[chunk]))
    return torch.cat(spectra).log().mean(0).exp().numpy()


@contextmanager
def in_float64_on_cpu(flow: ManifoldFlow) -> Iterator[None]:
    """Compute on the CPU, where there is float64 in any case, and in float32 on its device after.

    Starts in closed form are computed there.
    """
    device = flow.latent.mean.device
    flow.move_to(torch.device("cpu"), torch.float64)
    try:
        yield
    finally:
        flow.move_to(device, torch.float32)
