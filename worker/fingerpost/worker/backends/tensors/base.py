"""A model as a function from named tensors to named tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["TensorModel", "TensorSpec", "flattened"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A tensor that a model takes or gives.

    Attributes:
        name: its name, in the model's file where it has one.
        dtype: NumPy's name of its type.
        shape: its axes, with that of the batch; None for an axis of any length. None for all where
            the file does not say how many.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


class TensorModel(Protocol):
    """A loaded model; `run` is called from one thread."""

    @property
    def framework(self) -> str:
        """See `Backend.framework`."""
        ...

    @property
    def platform(self) -> str:
        """See `Backend.platform`."""
        ...

    @property
    def device(self) -> str:
        """See `Backend.device`."""
        ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All its outputs by their names, for all its inputs."""
        ...

    def close(self) -> None:
        """Free memory and devices."""
        ...


def flattened(value: Any, name: str = "") -> dict[str, Any]:
    """The tensors in nested dictionaries, lists and tuples, by the keys that lead there.

    The only one of a model is `output`, those of a list `output_0`, `output_1` and so on; a list of
    one is what is in it.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        return flattened(value[0], name)
    if isinstance(value, dict):
        items = [(f"{name}_{key}" if name else str(key), each) for key, each in value.items()]
    elif isinstance(value, list | tuple):
        stem = name or "output"
        items = [(f"{stem}_{number}", each) for number, each in enumerate(value)]
    else:
        return {name or "output": value}
    return {key: each for path, inner in items for key, each in flattened(inner, path).items()}
