"""Scale and shift of every column or channel, started from the data."""

import torch
from torch import Tensor, nn

from .base import Bijection

__all__ = ["ActNorm"]


class ActNorm(Bijection):
    """Elementwise map z = x exp(s) + t with one s and t per column or channel.

    Takes rows (n, D) or images (n, C, H, W), where D or C is `n_features`. It is the identity until
    `initialize` has seen a batch; nothing but `initialize` looks at a batch as a whole (Kingma &
    Dhariwal, NeurIPS 2018).

    Parameters
    ----------
    n_features : int
        Number of columns of rows, or of channels of images.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(n_features))
        self.shift = nn.Parameter(torch.zeros(n_features))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Give the batch mean 0 and variance 1 in every column or channel; return it mapped.

        A constant column is only centred.
        """
        others = [i for i in range(x.ndim) if i != 1]
        values = x.double()
        mean = values.mean(others)
        std = values.std(others, correction=0)
        eps = torch.finfo(x.dtype).eps
        is_constant = std <= 4 * eps * values.abs().amax(others)
        scale = 1 / torch.where(is_constant, 1.0, std)
        self.log_scale.copy_(scale.log())
        self.shift.copy_(-mean * scale)
        return self.forward_and_log_det(x)[0]

    def _constants(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scale and shift in a shape that broadcasts, and the log-determinant of a row."""
        shape = (-1, *[1] * (x.ndim - 2))
        log_det = self.log_scale.sum() * x[0, 0].numel()
        return self.log_scale.exp().view(shape), self.shift.view(shape), log_det

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        scale, shift, log_det = self._constants(x)
        return torch.addcmul(shift, x, scale), log_det.expand(len(x))

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        scale, shift, log_det = self._constants(z)
        return (z - shift) / scale, -log_det.expand(len(z))
