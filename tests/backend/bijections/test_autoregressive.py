"""Autoregressive layers; what all bijections share is in test_bijections.py."""

import torch
import zuko
from helpers import randomize

from skmanifoldflow.backend.bijections import MaskedAutoregressive
from skmanifoldflow.backend.device import make_generator


def build(n_features=4, n_context=0):
    generator = make_generator(0)
    layer = MaskedAutoregressive(n_features, (12,), generator=generator, n_context=n_context)
    randomize(layer, 0.5, generator)
    return layer.double()


def test_jacobian_is_triangular(generator):
    layer = build()
    x = torch.randn(4, dtype=torch.float64, generator=generator)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: layer.forward_and_log_det(x[None])[0][0], x
    )
    assert (jacobian.triu(1) == 0).all()
    assert (jacobian[torch.ones(4, 4, dtype=torch.bool).tril()] != 0).all()


def test_starts_as_the_identity(generator):
    layer = MaskedAutoregressive(4, (12,), generator=generator)
    x = torch.randn(6, 4, generator=generator)
    z, log_det = layer.forward_and_log_det(x)
    torch.testing.assert_close(z, x, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_det, torch.zeros(6), rtol=0, atol=1e-6)


def test_inverse_is_differentiable(generator):
    layer = build(3, n_context=2)
    z = torch.randn(2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    context = torch.randn(2, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(layer.inverse_and_log_det, (z, context))
    assert torch.autograd.gradgradcheck(layer.forward_and_log_det, (z, context))


def test_agrees_with_zuko(generator):
    layer = build()

    def meta(x):
        shift, raw = layer.conditioner(x).unbind(1)
        scale = torch.exp(2 * torch.tanh(raw / 2))
        affine = torch.distributions.AffineTransform(shift, scale)
        return zuko.transforms.DependentTransform(affine, 1)

    transform = zuko.transforms.AutoregressiveTransform(meta, passes=4)
    x = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    z, log_det = layer.forward_and_log_det(x)
    torch.testing.assert_close(z, transform(x))
    torch.testing.assert_close(log_det, transform.log_abs_det_jacobian(x, z))
    torch.testing.assert_close(layer.inverse_and_log_det(z)[0], transform.inv(z))
