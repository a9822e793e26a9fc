"""Files with keys of CURVE, the encryption of ZeroMQ (https://rfc.zeromq.org/spec/26/).

A key pair is in the form of ZeroMQ's own tools (`zcert`, `zmq.auth`); a list of public keys is
text, with one key a line, a name behind it, and `#` for remarks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from fingerpost.errors import ConfigurationError
from fingerpost.security.secret_file import read_file, write_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CurveKeys", "read_public_keys", "write_keys"]

# Z85: 32 bytes as 40 letters (https://rfc.zeromq.org/spec/32/).
_KEY: Final = r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}"
_PAIR: Final = re.compile(rf'^\s*(public|secret)-key\s*=\s*"({_KEY})"\s*$', re.MULTILINE)
_LINE: Final = re.compile(rf"({_KEY})(?:\s+.*)?")
_MAX_BYTES: Final = 4_000_000


class CurveKeys(NamedTuple):
    """A key pair in Z85; its secret half is in no log."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"CurveKeys({self.public.decode()})"

    @classmethod
    def read(cls, path: Path) -> CurveKeys:
        """The pair in a file.

        Raises:
            ConfigurationError: it cannot be read, others may read it, or it holds no pair.
        """
        text = read_file(path, "the CURVE key pair", private=True).decode("utf-8", "replace")
        found = {name: key.encode() for name, key in _PAIR.findall(text)}
        if len(found) != 2:
            raise ConfigurationError(
                f'{path} is not a CURVE key pair, with lines `public-key = "..."` and '
                '`secret-key = "..."`: `fingerpost keys curve --key FILE` makes one'
            )
        return cls(found["public"], found["secret"])


def read_public_keys(path: Path) -> frozenset[bytes]:
    """The public keys in a file.

    Raises:
        ConfigurationError: it cannot be read, or a line is not a key.
    """
    text = read_file(path, "the file of CURVE keys", most=_MAX_BYTES).decode("utf-8", "replace")
    found = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("# "):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ConfigurationError(
                f"{path}, line {number}, is not a public key of CURVE: 40 letters, and a name "
                "behind it, as `fingerpost keys curve` prints it"
            )
        found.add(match[1].encode())
    return frozenset(found)


def write_keys(path: Path, keys: CurveKeys) -> None:
    """Write a pair, which only its owner may read; an existing file is not overwritten.

    Raises:
        ConfigurationError: it exists, or cannot be written.
    """
    text = (
        "metadata\ncurve\n"
        f'    public-key = "{keys.public.decode()}"\n    secret-key = "{keys.secret.decode()}"\n'
    )
    write_file(path, text.encode(), mode=0o600)
