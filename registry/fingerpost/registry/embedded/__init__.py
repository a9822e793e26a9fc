"""The embedded registry: the part of Consul's HTTP API that Fingerpost uses, for one machine.

For demos, tests, and clusters that fit on one machine. It stores nothing on disk: when it stops,
all entries are gone, and workers register again by themselves once it is back. Larger clusters need
Consul, which replicates, elects leaders and fails over.
"""

from fingerpost.registry.embedded.server import DEFAULT_PORT, EmbeddedRegistry

__all__ = ["DEFAULT_PORT", "EmbeddedRegistry"]
