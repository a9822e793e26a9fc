"""Settings of the decoders for the whole process of a worker."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import warnings

from PIL import AvifImagePlugin

__all__ = ["set_up_decoders"]


def set_up_decoders() -> None:
    """Silence Pillow and libtiff, and let an AVIF take one thread.

    Pillow warns about and logs the contents of images. Clients could fill the log with that, and
    the registry of warnings with a line for each number in them. libtiff writes to standard error,
    up to a line for each row of an image; Pillow has no setting for that, but libtiff has. A worker
    has a thread for each decoder; Pillow would start as many for each AVIF as there are cores.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    extension = importlib.util.find_spec("PIL._imaging")
    with contextlib.suppress(OSError, AttributeError, TypeError):  # linked statically, or missing
        ctypes.CDLL(extension.origin if extension else None).TIFFSetErrorHandler(None)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
