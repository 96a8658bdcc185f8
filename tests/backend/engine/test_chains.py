"""Chains by their kernels, against the same chains layer by layer."""

import copy
import gc
import pickle

import pytest
import torch
from helpers import random_rows

from skmanifoldflow.backend.architectures import density_flow, volume_preserving_flow
from skmanifoldflow.backend.bijections import (
    AffineCoupling,
    Chain,
    MarginalSpline,
    MaskedAutoregressive,
)
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.engine import TrainedWeights, aligned
from skmanifoldflow.backend.geometry import jacobian_columns

CHAINS = {
    "affine": lambda d, g, **k: density_flow("affine", d, 4, (6, 5), generator=g, **k),
    "additive": lambda d, g, **k: density_flow("additive", d, 3, (6,), generator=g, **k),
    "spline": lambda d, g, **k: density_flow("spline", d, 3, (6, 5), generator=g, **k),
    "linear conditioner": lambda d, g, **k: density_flow("affine", d, 2, (), generator=g, **k),
    "marginals": lambda d, g, **k: Chain(
        [MarginalSpline(d, 4), density_flow("affine", d, 2, (6,), generator=g, **k)]
    ),
    "no mixing": lambda d, g, **k: Chain(
        AffineCoupling(d, max(1, d // i), (6,), generator=g, n_context=k.get("n_context", 0))
        for i in (1, 2, 2)
    ),
    "unit volume": lambda d, g: volume_preserving_flow("affine", d, 3, (6, 5), generator=g),
}
WITH_CONTEXT = [name for name in CHAINS if name != "unit volume"]

both_ways = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
every_chain = pytest.mark.parametrize(
    ("name", "n_context"), [(n, 0) for n in CHAINS] + [(n, 2) for n in WITH_CONTEXT]
)


def build(name, n_features=5, n_context=0, dtype=torch.float64):
    generator = make_generator(0)
    kwargs = {"n_context": n_context} if n_context else {}
    chain = CHAINS[name](n_features, generator, **kwargs)
    with torch.no_grad():
        for key, p in chain.named_parameters():
            # Steep curves have few digits left in float32.
            scale = 0.1 if "log_" in key else 0.5
            p.copy_(scale * torch.randn(p.shape, generator=generator))
    return chain.to(dtype)


def flat(tensors):
    """Return tensors one after the other, as they lie in memory."""
    gaps = [aligned(t.numel()) - t.numel() for t in tensors]
    parts = zip(tensors, gaps, strict=True)
    return torch.cat([torch.nn.functional.pad(t.flatten(), (0, gap)) for t, gap in parts])


def train(chain):
    """Make the weights parts of one vector, as an optimizer does; return the vector."""
    parameters = list(chain.parameters())
    values = flat([p.detach() for p in parameters])[None]
    start = 0
    for p in parameters:
        p.data = values[0, start : start + p.numel()].view_as(p)
        start += aligned(p.numel())
    chain.trained = TrainedWeights([chain], [values], [torch.zeros_like(values)])
    (matrix,) = chain.trained.leaves
    return matrix


def by_kernels(chain, x, context, inverse):
    assert chain.kernel_layers()
    method = chain.inverse_and_log_det if inverse else chain.forward_and_log_det
    return method(x, context)


def by_layer(chain, x, context, inverse):
    return chain.by_layer(x, context, inverse)


def inputs_of(chain, n_features, n_context, n_rows=7, dtype=torch.float64):
    # In float64 some values lie beyond the ends of the splines, where float32 has few digits left.
    spread = 3 if dtype == torch.float64 else 1
    x = (spread * random_rows(n_rows, n_features, dtype=dtype)).requires_grad_()
    context = (
        random_rows(n_rows, n_context, dtype=dtype, seed=2).requires_grad_() if n_context else None
    )
    return x, context, [t for t in (x, context, *chain.parameters()) if t is not None]


def loss_of(outputs):
    """Return a function of rows and log-determinants in which no two entries weigh the same."""
    weights = [random_rows(*t.shape, dtype=t.dtype, seed=3) for t in outputs]
    return sum((w * t).sum() for w, t in zip(weights, outputs, strict=True))


@every_chain
@both_ways
@pytest.mark.parametrize("n_features", [2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rows_and_gradients_are_those_of_the_layers(name, n_context, inverse, n_features, dtype):
    assert_same_as_by_layer(name, n_features, n_context, inverse, dtype)


@both_ways
@pytest.mark.parametrize("name", WITH_CONTEXT)
@pytest.mark.parametrize("n_context", [0, 2])
def test_one_column(name, n_context, inverse):
    assert_same_as_by_layer(name, 1, n_context, inverse, torch.float64)


def assert_same_as_by_layer(name, n_features, n_context, inverse, dtype):
    chain = build(name, n_features, n_context, dtype)
    x, context, inputs = inputs_of(chain, n_features, n_context, dtype=dtype)
    results = []
    for method in (by_kernels, by_layer):
        outputs = method(chain, x, context, inverse)
        gradients = torch.autograd.grad(loss_of(outputs), inputs)
        results.append([*outputs, *gradients])
    for actual, expected in zip(*results, strict=True):
        tolerance = 1e-12 if dtype == torch.float64 else 1e-4
        atol = tolerance * max(1.0, expected.detach().norm().item())
        torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@every_chain
@both_ways
def test_gradients_are_those_of_finite_differences(name, n_context, inverse):
    chain = build(name, 3, n_context)
    x, context, inputs = inputs_of(chain, 3, n_context, n_rows=2)
    # fast_mode: along a random direction of each input, and not along every axis.
    assert torch.autograd.gradcheck(
        lambda *_: by_kernels(chain, x, context, inverse), inputs, fast_mode=True
    )


@every_chain
@both_ways
def test_gradients_of_gradients(name, n_context, inverse):
    chain = build(name, 3, n_context)
    x, context, inputs = inputs_of(chain, 3, n_context)
    results = []
    for method in (by_kernels, by_layer):
        loss = loss_of(method(chain, x, context, inverse))
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        penalty = sum(g.square().sum() for g in first if g.requires_grad)
        results.append(torch.autograd.grad(penalty, inputs, materialize_grads=True))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


@every_chain
@both_ways
def test_weights_may_be_parts_of_one_vector(name, n_context, inverse):
    chain = build(name, 5, n_context)
    x, context, inputs = inputs_of(chain, 5, n_context)
    parameters = list(chain.parameters())
    expected = torch.autograd.grad(loss_of(by_kernels(chain, x, context, inverse)), inputs)
    rows, vector = inputs[: -len(parameters)], train(chain)
    for create_graph in (False, True):
        loss = loss_of(by_kernels(chain, x, context, inverse))
        *of_rows, of_vector = torch.autograd.grad(loss, [*rows, vector], create_graph=create_graph)
        torch.testing.assert_close(of_vector.detach()[0], flat(expected[len(rows) :]))
        for actual, gradient in zip(of_rows, expected, strict=False):
            torch.testing.assert_close(actual.detach(), gradient)


@every_chain
@both_ways
def test_a_pass_is_made_again_with_other_rows_and_weights(name, n_context, inverse):
    chain = build(name, 5, n_context)
    parameters = list(chain.parameters())
    vector = train(chain)
    for seed in range(3):
        x, context = (
            random_rows(7, 5, seed=seed),
            random_rows(7, n_context, seed=seed + 9) if n_context else None,
        )
        with torch.no_grad():
            vector *= 0.9
        expected = by_layer(chain, x, context, inverse)
        gradients = torch.autograd.grad(loss_of(expected), parameters)
        actual = by_kernels(chain, x, context, inverse)
        (gradient,) = torch.autograd.grad(loss_of(actual), [vector])
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(gradient[0], flat(gradients))
    assert [len(passes) for passes in chain.trained._free.values()] == [1]


@both_ways
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("is_trained", [False, True], ids=["scored", "trained"])
def test_no_rows(name, inverse, is_trained):
    chain = build(name, 5).requires_grad_(is_trained)
    z, log_det = by_kernels(chain, random_rows(0, 5), None, inverse)
    assert z.shape == (0, 5)
    assert log_det.shape == (0,)


def test_weights_in_any_layout():
    chain = build("affine", 5)
    weight = chain.bijections[0].conditioner.layers[1].weight
    weight.data = weight.data.t().contiguous().t()
    x, context, inputs = inputs_of(chain, 5, 0)
    gradients = [
        torch.autograd.grad(loss_of(method(chain, x, context, False)), inputs)
        for method in (by_kernels, by_layer)
    ]
    torch.testing.assert_close(*gradients)


def test_a_graph_may_be_used_again_beside_others_of_its_shape():
    chain = build("affine", 5)
    vector = train(chain)
    losses = [loss_of(by_kernels(chain, random_rows(7, 5, seed=k), None, False)) for k in (1, 2)]
    once = [torch.autograd.grad(loss, vector, retain_graph=True)[0].clone() for loss in losses]
    again = [torch.autograd.grad(loss, vector)[0] for loss in losses]
    torch.testing.assert_close(again, once)


def test_buffers_of_few_shapes_are_kept():
    chain = build("affine", 5)
    train(chain)
    for n in range(2, 40):
        z, log_det, _, vjp = chain.forward_with_vjp(random_rows(n, 5))
        vjp(z, log_det, 0.0)
    assert len(chain.trained._free) < 12


@pytest.mark.parametrize("name", CHAINS)
def test_the_vjp_adds_the_gradient(name):
    chain = build(name, 5)
    parameters = list(chain.parameters())
    vector, expected = train(chain), 0
    for seed in (1, 2):
        x = random_rows(7, 5, seed=seed)
        results = by_layer(chain, x, None, False)
        grads = [random_rows(7, 5, seed=3), random_rows(1, 7, seed=4)[0]]
        outputs = [(r * g).sum() for r, g in zip(results, grads, strict=True)]
        loss = sum(outputs) + 0.3 * chain.parameter_log_prior()
        gradients = torch.autograd.grad(loss, parameters)
        expected = expected + flat(gradients)
        *actual, log_prior, vjp = chain.forward_with_vjp(x)
        torch.testing.assert_close(actual, [r.detach() for r in results])
        expected_prior = torch.as_tensor(chain.parameter_log_prior()).detach()
        assert float(log_prior) == pytest.approx(float(expected_prior))
        vjp(*grads, 0.3)
    torch.testing.assert_close(vector.grad[0], expected)


@every_chain
@both_ways
@pytest.mark.parametrize("n_rows", [3, 8, 11])
def test_rows_are_mapped_in_blocks(name, n_context, inverse, n_rows, monkeypatch):
    monkeypatch.setattr("skmanifoldflow.backend.engine.run._BLOCK_ROWS", 4)
    monkeypatch.setattr("skmanifoldflow.backend.engine.run._BLOCK_ELEMENTS", 0)
    chain = build(name, 5, n_context).requires_grad_(False)
    x, context = (
        random_rows(n_rows, 5),
        random_rows(n_rows, n_context, seed=2) if n_context else None,
    )
    expected = by_layer(chain, x, context, inverse)
    torch.testing.assert_close(by_kernels(chain, x, context, inverse), expected)


@both_ways
def test_no_graph_no_gradient(inverse):
    chain = build("spline")
    x = random_rows(7, 5)
    expected = by_kernels(chain, x, None, inverse)
    with torch.no_grad():
        for actual, rows in zip(by_kernels(chain, x, None, inverse), expected, strict=True):
            assert not actual.requires_grad
            torch.testing.assert_close(actual, rows.detach())
    chain.requires_grad_(False)
    assert not by_kernels(chain, x, None, inverse)[0].requires_grad
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(by_kernels(chain, x, None, inverse)[0].sum(), x)
    assert (gradient != 0).all()


# Forward mode compiles rules of its own with a deprecated part of torch.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@both_ways
def test_geometry_and_forward_mode(inverse):
    chain = build("affine", 3)
    x = random_rows(4, 3)

    def rows(x):
        return by_kernels(chain, x, None, inverse)[0]

    _, columns = jacobian_columns(rows, x, torch.eye(3, dtype=x.dtype))
    expected = torch.func.vmap(torch.func.jacrev(lambda row: rows(row[None])[0]))(x)
    torch.testing.assert_close(columns, expected.detach())
    direction = random_rows(4, 3, seed=4)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, direction)
        tangent = torch.autograd.forward_ad.unpack_dual(rows(dual)).tangent
    torch.testing.assert_close(tangent, (expected * direction[:, None]).sum(-1))


def test_other_layers_go_one_by_one(generator):
    coupling = AffineCoupling(3, 1, (4,), generator=generator)
    chain = Chain([coupling, MaskedAutoregressive(3, (4,), generator=generator)])
    assert not chain.kernel_layers()
    assert not Chain([]).kernel_layers()
    assert chain.forward_and_log_det(random_rows(2, 3, dtype=torch.float32))[0].shape == (2, 3)


def test_gradients_are_not_overwritten_by_the_next_pass():
    chain = build("affine", 5)
    vector = train(chain)

    def loss(seed):
        return loss_of(by_kernels(chain, random_rows(7, 5, seed=seed), None, False))

    (first,) = torch.autograd.grad(loss(1), vector)
    kept = first.clone()
    torch.autograd.grad(loss(2), vector)
    assert torch.equal(first, kept)
    # A graph that is used again, beside another one.
    again, expected = loss(1), 2 * kept + torch.autograd.grad(loss(2), vector)[0]
    again.backward(retain_graph=True)
    (again + loss(2)).backward()
    torch.testing.assert_close(vector.grad, expected)


def test_a_kept_pass_has_the_dtype_of_its_rows():
    chain = build("affine", 5, dtype=torch.float32)
    train(chain)
    x = random_rows(7, 5)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            chain.forward_and_log_det(x)
        chain.forward_and_log_det(x.float())


def test_a_copy_of_a_chain_that_is_trained_is_not():
    chain = build("affine", 5)
    train(chain)
    for other in (copy.deepcopy(chain), pickle.loads(pickle.dumps(chain))):
        assert other.trained is None
        with torch.no_grad():
            for p in other.parameters():
                p.mul_(0.5)
        expected = by_layer(other, random_rows(7, 5), None, False)
        torch.testing.assert_close(by_kernels(other, random_rows(7, 5), None, False), expected)


def test_buffers_are_freed_at_once():
    chain = build("spline", 5).requires_grad_(False)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            chain.forward_and_log_det(random_rows(7, 5))
        assert gc.collect() == 0
    finally:
        gc.enable()
