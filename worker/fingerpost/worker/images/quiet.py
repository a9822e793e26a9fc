"""Keeps decoders from writing what hostile images say into the log of a worker."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import warnings

__all__ = ["silence_decoders"]


def silence_decoders() -> None:
    """Pillow warns about and logs the contents of images; libtiff writes to standard error.

    Clients could fill the log with that, and the registry of warnings with a line for each number
    in them. libtiff writes up to a line for each row of an image; Pillow has no setting for that,
    but libtiff has.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    extension = importlib.util.find_spec("PIL._imaging")
    with contextlib.suppress(OSError, AttributeError, TypeError):  # linked statically, or missing
        ctypes.CDLL(extension.origin if extension else None).TIFFSetErrorHandler(None)
