"""Images of known dimension: what the decoder of a small autoencoder makes of normal codes.

A variational autoencoder (Kingma & Welling, ICLR 2014) is trained on Fashion-MNIST, and its
decoder, a smooth map of R^d whose Jacobian has full rank, draws the images. So they lie on a
manifold of dimension d in 784 columns, without noise. The weight of the divergence is 0.2: with 1
two of ten codes say nothing.
"""

from pathlib import Path

import numpy as np
import torch
from _data import data_folder, load_fashion_mnist
from torch import nn
from torch.nn import functional as F

KL_WEIGHT = 0.2
N_EPOCHS = 10
BATCH_SIZE = 256
LEARNING_RATE = 1e-3
WIDTH = 256
N_JACOBIANS = 100


def _network(n_inputs, n_outputs):
    # Smooth units: the image of the decoder is a manifold without creases.
    return nn.Sequential(
        nn.Linear(n_inputs, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, n_outputs),
    )


def trained_decoder(images, dimension, seed=0):
    """Decoder R^d -> (0, 1)^784 of an autoencoder trained on images in [0, 1]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, decoder = _network(784, 2 * dimension), _network(dimension, 784)
        parameters = [*encoder.parameters(), *decoder.parameters()]
        n_steps = N_EPOCHS * (len(images) // BATCH_SIZE)
        optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        for _ in range(N_EPOCHS):
            order = torch.randperm(len(images))[: len(images) // BATCH_SIZE * BATCH_SIZE]
            for batch in images[order].split(BATCH_SIZE):
                mean, log_variance = encoder(batch).chunk(2, dim=1)
                code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
                error = F.binary_cross_entropy_with_logits(decoder(code), batch, reduction="sum")
                divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
                optimizer.zero_grad()
                ((error + KL_WEIGHT * divergence) / len(batch)).backward()
                optimizer.step()
                schedule.step()
    return nn.Sequential(decoder, nn.Sigmoid()).double().requires_grad_(False)


def singular_values(decoder, codes):
    """Singular values (n, d) of the Jacobian of the decoder at codes, descending."""
    jacobians = torch.func.vmap(torch.func.jacfwd(decoder))(codes)
    return torch.linalg.svdvals(jacobians)


def vae_images(dimension, n_samples=10000, data_dir=None, seed=0):
    """Images (n, 784) of the decoder at codes of N(0, I); kept as a file in the folder of data."""
    folder = data_folder(data_dir)
    path = folder and Path(folder) / f"vae_images_{dimension}_{n_samples}_{seed}.npy"
    if path and path.exists():
        return np.load(path)
    images = torch.tensor(load_fashion_mnist(data_dir)[0] / np.float32(255))
    decoder = trained_decoder(images, dimension, seed)
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(n_samples, dimension, dtype=torch.float64, generator=generator)
    values = singular_values(decoder, codes[:N_JACOBIANS])
    ratio = float((values[:, -1] / values[:, 0]).min())
    print(
        f"decoder of {dimension} codes: mean singular values of its Jacobian "
        + " ".join(f"{value:.2f}" for value in values.mean(0))
        + f", least ratio of last to first {ratio:.3f}, at {N_JACOBIANS} codes",
        flush=True,
    )
    if ratio < 1e-3:
        raise SystemExit(f"The decoder does not have full rank: {ratio:.1e}.")
    rows = decoder(codes).numpy()
    if path:
        np.save(path, rows)
    return rows
