"""The gradient step of a stack of fits without automatic differentiation."""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.func import vmap

from .bijections import Chain, Coupling, MarginalSpline, Permutation
from .bijections.fused import FusedLayer, Record
from .latents.injections import LinearInjection
from .objectives import InjectionLikelihood

__all__ = ["StackedStep"]


def _same_layers(objectives: Sequence[InjectionLikelihood]) -> list[FusedLayer] | None:
    """Return layers for all fits, None if these have no closed form or differ in what is fixed."""
    model = objectives[0]
    chain = model.flow.bijection
    if not model.is_closed_form or len(model.law.mean) < 2:
        return None
    if not isinstance(chain, Chain) or not chain.fused_layers:
        return None
    chains = [cast(Chain, objective.flow.bijection) for objective in objectives]
    layers: list[FusedLayer] = []
    for of_fits in zip(*(chain.fused_layers for chain in chains), strict=True):
        layer = of_fits[0]
        if isinstance(layer, Permutation):
            if not all(torch.equal(layer.order, cast(Permutation, o).order) for o in of_fits):
                return None
        elif isinstance(layer, MarginalSpline):
            splines = [cast(MarginalSpline, spline) for spline in of_fits]
            layer = copy.copy(layer)
            layer._buffers = dict(layer._buffers)
            layer.knots = torch.stack([spline.knots for spline in splines])
            layer.is_free = torch.stack([spline.is_free for spline in splines])
        elif not isinstance(layer, Coupling):
            return None
        layers.append(layer)
    return layers


class StackedStep:
    """Losses of a stack of fits, and their gradients.

    Parameters
    ----------
    objectives : sequence of InjectionLikelihood
        The fits, which have a closed form in common.
    layers : sequence of FusedLayer
        Those of all fits.
    parameters : dict of str to Tensor
        The parameters of the fits by name, each a stack of K.
    """

    def __init__(
        self,
        objectives: Sequence[InjectionLikelihood],
        layers: Sequence[FusedLayer],
        parameters: dict[str, Tensor],
    ) -> None:
        model = objectives[0]
        names = {id(p): name for name, p in model.named_parameters()}
        self.model, self.layers, self.parameters = model, layers, parameters
        chain = cast(Chain, model.flow.bijection)
        self.names = [[names[id(w)] for w in layer.weights()] for layer in chain.fused_layers]
        injection = cast(LinearInjection, model.law.injection)
        self.injection = injection
        self.law_names = [names[id(p)] for p in (injection.b, injection.a, injection.log_excess)]
        self.records: dict[torch.Size, Record] = {}

    @classmethod
    def of(
        cls, objectives: Sequence[InjectionLikelihood], parameters: dict[str, Tensor]
    ) -> "StackedStep | None":
        """Return the step of some fits, None if they have none in closed form."""
        layers = _same_layers(objectives)
        return None if layers is None else cls(objectives, layers, parameters)

    def _record(self, rows: Tensor) -> Record:
        if rows.shape not in self.records:
            weights = [[self.parameters[name] for name in of_layer] for of_layer in self.names]
            self.records[rows.shape] = Record(
                self.layers,
                weights,
                [w.new_empty(w.shape) for of_layer in weights for w in of_layer],
                rows.flatten(0, 1),
                None,
                inverse=False,
                keeps=True,
                n_stack=len(rows),
            )
        return self.records[rows.shape]

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses (K,) of noisy rows (K, n, D), and the gradients of the parameters."""
        n_fits, n = rows.shape[:2]
        record = self._record(rows)
        z, log_det = record.forward(rows.flatten(0, 1), None)
        law = [self.parameters[name] for name in self.law_names]
        y = z.view_as(rows).to(self.model.law.mean)
        mean, of_y, *of_law = vmap(self.injection.mean_and_gradients)(y, *law)
        rate = 1 / self.model.n_rows
        record.backward(of_y.flatten(0, 1).to(z), torch.full_like(log_det, -1 / n), False, -rate)
        losses = -mean - log_det.view(n_fits, n).mean(1) - rate * record.log_prior()
        gradients = dict(zip(self.law_names, of_law, strict=True))
        flat = [name for of_layer in self.names for name in of_layer]
        return losses, gradients | dict(zip(flat, record.gradients, strict=True))
