"""What a maintainer might do to a chain while it is trained: the right result or a clear error."""

import pytest
import torch
from helpers import perturb

from skmanifoldflow.backend.architectures import density_flow, volume_preserving_flow
from skmanifoldflow.backend.bijections import AffineCoupling, Chain, MarginalSpline, Permutation
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.objective import Objective
from skmanifoldflow.backend.optimizer import Optimizer


class OfChain(Objective):
    def __init__(self, chain):
        super().__init__()
        self.chain = chain

    def loss(self, batch, progress):
        raise NotImplementedError

    def update_closed_form(self, rows, *, roughly=False):
        raise NotImplementedError

    def log_likelihood(self, rows):
        raise NotImplementedError


@pytest.fixture
def x():
    return torch.randn(64, 4, generator=make_generator(1))


def build(kind, d=4):
    """Return a chain whose weights are trained, and its optimizer."""
    generator = make_generator(0)
    if kind == "unit volume":
        chain = volume_preserving_flow("affine", d, 2, (8,), generator=generator)
    else:
        chain = density_flow("affine", d, 2, (8,), generator=generator)
    if kind == "marginals":
        chain = Chain([MarginalSpline(d, 8), chain])
    perturb(chain, 0.05, generator)
    return chain, Optimizer([OfChain(chain)], [0.0])


def keep_a_pass(chain, x):
    """Map rows and take the vjp, after which the chain keeps the pass."""
    z, log_det, _, vjp = chain.forward_with_vjp(x)
    vjp(torch.zeros_like(z), torch.zeros_like(log_det), 0.0)


def assert_is_by_layer(chain, x):
    z, log_det = chain.by_layer(x)
    for actual in (chain.forward_with_vjp(x)[:2], chain.forward_and_log_det(x)):
        torch.testing.assert_close(actual[0], z, rtol=0, atol=1e-5)
        torch.testing.assert_close(actual[1], log_det, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(chain.forward_and_log_det(x)[0], z, rtol=0, atol=1e-5)


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_penalty_adds_to_the_gradient(x, when):
    chain, optimizer = build("affine")
    weight = chain.kernel_layers()[0].conditioner.layers[0].weight
    keep_a_pass(chain, x)
    optimizer.step([0.0])
    z, log_det, _, vjp = chain.forward_with_vjp(x)
    parameters = list(chain.parameters())
    results = chain.by_layer(x)
    loss = (results[0] * z).sum() - results[1].sum() + weight.square().sum()
    expected = torch.autograd.grad(loss, parameters)
    if when == "before":
        weight.square().sum().backward()
        z, log_det, _, vjp = chain.forward_with_vjp(x)
    if when == "between":
        weight.square().sum().backward()
    vjp(z, -torch.ones_like(log_det), 0.0)
    if when == "after":
        weight.square().sum().backward()
    for gradient, p in zip(expected, parameters, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-4)


def test_two_passes_of_a_step_add_up(x):
    chain, _ = build("marginals")
    once = [torch.zeros_like(p) for p in chain.parameters()]
    for rows in (x, 2 * x):
        z, log_det, _, vjp = chain.forward_with_vjp(rows)
        vjp(z, log_det, 0.1)
    for rows in (x, 2 * x):
        z, log_det = chain.by_layer(rows)
        loss = 0.5 * (z.square().sum() + log_det.square().sum())
        loss = loss + 0.1 * chain.parameter_log_prior()
        for total, part in zip(once, torch.autograd.grad(loss, chain.parameters()), strict=True):
            total += part
    for total, p in zip(once, chain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, total, rtol=1e-3, atol=1e-3)


def test_knots_may_be_set_anew(x):
    chain, _ = build("marginals")
    keep_a_pass(chain, x)
    with torch.no_grad():
        chain.forward_and_log_det(x)
    chain.bijections[0].initialize(5 * x)
    with torch.no_grad():
        chain.bijections[0].log_ratios.add_(0.05)
    assert_is_by_layer(chain, x)


@pytest.mark.parametrize("is_in_place", [True, False])
def test_a_matrix_may_be_replaced(x, is_in_place):
    chain, _ = build("unit volume")
    keep_a_pass(chain, x)
    orthogonal = chain.kernel_layers()[0]
    if is_in_place:
        orthogonal.q.copy_(torch.eye(4).flip(0))
    else:
        orthogonal.q = torch.eye(4)
    assert_is_by_layer(chain, x)


def test_an_order_may_be_loaded(x):
    chain, _ = build("affine")
    keep_a_pass(chain, x)
    (permutation, *_) = [f for f in chain.kernel_layers() if isinstance(f, Permutation)]
    permutation.load_state_dict(Permutation(4, order=torch.tensor([3, 1, 0, 2])).state_dict())
    assert_is_by_layer(chain, x)


def test_layers_appended_to_a_chain_are_run(x):
    chain, _ = build("affine")
    for module in chain.modules():
        if isinstance(module, Chain):
            module.trained = None
    extra = AffineCoupling(4, 2, (8,), generator=make_generator(3))
    torch.nn.init.ones_(extra.conditioner.layers[-1].bias)
    before = chain.forward_and_log_det(x)[0]
    chain.bijections.append(extra)
    assert not torch.allclose(chain.forward_and_log_det(x)[0], before)
    torch.testing.assert_close(chain.forward_and_log_det(x), chain.by_layer(x))


def test_layers_appended_to_a_chain_that_is_trained_are_an_error(x):
    chain, _ = build("affine")
    keep_a_pass(chain, x)
    chain.bijections.append(AffineCoupling(4, 2, (8,), generator=make_generator(3)))
    for call in (chain.forward_with_vjp, chain.forward_and_log_det):
        with pytest.raises(RuntimeError, match="layers of a chain changed while it was trained"):
            call(x)


def test_a_vjp_can_be_taken_once(x):
    chain, _ = build("affine")
    z, log_det, _, vjp = chain.forward_with_vjp(x)
    vjp(z, log_det, 0.0)
    once = [p.grad.clone() for p in chain.parameters()]
    with pytest.raises(RuntimeError, match="can be taken once"):
        vjp(z, log_det, 0.0)
    assert all(torch.equal(a, p.grad) for a, p in zip(once, chain.parameters(), strict=True))
    assert [len(free) for free in chain.trained._free.values()] == [1]


def test_passes_under_way_have_memory_of_their_own(x):
    chain, _ = build("affine")
    first, second = chain.forward_with_vjp(x), chain.forward_with_vjp(-x)
    gradients = []
    for (z, log_det, _, vjp), rows in ((first, x), (second, -x)):
        for p in chain.parameters():
            p.grad.zero_()
        vjp(z, log_det, 0.0)
        results = chain.by_layer(rows)
        loss = 0.5 * sum(result.square().sum() for result in results)
        expected = torch.autograd.grad(loss, chain.parameters())
        for gradient, p in zip(expected, chain.parameters(), strict=True):
            torch.testing.assert_close(p.grad, gradient, rtol=1e-3, atol=1e-3)
        gradients.append(expected)
    assert not torch.allclose(gradients[0][0], gradients[1][0])


def test_a_traceback_names_the_line_of_a_kernel(x):
    chain, _ = build("affine")
    keep_a_pass(chain, x)
    (free,) = chain.trained._free.values()
    kernel = free[0].kernels[0]
    kernel.network.hidden[0] = (*kernel.network.hidden[0][:4], "no tensor")
    with pytest.raises(TypeError) as caught:
        chain.forward_with_vjp(x)
    last = caught.traceback[-1]
    assert last.path.name == "mlp.py"
    assert "silu(raw, out=activation)" in str(last.statement)
