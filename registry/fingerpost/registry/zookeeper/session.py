"""One session with a ZooKeeper ensemble: kazoo's threads, bridged to asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fingerpost.errors import (
    ConfigurationError,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
)

if TYPE_CHECKING:
    from kazoo.client import KazooClient

    from fingerpost.registry.zookeeper.url import ZooKeeperAddress

__all__ = ["ZooKeeperSession"]

logger = logging.getLogger(__name__)

# The longest delay between attempts to connect, in seconds. kazoo's default of 60 is too long for
# an ensemble that restarts in two.
_RECONNECT_CAP_S: Final = 1.0
# Requests under way at once in a read of many nodes. kazoo wakes its thread with a byte each,
# through a socket pair whose buffer must not fill up: the loop would wait for room in it.
_PIPELINED: Final = 64

T = TypeVar("T")

# kazoo's debug messages show passwords; its other messages repeat what is logged here.
_KAZOO_LOGGER: Final = logging.getLogger(f"{__name__}.kazoo")
_KAZOO_LOGGER.setLevel(logging.WARNING)


class ZooKeeperSession:
    """A session: connects on first use in the running loop, and reconnects until `aclose`.

    kazoo reads and writes in threads of its own. Their results are passed to the loop with
    `call_soon_threadsafe`; no other code of this module runs in them, and the loop never waits for
    them.

    When a connection is lost the session is only suspended: it lives on at the ensemble for its
    timeout, and kazoo resumes it. A session that stays suspended for a whole timeout is ended and a
    new one begun, because the ensemble has expired it, or has lost its data: such a server closes
    the connection of a client that has seen newer transactions, without an error message.
    """

    def __init__(
        self, address: ZooKeeperAddress, *, timeout_s: float, call_timeout_s: float
    ) -> None:
        try:
            import kazoo.client
            import kazoo.exceptions
            import kazoo.handlers.threading
            import kazoo.retry
            import kazoo.security
        except ImportError as error:
            raise ConfigurationError(
                f"registry {address.url} needs kazoo: pip install 'fingerpost[zookeeper]'"
            ) from error
        self._errors = kazoo.exceptions
        self._address = address
        self._timeout_s = timeout_s
        self._handler = _handler(
            kazoo.handlers.threading.SequentialThreadingHandler, call_timeout_s
        )
        security = kazoo.security
        self._client: KazooClient = kazoo.client.KazooClient(
            hosts=",".join(address.hosts),
            timeout=timeout_s,
            handler=self._handler,
            # With a credential: writable by its owner, readable by all, like the list of workers.
            default_acl=(
                [*security.CREATOR_ALL_ACL, *security.READ_ACL_UNSAFE] if address.auth else None
            ),
            auth_data=[("digest", address.auth)] if address.auth else None,
            connection_retry=kazoo.retry.KazooRetry(
                max_tries=-1, delay=0.05, backoff=2, max_jitter=0.4, max_delay=_RECONNECT_CAP_S
            ),
            logger=_KAZOO_LOGGER,
        )
        self._client.add_listener(self._from_thread)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._to_delete: list[str] = []
        self.epoch = 0  # grows whenever the connection comes or goes
        self._signals: weakref.WeakSet[asyncio.Event] = weakref.WeakSet()

    @property
    def client(self) -> KazooClient:
        """kazoo's client, for threads; its `*_async` methods are safe in any of them."""
        return self._client

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connected.is_set()

    @property
    def id(self) -> int:
        """The session's id, as `ephemeralOwner` has it; 0 while there is none."""
        client_id = self._client.client_id
        return int(client_id[0] or 0) if client_id else 0

    @property
    def last_index(self) -> int:
        """The newest transaction that this session has seen, as an index; 1 or more."""
        return max(1, int(self._client.last_zxid or 0))

    def signal(self) -> asyncio.Event:
        """An event that is set when the connection comes or goes; dropped with its last user."""
        event = asyncio.Event()
        self._signals.add(event)
        return event

    def watcher(self, fired: Callable[[str], None]) -> Callable[[Any], None]:
        """A watcher for kazoo to call in its thread; it calls `fired` in the loop with the path.

        The path is empty where the connection was lost, and all watches with it.
        """

        def watcher(event: Any) -> None:
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(fired, event.path or "")

        return watcher

    def expected(self, *names: str) -> contextlib.AbstractContextManager[None]:
        """Ignore kazoo's errors of these names in the block."""
        return contextlib.suppress(*(getattr(self._errors, name) for name in names))

    async def gather(self, call: Callable[[str], Awaitable[T]], paths: Sequence[str]) -> list[T]:
        """The call for every path, `_PIPELINED` at once, in order."""
        results: list[T] = []
        for start in range(0, len(paths), _PIPELINED):
            batch = paths[start : start + _PIPELINED]
            results += await asyncio.gather(*map(call, batch))
        return results

    def no_node(self, error: BaseException) -> bool:
        """Whether the error means that there is no such node."""
        return isinstance(error, self._errors.NoNodeError)

    async def call(self, method: str, /, *args: Any, **options: Any) -> Any:
        """Call kazoo's `METHOD_async`, waiting for a connection first, and return its result.

        No deadline of its own: put `deadline` around it. While there is no connection nothing is
        queued, so that a cancelled call is not done later.

        Raises:
            RegistryUnreachable: the connection or the session broke meanwhile.
            RegistryDenied: the node's access list does not allow it.
            NoNodeError, NodeExistsError, NotEmptyError: kazoo's own, for the caller to handle.
            RegistryError: anything else.
        """
        await self._ready()
        return await self._result(getattr(self._client, f"{method}_async")(*args, **options))

    async def transact(self, *operations: tuple[str, tuple[Any, ...]]) -> list[Any]:
        """Do all operations or none; the results, some of them exceptions if none was done.

        Raises as `call` does, but returns NoNodeError and NodeExistsError among the results.
        """
        await self._ready()
        transaction = self._client.transaction()
        for name, arguments in operations:
            getattr(transaction, name)(*arguments)
        results = list(await self._result(transaction.commit_async()))
        errors = self._errors
        passing = (
            errors.NoNodeError,
            errors.NodeExistsError,
            errors.RolledBackError,  # an operation before the one that failed
            errors.RuntimeInconsistency,  # one after it
        )
        for each in results:
            if isinstance(each, Exception) and not isinstance(each, passing):
                raise self._translated(each) from each
        return results

    def delete_later(self, path: str) -> None:
        """Delete a node after all requests under way, without waiting for it.

        At once, or after the next connection: a session that lives on keeps the nodes that those
        requests created.
        """
        if self.connected:
            self._client.delete_async(path)
        else:
            self._to_delete.append(path)

    async def aclose(self) -> None:
        """End the session, and with it its ephemeral nodes; stop the threads, close the sockets."""
        self._closed = True
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await self._stop()
        self._client.close()

    async def _ready(self) -> None:
        if self._closed:
            raise RegistryError(f"the registry {self._address.url} was closed; open a new one")
        if self._keeper is None:
            self._loop = asyncio.get_running_loop()
            self._keeper = asyncio.create_task(self._keep(), name=f"session {self._address.url}")
            self._client.start_async()
        await self._connected.wait()

    async def _result(self, result: Any) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def finish() -> None:
            if future.done():  # its caller was cancelled
                return
            if result.exception is not None:
                future.set_exception(result.exception)
            else:
                future.set_result(result.value)

        def done(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(finish)

        result.rawlink(done)
        errors = self._errors
        try:
            return await future
        except (errors.NoNodeError, errors.NodeExistsError, errors.NotEmptyError):
            raise
        except errors.KazooException as error:
            raise self._translated(error) from error

    def _translated(self, error: BaseException) -> RegistryError:
        errors, url, name = self._errors, self._address.url, type(error).__name__
        if isinstance(
            error, (errors.ConnectionLoss, errors.SessionExpiredError, errors.ConnectionClosedError)
        ):
            return RegistryUnreachable(f"the registry {url} cannot be reached: {name}")
        if isinstance(error, (errors.NoAuthError, errors.AuthFailedError, errors.InvalidACLError)):
            return RegistryDenied(
                f"{url}: {name}; give the credential that the nodes were created with, as "
                "zookeeper://USER:PASSWORD@HOST..."
            )
        return RegistryError(f"{url}: {error!r}")

    def _from_thread(self, state: str) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._changed, state)

    def _changed(self, state: str) -> None:
        if state == "CONNECTED":
            logger.info("session with %s: connected", self._address.url)
            self._lost.clear()
            # Before callers that wait for the connection can create these again.
            paths, self._to_delete = self._to_delete, []
            for path in paths:
                self._client.delete_async(path)
            self._connected.set()
        else:
            if self._connected.is_set():
                logger.warning("session with %s: %s", self._address.url, state.lower())
            self._connected.clear()
            self._lost.set()
        self.epoch += 1
        for event in tuple(self._signals):
            event.set()

    async def _keep(self) -> None:
        """Begin a new session whenever the present one had no connection for too long."""
        while True:
            await self._lost.wait()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._connected.wait()
            except TimeoutError:
                try:
                    await self._stop()
                    self._client.start_async()
                except Exception:  # without this task no new session would begin
                    logger.exception("session with %s: cannot begin a new one", self._address.url)

    async def _stop(self) -> None:
        """Stop kazoo's threads, which wait for the server; cut the connection to a silent one."""
        stop = asyncio.ensure_future(asyncio.to_thread(self._client.stop))
        try:
            if self.connected:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await asyncio.shield(stop)
            while not stop.done():
                self._handler.cut()
                await asyncio.wait([stop], timeout=0.05)
        finally:
            if not stop.done():  # cancelled: the thread must end all the same
                self._handler.cut()
            await asyncio.gather(stop, return_exceptions=True)


def _handler(base: Any, connect_timeout_s: float) -> Any:
    """kazoo's thread handler, with named threads and a method that cuts its connection."""

    class Handler(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._socket: socket.socket | None = None

        def spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> threading.Thread:
            thread = threading.Thread(
                target=func, args=args, kwargs=kwargs, name="fingerpost-zookeeper", daemon=True
            )
            thread.start()
            return thread

        def create_connection(self, *args: Any, **kwargs: Any) -> Any:
            # A host that drops packets must not use up the whole session's timeout.
            kwargs["timeout"] = min(kwargs.get("timeout") or connect_timeout_s, connect_timeout_s)
            self._socket = super().create_connection(*args, **kwargs)
            return self._socket

        def cut(self) -> None:
            """End the connection; called from another thread than the one that reads it."""
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    return Handler()
