"""What an objective of a fit implements."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence

from torch import Tensor, nn

from .engine import KnownLoss
from .flow import FlowModel

__all__ = ["Objective"]


class Objective(nn.Module, ABC):
    """Loss of a flow, and the closed-form steps between gradient steps."""

    flow: FlowModel
    # Share of the training that must pass before it may stop early.
    annealing: float = 0.0
    # Share of the steps over which weights are averaged.
    averaging: float = 0.0
    # Whether the learning rate falls along a straight line, or else along half a cosine.
    decays_linearly: bool = False
    # Standard deviations between which the noise on the rows falls.
    noise_start: float = 0.0
    noise_floor: float = 0.0

    @abstractmethod
    def loss(self, batch: Tensor, progress: float) -> Tensor | KnownLoss:
        """Return the loss of a batch of standardised rows; `progress` runs from 0 to 1.

        Its `backward` is called next: that of autograd, or the one that is declared with the value.
        """

    def structure(self) -> Hashable | None:
        """Return what objectives have in common that can be trained as one, None if this cannot.

        Every number and choice that is no tensor and that must not differ has to be part of it.
        """
        return None

    @classmethod
    def stack(cls, objectives: Sequence["Objective"]) -> "Objective":
        """Return one objective for several of one `structure`, whose parameters are theirs.

        Its `loss` takes batches (K, n, D) and returns losses (K,), its `log_likelihood` takes rows
        (K, n, D) and returns (K, n).
        """
        raise NotImplementedError

    @abstractmethod
    def update_closed_form(self, rows: Tensor, *, roughly: bool = False) -> None:
        """Set what has a closed form, given the bijection, from the training rows.

        From all of them, or from as many as it takes to compare two epochs.
        """

    def fit_validation_weights(self, rows: Tensor) -> None:
        """Set the few figures that are chosen on validation rows, where there are such rows."""

    def take_validation_weights(self, other: "Objective") -> None:
        """Take those figures from an objective of the same structure."""

    @abstractmethod
    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Return the log-likelihood (n,) of rows, by whose mean the best weights are chosen."""

    def noise(self, progress: float) -> float:
        """Return the noise at a share of the training: it falls geometrically while it anneals."""
        remaining = max(0.0, 1.0 - progress / self.annealing)
        return self.noise_floor * max(1.0, self.noise_start / self.noise_floor) ** remaining

    def undecayed_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that weight decay must not touch."""
        return []

    def orthogonalized_parameters(self) -> list[nn.Parameter]:
        """Return the matrices that `Muon` moves; all else is moved by Adam."""
        return []

    def reset_running_moments(self) -> None:
        """Drop what was pooled over earlier batches: they came from weights that were lost."""
