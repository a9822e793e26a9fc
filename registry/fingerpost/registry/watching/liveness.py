"""Probes of workers: does the process that was registered still answer, and is it ready?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from fingerpost.errors import BadAnswer, ConnectionRefused, PeerError, TlsFailed
from fingerpost.registry.load import WorkerState
from fingerpost.registry.load_client import LoadClient
from fingerpost.registry.watching.self_preservation import ProbeResult
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance
    from fingerpost.registry.watching.self_preservation import SelfPreservationConfig
    from fingerpost.security.tls import TlsConfig

__all__ = ["LivenessProbe"]

# Probes at once. A worker that hangs holds one for the timeout, so that 100 hanging ones are
# through in 2 s; more costs descriptors.
_CONCURRENT: Final = 32


class LivenessProbe:
    """Probes workers by `GET /load`, each within `timeout_s` seconds.

    Connections are not kept: a worker that is gone must be noticed, and probes are rare.
    """

    def __init__(self, *, timeout_s: float = 0.5, tls: TlsConfig | None = None) -> None:
        self._client = LoadClient(
            timeout_s=timeout_s, max_concurrent=_CONCURRENT, tls=ClientTls(tls)
        )

    @classmethod
    def of(cls, config: SelfPreservationConfig | None, tls: TlsConfig | None) -> Self | None:
        """The probe of a watch with these settings; None without self-preservation."""
        return None if config is None else cls(timeout_s=config.probe_timeout_s, tls=tls)

    async def probe(self, instance: Instance) -> ProbeResult:
        """The state of the worker; never raises because of what a peer does.

        READY: it reports this state and the registered boot id (any, where none was registered).
        UNRESPONSIVE: no answer in time, a connection that broke, or a status of 500 or more, as
        from a machine in trouble. GONE: no process listens, another process has the port, it
        drains or failed, or what answers is not a Fingerpost worker, or has not its certificate.
        """
        try:
            report = await self._client.get(instance)
        except (BadAnswer, ConnectionRefused, TlsFailed):
            return ProbeResult.GONE
        except PeerError:
            return ProbeResult.UNRESPONSIVE
        another = instance.boot_id not in (0, report.boot_id)
        ready = report.state is WorkerState.READY and not another
        return ProbeResult.READY if ready else ProbeResult.GONE

    async def aclose(self) -> None:
        """Close the connections. A later `probe` opens new ones."""
        await self._client.aclose()
