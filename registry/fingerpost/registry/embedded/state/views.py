"""The store's content in the JSON shapes that Consul answers with. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fingerpost.registry.embedded.state.store import Check, Service, Store

__all__ = [
    "DATACENTER",
    "agent_self",
    "agent_service",
    "catalog_entries",
    "check_view",
    "health_checks",
    "health_entries",
]

DATACENTER: Final = "dc1"
_NODE: Final = "embedded"
_NODE_ID: Final = "00000000-0000-0000-0000-000000000001"


def agent_self(address: str) -> dict[str, Any]:
    """`/v1/agent/self`."""
    return {
        "Config": {
            "Datacenter": DATACENTER,
            "NodeName": _NODE,
            "NodeID": _NODE_ID,
            "Server": True,
            "Version": "fingerpost-embedded",
        },
        "Member": {"Name": _NODE, "Addr": address},
    }


def agent_service(service: Service) -> dict[str, Any]:
    """One entry as the agent shows it."""
    definition = service.definition
    return {
        "ID": definition.id,
        "Service": definition.name,
        "Tags": list(definition.tags),
        "Meta": definition.meta,
        "Port": definition.port,
        "Address": definition.address,
        "Weights": {"Passing": definition.weight_passing, "Warning": definition.weight_warning},
        "EnableTagOverride": definition.enable_tag_override,
    }


def check_view(check: Check, service: Service | None) -> dict[str, Any]:
    """One check, as the agent and the health API show it."""
    return {
        "Node": _NODE,
        "CheckID": check.definition.id,
        "Name": check.definition.name,
        "Status": check.status,
        "Notes": check.definition.notes,
        "Output": check.output,
        "ServiceID": check.service_id,
        "ServiceName": service.definition.name if service else "",
        "ServiceTags": list(service.definition.tags) if service else [],
        "Type": check.kind,
    }


def health_entries(store: Store, services: list[Service], address: str) -> list[dict[str, Any]]:
    """`/v1/health/service/NAME`."""
    return [
        {
            "Node": {
                "ID": _NODE_ID,
                "Node": _NODE,
                "Address": address,
                "Datacenter": DATACENTER,
                "TaggedAddresses": {"lan": address, "wan": address},
                "Meta": {},
            },
            "Service": agent_service(service)
            | {"CreateIndex": service.create_index, "ModifyIndex": service.modify_index},
            "Checks": [_node_check(), *_checks(store, service)],
        }
        for service in services
    ]


def health_checks(store: Store, services: list[Service]) -> list[dict[str, Any]]:
    """`/v1/health/checks/NAME`."""
    return [view for service in services for view in _checks(store, service)]


def catalog_entries(services: list[Service], address: str) -> list[dict[str, Any]]:
    """`/v1/catalog/service/NAME`."""
    return [
        {
            "ID": _NODE_ID,
            "Node": _NODE,
            "Address": address,
            "Datacenter": DATACENTER,
            "ServiceID": service.definition.id,
            "ServiceName": service.definition.name,
            "ServiceTags": list(service.definition.tags),
            "ServiceAddress": service.definition.address,
            "ServicePort": service.definition.port,
            "ServiceMeta": service.definition.meta,
            "ServiceWeights": agent_service(service)["Weights"],
            "ServiceEnableTagOverride": service.definition.enable_tag_override,
            "CreateIndex": service.create_index,
            "ModifyIndex": service.modify_index,
        }
        for service in services
    ]


def _checks(store: Store, service: Service) -> list[dict[str, Any]]:
    return [check_view(check, service) for check in store.checks_of(service.definition.id)]


def _node_check() -> dict[str, Any]:
    return {
        "Node": _NODE,
        "CheckID": "serfHealth",
        "Name": "Serf Health Status",
        "Status": "passing",
        "Notes": "",
        "Output": "Agent alive and reachable",
        "ServiceID": "",
        "ServiceName": "",
        "ServiceTags": [],
        "Type": "",
    }
