"""The kinds of objects that are read and written, and where they are in the API. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["CONFIG_MAPS", "LEASES", "SLICES", "Kind", "Resource"]


class Kind(msgspec.Struct, frozen=True):
    """A kind of object: its API group (empty for the core), its versions, newest first."""

    group: str
    versions: tuple[str, ...]
    name: str

    def at(self, namespace: str, version: str | None = None) -> Resource:
        """The objects of this kind in a namespace."""
        return Resource(
            group=self.group,
            version=version or self.versions[0],
            name=self.name,
            namespace=namespace,
        )


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """The objects of one kind in one namespace."""

    group: str
    version: str
    name: str
    namespace: str

    @property
    def path(self) -> str:
        """The path of their list."""
        root = f"/apis/{self.group}" if self.group else "/api"
        return f"{root}/{self.version}/namespaces/{self.namespace}/{self.name}"


LEASES: Final = Kind("coordination.k8s.io", ("v1",), "leases")
# v1 since Kubernetes 1.21; v1beta1 from 1.17 to 1.24.
SLICES: Final = Kind("discovery.k8s.io", ("v1", "v1beta1"), "endpointslices")
CONFIG_MAPS: Final = Kind("", ("v1",), "configmaps")
