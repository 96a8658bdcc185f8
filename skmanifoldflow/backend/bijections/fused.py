"""A chain of couplings and fixed mixings as one operation with its gradient in closed form.

With small conditioners a training step costs calls, not arithmetic: automatic differentiation makes
some thousand of them. Here a chain is one node of the graph, its rows are columns of contiguous
tensors of shape (D, n), so that parts of them are contiguous too, and the weights may be one tensor
for automatic differentiation instead of several for each layer.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .base import Bijection

if TYPE_CHECKING:
    from .chain import Chain

__all__ = ["FusedLayer", "Weights", "can_fuse", "run_fused"]


class FusedLayer(Bijection):
    """Bijection that knows the gradient of its map.

    `evaluate` and `pullback` take and return columns (D, n), and a context (n_context, n).
    """

    is_fused = True

    def weights(self) -> list[Tensor]:
        """Return the parameters."""
        return []

    @abstractmethod
    def evaluate(
        self,
        x: Tensor,
        context: Tensor | None,
        weights: Sequence[Tensor],
        inverse: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None, Any]:
        """Return the columns mapped, their log-determinants, None for zero, and what is kept.

        What is kept for `pullback` may be nothing if not `keep`; `x` is never changed.
        """

    @abstractmethod
    def pullback(
        self,
        kept: Any,
        grad: Tensor,
        grad_log_det: Tensor,
        weights: Sequence[Tensor],
        grad_weights: Sequence[Tensor],
        inverse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of columns and context, given those of the results.

        Gradients of the weights are written into `grad_weights`; nothing else is changed.
        """


class Weights:
    """Weights of the layers of a chain as parts of one vector, and a vector of their gradients.

    Parameters
    ----------
    vector : Tensor of shape (n_weights,)
        A leaf of the graph, whose gradient adds up in `vector.grad`.
    layers : list of FusedLayer
        Whose weights lie in the vector one after the other.
    """

    def __init__(self, vector: Tensor, layers: Sequence[FusedLayer]) -> None:
        self.vector = vector
        self.gradient = torch.empty_like(vector)
        self.parts = _parts(vector.detach(), layers)
        self.gradient_parts = _parts(self.gradient, layers)


def _parts(vector: Tensor, layers: Sequence[FusedLayer]) -> list[list[Tensor]]:
    """Return the part of a vector that belongs to each weight of each layer."""
    parts, start = [], 0
    for layer in layers:
        parts.append([])
        for weight in layer.weights():
            stop = start + weight.numel()
            parts[-1].append(vector[start:stop].view(weight.shape))
            start = stop
    return parts


class _Pass(NamedTuple):
    """One pass through the layers of a chain, in the order of the list."""

    chain: "Chain"
    layers: Sequence[FusedLayer]
    weights: Sequence[Sequence[Tensor]]
    inverse: bool


def _evaluate(
    run: _Pass, x: Tensor, context: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, list[Any]]:
    """Map rows; return them, their log-determinants and what every layer has kept."""
    columns = x.t().contiguous()
    context = None if context is None else context.t()
    log_dets, kept = [], []
    for layer, weights in zip(run.layers, run.weights, strict=True):
        columns, log_det, of_layer = layer.evaluate(columns, context, weights, run.inverse, keep)
        kept.append(of_layer)
        if log_det is not None:
            log_dets.append(log_det)
    total = torch.stack(log_dets).sum(0) if log_dets else x.new_zeros(len(x))
    return columns.t().contiguous(), total, kept


class _Fused(torch.autograd.Function):
    """Rows and log-determinants of a chain; inputs are rows, context and weights."""

    @staticmethod
    def forward(
        ctx: Any, run: _Pass, x: Tensor, context: Tensor | None, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        z, log_det, ctx.kept = _evaluate(run, x, context, keep=True)
        ctx.run = run
        ctx.save_for_backward(x, context, *weights)
        return z, log_det

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        run: _Pass = ctx.run
        if torch.is_grad_enabled():
            return None, *_differentiable_gradient(run, ctx.saved_tensors, grads)
        bound = run.chain.bound_weights
        if bound is None:
            grad_weights = [[torch.empty_like(w) for w in part] for part in run.weights]
        else:
            grad_weights = bound.gradient_parts[:: -1 if run.inverse else 1]
        grad = grads[0].t().contiguous()
        grad_context: Tensor | None = None
        steps = zip(run.layers, ctx.kept, run.weights, grad_weights, strict=True)
        for layer, kept, weights, into in reversed(list(steps)):
            grad, of_context = layer.pullback(kept, grad, grads[1], weights, into, run.inverse)
            if of_context is not None:
                grad_context = of_context if grad_context is None else grad_context + of_context
        if bound is not None:
            flat = [bound.gradient]
        else:
            ordered = reversed(grad_weights) if run.inverse else grad_weights
            flat = [g for part in ordered for g in part]
        rows = grad.t() if ctx.needs_input_grad[1] else None
        return None, rows, None if grad_context is None else grad_context.t(), *flat


def _differentiable_gradient(
    run: _Pass, inputs: Sequence[Tensor | None], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return the gradient with a graph of its own, by automatic differentiation."""
    chain, (x, context, *weights) = run.chain, inputs
    assert x is not None
    method = chain.inverse_by_layer if run.inverse else chain.forward_by_layer
    outputs = [
        (output, grad)
        for output, grad in zip(method(x, context), grads, strict=True)
        # Log-determinants of zero are constants.
        if output.requires_grad
    ]
    if chain.bound_weights is not None:
        weights = [w for layer in chain.fused_layers for w in layer.weights()]
    wanted = [t for t in (x, context, *weights) if t is not None and t.requires_grad]
    found = torch.autograd.grad(
        [output for output, _ in outputs],
        wanted,
        [grad for _, grad in outputs],
        create_graph=True,
        materialize_grads=True,
    )
    rest = iter(found)
    results = [
        next(rest) if t is not None and t.requires_grad else None for t in (x, context, *weights)
    ]
    if chain.bound_weights is None:
        return results
    return [*results[:2], torch.cat([g.flatten() for g in results[2:] if g is not None])]


def can_fuse(x: Tensor, context: Tensor | None) -> bool:
    """Tell whether rows may take the closed form: torch.func and forward mode may not."""
    if torch._C._are_functorch_transforms_active():
        return False
    return all(
        t is None or forward_ad.unpack_dual(t).tangent is None for t in (x, context)
    )


def run_fused(
    chain: "Chain", x: Tensor, context: Tensor | None, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Map rows through a chain all of whose layers are fused ones."""
    layers: Sequence[FusedLayer] = chain.fused_layers
    bound = chain.bound_weights
    weights = [layer.weights() for layer in layers] if bound is None else bound.parts
    order = -1 if inverse else 1
    run = _Pass(chain, layers[::order], weights[::order], inverse)
    if not torch.is_grad_enabled():
        return _evaluate(run, x, context, keep=False)[:2]
    flat = [w for part in weights for w in part] if bound is None else [bound.vector]
    return _Fused.apply(run, x, context, *flat)
