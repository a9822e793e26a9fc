"""What a check in Consul says about a worker, beyond whether it passes. Pure.

A check over HTTP that got an answer writes `HTTP GET http://...: 503 Service Unavailable Output:`;
one that got none writes the error: `Get "http://...": dial tcp ...: connection refused`. A TTL
check that ran out writes `TTL expired`; otherwise it has what the worker reported. (Consul's
agent/checks/check.go; as seen with 1.8.7. The embedded registry writes the same.)
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from fingerpost.errors import RegistryError

__all__ = ["HealthCheck", "decode_failing_check"]

_ANSWERED: Final = re.compile(r"HTTP [A-Z]+ \S+: [0-9]{3}\b")
_EXPIRED: Final = "TTL expired"
_SERVICE_MAINTENANCE: Final = "_service_maintenance:"
_NODE_MAINTENANCE: Final = "_node_maintenance"


class HealthCheck(msgspec.Struct, rename="pascal"):
    """One check of a service's entry or of its node, as `/v1/health/service/NAME` has it."""

    status: str
    check_id: str = msgspec.field(name="CheckID", default="")
    type: str = ""
    output: str = ""

    @property
    def passing(self) -> bool:
        """Whether it passes; a warning does not."""
        return self.status == "passing"

    @property
    def is_service_maintenance(self) -> bool:
        """Whether it is the maintenance mode of the entry itself, not of its whole node."""
        return self.check_id.startswith(_SERVICE_MAINTENANCE)

    @property
    def withdraws(self) -> bool:
        """Whether it fails for a reason that concerns the worker itself.

        That is maintenance mode, or the worker's own answer that it is not well: a status over
        HTTP, or a report over TTL. A check that got no answer may fail because of the network.
        """
        if self.passing:
            return False
        if self.is_service_maintenance or self.check_id.startswith(_NODE_MAINTENANCE):
            return True
        if self.type == "ttl":
            return not self.output.startswith(_EXPIRED)
        return _ANSWERED.match(self.output) is not None


class _AgentCheck(HealthCheck):
    service_id: str = msgspec.field(name="ServiceID", default="")


def decode_failing_check(body: bytes, instance_id: str) -> HealthCheck | None:
    """The check of an instance that fails, other than maintenance, in `/v1/agent/checks`.

    Raises:
        RegistryError: it is not a JSON object of checks.
    """
    try:
        checks = msgspec.json.decode(body, type=dict[str, _AgentCheck])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"the agent's checks cannot be read: {body[:100]!r}") from error
    for check in checks.values():
        mine = check.service_id == instance_id and not check.is_service_maintenance
        if mine and check.status == "critical":
            return check
    return None
