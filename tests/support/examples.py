"""How many examples hypothesis tries in a test that wants another number than the profile's."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["examples"]

# Of the profile `tests`.
_USUAL = 100


def examples(count: int) -> int:
    """`count` in `make test`; in the profile `quick` as much fewer as of all other tests."""
    profile = settings.default
    assert profile is not None
    return max(1, count * min(profile.max_examples, _USUAL) // _USUAL)
