"""Adam and Muon on flat weights, for one fit or several of one architecture."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from .bijections import Chain
from .engine import TrainedWeights, aligned
from .muon import Muon
from .objective import Objective
from .torch_private import buffers, fused_adamw_, version
from .torch_private import parameters as parameters_of

__all__ = ["Adam", "Optimizer", "State", "release"]

CLIP_NORM = 5.0


class State(NamedTuple):
    """A copy of all that a fit has learned.

    Attributes
    ----------
    weights : list of Tensor
        Those that are trained, one after the other, by groups of the optimizer.
    names : list of lists of str
        Their names in the objective.
    others : dict of str to Tensor
        All other parameters and buffers.
    """

    weights: list[Tensor]
    names: list[list[str]]
    others: dict[str, Tensor]

    @torch.no_grad()
    def load(self, objective: Objective) -> None:
        """Return an objective to what it had learned."""
        tensors = objective.state_dict(keep_vars=True)
        for weights, names in zip(self.weights, self.names, strict=True):
            parts = weights.split([aligned(tensors[name].numel()) for name in names])
            for name, part in zip(names, parts, strict=True):
                tensors[name].copy_(part[: tensors[name].numel()].view_as(tensors[name]))
        for name, tensor in self.others.items():
            tensors[name].copy_(tensor)


def release(objective: Objective) -> None:
    """Give every parameter storage of its own again, and no gradient."""
    for module in objective.modules():
        if isinstance(module, Chain):
            module.trained = None
    for p in objective.parameters():
        p.grad = None
        p.data = p.data.clone()


class Adam:
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019) on K flat vectors.

    The parameters of each fit become views of a row of one matrix, and their gradients of another:
    a step and the clipping cost a handful of calls instead of a handful for each tensor.

    Parameters
    ----------
    fits : sequence of lists of Parameter
        What is trained of each fit; their storage changes.
    weight_decays : sequence of float
        Share of the parameters of each fit that is taken off in a step, times the learning rate.
    orthogonalized : collection of int, default=()
        Identities of those of the first fit that are matrices moved by `Muon` instead. Adam sees
        gradients of zero there, and does no more than the decay.
    """

    def __init__(
        self,
        fits: Sequence[Sequence[nn.Parameter]],
        weight_decays: Sequence[float],
        orthogonalized: Collection[int] = (),
    ) -> None:
        # Where each of the parameters of the first fit starts, by its identity.
        self.starts: dict[int, int] = {}
        size = 0
        for p in fits[0]:
            self.starts[id(p)] = size
            size += aligned(p.numel())
        self.values = fits[0][0].new_zeros(len(fits), size).detach()
        self.gradient = torch.zeros_like(self.values)
        self.weight_decays = list(weight_decays)
        self.mean, self.square = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.n_steps = 0
        self._count = torch.zeros((), device=self.values.device)
        for same in zip(*fits, strict=True):
            start = self.starts[id(same[0])]
            stop = start + same[0].numel()
            for k, p in enumerate(same):
                self.values[k, start:stop] = p.detach().flatten()
                p.data = self.values[k, start:stop].view_as(p)
                p.grad = self.gradient[k, start:stop].view_as(p)
        self.average = self.values.clone()
        self.muons = self._muons([p for p in fits[0] if id(p) in orthogonalized and p.numel()])
        self._rows = [list(m) for m in (self.values, self.gradient, self.mean, self.square)]

    def _muons(self, parameters: Sequence[nn.Parameter]) -> list[Muon]:
        """Return what moves matrices, those of one shape together; filters count as rows."""
        views: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for p in parameters:
            shape, start = (len(p), p.numel() // len(p)), self.starts[id(p)]
            of_fits = (m[:, start : start + p.numel()] for m in (self.values, self.gradient))
            values, gradient = (part.unflatten(1, shape) for part in of_fits)
            views.setdefault(shape, []).append((values, gradient))
        return [Muon(*zip(*of_shape, strict=True)) for of_shape in views.values()]

    @torch.no_grad()
    def step(self, learning_rates: Sequence[float]) -> None:
        """Move the parameters along their gradients."""
        directions = [muon.take_directions() for muon in self.muons]
        self.n_steps += 1
        self._count.fill_(self.n_steps)
        rates = list(zip(learning_rates, self.weight_decays, strict=True))
        # Fits that have both in common are one call.
        for learning_rate, weight_decay in dict.fromkeys(rates):
            which = [k for k, rate in enumerate(rates) if rate == (learning_rate, weight_decay)]
            rows = [[of_fits[k] for k in which] for of_fits in self._rows]
            fused_adamw_(
                *rows,
                [],
                [self._count] * len(which),
                lr=learning_rate,
                beta1=0.9,
                beta2=0.999,
                # A step may not take off more than there is.
                weight_decay=weight_decay / max(1.0, weight_decay * learning_rate),
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )
        for muon, of_muon in zip(self.muons, directions, strict=True):
            muon.step(of_muon, learning_rates)


class Optimizer:
    """Muon for matrices and Adam for the rest of K fits, with a clipping for each fit.

    Parameters
    ----------
    objectives : sequence of Objective
        What is trained; more than one if they have their `structure` in common.
    weight_decays : sequence of float
        Weight decay of each.
    """

    def __init__(self, objectives: Sequence[Objective], weight_decays: Sequence[float]) -> None:
        self.objectives, self._weight_decays = objectives, weight_decays
        model = objectives[0]
        undecayed = {id(p) for p in model.undecayed_parameters()}
        orthogonalized = {id(p) for p in model.orthogonalized_parameters()}
        # One matrix has one dtype, and the latent distribution may be trained in float64.
        groups: dict[tuple[bool, torch.dtype], list[str]] = {}
        for name, p in model.named_parameters():
            if p.requires_grad:
                groups.setdefault((id(p) in undecayed, p.dtype), []).append(name)
        parameters = [dict(objective.named_parameters()) for objective in objectives]
        keys = sorted(groups, key=lambda key: key[0])
        self._names = [groups[key] for key in keys]
        self.groups = [
            Adam(
                [[of_fit[name] for name in groups[key]] for of_fit in parameters],
                [0.0] * len(objectives) if key[0] else weight_decays,
                orthogonalized,
            )
            for key in keys
        ]
        trained = {name for names in self._names for name in names}
        # What else a state consists of, and the copies that were made of it last.
        self._others: list[list[tuple[str, dict[str, Tensor], str]]] = []
        for objective in objectives:
            self._others.append([])
            for name in objective.state_dict():
                if name not in trained:
                    path, _, key = name.rpartition(".")
                    owner = objective.get_submodule(path)
                    of_owner = buffers(owner) if key in buffers(owner) else parameters_of(owner)
                    self._others[-1].append((name, of_owner, key))
        self._copies: list[dict[str, tuple[Tensor, int, Tensor]]] = [{} for _ in objectives]
        self._chains: list[TrainedWeights] = []
        inner: set[nn.Module] = set()
        for name, module in model.named_modules():
            if isinstance(module, Chain) and module not in inner and self._bind(name, module):
                inner.update(module.modules())

    def _bind(self, name: str, chain: Chain) -> bool:
        """Let the weights of a chain be parts of the matrices, if all of them lie there."""
        chain.trained = None
        runs: list[tuple[Adam, int, int]] = []
        for w in (w for layer in chain.kernel_layers() for w in layer.weights()):
            group = next((group for group in self.groups if id(w) in group.starts), None)
            if group is None:
                return False
            start = group.starts[id(w)]
            if runs and runs[-1][0] is group and runs[-1][2] == start:
                start = runs.pop()[1]
            runs.append((group, start, group.starts[id(w)] + aligned(w.numel())))
        if not runs:
            return False
        chain.trained = TrainedWeights(
            [cast(Chain, objective.get_submodule(name)) for objective in self.objectives],
            [group.values[:, start:stop] for group, start, stop in runs],
            [group.gradient[:, start:stop] for group, start, stop in runs],
        )
        self._chains.append(chain.trained)
        return True

    @torch.no_grad()
    def move_averages(self, share: float) -> None:
        """Move the averages by a share of the way to the weights."""
        for group in self.groups:
            group.average.lerp_(group.values, share)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their averages."""
        for group in self.groups:
            values = group.values.clone()
            group.values.copy_(group.average)
            group.average.copy_(values)

    def are_finite(self) -> list[bool]:
        """Tell of each fit whether its weights are finite."""
        # A layer may have weights of no elements.
        matrices = [group.values for group in self.groups if group.values.numel()]
        largest = [torch.linalg.vector_norm(values, math.inf, 1).tolist() for values in matrices]
        of_fits = zip(*largest, strict=True) if largest else [()] * len(self.objectives)
        return [all(map(math.isfinite, of_fit)) for of_fit in of_fits]

    @property
    def n_steps(self) -> int:
        """Steps taken so far."""
        return self.groups[0].n_steps

    def state(self, k: int) -> State:
        """Return a copy of all that a fit has learned."""
        weights = [group.values[k].clone() for group in self.groups]
        copies = self._copies[k]
        for name, of_owner, key in self._others[k]:
            tensor = of_owner[key]
            last = copies.get(name)
            # What has not changed since the last state is copied once.
            if last is None or last[0] is not tensor or last[1] != version(tensor):
                copies[name] = tensor, version(tensor), tensor.detach().clone()
        others = {name: copies[name][2] for name, _, _ in self._others[k]}
        return State(weights, self._names, others)

    @torch.no_grad()
    def keep(self, which: Sequence[int]) -> "Optimizer":
        """Return an optimizer that goes on with some of the fits only."""
        for objective in self.objectives:
            release(objective)
        decays = [self._weight_decays[k] for k in which]
        new = Optimizer([self.objectives[k] for k in which], decays)
        for group, old in zip(new.groups, self.groups, strict=True):
            group.n_steps = old.n_steps
            for name in ("mean", "square", "average"):
                getattr(group, name).copy_(getattr(old, name)[list(which)])
            for muon, old_muon in zip(group.muons, old.muons, strict=True):
                muon.sum.copy_(old_muon.sum[:, list(which)])
        return new

    def step(self, learning_rates: Sequence[float]) -> list[bool]:
        """Take a step along the gradients, and set them to zero; tell which of them were finite.

        Parameters
        ----------
        learning_rates : sequence of float
            Learning rate of each fit.
        """
        norms = [torch.linalg.vector_norm(group.gradient, dim=1).tolist() for group in self.groups]
        norms = [math.hypot(*of_fit) for of_fit in zip(*norms, strict=True)]
        for k, norm in enumerate(norms):
            for group in self.groups:
                if not math.isfinite(norm):
                    # A gradient that overflows says nothing: the step follows the momentum alone.
                    group.gradient[k].zero_()
                elif norm > CLIP_NORM:
                    group.gradient[k].div_(norm / CLIP_NORM)
        for group in self.groups:
            group.step(learning_rates)
            group.gradient.zero_()
        for chain in self._chains:
            chain.gradient_is_zero()
        return list(map(math.isfinite, norms))
