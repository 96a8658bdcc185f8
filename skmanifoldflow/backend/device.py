"""Where tensors live: devices, inference dtypes, generators and the thread setting."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "make_generator",
    "move",
    "randn",
    "resolve_device",
    "single_threaded",
    "standard_context",
    "statistics_dtype",
    "to_host",
]

# Below this many multiply-adds in one matrix product a second intra-op thread costs more than it
# gives: with a busy neighbour process it makes a small training step 2 to 50 times slower.
_MIN_WORK_FOR_THREADS = 2e7

# Types of devices.
_WITHOUT_FLOAT64 = ("mps",)

_thread_lock = threading.Lock()
# Fits under way that hold one thread, by the thread they run in.
_n_fits: Counter[int] = Counter()
_threads_outside = 1


@contextmanager
def standard_context() -> Iterator[None]:
    """Compute as in a fresh process, whatever the caller has set for its own computations.

    That is gradient modes, automatic casts and the default device of torch, and what numpy does
    about floating-point errors. The default dtype of torch belongs to all threads, so it stays, and
    every draw of random numbers names its own.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        # The first versions of torch know no automatic casts on MPS.
        for kind in ("cpu", "cuda", "mps")[: 3 if torch.backends.mps.is_available() else 2]:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        yield


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device that a `device` parameter names; "auto" is CUDA if present, else CPU.

    MPS is used only when it is named, since it has no float64.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is not a device that torch knows. Expected 'auto', 'cpu', 'cuda', "
            "'cuda:<index>' or 'mps'."
        ) from error
    if resolved.type == "cuda":
        index = resolved.index or 0
        if index >= torch.cuda.device_count():
            raise ValueError(
                f"device={device!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA "
                "devices on this machine."
            )
    elif resolved.type == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError(f"device={device!r} was asked for, but torch has no MPS device here.")
    elif resolved.type != "cpu":
        raise ValueError(f"device={device!r} is not supported. Expected 'cpu', 'cuda' or 'mps'.")
    return resolved


def statistics_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of closed-form statistics: float64 wherever it exists."""
    return torch.float32 if device.type in _WITHOUT_FLOAT64 else torch.float64


def to_host(tensor: Tensor) -> Tensor:
    """Return a tensor in float64 on the CPU.

    It is moved first: a copy that changes the dtype does so on the device it comes from, and MPS
    raises an error there, or, in torch 2.14, leaves the result as it was.
    """
    return tensor.cpu().double()


def move(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a module to a device and a dtype; on the way to the CPU before the cast, as above."""
    if device.type == "cpu":
        module.to(device)
    module.to(device, dtype)


def make_generator(seed: int) -> torch.Generator:
    """Return a CPU generator, so that every device sees the same random numbers."""
    return torch.Generator(device="cpu").manual_seed(seed)


def randn(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers on the CPU with the dtype, then the device, of `like`."""
    return torch.randn(shape, dtype=like.dtype, generator=generator).to(like.device)


@contextmanager
def single_threaded(work: float) -> Iterator[None]:
    """Hold torch at one intra-op thread while products of `work` multiply-adds are trained.

    Torch keeps the number for each thread that has computed, and one for threads to come, which the
    last call from any thread sets. So fits that overlap restore what was there before the first of
    them, each for its own thread and all for threads to come.
    """
    global _threads_outside
    if work > _MIN_WORK_FOR_THREADS:
        yield
        return
    thread = threading.get_ident()
    with _thread_lock:
        n_threads = torch.get_num_threads()
        if not _n_fits:
            _threads_outside = n_threads
        _n_fits[thread] += 1
        if n_threads != 1:
            torch.set_num_threads(1)
    try:
        yield
    finally:
        with _thread_lock:
            _n_fits[thread] -= 1
            if _n_fits[thread] == 0:
                del _n_fits[thread]
                if _threads_outside != 1:
                    torch.set_num_threads(_threads_outside)
