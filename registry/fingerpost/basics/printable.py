r"""Text from peers, registrations and file names, made safe to show on a terminal or in a log.

A terminal obeys what it prints: ESC sequences move the cursor, change the title or the clipboard;
C1 controls (U+009B is CSI) do the same; bidirectional overrides show text in another order than it
has ("Trojan Source", CVE-2021-42574); a newline begins a line that looks like one of our own.
`printable` writes each such character as its escape (`\x1b`, `\u202e`, `\n`), so that it can be
seen. Backslashes stay as they are: the result is for people, and is never read back.

Rejected: removing these characters (two names would look the same); `repr` and `ascii`, which
escape umlauts and Chinese too; `str.isprintable` as the rule, which refuses the joiners that
Persian and emoji need, and every character that is newer than Python's tables.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["one_line", "printable", "printable_json"]

# C0, DEL and C1 controls; soft hyphen and other characters without a glyph; direction marks,
# embeddings, overrides and isolates; line and paragraph separators; surrogates; tags. The joiners
# U+200C and U+200D stay: words and emoji need them, and they move nothing.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_NAMES: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# The first code point that stands for a byte of a file name that is not UTF-8 (PEP 383).
_BYTE: Final = 0xDC00


def printable(value: object, *, keep: str = "", most: int | None = None) -> str:
    r"""The text of `value` with every character escaped that a terminal could obey.

    A byte of a file name that is not UTF-8 becomes `\xe9`.

    Args:
        value: a string, or what `str` makes one of.
        keep: unsafe characters that stay, such as `"\n"` for text of several lines of our own.
        most: the longest result, in characters; longer text is cut, and the cut is shown.
    """
    text = str(value)
    dropped = 0
    if most is not None and len(text) > most:
        dropped = len(text) - most
        text = text[:most]
    if not text.isprintable():
        text = _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)
    return f"{text}... ({dropped:,} more characters)" if dropped else text


def one_line(value: object, most: int = 1000) -> str:
    """The text of `value` for one field of a log line: on one line, without controls, cut."""
    return printable(value, most=most)


def printable_json(text: str) -> str:
    r"""A JSON document with every unsafe character as `\uXXXX`, which every JSON parser reads back.

    Newlines between the values of an indented document stay.
    """
    if text.isprintable():
        return text
    return _UNSAFE.sub(lambda found: found[0] if found[0] == "\n" else _json_escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    if character in _NAMES:
        return _NAMES[character]
    if _BYTE + 0x80 <= code <= _BYTE + 0xFF:
        return f"\\x{code - _BYTE:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
