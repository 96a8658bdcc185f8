"""Weights as numpy arrays, which any pickler, hasher or memory map understands."""

import numpy as np
import torch
from torch import nn

__all__ = ["arrays_from_module", "load_arrays"]


def arrays_from_module(module: nn.Module) -> dict[str, np.ndarray]:
    """Return a copy of every parameter and buffer as a numpy array."""
    return {name: value.cpu().numpy().copy() for name, value in module.state_dict().items()}


def load_arrays(module: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Put arrays from `arrays_from_module` into `module`, whose tensors take their dtype."""
    state = {name: torch.tensor(array) for name, array in arrays.items()}
    module.load_state_dict(state, assign=True)
    module.requires_grad_(False)
