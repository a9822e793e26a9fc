"""Old spellings on the wire and in files: read for one more release, and named once in the log.

What a program passes (arguments, settings) is not read under its old name: that raises an error
which names the new one. A registry entry, a proxy's answer, a query or a file may come from a
machine that is not upgraded yet, and so must still be read.
"""

from __future__ import annotations

import logging
from functools import lru_cache

__all__ = ["warn_old_spelling"]

logger = logging.getLogger(__name__)


# Sources come from outside, so their number is bounded; a forgotten one is only named again.
@lru_cache(maxsize=1024)
def warn_old_spelling(old: str, new: str, source: str, remedy: str) -> None:
    """Log a warning, once for the same arguments.

    Args:
        old: the spelling that was found, such as `labels`.
        new: the spelling to use instead.
        source: where it was found: a file's path, a service's entries, a request's path.
        remedy: what to do about it.
    """
    logger.warning(
        "%s: %r is the old spelling of %r, and the next release no longer reads it: %s",
        source,
        old,
        new,
        remedy,
    )
