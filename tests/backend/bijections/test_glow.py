"""Convolutional layers and the multi-scale flow built from them."""

import math

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

from skmanifoldflow.backend.architectures import image_flow
from skmanifoldflow.backend.bijections.glow import (
    ChannelRotation,
    ConvCoupling,
    GlowStep,
    InvertibleConv,
    Squeeze,
)
from skmanifoldflow.backend.bijections.multiscale import MultiScale
from skmanifoldflow.backend.geometry import jacobian_columns
from skmanifoldflow.backend.networks import ConvNet

N_ROWS = 5
SIZE = (4, 6)
N_CHANNELS = 3
LAYERS = {
    "squeeze": lambda g: Squeeze(*SIZE),
    "1x1 convolution": lambda g: InvertibleConv(N_CHANNELS, generator=g),
    "rotation of channels": lambda g: ChannelRotation(N_CHANNELS, generator=g),
    "coupling": lambda g: ConvCoupling(N_CHANNELS, 2, SIZE, 8, generator=g),
    "centred coupling": lambda g: ConvCoupling(
        N_CHANNELS, 2, SIZE, 8, generator=g, log_scales="centred"
    ),
    "additive coupling": lambda g: ConvCoupling(
        N_CHANNELS, 2, SIZE, 8, generator=g, log_scales="none"
    ),
    "step": lambda g: GlowStep(N_CHANNELS, SIZE, 8, generator=g),
}
DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-10}

every_layer = pytest.mark.parametrize("name", LAYERS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def flow(image_shape, generator):
    return image_flow(image_shape, 2, 8, generator=generator)


def random_feature_maps(generator):
    return torch.randn(N_ROWS, N_CHANNELS, *SIZE, dtype=torch.float64, generator=generator)


@every_layer
@every_dtype
def test_layer_inverse(name, dtype, generator):
    layer = perturb_by_fan_in(LAYERS[name](generator), generator).to(dtype)
    assert_inverse(layer, random_feature_maps(generator).to(dtype), TOLERANCE[dtype])


@every_layer
def test_layer_log_det_is_that_of_the_jacobian(name, generator):
    layer = perturb_by_fan_in(LAYERS[name](generator), generator).double()
    assert_log_det(layer, random_feature_maps(generator), 1e-10)


@every_image
@every_dtype
def test_flow_inverse(image_shape, dtype, generator):
    bijection = perturb_by_fan_in(flow(image_shape, generator), generator).to(dtype)
    x = random_images(image_shape, N_ROWS, generator).to(dtype)
    assert bijection.forward_and_log_det(x)[0].shape == x.shape
    assert_inverse(bijection, x, TOLERANCE[dtype])


@every_image
def test_flow_log_det_is_that_of_the_jacobian(image_shape, generator):
    bijection = perturb_by_fan_in(flow(image_shape, generator), generator).double()
    x = random_images(image_shape, N_ROWS, generator)
    bijection.initialize(x)
    assert_log_det(bijection, x, 1e-10)


@every_image
def test_gradients_are_finite(image_shape, generator):
    bijection = perturb_by_fan_in(flow(image_shape, generator), generator).double()
    x = random_images(image_shape, N_ROWS, generator).requires_grad_()
    z, log_det = bijection.forward_and_log_det(x)
    inputs = [x, *bijection.parameters()]
    gradients = torch.autograd.grad(z.square().sum() + log_det.sum(), inputs)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@every_image
def test_jacobian_by_double_reverse_mode(image_shape, generator):
    bijection = perturb_by_fan_in(flow(image_shape, generator), generator).double()
    z = random_images(image_shape, 1, generator)

    def data(z):
        return bijection.inverse_and_log_det(z)[0]

    _, columns = jacobian_columns(data, z, torch.eye(z.shape[1], dtype=torch.float64))
    assert_near(columns[0], torch.func.jacrev(lambda z: data(z[None])[0])(z[0]).detach(), 1e-10)


@every_image
def test_rows_do_not_depend_on_each_other(image_shape, generator):
    bijection = perturb_by_fan_in(flow(image_shape, generator), generator).double()
    x = random_images(image_shape, N_ROWS, generator)
    others = x.clone()
    others[1:] = 10 * x[1:].flip(0)
    for method in (bijection.forward_and_log_det, bijection.inverse_and_log_det):
        rows, log_det = method(x)
        changed, changed_log_det = method(others)
        assert_near(changed[0], rows[0], 1e-12)
        assert_near(changed_log_det[0], log_det[0], 1e-12)


def test_building_is_reproducible_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (
        flow((2, 4, 4), torch.Generator().manual_seed(seed)).state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    key = "scales.0.steps.0.mixing.lower"
    assert not torch.equal(first[key], other[key])


def test_squeeze_separates_the_colours_of_a_checkerboard():
    board = (torch.arange(4)[:, None] + torch.arange(6)) % 2
    images = torch.stack([board, 10 + board])[None].double()
    z, log_det = Squeeze(4, 6).forward_and_log_det(images)
    assert z.shape == (1, 8, 2, 3)
    assert log_det == 0
    assert (z[:, :4].flatten(2).mean(2) == torch.tensor([0.0, 10, 0, 10])).all()
    assert (z[:, 4:].flatten(2).mean(2) == torch.tensor([1.0, 11, 1, 11])).all()


def test_squeeze_refuses_odd_sides():
    with pytest.raises(ValueError, match="even or 1, got 4 and 5"):
        Squeeze(4, 5)


@pytest.mark.parametrize("n_channels", [1, 2, 12])
def test_invertible_convolution_starts_as_a_rotation(n_channels, generator):
    matrix = InvertibleConv(n_channels, generator=generator).double().matrix()
    eye = torch.eye(n_channels, dtype=torch.float64)
    assert_near(matrix @ matrix.T, eye, 1e-5)


def test_invertible_convolution_agrees_with_conv2d(generator):
    layer = perturb_by_fan_in(InvertibleConv(3, generator=generator), generator).double()
    x = random_feature_maps(generator)
    expected = torch.nn.functional.conv2d(x, layer.matrix()[:, :, None, None])
    assert_near(layer.forward_and_log_det(x)[0], expected, 1e-12)


@pytest.mark.parametrize("n_transformed", [0, 3])
def test_number_of_mapped_channels_is_checked(n_transformed, generator):
    with pytest.raises(ValueError, match=f"n_channels - 1 = 2, got {n_transformed}"):
        ConvCoupling(3, n_transformed, SIZE, 4, generator=generator)


def test_coupling_starts_as_the_identity_and_passes_the_first_channels(generator):
    x = random_feature_maps(generator).float()
    layer = ConvCoupling(3, 2, SIZE, 4, generator=generator)
    assert torch.equal(layer.forward_and_log_det(x)[0], x)
    z, _ = perturb_by_fan_in(layer, generator).forward_and_log_det(x)
    assert torch.equal(z[:, :1], x[:, :1])
    assert (z[:, 1:] != x[:, 1:]).all()


def test_coupling_scales_and_shifts_by_a_bounded_amount(generator):
    layer = ConvCoupling(2, 1, SIZE, 4, generator=generator)
    with torch.no_grad():
        layer.conditioner.last.bias.copy_(torch.tensor([-1e6, 1e6]))
    z, _ = layer.forward_and_log_det(torch.ones(1, 2, *SIZE))
    assert_near(z[:, 1], torch.full((1, *SIZE), math.exp(2) - 10), 1e-5)


def test_coupling_bounds_what_an_outlier_does(generator):
    layer = perturb_by_fan_in(ConvCoupling(2, 1, SIZE, 4, generator=generator), generator).double()
    x = random_feature_maps(generator)[:, :2]
    far, farther = (torch.cat([x[:, :1] * factor, x[:, 1:]], dim=1) for factor in (1e4, 1e8))
    for method in (layer.forward_and_log_det, layer.inverse_and_log_det):
        assert torch.isfinite(method(farther)[0]).all()
        assert_near(method(far)[0][:, 1], method(farther)[0][:, 1], 1e-6)


def test_conditioner_sees_the_place_and_the_whole_image(generator):
    network = ConvNet(1, 8, 1, (8, 8), generator=generator)
    x = torch.zeros(2, 1, 8, 8)
    x[1, 0, 0, 0] = 1
    assert (network(x) == 0).all()
    output = perturb_by_fan_in(network, generator)(x)
    assert output[0].unique().numel() == output[0].numel()
    assert (output[0, 0, 7] != output[1, 0, 7]).all()


def test_step_is_norm_then_convolution_then_coupling(generator):
    step = perturb_by_fan_in(GlowStep(3, SIZE, 4, generator=generator), generator).double()
    x = random_feature_maps(generator)
    z, log_det = step.forward_and_log_det(x)
    total = torch.zeros(N_ROWS, dtype=torch.float64)
    for layer in (step.norm, step.mixing, step.coupling):
        x, part = layer.forward_and_log_det(x)
        total = total + part
    assert_near(z, x, 1e-12)
    assert_near(log_det, total, 1e-12)


@every_image
def test_initialization_standardises_the_rows_and_is_deterministic(image_shape, generator):
    rows = 3 + 10 * random_images(image_shape, 400, generator)
    bijection = flow(image_shape, generator).double()
    bijection.initialize(rows)
    state = {key: value.clone() for key, value in bijection.state_dict().items()}
    z = bijection.forward_and_log_det(rows)[0]
    assert abs(z.mean()) < 0.05
    assert abs(z.std() - 1) < 0.05
    bijection.initialize(rows)
    assert all(torch.equal(value, state[key]) for key, value in bijection.state_dict().items())


@pytest.mark.parametrize(
    ("image_shape", "n_scales"),
    [((1, 28, 28), 2), ((1, 8, 8), 3), ((3, 32, 32), 3), ((1, 6, 6), 1), ((1, 5, 5), 2)],
)
def test_number_of_scales(image_shape, n_scales, generator):
    assert len(flow(image_shape, generator).scales) == n_scales


def test_layers_and_channels_of_each_scale(generator):
    bijection = MultiScale((1, 8, 8), (3, 1), (4, 6), generator=generator)
    assert [len(scale.steps) for scale in bijection.scales] == [3, 1, 1]
    conditioners = [scale.steps[0].coupling.conditioner for scale in bijection.scales]
    assert [conditioner.second.out_channels for conditioner in conditioners] == [4, 6, 6]


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 6, 4), (3, 1, 4)])
def test_one_scale_keeps_the_layout(shape, generator):
    """A flow of one scale without steps leaves pixels where they are."""
    flow = image_flow(shape, 0, 4, generator=generator, keeps_layout=True).double()
    x = torch.randn(5, math.prod(shape), dtype=torch.float64, generator=generator)
    flow.initialize(x)
    z, _ = flow.forward_and_log_det(x)
    flat = torch.corrcoef(torch.cat([x, z], dim=1).T)[: x.shape[1], x.shape[1] :]
    # Each latent is a monotone function of its own pixel.
    assert (flat.diagonal() > 0.9).all()
    assert_inverse(flow, x, 1e-8)
    other = image_flow(shape, 2, 4, generator=generator, keeps_layout=True).double()
    assert_inverse(perturb_by_fan_in(other, generator), x, 1e-8)


# Couplings of all scales, and that of the margin of an odd size.
every_conditional_image = pytest.mark.parametrize(
    "image_shape", [(1, 4, 4), (1, 8, 8), (2, 5, 3), (1, 1, 1)], ids=str
)


def conditional_flow(image_shape, generator):
    return image_flow(image_shape, 2, 8, generator=generator, n_context=3)


def random_context(generator):
    return torch.randn(N_ROWS, 3, dtype=torch.float64, generator=generator)


@every_conditional_image
def test_conditional_flow_log_det_is_that_of_the_jacobian(image_shape, generator):
    bijection = perturb_by_fan_in(conditional_flow(image_shape, generator), generator).double()
    x, context = random_images(image_shape, N_ROWS, generator), random_context(generator)
    bijection.initialize(x)

    def row(x, context):
        return bijection.forward_and_log_det(x[None], context[None])[0].flatten()

    jacobian = torch.func.vmap(torch.func.jacrev(row))(x, context).detach()
    log_det = bijection.forward_and_log_det(x, context)[1].detach()
    assert_near(log_det, torch.linalg.slogdet(jacobian).logabsdet, 1e-10)


@every_conditional_image
@every_dtype
def test_conditional_flow_inverse(image_shape, dtype, generator):
    bijection = perturb_by_fan_in(conditional_flow(image_shape, generator), generator).to(dtype)
    x, context = (
        random_images(image_shape, N_ROWS, generator).to(dtype),
        random_context(generator).to(dtype),
    )
    z, log_det = bijection.forward_and_log_det(x, context)
    back, inverse_log_det = bijection.inverse_and_log_det(z, context)
    assert_near(back, x, TOLERANCE[dtype])
    assert_near(inverse_log_det, -log_det, TOLERANCE[dtype])


def test_context_changes_every_factor_of_the_map_once_it_is_trained(generator):
    image_shape = (1, 9, 8)
    bijection = conditional_flow(image_shape, generator).double()
    x, context = random_images(image_shape, N_ROWS, generator), random_context(generator)
    at_start = bijection.forward_and_log_det(x, context)[0]
    assert torch.equal(at_start, bijection.forward_and_log_det(x, 0 * context)[0])
    perturb_by_fan_in(bijection, generator)
    for method in (bijection.forward_and_log_det, bijection.inverse_and_log_det):
        (z, log_det), (other, other_log_det) = method(x, context), method(x, context + 1)
        assert (z != other).all(dim=0).float().mean() > 0.9
        assert (log_det != other_log_det).all()


def test_initialization_of_a_conditional_flow_is_that_without_context(generator):
    x = random_images((1, 5, 4), 50, generator)
    seed = torch.Generator().manual_seed(0)
    conditional = image_flow((1, 5, 4), 1, 4, generator=seed, n_context=3).double()
    started = conditional.initialize(x)
    for n_rows in (1, len(x)):
        context = torch.randn(n_rows, 3, dtype=torch.float64, generator=generator)
        z, _ = conditional.forward_and_log_det(x[:n_rows], context)
        assert_near(z, started[:n_rows], 1e-12)


def test_conditioner_adds_a_linear_map_of_the_context_to_the_first_layer(generator):
    network = perturb_by_fan_in(
        ConvNet(1, 8, 1, (4, 4), generator=generator, n_context=2), generator
    )
    x, context = torch.randn(3, 1, 4, 4), torch.randn(3, 2)
    output = network(x, context)
    assert torch.equal(network(x), network(x, torch.zeros(3, 2)))
    shift = context[:1] @ network.context.weight.T
    with torch.no_grad():
        network.first.bias.add_(shift[0])
    assert_near(network(x[:1]), output[:1], 1e-5)
