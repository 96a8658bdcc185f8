"""The two ways of a chain by its kernels: without a gradient, or as one operation of autograd.

The third is layer by layer, for gradients of gradients, for torch.func and for forward mode.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..torch_private import is_torch_func_active
from .autodiff import differentiable_gradient
from .chain_pass import KernelLayer
from .weights import ChainWeights, TrainedWeights

__all__ = ["KernelChain", "can_use_kernels", "layer_by_layer", "run_kernels"]

# Where no gradient is asked for, blocks of rows that stay in the cache of a core are mapped faster:
# at least so many rows, and more while the widest tensor has fewer elements.
_BLOCK_ROWS = 512
_BLOCK_ELEMENTS = 2**16

_is_by_layer: ContextVar[bool] = ContextVar("_is_by_layer", default=False)


class KernelChain(Protocol):
    """A chain all of whose layers have kernels, see `bijections.Chain`."""

    trained: TrainedWeights | None

    def kernel_layers(self) -> Sequence[KernelLayer]: ...

    def by_layer(
        self, x: Tensor, context: Tensor | None, inverse: bool
    ) -> tuple[Tensor, Tensor]: ...


@contextmanager
def layer_by_layer() -> Iterator[None]:
    """Run chains layer by layer, which gradients of gradients need from the start."""
    token = _is_by_layer.set(True)
    try:
        yield
    finally:
        _is_by_layer.reset(token)


def can_use_kernels(x: Tensor, context: Tensor | None) -> bool:
    """Tell whether rows may take the kernels: torch.func and forward mode may not."""
    if _is_by_layer.get() or is_torch_func_active() or not x.numel():
        return False
    if context is not None and forward_ad.unpack_dual(context).tangent is not None:
        return False
    return forward_ad.unpack_dual(x).tangent is None


class _ChainNode(torch.autograd.Function):
    """Rows and log-determinants of a chain, given rows, context and leaves of its weights."""

    @staticmethod
    def forward(
        ctx: Any,
        chain: KernelChain,
        weights: ChainWeights,
        inverse: bool,
        x: Tensor,
        context: Tensor | None,
        *leaves: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.chain, ctx.weights, ctx.inverse = chain, weights, inverse
        ctx.save_for_backward(x, context, *leaves)
        z, log_det = _forward(ctx, x, context)
        return z.view(x.shape), log_det.view(x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, context, *leaves = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The gradient has a graph of its own.
            weights = [weight for layer in ctx.weights.layers for weight in layer.weights()]
            results = ctx.chain.by_layer(x, context, ctx.inverse)
            of_x, of_context, *gradient = differentiable_gradient(
                results, grads, [x, context, *weights]
            )
            return None, None, None, of_x, of_context, *ctx.weights.gradient_by_leaves(gradient)
        if ctx.taken is None:
            _forward(ctx, x, context)
        chain_pass = ctx.taken
        shape = ctx.weights.n_fits, *x.shape[-2:]
        chain_pass.backward(grads[0].reshape(shape), grads[1].reshape(shape[:2]))
        of_x = chain_pass.grad_rows().view(x.shape) if ctx.needs_input_grad[3] else None
        of_context = None if context is None else chain_pass.grad_context_rows()[0]
        # The memory of the pass is that of the next one from now on.
        pairs = zip(chain_pass.own_gradients, leaves, strict=True)
        of_leaves = [gradient.view(leaf.shape).clone() for gradient, leaf in pairs]
        ctx.weights.release(chain_pass)
        ctx.taken = None
        return None, None, None, of_x, of_context, *of_leaves


def _forward(ctx: Any, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Map rows in a pass that the node keeps for its gradient."""
    x = x.reshape(ctx.weights.n_fits, *x.shape[-2:])
    context = None if context is None else context[None]
    ctx.taken = ctx.weights.acquire(x, context, ctx.inverse, "own", ctx.needs_input_grad[3])
    return ctx.taken.forward(x, context)


def run_kernels(
    chain: KernelChain, x: Tensor, context: Tensor | None, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Map rows (n, D) through a chain, or (K, n, D) of K fits that are trained together.

    Without gradient they are mapped block by block.
    """
    trained = chain.trained
    # Alone, one of many fits has weights of its own.
    of_stack = trained is not None and (x.ndim == 3 or trained.n_fits == 1)
    weights = trained if of_stack else ChainWeights(chain.kernel_layers())
    assert weights is not None
    if torch.is_grad_enabled():
        for tensor in (x, context, *weights.leaves):
            if tensor is not None and tensor.requires_grad:
                return _ChainNode.apply(chain, weights, inverse, x, context, *weights.leaves)
    with torch.no_grad():
        size = max(_BLOCK_ROWS, _BLOCK_ELEMENTS // weights.width)
        rows = x.reshape(weights.n_fits, *x.shape[-2:])
        blocks = rows.split(size, 1)
        contexts = [None] * len(blocks) if context is None else context[None].split(size, 1)
        chain_pass = weights.acquire(blocks[0], contexts[0], inverse, None, False)
        z = torch.empty_like(rows, memory_format=torch.contiguous_format)
        log_dets = []
        for block, of_block, into in zip(blocks, contexts, z.split(size, 1), strict=True):
            log_dets.append(chain_pass.forward(block, of_block, into)[1])
        weights.release(chain_pass)
        return z.view(x.shape), torch.cat(log_dets, 1).view(x.shape[:-1])
