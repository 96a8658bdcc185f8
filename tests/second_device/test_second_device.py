"""What is computed on a device beside the CPU: `pytest -m second_device`."""

import numpy as np
import pytest
import torch
from helpers import random_rows

import skmanifoldflow._inference
import skmanifoldflow._plan
import skmanifoldflow.backend.device
from skmanifoldflow import NoisyInjectiveFlow
from skmanifoldflow.backend.architectures import density_flow, volume_preserving_flow
from skmanifoldflow.backend.bijections import (
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    MarginalSpline,
    MaskedAutoregressive,
    Orthogonal,
    Permutation,
    PrincipalAxes,
    SplineCoupling,
    StretchedChain,
)
from skmanifoldflow.backend.bijections.actnorm import ActNorm
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.datasets import SCurve

pytestmark = [pytest.mark.second_device, pytest.mark.usefixtures("refusal")]

D, N_CONTEXT = 5, 2


def coupling(kind, n_transformed, n_context, generator, **kwargs):
    return kind(D, n_transformed, (6, 4), generator=generator, n_context=n_context, **kwargs)


def couplings(kind, n_context, generator, **kwargs):
    # Of one, of some and of all columns.
    return [coupling(kind, m, n_context, generator, **kwargs) for m in (1, 3, D)]


CHAINS = {
    "additive": lambda g, c: Chain(couplings(AdditiveCoupling, c, g)),
    "affine": lambda g, c: Chain(couplings(AffineCoupling, c, g)),
    "affine, unit volume": lambda g, c: Chain(
        couplings(AffineCoupling, c, g, volume_preserving=True)
    ),
    "spline": lambda g, c: Chain(couplings(SplineCoupling, c, g)),
    "linear conditioner": lambda g, c: density_flow("affine", D, 2, (), generator=g, n_context=c),
    "marginal": lambda g, c: Chain([MarginalSpline(D, 6)]),
    "orthogonal": lambda g, c: Chain([Orthogonal(D, generator=g), Orthogonal(D, generator=g)]),
    "stretched": lambda g, c: StretchedChain(D, couplings(SplineCoupling, c, g)),
    "permutation": lambda g, c: Chain([Permutation(D, generator=g), Permutation(D, generator=g)]),
    "affine flow": lambda g, c: density_flow("affine", D, 3, (6,), generator=g, n_context=c),
    "spline flow": lambda g, c: density_flow("spline", D, 3, (6,), generator=g, n_context=c),
    "volume-preserving flow": lambda g, _: volume_preserving_flow(
        "affine", D, 3, (6,), generator=g
    ),
    "nested": lambda g, c: Chain(
        [
            MarginalSpline(D, 6),
            Chain([Orthogonal(D, generator=g), coupling(SplineCoupling, 2, c, g)]),
            coupling(AffineCoupling, 3, c, g),
        ]
    ),
    "one by one": lambda g, c: Chain(
        [
            PrincipalAxes(D, 2, floor=0.1),
            ActNorm(D),
            MaskedAutoregressive(D, (6,), generator=g, n_context=c),
        ]
    ),
}
INITIALIZED_FROM_ROWS = (ActNorm, MarginalSpline, PrincipalAxes)

both_ways = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
every_chain = pytest.mark.parametrize("name", CHAINS)
every_chain_and_context = pytest.mark.parametrize(
    ("name", "n_context"),
    [(n, c) for n in CHAINS for c in (0, N_CONTEXT) if not (c and n == "volume-preserving flow")],
)


def build(name, n_context):
    """Return a float32 chain on the CPU, initialized from rows and with random weights."""
    generator = make_generator(0)
    chain = CHAINS[name](generator, n_context)
    for module in chain.modules():
        if isinstance(module, INITIALIZED_FROM_ROWS):
            module.initialize(torch.randn(50, D, generator=generator))
        elif isinstance(module, StretchedChain):
            module.stretch(torch.linspace(1, 0.1, D) * torch.randn(50, D, generator=generator))
    with torch.no_grad():
        for key, p in chain.named_parameters():
            p.add_((0.05 if "log_" in key else 0.4) * torch.randn(p.shape, generator=generator))
    return chain


def float32_rows(*shape, seed):
    return random_rows(*shape, dtype=torch.float32, seed=seed)


def mapped(chain, rows, context, inverse):
    return (chain.inverse_and_log_det if inverse else chain.forward_and_log_det)(rows, context)


def results(chain, rows, context, inverse):
    """Return rows, log-determinants and gradients of a linear function of both, on the CPU."""
    inputs = [rows.requires_grad_()]
    if context is not None:
        inputs.append(context.requires_grad_())
    inputs += chain.parameters()
    found = mapped(chain, rows, context, inverse)
    assert all(t.device == rows.device for t in found)
    z, log_det = found
    weights = [float32_rows(*r.shape, seed=k).to(r.device) for k, r in ((3, z), (4, log_det))]
    total = (weights[0] * z).sum() + (weights[1] * log_det).sum()
    gradients = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    assert all(t.device == rows.device for t in gradients)
    return [t.detach().cpu() for t in (*found, *gradients)]


def assert_same_as_on_the_cpu(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        size = max(1.0, e.abs().max().item()) if e.numel() else 1.0
        torch.testing.assert_close(a, e, rtol=0, atol=1e-5 * size)


@every_chain_and_context
@both_ways
@pytest.mark.parametrize("n_rows", [1, 7, 300])
def test_chains_compute_what_they_do_on_the_cpu(name, n_context, inverse, n_rows, device):
    chain = build(name, n_context)
    rows = float32_rows(n_rows, D, seed=1)
    context = float32_rows(n_rows, n_context, seed=2) if n_context else None
    expected = results(chain, rows, context, inverse)
    chain.to(device)
    there = rows.detach().to(device)
    of_context = None if context is None else context.detach().to(device)
    assert_same_as_on_the_cpu(results(chain, there, of_context, inverse), expected)
    # Rows and contexts that are parts of other tensors.
    there = torch.cat([there, there], dim=1)[:, D:].detach()
    of_context = None if of_context is None else of_context.detach().T.contiguous().T
    assert_same_as_on_the_cpu(results(chain, there, of_context, inverse), expected)


@every_chain
@both_ways
def test_many_rows_without_a_graph(name, inverse, device):
    chain = build(name, 0)
    # More than are mapped at once.
    rows = float32_rows(20_000, D, seed=1)
    with torch.no_grad():
        expected = mapped(chain, rows, None, inverse)
        actual = mapped(chain.to(device), rows.to(device), None, inverse)
    assert_same_as_on_the_cpu([t.cpu() for t in actual], expected)


@pytest.mark.parametrize("name", ["marginal", "one by one"])
def test_layers_start_from_rows_of_the_device(name, device):
    rows = float32_rows(50, D, seed=1)
    here, there = build(name, 0), build(name, 0).to(device)
    here.initialize(rows)
    there.initialize(rows.to(device))
    state = there.state_dict()
    for key, expected in here.state_dict().items():
        assert state[key].device == device
        torch.testing.assert_close(state[key].cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["additive", "affine", "spline", "marginal", "nested"])
@pytest.mark.parametrize("trains", [False, True])
@both_ways
def test_two_devices_at_once_are_refused(name, trains, inverse, device):
    chain = build(name, N_CONTEXT).requires_grad_(trains)
    rows, context = float32_rows(4, D, seed=1), float32_rows(4, N_CONTEXT, seed=2)
    with pytest.raises(RuntimeError, match="cpu and fakegpu"):
        mapped(chain, rows.to(device), context.to(device), inverse)
    chain.to(device)
    with pytest.raises(RuntimeError, match="cpu and fakegpu"):
        mapped(chain, rows, context, inverse)
    mapped(chain, rows.to(device), context.to(device), inverse)


# Results that go into parts of other tensors are what such a device is most likely to get wrong.
INTO = {
    "contiguous": lambda t: t,
    "rows": lambda t: t[2:5],
    "columns": lambda t: t[:, 1:5],
    "every second column": lambda t: t[:, ::2],
    "columns of rows": lambda t: t.T[1:4],
}
WRITERS = {
    "add": lambda x, i, out: torch.add(x, x, alpha=2, out=out),
    "addcmul": lambda x, i, out: torch.addcmul(x, x, x, value=0.5, out=out),
    "addmm": lambda x, i, out: torch.addmm(
        x, x, x[: x.shape[1]].new_ones(2 * [x.shape[1]]), out=out
    ),
    "clamp": lambda x, i, out: torch.clamp(x, -0.5, 0.5, out=out),
    "exp": lambda x, i, out: torch.exp(x, out=out),
    "gather": lambda x, i, out: torch.gather(x, 0, i, out=out),
    "mm": lambda x, i, out: torch.mm(
        x, torch.ones_like(x[0])[:, None].expand(-1, len(x[0])), out=out
    ),
    "softmax": lambda x, i, out: torch.softmax(x, 0, out=out),
    "sum": lambda x, i, out: torch.sum(torch.stack([x, x]), 0, out=out),
    "where": lambda x, i, out: torch.where(x > 0, x, x.new_zeros(()), out=out),
    "add_": lambda x, i, out: out.add_(x),
    "copy_": lambda x, i, out: out.copy_(x),
    "exp_": lambda x, i, out: out.exp_(),
    "index_add_": lambda x, i, out: out.index_add_(0, i[:, 0], x),
    "mul_": lambda x, i, out: out.mul_(x),
    "scatter_add_": lambda x, i, out: out.scatter_add_(0, i, x),
    "sub_": lambda x, i, out: out.sub_(x),
    "tanh_": lambda x, i, out: out.tanh_(),
    "zero_": lambda x, i, out: out.zero_(),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("into", INTO)
def test_results_go_into_parts_of_tensors(writer, into, device):
    whole = float32_rows(6, 7, seed=1)
    part = INTO[into](whole)
    x = float32_rows(*part.shape, seed=2)
    index = torch.randint(len(x), x.shape, generator=make_generator(3))
    there = whole.to(device)
    WRITERS[writer](x.to(device), index.to(device), INTO[into](there))
    WRITERS[writer](x, index, part)
    # Also that nothing was written beside it.
    torch.testing.assert_close(there.cpu(), whole)


@pytest.mark.parametrize("reconstruction", [0.0, 1.0], ids=["likelihood", "reconstruction"])
@pytest.mark.parametrize("flow", ["affine", "spline"])
def test_a_fit_is_that_of_the_cpu(reconstruction, flow, device, monkeypatch):
    resolve = skmanifoldflow.backend.device.resolve_device

    def with_device(name):
        return device if str(name) == str(device) else resolve(name)

    for module in (skmanifoldflow.backend.device, skmanifoldflow._plan, skmanifoldflow._inference):
        monkeypatch.setattr(module, "resolve_device", with_device)
    rows, _ = SCurve(noise=0.05).sample(200, random_state=0)
    small = {"flow": flow, "n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 3}
    models = {
        name: NoisyInjectiveFlow(
            2, device=name, reconstruction=reconstruction, random_state=0, **small
        ).fit(rows)
        for name in ("cpu", str(device))
    }
    on_cpu, on_device = models.values()
    assert on_device.device_ == str(device)
    scores = on_device.score_samples(rows)
    np.testing.assert_allclose(scores, on_cpu.score_samples(rows), rtol=0, atol=1e-3)
    coordinates = on_device.transform(rows)
    back = on_device.inverse_transform(coordinates)
    assert on_device.sample(5, random_state=0).shape == (5, 3)
    on_device.to("cpu")
    np.testing.assert_allclose(on_device.score_samples(rows), scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(on_device.inverse_transform(coordinates), back, atol=1e-5)
