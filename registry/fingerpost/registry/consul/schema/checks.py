"""A worker's check in the form of Consul's agent. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fingerpost.registry.instance import identity_path

if TYPE_CHECKING:
    from fingerpost.registry.config import CheckConfig
    from fingerpost.registry.instance import Instance

__all__ = ["check_name", "encode_check", "format_duration"]


def check_name(instance_id: str) -> str:
    """The check's id, which is fixed so that registering again replaces the check."""
    return f"service:{instance_id}"


def encode_check(instance: Instance, check: CheckConfig) -> dict[str, Any]:
    """The check as part of a service's registration at Consul's agent."""
    if check.mode == "ttl":
        kind = {"TTL": format_duration(check.ttl_s)}
    else:
        kind = {
            "HTTP": f"{instance.url}{identity_path(check.path, instance)}",
            "Interval": format_duration(check.interval_s),
            "Timeout": format_duration(check.timeout_s),
        }
        if check.tls_server_name is not None:
            kind["TLSServerName"] = check.tls_server_name
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
