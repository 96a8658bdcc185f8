"""Local covariance of a fitted flow at rows, in standardised units and in units of the data."""

from typing import NamedTuple

import torch

from .._geometry import columns_in_data_units
from ..backend.device import to_host
from ..backend.flow import chunks
from ..backend.geometry import jacobian_columns, leading_singular_values, squared_singular_values
from ..backend.standardize import Standardizer

__all__ = ["DataUnits", "elements_per_row", "local_spectra", "spectra_and_lengths"]

# With more columns only the leading eigenvalues are computed, and at fewer rows.
_MAX_FULL_FEATURES = 256
_N_LEADING = 64
_MAX_LEADING_ROWS = 64


class DataUnits(NamedTuple):
    """What expresses derivatives of standardised rows in units of the data.

    Attributes
    ----------
    standardizer : Standardizer
        The standardisation of the fit.
    varies : Tensor of shape (D,)
        Which columns vary, on the CPU. The others have no length.
    mean_variance : float
        Mean variance of these columns; 0 where all rows are equal.
    """

    standardizer: Standardizer
    varies: torch.Tensor
    mean_variance: float

    def slope(self, x):
        """Return the derivative (n, D) of each column in data units at standardised rows x."""
        return self.standardizer.inverse_slope(to_host(x)) * self.varies

    def columns(self, x, columns):
        """Return derivatives (n, D, k) of standardised rows x in data units."""
        return columns_in_data_units(self.standardizer, x, columns, self.varies)


def elements_per_row(n_features):
    """Return the number of elements of a Jacobian at one row."""
    return n_features * min(n_features, _MAX_FULL_FEATURES)


def local_spectra(flow, rows, units=None):
    """Return the eigenvalues (n, D) of the local covariance J C J' at rows, descending.

    The rows are standardised, J is the Jacobian of the latent -> data map and C the covariance of
    the prior. With `units` the eigenvalues are in squared units of the data, divided by the mean
    variance of a column; without, or with more than 256 columns, in standardised units.
    """
    if rows.shape[1] > _MAX_FULL_FEATURES:
        return _leading_spectra(flow, rows)
    x, columns = _local_columns(flow, rows)
    return _spectra(flow, x, columns, units)


def spectra_and_lengths(flow, rows, units, n_components):
    """Return spectra of the local covariance by their units, and the lengths of the axes of C.

    Parameters
    ----------
    flow : ManifoldFlow
        The fitted flow.
    rows : Tensor of shape (n, D)
        Standardised rows.
    units : DataUnits
        Units of the data.
    n_components : int or None
        Number of axes whose lengths are needed.

    Returns
    -------
    spectra : dict of str to ndarray of shape (n, D)
        Eigenvalues in descending order in "standardised" units and, where the rows vary and there
        are at most 256 columns, in "data" units. Beyond 256 columns n is at most 64.
    lengths : Tensor of shape (D,)
        Root mean square length, in units of the data, of J times each axis of C.
    """
    n_features = rows.shape[1]
    if n_features > _MAX_FULL_FEATURES:
        rows = rows[:_MAX_LEADING_ROWS]
        spectra = {"standardised": _leading_spectra(flow, rows).cpu().numpy()}
        x, columns = _local_columns(flow, rows, max(_N_LEADING, n_components or 0))
        lengths = units.columns(x, columns).square().sum(1).mean(0).sqrt()
        # Along the other axes the flow is taken to be an isometry.
        rest = units.slope(x).square().mean().sqrt().expand(n_features - len(lengths))
        return spectra, torch.cat([lengths, rest])
    in_units = {"standardised": None} | ({"data": units} if units.mean_variance > 0 else {})
    parts: dict[str, list] = {name: [] for name in in_units}
    squares = []
    for chunk in chunks(len(rows), elements_per_row(n_features)):
        x, columns = _local_columns(flow, rows[chunk])
        squares.append(units.columns(x, columns).square().sum(1))
        for name, values in parts.items():
            values.append(_spectra(flow, x, columns, in_units[name]))
    spectra = {name: torch.cat(values).numpy() for name, values in parts.items()}
    return spectra, torch.cat(squares).mean(0).sqrt()


def _local_columns(flow, rows, n_columns=None):
    """Return decoded rows (n, D) and J (n, D, k) along the first k axes of C."""
    z = flow.bijection.forward_and_log_det(rows)[0]
    return jacobian_columns(flow.decode, z, flow.latent.eigenvectors.T[:n_columns].to(z))


def _spectra(flow, x, columns, units):
    """Return the eigenvalues (n, D) of J C J', descending, given J along the axes of C."""
    factor = to_host(columns) * to_host(flow.latent.spectrum.sqrt())
    if units is not None:
        factor = units.columns(x, factor) / units.mean_variance**0.5
    return squared_singular_values(factor)


def _leading_spectra(flow, rows):
    """Return the eigenvalues (n, D) of J C J', descending, of which the leading ones are computed.

    The rest are eigenvalues of C, scaled so that the product of all is that of the eigenvalues of
    C, because J preserves volume.
    """
    z, spectrum = flow.bijection.forward_and_log_det(rows)[0], flow.latent.spectrum
    factor = flow.latent.eigenvectors * spectrum.sqrt()
    order = torch.argsort(spectrum, descending=True, stable=True)
    leading = leading_singular_values(flow.decode, z, factor[:, order].to(z), _N_LEADING)
    log_leading = 2 * leading.to(spectrum).log()
    log_rest = spectrum[order[_N_LEADING:]].log()
    missing = spectrum.log().sum() - log_leading.sum(1) - log_rest.sum()
    log_rest = log_rest + missing[:, None] / len(log_rest)
    return torch.cat([log_leading, log_rest], dim=1).exp().sort(dim=1, descending=True).values
