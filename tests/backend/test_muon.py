"""Orthogonalised momentum against singular value decompositions and steps written out."""

import math

import numpy as np
import pytest
import torch

from skmanifoldflow.backend.muon import Muon, orthogonalize

SHAPES = [(6, 6), (7, 5), (5, 7), (12, 3), (3, 12), (4, 1), (1, 1)]


def matrices(shape, k=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, *shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_singular_vectors_stay_and_values_become_alike(shape, scale):
    for x in matrices(shape).numpy():
        u, values, vt = np.linalg.svd(x, full_matrices=False)
        core = u.T @ orthogonalize(torch.tensor(scale * x[None]))[0].numpy() @ vt.T
        found = np.diag(core)
        np.testing.assert_allclose(core, np.diag(found), atol=1e-8)
        is_large = values > 0.01 * np.linalg.norm(values)
        assert (found[is_large] > 0.72).all()
        assert (found < 1.28).all()


@pytest.mark.parametrize("shape", [(8, 8), (12, 3), (3, 12)])
def test_zero_stays_zero_and_does_not_disturb_the_others(shape):
    x = matrices(shape)
    alone = orthogonalize(x[:1])
    x[1] = 0
    result = orthogonalize(x)
    assert (result[1] == 0).all()
    torch.testing.assert_close(result[:1], alone, rtol=1e-12, atol=1e-12)


def test_steps_are_those_of_nesterov_momentum():
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(2, 5, 3, generator=generator) for _ in range(2)]
    gradients = [torch.zeros(2, 5, 3) for _ in range(2)]
    expected = [v.clone() for v in values]
    mean = [torch.zeros(2, 5, 3) for _ in range(2)]
    muon = Muon(values, gradients)
    rates = [0.1, 0.02]
    for _ in range(4):
        for i, gradient in enumerate(gradients):
            drawn = torch.randn(2, 5, 3, generator=generator)
            gradient.copy_(drawn)
            # As a moving average, whose directions are those of the sum.
            mean[i] = 0.9 * mean[i] + 0.1 * drawn
            direction = orthogonalize(0.1 * drawn + 0.9 * mean[i])
            for k, rate in enumerate(rates):
                expected[i][k] -= 0.3 * math.sqrt(5) * rate * direction[k]
        muon.step(muon.take_directions(), rates)
        for i in range(2):
            assert (gradients[i] == 0).all()
            torch.testing.assert_close(values[i], expected[i])


@pytest.mark.parametrize("shape", [(64, 64), (20, 64), (200, 64)])
def test_root_mean_square_of_a_step(shape):
    values = [torch.zeros(1, *shape)]
    muon = Muon(values, [matrices(shape, 1).float()])
    muon.step(muon.take_directions(), [1.0])
    assert 0.25 < values[0].square().mean().sqrt() < 0.33
