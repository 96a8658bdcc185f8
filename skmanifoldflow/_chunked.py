"""Rows go to the flow chunk by chunk, and what comes back is in units and names of the data."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config
from sklearn.utils.validation import check_is_fitted

from ._checks import check_rows
from ._state import StoredFlow
from ._table import rows_to_tensor
from .backend.device import statistics_dtype, to_host
from .backend.flow import FlowModel, chunks

__all__ = ["ChunkedFlow"]


class ChunkedFlow(StoredFlow):
    """A stored flow that is applied to rows in bounded memory."""

    def _flow_in(self, dtype) -> FlowModel:
        """Return the fitted flow in the dtype that rows of a numpy dtype are computed in."""
        options = self._flow.tensor_options
        wanted = torch.float32 if dtype == np.float32 else statistics_dtype(options["device"])
        if options["dtype"] == wanted:
            return self._flow
        return copy.deepcopy(self._flow).move_to(options["device"], wanted)

    def _per_chunk(self, rows, function: Callable, dtype, elements_per_row: int):
        """Apply a function of (flow, float64 CPU rows) chunk by chunk; results come to the host."""
        flow = self._flow_in(dtype)
        results = []
        with torch.no_grad():
            for chunk in chunks(len(rows), elements_per_row):
                result = function(flow, rows_to_tensor(rows[chunk]))
                results.append(to_host(result).numpy())
        # float32 has no room for the density of a row that is very far away: it becomes -inf.
        with np.errstate(over="ignore"):
            return np.concatenate(results).astype(dtype, copy=False)

    def _check_rows(self, X):
        check_is_fitted(self)
        return check_rows(self, X, reset=False)

    def _to_flow(self, flow, rows):
        """Return rows for the flow and the log-determinant of their standardisation."""
        standardized, log_det = self._standardizer.forward_and_log_det(rows)
        return standardized.to(**flow.tensor_options), log_det

    def _from_flow(self, rows):
        return self._standardizer.inverse(to_host(rows))

    def _named(self, rows, X=None):
        """Return rows in data units as `set_output` wants them, with the names of the columns.

        The index is that of the rows X that they come from, if it has one.
        """
        container = _get_output_config("transform", self)["dense"]
        if container == "default":
            return rows
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            names = [f"x{j}" for j in range(self.n_features_in_)]
        adapter = ADAPTERS_MANAGER.adapters[container]
        return adapter.create_container(rows, rows if X is None else X, columns=list(names))
