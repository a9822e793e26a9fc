"""The text of a framework's error, on one line and without what tells nothing."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["reason"]

# Keras writes the whole configuration of a layer or model into its errors, before their cause.
_CONFIGURATION: Final = re.compile(
    r"\s{0,9}(?:using )?config=\{.*?\}\.?[ \t]*(?=\n\n|\Z)", re.DOTALL
)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_HEAD: Final = 300
_TAIL: Final = 700


def reason(error: BaseException) -> str:
    """Why something failed, in the framework's own words: up to some 1,000 characters.

    All lines are kept, because the first is often a general one, and the last one is the cause.
    Of a longer text the middle is left out.
    """
    text = _CONFIGURATION.sub("", _COLOUR.sub("", str(error)))
    text = " ".join(text.split()) or repr(error)
    if len(text) <= _HEAD + _TAIL:
        return text
    return f"{text[:_HEAD].rstrip()} ... {text[-_TAIL:].lstrip()}"
