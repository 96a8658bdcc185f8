"""The vector-quantised autoencoder against direct computation, autograd and PCA."""

import numpy as np
import pytest
import torch
from helpers import random_rows, randomize
from sklearn.decomposition import PCA

from skmanifoldflow._chart_atlas.quantization import Quantization
from skmanifoldflow._chart_atlas.quantizer import Quantizer, TableAutoencoder, k_means_plus_plus
from skmanifoldflow.backend.device import make_generator


def _build(n_codes=4, n_components=2, n_features=3, sizes=(8,), seed=0):
    """Return a float64 quantizer with random weights and a random codebook."""
    generator = make_generator(seed)
    autoencoder = TableAutoencoder(n_features, n_components, sizes, generator=generator)
    quantizer = Quantizer(autoencoder, n_codes, n_components).double()
    randomize(quantizer, 0.5, generator)
    quantizer.codebook.copy_(torch.randn(n_codes, n_components, generator=generator))
    return quantizer


def test_picks_are_spread(generator):
    """One of each of well-separated blobs, whatever the order of the rows."""
    centres = 100.0 * torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0))
    codes = centres.repeat(30, 1) + torch.randn(270, 2, generator=generator)
    for seed in range(10):
        picked = k_means_plus_plus(codes, 9, make_generator(seed))
        blobs = torch.cdist(picked, centres).argmin(1)
        assert sorted(blobs.tolist()) == list(range(9))
        assert all((codes == row).all(1).any() for row in picked)


def test_picks_follow_squared_distances():
    """Of the three rows 0, 1 and 3 the second pick after 0 is 3 in nine cases out of ten."""
    codes = torch.tensor([[0.0], [1.0], [3.0]])
    picks = torch.stack([k_means_plus_plus(codes, 2, make_generator(s)) for s in range(2000)])
    after_zero = picks[picks[:, 0, 0] == 0][:, 1, 0]
    assert len(after_zero) == pytest.approx(2000 / 3, abs=5 * np.sqrt(2000 * 2 / 9))
    share = (after_zero == 3).double().mean().item()
    assert share == pytest.approx(0.9, abs=5 * np.sqrt(0.09 / len(after_zero)))
    assert not (after_zero == 0).any()


def test_repeated_rows_are_picked_again_when_there_is_nothing_else(generator):
    codes = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(5, 0)
    picked = k_means_plus_plus(codes, 4, generator)
    assert picked.shape == (4, 2)
    assert len(torch.unique(picked[:2], dim=0)) == 2
    assert torch.cdist(picked, codes).min(1).values.max() == 0
    assert k_means_plus_plus(codes[:1], 3, generator).shape == (3, 2)


def test_distances_are_euclidean():
    quantizer, codes = _build(), random_rows(7, 2)
    expected = np.linalg.norm(codes.numpy()[:, None] - quantizer.codebook.numpy(), axis=2)
    np.testing.assert_allclose(quantizer.distances(codes), expected)


def test_codebook_follows_moving_averages():
    """Sums and counts of the nearest codes, averaged over three batches, entry by entry."""
    quantizer = _build()
    quantizer.least_occupancy = 0.0
    counts = np.full(4, 0.25)
    sums = counts[:, None] * quantizer.codebook.numpy().copy()
    for seed in range(3):
        codes = random_rows(50, 2, seed=seed)
        entries = sums / counts[:, None]
        np.testing.assert_allclose(quantizer.codebook, entries)
        nearest = np.linalg.norm(codes.numpy()[:, None] - entries, axis=2).argmin(1)
        for k in range(4):
            mine = codes.numpy()[nearest == k]
            counts[k] = 0.95 * counts[k] + 0.05 * len(mine) / 50
            sums[k] = 0.95 * sums[k] + 0.05 * mine.sum(0) / 50
        quantizer.update_codebook(codes)
    np.testing.assert_allclose(quantizer.codebook, sums / counts[:, None])
    np.testing.assert_allclose(quantizer.occupancy, counts)


def test_a_dead_entry_moves_to_the_farthest_code():
    quantizer = _build()
    with torch.no_grad():
        quantizer.codebook[3] = 1e3
        quantizer.occupancy.copy_(torch.tensor([0.5, 0.25, 0.25, 1e-3]))
    codes = random_rows(50, 2)
    codes[17] = torch.tensor([9.0, -9.0])
    quantizer.update_codebook(codes)
    torch.testing.assert_close(quantizer.codebook[3], codes[17])
    assert quantizer.occupancy[3] == pytest.approx(0.25)


def test_entries_far_from_all_codes_come_to_life():
    """All entries start at one place: in time each lies among the codes and takes some of them."""
    quantizer = _build()
    with torch.no_grad():
        quantizer.codebook.fill_(50.0)
    for seed in range(400):
        codes = random_rows(40, 2, seed=seed)
        quantizer.update_codebook(codes)
    assert quantizer.codebook.abs().max() < 4
    assert torch.cdist(codes, quantizer.codebook).argmin(1).unique().tolist() == [0, 1, 2, 3]
    assert quantizer.occupancy.min() > 0.025


def test_gradient_passes_straight_through():
    """The encoder is moved by the gradient of the decoder at the entry, not at the code."""
    quantizer, x = _build(sizes=()), random_rows(9, 3)
    quantizer.commitment = 0.0
    loss, _ = quantizer.loss_and_codes(x)
    (found,) = torch.autograd.grad(loss, quantizer.autoencoder.encoder.linear.bias)
    codes = quantizer.encode(x).detach()
    nearest = np.linalg.norm(codes.numpy()[:, None] - quantizer.codebook.numpy(), axis=2).argmin(1)
    expected = torch.zeros(2, dtype=torch.float64)
    for points in (codes, quantizer.codebook[nearest]):
        points = points.clone().requires_grad_()
        error = (quantizer.decode(points) - x).square().mean()
        # A linear encoder moves all codes by its bias.
        expected += torch.autograd.grad(error, points)[0].sum(0)
    torch.testing.assert_close(found, expected)


def test_commitment_draws_codes_to_their_entries_and_leaves_these():
    quantizer, x = _build(), random_rows(9, 3)
    codes = quantizer.encode(x)
    nearest = torch.cdist(codes, quantizer.codebook).argmin(1)
    distance = (codes - quantizer.codebook[nearest]).square().mean()
    with_it = quantizer.loss_and_codes(x)[0]
    quantizer.commitment = 0.0
    without = quantizer.loss_and_codes(x)[0]
    torch.testing.assert_close(with_it - without, 0.25 * distance)
    assert not quantizer.codebook.requires_grad


@pytest.mark.parametrize("sizes", [(), (8, 8)])
def test_starts_at_principal_components(sizes):
    rng = np.random.RandomState(0)
    rows = rng.randn(100, 4) @ rng.randn(4, 4) + 3
    pca = PCA(2).fit(rows)
    autoencoder = TableAutoencoder(4, 2, sizes, generator=make_generator(0)).double()
    autoencoder.initialize(torch.tensor(pca.mean_), torch.tensor(pca.components_.T))
    quantizer = Quantizer(autoencoder, 3, 2).double().requires_grad_(False)
    codes = quantizer.encode(torch.tensor(rows))
    np.testing.assert_allclose(codes, pca.transform(rows), atol=1e-10)
    rebuilt = pca.inverse_transform(pca.transform(rows))
    np.testing.assert_allclose(quantizer.decode(codes), rebuilt, atol=1e-10)


def test_loss_and_score_are_the_errors_of_both_reconstructions():
    quantizer, x = _build(), random_rows(9, 3)
    codes = quantizer.encode(x).detach()
    entries = quantizer.codebook[torch.cdist(codes, quantizer.codebook).argmin(1)]
    errors = [(quantizer.decode(c) - x).square() for c in (codes, entries)]
    quantizer.commitment = 0.0
    loss, _ = quantizer.loss_and_codes(x)
    torch.testing.assert_close(loss, sum(error.mean() for error in errors))
    score = Quantization(quantizer).log_likelihood(x)
    torch.testing.assert_close(-score, sum(error.mean(1) for error in errors))


def test_decay_touches_nothing():
    objective = Quantization(_build())
    assert {id(p) for p in objective.undecayed_parameters()} == {
        id(p) for p in objective.parameters()
    }
