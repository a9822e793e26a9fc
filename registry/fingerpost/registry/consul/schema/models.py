"""The models of an instance in Consul's metadata, however many they are. Pure.

Consul takes 64 pairs of at most 512 bytes, some 32 KB. The first of these steps that fits is used:

1. JSON, cut into pieces `fingerpost-models-N`: readable in Consul's UI. Some 200 models.
2. The same deflated, in base 85, in pieces `fingerpost-packed-N`. Some thousands of models.
3. As 2, each model with only its newest version and those that carry an alias.
4. As 3, with as many of the models as fit: the one named like the service first, then in the
   order given. The pair `fingerpost-models-left-out` holds the number of those left out: the
   instance serves them, but cannot be found by them.

A registration never fails because an instance has many models; a worker logs steps 3 and 4.

Entries may be hostile: deflated JSON can grow a thousandfold. One entry may grow to
`MAX_MODELS_BYTES`, and all entries of an answer together to `MAX_ANSWER_BYTES`.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from fingerpost.errors import InvalidInstance
from fingerpost.registry.instance import ModelInfo

__all__ = [
    "LEFT_OUT",
    "MAX_ANSWER_BYTES",
    "MAX_MODELS_BYTES",
    "MAX_PAIRS",
    "MAX_VALUE_BYTES",
    "Budget",
    "decode_models",
    "encode_models",
]

# Consul's limits on Meta (agent/structs, ValidateMetadata); lengths are in bytes.
MAX_PAIRS: Final = 64
MAX_VALUE_BYTES: Final = 512

MAX_MODELS_BYTES: Final = 256 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024

_PLAIN: Final = "fingerpost-models-"
_PACKED: Final = "fingerpost-packed-"
LEFT_OUT: Final = "fingerpost-models-left-out"


class Budget:
    """How many bytes the packed models of one answer may still grow to."""

    def __init__(self, left: int = MAX_ANSWER_BYTES) -> None:
        self.left = left


def encode_models(service: str, models: Sequence[ModelInfo], pairs: int) -> dict[str, str]:
    """At most `pairs` pairs of metadata that hold the models.

    Raises:
        InvalidInstance: not even one model fits.
    """
    text = _json(models)
    pieces = _cut(text.decode("ascii"))
    if len(pieces) <= pairs:
        return _pairs(_PLAIN, pieces)
    packed = _packed(text, pairs)
    if packed is None:
        models = sorted(map(_shortened, models), key=lambda model: model.name != service)
        packed = _packed(_json(models), pairs)
    if packed is not None:
        return packed
    # How many models fit is monotonic enough to bisect: more of them deflate to more bytes.
    fitting, count, too_many = None, 0, len(models)
    while too_many - count > 1:
        middle = (count + too_many) // 2
        if (packed := _packed(_json(models[:middle]), pairs - 1)) is None:
            too_many = middle
        else:
            fitting, count = packed, middle
    if fitting is None:
        raise InvalidInstance(
            f"model {models[0].name!r} of service {service!r} does not fit into the {pairs} pairs "
            f"of metadata that Consul has left of its {MAX_PAIRS}; use fewer pairs or aliases"
        )
    return fitting | {LEFT_OUT: str(len(models) - count)}


def decode_models(meta: Mapping[str, str], budget: Budget) -> tuple[ModelInfo, ...]:
    """The models in an instance's metadata.

    Raises:
        InvalidInstance: there are none, or they are too large, or not valid deflated base 85.
        msgspec.MsgspecError, InvalidName: the content is not a list of models.
    """
    if text := _joined(_PLAIN, meta):
        return msgspec.json.decode(text, type=tuple[ModelInfo, ...])
    if text := _joined(_PACKED, meta):
        return msgspec.json.decode(_inflated(text, budget), type=tuple[ModelInfo, ...])
    raise InvalidInstance(f"no metadata {_PLAIN}0: it was not registered by Fingerpost")


def _json(models: Sequence[ModelInfo]) -> bytes:
    return msgspec.json.encode(models)


def _shortened(model: ModelInfo) -> ModelInfo:
    aliased = set(model.aliases.values())
    kept = tuple(
        version
        for position, version in enumerate(model.versions)
        if not position or version in aliased
    )
    return msgspec.structs.replace(model, versions=kept)


def _packed(text: bytes, pairs: int) -> dict[str, str] | None:
    if len(text) > MAX_MODELS_BYTES:
        return None
    pieces = _cut(base64.b85encode(zlib.compress(text, 9)).decode("ascii"))
    return _pairs(_PACKED, pieces) if len(pieces) <= pairs else None


def _inflated(text: str, budget: Budget) -> bytes:
    limit = min(MAX_MODELS_BYTES, budget.left)
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(base64.b85decode(text), limit + 1)
    except (ValueError, zlib.error) as error:
        raise InvalidInstance(f"its packed models cannot be unpacked: {error}") from error
    budget.left -= min(len(inflated), budget.left)
    if len(inflated) > limit or not inflater.eof:
        raise InvalidInstance(f"its packed models are cut short or over {limit} bytes")
    return inflated


def _cut(text: str) -> list[str]:
    return [text[at : at + MAX_VALUE_BYTES] for at in range(0, len(text), MAX_VALUE_BYTES)]


def _pairs(prefix: str, pieces: Sequence[str]) -> dict[str, str]:
    return {f"{prefix}{number}": piece for number, piece in enumerate(pieces)}


def _joined(prefix: str, meta: Mapping[str, str]) -> str:
    return "".join(_pieces(prefix, meta))


def _pieces(prefix: str, meta: Mapping[str, str]) -> Iterator[str]:
    for number in range(MAX_PAIRS):
        piece = meta.get(f"{prefix}{number}")
        if piece is None:
            return
        yield piece
