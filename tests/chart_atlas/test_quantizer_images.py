"""The convolutional autoencoder of the quantiser, and the frames of charts of images."""

import math

import numpy as np
import pytest
import torch
from helpers import randomize
from sklearn.decomposition import PCA

from skmanifoldflow._chart_atlas.chart_maps import ChartFrames
from skmanifoldflow._chart_atlas.quantization import Quantization
from skmanifoldflow._chart_atlas.quantizer import ImageAutoencoder, Quantizer
from skmanifoldflow.backend.rows import TrainingRows
from skmanifoldflow.backend.training import train
from skmanifoldflow.backend.training_job import TrainingSettings

# Even sides, odd ones, colour, a line and a single pixel.
IMAGE_SHAPES = [(1, 8, 8), (1, 7, 5), (3, 4, 6), (1, 1, 9), (2, 1, 1)]

every_image = pytest.mark.parametrize("image_shape", IMAGE_SHAPES, ids=str)


def autoencoder(image_shape, n_components, generator):
    return ImageAutoencoder(image_shape, n_components, (6, 5), generator=generator).double()


def random_walks(image_shape, generator, n_rows=40):
    rows = torch.randn(n_rows, math.prod(image_shape), dtype=torch.float64, generator=generator)
    return rows.cumsum(1) + 1


@every_image
def test_initialization_is_the_projection_of_pca(image_shape, generator):
    rows = random_walks(image_shape, generator)
    pca = PCA(2).fit(rows.numpy())
    model = autoencoder(image_shape, 2, generator)
    model.initialize(torch.tensor(pca.mean_), torch.tensor(pca.components_.T))
    codes = model.encoder(rows)
    np.testing.assert_allclose(codes.detach(), pca.transform(rows.numpy()), atol=1e-10)
    expected = pca.inverse_transform(pca.transform(rows.numpy()))
    np.testing.assert_allclose(model.decoder(codes).detach(), expected, atol=1e-10)


@every_image
def test_networks_have_the_shape_of_the_rows_and_finite_gradients(image_shape, generator):
    rows = random_walks(image_shape, generator, 3)
    model = autoencoder(image_shape, 2, generator)
    randomize(model, 0.3, generator)
    codes = model.encoder(rows)
    back = model.decoder(codes)
    assert codes.shape == (3, 2)
    assert back.shape == rows.shape
    gradients = torch.autograd.grad(back.square().sum(), list(model.parameters()))
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)
    # Every row by itself.
    torch.testing.assert_close(model.encoder(rows[1:2]), codes[1:2])


def test_building_is_reproducible_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (
        autoencoder((1, 8, 8), 2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.decoder.network.first.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_beats_pca_on_a_bent_curve_of_images(generator):
    # A bar that moves across the image: one dimension, and no linear subspace of it.
    place = 7 * torch.rand(200, 1, dtype=torch.float64, generator=generator)
    profile = torch.exp(-(torch.arange(8) - place).square())
    rows = profile[:, None].expand(-1, 8, -1).flatten(1)
    rows = (rows - rows.mean()) / rows.std()
    mean, (_, _, axes) = rows.mean(0), torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    quantizer = Quantizer(autoencoder((1, 8, 8), 2, generator), 4, 2).double()
    quantizer.autoencoder.initialize(mean, axes[:2].T)

    def error():
        return float((quantizer.decode(quantizer.encode(rows)) - rows).square().mean().detach())

    linear = error()
    settings = TrainingSettings(
        max_iter=150,
        max_steps=150,
        batch_size=200,
        learning_rate=5e-3,
        weight_decay=0.0,
        n_iter_no_change=150,
        tol=0.0,
    )
    train(Quantization(quantizer), TrainingRows.of(rows), None, settings, generator)
    assert error() < 0.5 * linear


def test_frames_fit_the_moments_of_many_rows(generator):
    factor = torch.randn(2, 6, 2, dtype=torch.float64, generator=generator)
    mean = 3 * torch.randn(2, 6, dtype=torch.float64, generator=generator)
    charts = torch.arange(40_000) % 2
    z, noise = (
        torch.randn(len(charts), size, dtype=torch.float64, generator=generator) for size in (2, 6)
    )
    rows = mean[charts] + torch.einsum("ndq,nq->nd", factor[charts], z) + 0.2 * noise
    frames = ChartFrames(2, 6, 2).double()
    frames.fit(rows, charts, 1e-3)
    for k in range(2):
        covariance = frames.axes[k] * frames.scale[k].square() @ frames.axes[k].T
        projection = frames.axes[k] @ frames.axes[k].T
        covariance = covariance + frames.rest[k].square() * (torch.eye(6) - projection)
        expected = factor[k] @ factor[k].T + 0.04 * torch.eye(6)
        torch.testing.assert_close(frames.mean[k], mean[k], atol=0.05, rtol=0.05)
        torch.testing.assert_close(covariance, expected, atol=0.1, rtol=0.05)


def test_frames_of_empty_and_tiny_charts_are_like_the_others(generator):
    rows = torch.randn(60, 9, dtype=torch.float64, generator=generator)
    charts = torch.zeros(60, dtype=torch.long)
    charts[0] = 1
    frames = ChartFrames(3, 9, 4).double()
    frames.fit(rows, charts, 1e-3)
    assert all(buffer.isfinite().all() for buffer in frames.buffers())
    eye = torch.eye(4, dtype=torch.float64).expand(3, -1, -1)
    torch.testing.assert_close(frames.axes.mT @ frames.axes, eye)
    assert (frames.scale / frames.scale[0]).log().abs().max() < 0.5
    assert (frames.rest / frames.rest[0]).log().abs().max() < 0.5
