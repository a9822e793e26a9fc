"""What was logged about old spellings, as if each was found for the first time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fingerpost.registry import old_spellings

__all__ = ["Warned", "warned"]

Warned = Callable[[], list[str]]


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[Warned]:
    """`warned()`: the warnings about old spellings so far, as text."""
    old_spellings.warn_old_spelling.cache_clear()
    logger = old_spellings.logger.name
    yield lambda: [each.getMessage() for each in caplog.records if each.name == logger]
    old_spellings.warn_old_spelling.cache_clear()
