"""Precision matrices against dense linear algebra."""

import pytest
import torch

from skmanifoldflow._noisy_injective.precision import DensePrecision, DiagonalPrecision


def _spd(shape, generator):
    root = torch.randn(*shape, shape[-1], dtype=torch.float64, generator=generator)
    return root @ root.mT + torch.eye(shape[-1], dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3,), (5, 3)])
@pytest.mark.parametrize("kind", ["dense", "diagonal"])
def test_operations(shape, kind, generator):
    if kind == "dense":
        matrix = _spd(shape, generator)
        precision = DensePrecision(matrix)
    else:
        values = torch.rand(*shape, dtype=torch.float64, generator=generator) + 0.5
        matrix = torch.diag_embed(values)
        precision = DiagonalPrecision(values)
    u = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    each = matrix.expand(5, 3, 3)
    expected = torch.linalg.solve(each, u[:, :, None])[:, :, 0]
    torch.testing.assert_close(precision.solve(u), expected)
    torch.testing.assert_close(precision.log_det(), torch.linalg.slogdet(matrix)[1])
    expected = (u[:, None, :] @ each @ u[:, :, None])[:, 0, 0]
    torch.testing.assert_close(precision.quadratic(u), expected)
    shifted = precision.plus_identity()
    expected = torch.linalg.slogdet(matrix + torch.eye(3, dtype=torch.float64))[1]
    torch.testing.assert_close(shifted.log_det(), expected)


@pytest.mark.parametrize("kind", ["dense", "diagonal"])
def test_scale_gives_the_inverse_as_covariance(kind, generator):
    """With the columns of the identity as noise, scale(I)' scale(I) is the inverse."""
    values = torch.tensor([0.5, 2.0, 9.0], dtype=torch.float64)
    matrix = _spd((3,), generator) if kind == "dense" else torch.diag(values)
    precision = DensePrecision(matrix) if kind == "dense" else DiagonalPrecision(values)
    root = precision.scale(torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(root.T @ root, torch.linalg.inv(matrix))


def test_a_matrix_that_is_not_positive_definite_gives_nan():
    precision = DensePrecision(-torch.eye(2, dtype=torch.float64))
    assert torch.isnan(precision.log_det())
