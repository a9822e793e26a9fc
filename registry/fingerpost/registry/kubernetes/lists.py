"""Reads whole collections, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from fingerpost.basics.deadline import deadline
from fingerpost.registry.kubernetes.codec import decode_list
from fingerpost.registry.kubernetes.http import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import msgspec

    from fingerpost.registry.kubernetes.http import KubernetesHttp
    from fingerpost.registry.kubernetes.resource import Kind, Resource

__all__ = ["Collection"]

# As client-go's: a page of EndpointSlices, of up to 100 endpoints each, has some 20 MB.
_PAGE: Final = 500

T = TypeVar("T")


class Collection:
    """The objects of a kind in a namespace, with a selector.

    Where the server does not have the kind's newest version, an older one is used from then on,
    until that is gone in turn: an API server is upgraded without a restart of its clients.

    Args:
        http: the API server.
        kind: the kind of objects.
        namespace: their namespace.
        selector: a label selector; empty for all.
        call_timeout_s: the deadline of each page.
    """

    def __init__(
        self,
        http: KubernetesHttp,
        kind: Kind,
        namespace: str,
        selector: str = "",
        *,
        call_timeout_s: float,
    ) -> None:
        self._http = http
        self._kind = kind
        self._namespace = namespace
        self._call_timeout_s = call_timeout_s
        self._version = kind.versions[0]
        self.params: dict[str, str] = {"labelSelector": selector} if selector else {}

    @property
    def resource(self) -> Resource:
        """The objects, in the version that the server has."""
        return self._kind.at(self._namespace, self._version)

    def __str__(self) -> str:
        return f"{self._kind.name} of namespace {self._namespace} at {self._http.server}"

    async def read(
        self, decode: Callable[[msgspec.Raw], T], selector: str = ""
    ) -> tuple[list[T], str]:
        """All objects, decoded, and the resource version of the list.

        `selector` narrows it further. The answer is not older than anything written before the
        call: it is not taken from a cache of the server.

        Raises:
            RegistryError: see `KubernetesHttp.call`; `Expired` where the list changed so much while
                it was read that its pages are not of one moment.
        """
        params = dict(self.params)
        if selector:
            params["labelSelector"] = ",".join(
                filter(None, [params.get("labelSelector"), selector])
            )
        items: list[T] = []
        token, version = "", ""
        while True:
            page = {"limit": str(_PAGE)} | params | ({"continue": token} if token else {})
            body = await self._page(page)
            read = decode_list(body, str(self))
            items += map(decode, read.items or ())
            token, version = read.metadata.continue_, read.metadata.resource_version
            if not token:
                return items, version

    async def _page(self, params: Mapping[str, str]) -> bytes:
        missing: NotFound | None = None
        older = (each for each in self._kind.versions if each != self._version)
        for version in (self._version, *older):
            resource = self._kind.at(self._namespace, version)
            try:
                async with deadline(self._call_timeout_s, f"listing {self}"):
                    body = await self._http.call("list", resource, params=params)
            except NotFound as error:
                missing = missing or error
                continue
            self._version = version
            return body
        raise missing or NotFound(f"{self} has no version")
