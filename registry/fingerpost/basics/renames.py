"""Clear errors for settings, arguments and attributes whose name has changed."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["renamed_arguments", "renamed_attributes", "renamed_fields"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def renamed_arguments(what: str, **renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator for a function: an old keyword raises a `ConfigurationError` with the new one.

    Args:
        what: the name of the function in the message.
        renamed: old name to new name; a new name may be followed by a space and a remark.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def checked(*args: P.args, **keywords: P.kwargs) -> R:
            for name in keywords:
                if name in renamed:
                    raise ConfigurationError(
                        f"{what}({name}=...): this argument is called {renamed[name]} now"
                    )
            return function(*args, **keywords)

        return checked

    return decorate


class _Renamed:
    """In a class, an attribute that is there no more: who reads it learns its new name.

    Unlike a `__getattr__` of the class, it makes no other attribute slower.
    """

    __slots__ = ("_name", "_new")

    def __init__(self, name: str, new: str) -> None:
        self._name = name
        self._new = new

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(f"{owner.__name__}.{self._name} is called {self._new} now")


def renamed_attributes(**renamed: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: to read an old attribute raises an `AttributeError` with the new name.

    `hasattr` of an old name is False.

    Args:
        renamed: old name to new name; a new name may be followed by a space and a remark.

    Raises:
        TypeError: at decoration, if the class still has an attribute of an old name.
    """

    def decorate(cls: type[T]) -> type[T]:
        for old, new in renamed.items():
            if hasattr(cls, old):
                raise TypeError(f"{cls.__name__} still has an attribute {old!r}")
            setattr(cls, old, _Renamed(old, new))
        return cls

    return decorate


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

    `dataclasses.replace` raises the same error, and to read an old name raises an `AttributeError`
    (see `renamed_attributes`). Type checkers and `inspect.signature` see the
    dataclass's own signature, without the old names.

    Args:
        renamed: old name to new name. A new name may be a path through nested dataclasses, and may
            be followed by a space and a remark.

    Raises:
        TypeError: at decoration, if the class is not a dataclass, if an old name is still a field,
            or if a new name is not a field.
    """

    def decorate(cls: type[T]) -> type[T]:
        if not dataclasses.is_dataclass(cls) or "__dataclass_fields__" not in vars(cls):
            raise TypeError(f"{cls.__name__} is not a dataclass: put @dataclass below this line")
        fields = {each.name for each in dataclasses.fields(cls)}
        for old, new in renamed.items():
            if old in fields:
                raise TypeError(f"{cls.__name__} still has a field {old!r}")
            if new.split(" ")[0].split(".")[0] not in fields:
                raise TypeError(f"{cls.__name__} has no field {new!r}, the new name of {old!r}")
        init: Any = vars(cls)["__init__"]

        @functools.wraps(init)
        def checked(self: Any, *args: Any, **settings: Any) -> None:
            for name in settings:
                if name in renamed:
                    raise ConfigurationError(
                        f"{cls.__name__}({name}=...): {_advice(cls, renamed[name])}"
                    )
            init(self, *args, **settings)

        cls.__init__ = checked  # type: ignore[method-assign]
        return renamed_attributes(**renamed)(cls)

    return decorate


def _advice(cls: type, new: str) -> str:
    path, space, remark = new.partition(" ")
    call = _call(cls, path) if "." in path else None
    return f"use {call}{space}{remark}" if call else f"this setting is called {new} now"


def _call(cls: type, path: str) -> str | None:
    """How to write the setting at `path`: `Config(retry=RetryConfig(attempts=...))`.

    None where it cannot be known, because a field on the path has no dataclass as its default.
    """
    name, _, rest = path.partition(".")
    if not rest:
        return f"{cls.__name__}({name}=...)"
    field = next(each for each in dataclasses.fields(cls) if each.name == name)
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    inner = _call(type(default), rest) if dataclasses.is_dataclass(default) else None
    return None if inner is None else f"{cls.__name__}({name}={inner})"
