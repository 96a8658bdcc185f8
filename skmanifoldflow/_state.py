"""What of a fitted flow is stored in a pickle, and how it comes back."""

import inspect
from typing import Any

import torch
from sklearn.base import BaseEstimator

from ._checks import warn
from ._config import FlowConfig
from ._version import __version__
from .backend.background import Background
from .backend.column_maps import ColumnMaps
from .backend.device import make_generator, standard_context
from .backend.serialization import arrays_from_module, digest, load_arrays
from .backend.standardize import SignedOrder, Standardizer

__all__ = ["StoredFlow"]

# Layers of one column have no weights, and a model of a thousand such is not a damaged one.
_MAX_LAYERS_PER_ARRAY = 200
# What a stored model is recognised by.
_DIGESTED = ("_flow", "_standardizer", "_config", "n_components_", "_background")

# What a configuration or weights that were changed may raise.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class StoredFlow(BaseEstimator):
    """State of an estimator: weights as numpy arrays, the configuration as a dict.

    No tensor, no device of theirs and no code of the network travels with a pickle.
    """

    #: Class of the configuration that `_build_flow` takes.
    _config_type: type[FlowConfig]
    _config: FlowConfig
    _flow: Any
    _standardizer: Standardizer
    #: None in models of earlier versions.
    _background: Background | None = None
    n_components_: int
    n_features_in_: int
    #: Parameters of earlier versions by name: the parameter that takes the place of each, with the
    #: new value for each old one, or None where nothing does.
    _obsolete_parameters: dict[str, tuple[str, dict] | None] = {}

    #: Put stored weights into a flow; earlier versions may have stored others.
    _load = staticmethod(load_arrays)

    def _restore(self, flow):
        """Set what a stored flow has beside its weights."""
        flow.n_components = self.n_components_

    def __getstate__(self):
        """Return all attributes, the flow turned into what can be stored."""
        state = super().__getstate__().copy()
        if "_flow" in state:
            state["_flow"] = arrays_from_module(self._flow)
            state["_standardizer"] = arrays_from_module(self._standardizer)
            if self._background is not None:
                state["_background"] = arrays_from_module(self._background)
            state["_config"] = self._config.as_dict()
            state["_version"] = __version__
            state["_digest"] = digest(*(state[name] for name in _DIGESTED if name in state))
        return state

    @standard_context()
    def __setstate__(self, state):
        """Rebuild the flow on the device it was fitted on, or on the CPU where that is missing."""
        state = dict(state)
        version = state.pop("_version", __version__)
        if version != __version__:
            warn(
                f"Loading a {type(self).__name__} of skmanifoldflow {version} with {__version__}: "
                "its results may differ."
            )
        expected = state.pop("_digest", None)
        arrays = state.pop("_flow", None)
        standardizer = state.pop("_standardizer", None)
        background = state.pop("_background", None)
        self._set_parameters(state)
        super().__setstate__(state)
        if arrays is None:
            return
        try:
            stored, n_components = state["_config"], self.n_components_
            if expected is not None:
                parts = arrays, standardizer, stored, n_components
                found = digest(*parts if background is None else (*parts, background))
                if found != expected:
                    raise ValueError("weights and digest disagree")
            self._config = config = self._config_type.from_dict(stored)
            if expected is None and config.n_layers > _MAX_LAYERS_PER_ARRAY * len(arrays):
                # Models of the first version have no digest, and layers take time to build.
                raise ValueError(f"it has {len(arrays)} arrays for {config.n_layers} layers")
            self._flow = self._build_flow(config, make_generator(0))
            self._load(self._flow, arrays)
            self._restore(self._flow)
            self._standardizer = self._stored_standardizer(config, standardizer)
            if background is not None:
                self._background = Background(config.n_features)
                load_arrays(self._background, background)
            device, _ = self.device_, self._dtype
        except _DAMAGE as error:
            # Half a model must not look like a fitted one.
            self.__dict__.pop("_flow", None)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"The stored {type(self).__name__} is damaged, or was changed: {reason}."
            ) from error
        try:
            self.to(device)
        except (TypeError, ValueError):
            self.to("cpu")

    @classmethod
    def _set_parameters(cls, state):
        """Turn the parameters in a stored state into those of this version."""
        for name, successor in cls._obsolete_parameters.items():
            if name in state:
                value = state.pop(name)
                if successor is not None:
                    state[successor[0]] = successor[1].get(value, value)
        # Parameters that earlier versions did not have.
        parameters = inspect.signature(cls.__init__).parameters
        for name in cls._get_param_names():
            state.setdefault(name, parameters[name].default)

    @classmethod
    def _stored_standardizer(cls, config, arrays):
        """Return the standardisation of a stored model."""
        of_maps = {
            name.removeprefix("maps."): array
            for name, array in arrays.items()
            if name.startswith("maps.")
        }
        order = None
        if "order" in arrays:
            # In models of earlier versions columns are in the order of the data.
            order = SignedOrder(*(torch.tensor(arrays[name]) for name in ("order", "signs")))
        maps = ColumnMaps.like(of_maps) if of_maps else None
        standardizer = cls._new_standardizer(config, maps, order)
        load_arrays(standardizer, arrays)
        return standardizer

    @staticmethod
    def _new_standardizer(config, maps=None, signed_order=None):
        """Return the standardisation of a model, yet to be fitted."""
        bounds = None if maps is not None else config.bounded
        return Standardizer(
            config.n_features, bounds, config.image_shape, config.is_isotropic, maps, signed_order
        )
