"""Coordinates of the manifold of each stage, in data units and along principal axes."""

from typing import cast

import torch
from torch import Tensor

from .._geometry import affordable_rows, columns_in_data_units, varying_columns
from .._linear import principal_axes
from ..backend.device import to_host
from ..backend.flow import ManifoldFlow, chunks
from ..backend.geometry import jacobian_columns
from ..backend.standardize import Standardizer
from .distribution import PenalizedSplit

__all__ = ["set_coordinates"]


@torch.no_grad()
def set_coordinates(
    flow: ManifoldFlow,
    standardizer: Standardizer,
    rows: torch.Tensor,
    guide_scale: torch.Tensor | None = None,
) -> None:
    """Set the matrix `components` of every stage, which turns manifold parts into coordinates.

    Let u be the manifold part of a row at a stage, J the Jacobian of the map from u to rows in data
    units, and M the mean of J'J over the rows. A step of length one in u M^(1/2) moves a row by one
    unit, root mean square over the rows. The coordinates are the principal components of u M^(1/2).
    With a guide those of the first stage are the guide's, in units of which one has the length that
    M gives it in the mean over all directions.

    Parameters
    ----------
    flow : ManifoldFlow
        Trained flow with a `PenalizedSplit` distribution, which is changed in place.
    standardizer : Standardizer
        Standardisation of the rows.
    rows : Tensor of shape (n, D)
        Standardised rows, in random order: the metric M is the mean over the first of them.
    guide_scale : Tensor of shape (d,), default=None
        What turns u of the first stage into the coordinates of a guide, along their principal axes.
    """
    n_features = rows.shape[1]
    varies = varying_columns(rows)
    z = torch.cat(
        [
            flow.bijection.forward_and_log_det(rows[chunk])[0]
            for chunk in chunks(len(rows), n_features)
        ]
    )
    split = cast(PenalizedSplit, flow.latent)
    for stage, latent in enumerate(split.stages, start=1):
        d = latent.n_components

        def decode(u: Tensor, stage: int = stage) -> Tensor:
            return flow.decode(split.embed_stage(u, stage))

        metric = torch.zeros(d, d, dtype=torch.float64)
        u = split.project_stage(z, stage)
        picked = u[: affordable_rows(n_features * d)]
        for chunk in chunks(len(picked), n_features * d):
            x, columns = jacobian_columns(decode, picked[chunk], torch.eye(d).to(picked))
            columns = columns_in_data_units(standardizer, x, columns, varies)
            metric += (columns.mT @ columns).sum(0) / len(picked)
        if guide_scale is not None and stage == 1:
            scale = to_host(guide_scale).double()
            length = (metric.diagonal() / scale.square()).mean().sqrt()
            root = torch.diag(scale * (length if length > 0 else 1.0))
            latent.components = _along_principal_axes(u, root).to(latent.components)
            continue
        lengths, directions = torch.linalg.eigh(metric)
        # A direction that moves no row gets the length of the one that moves rows most, so that the
        # matrix keeps its rank, whatever the units of the rows.
        largest = lengths.max() if lengths.max() > 0 else lengths.new_ones(())
        lengths = torch.where(lengths > 0, lengths, largest).sqrt()
        root = directions * lengths @ directions.T
        latent.components = _along_principal_axes(u, root).to(latent.components)


def _along_principal_axes(u: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """Return the matrix (d, d) that turns u (n, d) into the principal components of u `root`."""
    _, axes, _ = principal_axes((to_host(u) @ root).numpy())
    return root @ torch.tensor(axes)
