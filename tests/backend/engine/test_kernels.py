"""Kernels of every layer for stacks of fits, with context and weights of rows, against autograd."""

import pytest
import torch
from helpers import perturb, random_rows

from skmanifoldflow.backend.bijections import (
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    MarginalSpline,
    Orthogonal,
    Permutation,
    SplineCoupling,
)
from skmanifoldflow.backend.bijections.linear import LinearMap
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.engine import ChainPass

D, N_ROWS = 5, 37


def linear_map(generator):
    layer = LinearMap(D)
    matrix = torch.eye(D, dtype=torch.float64)
    matrix += 0.1 * torch.randn(D, D, dtype=torch.float64, generator=generator)
    layer.set(matrix)
    return layer


LAYERS = {
    "additive": lambda g, c: AdditiveCoupling(D, 2, (6, 4), generator=g, n_context=c),
    "affine": lambda g, c: AffineCoupling(D, 2, (6, 4), generator=g, n_context=c),
    "unit volume": lambda g, c: AffineCoupling(
        D, 3, (6,), generator=g, n_context=c, volume_preserving=True
    ),
    "spline": lambda g, c: SplineCoupling(D, 2, (6,), generator=g, n_context=c, n_bins=5),
    "all columns": lambda g, c: SplineCoupling(D, D, (6,), generator=g, n_context=c),
    "marginals": lambda g, c: MarginalSpline(D, 6),
    "orthogonal": lambda g, c: Orthogonal(D, generator=g),
    "permutation": lambda g, c: Permutation(D, generator=g),
    "linear map": lambda g, c: linear_map(g),
}
CHAINS = {name: [name] for name in LAYERS} | {
    "marginals twice": ["marginals", "orthogonal", "marginals"],
    "in place, one after the other": ["marginals", "affine", "spline", "marginals", "additive"],
    "mixed": ["marginals", "permutation", "spline", "orthogonal", "affine", "permutation"],
}


def build(names, n_context, n_fits, dtype):
    """Return chains of one architecture with weights and constants of their own."""
    chains = []
    for seed in range(n_fits):
        generator = make_generator(seed)
        chain = Chain(LAYERS[name](generator, n_context) for name in names)
        for layer in chain.kernel_layers():
            if isinstance(layer, MarginalSpline):
                layer.initialize(torch.randn(50, D, generator=generator))
        perturb(chain, 0.05, generator)
        chains.append(chain.to(dtype))
    return chains


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n_fits", [1, 3])
@pytest.mark.parametrize("n_context", [0, 2])
@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("name", CHAINS)
def test_values_and_gradients_are_those_of_autograd(name, inverse, n_context, n_fits, dtype):
    chains = build(CHAINS[name], n_context, n_fits, dtype)
    fits = [chain.kernel_layers() for chain in chains]
    # Of each layer, stacks of its weights.
    weights = [
        [torch.stack(same).detach() for same in zip(*(f.weights() for f in layers), strict=True)]
        for layers in zip(*fits, strict=True)
    ]
    constants = [
        [torch.stack(same) for same in zip(*(f.constants() for f in layers), strict=True)]
        for layers in zip(*fits, strict=True)
    ]
    gradients = [[torch.full_like(w, torch.nan) for w in of_layer] for of_layer in weights]
    x = random_rows(n_fits, N_ROWS, D, dtype=dtype, seed=1)
    context = random_rows(n_fits, N_ROWS, n_context, dtype=dtype, seed=2) if n_context else None
    chain_pass = ChainPass(fits[0], weights, constants, gradients, x, context, inverse=inverse)
    # Every row has a weight of its own.
    weight = random_rows(n_fits, N_ROWS, dtype=dtype, seed=3).exp()
    grad_z = random_rows(n_fits, N_ROWS, D, dtype=dtype, seed=4) * weight[:, :, None]
    for _ in range(2):
        z, log_det = chain_pass.forward(x, context)
        chain_pass.backward(grad_z, -weight, 0.3)
    # Without gradient buffers are shared, and there may be fewer rows than they hold.
    scored = ChainPass(fits[0], weights, constants, None, x, context, inverse=inverse)
    for n in (N_ROWS, 3):
        of_rows = None if context is None else context[:, :n]
        for actual, expected in zip(scored.forward(x[:, :n], of_rows), (z, log_det), strict=True):
            torch.testing.assert_close(actual, expected[:, :n])
    log_prior = chain_pass.log_prior()
    found = [g for of_layer in gradients for g in of_layer]
    for k, chain in enumerate(chains):
        inputs = [x[k].clone().requires_grad_(), *chain.parameters()]
        of_context = None
        if n_context:
            of_context = context[k].clone().requires_grad_()
            inputs.append(of_context)
        expected_z, expected_log_det = chain.by_layer(inputs[0], of_context, inverse)
        prior = chain.parameter_log_prior()
        loss = (expected_z * grad_z[k]).sum() - (expected_log_det * weight[k]).sum() + 0.3 * prior
        expected = torch.autograd.grad(loss, inputs, materialize_grads=True)
        actual = [chain_pass.grad_rows()[k], *(g[k] for g in found)]
        if n_context:
            actual.append(chain_pass.grad_context_rows()[k])
        pairs = [(z[k], expected_z.detach()), (log_det[k], expected_log_det.detach())]
        pairs += [(log_prior[k], torch.as_tensor(prior, dtype=dtype).detach())]
        pairs += zip(actual, expected, strict=True)
        tolerance = 1e-12 if dtype == torch.float64 else 1e-6 * len(CHAINS[name])
        for one, other in pairs:
            # Relative to the whole tensor: entries that cancel have no digits of their own.
            error = float((one - other).norm() / other.norm().clamp_min(1.0))
            assert error <= tolerance
