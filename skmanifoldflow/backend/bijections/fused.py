"""A chain of couplings and fixed mixings as one operation with its gradient in closed form.

With small conditioners a training step costs calls, not arithmetic: automatic differentiation makes
some thousand of them. Here a chain is one node of the graph, or none where the gradient of the loss
is known. While it is trained its weights are parts of a few vectors, and what a pass has computed
and called is kept from step to step.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..autodiff import differentiable_gradient
from ..tape import Pass, Tape
from .base import Bijection, PullBack

if TYPE_CHECKING:
    from .chain import Chain

__all__ = ["BoundWeights", "FusedLayer", "Record", "can_fuse", "run_fused"]


# Shapes of rows whose passes are kept while weights are trained.
_MAX_SHAPES = 8
# Where no gradient is asked for, blocks of rows that stay in the cache of a core are mapped faster:
# at least so many rows, and more while the widest tensor has fewer elements.
_BLOCK_ROWS = 512
_BLOCK_ELEMENTS = 2**16


class FusedLayer(Bijection):
    """Bijection that knows the gradient of its map, unless it says that it is not `is_fused`."""

    is_fused = True
    #: Columns of log-derivatives that a tape writes.
    n_log_slopes = 0

    def weights(self) -> list[Tensor]:
        """Return the parameters."""
        return []

    @abstractmethod
    def tape(self, run: Pass, weights: Sequence[Tensor], grad_weights: Sequence[Tensor]) -> Tape:
        """Return a tape for rows of a pass, given weights and memory for their gradients."""


class BoundWeights:
    """Weights of the layers of a chain as parts of vectors, while they are trained.

    Parameters
    ----------
    vectors : sequence of Tensor
        Leaves of the graph, in which the weights lie one after the other.
    layers : sequence of FusedLayer
        Whose weights they are.
    """

    def __init__(self, vectors: Sequence[Tensor], layers: Sequence[FusedLayer]) -> None:
        self.vectors = vectors
        self.layers = layers
        detached = [vector.detach() for vector in vectors]
        self.parts = _parts(detached, [layer.weights() for layer in layers])
        # Records that no graph uses, by what their calls depend on.
        self.free: dict[Any, list[Record]] = {}
        #: Whether the gradients of the vectors are known to be zero. What other passes than those
        #: of this chain add to them before a pull-back is lost while this is set.
        self.is_clean = False

    def take(
        self,
        x: Tensor,
        context: Tensor | None,
        inverse: bool,
        needs_grad: bool,
        gradients: Sequence[Tensor] | None = None,
    ) -> tuple[Any, "Record"]:
        """Return a record that no graph uses, and a key to give it back with."""
        of_context = None if context is None else context.shape
        key = (x.shape, of_context, inverse, needs_grad, gradients is None)
        free = self.free.setdefault(key, [])
        if free:
            return key, free.pop()
        if len(self.free) > _MAX_SHAPES:
            # The memory of the oldest of many shapes, which hardly comes again.
            del self.free[next(iter(self.free))]
        if gradients is None:
            gradients = [torch.empty_like(vector) for vector in self.vectors]
        return key, Record(
            self.layers, self.parts, gradients, x, context, inverse=inverse, keeps=True
        )

    @torch.no_grad()
    def forward_with_pullback(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | float, PullBack]:
        """See `Bijection.forward_with_pullback`; automatic differentiation has no part in it."""
        # What is written anew has not to be added.
        gradients = [cast(Tensor, vector.grad) for vector in self.vectors]
        key, record = self.take(x, None, False, False, gradients)

        @torch.no_grad()
        def pull_back(grad: Tensor, grad_log_det: Tensor, grad_log_prior: float) -> None:
            before = [] if self.is_clean else [gradient.clone() for gradient in gradients]
            record.backward(grad, grad_log_det, False, grad_log_prior)
            for gradient, part in zip(gradients, before, strict=False):
                gradient.add_(part)
            self.is_clean = False
            self.free.setdefault(key, []).append(record)

        return *record.forward(x, None), record.log_prior()[0], pull_back


def _parts(vectors: Sequence[Tensor], weights: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Return the parts of vectors that belong to the weights of each layer."""
    coming = (vector.view(-1) for vector in vectors)
    rest = next(coming, torch.empty(0))
    parts: list[list[Tensor]] = []
    for of_layer in weights:
        parts.append([])
        for weight in of_layer:
            if not len(rest):
                rest = next(coming)
            part, rest = rest.tensor_split([weight.numel()])
            parts[-1].append(part.view(weight.shape))
    return parts


class Record:
    """A pass through layers, that can be made again with other rows.

    Parameters
    ----------
    layers : sequence of FusedLayer
        The layers, data -> latent.
    weights : sequence of sequence of Tensor
        The weights of each.
    gradients : sequence of Tensor or None
        Memory for the gradients of the weights, one after the other, if they will be asked for.
    x, context : Tensor
        Rows, and their context or None, like those that are passed.
    inverse : bool
        Whether the pass goes from latent to data.
    keeps : bool
        Whether there will be other rows.
    n_stack : int, default=1
        Number of fits whose weights are stacked and whose rows lie one after the other.
    """

    def __init__(
        self,
        layers: Sequence[FusedLayer],
        weights: Sequence[Sequence[Tensor]],
        gradients: Sequence[Tensor] | None,
        x: Tensor,
        context: Tensor | None,
        *,
        inverse: bool,
        keeps: bool,
        n_stack: int = 1,
    ) -> None:
        n_log_slopes = sum(layer.n_log_slopes for layer in layers)
        trains = gradients is not None
        self.run = Pass(
            x,
            context,
            n_log_slopes,
            inverse=inverse,
            keeps=keeps,
            trains=trains,
            n_stack=n_stack,
        )
        self.gradients = [] if gradients is None else list(gradients)
        grad_weights = weights if gradients is None else _parts(self.gradients, weights)
        parts = list(zip(layers, weights, grad_weights, strict=True))
        self.parts = parts[::-1] if inverse else parts
        self.tapes: list[Tape] = []
        self.forward_calls: list[Callable[[], Any]] = []
        self.backward_calls: list[Callable[[], Any]] = []

    def forward(
        self, x: Tensor, context: Tensor | None, z: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return rows mapped, in memory of their shape if it is given, and log-determinants."""
        self._set(x, context)
        if self.tapes:
            with torch.inference_mode():
                for call in self.forward_calls:
                    call()
        else:
            self._record_forward()
        result, log_slopes, n = self.result, self.run.log_slopes, len(x)
        if n < self.run.n_rows:
            result, log_slopes = result[:, :n], log_slopes[:, :n]
        z = torch.empty_like(x, memory_format=torch.contiguous_format) if z is None else z
        return z.copy_(result.t()), log_slopes.sum(0)

    def log_prior(self) -> Tensor:
        """Return the log-densities (K,) of the weights under their prior, but for constants."""
        total = self.result.new_zeros(self.run.n_stack)
        for tape in self.tapes:
            if tape.log_prior is not None:
                total += tape.log_prior
        return total

    def _set(self, x: Tensor, context: Tensor | None) -> None:
        columns, of_context = self.run.columns, self.run.context
        if len(x) < self.run.n_rows:
            # The last rows of many.
            columns = columns[:, : len(x)]
            of_context = None if of_context is None else of_context[:, : len(x)]
        columns.copy_(x.t())
        if context is not None and of_context is not None:
            of_context.copy_(context.t())

    def _record_forward(self) -> None:
        run = self.run
        self.result, in_place = run.columns, False
        for layer, *weights in self.parts:
            run.start_layer()
            tape = layer.tape(run, *weights)
            if run.trains and in_place and tape.in_place:
                # What the layer before has made is needed for its gradient.
                copy = torch.empty_like(self.result)
                run.call(copy.copy_, self.result)
                self.result = copy
            self.result, in_place = tape.forward(self.result), tape.in_place
            self.tapes.append(tape)
        self.forward_calls, run.made = run.made, []

    def _record_backward(self, needs_grad: bool) -> None:
        run = self.run
        # Gradients are not needed beyond the layer before.
        run.reuses = True
        if run.grad_context is not None:
            run.call(run.grad_context.zero_)
        grad = self.grad_result
        # Before the first layer with weights no gradient may be needed.
        has_weights = [bool(weights) for _, weights, _ in self.parts]
        first = -1 if needs_grad else has_weights.index(True)
        for i in range(len(self.tapes) - 1, max(first, 0) - 1, -1):
            run.start_layer()
            grad = self.tapes[i].backward(grad, i > first)
        self.grad_columns = grad
        self.backward_calls, run.made = run.made, []

    def backward(
        self, grad: Tensor, grad_log_det: Tensor, needs_grad: bool, grad_log_prior: float = 0.0
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of rows and context; those of the weights are written."""
        run = self.run
        is_first = not self.backward_calls
        if is_first:
            self.grad_result = torch.empty_like(self.result)
        self.grad_result.copy_(grad.t())
        run.grad_log_det.copy_(grad_log_det)
        run.grad_log_prior.fill_(grad_log_prior)
        if is_first:
            self._record_backward(needs_grad)
        else:
            with torch.inference_mode():
                for call in self.backward_calls:
                    call()
        of_rows = None
        if needs_grad:
            of_rows = self.grad_columns.t().clone(memory_format=torch.contiguous_format)
        return of_rows, None if run.grad_context is None else run.grad_context.t().clone()


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
        ctx.save_for_backward(x, context, *weights)
        ctx.record = _record(ctx, x, context)
        return ctx.record.forward(x, context)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, context, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            gradient = _differentiable_gradient(ctx.chain, ctx.inverse, x, context, weights, grads)
            return None, None, *gradient
        record: Record | None = ctx.record
        is_again = record is None
        if record is None:
            record = _record(ctx, x, context)
            record.forward(x, context)
        of_rows, of_context = record.backward(grads[0], grads[1], ctx.needs_input_grad[2])
        # Its memory holds the gradients of the weights from now on.
        ctx.record = None
        if ctx.chain.bound_weights is not None:
            ctx.chain.bound_weights.is_clean = False
            ctx.chain.bound_weights.free.setdefault(ctx.key, []).append(record)
        gradients = [g.view(w.shape) for g, w in zip(record.gradients, weights, strict=True)]
        if is_again:
            gradients = [gradient.clone() for gradient in gradients]
        return None, None, of_rows, of_context, *gradients


def _record(ctx: Any, x: Tensor, context: Tensor | None) -> Record:
    """Return a record for the pass of a node."""
    layers, bound = ctx.chain.fused_layers, ctx.chain.bound_weights
    if bound is None:
        weights = [layer.weights() for layer in layers]
        gradients = [w.new_empty(w.shape) for of_layer in weights for w in of_layer]
        return Record(layers, weights, gradients, x, context, inverse=ctx.inverse, keeps=False)
    ctx.key, record = bound.take(x, context, ctx.inverse, ctx.needs_input_grad[2])
    return record


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
    if chain.bound_weights is not None:
        weights = [w for layer in chain.fused_layers for w in layer.weights()]
    gradient = differentiable_gradient(results, grads, [x, context, *weights])
    if chain.bound_weights is None:
        return gradient
    flat = torch.cat([g.flatten() for g in gradient[2:] if g is not None])
    return [*gradient[:2], *flat.split([len(v) for v in chain.bound_weights.vectors])]


def can_fuse(x: Tensor, context: Tensor | None) -> bool:
    """Tell whether rows may take the closed form: torch.func and forward mode may not."""
    if torch._C._are_functorch_transforms_active():
        return False
    return all(t is None or forward_ad.unpack_dual(t).tangent is None for t in (x, context))


@torch.no_grad()
def _without_gradient(
    chain: "Chain", x: Tensor, context: Tensor | None, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Map rows, block by block, where no gradient will be asked for."""
    size = max(_BLOCK_ROWS, _BLOCK_ELEMENTS // chain.fused_width)
    blocks = x.split(size)
    contexts = [None] * len(blocks) if context is None else context.split(size)
    layers = chain.fused_layers
    weights = [[w.detach() for w in layer.weights()] for layer in layers]
    record = Record(
        layers, weights, None, blocks[0], contexts[0], inverse=inverse, keeps=len(blocks) > 1
    )
    z = torch.empty_like(x, memory_format=torch.contiguous_format)
    parts = zip(blocks, contexts, z.split(size), strict=True)
    return z, torch.cat([record.forward(*part)[1] for part in parts])


def run_fused(
    chain: "Chain", x: Tensor, context: Tensor | None, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Map rows through a chain all of whose layers are fused ones."""
    if not len(x):
        return (chain.inverse_by_layer if inverse else chain.forward_by_layer)(x, context)
    bound = chain.bound_weights
    if torch.is_grad_enabled() and bound is not None:
        return _Fused.apply(chain, inverse, x, context, *bound.vectors)
    if torch.is_grad_enabled():
        weights = [w for layer in chain.fused_layers for w in layer.weights()]
        if any(t is not None and t.requires_grad for t in (x, context, *weights)):
            return _Fused.apply(chain, inverse, x, context, *weights)
    return _without_gradient(chain, x, context, inverse)
