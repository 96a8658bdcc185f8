"""Initialisation of a fit: the quantiser is trained first, then the charts start as mixtures."""

import numpy as np
import torch
from torch import Tensor

from .._linear import principal_axes
from .._mixture_of_pca import fit_mixture, partition
from ..backend.device import move, to_host
from ..backend.rows import TrainingRows
from ..backend.training import train
from ..backend.training_job import TrainingSettings
from .atlas import Atlas, AtlasEnsemble
from .chart_maps import ChartMap
from .quantization import Quantization
from .quantizer import ImageAutoencoder, Quantizer, k_means_plus_plus

__all__ = ["initialize_charts", "initialize_quantizer"]

# Training of the quantiser.
_QUANTIZER_EPOCHS = 30
_QUANTIZER_RATE = 3e-3
_QUANTIZER_STEPS = 2000
# A step on images costs much more, and principal components are a fair start of their codes.
_QUANTIZER_IMAGE_STEPS = 600
# Most images from which charts start, and from which layers start.
_MAX_CHART_IMAGES = 4096
_MAX_LAYER_IMAGES = 512


def initialize_quantizer(
    quantizer: Quantizer,
    rows: Tensor,
    *,
    is_trained: bool,
    batch_size: int,
    generator: torch.Generator,
) -> None:
    """Start the autoencoder at PCA and the codebook at some of the codes; train both if asked to.

    In the end codes are rotated to their principal axes.

    Parameters
    ----------
    quantizer : Quantizer
        Trained in place.
    rows : Tensor of shape (n, D)
        Standardised training rows (float64, on the CPU).
    is_trained : bool
        Whether to train; if not, codes are principal components.
    batch_size : int
        Rows of a gradient step.
    generator : torch.Generator
        Source of the first codebook and of batches.
    """
    mean, axes, _ = principal_axes(rows.numpy())
    n_codes, n_components = quantizer.codebook.shape
    axes = axes[:, :n_components].copy()
    quantizer.autoencoder.initialize(torch.tensor(mean), torch.tensor(axes))
    x = rows.to(quantizer.codebook)
    with torch.no_grad():
        quantizer.codebook.copy_(k_means_plus_plus(quantizer.encode(x), n_codes, generator))
    if is_trained and n_codes > 1:
        is_image = isinstance(quantizer.autoencoder, ImageAutoencoder)
        settings = TrainingSettings(
            max_iter=_QUANTIZER_EPOCHS,
            max_steps=_QUANTIZER_IMAGE_STEPS if is_image else _QUANTIZER_STEPS,
            batch_size=batch_size,
            learning_rate=_QUANTIZER_RATE,
            weight_decay=0.0,
            n_iter_no_change=_QUANTIZER_EPOCHS,
            tol=0.0,
        )
        train(Quantization(quantizer), TrainingRows.of(x), None, settings, generator)
    with torch.no_grad():
        codes = to_host(quantizer.encode(x)).numpy()
    quantizer.turn(torch.tensor(principal_axes(codes)[1]))


def initialize_charts(
    flow: AtlasEnsemble, rows: Tensor, noise_floor: float, generator: torch.Generator
) -> None:
    """Start the charts of each atlas: cells of k-means of the codes, then frames and weights.

    k-means starts at the trained codebook if there is one atlas. Of several atlases each has
    another number of charts: its k-means starts at codes that are far apart, and the trained
    codebook is replaced.

    Parameters
    ----------
    flow : AtlasEnsemble
        Model whose quantiser is trained; changed in place.
    rows : Tensor of shape (n, D)
        Standardised training rows (float64, on the CPU).
    noise_floor : float
        Least scale of a frame.
    generator : torch.Generator
        Source of the seeds of k-means.
    """
    quantizer, n_atlases = flow.quantizer, len(flow.partitions)
    is_image = flow.partitions[0].chart_map.frames_last
    x = rows[:_MAX_CHART_IMAGES] if is_image else rows
    with torch.no_grad():
        codes = quantizer.encode(x.to(quantizer.codebook))
    if is_image:
        x = _initialize_image_layers(flow.partitions[0], x)
    code_mean, code_scale = codes.mean(0), codes.std(0).clamp_min(1e-6)
    for atlas, chart_slice in flow.atlases():
        seed = int(torch.randint(2**31, (), generator=generator))
        init = quantizer.codebook.cpu().numpy() if n_atlases == 1 else "k-means++"
        cells, means = partition(codes.cpu().numpy(), atlas.n_charts, seed, init)
        weights, shares = _initialize_frames(atlas.chart_map, x, cells, noise_floor)
        flow.weights[chart_slice] = weights.to(flow.weights) / n_atlases
        # The mixture has moved the charts; their centres are now the means of these codes.
        entries, shares = torch.tensor(means).to(codes), shares.to(codes)
        total = shares.sum(0)[:, None]
        entries = torch.where(total > 0, shares.T @ codes / total.clamp_min(1e-12), entries)
        quantizer.codebook[chart_slice] = entries
        quantizer.occupancy[chart_slice] = shares.mean(0) / n_atlases
        log_scale = atlas.chart_map.frames.scale.log()
        known = [(entries - code_mean) / code_scale, log_scale - log_scale.mean(0)]
        atlas.descriptors.copy_(torch.cat(known, dim=1))


def _initialize_frames(
    chart_map: ChartMap, rows: Tensor, cells: np.ndarray, noise_floor: float
) -> tuple[Tensor, Tensor]:
    """Set frames from cells (n,); return weights (K,) and the shares (n, K) of charts in rows.

    Frames of tables are those of a mixture of probabilistic PCAs; frames of images are fitted to
    the cells.
    """
    n_charts = len(chart_map.frames.mean)
    if chart_map.frames_last:
        shares = np.eye(n_charts)[cells]
        chart_map.frames.fit(rows, torch.tensor(cells).long(), noise_floor)
        weights = torch.tensor((shares.sum(0) + 0.5) / (len(rows) + 0.5 * n_charts))
    else:
        mixture, shares = fit_mixture(rows.numpy(), cells, n_charts, noise_floor)
        weights, *frame = map(torch.tensor, mixture)
        chart_map.frames.set(*frame)
    return weights, torch.tensor(shares)


@torch.no_grad()
def _initialize_image_layers(atlas: Atlas, rows: Tensor) -> Tensor:
    """Start the layers from images; return the mapped images, which are equal in all charts."""
    bijection, like = atlas.chart_map.bijection, atlas.embedding
    # The layers start in float64, which every CPU has.
    move(bijection, torch.device("cpu"), torch.float64)
    bijection.initialize(rows[:_MAX_LAYER_IMAGES])
    bijection.to(like)
    charts = torch.zeros(_MAX_LAYER_IMAGES, dtype=torch.long, device=like.device)
    mapped = [
        atlas.to_latent(images.to(like), charts[: len(images)])[0].cpu()
        for images in rows.split(_MAX_LAYER_IMAGES)
    ]
    return torch.cat(mapped).double()
