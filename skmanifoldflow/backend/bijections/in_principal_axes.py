"""A volume-preserving map taken in the principal axes of the rows."""

import torch
from torch import Tensor

from ..engine import VJP
from .base import Bijection
from .linear import PrincipalAxes

__all__ = ["InPrincipalAxes"]


class InPrincipalAxes(Bijection):
    """Rows turned to their principal axes, mapped there in units of their standard deviations.

    z = S h(S^-1 Q'(x - m)) with h of unit volume, S the standard deviations along the axes Q: what
    S^-1 takes from the volume S gives back. Before the first step, h the identity, it is a rotation
    of the centred rows. The axes are taken from rows by `initialize` and not trained.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    inner : Bijection
        The volume-preserving map h.
    floor : float
        Smallest standard deviation that counts as one.
    """

    def __init__(self, n_features: int, inner: Bijection, *, floor: float) -> None:
        super().__init__()
        self.axes = PrincipalAxes(n_features, n_features, floor=floor)
        self.inner = inner

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        self.axes.initialize(x)
        return self.forward_and_log_det(x)[0]

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        rows, _ = self.axes.forward_and_log_det(x)
        rows, log_det = self.inner.forward_and_log_det(rows, context)
        return rows * self.axes.scale(), log_det

    @property
    def has_vjp(self) -> bool:
        return self.inner.has_vjp

    def forward_with_vjp(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, VJP]:
        scale = self.axes.scale()
        z, log_det, log_prior, vjp = self.inner.forward_with_vjp(
            self.axes.forward_and_log_det(x)[0]
        )

        def scaled(grad: Tensor, grad_log_det: Tensor, grad_log_prior: float) -> None:
            vjp(grad * scale, grad_log_det, grad_log_prior)

        return z * scale, log_det, log_prior, scaled

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        rows, log_det = self.inner.inverse_and_log_det(z / self.axes.scale(), context)
        rows, _ = self.axes.inverse_and_log_det(rows)
        return rows, log_det
