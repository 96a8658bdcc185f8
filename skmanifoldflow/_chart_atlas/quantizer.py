"""Vector-quantised autoencoder: encoder, decoder and a codebook (van den Oord et al., 2017)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..backend.device import to_host
from ..backend.networks import MLP, ConvDecoder, ConvEncoder, Linear

__all__ = ["ImageAutoencoder", "Quantizer", "TableAutoencoder", "k_means_plus_plus"]


def k_means_plus_plus(codes: Tensor, n_codes: int, generator: torch.Generator) -> Tensor:
    """Return `n_codes` of the codes (n, c), far apart (Arthur & Vassilvitskii, SODA 2007).

    Each code is drawn with a probability proportional to its squared distance from the nearest of
    the codes that were drawn before.
    """
    picked = [int(torch.randint(len(codes), (), generator=generator))]
    squares = codes.new_full((len(codes),), torch.inf)
    while len(picked) < n_codes:
        squares = torch.minimum(squares, (codes - codes[picked[-1]]).square().sum(1))
        total = to_host(squares).cumsum(0)
        # If all codes equal drawn ones the distances are zero, and the last code is taken.
        threshold = total[-1] * torch.rand((), dtype=torch.float64, generator=generator)
        index = int(torch.searchsorted(total, threshold, right=True))
        picked.append(min(index, len(codes) - 1))
    return codes[picked].clone()


class _Residual(nn.Module):
    """A linear map plus a network whose output starts at zero, or the linear map alone."""

    def __init__(self, n_inputs: int, n_outputs: int, network: nn.Module | None) -> None:
        super().__init__()
        self.linear = Linear(n_inputs, n_outputs)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if self.network is None else y + self.network(x)


class _Autoencoder(nn.Module):
    """Encoder and decoder, which start as the projection on principal components and back."""

    def __init__(
        self,
        n_features: int,
        n_components: int,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = _Residual(n_features, n_components, encoder)
        self.decoder = _Residual(n_components, n_features, decoder)

    @torch.no_grad()
    def initialize(self, mean: Tensor, axes: Tensor) -> None:
        """Set the linear maps to PCA, given its mean (D,) and orthonormal axes (D, c)."""
        self.encoder.linear.weight.copy_(axes.T)
        self.encoder.linear.bias.copy_(-(mean @ axes))
        self.decoder.linear.weight.copy_(axes)
        self.decoder.linear.bias.copy_(mean)


class TableAutoencoder(_Autoencoder):
    """Autoencoder of tables.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    n_components : int
        Length c of a code.
    hidden_layer_sizes : sequence of int
        Hidden layers of both networks; without any they are linear.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(
        self,
        n_features: int,
        n_components: int,
        hidden_layer_sizes: Sequence[int],
        *,
        generator: torch.Generator,
    ) -> None:
        networks = []
        if hidden_layer_sizes:
            networks = [
                MLP(n_features, hidden_layer_sizes, n_components, generator=generator),
                MLP(n_components, hidden_layer_sizes, n_features, generator=generator),
            ]
        super().__init__(n_features, n_components, *networks)


class ImageAutoencoder(_Autoencoder):
    """Convolutional autoencoder of flattened images.

    Parameters
    ----------
    image_shape : tuple of three ints
        Channels, height and width (C, H, W).
    n_components : int
        Length c of a code.
    hidden_channels : sequence of int
        Channels after each halving of the image.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_components: int,
        hidden_channels: Sequence[int],
        *,
        generator: torch.Generator,
    ) -> None:
        n_features = math.prod(image_shape)
        encoder = ConvEncoder(image_shape, hidden_channels, n_components, generator=generator)
        decoder = ConvDecoder(image_shape, hidden_channels, n_components, generator=generator)
        super().__init__(n_features, n_components, encoder, decoder)


class Quantizer(nn.Module):
    """Autoencoder with a codebook; an entry is a moving average of the codes nearest to it.

    Parameters
    ----------
    autoencoder : TableAutoencoder or ImageAutoencoder
        Encoder and decoder.
    n_codes : int
        Number K of entries of the codebook.
    n_components : int
        Length c of a code.
    """

    codebook: Tensor
    axes: Tensor
    occupancy: Tensor
    # Weight of a batch in the moving averages.
    momentum = 0.05
    # An entry that takes less than this times an equal share of the rows is dead.
    least_occupancy = 0.1
    # Weight in the loss of the squared distance of codes from the nearest entries (van den Oord et
    # al., 2017, beta).
    commitment = 0.25

    def __init__(self, autoencoder: _Autoencoder, n_codes: int, n_components: int) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.register_buffer("codebook", torch.zeros(n_codes, n_components, dtype=torch.float32))
        self.register_buffer("axes", torch.eye(n_components, dtype=torch.float32))
        # Share of the rows that each entry takes.
        self.register_buffer("occupancy", torch.full((n_codes,), 1 / n_codes, dtype=torch.float32))

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes (n, c) of standardised rows."""
        return self.autoencoder.encoder(x) @ self.axes

    def decode(self, codes: Tensor) -> Tensor:
        """Return the standardised rows (n, D) of codes."""
        return self.autoencoder.decoder(codes @ self.axes.T)

    @torch.no_grad()
    def turn(self, axes: Tensor) -> None:
        """Rotate codes and codebook to orthonormal axes (c, c), the columns of a matrix."""
        axes = axes.to(self.axes)
        self.axes.copy_(self.axes @ axes)
        self.codebook.copy_(self.codebook @ axes)

    def distances(self, codes: Tensor) -> Tensor:
        """Return the distances (n, K) of codes from the entries of the codebook."""
        # By a matrix product the rounding of a row would depend on the other rows.
        return torch.cdist(codes, self.codebook, compute_mode="donot_use_mm_for_euclid_dist")

    def loss_and_codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch (n, D), a scalar, and its codes (n, c).

        The loss is the sum of three mean squared errors: of rows reconstructed from their codes,
        so that the decoder inverts the encoder; of rows reconstructed from the entries nearest to
        their codes, with a straight-through gradient; and the commitment, of codes to entries.
        """
        codes = self.encode(x)
        entries = self.codebook[self.distances(codes.detach()).argmin(1)]
        straight = codes + (entries - codes).detach()
        loss = (self.decode(codes) - x).square().mean()
        loss = loss + (self.decode(straight) - x).square().mean()
        return loss + self.commitment * (codes - entries).square().mean(), codes

    @torch.no_grad()
    def update_codebook(self, codes: Tensor) -> None:
        """Move each entry towards the mean of the codes nearest to it; revive dead entries.

        Dead entries move to the codes that are farthest from all entries.
        """
        n, n_codes = len(codes), len(self.codebook)
        distances, nearest = self.distances(codes).min(1)
        taken = nn.functional.one_hot(nearest, n_codes).to(codes)
        share = taken.mean(0)
        occupancy = torch.lerp(self.occupancy, share, self.momentum)
        gain = self.momentum / occupancy.clamp_min(1e-12)
        moved = gain[:, None] * (taken.T @ codes / n - share[:, None] * self.codebook)
        self.codebook += moved
        self.occupancy.copy_(occupancy)
        dead = self.occupancy * n_codes < self.least_occupancy
        n_dead = min(int(dead.sum()), n)
        if n_dead:
            entries = dead.nonzero()[:n_dead, 0]
            self.codebook[entries] = codes[distances.topk(n_dead).indices]
            self.occupancy[entries] = 1 / n_codes
