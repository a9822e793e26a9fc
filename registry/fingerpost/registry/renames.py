"""Clear errors for settings whose name has changed."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, TypeVar

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["renamed_fields"]

T = TypeVar("T")


def renamed_fields(**renamed: str) -> Callable[[type[T]], type[T]]:
    """Class decorator for a dataclass: an old field name raises an error with the new one.

    ::

        @renamed_fields(
            silence_s="response_timeout_s",
            attempts="retry.attempts",
            stream_mb="stream_max_bytes (in bytes, not MB)",
        )
        @dataclass(frozen=True, slots=True, kw_only=True)
        class ClientConfig: ...

        ClientConfig(silence_s=1)
        # ConfigurationError: ClientConfig(silence_s=...): this setting is called
        # response_timeout_s now

        ClientConfig(attempts=1)
        # ConfigurationError: ClientConfig(attempts=...): use
        # ClientConfig(retry=RetryConfig(attempts=...))

    `dataclasses.replace` raises the same error. Type checkers and `inspect.signature` see the
    dataclass's own signature, without the old names.

    Args:
        renamed: old name to new name. A new name may be a path through nested dataclasses, which
            need defaults, and may be followed by a space and a remark.

    Raises:
        TypeError: at decoration, if the class is not a dataclass, if an old name is still a field,
            or if a new name is not a field.
    """

    def decorate(cls: type[T]) -> type[T]:
        if not dataclasses.is_dataclass(cls) or "__dataclass_fields__" not in vars(cls):
            raise TypeError(f"{cls.__name__} is not a dataclass: put @dataclass below this line")
        fields = {each.name for each in dataclasses.fields(cls)}
        advice = {}
        for old, new in renamed.items():
            if old in fields:
                raise TypeError(f"{cls.__name__} still has a field {old!r}")
            path, _, remark = new.partition(" ")
            call = _call(cls, path)
            if call is None:
                raise TypeError(f"{cls.__name__} has no field {new!r}, the new name of {old!r}")
            advice[old] = f"this setting is called {new} now"
            if "." in path:
                advice[old] = f"use {call}{f' {remark}' if remark else ''}"
        init: Any = vars(cls)["__init__"]

        @functools.wraps(init)
        def checked(self: Any, *args: Any, **settings: Any) -> None:
            for name in settings:
                if name in advice:
                    raise ConfigurationError(f"{cls.__name__}({name}=...): {advice[name]}")
            init(self, *args, **settings)

        cls.__init__ = checked  # type: ignore[method-assign]
        return cls

    return decorate


def _call(cls: type, path: str) -> str | None:
    """How to write the setting at `path`, or None if there is no such field."""
    name, _, rest = path.partition(".")
    field = {each.name: each for each in dataclasses.fields(cls)}.get(name)
    if field is None:
        return None
    if not rest:
        return f"{cls.__name__}({name}=...)"
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if not dataclasses.is_dataclass(default):
        return None
    inner = _call(type(default), rest)
    return None if inner is None else f"{cls.__name__}({name}={inner})"
