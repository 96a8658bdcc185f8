"""Names that torch does not promise do what the public operations do."""

import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import skmanifoldflow
from skmanifoldflow.backend import torch_private


@pytest.fixture
def raw():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True)


@pytest.mark.parametrize(
    ("public", "written"),
    [
        (F.silu, torch_private.silu),
        (lambda x: F.softplus(x), lambda x, out: torch_private.softplus(x, 1, 20, out=out)),
    ],
)
def test_functions_with_out(public, written, raw):
    out = torch.empty_like(raw)
    with torch.no_grad():
        written(raw, out=out)
    torch.testing.assert_close(out, public(raw).detach())


@pytest.mark.parametrize(
    ("public", "backward"),
    [
        (F.silu, lambda g, x, y, out: torch_private.silu_backward(g, x, grad_input=out)),
        (torch.sigmoid, lambda g, x, y, out: torch_private.sigmoid_backward(g, y, grad_input=out)),
        (torch.tanh, lambda g, x, y, out: torch_private.tanh_backward(g, y, grad_input=out)),
        (
            F.softplus,
            lambda g, x, y, out: torch_private.softplus_backward(g, x, 1, 20, grad_input=out),
        ),
        (
            lambda x: torch.softmax(x, 0),
            lambda g, x, y, out: torch_private.softmax_backward(g, y, 0, x.dtype, grad_input=out),
        ),
    ],
)
def test_derivatives(public, backward, raw):
    grad = torch.arange(12.0, dtype=torch.float64).view(3, 4)
    result, out = public(raw), torch.empty_like(raw)
    (expected,) = torch.autograd.grad(result, raw, grad)
    with torch.no_grad():
        backward(grad, raw, result, out)
    torch.testing.assert_close(out, expected)


def test_derivative_of_distances(raw):
    distance = F.pdist(raw)
    grad = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    (expected,) = torch.autograd.grad(distance, raw, grad)
    actual = torch_private.pdist_backward(grad, raw.detach(), 2.0, distance.detach())
    torch.testing.assert_close(actual, expected)


def test_a_step_of_adam():
    ours, theirs = torch.ones(4), torch.nn.Parameter(torch.ones(4))
    gradient = torch.tensor([1.0, -2.0, 0.5, 3.0])
    state = [torch.zeros(4), torch.zeros(4)]
    torch_private.fused_adamw_(
        [ours],
        [gradient.clone()],
        *([one] for one in state),
        [],
        [torch.ones(())],
        lr=0.1,
        beta1=0.9,
        beta2=0.999,
        weight_decay=0.2,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )
    optimizer = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.2)
    theirs.grad = gradient
    optimizer.step()
    torch.testing.assert_close(ours, theirs.detach())


def test_torch_func_is_noticed():
    seen = []

    def watch(x):
        seen.append(torch_private.is_torch_func_active())
        return x.sum()

    watch(torch.ones(2))
    torch.func.grad(watch)(torch.ones(2))
    torch.func.vmap(watch)(torch.ones(2, 2))
    assert seen == [False, True, True]


def test_every_change_has_a_version():
    base = torch.zeros(6)
    view, versions = base[2:4], [torch_private.version(base)]
    view.add_(1)
    versions.append(torch_private.version(base))
    with torch.inference_mode():
        torch.mul(view, 2, out=view)
    versions.append(torch_private.version(base))
    with torch.no_grad():
        base[0] = 3
    versions.append(torch_private.version(base))
    assert len(set(versions)) == 4


def test_nothing_else_reaches_into_torch():
    root = Path(skmanifoldflow.__file__).parent
    pattern = re.compile(r"torch\._\w|torch\.ops|\b_aten\b|\w\._version\b")
    for path in root.rglob("*.py"):
        if path.name != "torch_private.py":
            assert not pattern.search(path.read_text()), path
