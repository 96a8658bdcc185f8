"""Principal axes, and couplings between coordinates and deviations."""

import numpy as np
import pytest
import torch
from helpers import perturb
from scipy.stats import norm
from sklearn.decomposition import PCA

from skmanifoldflow.backend.architectures import split_flow
from skmanifoldflow.backend.bijections import Chain, ChannelSplit, PrincipalAxes, squeezed_shapes

IMAGE = (1, 4, 8)


# Of each flow, its number of columns and how it is built.
FLOWS = {
    "axes": (5, lambda g: PrincipalAxes(5, 2, floor=1e-3)),
    "one column": (1, lambda g: split_flow("spline", 1, 1, 2, (8,), generator=g)),
}
FLOWS |= {
    f"{flow} {d}": (
        5,
        lambda g, flow=flow, d=d: split_flow(flow, 5, d, 3, (8,), generator=g),
    )
    for flow in ("affine", "spline", "additive")
    for d in (1, 2, 4, 5)
}
FLOWS |= {
    f"channels {d}": (32, lambda g, d=d: ChannelSplit(IMAGE, d, 3, 4, floor=1e-3, generator=g))
    for d in (4, 8, 16, 24)
}


@pytest.mark.parametrize("name", FLOWS)
def test_inverse_and_log_determinant(name, generator):
    """inverse(forward(x)) == x, and the log-determinant is that of the autograd Jacobian."""
    n_features, build = FLOWS[name]
    bijection = build(generator).double()
    rows = torch.randn(40, n_features, dtype=torch.float64, generator=generator)
    bijection.initialize(rows * torch.arange(1, n_features + 1) + 0.5)
    perturb(bijection, 0.2, generator)
    x = rows[:3]
    with torch.no_grad():
        z, log_det = bijection.forward_and_log_det(x)
        back, minus = bijection.inverse_and_log_det(z)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(minus, -log_det, atol=1e-9)
    for row, value in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda row: bijection.forward_and_log_det(row[None])[0][0], row
        )
        assert float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(
            float(value), abs=1e-8
        )


def test_principal_axes_are_probabilistic_pca(generator):
    """Under N(0, I) the rows have the density that scikit-learn's PCA gives them."""
    mixing = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    rows = torch.randn(300, 6, dtype=torch.float64, generator=generator) @ mixing + 3.0
    axes = PrincipalAxes(6, 2, floor=1e-6).double()
    axes.initialize(rows)
    z, log_det = axes.forward_and_log_det(rows)
    pca = PCA(2).fit(rows)
    np.testing.assert_allclose(norm.logpdf(z).sum(1) + log_det.numpy(), pca.score_samples(rows))
    coordinates = z[:, :2].numpy() * np.sqrt(pca.explained_variance_)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(pca.transform(rows)), atol=1e-9)


def test_principal_axes_of_a_plane_have_a_floor(generator):
    rows = torch.randn(50, 1, dtype=torch.float64, generator=generator) * torch.ones(3)
    axes = PrincipalAxes(3, 1, floor=0.01).double()
    z = axes.initialize(rows)
    assert axes.scale()[1:].tolist() == [0.01, 0.01]
    np.testing.assert_allclose(z[:, 1:], 0, atol=1e-10)


def test_split_flow_starts_as_the_identity_and_ends_with_the_deviations(generator):
    flow = split_flow("affine", 4, 1, 3, (8,), generator=generator)
    x = torch.randn(10, 4, generator=generator)
    with torch.no_grad():
        z, log_det = flow.forward_and_log_det(x)
    np.testing.assert_array_equal(z, x)
    np.testing.assert_array_equal(log_det, 0)
    assert isinstance(flow, Chain)
    # The last coupling passes the coordinate and maps the three deviations.
    assert flow.bijections[-1].n_passed == 1


def test_squeezed_shapes():
    assert squeezed_shapes((1, 28, 28)) == [(4, 14, 14), (16, 7, 7)]
    assert squeezed_shapes((3, 4, 8)) == [(12, 2, 4), (48, 1, 2), (96, 1, 1)]
    assert squeezed_shapes((1, 3, 3)) == []


@pytest.mark.parametrize(("d", "shape"), [(8, (4, 2, 4)), (4, (16, 1, 2)), (5, (32, 1, 1))])
def test_channels_are_split_at_every_pixel(d, shape, generator):
    """Each coordinate at the start depends on the block of its own pixel, and all pixels alike."""
    split = ChannelSplit(IMAGE, d, 2, 4, floor=1e-3, generator=generator).double()
    assert split.shape == shape
    rows = torch.randn(60, 32, dtype=torch.float64, generator=generator)
    split.initialize(rows)
    jacobian = torch.autograd.functional.jacobian(
        lambda row: split.forward_and_log_det(row[None])[0][0], rows[0]
    )
    n_seen = (jacobian[:d].abs() > 1e-12).sum(1)
    assert (n_seen <= shape[0]).all()
    # Blocks of different pixels do not overlap.
    first = jacobian[: shape[1] * shape[2]].abs() > 1e-12
    assert (first.sum(0) <= 1).all()
    assert split.scale().shape == (32,)
