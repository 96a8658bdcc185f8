"""A chain of couplings and fixed mixings as one operation with its gradient in closed form.

With small conditioners a training step costs calls, not arithmetic: automatic differentiation makes
some thousand of them. Here a chain is one node of the graph. While it is trained its weights are
one tensor for automatic differentiation, and memory is kept from step to step.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..tape import Pass, Tape
from .base import Bijection

if TYPE_CHECKING:
    from .chain import Chain

__all__ = ["BoundWeights", "FusedLayer", "can_fuse", "run_fused"]


# Rows times columns of the widest tensor where no gradient is asked for. Blocks that stay in the
# cache of a core are mapped twice as fast where there are many columns.
_BLOCK_ELEMENTS = 2**18


class FusedLayer(Bijection):
    """Bijection that knows the gradient of its map, unless it says that it is not `is_fused`."""

    is_fused = True

    def weights(self) -> list[Tensor]:
        """Return the parameters."""
        return []

    @abstractmethod
    def tape(self, run: Pass, weights: Sequence[Tensor], grad_weights: Sequence[Tensor]) -> Tape:
        """Return a tape for rows of a pass, given weights and memory for their gradients."""


class BoundWeights:
    """Weights of the layers of a chain as parts of one vector, while they are trained.

    Parameters
    ----------
    vector : Tensor of shape (n_weights,)
        A leaf of the graph.
    layers : sequence of FusedLayer
        Whose weights lie in the vector one after the other.
    """

    def __init__(self, vector: Tensor, layers: Sequence[FusedLayer]) -> None:
        self.vector = vector
        self.parts = _parts(vector.detach(), [layer.weights() for layer in layers])
        # Records that no graph uses, by the shapes of rows and context and the direction.
        self.free: dict[Any, list[_Record]] = {}


def _parts(vector: Tensor, weights: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Return the parts of a vector that belong to the weights of each layer."""
    parts: list[list[Tensor]] = []
    start = 0
    for of_layer in weights:
        parts.append([])
        for weight in of_layer:
            stop = start + weight.numel()
            parts[-1].append(vector[start:stop].view(weight.shape))
            start = stop
    return parts


class _Record:
    """A pass through a chain of which the gradient can be taken once."""

    def __init__(
        self,
        layers: Sequence[FusedLayer],
        weights: Sequence[Sequence[Tensor]],
        x: Tensor,
        context: Tensor | None,
        inverse: bool,
    ) -> None:
        self.run = Pass(x, context, inverse, keeps=True)
        self.columns, self.grad_columns = (self.run.columns(x.shape[1]) for _ in range(2))
        # One vector, in the order of the chain whatever the direction.
        self.gradient = x.new_empty(sum(w.numel() for part in weights for w in part))
        self.grad_weights = _parts(self.gradient, weights)
        self.tapes = [
            layer.tape(self.run, *of_layer)
            for layer, *of_layer in zip(layers, weights, self.grad_weights, strict=True)
        ]
        self.has_weights = [bool(part) for part in weights]
        if inverse:
            self.tapes.reverse()
            self.has_weights.reverse()
        self.log_dets = [tape.log_det for tape in self.tapes if tape.log_det is not None]

    def forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return rows mapped and their log-determinants."""
        columns = self.columns.copy_(x.t())
        if context is not None and self.run.context is not None:
            self.run.context.copy_(context.t())
        for tape in self.tapes:
            columns = tape.forward(columns)
        log_det = torch.stack(self.log_dets).sum(0) if self.log_dets else x.new_zeros(len(x))
        return columns.t().clone(memory_format=torch.contiguous_format), log_det

    def backward(
        self, grad: Tensor, grad_log_det: Tensor, needs_grad: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of rows and context; those of the weights are written."""
        grad = self.grad_columns.copy_(grad.t())
        # Before the first layer with weights no gradient may be needed.
        first = -1 if needs_grad else self.has_weights.index(True)
        for i in range(len(self.tapes) - 1, max(first, 0) - 1, -1):
            grad = self.tapes[i].backward(grad, grad_log_det, i > first)
        of_context = [tape.grad_context for tape in self.tapes if tape.grad_context is not None]
        return (
            grad.t().clone(memory_format=torch.contiguous_format) if needs_grad else None,
            torch.stack(of_context).sum(0).t() if of_context else None,
        )


class _Fused(torch.autograd.Function):
    """Rows and log-determinants of a chain, given rows, context and weights."""

    @staticmethod
    def forward(
        ctx: Any,
        chain: "Chain",
        inverse: bool,
        x: Tensor,
        context: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.chain, ctx.inverse = chain, inverse
        ctx.key = (x.shape, None if context is None else context.shape, inverse)
        ctx.save_for_backward(x, context, *weights)
        ctx.record = _record(ctx, x, context)
        return ctx.record.forward(x, context)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, context, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            gradient = _differentiable_gradient(ctx.chain, ctx.inverse, x, context, weights, grads)
            return None, None, *gradient
        record: _Record | None = ctx.record
        if record is None:
            record = _record(ctx, x, context)
            record.forward(x, context)
        of_rows, of_context = record.backward(grads[0], grads[1], ctx.needs_input_grad[2])
        # Its memory holds the gradients of the weights from now on.
        ctx.record = None
        if ctx.chain.bound_weights is None:
            flat = [g for part in record.grad_weights for g in part]
        else:
            ctx.chain.bound_weights.free.setdefault(ctx.key, []).append(record)
            flat = [record.gradient]
        return None, None, of_rows, of_context, *flat


def _record(ctx: Any, x: Tensor, context: Tensor | None) -> _Record:
    """Return a record that is free, or a new one."""
    layers, bound = ctx.chain.fused_layers, ctx.chain.bound_weights
    if bound is None:
        return _Record(layers, [layer.weights() for layer in layers], x, context, ctx.inverse)
    if bound.free.get(ctx.key):
        return bound.free[ctx.key].pop()
    return _Record(layers, bound.parts, x, context, ctx.inverse)


def _differentiable_gradient(
    chain: "Chain",
    inverse: bool,
    x: Tensor,
    context: Tensor | None,
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
) -> list[Tensor | None]:
    """Return the gradient with a graph of its own, by automatic differentiation."""
    results = (chain.inverse_by_layer if inverse else chain.forward_by_layer)(x, context)
    # Log-determinants of zero are constants.
    pairs = [(r, g) for r, g in zip(results, grads, strict=True) if r.requires_grad]
    if chain.bound_weights is not None:
        weights = [w for layer in chain.fused_layers for w in layer.weights()]
    inputs = [x, context, *weights]
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    found = iter(
        torch.autograd.grad(
            [result for result, _ in pairs],
            wanted,
            [grad for _, grad in pairs],
            create_graph=True,
            materialize_grads=True,
        )
    )
    gradient = [next(found) if t is not None and t.requires_grad else None for t in inputs]
    if chain.bound_weights is None:
        return gradient
    return [*gradient[:2], torch.cat([g.flatten() for g in gradient[2:] if g is not None])]


def can_fuse(x: Tensor, context: Tensor | None) -> bool:
    """Tell whether rows may take the closed form: torch.func and forward mode may not."""
    if torch._C._are_functorch_transforms_active():
        return False
    return all(t is None or forward_ad.unpack_dual(t).tangent is None for t in (x, context))


@torch.no_grad()
def _without_gradient(
    chain: "Chain", x: Tensor, context: Tensor | None, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Map rows where no gradient will be asked for; each layer takes the memory of the last."""
    run = Pass(x, context, inverse, keeps=False)
    if context is not None and run.context is not None:
        run.context.copy_(context.t())
    columns, total = x.t().contiguous(), x.new_zeros(len(x))
    for layer in chain.fused_layers[:: -1 if inverse else 1]:
        weights = layer.weights()
        tape = layer.tape(run, weights, weights)
        columns = tape.forward(columns)
        if tape.log_det is not None:
            total += tape.log_det
    return columns.t().contiguous(), total


def run_fused(
    chain: "Chain", x: Tensor, context: Tensor | None, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Map rows through a chain all of whose layers are fused ones."""
    bound = chain.bound_weights
    if torch.is_grad_enabled() and bound is not None:
        return _Fused.apply(chain, inverse, x, context, bound.vector)
    if torch.is_grad_enabled():
        weights = [w for layer in chain.fused_layers for w in layer.weights()]
        if any(t is not None and t.requires_grad for t in (x, context, *weights)):
            return _Fused.apply(chain, inverse, x, context, *weights)
    size = max(1, _BLOCK_ELEMENTS // chain.fused_width)
    if len(x) <= size:
        return _without_gradient(chain, x, context, inverse)
    blocks = [
        _without_gradient(
            chain, x[i : i + size], None if context is None else context[i : i + size], inverse
        )
        for i in range(0, len(x), size)
    ]
    rows, log_dets = zip(*blocks, strict=True)
    return torch.cat(rows), torch.cat(log_dets)
