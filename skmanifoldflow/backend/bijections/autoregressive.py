"""Autoregressive layers: every column is mapped under the condition of those before it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..networks import MaskedMLP
from .base import Bijection
from .elementwise import AffineMap

__all__ = ["MaskedAutoregressive"]


class MaskedAutoregressive(Bijection):
    """Masked autoregressive layer z_i = f(x_i; x_1, ..., x_(i-1)) with affine f.

    This is MAF (Papamakarios et al., 2017). Data -> latent takes one pass of the conditioner. The
    inverse takes D passes, one after the other, since column i needs those before it: with many
    columns sampling is D times as slow as scoring.

    Parameters
    ----------
    n_features : int
        Number of columns D. At D = 1 the map has learned constants, or parameters given by the
        context alone.
    hidden_layer_sizes : sequence of int
        Hidden layers of the conditioner.
    generator : torch.Generator
        Source of the initial weights.
    n_context : int, default=0
        Number of context columns.
    """

    def __init__(
        self,
        n_features: int,
        hidden_layer_sizes: Sequence[int],
        *,
        generator: torch.Generator,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        self.elementwise = AffineMap()
        self.conditioner = MaskedMLP(
            n_features,
            hidden_layer_sizes,
            self.elementwise.n_params,
            generator=generator,
            n_context=n_context,
        )

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.elementwise.map(x, self.conditioner(x, context))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x, total = z[:, :0], z.new_zeros(len(z))
        for i in range(z.shape[1]):
            # What is not known yet is masked, whatever stands there.
            params = self.conditioner(torch.cat([x, torch.zeros_like(z[:, i:])], dim=1), context)
            column, log_det = self.elementwise.inverse_map(z[:, i : i + 1], params[:, :, i : i + 1])
            x = torch.cat([x, column], dim=1)
            total = total + log_det
        return x, total
