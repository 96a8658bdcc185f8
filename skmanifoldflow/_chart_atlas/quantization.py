"""Loss of a vector-quantised autoencoder."""

import torch
from torch import Tensor, nn

from ..backend.flow import chunks
from ..backend.objective import Objective
from .quantizer import Quantizer

__all__ = ["Quantization"]


class Quantization(Objective):
    """Squared errors of both reconstructions and the commitment of a `Quantizer`.

    The codebook moves in closed form with every batch. The score of a row is minus the mean squared
    error of its reconstruction from its code, plus that from the nearest entry of the codebook.

    Parameters
    ----------
    quantizer : Quantizer
        Trained in place.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def loss(self, batch: Tensor, progress: float) -> Tensor:
        loss, codes = self.quantizer.loss_and_codes(batch)
        self.quantizer.update_codebook(codes.detach())
        return loss

    def update_closed_form(self, rows: Tensor, *, roughly: bool = False) -> None:
        """Do nothing: the codebook moves with the batches."""

    @torch.no_grad()
    def log_likelihood(self, rows: Tensor) -> Tensor:
        errors = []
        for chunk in chunks(len(rows), rows.shape[1]):
            x, codes = rows[chunk], self.quantizer.encode(rows[chunk])
            entries = self.quantizer.codebook[self.quantizer.distances(codes).argmin(1)]
            both = torch.stack([self.quantizer.decode(codes), self.quantizer.decode(entries)])
            errors.append((both - x).square().mean(2).sum(0))
        return -torch.cat(errors)

    def undecayed_parameters(self) -> list[nn.Parameter]:
        return list(self.parameters())
