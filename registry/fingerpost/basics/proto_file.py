"""Reads `.proto` files of this project into descriptors, so that no code is generated from them.

Only the part of the language that these files use: messages, nested ones too, enums, maps, oneofs
and services of proto3, without options and reserved names. A test compares the result with that
of `protoc`. `docs/decisions/0034-grpc.md` says why.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.resources.abc import Traversable

__all__ = ["read_pool", "read_proto"]

_PB2: Final[Any] = descriptor_pb2  # its classes are made when it is imported
_FIELD: Final = _PB2.FieldDescriptorProto
_TOKEN: Final = re.compile(r'//[^\n]*|"[^"]*"|[\w.]+|[^\s\w]')
_SCALARS: Final = {
    name: getattr(_FIELD, f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
}


def read_pool(
    shipped: Iterable[Any], folder: Traversable, names: Iterable[str]
) -> descriptor_pool.DescriptorPool:
    """A pool of its own with the messages and services of some files.

    Args:
        shipped: generated modules whose files are imported by these.
        folder: where the files are.
        names: the files, each after those that it imports.
    """
    made = descriptor_pool.DescriptorPool()
    for module in shipped:
        made.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for name in names:
        text = (folder / name).read_text("utf-8")
        made.AddSerializedFile(read_proto(text, name).SerializeToString())
    return made


def read_proto(text: str, name: str) -> Any:
    """The descriptor of a file.

    Args:
        text: what it holds.
        name: the name by which other files import it.

    Raises:
        ValueError: something that is not part of the language, or not of what is read here.
    """
    file = _PB2.FileDescriptorProto(name=name)
    tokens = _Tokens(text)
    while tokens.left:
        word = tokens.next()
        if word == "syntax":
            tokens.expect("=")
            file.syntax = tokens.next().strip('"')
            tokens.expect(";")
        elif word == "package":
            file.package = tokens.next()
            tokens.expect(";")
        elif word == "import":
            file.dependency.append(tokens.next().strip('"'))
            tokens.expect(";")
        elif word == "message":
            _read_message(tokens, file.message_type.add())
        elif word == "enum":
            _read_enum(tokens, file.enum_type.add())
        elif word == "service":
            _read_service(tokens, file.service.add())
        else:
            raise ValueError(f"{name}: {word!r} is not read here")
    return file


class _Tokens:
    """The words of a file, without comments."""

    def __init__(self, text: str) -> None:
        self._words: list[str] = [
            each for each in _TOKEN.findall(text) if not each.startswith("//")
        ]
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._words)

    def next(self) -> str:
        if not self.left:
            raise ValueError("the file ends within a declaration")
        self._at += 1
        return self._words[self._at - 1]

    def expect(self, *words: str) -> None:
        for word in words:
            if (found := self.next()) != word:
                raise ValueError(f"{found!r} stands where {word!r} must be")

    def take(self, word: str) -> bool:
        """Whether the next word is this one, which is then taken."""
        if self.left and self._words[self._at] == word:
            self._at += 1
            return True
        return False


def _read_message(tokens: _Tokens, message: Any) -> None:
    message.name = tokens.next()
    tokens.expect("{")
    while not tokens.take("}"):
        word = tokens.next()
        if word == "message":
            _read_message(tokens, message.nested_type.add())
        elif word == "enum":
            _read_enum(tokens, message.enum_type.add())
        elif word == "oneof":
            message.oneof_decl.add(name=tokens.next())
            tokens.expect("{")
            while not tokens.take("}"):
                field = _read_field(tokens, message, tokens.next())
                field.oneof_index = len(message.oneof_decl) - 1
        elif word == "map":
            _read_map(tokens, message)
        else:
            _read_field(tokens, message, word)


def _read_field(tokens: _Tokens, message: Any, word: str) -> Any:
    field = message.field.add(label=_FIELD.LABEL_OPTIONAL)
    if word == "repeated":
        field.label = _FIELD.LABEL_REPEATED
        word = tokens.next()
    _set_type(field, word)
    _read_name(tokens, field)
    return field


def _read_map(tokens: _Tokens, message: Any) -> None:
    """A map is a repeated message of a key and a value, whose name is that of the field."""
    tokens.expect("<")
    key = tokens.next()
    tokens.expect(",")
    value = tokens.next()
    tokens.expect(">")
    field = message.field.add(label=_FIELD.LABEL_REPEATED)
    _read_name(tokens, field)
    entry = message.nested_type.add(name="".join(map(str.title, field.name.split("_"))) + "Entry")
    entry.options.map_entry = True
    for number, (name, kind) in enumerate((("key", key), ("value", value)), 1):
        part = entry.field.add(
            name=name, json_name=name, number=number, label=_FIELD.LABEL_OPTIONAL
        )
        _set_type(part, kind)
    field.type_name = entry.name


def _read_name(tokens: _Tokens, field: Any) -> None:
    field.name = tokens.next()
    first, *others = field.name.split("_")
    field.json_name = first + "".join(map(str.title, others))
    tokens.expect("=")
    field.number = int(tokens.next())
    tokens.expect(";")


def _set_type(field: Any, word: str) -> None:
    """A name that is not a scalar's is a message's or an enum's: the pool finds out which."""
    if word in _SCALARS:
        field.type = _SCALARS[word]
    else:
        field.type_name = word


def _read_enum(tokens: _Tokens, enum: Any) -> None:
    enum.name = tokens.next()
    tokens.expect("{")
    while not tokens.take("}"):
        value = enum.value.add(name=tokens.next())
        tokens.expect("=")
        value.number = int(tokens.next())
        tokens.expect(";")


def _read_service(tokens: _Tokens, service: Any) -> None:
    service.name = tokens.next()
    tokens.expect("{")
    while not tokens.take("}"):
        tokens.expect("rpc")
        method = service.method.add(name=tokens.next())
        tokens.expect("(")
        if tokens.take("stream"):
            method.client_streaming = True
        method.input_type = tokens.next()
        tokens.expect(")", "returns", "(")
        if tokens.take("stream"):
            method.server_streaming = True
        method.output_type = tokens.next()
        tokens.expect(")", ";")
