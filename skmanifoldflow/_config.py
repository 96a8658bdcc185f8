"""What the flow of a fitted model is built from."""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

__all__ = ["FROM_ROWS", "FlowConfig"]

#: Value of a field that is read from the training rows before a flow is built.
FROM_ROWS: Any = None


@dataclass(frozen=True)
class FlowConfig:
    """Choices of the user and figures read from the training rows, frozen when a fit begins.

    A method adds fields of its own. Those named in `read_from_rows` may be `FROM_ROWS` at first.

    Attributes
    ----------
    n_features : int
        Number of columns D.
    n_layers : int
        Number of layers.
    hidden_layer_sizes : tuple of int
        Hidden layers of each network.
    flow : str
        Kind of layer of tables; images have affine couplings.
    image_shape : tuple of three ints or None
        (C, H, W) of rows that are images.
    bounded : tuple of two floats or None
        Interval that holds all values.
    """

    #: Fields that are read from the training rows where they are `FROM_ROWS`.
    read_from_rows: ClassVar[frozenset[str]] = frozenset()
    #: Fields of models that were stored by earlier versions and that are no longer needed.
    obsolete: ClassVar[frozenset[str]] = frozenset()

    n_features: int
    n_layers: int
    hidden_layer_sizes: tuple[int, ...]
    flow: str = "affine"
    image_shape: tuple[int, int, int] | None = None
    bounded: tuple[float, float] | None = None

    @property
    def is_isotropic(self) -> bool:
        """Whether all columns are standardised by one scale."""
        return False

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as they are stored in a pickle."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Return the configuration that was stored, by this version or an earlier one.

        Raises
        ------
        TypeError
            If a field is missing that has no default, or is not known.
        """
        return cls(**{name: value for name, value in stored.items() if name not in cls.obsolete})

    def agrees_with(self, choices: Self) -> bool:
        """Tell whether a model of this configuration is one of these choices.

        What the choices leave to be read from the rows may be anything.
        """
        is_read = {name for name in self.read_from_rows if getattr(choices, name) is FROM_ROWS}
        return replace(choices, **{name: getattr(self, name) for name in is_read}) == self
