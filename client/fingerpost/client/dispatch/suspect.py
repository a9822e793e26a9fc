"""Images on which workers fall silent: each may be what stops them.

When a worker stops, all images that it had are suspect, and all but one are innocent. So each gets
a second worker, and they get it one after the other, because two that stop together would be two
silences for the innocent ones. Clients do not know of each other, so the worker does the same: it
takes the images that are marked as suspect (`Fingerpost-Suspect`) one at a time, with nothing else
beside one, and says when it begins with one (`102 Processing`). An image with which the second
worker had begun gets no third. One that only waited there did not stop it, and may get a third.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from typing import TYPE_CHECKING, Final

from fingerpost.client.images.frames import Frame, ImageData
from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.wire import is_foreign
from fingerpost.errors import SuspectImage

if TYPE_CHECKING:
    from fingerpost.client.dispatch.call import Call
    from fingerpost.client.result import Stats
    from fingerpost.client.transport.reply import Reply

__all__ = ["Quarantine", "count_silence"]

logger = logging.getLogger(__name__)

# Workers that may fall silent on one image. A worker that was killed, or whose machine is gone, was
# no fault of the images that it had; two in a row seldom are. A third one would take an image that
# stops workers through a fleet of three.
_MAX_SILENT: Final = 2
# The same for an image that the last worker had not begun with, although it says when it begins.
_MAX_WAITED: Final = 3


# How long a suspect image waits for the one before it: many answers of most models, and little of
# the time that is lost where a slow worker was stopped.
_ALONE_S: Final = 1.0


class Quarantine:
    """Sends one suspect image at a time, where that takes less than a second."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def enter(self, call: Call) -> None:
        """Wait until no other suspect image is under way; `Call.leave` ends it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ALONE_S):
                await self._turn.acquire()
            call.leave = self._turn.release


def count_silence(call: Call, reply: Reply, data: ImageData, stats: Stats) -> None:
    """Record that a worker had the whole image, and then closed the connection or said nothing.

    Raises:
        SuspectImage: it is the second worker, or the third where the second had not begun with it.
    """
    call.silent = (*call.silent, str(reply.error))
    if len(call.silent) == 1:
        stats.suspect_images += 1
    waited = not reply.informed and call.peer is not None and not is_foreign(call.peer)
    if len(call.silent) < (_MAX_WAITED if waited else _MAX_SILENT):
        return
    said = "; ".join(call.silent)
    name = "of a source that is read once"
    if not isinstance(data, OneShot):
        pixels = data.pixels if isinstance(data, Frame) else data
        name = f"of {len(data):,} bytes with SHA-256 {hashlib.sha256(pixels).hexdigest()}"
    logger.warning("an image %s is given up, because workers fell silent on it: %s", name, said)
    raise SuspectImage(
        f"{len(call.silent)} workers fell silent on this image, so no other one gets it: {said}. "
        "If they have not failed for another reason, it is the image that stops them"
    ) from reply.error
