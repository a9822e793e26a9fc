"""The answer of a task for one image, and how it is written: JSON, or with its arrays as bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.client.tasks.wire import DATATYPES, LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["TaskAnswer", "datatype_of", "lists_of", "tensor_entry"]

_NAMES: Final = {np.dtype(code).newbyteorder("<"): name for name, code in DATATYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAnswer:
    """What a model answers for one image.

    Attributes:
        fields: members of the JSON, in both forms.
        arrays: by name: arrays, and bytes (an encoded image). They are members of the JSON form
            too, as nested lists and as base64.
        flat: the JSON form has the arrays as a list `outputs` in the form of the Open Inference
            Protocol, because their names are the model's own.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any] | bytes] = field(default_factory=dict)
    flat: bool = False

    def to_json(self) -> dict[str, Any]:
        """The members of the JSON form."""
        if not self.flat:
            lists = {
                name: value if isinstance(value, bytes) else lists_of(value)
                for name, value in self.arrays.items()
            }
            return {**self.fields, **lists}
        outputs = []
        for name, value in self.arrays.items():
            head, _ = tensor_entry(name, value)
            data = value if isinstance(value, bytes) else lists_of(value.ravel())
            outputs.append({**head, "data": [data] if isinstance(data, bytes) else data})
        return {**self.fields, "outputs": outputs}

    def to_binary(self) -> tuple[dict[str, Any], list[bytes]]:
        """The members of the binary form's JSON, and the bytes that follow it."""
        outputs, blobs = [], []
        for name, value in self.arrays.items():
            head, blob = tensor_entry(name, value)
            outputs.append({**head, "parameters": {"binary_data_size": len(blob)}})
            blobs.append(blob)
        return {**self.fields, "outputs": outputs}, blobs


def datatype_of(dtype: np.dtype[Any] | str) -> str:
    """The v2 protocol's name of a type of NumPy."""
    return _NAMES.get(np.dtype(dtype).newbyteorder("<"), "BYTES")


def tensor_entry(name: str, value: NDArray[Any] | bytes) -> tuple[dict[str, Any], bytes]:
    """Name, datatype and shape of an array, as the v2 protocol has them, and its bytes."""
    if isinstance(value, bytes):
        return {"name": name, "datatype": "BYTES", "shape": [1]}, LENGTH.pack(len(value)) + value
    if value.dtype == object or value.dtype.kind in "SU":
        texts = [each if isinstance(each, bytes) else str(each).encode() for each in value.ravel()]
        blob = b"".join(LENGTH.pack(len(text)) + text for text in texts)
        return {"name": name, "datatype": "BYTES", "shape": list(value.shape)}, blob
    little = value.astype(value.dtype.newbyteorder("<"), copy=False)
    datatype = _NAMES[little.dtype]
    return {"name": name, "datatype": datatype, "shape": list(value.shape)}, little.tobytes()


def lists_of(array: NDArray[Any]) -> Any:
    """The numbers as nested lists; those of float32 with as few digits as tell them apart."""
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        return array.astype(str).astype(np.float64).tolist()
    if array.dtype == object or array.dtype.kind == "S":
        texts = [
            each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each)
            for each in array.ravel()
        ]
        return np.array(texts, object).reshape(array.shape).tolist()
    return array.tolist()
