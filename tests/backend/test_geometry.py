"""Jacobians against autograd, volume elements against closed forms."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from helpers import random_rows

from skmanifoldflow.backend.geometry import (
    jacobian_columns,
    leading_singular_values,
    log_volume_element,
)


def curved(x):
    """Map R^3 to R^5, row by row."""
    a, b, c = x.unbind(-1)
    return torch.stack([a * b, torch.sin(b), torch.exp(0.3 * c) * a, c, a**3 - b * c], dim=-1)


def all_directions(n):
    return torch.eye(n, dtype=torch.float64)


def test_jacobian_equals_autograd():
    points = random_rows(6, 3)
    values, columns = jacobian_columns(curved, points, all_directions(3))
    torch.testing.assert_close(values, curved(points))
    for point, jacobian in zip(points, columns, strict=True):
        expected = torch.autograd.functional.jacobian(curved, point)
        torch.testing.assert_close(jacobian, expected)


@pytest.mark.parametrize("n_directions", [1, 2, 7])
def test_directional_derivatives(n_directions):
    points, directions = random_rows(4, 3), random_rows(n_directions, 3, seed=2)
    _, columns = jacobian_columns(curved, points, directions)
    assert columns.shape == (4, 5, n_directions)
    for point, derivatives in zip(points, columns, strict=True):
        expected = torch.autograd.functional.jacobian(curved, point) @ directions.T
        torch.testing.assert_close(derivatives, expected)


def test_jacobian_needs_no_gradients_and_keeps_none():
    weight = torch.ones(5, dtype=torch.float64, requires_grad=True)
    points = random_rows(6, 3).requires_grad_()
    expected = jacobian_columns(curved, points.detach(), all_directions(3))
    with torch.no_grad():
        results = jacobian_columns(lambda x: curved(x) * weight, points, all_directions(3))
    for result, value in zip(results, expected, strict=True):
        assert not result.requires_grad
        torch.testing.assert_close(result, value)
    assert weight.grad is None
    assert points.grad is None


def test_transposed_outputs_are_read_row_by_row():
    matrix = random_rows(5, 3, seed=2)
    _, columns = jacobian_columns(lambda x: (matrix @ x.T).T, random_rows(4, 3), all_directions(3))
    torch.testing.assert_close(columns, matrix.expand(4, 5, 3))


@pytest.mark.parametrize(("n_rows", "d"), [(1, 1), (3, 1), (5, 3), (4, 4), (64, 10)])
def test_log_volume_element_equals_slogdet(n_rows, d):
    jacobian = random_rows(8 * n_rows, d).reshape(8, n_rows, d)
    gram = jacobian.mT @ jacobian
    torch.testing.assert_close(log_volume_element(jacobian), 0.5 * torch.linalg.slogdet(gram)[1])


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (4, 1)])
def test_log_volume_element_of_columns_in_very_different_units(shape):
    """Against the minors of the matrix, which by Cauchy and Binet are exact in fractions."""
    n_rows, d = shape
    matrix = random_rows(n_rows, d).numpy() * 10.0 ** np.array([-12, 12, 0, 9, -3])[:n_rows, None]

    def determinant(rows):
        if len(rows) == 1:
            return rows[0][0]
        minors = ([row[1:] for k, row in enumerate(rows) if k != i] for i in range(len(rows)))
        return sum((-1) ** i * rows[i][0] * determinant(m) for i, m in enumerate(minors))

    exact = [[Fraction(x) for x in row] for row in matrix.tolist()]
    square = sum(determinant(list(rows)) ** 2 for rows in combinations(exact, d))
    expected = 0.5 * (math.log(square.numerator) - math.log(square.denominator))
    found = log_volume_element(torch.tensor(matrix)[None]).item()
    assert found == pytest.approx(expected, abs=1e-9)


def test_log_volume_element_keeps_small_singular_values():
    # J'J has condition number 1e20 and no digit of the small one left.
    left, _ = torch.linalg.qr(random_rows(6, 2))
    right, _ = torch.linalg.qr(random_rows(2, 2, seed=2))
    jacobian = left * torch.tensor([1.0, 1e-10], dtype=torch.float64) @ right
    assert log_volume_element(jacobian[None]).item() == pytest.approx(math.log(1e-10), rel=1e-6)


def test_degenerate_jacobian_has_no_volume():
    assert log_volume_element(torch.zeros(1, 3, 2, dtype=torch.float64)).item() == -math.inf


def sphere(angles):
    theta, phi = angles.unbind(-1)
    x, y = torch.sin(theta) * torch.cos(phi), torch.sin(theta) * torch.sin(phi)
    return 3 * torch.stack([x, y, torch.cos(theta)], dim=-1)


def torus(angles):
    theta, phi = angles.unbind(-1)
    ring = 2 + 0.5 * torch.cos(theta)
    x, y = ring * torch.cos(phi), ring * torch.sin(phi)
    return torch.stack([x, y, 0.5 * torch.sin(theta)], dim=-1)


def helix(angles):
    return torch.cat([torch.cos(angles), torch.sin(angles), 2 * angles], dim=-1)


def stereographic(u):
    """Map R^4 to the unit sphere in R^5."""
    square = u.square().sum(-1, keepdim=True)
    return torch.cat([2 * u, square - 1], dim=-1) / (square + 1)


@pytest.mark.parametrize(
    ("surface", "d", "volume"),
    [
        (sphere, 2, lambda u: 9 * np.abs(np.sin(u[:, 0]))),
        (torus, 2, lambda u: 0.5 * (2 + 0.5 * np.cos(u[:, 0]))),
        (helix, 1, lambda u: np.full(len(u), math.sqrt(5))),
        (stereographic, 4, lambda u: (2 / (1 + np.square(u).sum(1))) ** 4),
    ],
)
def test_volume_elements_of_known_surfaces(surface, d, volume):
    points = random_rows(9, d)
    values, jacobian = jacobian_columns(surface, points, all_directions(d))
    torch.testing.assert_close(values, surface(points))
    np.testing.assert_allclose(log_volume_element(jacobian), np.log(volume(points.numpy())))


def test_leading_singular_values_of_a_decaying_spectrum(generator):
    """Against the singular values of the full Jacobian, of a map that is far from an isometry."""
    weight = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    points = torch.randn(4, 20, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64)).Q
    factor = rotation * 2.0 ** -torch.arange(20, dtype=torch.float64)

    def function(x):
        return x + 0.3 * torch.tanh(x @ weight)

    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: function(x[None])[0]))(points)
    exact = torch.linalg.svdvals(jacobian @ factor)
    leading = leading_singular_values(function, points, factor, 8)
    assert leading.shape == (4, 8)
    torch.testing.assert_close(leading[:, :5], exact[:, :5], rtol=1e-3, atol=0)
    # The last ones are cut off where the span of the first columns ends.
    assert (leading <= exact[:, :8] * (1 + 1e-9)).all()
    torch.testing.assert_close(
        leading_singular_values(function, points, factor, 20), exact, rtol=1e-6, atol=1e-9
    )
