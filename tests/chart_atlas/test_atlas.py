"""The density of an atlas, chart by chart, and which charts contain a row."""

import numpy as np
import pytest
import torch
from helpers import perturb, random_rows, randomize
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from skmanifoldflow._chart_atlas.atlas import Atlas, AtlasEnsemble
from skmanifoldflow._chart_atlas.chart_maps import AmbientChartMap, ChartFrames, ConformalChartMap
from skmanifoldflow._chart_atlas.quantizer import Quantizer, TableAutoencoder
from skmanifoldflow.backend.architectures import density_flow
from skmanifoldflow.backend.device import make_generator

D = 3


def _build(numbers=(4,), *, n_neighbors=2, overlap=0.1, chart_map="ambient", trained=0.0):
    """Return an atlas with random frames, weights, codes and, if `trained`, random networks."""
    generator, rng = make_generator(0), np.random.RandomState(0)
    partitions = []
    for n_charts in numbers:
        frames = ChartFrames(n_charts, D, D)
        axes = np.stack([np.linalg.qr(rng.randn(D, D))[0] for _ in range(n_charts)])
        scale = np.sort(rng.uniform(0.3, 1.5, (n_charts, D)))[:, ::-1].copy()
        frames.double().set(
            *map(torch.tensor, (rng.randn(n_charts, D), axes, scale, scale[:, -1:].copy()))
        )
        n_flat = D if chart_map == "ambient" else 2
        n_context = 5 if n_charts > 1 else 0
        flow = density_flow(
            "autoregressive", n_flat, 2, (8,), generator=generator, n_context=n_context
        )
        maps = {
            "ambient": lambda frames, flow: AmbientChartMap(frames, flow),
            "conformal": lambda frames, flow: ConformalChartMap(frames, flow, 2),
        }
        partition = Atlas(
            maps[chart_map](frames, flow), n_descriptors=2, n_embedding=3, generator=generator
        )
        partition.descriptors.copy_(torch.tensor(rng.randn(n_charts, 2)))
        partitions.append(partition)
    n_charts = sum(numbers)
    autoencoder = TableAutoencoder(D, 2, (8,), generator=generator)
    quantizer = Quantizer(autoencoder, n_charts, 2)
    quantizer.codebook.copy_(torch.tensor(rng.randn(n_charts, 2)))
    atlas = AtlasEnsemble(
        quantizer, partitions, n_features=D, n_neighbors=n_neighbors, overlap=overlap
    ).double()
    weights = torch.tensor(rng.dirichlet(np.full(n_charts, 3.0)))
    atlas.weights.copy_(weights)
    randomize(quantizer, 0.5, generator)
    for partition in partitions:
        perturb(partition, trained, generator)
    return atlas.requires_grad_(False)


def _rows(n_rows, seed=1):
    return 1.5 * random_rows(n_rows, D, seed=seed)


def _frames_of(atlas):
    """Yield mean and covariance of every chart of all partitions."""
    for partition in atlas.partitions:
        frames = partition.chart_map.frames
        for mean, axes, scale in zip(frames.mean, frames.axes, frames.scale, strict=True):
            yield mean.numpy(), (axes * scale**2 @ axes.T).numpy()


@pytest.mark.parametrize("chart_map", ["ambient", "conformal"])
@pytest.mark.parametrize("numbers", [(4,), (1,), (3, 2, 1)])
def test_starts_as_a_mixture_of_normal_distributions(numbers, chart_map):
    atlas, x = _build(numbers, chart_map=chart_map), _rows(20)
    log_joint = np.stack(
        [
            np.log(weight) + multivariate_normal(*latent).logpdf(x)
            for weight, latent in zip(atlas.weights.numpy(), _frames_of(atlas), strict=True)
        ],
        axis=1,
    )
    np.testing.assert_allclose(atlas.log_joint_of_all(x), log_joint, rtol=1e-9)
    np.testing.assert_allclose(atlas.log_prob(x), logsumexp(log_joint, axis=1), rtol=1e-9)


@pytest.mark.parametrize("chart_map", ["ambient", "conformal"])
@pytest.mark.parametrize("numbers", [(4,), (3, 2, 1)])
def test_density_is_the_change_of_variables_chart_by_chart(numbers, chart_map):
    """Normal distribution of the latent row times the exact Jacobian, for trained networks."""
    atlas, x = _build(numbers, chart_map=chart_map, trained=0.3), _rows(5)
    weights = atlas.weights.numpy()
    log_joint = np.empty((5, atlas.n_charts))
    for i, row in enumerate(x):
        for k in range(atlas.n_charts):
            chart = torch.tensor([k])
            z = atlas.to_latent(row[None], chart)[0]
            jacobian = torch.autograd.functional.jacobian(
                lambda r, chart=chart: atlas.to_latent(r[None], chart)[0], row
            )
            log_joint[i, k] = (
                np.log(weights[k]) + norm.logpdf(z).sum() + np.linalg.slogdet(jacobian.numpy())[1]
            )
    np.testing.assert_allclose(atlas.log_joint_of_all(x), log_joint, rtol=1e-8)
    np.testing.assert_allclose(atlas.log_prob(x), logsumexp(log_joint, axis=1), rtol=1e-8)
    some = torch.rand(5, atlas.n_charts, generator=make_generator(3)) < 0.5
    some[:, 0] = True
    expected = np.where(some, log_joint, -np.inf)
    np.testing.assert_allclose(atlas.log_joint(x, some), expected, rtol=1e-8)


def test_blocks_of_charts_do_not_matter(monkeypatch):
    atlas, x = _build((4, 3), trained=0.3), _rows(10)
    together = atlas.log_joint_of_all(x)
    monkeypatch.setattr("skmanifoldflow._chart_atlas.atlas._BLOCK_ROWS", 10)
    torch.testing.assert_close(atlas.log_joint_of_all(x), together, rtol=1e-12, atol=1e-12)


def test_each_row_goes_through_its_own_chart():
    """Rows of several partitions in any order, and back."""
    atlas, x = _build((3, 2, 1), trained=0.3), _rows(24)
    charts = torch.randint(6, (24,), generator=make_generator(2))
    z = atlas.to_latent(x, charts)
    alone = [atlas.to_latent(row[None], chart[None]) for row, chart in zip(x, charts, strict=True)]
    torch.testing.assert_close(z, torch.cat(alone))
    torch.testing.assert_close(atlas.from_latent(z, charts), x, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.8])
@pytest.mark.parametrize("m", [1, 2, 9])
@pytest.mark.parametrize("numbers", [(4,), (3, 2, 1)])
def test_charts_contain_the_rows_of_their_definition(numbers, m, overlap):
    """U_k: the code is nearer than 1 + overlap times the m-th distance; and the chart that the
    mixture of the frames would choose."""
    atlas, x = _build(numbers, n_neighbors=m, overlap=overlap), _rows(50)
    codes = atlas.quantizer.encode(x).numpy()
    distances = np.linalg.norm(codes[:, None] - atlas.quantizer.codebook.numpy(), axis=2)
    log_joint = np.stack(
        [
            np.log(weight) + multivariate_normal(*latent).logpdf(x)
            for weight, latent in zip(atlas.weights.numpy(), _frames_of(atlas), strict=True)
        ],
        axis=1,
    )
    for factor in (1, 2):
        expected, start = [], 0
        for n_charts in numbers:
            own = slice(start, start + n_charts)
            start += n_charts
            ranked = np.sort(distances[:, own], axis=1)
            reach = ranked[:, min(factor * m, n_charts) - 1, None]
            mine = distances[:, own] <= (1 + overlap) * reach * (1 + 1e-12)
            mine[np.arange(50), log_joint[:, own].argmax(1)] = True
            expected.append(mine)
        contained = atlas.contained(x, factor).numpy()
        np.testing.assert_array_equal(contained, np.concatenate(expected, axis=1))
        assert contained.sum(1).min() >= min(factor * m, numbers[0])


def test_charts_are_sampled_by_their_weights(generator):
    atlas = _build((3, 2))
    counts = np.bincount(atlas.sample_chart_indices(20_000, generator), minlength=5)
    expected = 20_000 * atlas.weights.numpy()
    assert ((counts - expected) ** 2 / expected).sum() < 20


@pytest.mark.parametrize("chart_map", ["ambient", "conformal"])
def test_samples_have_the_moments_of_the_mixture(generator, chart_map):
    atlas = _build((3, 2), chart_map=chart_map)
    atlas.dimensions.fill_(2)
    drawn = atlas.sample(40_000, generator).numpy()
    weights, (means, covariances) = atlas.weights.numpy(), zip(*_frames_of(atlas), strict=True)
    mean = weights @ np.stack(means)
    spread = np.stack(means) - mean
    covariance = np.einsum("k,kij->ij", weights, np.stack(covariances))
    covariance += np.einsum("k,ki,kj->ij", weights, spread, spread)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.04)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.08)


@pytest.mark.parametrize("chart_map", ["ambient", "conformal"])
def test_options_scale_variances_along_and_across_a_chart(generator, chart_map):
    atlas = _build((2,), chart_map=chart_map)
    atlas.dimensions.fill_(2)
    frames = atlas.partitions[0].chart_map.frames
    charts = torch.ones(20_000, dtype=torch.long)
    rows = atlas.sample_charts(charts, generator, temperature=0.25, manifold_deviation=0.04)
    along = (rows - frames.mean[1]) @ frames.axes[1] / frames.scale[1]
    np.testing.assert_allclose(along.var(0), [0.25, 0.25, 0.04], rtol=0.05)


def test_embedding_is_the_code():
    atlas, x = _build((3, 2)), _rows(7)
    codes = atlas.quantizer.autoencoder.encoder(x)
    torch.testing.assert_close(atlas.project(x), codes)
    torch.testing.assert_close(atlas.embed(codes), atlas.quantizer.autoencoder.decoder(codes))
    assert atlas.n_components == 2
    assert atlas.n_charts == 5


def test_a_single_chart_is_told_nothing():
    atlas = _build((1, 2))
    assert atlas.partitions[0].context(torch.zeros(3, dtype=torch.long)) is None
    partition = atlas.partitions[1]
    context = partition.context(torch.tensor([1, 0, 1]))
    torch.testing.assert_close(context[:, :2], partition.descriptors[[1, 0, 1]])
    torch.testing.assert_close(context[:, 2:], partition.embedding[[1, 0, 1]])
