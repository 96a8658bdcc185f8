"""Losses and weights of an atlas against scipy and each other's definitions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import perturb, random_rows
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal

from skmanifoldflow._chart_atlas import atlas as atlas_module
from skmanifoldflow._chart_atlas.atlas import Atlas, AtlasEnsemble
from skmanifoldflow._chart_atlas.chart_maps import AmbientChartMap, ChartFrames
from skmanifoldflow._chart_atlas.objective import AtlasLikelihood
from skmanifoldflow._chart_atlas.quantizer import Quantizer, TableAutoencoder
from skmanifoldflow.backend.architectures import density_flow
from skmanifoldflow.backend.device import make_generator

TINY = 1e-9


def _build(means, scales, numbers, *, overlap=1e6, n_neighbors=1, trained=0.0):
    """Return an atlas of spherical charts in the plane, all of which contain all rows."""
    generator = make_generator(0)
    partitions, start = [], 0
    for n_charts in numbers:
        own = slice(start, start + n_charts)
        start += n_charts
        frames = ChartFrames(n_charts, 2, 2).double()
        scale = torch.tensor(scales[own])[:, None]
        frames.set(
            torch.tensor(means[own]),
            torch.eye(2).repeat(n_charts, 1, 1),
            scale.expand(-1, 2),
            scale,
        )
        n_context = 3 if n_charts > 1 else 0
        flow = density_flow("affine", 2, 2, (8,), generator=generator, n_context=n_context)
        partitions.append(
            Atlas(AmbientChartMap(frames, flow), n_descriptors=0, n_embedding=3,
                      generator=generator)
        )  # fmt: skip
    autoencoder = TableAutoencoder(2, 2, (), generator=generator)
    autoencoder.initialize(torch.zeros(2), torch.eye(2))
    quantizer = Quantizer(autoencoder, start, 2)
    quantizer.codebook.copy_(torch.tensor(means))
    atlas = AtlasEnsemble(
        quantizer, partitions, n_features=2, n_neighbors=n_neighbors, overlap=overlap
    ).double()
    atlas.weights.fill_(1 / start)
    quantizer.requires_grad_(False)
    perturb(atlas.partitions, trained, generator)
    return atlas


MEANS = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.5], [1.0, 1.0], [-1.0, 2.0]])
SCALES = np.array([1.0, 0.5, 0.8, 1.5, 0.7])


def _objective(atlas, objective="sum", n_batches=1):
    return AtlasLikelihood(
        atlas,
        objective=objective,
        noise_start=TINY,
        noise_floor=TINY,
        n_batches=n_batches,
        generator=make_generator(5),
    )


def _rows(n=300, seed=1):
    return 1.5 * random_rows(n, 2, seed=seed) + 0.5


def _log_densities(x):
    """Return the log-density (n, K) of rows under the normal distribution of each chart."""
    return np.stack(
        [
            multivariate_normal(mean, scale**2).logpdf(x).reshape(-1)
            for mean, scale in zip(MEANS, SCALES, strict=True)
        ],
        axis=1,
    )


@pytest.mark.parametrize("numbers", [(5,), (3, 2), (1, 3, 1)])
def test_loss_is_minus_the_log_likelihood_of_each_partition(numbers):
    """Where all charts contain all rows, on average over the partitions, each by itself."""
    atlas, x = _build(MEANS, SCALES, numbers), _rows()
    log_density = _log_densities(x)
    edges = np.cumsum((0, *numbers))
    expected = [
        logsumexp(log_density[:, i:j], axis=1).mean() - np.log(j - i) for i, j in pairwise(edges)
    ]
    loss = _objective(atlas).loss(x, 0.5)
    assert loss.item() == pytest.approx(-np.mean(expected), abs=1e-7)


def test_loss_of_trained_charts_is_minus_the_log_prob():
    atlas, x = _build(MEANS, SCALES, (5,), trained=0.3), _rows()
    expected = -atlas.log_prob(x).mean().item()
    assert _objective(atlas).loss(x, 0.5).item() == pytest.approx(expected, abs=1e-7)


def test_score_is_the_sum_over_twice_as_many_charts():
    atlas, x = _build(MEANS, SCALES, (5,), overlap=0.0, n_neighbors=2), _rows()
    distances = np.linalg.norm(x.numpy()[:, None] - MEANS, axis=2)
    log_joint = _log_densities(x) + np.log(0.2)
    contained = distances <= np.sort(distances, axis=1)[:, 3:4]
    contained[np.arange(len(x)), log_joint.argmax(1)] = True
    expected = logsumexp(np.where(contained, log_joint, -np.inf), axis=1)
    np.testing.assert_allclose(_objective(atlas).log_likelihood(x), expected, rtol=1e-9)


@pytest.mark.parametrize("numbers", [(5,), (3, 2)])
def test_a_sampled_chart_is_a_lower_bound_of_the_sum(numbers):
    """Row by row: log p_k p(x|k) is averaged over k ~ p_k, and no average exceeds the sum."""
    x = _rows(1).float().repeat(4000, 1)
    log_density = _log_densities(x[:1])[0]
    edges = np.cumsum((0, *numbers))
    expected, total = [], []
    for i, j in pairwise(edges):
        expected.append(log_density[i:j].mean() - np.log(j - i))
        total.append(logsumexp(log_density[i:j]) - np.log(j - i))
    atlas = _build(MEANS, SCALES, numbers).float()
    sampled = _objective(atlas, "sampled").loss(x, 0.5).item()
    spread = log_density.std() / np.sqrt(4000)
    assert -sampled == pytest.approx(np.mean(expected), abs=6 * spread)
    assert -sampled < np.mean(total)


@pytest.mark.parametrize("n_batches", [1, 4])
def test_weights_come_to_the_maximum_of_the_likelihood(n_batches):
    """And that to the weights of the mixture from which the rows are drawn."""
    rng = np.random.RandomState(0)
    truth = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    origin = rng.choice(5, size=400, p=truth)
    x = MEANS[origin] * 3 + SCALES[origin, None] * rng.randn(400, 2)
    atlas = _build(3 * MEANS, SCALES, (5,))
    log_density = np.stack(
        [
            multivariate_normal(mean, scale**2).logpdf(x)
            for mean, scale in zip(3 * MEANS, SCALES, strict=True)
        ],
        axis=1,
    )

    def loss(logits):
        return -logsumexp(log_density + np.log(softmax(logits)), axis=1).mean()

    best = minimize(loss, np.zeros(5), tol=1e-8)
    objective, rows = _objective(atlas, n_batches=n_batches), torch.tensor(x)
    for _ in range(60 * n_batches):
        objective.loss(rows, 0.5)
    np.testing.assert_allclose(atlas.weights, softmax(best.x), atol=1e-4)
    np.testing.assert_allclose(atlas.weights, truth, atol=0.07)


def test_a_step_moves_weights_by_the_share_of_a_batch():
    atlas, x = _build(MEANS, SCALES, (3, 2)), _rows()
    atlas.weights.copy_(torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25]))
    old = atlas.weights.numpy().copy()
    _objective(atlas, n_batches=4).loss(x, 0.5)
    log_joint = _log_densities(x) + np.log(old)
    for own in (slice(0, 3), slice(3, 5)):
        mean = softmax(log_joint[:, own], axis=1).mean(0) * old[own].sum()
        np.testing.assert_allclose(atlas.weights[own], 0.75 * old[own] + 0.25 * mean, atol=1e-8)


def test_weights_of_sampled_charts_are_shares_of_the_rows_they_contain():
    """Each row counts for all of its charts alike."""
    atlas, x = _build(MEANS, SCALES, (5,), overlap=0.3), _rows()
    distances = np.linalg.norm(x.numpy()[:, None] - MEANS, axis=2)
    contained = distances <= 1.3 * distances.min(1, keepdims=True)
    contained[np.arange(len(x)), _log_densities(x).argmax(1)] = True
    expected = (contained / contained.sum(1, keepdims=True)).mean(0)
    atlas = atlas.float()
    _objective(atlas, "sampled").loss(x.float(), 0.5)
    np.testing.assert_allclose(atlas.weights, expected, rtol=1e-5)


def test_a_sampled_chart_is_one_that_contains_the_row():
    atlas, x = _build(MEANS, SCALES, (3, 2), overlap=0.1), _rows()
    contained = atlas.contained(x)
    drawn = _objective(atlas, "sampled")._drawn(contained)
    assert not (drawn & ~contained).any()
    for own in atlas.slices:
        assert (drawn[:, own].sum(1) == 1).all()


def test_partitions_get_the_weights_of_greatest_likelihood():
    """Stacking by expectation maximisation against a general optimiser."""
    rng = np.random.RandomState(0)
    numbers = (2, 2, 1)
    rows = np.concatenate([rng.randn(500, 2) * 0.9, MEANS[2] + 0.6 * rng.randn(300, 2)])
    atlas = _build(MEANS, SCALES, numbers)
    atlas.weights.copy_(torch.tensor([0.3, 0.1, 0.15, 0.05, 0.4]))
    inner = np.array([0.75, 0.25, 0.75, 0.25, 1.0])
    log_joint = _log_densities(rows) + np.log(inner)
    groups = (slice(0, 2), slice(2, 4), slice(4, 5))
    log_parts = np.stack([logsumexp(log_joint[:, own], axis=1) for own in groups], axis=1)

    def loss(logits):
        return -logsumexp(log_parts + np.log(softmax(logits)), axis=1).mean()

    best = minimize(loss, np.zeros(3), tol=1e-10)
    _objective(atlas).fit_validation_weights(torch.tensor(rows))
    found = np.array([atlas.weights[own].sum() for own in groups])
    np.testing.assert_allclose(found, softmax(best.x), atol=0.01)
    assert -logsumexp(log_parts + np.log(found), axis=1).mean() == pytest.approx(best.fun, abs=1e-3)
    # The weights within a partition are those it had.
    within = [atlas.weights[own] / atlas.weights[own].sum() for own in groups]
    np.testing.assert_allclose(torch.cat(within), inner)
    assert atlas.weights.sum().item() == pytest.approx(1)


def test_no_partition_is_given_up():
    """A partition far from all rows keeps a thousandth."""
    means = np.concatenate([MEANS[:4], [[500.0, 0.0]]])
    atlas = _build(means, SCALES, (4, 1))
    _objective(atlas).fit_validation_weights(_rows())
    assert atlas.weights[4].item() == pytest.approx(1e-3, rel=0.01)


def test_one_partition_has_nothing_to_calibrate():
    atlas = _build(MEANS, SCALES, (5,))
    before = atlas.weights.clone()
    _objective(atlas).fit_validation_weights(_rows())
    torch.testing.assert_close(atlas.weights, before, rtol=0, atol=0)


@pytest.mark.parametrize("objective", ["sum", "sampled"])
def test_gradients_are_finite_and_reach_the_charts(objective):
    """Also where rows are far away and most charts do not contain them."""
    atlas = _build(MEANS, SCALES, (3, 2), overlap=0.0, trained=0.2).float()
    x = torch.cat([_rows().float(), torch.tensor([[40.0, -30.0]])])
    _objective(atlas, objective).loss(x, 0.5).backward()
    for name, p in atlas.named_parameters():
        if p.requires_grad:
            assert p.grad.isfinite().all(), name
            assert p.grad.abs().max() > 0, name
        else:
            assert name.startswith("quantizer")


def test_gradient_of_the_sum_is_that_of_the_log_prob():
    atlas, x = _build(MEANS, SCALES, (5,), trained=0.2), _rows()
    parameters = [p for p in atlas.parameters() if p.requires_grad]
    expected = torch.autograd.grad(-atlas.log_prob(x).mean(), parameters)
    found = torch.autograd.grad(_objective(atlas).loss(x, 0.5), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_gradients_of_many_rows_are_computed_block_by_block(monkeypatch):
    """Blocks that keep nothing for their gradients have the gradients of all rows at once."""
    gradients = []
    for entries in (2**20, 14):
        monkeypatch.setattr(atlas_module, "_BLOCK_ENTRIES", entries)
        atlas = _build(MEANS, SCALES, (3, 2), trained=0.2)
        parameters = [p for p in atlas.parameters() if p.requires_grad]
        loss = _objective(atlas).loss(_rows(40), 0.5)
        gradients.append(torch.autograd.grad(loss, parameters))
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_loss_that_is_not_finite_leaves_the_weights():
    atlas = _build(MEANS, SCALES, (5,))
    before = atlas.weights.clone()
    _objective(atlas).loss(torch.full((3, 2), torch.nan).double(), 0.5)
    torch.testing.assert_close(atlas.weights, before, rtol=0, atol=0)


def test_noise_falls_to_its_floor_in_the_first_half():
    objective = AtlasLikelihood(
        _build(MEANS, SCALES, (5,)),
        objective="sum",
        noise_start=0.4,
        noise_floor=0.1,
        n_batches=1,
        generator=make_generator(0),
    )
    assert [objective.noise(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(
        [0.4, 0.2, 0.1, 0.1]
    )


def test_decay_touches_the_networks_of_the_flow_alone():
    objective = _objective(_build(MEANS, SCALES, (2, 3)))
    undecayed = {id(p) for p in objective.undecayed_parameters()}
    networks = {
        id(p)
        for part in objective.atlas.partitions
        for layer in part.chart_map.bijection.modules()
        if hasattr(layer, "conditioner")
        for p in layer.conditioner.parameters()
    }
    assert networks
    assert all(id(p.embedding) in undecayed for p in objective.atlas.partitions)
    assert {id(p) for p in objective.parameters()} - undecayed == networks


def test_matrices_of_the_networks_have_orthogonalized_steps():
    objective = _objective(_build(MEANS, SCALES, (2, 3)))
    expected = {
        id(p) for name, p in objective.named_parameters() if "conditioner" in name and p.ndim == 2
    }
    assert expected
    assert {id(p) for p in objective.orthogonalized_parameters()} == expected
