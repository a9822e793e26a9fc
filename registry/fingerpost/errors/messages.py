"""The text of an error's message. Pure."""

from __future__ import annotations

__all__ = ["one_line"]


def one_line(text: str) -> str:
    r"""The text as one line without control characters, safe for logs and terminals.

    White space becomes a blank; other characters that are not printable (controls, changes of the
    text's direction, lone surrogates) are escaped, as in `\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in " ".join(text.split())
    )
