"""Coupling layers: one part of the columns conditions the map of the other part."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..networks import MLP, MLPTape, StackedMLPTape
from ..tape import Pass, Tape
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
        self.n_log_slopes = n_transformed if elementwise.has_log_slopes else 0
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

    def tape(
        self, run: Pass, weights: Sequence[Tensor], grad_weights: Sequence[Tensor]
    ) -> "_CouplingTape":
        return _CouplingTape(self, run, weights, grad_weights)


class _CouplingTape(Tape):
    in_place = True

    def __init__(
        self,
        layer: Coupling,
        run: Pass,
        weights: Sequence[Tensor],
        grad_weights: Sequence[Tensor],
    ) -> None:
        self.run = run
        self.n_passed = layer.n_passed
        self.map = layer.elementwise.tape(run, layer.n_transformed)
        network = MLPTape if run.n_stack == 1 else StackedMLPTape
        self.network = network(run, weights, grad_weights)

    def forward(self, x: Tensor) -> Tensor:
        run = self.run
        inputs, moved = x.tensor_split([self.n_passed])
        if run.context is not None:
            parts = [inputs, run.context]
            inputs = run.memory(self.n_passed + len(run.context), run.n_rows)
            run.call(torch.cat, parts, out=inputs)
        self.network.forward(inputs, self.map.params)
        self.map.forward(moved)
        return x

    def backward(self, grad: Tensor, needs_grad: bool) -> Tensor:
        run = self.run
        of_passed, of_moved = grad.tensor_split([self.n_passed])
        self.network.backward(self.map.backward(of_moved))
        if run.grad_context is not None:
            of_inputs = run.memory(self.n_passed + len(run.grad_context), run.n_rows)
            of_network, of_context = of_inputs.tensor_split([self.n_passed])
            run.call(of_inputs.zero_)
            self.network.add_input_gradient(of_inputs)
            run.call(of_passed.add_, of_network)
            run.call(run.grad_context.add_, of_context)
        elif needs_grad:
            self.network.add_input_gradient(of_passed)
        return grad


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
