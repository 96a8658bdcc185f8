"""Names of torch that its documentation does not promise, in one place.

Each is looked up here and nowhere else, so that another version of torch fails at import, by name.
A test holds each against the public operation that it stands for.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch

__all__ = [
    "buffers",
    "children",
    "fused_adamw_",
    "is_torch_func_active",
    "parameters",
    "pdist_backward",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softmax_backward",
    "softplus",
    "softplus_backward",
    "tanh_backward",
    "version",
]

_aten = torch.ops.aten

# As `torch.nn.functional`, which cannot write into memory that is given.
silu: Any = torch._C._nn.silu
softplus: Any = torch._C._nn.softplus
# Derivatives that torch has for its own graphs, into memory that is given.
silu_backward = _aten.silu_backward.grad_input
sigmoid_backward = _aten.sigmoid_backward.grad_input
softplus_backward = _aten.softplus_backward.grad_input
softmax_backward = _aten._softmax_backward_data.out
tanh_backward = _aten.tanh_backward.grad_input
pdist_backward = _aten._pdist_backward
# One step of AdamW, without the second of imports that `torch.optim` costs a process.
fused_adamw_: Any = torch._fused_adamw_
# Whether torch.func transforms the operations of the caller.
is_torch_func_active = torch._C._are_functorch_transforms_active


#: Returns a number that every change of the values of a tensor makes larger.
version: Callable[[torch.Tensor], int] = attrgetter("_version")


def children(module: torch.nn.Module) -> dict[str, Any]:
    """Return the modules that belong to a module by their names, as they are now and later."""
    return module._modules


def parameters(module: torch.nn.Module) -> dict[str, Any]:
    """Return the parameters of a module by their names, as they are now and later."""
    return module._parameters


def buffers(module: torch.nn.Module) -> dict[str, Any]:
    """Return the buffers of a module by their names, as they are now and later."""
    return module._buffers
