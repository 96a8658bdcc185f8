"""Coupling layers: one part of the columns conditions the map of the other part."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..engine.kernels import CouplingKernel, Entries, Wiring
from ..networks import MLP
from .base import KernelBijection
from .elementwise import AffineMap, ElementwiseMap, ShiftMap

__all__ = ["AdditiveCoupling", "AffineCoupling", "Coupling"]


class Coupling(KernelBijection):
    """Coupling layer (Dinh et al., ICLR 2015 and 2017).

    The first D - `n_transformed` columns pass unchanged and, with the context, feed the conditioner
    that parametrises an elementwise map of the last `n_transformed` columns.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    n_transformed : int
        Number of columns that are mapped, 1 <= n_transformed <= D. With n_transformed = D the map
        is elementwise, with learned constants or with parameters given by the context alone.
    elementwise : ElementwiseMap
        Map of the last columns.
    hidden_layer_sizes : sequence of int
        Hidden layers of the conditioner.
    generator : torch.Generator
        Source of the initial weights.
    n_context : int, default=0
        Number of context columns.
    """

    is_in_place = True

    def __init__(
        self,
        n_features: int,
        n_transformed: int,
        elementwise: ElementwiseMap,
        hidden_layer_sizes: Sequence[int],
        *,
        generator: torch.Generator,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= n_transformed <= n_features:
            raise ValueError(
                f"n_transformed must be between 1 and n_features={n_features}, got {n_transformed}."
            )
        self.n_passed = n_features - n_transformed
        self.n_transformed = n_transformed
        self.elementwise = elementwise
        self.n_log_slopes = n_transformed if elementwise.has_log_slopes else 0
        self.conditioner = MLP(
            self.n_passed + n_context,
            hidden_layer_sizes,
            elementwise.n_params * n_transformed,
            generator=generator,
        )

    def _params(self, passed: Tensor, context: Tensor | None) -> Tensor:
        inputs = passed if context is None else torch.cat([passed, context], dim=1)
        shape = self.elementwise.n_params, self.n_transformed
        return self.conditioner(inputs).unflatten(1, shape)

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        passed, moved = x[:, : self.n_passed], x[:, self.n_passed :]
        moved, log_det = self.elementwise.map(moved, self._params(passed, context))
        return torch.cat([passed, moved], dim=1), log_det

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        passed, moved = z[:, : self.n_passed], z[:, self.n_passed :]
        params = self._params(passed, context)
        moved, log_det = self.elementwise.map(moved, params, inverse=True)
        return torch.cat([passed, moved], dim=1), log_det

    def weights(self) -> list[Tensor]:
        return self.conditioner.weights()

    def structure(self) -> Hashable:
        return "coupling", self.n_passed, self.n_transformed, self.elementwise.structure()

    def kernel(self, wiring: Wiring) -> CouplingKernel:
        shape = self.n_transformed, wiring.x.shape[2]
        logs = wiring.log_slopes, wiring.grad_log_det
        entries = Entries(wiring.space, shape, wiring.inverse, None, *logs)
        return CouplingKernel(wiring, self.n_passed, self.elementwise.kernel(entries))


class AdditiveCoupling(Coupling):
    """Additive coupling z_b = x_b + t(x_a), volume preserving (NICE, Dinh et al., ICLR 2015).

    Parameters are those of `Coupling`, with one shift per mapped column.
    """

    def __init__(
        self, n_features: int, n_transformed: int, hidden_layer_sizes: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(n_features, n_transformed, ShiftMap(), hidden_layer_sizes, **kwargs)


class AffineCoupling(Coupling):
    """Affine coupling z_b = x_b exp(s(x_a)) + t(x_a) (Dinh et al., ICLR 2017).

    The log-scale is bounded softly, see `AffineMap`.

    Parameters are those of `Coupling`, and:

    volume_preserving : bool, default=False
        Subtract from the log-scales their mean over the mapped columns, which makes the
        log-determinant zero (Sorrenson et al., ICLR 2020). With one mapped column the layer is then
        additive.
    """

    def __init__(
        self,
        n_features: int,
        n_transformed: int,
        hidden_layer_sizes: Sequence[int],
        *,
        volume_preserving: bool = False,
        **kwargs: Any,
    ) -> None:
        affine = AffineMap(volume_preserving)
        super().__init__(n_features, n_transformed, affine, hidden_layer_sizes, **kwargs)
