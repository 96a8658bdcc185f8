"""Conditioner networks."""

import math

import pytest
import torch
from helpers import randomize
from torch import nn

from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.networks import MLP, MaskedMLP


def with_random_weights(network):
    return randomize(network, 0.5, make_generator(1)).double()


def build(n_inputs=3, hidden_layer_sizes=(8, 6), n_outputs=4, seed=0):
    return MLP(n_inputs, hidden_layer_sizes, n_outputs, generator=make_generator(seed))


@pytest.mark.parametrize("n_inputs", [0, 1, 5])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (7,), (7, 3)])
def test_zero_at_initialization(n_inputs, hidden_layer_sizes, generator):
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
        assert torch.equal(p, q)
        assert not torch.equal(p, r)


def test_hidden_weights_have_unit_gain():
    network = build(50, (400,))
    weight = network.layers[0].weight
    # Uniform on [-b, b] has variance b^2 / 3: the sum over 50 inputs keeps theirs.
    assert weight.abs().max() <= math.sqrt(3 / 50)
    assert weight.var().item() == pytest.approx(1 / 50, rel=0.05)


def test_equals_the_composition_of_torch_layers(generator):
    network = with_random_weights(build())
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    modules = [m for layer in network.layers for m in (layer, nn.SiLU())][:-1]
    torch.testing.assert_close(network(x), nn.Sequential(*modules)(x))


def test_gradient(generator):
    network = with_random_weights(build(2, (3,), 2))
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
    network = with_random_weights(build(n_inputs=0))
    output = network(torch.empty(5, 0, dtype=torch.float64))
    assert (output != 0).all()
    torch.testing.assert_close(output, output[:1].expand(5, 4))


def build_masked(n_features=4, hidden_layer_sizes=(9, 7), n_params=3, n_context=0, seed=0):
    return MaskedMLP(
        n_features,
        hidden_layer_sizes,
        n_params,
        generator=make_generator(seed),
        n_context=n_context,
    )


def dependence(network, n_inputs, n_features):
    """Return which input columns each column's parameters depend on, shape (D, n_inputs)."""
    x = torch.randn(n_inputs, dtype=torch.float64, generator=make_generator(2))

    def function(x):
        rows = x[None, :n_features]
        context = x[None, n_features:] if n_inputs > n_features else None
        return network(rows, context)[0]

    return (torch.autograd.functional.jacobian(function, x) != 0).any(0)


@pytest.mark.parametrize("n_features", [1, 2, 4, 9])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (12,), (12, 10)])
@pytest.mark.parametrize("n_context", [0, 2])
def test_masked_outputs_see_all_columns_before_and_the_context(
    n_features, hidden_layer_sizes, n_context
):
    network = with_random_weights(build_masked(n_features, hidden_layer_sizes, n_context=n_context))
    seen = dependence(network, n_features + n_context, n_features)
    before = torch.ones(n_features, n_features, dtype=torch.bool).tril(-1)
    assert torch.equal(seen[:, :n_features], before)
    assert seen[:, n_features:].all()


def test_narrow_masked_layers_never_look_ahead():
    seen = dependence(with_random_weights(build_masked(20, (3, 2))), 20, 20)
    assert not seen.triu().any()
    assert seen.any()


@pytest.mark.parametrize("n_features", [1, 4])
def test_masked_zero_at_initialization(n_features, generator):
    output = build_masked(n_features)(torch.randn(6, n_features, generator=generator))
    assert output.shape == (6, 3, n_features)
    assert (output == 0).all()


def test_masked_same_seed_same_weights_and_no_global_random_numbers():
    state = torch.get_rng_state()
    first, again, other = (build_masked(seed=seed).layers[0].weight for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_masks_follow_the_dtype_and_are_no_weights():
    network = build_masked().double()
    assert network.mask_0.dtype == torch.float64
    assert not any("mask" in name for name in network.state_dict())
