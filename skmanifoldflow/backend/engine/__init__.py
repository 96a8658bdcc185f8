"""Chains by kernels that own their buffers, with gradients in closed form.

With small conditioners a training step costs calls, not arithmetic: automatic differentiation makes
some thousand of them, and new memory for each. Here a chain is one operation of the graph, or none
where the gradient of the loss is known, and its kernels write into the same memory in every step.
"""

from .autodiff import KnownLoss, differentiable_gradient, known_gradient
from .chain_pass import ChainPass, KernelLayer
from .run import KernelChain, can_use_kernels, layer_by_layer, run_kernels
from .weights import VJP, ChainWeights, TrainedWeights
from .workspace import NO_BUFFERS, Workspace, aligned

__all__ = [
    "NO_BUFFERS",
    "VJP",
    "ChainPass",
    "ChainWeights",
    "KernelChain",
    "KernelLayer",
    "KnownLoss",
    "TrainedWeights",
    "Workspace",
    "aligned",
    "can_use_kernels",
    "differentiable_gradient",
    "known_gradient",
    "layer_by_layer",
    "run_kernels",
]
