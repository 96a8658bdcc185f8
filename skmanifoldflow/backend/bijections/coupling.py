"""Coupling layers: one part of the columns conditions the map of the other part."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..networks import MLP
from .elementwise import AffineMap, ElementwiseMap, ShiftMap
from .fused import FusedLayer

__all__ = ["AdditiveCoupling", "AffineCoupling", "Coupling"]


class Coupling(FusedLayer):
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
        self.conditioner = MLP(
            self.n_passed + n_context,
            hidden_layer_sizes,
            elementwise.n_params * n_transformed,
            generator=generator,
        )

    def _split(self, rows: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the passed columns, the others and their parameters."""
        passed, moved = rows[:, : self.n_passed], rows[:, self.n_passed :]
        inputs = passed if context is None else torch.cat([passed, context], dim=1)
        params = self.conditioner(inputs)
        return passed, moved, params.unflatten(1, (self.elementwise.n_params, self.n_transformed))

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        passed, moved, params = self._split(x, context)
        moved, log_det = self.elementwise.map(moved, params)
        return torch.cat([passed, moved], dim=1), log_det

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        passed, moved, params = self._split(z, context)
        moved, log_det = self.elementwise.inverse_map(moved, params)
        return torch.cat([passed, moved], dim=1), log_det

    def weights(self) -> list[Tensor]:
        return self.conditioner.weights()

    def evaluate(
        self,
        x: Tensor,
        context: Tensor | None,
        weights: Sequence[Tensor],
        inverse: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None, Any]:
        passed, moved = x[: self.n_passed], x[self.n_passed :]
        inputs = passed if context is None else torch.cat([passed, context])
        n_padding = self.elementwise.n_padding * self.n_transformed
        params, of_network = self.conditioner.evaluate(inputs, weights, n_padding, keep)
        moved, log_det, of_map = self.elementwise.evaluate(moved, params, inverse)
        return torch.cat([passed, moved]), log_det, (of_network, of_map)

    def pullback(
        self,
        kept: Any,
        grad: Tensor,
        grad_log_det: Tensor,
        weights: Sequence[Tensor],
        grad_weights: Sequence[Tensor],
        inverse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        of_network, of_map = kept
        grad_passed, grad_moved = grad[: self.n_passed], grad[self.n_passed :]
        grad_v, grad_params = self.elementwise.pullback(of_map, grad_moved, grad_log_det, inverse)
        grad_inputs = self.conditioner.pullback(of_network, grad_params, weights, grad_weights)
        if len(grad_inputs) == self.n_passed:
            return torch.cat([grad_inputs.add_(grad_passed), grad_v]), None
        grad_inputs[: self.n_passed] += grad_passed
        return torch.cat([grad_inputs[: self.n_passed], grad_v]), grad_inputs[self.n_passed :]


class AdditiveCoupling(Coupling):
    """Additive coupling z_b = x_b + t(x_a), volume preserving (NICE, Dinh et al., ICLR 2015).

    Parameters are those of `Coupling`, with one shift per mapped column.
    """

    def __init__(
        self,
        n_features: int,
        n_transformed: int,
        hidden_layer_sizes: Sequence[int],
        *,
        generator: torch.Generator,
        n_context: int = 0,
    ) -> None:
        super().__init__(
            n_features,
            n_transformed,
            ShiftMap(),
            hidden_layer_sizes,
            generator=generator,
            n_context=n_context,
        )


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
        generator: torch.Generator,
        n_context: int = 0,
        volume_preserving: bool = False,
    ) -> None:
        super().__init__(
            n_features,
            n_transformed,
            AffineMap(volume_preserving),
            hidden_layer_sizes,
            generator=generator,
            n_context=n_context,
        )
