"""One client of xDS: takes its requests, and makes its responses; the server moves them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from fingerpost.proxy.xds.catalog import TYPES
from fingerpost.proxy.xds.messages import message_class
from fingerpost.proxy.xds.resources import CLUSTER, ROUTES
from fingerpost.proxy.xds.session import Session
from fingerpost.proxy.xds.workers import Client
from fingerpost.proxy.xds_names import HAS_CERTIFICATE
from fingerpost.security.caller import ANYBODY

if TYPE_CHECKING:
    from fingerpost.proxy.xds.catalog import XdsCatalog
    from fingerpost.registry.grpc.call_head import CallHead

__all__ = ["DeltaStream", "Stream", "WholeStream"]

_PACKAGE: Final = "envoy.service.discovery.v3"
_Response = message_class(f"{_PACKAGE}.DiscoveryResponse")
_DeltaResponse = message_class(f"{_PACKAGE}.DeltaDiscoveryResponse")
_Resource = message_class(f"{_PACKAGE}.Resource")


class Stream:
    """One client: takes its requests, and makes its responses.

    Args:
        max_names: most names that it may follow.
        catalog: the resources that exist.
        head: of the call.

    Attributes:
        head: of the call, which says who the client is.
        caller: who that is.
        identify_again: the callers' rights may be other ones than when `caller` was found.
        ends_at: until when it holds, in seconds of the event loop's clock; None is for ever.
        wake: set when there may be something to tell.
        node: what the client calls itself.
        followed: the names of clusters and endpoints that it follows.
        follows_every: whether it follows all clusters, or the routes of an Envoy.
        rejects: the types of which it has refused what it was told last.
    """

    def __init__(self, max_names: int, catalog: XdsCatalog, head: CallHead) -> None:
        self._session = Session(max_names)
        self._catalog = catalog
        self._zone = ""
        self._has_certificate = False
        self.head = head
        self.caller = ANYBODY
        self.identify_again = True
        self.ends_at: float | None = None
        self.wake = asyncio.Event()
        self.node = ""
        self.followed: frozenset[str] = frozenset()
        self.follows_every = False
        self.rejects: set[str] = set()

    def judge(self, request: Any) -> bool:
        """Note whether a request refuses or accepts a response; returns whether that is new."""
        type_url, before = request.type_url, len(self.rejects)
        if request.HasField("error_detail"):
            if type_url in TYPES:
                self.rejects.add(type_url)
        elif self._accepts(request):
            self.rejects.discard(type_url)
        return len(self.rejects) != before

    def take(self, request: Any) -> frozenset[str]:
        """Take a request; returns the names that it follows now."""
        if request.HasField("node"):  # in the first request only
            self.node = request.node.id
            self._zone = request.node.locality.zone
            fields = request.node.metadata.fields
            self._has_certificate = HAS_CERTIFICATE in fields and fields[HAS_CERTIFICATE].bool_value
        if request.type_url in TYPES:
            self._follow(request)
            session = self._session
            self.followed = frozenset().union(
                *(session.names(each) for each in TYPES if each != ROUTES)
            )
            self.follows_every = session.follows_every(CLUSTER) or ROUTES in session.types
        return self.followed

    def response(self, type_url: str) -> Any:
        """The next response of a type, or None where there is nothing to tell."""
        session = self._session
        if type_url not in session.types:
            return None
        current = self._catalog.current(
            type_url,
            session.names(type_url),
            self._client(),
            every=session.follows_every(type_url),
        )
        changes = session.changes(type_url, {name: each.version for name, each in current.items()})
        if changes is None:
            return None
        changed, gone = changes
        return self._respond(type_url, current, changed, gone)

    def _client(self) -> Client:
        models = self.caller.rights.models
        return Client(
            zone=self._zone,
            certificate=self._has_certificate,
            models=None if models is None else frozenset(models),
        )

    def _accepts(self, request: Any) -> bool:
        raise NotImplementedError

    def _follow(self, request: Any) -> None:
        raise NotImplementedError

    def _respond(self, type_url: str, current: Any, changed: list[str], gone: list[str]) -> Any:
        raise NotImplementedError


class WholeStream(Stream):
    """A client of the state of the world."""

    def _accepts(self, request: Any) -> bool:
        # One that only changes its names repeats the last nonce, and the version that it has taken.
        return bool(request.response_nonce) and request.version_info == request.response_nonce

    def _follow(self, request: Any) -> None:
        if not self._session.is_stale(request.type_url, request.response_nonce):
            self._session.set_names(request.type_url, request.resource_names)

    def _respond(self, type_url: str, current: Any, changed: list[str], gone: list[str]) -> Any:
        versions = [(name, each.version) for name, each in sorted(current.items())]
        nonce = self._session.sent(type_url, versions, gone)
        return _Response(
            version_info=nonce,
            type_url=type_url,
            nonce=nonce,
            resources=[current[name].packed for name, _ in versions],
        )


class DeltaStream(Stream):
    """A client of the incremental variant."""

    def _accepts(self, request: Any) -> bool:
        return bool(request.response_nonce)

    def _follow(self, request: Any) -> None:
        self._session.change_names(
            request.type_url,
            request.resource_names_subscribe,
            request.resource_names_unsubscribe,
            dict(request.initial_resource_versions),
        )

    def _respond(self, type_url: str, current: Any, changed: list[str], gone: list[str]) -> Any:
        versions = [(name, current[name].version) for name in sorted(changed)]
        nonce = self._session.sent(type_url, versions, gone)
        return _DeltaResponse(
            system_version_info=nonce,
            type_url=type_url,
            nonce=nonce,
            removed_resources=sorted(gone),
            resources=[
                _Resource(name=name, version=version, resource=current[name].packed)
                for name, version in versions
            ],
        )
