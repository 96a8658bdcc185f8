"""The weights of a chain as kernels see them, and the passes that are kept in training."""

from collections.abc import Callable, Sequence
from operator import getitem, is_
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..torch_private import buffers, children, version
from .chain_pass import ChainPass, KernelLayer
from .workspace import aligned

__all__ = ["VJP", "ChainWeights", "TrainedWeights"]

# Shapes of rows whose passes are kept.
_MAX_SHAPES = 8

#: Takes the gradients of rows, log-determinants and log-prior, see `TrainedWeights.vjp`.
VJP = Callable[[Tensor, Tensor, float], None]


class ChainWeights:
    """Weights of the layers of a chain that is not trained.

    Parameters
    ----------
    layers : sequence of KernelLayer
        The layers, data -> latent.

    Attributes
    ----------
    leaves : list of Tensor
        What gradients are asked for.
    values : list of lists of Tensor
        For each layer its weights, stacks (K, ...).
    """

    def __init__(self, layers: Sequence[KernelLayer]) -> None:
        self.layers, self.n_fits = layers, 1
        self.leaves: list[Tensor] = []
        self.values: list[list[Tensor]] = []
        # Columns of its widest tensor.
        self.width = 1
        for layer in layers:
            weights = layer.weights()
            self.leaves += weights
            self.values.append([weight.detach()[None] for weight in weights])
            for weight in weights:
                self.width = max(self.width, *weight.shape)

    def constants(self) -> list[list[Tensor]]:
        """Return the constants of each layer, stacks (K, ...)."""
        return [[tensor[None] for tensor in layer.constants()] for layer in self.layers]

    def own_gradients(self) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Return memory for gradients by layers, and the same by leaves."""
        parts = [[torch.empty_like(w) for w in of_layer] for of_layer in self.values]
        return parts, [part for of_layer in parts for part in of_layer]

    def direct_gradients(self) -> list[list[Tensor]] | None:
        """Return the gradients themselves by layers, if they lie where a pass can write them."""
        return None

    def acquire(
        self, x: Tensor, context: Tensor | None, inverse: bool, gradients: Any, needs_grad_x: bool
    ) -> ChainPass:
        """Return a pass for rows (K, n, D) that nobody uses.

        Gradients of weights go to its `own_gradients` if `gradients` is "own", to `grad` if it is
        "direct", and nowhere if it is None.
        """
        parts, own = self.own_gradients() if gradients == "own" else (None, [])
        if gradients == "direct":
            parts = self.direct_gradients()
        given = self.layers, self.values, self.constants(), parts, x, context
        chain_pass = ChainPass(*given, inverse=inverse, needs_grad_x=needs_grad_x)
        chain_pass.own_gradients = own
        return chain_pass

    def release(self, chain_pass: ChainPass) -> None:
        """Give a pass back."""

    def gradient_by_leaves(self, gradient: Sequence[Tensor]) -> Sequence[Tensor]:
        """Turn the gradients of all weights into those of the leaves."""
        return gradient


def _add_to(gradient: Tensor) -> Callable[[Tensor], None]:
    """Return what hands the gradient of a leaf on."""

    @torch.no_grad()
    def hand_on(leaf: Tensor) -> None:
        gradient.add_(cast(Tensor, leaf.grad))
        leaf.grad = None

    return hand_on


class TrainedWeights(ChainWeights):
    """Weights of the layers of K chains as parts of a few matrices, and their passes.

    Parameters
    ----------
    chains : sequence of KernelChain
        The chain of each fit.
    values, gradients : sequence of Tensor of shape (K, n_i)
        Weights, one layer after the other, and their gradients; each of them takes so many
        elements as `aligned` says.
    """

    def __init__(
        self,
        chains: Sequence[Any],
        values: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> None:
        super().__init__(chains[0].kernel_layers())
        self._chains, self.n_fits, self._gradients = chains, len(chains), gradients
        detached = [value.detach() for value in values]
        self.values, self._grad_parts = self._parts(detached), self._parts(gradients)
        # A graph has an operation for each leaf.
        self.leaves = []
        for value, gradient in zip(values, gradients, strict=True):
            if self.n_fits == 1:
                leaf = value.requires_grad_()
                leaf.grad = gradient
            else:
                # Autograd does not like the gaps between the weights of fits.
                leaf = torch.empty_like(value, memory_format=torch.contiguous_format)
                leaf.requires_grad_().register_post_accumulate_grad_hook(_add_to(gradient))
            self.leaves.append(leaf)
        # Passes that nobody uses, by what they depend on.
        self._free: dict[Any, list[ChainPass]] = {}
        # What they were built from: modules in lists, and constants with their versions.
        self._modules: list[tuple[dict[str, Any], list[Any]]] = []
        self._owners: list[dict[str, Any]] = []
        self._names: list[str] = []
        for chain in chains:
            for module in chain.modules():
                if isinstance(module, (nn.ModuleList, type(chain))):
                    of_module = children(module)
                    self._modules.append((of_module, list(of_module.values())))
            for layer in chain.kernel_layers():
                for name in layer.constant_names:
                    self._owners.append(buffers(layer))
                    self._names.append(name)
        self._fixed: list[Tensor] = []
        self._versions: list[int] = []
        self._zero: list[int] = []

    def __deepcopy__(self, memo: Any) -> None:
        """Return None: the weights of a copied chain are not stored in these matrices."""

    def __reduce__(self) -> Any:
        return type(None), ()

    def _parts(self, matrices: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return the parts (K, ...) of matrices that belong to the weights of each layer."""
        coming = iter(matrices)
        rest = torch.empty(0, 0)
        parts: list[list[Tensor]] = []
        for layer in self.layers:
            parts.append([])
            for weight in layer.weights():
                if not rest.shape[1]:
                    rest = next(coming)
                part, rest = rest.tensor_split([aligned(weight.numel())], 1)
                parts[-1].append(part[:, : weight.numel()].view(len(part), *weight.shape))
        return parts

    def constants(self) -> list[list[Tensor]]:
        if self.n_fits == 1:
            return super().constants()
        layers = zip(*(chain.kernel_layers() for chain in self._chains), strict=True)
        of_layers = ([layer.constants() for layer in fits] for fits in layers)
        return [list(map(torch.stack, zip(*of_fits, strict=True))) for of_fits in of_layers]

    def own_gradients(self) -> tuple[list[list[Tensor]], list[Tensor]]:
        own = list(map(torch.zeros_like, self._gradients))
        return self._parts(own), own

    def direct_gradients(self) -> list[list[Tensor]] | None:
        return self._grad_parts

    def gradient_by_leaves(self, gradient: Sequence[Tensor]) -> Sequence[Tensor]:
        flat = []
        for part in gradient:
            gap = aligned(part.numel()) - part.numel()
            flat.append(torch.constant_pad_nd(part.flatten(), (0, gap)))
        return torch.cat(flat)[None].split([leaf.shape[1] for leaf in self.leaves], 1)

    def gradient_is_zero(self) -> None:
        """Take note that the gradients are zero now."""
        self._zero = list(map(version, self._gradients))

    def _check(self) -> None:
        """Drop all passes if what they were built from has changed."""
        for of_module, modules in self._modules:
            if list(of_module.values()) != modules:
                raise RuntimeError(
                    "The layers of a chain changed while it was trained. Change them before the "
                    "optimizer is made: it has the weights of the former ones."
                )
        fixed = list(map(getitem, self._owners, self._names))
        versions = list(map(version, fixed))
        if versions != self._versions or not all(map(is_, fixed, self._fixed)):
            self._free.clear()
            self._fixed, self._versions = fixed, versions

    def acquire(
        self, x: Tensor, context: Tensor | None, inverse: bool, gradients: Any, needs_grad_x: bool
    ) -> ChainPass:
        """See `ChainWeights.acquire`; passes are kept."""
        self._check()
        of_context = None if context is None else context.shape
        key = x.shape, x.dtype, x.device, of_context, inverse, gradients, needs_grad_x
        free = self._free.setdefault(key, [])
        if free:
            return free.pop()
        if len(self._free) > _MAX_SHAPES:
            # The memory of the oldest of many shapes, which hardly comes again.
            del self._free[next(iter(self._free))]
        chain_pass = super().acquire(x, context, inverse, gradients, needs_grad_x)
        chain_pass.key = key
        return chain_pass

    def release(self, chain_pass: ChainPass) -> None:
        self._free.setdefault(chain_pass.key, []).append(chain_pass)

    @torch.no_grad()
    def vjp(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, VJP]:
        """Map rows (K, n, D) without a graph, see `Bijection.forward_with_vjp`."""
        chain_pass = self.acquire(x, None, False, "direct", False)
        z, log_det = chain_pass.forward(x, None)
        is_used = False

        @torch.no_grad()
        def vjp(grad: Tensor, grad_log_det: Tensor, grad_log_prior: float) -> None:
            nonlocal is_used
            if is_used:
                raise RuntimeError("The vector-Jacobian product of a pass can be taken once.")
            is_used = True
            # What is written has not to be added where there was nothing.
            is_zero = self._zero == list(map(version, self._gradients))
            before = [] if is_zero else list(map(torch.clone, self._gradients))
            chain_pass.backward(grad, grad_log_det, grad_log_prior)
            for gradient, part in zip(self._gradients, before, strict=False):
                gradient.add_(part)
            self._zero = []
            self.release(chain_pass)

        return z, log_det, chain_pass.log_prior(), vjp
