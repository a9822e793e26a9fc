"""Who may connect to the ZeroMQ port: encryption by CURVE, and the keys of clients by ZAP."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

import zmq
from zmq.utils.z85 import encode

from fingerpost.basics.log_limit import LogLimit
from fingerpost.client.zmq.reader import SocketReader
from fingerpost.errors import ConfigurationError
from fingerpost.security.curve_keys import CurveKeys, read_public_keys
from fingerpost.security.tls.files import ChangingFiles

if TYPE_CHECKING:
    from prometheus_client import Counter

    from fingerpost.worker.config import ZmqConfig

__all__ = ["CurveAccess"]

logger = logging.getLogger(__name__)

# ZAP, https://rfc.zeromq.org/spec/27/
_ENDPOINT: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
# version, request id, domain, address, routing id, mechanism, credentials
_REQUEST_FRAMES: Final = 7


class CurveAccess:
    """Lets clients in whose public key is in a file, which is read again when it changes.

    A file that is not valid any more leaves the last good one in use. Without a file each client
    is let in, over an encrypted connection.

    Args:
        context: of the port's socket.
        router: gets the worker's key pair.
        config: names the files.
        dropped: counts who is refused.

    Raises:
        ConfigurationError: a file is not valid, or libzmq has no CURVE.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        router: zmq.Socket[bytes],
        config: ZmqConfig,
        dropped: Counter,
    ) -> None:
        if config.key is None or not zmq.has("curve"):
            raise ConfigurationError("this libzmq has no CURVE: install another build of pyzmq")
        keys = CurveKeys.read(config.key)
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        router.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        router.setsockopt_string(zmq.ZAP_DOMAIN, "fingerpost")
        self._path = config.clients
        self._dropped = dropped
        self._said = LogLimit(60.0)
        self._allowed: frozenset[bytes] | None = None
        if self._path is not None:
            self._allowed = read_public_keys(self._path)
        self._files = ChangingFiles((None if self._path is None else str(self._path),))
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_ENDPOINT)
        self._reader: SocketReader | None = None

    def start(self) -> None:
        """Answer libzmq's questions, in the running loop."""
        self._reader = SocketReader(self._socket, self._asked, max_frames=16)

    def close(self) -> None:
        """Answer no more."""
        if self._reader is not None:
            self._reader.close()
        self._socket.close()

    def _asked(self, frames: list[zmq.Frame]) -> None:
        parts = [frame.bytes for frame in frames]
        # A REP socket's request: who asks, an empty frame, and the request.
        at = parts.index(b"") + 1
        request = parts[at:]
        if len(request) < _REQUEST_FRAMES or self._reader is None:
            return
        _, number, _, address, _, mechanism, credential = request[:_REQUEST_FRAMES]
        key = encode(credential) if mechanism == b"CURVE" and len(credential) == 32 else b""
        if self._permits(key):
            answer = [b"200", b"OK", key, b""]
        else:
            self._dropped.labels("key").inc()
            if count := self._said.count(time.monotonic()):
                logger.warning(
                    "refused %d clients of ZeroMQ, the last from %s: its key is not in %s",
                    count, address.decode("ascii", "replace"), self._path,
                )  # fmt: skip
            answer = [b"400", b"the key of this client is not allowed here", b"", b""]
        self._reader.send([*parts[:at], _VERSION, number, *answer])

    def _permits(self, key: bytes) -> bool:
        if self._path is None:
            return bool(key)
        if self._files.changed():
            try:
                self._allowed = read_public_keys(self._path)
            except ConfigurationError as error:
                logger.error("the last good keys of ZeroMQ's clients stay in use: %s", error)  # noqa: TRY400
        return key in (self._allowed or ())
