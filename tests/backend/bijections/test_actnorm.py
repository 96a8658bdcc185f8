"""Scale and shift started from the data."""

import pytest
import torch

from skmanifoldflow.backend.bijections.actnorm import ActNorm

SHAPES = [(50, 3), (20, 3, 4, 5), (20, 3, 1, 1)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def columns_in_units(shape, generator):
    """Return float64 values with a mean and a spread of their own in every column or channel."""
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    columns = torch.arange(1, shape[1] + 1).view(-1, *[1] * (len(shape) - 2))
    return 10.0**columns * x - 3 * columns


def others(x):
    return [i for i in range(x.ndim) if i != 1]


@every_shape
def test_is_the_identity_before_initialization(shape, generator):
    x = columns_in_units(shape, generator)
    z, log_det = ActNorm(shape[1]).double().forward_and_log_det(x)
    assert torch.equal(z, x)
    assert (log_det == 0).all()


@every_shape
def test_initialization_standardises_the_batch(shape, generator):
    x = columns_in_units(shape, generator)
    norm = ActNorm(shape[1]).double()
    z = norm.initialize(x)
    zeros = torch.zeros(shape[1], dtype=torch.float64)
    torch.testing.assert_close(z.mean(others(z)), zeros)
    torch.testing.assert_close(z.std(others(z), correction=0), zeros + 1)
    assert torch.equal(norm.forward_and_log_det(x)[0], z)


def test_forward_never_initializes(generator):
    norm = ActNorm(3)
    norm.forward_and_log_det(columns_in_units((50, 3), generator).float())
    assert all((p == 0).all() for p in norm.parameters())


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_columns_are_only_centred(value):
    norm = ActNorm(2)
    z = norm.initialize(torch.full((20, 2), value))
    torch.testing.assert_close(z, torch.zeros(20, 2))
    assert (norm.log_scale == 0).all()


@every_shape
def test_inverse_and_log_det(shape, generator):
    x = columns_in_units(shape, generator)
    norm = ActNorm(shape[1]).double()
    norm.initialize(x)
    z, log_det = norm.forward_and_log_det(x)
    back, inverse_log_det = norm.inverse_and_log_det(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_log_det, -log_det)
    jacobian = torch.func.jacrev(lambda row: norm.forward_and_log_det(row[None])[0][0])(x[0])
    n_values = x[0].numel()
    expected = torch.linalg.slogdet(jacobian.detach().view(n_values, n_values)).logabsdet
    torch.testing.assert_close(log_det[0].detach(), expected)
