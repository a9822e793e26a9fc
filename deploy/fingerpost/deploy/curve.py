"""Key pairs of CURVE, for the ZeroMQ ports of workers and for their clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError
from fingerpost.security.curve_keys import CurveKeys, write_keys

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["curve_key"]


def curve_key(path: Path) -> bytes:
    """The public key of the pair in a file, which is made if there is none.

    Raises:
        ConfigurationError: the file is not such a pair, or cannot be written; or the extra `zmq`
            is not installed.
    """
    if path.exists():
        return CurveKeys.read(path).public
    try:
        from zmq import curve_keypair
    except ImportError as error:
        raise ConfigurationError(
            f"keys of CURVE need ZeroMQ ({error}): pip install 'fingerpost[zmq]'"
        ) from error
    keys = CurveKeys(*curve_keypair())
    write_keys(path, keys)
    return keys.public
