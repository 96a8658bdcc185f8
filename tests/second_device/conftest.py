"""A device beside the CPU, compiled when the tests start, that refuses what CUDA refuses."""

import hashlib
import os
import shutil
import subprocess
import types
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

NAME = "fakegpu"
SOURCE = Path(__file__).with_name(f"{NAME}.cpp")
COPIES = ("aten::copy_", "aten::_to_copy")
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


def compiled(folder):
    """Return the library of the device, which is compiled once for each torch."""
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler: set CXX, or install g++")
    root = Path(torch.__file__).parent
    if not (root / "include" / "ATen" / "ATen.h").is_file():
        pytest.skip("this build of torch has no headers")
    key = hashlib.sha256(f"{torch.__version__} {root}".encode() + SOURCE.read_bytes()).hexdigest()
    library = folder / f"{NAME}-{key[:16]}.so"
    if not library.is_file():
        unfinished = library.with_suffix(f".{os.getpid()}")
        command = [
            *(compiler, "-std=c++20", "-O0", "-shared", "-fPIC", str(SOURCE)),
            *(f"-I{root / 'include'}", f"-L{root / 'lib'}", "-lc10", "-ltorch_cpu"),
            *(f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",),
            *("-o", str(unfinished)),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"{SOURCE.name} does not compile:\n{done.stderr[-4000:]}", pytrace=False)
        unfinished.replace(library)
    return library


@pytest.fixture(scope="session")
def device(request, tmp_path_factory):
    """The device, whose memory is that of the host."""
    cache = getattr(request.config, "cache", None)
    folder = cache.mkdir("second_device") if cache else tmp_path_factory.mktemp("second_device")
    torch.ops.load_library(str(compiled(folder)))
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(f"torch.{NAME}")
    module.is_available = module.is_initialized = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.set_device = lambda index: None
    module.manual_seed_all = lambda seed: None
    module._is_in_bad_fork = lambda: False
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()
    return torch.device(NAME, 0)


class Refusal(TorchDispatchMode):
    """Raises where tensors of both devices meet, as CUDA does.

    They may in copies; numbers may come from the CPU, and so may indices of tensors of the device.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.name().partition(".")[0]
        if name not in COPIES:
            by_rule = (args[0], *args[2:]) if name in INDEXING else (args, kwargs)
            kinds = {kind(t) for t in tensors_of(by_rule) if t.ndim}
            if name in INDEXING and kind(args[0]) == "cpu":
                kinds |= {kind(t) for t in tensors_of(args[1])}
            if len(kinds) > 1:
                raise RuntimeError(f"{name} takes tensors of {' and '.join(sorted(kinds))}.")
        return func(*args, **kwargs)


def tensors_of(tree):
    return [value for value in tree_iter(tree) if isinstance(value, torch.Tensor)]


def kind(tensor):
    return tensor.device.type


@pytest.fixture
def refusal(device):
    """Both devices at once are refused while a test runs."""
    with Refusal():
        yield
