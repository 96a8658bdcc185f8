"""Weights as numpy arrays, which any pickler, hasher or memory map understands."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["arrays_from_module", "digest", "load_arrays"]


def arrays_from_module(module: nn.Module) -> dict[str, np.ndarray]:
    """Return a copy of every parameter and buffer as a numpy array."""
    return {name: value.cpu().numpy().copy() for name, value in module.state_dict().items()}


def digest(*parts: Any) -> str:
    """Return a hash of arrays, in dicts by name, and of values with a text of their own."""
    hasher = hashlib.sha256()
    for part in parts:
        items = sorted(part.items()) if isinstance(part, dict) else [("", part)]
        for name, value in items:
            if isinstance(value, np.ndarray):
                hasher.update(f"{name} {value.dtype.str} {value.shape}".encode())
                hasher.update(np.ascontiguousarray(value).tobytes())
            else:
                hasher.update(f"{name} {_plain(value)!r}".encode())
    return hasher.hexdigest()


def _plain(value: Any) -> Any:
    """Return a value with Python's own numbers, whose text no version of numpy changes."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(_plain, value)) if isinstance(value, (tuple, list)) else value


def load_arrays(module: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Put arrays from `arrays_from_module` into `module`, whose tensors take their dtype.

    Raises ValueError or RuntimeError if names, shapes or kinds of numbers are not those of the
    module, or if a number is not finite.
    """
    state = {name: torch.tensor(array) for name, array in arrays.items()}
    for name, like in module.state_dict().items():
        value = state.get(name)
        if value is None:
            continue
        if value.is_floating_point() != like.is_floating_point():
            raise ValueError(f"{name} has the dtype {value.dtype}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{name} is not finite")
    module.load_state_dict(state, assign=True)
    module.requires_grad_(False)
