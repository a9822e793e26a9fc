"""The health check of an instance by its own process, for registries that do not ask workers.

A ZooKeeper node proves only that a process keeps its session: kazoo's threads go on doing so while
a model or the event loop hangs. Kubernetes asks a pod, every 10 s and three times if nothing else
is configured, and not which process of it answers. Consul's agent asks each worker. So the process
that registered the instance asks, at the address that clients use, and from a thread, because an
event loop that hangs must fail the check and not stop it.
"""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError
from fingerpost.registry.instance import identity_path

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance
    from fingerpost.security.tls import OwnServerTls, TlsConfig

__all__ = ["EngineCheck", "HttpCheckConfig"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCheckConfig:
    """How a process checks its own instance over HTTP, as Consul's agent would.

    Attributes:
        path: the path asked on transport `http`; any status from 200 to 299 passes. The default
            follows the engine: a worker whose model hangs answers 503 there.
        interval_s: seconds between checks. More costs fewer requests, and notices a stalled
            engine later: it is off the list after `interval_s` + `timeout_s` at most.
        timeout_s: seconds until a check counts as failed. More tolerates longer pauses of a worker.

    Raises:
        ConfigurationError: a value is out of range.
    """

    path: str = "/health/engine"
    interval_s: float = 1.0
    timeout_s: float = 0.5

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ConfigurationError(f"path={self.path!r}: use a path that starts with '/'")
        for name in ("interval_s", "timeout_s"):
            if not (value := getattr(self, name)) > 0:
                raise ConfigurationError(f"{name}={value}: use a number above 0")


class EngineCheck:
    """Checks from `start` to `stop`, and calls `report(sick)` from its thread.

    `report` is called at the first check, when the result changes, and at every check while the
    engine is sick, because the registry may have lost the marker. It may raise: then it is called
    again at the next check.

    Attributes:
        sick: whether the last check failed.
    """

    def __init__(
        self,
        instance: Instance,
        config: HttpCheckConfig,
        report: Callable[[bool], None],
        tls: TlsConfig | None = None,
    ) -> None:
        self._tls: OwnServerTls | None = None
        if instance.speaks_tls:
            from fingerpost.security.tls import OwnServerTls

            self._tls = OwnServerTls(tls)
        self._instance = instance
        self._config = config
        self._report = report
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"fingerpost-check-{instance.id}", daemon=True
        )
        self.sick = False

    def start(self) -> None:
        """Begin to check, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop checking. Blocks for as long as a check in progress takes: call it in a thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        reported: bool | None = None
        while not self._stopping.wait(self._config.interval_s):
            problem = self._check()
            if self._stopping.is_set():
                return
            sick = bool(problem)
            if sick and not self.sick:
                logger.warning(
                    "registration %s: off the list: %s%s: %s; it must answer at the address that "
                    "clients use",
                    self._instance.id,
                    self._instance.url,
                    self._config.path,
                    problem,
                )
            elif self.sick and not sick:
                logger.info("registration %s: the engine answers again", self._instance.id)
            self.sick = sick
            if sick or reported is not False:
                try:
                    self._report(sick)
                    reported = sick
                except Exception as error:  # whatever it is, the next check tries again
                    reported = None
                    logger.debug("registration %s: %r", self._instance.id, error)

    def _check(self) -> str:
        """The reason why the check failed; empty if it passed."""
        instance, config = self._instance, self._config
        host, port = instance.host, instance.ports["http"]
        if self._tls is None:
            connection = http.client.HTTPConnection(host, port, timeout=config.timeout_s)
        else:
            context = self._tls.for_worker(instance.service, speaks_tls=True, peer=host)
            connection = http.client.HTTPSConnection(
                host, port, timeout=config.timeout_s, context=context
            )
        try:
            path = identity_path(config.path, instance)
            connection.request("GET", path, headers={"Connection": "close"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as error:
            return str(error) or type(error).__name__
        finally:
            connection.close()
        if status == 410:
            return "another process answers there"
        return "" if 200 <= status < 300 else f"HTTP {status}"
