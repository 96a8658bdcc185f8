"""Conditioner networks."""

import math

import pytest
import torch
from torch import nn

from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.networks import MLP


def build(n_inputs=3, hidden_layer_sizes=(8, 6), n_outputs=4, seed=0):
    return MLP(n_inputs, hidden_layer_sizes, n_outputs, generator=make_generator(seed))


def randomised(network, seed=1):
    generator = make_generator(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator))
    return network.double()


@pytest.mark.parametrize("n_inputs", [0, 1, 5])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (7,), (7, 3)])
def test_zero_at_the_start(n_inputs, hidden_layer_sizes, generator):
    network = build(n_inputs, hidden_layer_sizes)
    output = network(torch.randn(6, n_inputs, generator=generator))
    assert output.shape == (6, 4)
    assert (output == 0).all()


def test_same_seed_same_weights_and_no_global_random_numbers():
    state = torch.get_rng_state()
    first, again, other = build(seed=0), build(seed=0), build(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for p, q, r in zip(
        first.layers[:-1].parameters(),
        again.layers[:-1].parameters(),
        other.layers[:-1].parameters(),
        strict=True,
    ):
        assert torch.equal(p, q) and not torch.equal(p, r)


def test_hidden_weights_have_unit_gain():
    network = build(50, (400,))
    weight = network.layers[0].weight
    # Uniform on [-b, b] has variance b^2 / 3: the sum over 50 inputs keeps theirs.
    assert weight.abs().max() <= math.sqrt(3 / 50)
    assert weight.var().item() == pytest.approx(1 / 50, rel=0.05)


def test_equals_the_composition_of_torch_layers(generator):
    network = randomised(build())
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    modules = [m for layer in network.layers for m in (layer, nn.SiLU())][:-1]
    torch.testing.assert_close(network(x), nn.Sequential(*modules)(x))


def test_gradient(generator):
    network = randomised(build(2, (3,), 2))
    x = torch.randn(4, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    parameters = dict(network.named_parameters())

    def function(x, *values):
        values = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(network, values, (x,))

    assert torch.autograd.gradcheck(function, (x, *parameters.values()))


def test_first_step_moves_the_last_layer_only(generator):
    network = build()
    network(torch.randn(6, 3, generator=generator)).sum().backward()
    *hidden, last = network.layers
    assert (last.weight.grad != 0).any()
    assert all((layer.weight.grad == 0).all() for layer in hidden)


def test_no_inputs_give_a_learned_constant():
    network = randomised(build(n_inputs=0))
    output = network(torch.empty(5, 0, dtype=torch.float64))
    assert (output != 0).all()
    torch.testing.assert_close(output, output[:1].expand(5, 4))
