"""Principal axes, and how many components rows support, against scikit-learn."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from skmanifoldflow._linear import principal_axes, supported_components


@pytest.fixture
def rows():
    rng = np.random.RandomState(0)
    return rng.randn(400, 3) @ rng.randn(3, 5) + 0.1 * rng.randn(400, 5) + 7.0


def test_principal_axes_are_those_of_pca(rows):
    mean, axes, variances = principal_axes(rows)
    pca = PCA().fit(rows)
    np.testing.assert_allclose(mean, pca.mean_)
    np.testing.assert_allclose(variances, pca.explained_variance_)
    np.testing.assert_allclose(np.abs(np.sum(axes * pca.components_.T, axis=0)), 1)


def test_principal_axes_have_a_sign(rows):
    """The largest entry is positive, whatever the order and the orientation of the rows."""
    _, axes, _ = principal_axes(rows)
    assert (axes[np.abs(axes).argmax(axis=0), np.arange(5)] > 0).all()
    _, others, _ = principal_axes(-rows[::-1])
    np.testing.assert_allclose(others, axes, atol=1e-9)


def test_rows_support_the_components_that_they_have(rows):
    assert supported_components(principal_axes(rows)[2], len(rows)) == 3
    assert supported_components(np.array([2.0]), 100) == 1
