"""The volume-preserving flow of images, and the convolutional layers that it is built from."""

import pytest
import torch
from helpers import (
    assert_inverse,
    assert_log_det,
    assert_near,
    every_image,
    perturb_by_fan_in,
    random_images,
)

from skmanifoldflow.backend.architectures import volume_preserving_image_flow
from skmanifoldflow.backend.geometry import jacobian_columns

N_ROWS = 5
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-10}


def volume_preserving(image_shape, generator, flow="affine", n_layers=8):
    return volume_preserving_image_flow(
        flow, image_shape, n_layers, (4, 8), floor=0.02, generator=generator
    )


@every_image
@pytest.mark.parametrize("kind", ["affine", "additive"])
def test_flow_has_a_jacobian_of_unit_determinant(image_shape, kind, generator):
    bijection = perturb_by_fan_in(
        volume_preserving(image_shape, generator, kind), generator
    ).double()
    x = random_images(image_shape, N_ROWS, generator)
    bijection.initialize(3 * random_images(image_shape, 50, generator))
    log_det = bijection.forward_and_log_det(x)[1]
    assert torch.equal(log_det, torch.zeros(N_ROWS, dtype=torch.float64))
    assert_log_det(bijection, x, 1e-10)


@every_image
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_flow_inverse(image_shape, dtype, generator):
    bijection = perturb_by_fan_in(volume_preserving(image_shape, generator), generator).to(dtype)
    bijection.initialize(random_images(image_shape, 50, generator).to(dtype))
    assert_inverse(
        bijection, random_images(image_shape, N_ROWS, generator).to(dtype), TOLERANCE[dtype]
    )


@every_image
@pytest.mark.parametrize("n_layers", [1, 3, 8])
def test_flow_starts_as_an_isometry(image_shape, n_layers, generator):
    bijection = volume_preserving(image_shape, generator, n_layers=n_layers).double()
    bijection.initialize(random_images(image_shape, 50, generator))
    x = random_images(image_shape, N_ROWS, generator)
    z, _ = bijection.forward_and_log_det(x)
    assert_near(torch.cdist(z, z), torch.cdist(x, x), 1e-10)


def test_flow_moves_every_pixel(generator):
    """Also those of the odd margin, and by couplings of both kinds."""
    shape = (1, 5, 6)
    bijection = perturb_by_fan_in(volume_preserving(shape, generator), generator).double()
    x = random_images(shape, N_ROWS, generator)
    convolutional, frame = bijection.bijections
    squeezed, _ = convolutional.forward_and_log_det(x)
    torch.testing.assert_close(squeezed[:, 24:], x[:, 24:])
    assert not torch.isclose(squeezed.norm(dim=1), x.norm(dim=1)).any()
    z, _ = frame.forward_and_log_det(x)
    axes, _ = frame.axes.forward_and_log_det(x)
    unmoved = torch.isclose(z, axes * frame.axes.scale()).all(0)
    # What is conditioned on is moved by none of the layers: the first two axes.
    assert unmoved.nonzero().flatten().tolist() == [0, 1]


@every_image
def test_flow_has_finite_gradients_of_gradients(image_shape, generator):
    bijection = perturb_by_fan_in(volume_preserving(image_shape, generator), generator).double()
    z = random_images(image_shape, 1, generator)

    def data(z):
        return bijection.inverse_and_log_det(z)[0]

    _, columns = jacobian_columns(data, z, torch.eye(z.shape[1], dtype=torch.float64))
    assert_near(columns[0], torch.func.jacrev(lambda z: data(z[None])[0])(z[0]).detach(), 1e-10)
