"""How Consul's agent watches over a worker: by asking it, or by waiting for its reports. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance

__all__ = ["CheckConfig", "check_name", "encode_check", "format_duration"]

# With an election under way the agent held heartbeats for 7 s a try: checks with a TTL of 2 s and
# of 10 s turned critical in it, those of 30 s did not.
_MIN_TTL_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckConfig:
    """The check that decides whether an instance is on the healthy list.

    Attributes:
        mode: `http`, the agent asks the worker; or `ttl`, the worker reports to the agent, for
            workers that the agent cannot reach. A killed worker is off the list after
            0.5 s (1.0 s at most) with `http`, and after up to `ttl_s` with `ttl`.
        path: the path asked on transport `http`. The default follows the engine, not just the
            process: a worker whose model hangs answers 503 there.
        interval_s: seconds between checks, at least 1. More costs fewer requests, and notices a
            dead worker later.
        timeout_s: seconds until a check counts as failed. With 0.5 s a stopped process was off the
            list after 1.4 s at most; more tolerates longer pauses of a worker.
        ttl_s: with `ttl`, seconds without a report after which the check fails, at least 30: less
            does not outlast the election of a new Consul leader. Reports are sent every third.
        deregister_after_s: seconds of failure after which the entry is removed, at least 60. More
            keeps the entry of a worker that may come back; less clears dead ones sooner.

    Raises:
        ConfigurationError: a value is out of range.
    """

    mode: Literal["http", "ttl"] = "http"
    path: str = "/health/engine"
    interval_s: float = 1.0
    timeout_s: float = 0.5
    ttl_s: float = _MIN_TTL_S
    deregister_after_s: float = 60.0

    def __post_init__(self) -> None:
        if self.mode not in ("http", "ttl"):
            raise ConfigurationError(f"mode={self.mode!r}: use 'http' or 'ttl'")
        if not self.path.startswith("/"):
            raise ConfigurationError(f"path={self.path!r}: use a path that starts with '/'")
        if not self.interval_s >= 1:
            raise ConfigurationError(
                f"interval_s={self.interval_s}: use 1 s or more, the least that Consul takes"
            )
        if not self.timeout_s > 0:
            raise ConfigurationError(f"timeout_s={self.timeout_s}: use a number above 0")
        if not self.deregister_after_s >= 60:
            raise ConfigurationError(
                f"deregister_after_s={self.deregister_after_s}: use 60 s or more, the least that "
                "Consul takes"
            )
        if not self.ttl_s >= _MIN_TTL_S:
            raise ConfigurationError(
                f"ttl_s={self.ttl_s:g}: use {_MIN_TTL_S:g} s or more, because a shorter one fails "
                "whenever Consul elects a leader; mode 'http' notices a dead worker sooner"
            )

    @property
    def heartbeat_s(self) -> float | None:
        """Seconds between the worker's reports; None where it sends none."""
        return self.ttl_s / 3 if self.mode == "ttl" else None


def check_name(instance_id: str) -> str:
    """The check's id: an explicit one, so that registering again replaces the check."""
    return f"service:{instance_id}"


def encode_check(instance: Instance, check: CheckConfig) -> dict[str, Any]:
    """The check as Consul's agent takes it within a service's registration."""
    if check.mode == "ttl":
        kind = {"TTL": format_duration(check.ttl_s)}
    else:
        kind = {
            "HTTP": instance.url + check.path,
            "Interval": format_duration(check.interval_s),
            "Timeout": format_duration(check.timeout_s),
        }
    return {
        "CheckID": check_name(instance.id),
        "Name": f"engine of {instance.id}",
        **kind,
        "DeregisterCriticalServiceAfter": format_duration(check.deregister_after_s),
        # A worker registers after a successful warm-up; a check without a status starts critical
        # and would keep it off the list until its first run.
        "Status": "passing",
    }


def format_duration(seconds: float) -> str:
    """A duration as Go reads it, in whole milliseconds."""
    return f"{round(seconds * 1000)}ms"
