"""Frameworks that are imported when a test first uses them, and not as tests are collected.

Each process of `make test` imports all test modules, and runs a part of them: TensorFlow alone took
8 s of processor time in processes that never used it.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

__all__ = ["later"]


class _Later(ModuleType):
    """Stands for a module of its name."""

    def __getattr__(self, name: str) -> Any:
        # What pytest asks of all that a test module holds, such as `__test__`.
        if name == "_mock_name" or (name.startswith("__") and name != "__version__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def later(name: str) -> Any:
    """The module `name`, imported as the first of its attributes is read.

    For type checkers it is imported under `if TYPE_CHECKING:`, and this stands under `else:`, so
    that what a test does with the module is checked as ever.
    """
    return _Later(name)
