"""Requests to the embedded registry, parsed as strictly as Consul does. Pure.

Consul's decoder accepts JSON keys in any case, some in snake case too, and rejects unknown ones.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, TypeVar

import msgspec

from fingerpost.registry.consul.schema.codec import MAX_KEY_BYTES, MAX_PAIRS, MAX_VALUE_BYTES

__all__ = [
    "BadRequest",
    "CheckDefinition",
    "CheckReport",
    "ServiceDefinition",
    "Status",
    "parse_bool",
    "parse_duration_s",
    "parse_report",
    "parse_service",
]

Status = Literal["passing", "warning", "critical"]

# Consul's own lower bounds, and its default for an HTTP check without a timeout.
_MIN_INTERVAL_S: Final = 1.0
_MIN_DEREGISTER_S: Final = 60.0
_DEFAULT_TIMEOUT_S: Final = 10.0

_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|ms|s|m|h))+", re.ASCII)
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|ms|s|m|h)", re.ASCII)
_UNIT_S: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_DURATION_S: Final = 2**63 / 1e9
_META_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

T = TypeVar("T")


class BadRequest(Exception):
    """A request that is answered with status 400; the message is the answer's body."""


class CheckDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A check as registered: an HTTP check where `http` is set, else a TTL check.

    Attributes:
        http: the URL asked every `interval_s`, with `timeout_s`; 2xx passes, 429 warns.
        tls_server_name: the host name expected in the certificate, if not that of the URL.
        ttl_s: seconds without a report after which the check turns critical.
        deregister_after_s: seconds of being critical after which the service is removed.
        status: the status it starts with.
    """

    id: str
    name: str
    status: Status
    notes: str = ""
    http: str = ""
    method: str = "GET"
    tls_server_name: str = ""
    interval_s: float = 0.0
    timeout_s: float = 0.0
    ttl_s: float = 0.0
    deregister_after_s: float | None = None


class ServiceDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A service as registered. Addresses and ports are not checked, as in Consul."""

    id: str
    name: str
    tags: tuple[str, ...]
    address: str
    port: int
    meta: dict[str, str]
    weight_passing: int
    weight_warning: int
    enable_tag_override: bool
    checks: tuple[CheckDefinition, ...]


class CheckReport(msgspec.Struct, frozen=True):
    """A new status of a check, and its output."""

    status: Status
    output: str = ""


class _Weights(msgspec.Struct, forbid_unknown_fields=True):
    passing: int = 1
    warning: int = 1


class _Check(msgspec.Struct, forbid_unknown_fields=True):
    id: str = ""
    checkid: str = ""
    name: str = ""
    notes: str = ""
    status: str = ""
    http: str = ""
    method: str = "GET"
    tlsservername: str = ""
    interval: str | int = 0
    timeout: str | int = 0
    ttl: str | int = 0
    deregistercriticalserviceafter: str | int = 0


class _Service(msgspec.Struct, forbid_unknown_fields=True):
    id: str = ""
    name: str = ""
    tags: list[str] = []
    address: str = ""
    port: int = 0
    meta: dict[str, str] = {}
    weights: dict[str, Any] = {}
    enabletagoverride: bool = False
    check: dict[str, Any] = {}
    checks: list[dict[str, Any]] = []


class _Report(msgspec.Struct, forbid_unknown_fields=True):
    status: str = ""
    output: str = ""


def parse_service(body: bytes) -> ServiceDefinition:
    """Read the body of `/v1/agent/service/register`. Raises `BadRequest`."""
    sent = _convert(_json_object(body), _Service)
    if not sent.name:
        raise BadRequest("Missing service name")
    _check_meta(sent.meta)
    weights = _convert(sent.weights, _Weights)
    if not (1 <= weights.passing <= 65535 and 0 <= weights.warning <= 65535):
        raise BadRequest("Invalid Weights: Passing must be 1 to 65535, Warning 0 to 65535")
    service_id = sent.id or sent.name
    return ServiceDefinition(
        id=service_id,
        name=sent.name,
        tags=tuple(sent.tags),
        address=sent.address,
        port=sent.port,
        meta=sent.meta,
        weight_passing=weights.passing,
        weight_warning=weights.warning,
        enable_tag_override=sent.enabletagoverride,
        checks=_checks(service_id, sent),
    )


def parse_report(body: bytes) -> CheckReport:
    """Read the body of `/v1/agent/check/update/ID`. Raises `BadRequest`."""
    sent = _convert(_json_object(body), _Report)
    return CheckReport(_status(sent.status), sent.output)


def parse_bool(text: str) -> bool | None:
    """The value as Go's `strconv.ParseBool` reads it; None where it is not a boolean."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    return None


def parse_duration_s(value: str | int) -> float:
    """Seconds of a Go duration (`1m30s`) or of a number of nanoseconds. Raises `BadRequest`."""
    if isinstance(value, int):
        seconds = value / 1e9
    elif value == "0":
        seconds = 0.0
    elif _DURATION.fullmatch(value):
        parts = _DURATION_PART.findall(value)
        seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    else:
        raise BadRequest(f"time: invalid duration {value[:50]!r}")
    if not 0 <= seconds < _MAX_DURATION_S:
        raise BadRequest(f"time: invalid duration {value!r:.50}")
    return seconds


def _checks(service_id: str, sent: _Service) -> tuple[CheckDefinition, ...]:
    bodies = [check for check in (sent.check, *sent.checks) if check]
    checks: list[CheckDefinition] = []
    for number, body in enumerate(bodies, start=1):
        # Consul numbers the ids of checks without one, where there are several.
        fallback = f"service:{service_id}" + (f":{number}" if len(bodies) > 1 else "")
        checks.append(_check(_convert(body, _Check), fallback, f"Service '{sent.name}' check"))
    return tuple(checks)


def _check(sent: _Check, fallback_id: str, fallback_name: str) -> CheckDefinition:
    interval_s = parse_duration_s(sent.interval)
    ttl_s = parse_duration_s(sent.ttl)
    deregister_s = parse_duration_s(sent.deregistercriticalserviceafter)
    if interval_s and ttl_s:
        raise BadRequest("Invalid check: Interval and TTL cannot both be specified")
    if sent.http and not interval_s:
        raise BadRequest("Invalid check: Interval must be > 0 for HTTP checks")
    if not sent.http and not ttl_s:
        raise BadRequest("Invalid check: the embedded registry has HTTP and TTL checks only")
    return CheckDefinition(
        id=sent.checkid or sent.id or fallback_id,
        name=sent.name or fallback_name,
        status=_status(sent.status or "critical"),
        notes=sent.notes,
        http=sent.http,
        method=sent.method,
        tls_server_name=sent.tlsservername,
        interval_s=max(interval_s, _MIN_INTERVAL_S) if sent.http else 0.0,
        timeout_s=parse_duration_s(sent.timeout) or _DEFAULT_TIMEOUT_S,
        ttl_s=ttl_s,
        deregister_after_s=max(deregister_s, _MIN_DEREGISTER_S) if deregister_s else None,
    )


def _status(text: str) -> Status:
    match text:
        case "passing" | "warning" | "critical":
            return text
        case _:
            raise BadRequest("Status for checks must 'passing', 'warning', 'critical'")


def _check_meta(meta: dict[str, str]) -> None:
    if len(meta) > MAX_PAIRS:
        raise BadRequest(
            f"Invalid Service Meta: {len(meta)} pairs, but at most {MAX_PAIRS} are kept"
        )
    for key, value in meta.items():
        if not _META_KEY.fullmatch(key) or len(key) > MAX_KEY_BYTES or key.startswith("consul-"):
            raise BadRequest(f"Invalid Service Meta: key {key[:200]!r}")
        if len(value.encode()) > MAX_VALUE_BYTES:
            raise BadRequest(f"Invalid Service Meta: the value of {key!r} is too long")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"Request decode failed: {error}") from error


def _convert(sent: dict[str, Any], kind: type[T]) -> T:
    """Read keys as Go's decoder does: in any case, null meaning absent, unknown ones rejected."""
    fields = {
        key.lower().replace("_", ""): value for key, value in sent.items() if value is not None
    }
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Request decode failed: {error}") from error
