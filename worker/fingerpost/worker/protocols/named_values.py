"""Named inputs in JSON, row by row or column by column, as TensorFlow Serving's REST API has them.

A row is `{"left": {"b64": "..."}, "weights": [0.1, 0.2]}`, and a column `{"left": [...]}` the same
input of all items. An image is base64 or lists of numbers, a text a string or base64. Where a model
has one input its name may be left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fingerpost.errors import ImageTooLarge, InvalidRequest
from fingerpost.worker.protocols.json_values import decode_json, from_base64, numbers
from fingerpost.worker.protocols.long_json import (
    SHORT_BYTES,
    LongJson,
    read_base64,
    read_json,
    read_numbers,
)
from fingerpost.worker.protocols.tensors import split_items
from fingerpost.worker.tasks.items import inputs_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.serving.turns import Turns
    from fingerpost.worker.tasks.inputs import ModelInputs
    from fingerpost.worker.tasks.items import Part

__all__ = ["NamedValues"]

# A row of this length takes a millisecond.
_LONG_ROW_BYTES = 1 << 13


class NamedValues:
    """Reads named inputs.

    Args:
        config: limits the items and the bytes of an image.
        turns: other requests have their turn between long values.
    """

    def __init__(self, config: WorkerConfig, turns: Turns) -> None:
        self._config = config
        self._turns = turns

    async def rows(
        self, text: LongJson, listed: msgspec.Raw, inputs: ModelInputs, what: str
    ) -> list[dict[str, Part]]:
        """The items of a list of rows.

        Args:
            text: the request's JSON, of which `listed` is a part.
            inputs: what the model takes.
            what: the name of the list in errors.

        Raises:
            InvalidRequest: not a list of rows, or a value that its input cannot have.
            ImageTooLarge: more rows than a request may have, or an image over the limit.
        """
        if (long := text.long(listed)) is not None:  # of one input, numbers alone
            name = _only(inputs, what)
            values = await self._long(long, inputs, name, what)
            self._check_count(len(values), what)
            return [{name: each} for each in split_items(values)]
        rows = decode_json(listed, list[msgspec.Raw], what)
        self._check_count(len(rows), what)
        items: list[dict[str, Part]] = []
        for number, row in enumerate(rows):
            where = f"{what}[{number}]"
            named = _members(text, row, where)
            if named is None or named.keys() == {"b64"}:
                named = {_only(inputs, where): row}
            items.append(
                {
                    name: await self.value(text, each, inputs, name, f"{where}, input {name!r}")
                    for name, each in named.items()
                }
            )
            if len(memoryview(row)) > _LONG_ROW_BYTES:
                await self._turns.next()
        return items

    async def columns(
        self, text: LongJson, listed: msgspec.Raw, inputs: ModelInputs, what: str
    ) -> list[dict[str, Part]]:
        """The items of columns; see `rows`. One item of an input may be alone, without a list."""
        named = _members(text, listed, what)
        if named is None or named.keys() == {"b64"}:
            named = {_only(inputs, what): listed}
        columns = {
            name: await self._column(text, each, inputs, name, f"{what}, input {name!r}")
            for name, each in named.items()
        }
        counts = {name: len(each) for name, each in columns.items()}
        if len(set(counts.values())) != 1:
            raise InvalidRequest(f"{what} has not as many items of each input: {counts or 'none'}")
        self._check_count(max(counts.values()), what)
        return [
            dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)
        ]

    async def value(
        self, text: LongJson, value: msgspec.Raw, inputs: ModelInputs, name: str, what: str
    ) -> Part:
        """One input of one item: an encoded image, or an array.

        Raises:
            InvalidRequest, ImageTooLarge: see `rows`.
        """
        if (long := text.long(value)) is not None:
            if bytes(long[:1]) != b"[":  # a text, of which base64 is one form
                return bytes(long) if _is_text(inputs, name) else await self._base64(long, what)
            return await self._long(long, inputs, name, what)
        members = _members(text, value, what)
        if members is not None:
            if members.keys() != {"b64"}:
                raise InvalidRequest(
                    f'{what} is an object: give {{"b64": "..."}}, a number, a text, or lists of '
                    "numbers"
                )
            encoded = members["b64"]
            if (long := text.long(encoded)) is not None:
                return await self._base64(long, what)
            return from_base64(decode_json(encoded, object, what), what)
        plain = decode_json(value, object, what)
        if isinstance(plain, str):
            if not _is_text(inputs, name):
                raise InvalidRequest(f'{what} is a text: an image is {{"b64": "..."}}')
            return plain.encode()
        return _array(plain, inputs, name, what)

    async def from_form(
        self, data: bytes | memoryview, inputs: ModelInputs, name: str, what: str
    ) -> Part:
        """The value of a form's field: an image or a text as it is, numbers as JSON.

        Raises:
            InvalidRequest: not JSON of numbers.
        """
        if name in inputs.images or name not in inputs.numbers or _is_text(inputs, name):
            return data
        text = LongJson(data)
        if len(data) > SHORT_BYTES:
            text = await read_json(data, self._turns, max_images=1, what=what)
        value = text.decode(msgspec.Raw, what)
        return await self.value(text, value, inputs, name, what)

    async def _column(
        self, text: LongJson, value: msgspec.Raw, inputs: ModelInputs, name: str, what: str
    ) -> list[Part]:
        if (long := text.long(value)) is not None or not _is_list(value):
            whole = await self.value(text, value, inputs, name, what)
            split = long is not None and isinstance(whole, np.ndarray)
            return self._split(whole, inputs, name) if split else [whole]
        rows = decode_json(value, list[msgspec.Raw], what)
        if rows and (_members(text, rows[0], what) is not None or bytes(rows[0])[:1] == b'"'):
            self._check_count(len(rows), what)
            return [
                await self.value(text, row, inputs, name, f"{what}[{number}]")
                for number, row in enumerate(rows)
            ]
        if any(text.long(row) is not None for row in rows):
            return [
                await self.value(text, row, inputs, name, f"{what}[{number}]")
                for number, row in enumerate(rows)
            ]
        return self._split(
            _array(decode_json(value, object, what), inputs, name, what), inputs, name
        )

    def _split(self, whole: Part, inputs: ModelInputs, name: str) -> list[Part]:
        if not isinstance(whole, np.ndarray):
            return [whole]
        alone = inputs.axes.get(name) == whole.ndim
        return [whole] if alone or not whole.ndim else [*split_items(whole)]

    async def _base64(self, text: memoryview, what: str) -> memoryview:
        limit = self._config.images.max_bytes
        return await read_base64(text, what, self._turns, limit=limit)

    async def _long(
        self, listed: memoryview, inputs: ModelInputs, name: str, what: str
    ) -> NDArray[Any]:
        spec = inputs.numbers.get(name)
        # Whole numbers as float64, so that those that are not whole are noticed.
        small = spec is None or spec.dtype in ("float32", "float16")
        dtype = np.dtype(np.float32 if small else np.float64)
        return await read_numbers(listed, dtype, what, self._turns)

    def _check_count(self, count: int, what: str) -> None:
        most = self._config.batching.max_queue
        if not count:
            raise InvalidRequest(f"{what!r} is empty: give one item or more")
        if count > most:
            raise ImageTooLarge(
                f"{what!r} has {count:,} items, over the limit of {most}: send fewer at a time"
            )


def _only(inputs: ModelInputs, what: str) -> str:
    """The name of the only input. Raises `InvalidRequest` where there are several."""
    names = [*inputs.images, *inputs.numbers]
    if len(names) != 1:
        raise InvalidRequest(
            f"{what} names no input: this model takes {inputs_text(inputs.images, inputs.numbers)}"
        )
    return names[0]


def _members(text: LongJson, value: msgspec.Raw, what: str) -> dict[str, msgspec.Raw] | None:
    """The members of an object; None of any other value."""
    if bytes(memoryview(value)[:1]) != b"{" or text.long(value) is not None:
        return None
    return decode_json(value, dict[str, msgspec.Raw], what)


def _is_list(value: msgspec.Raw) -> bool:
    return bytes(memoryview(value)[:1]) == b"["


def _is_text(inputs: ModelInputs, name: str) -> bool:
    spec = inputs.numbers.get(name)
    return spec is not None and spec.dtype == "object"


def _array(value: object, inputs: ModelInputs, name: str, what: str) -> NDArray[Any]:
    """Numbers, or texts of a model that takes them, as an array."""
    if _is_text(inputs, name):
        texts = np.array(value, object)
        flat = [each.encode() if isinstance(each, str) else None for each in texts.ravel()]
        if None in flat:
            raise InvalidRequest(f"{what} takes texts")
        found = np.empty(texts.size, object)
        found[:] = flat
        return found.reshape(texts.shape)
    spec = inputs.numbers.get(name)
    if spec is None or spec.dtype in ("float32", "float16", "float64"):
        return numbers(value, np.dtype(np.float32 if spec is None else spec.dtype), what)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"{what} cannot be read as {spec.dtype}: {error}") from error
    if array.dtype.kind not in "biuf":
        raise InvalidRequest(f"{what} has something else than numbers: it takes {spec.dtype}")
    return array
