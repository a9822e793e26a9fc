"""An instance, and the entry of it that Consul would show."""

from __future__ import annotations

import json

from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.config import CheckConfig
from fingerpost.registry.consul.schema.codec import decode_entries, encode_instance

__all__ = ["INSTANCE", "decode", "entry"]

INSTANCE = Instance(
    id="flowers-10.0.0.1-8501-x7",
    service="flowers",
    host="10.0.0.1",
    ports={"http": 8501, "rpc": 8502},
    models=(ModelInfo(name="flowers", versions=("3", "2"), aliases={"stable": "2"}),),
    weight=4,
    zone="rack-7",
    boot_id=12345,
    meta={"framework": "tensorflow"},
)


def entry(instance=INSTANCE, *, checks=("passing",), check=None, **service):
    """The entry that Consul shows for an instance; `service` overrides its fields."""
    sent = encode_instance(instance, check or CheckConfig())
    return {
        "Node": {"Node": "n", "Address": "10.9.9.9"},
        "Service": {
            "ID": sent["service_id"],
            "Service": sent["name"],
            "Address": sent["address"],
            "Port": sent["port"],
            "Tags": sent["tags"],
            "Meta": sent["meta"],
            "Weights": sent["weights"],
        }
        | service,
        "Checks": [{"CheckID": str(n), "Status": status} for n, status in enumerate(checks)],
    }


def decode(*entries, service="flowers"):
    return decode_entries(json.dumps(entries).encode(), service)
