"""Coupling layers: one part of the columns conditions the map of the other part."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ..networks import MLP
from .base import Bijection

__all__ = ["AdditiveCoupling", "AffineCoupling", "Coupling"]


class Coupling(Bijection):
    """Coupling layer (Dinh et al., ICLR 2015 and 2017).

    The first D - `n_transformed` columns pass unchanged and, with the context, feed the conditioner
    that parametrises an elementwise map of the last `n_transformed` columns.

    Parameters
    ----------
    n_features : int
        Number of columns D.
    n_transformed : int
        Number of columns that are mapped, 1 <= n_transformed <= D. With n_transformed = D the map
        is elementwise, with learned constants or with parameters given by the context alone.
    n_params : int
        Parameters of the elementwise map per mapped column.
    hidden_layer_sizes : sequence of int
        Hidden layers of the conditioner.
    generator : torch.Generator
        Source of the initial weights.
    n_context : int, default=0
        Number of context columns.
    """

    def __init__(
        self,
        n_features: int,
        n_transformed: int,
        n_params: int,
        hidden_layer_sizes: Sequence[int],
        *,
        generator: torch.Generator,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= n_transformed <= n_features:
            raise ValueError(
                f"n_transformed must be between 1 and n_features={n_features}, got {n_transformed}."
            )
        self.n_passed = n_features - n_transformed
        self.n_transformed = n_transformed
        self.n_params = n_params
        self.conditioner = MLP(
            self.n_passed + n_context,
            hidden_layer_sizes,
            n_params * n_transformed,
            generator=generator,
        )

    @abstractmethod
    def _map(self, x: Tensor, params: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the last columns forward; return them and the log-determinant per row."""

    @abstractmethod
    def _inverse_map(self, z: Tensor, params: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Undo `_map`."""

    def _split(self, rows: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the passed columns, the others and their parameters."""
        passed, moved = rows[:, : self.n_passed], rows[:, self.n_passed :]
        inputs = passed if context is None else torch.cat([passed, context], dim=1)
        params = self.conditioner(inputs)
        return passed, moved, list(params.split(self.n_transformed, dim=1))

    def forward_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        passed, moved, params = self._split(x, context)
        moved, log_det = self._map(moved, params)
        return torch.cat([passed, moved], dim=1), log_det

    def inverse_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        passed, moved, params = self._split(z, context)
        moved, log_det = self._inverse_map(moved, params)
        return torch.cat([passed, moved], dim=1), log_det


class AdditiveCoupling(Coupling):
    """Additive coupling z_b = x_b + t(x_a), volume preserving (NICE, Dinh et al., ICLR 2015).

    Parameters are those of `Coupling`, with one shift per mapped column.
    """

    def __init__(
        self,
        n_features: int,
        n_transformed: int,
        hidden_layer_sizes: Sequence[int],
        *,
        generator: torch.Generator,
        n_context: int = 0,
    ) -> None:
        super().__init__(
            n_features,
            n_transformed,
            1,
            hidden_layer_sizes,
            generator=generator,
            n_context=n_context,
        )

    def _map(self, x: Tensor, params: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return x + params[0], x.new_zeros(len(x))

    def _inverse_map(self, z: Tensor, params: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return z - params[0], z.new_zeros(len(z))


class AffineCoupling(Coupling):
    """Affine coupling z_b = x_b exp(s(x_a)) + t(x_a) (Dinh et al., ICLR 2017).

    The log-scale is bounded softly, s = c tanh(r / c) with c = 2, so that no row can overflow.

    Parameters are those of `Coupling`, and:

    volume_preserving : bool, default=False
        Subtract from the log-scales their mean over the mapped columns, which makes the
        log-determinant zero (Sorrenson et al., ICLR 2020). With one mapped column the layer is then
        additive.
    """

    max_log_scale = 2.0

    def __init__(
        self,
        n_features: int,
        n_transformed: int,
        hidden_layer_sizes: Sequence[int],
        *,
        generator: torch.Generator,
        n_context: int = 0,
        volume_preserving: bool = False,
    ) -> None:
        super().__init__(
            n_features,
            n_transformed,
            2,
            hidden_layer_sizes,
            generator=generator,
            n_context=n_context,
        )
        self.volume_preserving = volume_preserving

    def _log_scale(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bounded log-scales and their sum per row."""
        log_scale = self.max_log_scale * torch.tanh(raw / self.max_log_scale)
        if self.volume_preserving:
            return log_scale - log_scale.mean(dim=1, keepdim=True), raw.new_zeros(len(raw))
        return log_scale, log_scale.sum(dim=1)

    def _map(self, x: Tensor, params: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        shift, raw = params
        log_scale, log_det = self._log_scale(raw)
        return torch.addcmul(shift, x, log_scale.exp()), log_det

    def _inverse_map(self, z: Tensor, params: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        shift, raw = params
        log_scale, log_det = self._log_scale(raw)
        return (z - shift) * torch.exp(-log_scale), -log_det
