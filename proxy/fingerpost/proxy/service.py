"""The proxy's HTTP side: it answers "where?" from memory."""

from __future__ import annotations

import asyncio
import random
import re
import time
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST

from fingerpost.client.routing import RoundRobin
from fingerpost.client.wire import (
    INDEX_HEADER,
    ResolveAnswer,
    ResolvedInstance,
    ServiceEntry,
    ServicesAnswer,
)
from fingerpost.errors import (
    FingerpostError,
    InvalidRequest,
    NoWorker,
    Overloaded,
    Unauthorized,
    UnknownModel,
    UnknownService,
)
from fingerpost.proxy.server import learn
from fingerpost.registry import Instance, ModelReference, Snapshot
from fingerpost.registry.http_server import Handler, error_response, json_response, typed_errors
from fingerpost.registry.old_spellings import warn_old_spelling

if TYPE_CHECKING:
    from fingerpost.proxy.config import ProxyConfig
    from fingerpost.proxy.directory import Directory
    from fingerpost.proxy.metrics import ProxyMetrics
    from fingerpost.proxy.probes import LoadProbes
    from fingerpost.proxy.relay import Relay

__all__ = ["ProxyService"]

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)?", re.ASCII)
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_RETRY_AFTER_S: Final = 1.0


class ProxyService:
    """Handlers around one directory; `app` makes the routes."""

    def __init__(
        self,
        directory: Directory,
        probes: LoadProbes,
        relay: Relay,
        *,
        config: ProxyConfig,
        metrics: ProxyMetrics,
    ) -> None:
        self._directory = directory
        self._probes = probes
        self._relay = relay
        self._config = config
        self._metrics = metrics
        self._turns: dict[ModelReference, RoundRobin] = {}
        self._rng = random.Random()
        self._waiting = 0
        self._leaving = False

    def app(self) -> web.Application:
        """The routes."""
        errors = typed_errors("GET /v1/services lists the services")
        app = web.Application(middlewares=[self._close_when_leaving, errors])
        app.add_routes(
            [
                web.get("/", self._get_address),
                web.get("/v1/resolve/{service}", self._get_resolve),
                web.get("/v1/services", self._get_services),
                web.post("/v1/relay/{service}", self._post_relay),
                web.get("/health/live", self._get_live),
                web.get("/health/ready", self._get_ready),
                web.get("/metrics", self._get_metrics),
            ]
        )
        app.router.add_post(
            "/v1/classify/{service}", self._redirect, expect_handler=self._redirect_early
        )
        return app

    async def leave(self, grace_s: float) -> None:
        """Let clients go elsewhere: held lookups are answered, kept connections end politely.

        An idle connection cannot be told; after `grace_s` seconds what is left will be closed.
        """
        self._leaving = True
        self._directory.end_holds()
        await asyncio.sleep(grace_s)

    @web.middleware
    async def _close_when_leaving(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        if self._leaving:
            response.force_close()
        return response

    async def _get_address(self, request: web.Request) -> web.Response:
        """`GET /`: `host:port` of one worker of the default service, in plain text."""
        try:
            service = await self._directory.only_service()
            worker = await self._pick(ModelReference(service))
        except FingerpostError:
            self._metrics.failures["address"].inc()
            raise
        self._metrics.addresses.inc()
        if not self._leaving:
            learn(request)
        return web.Response(text=f"{worker.address}\n")

    def address(self) -> str | None:
        """What `GET /` is answered with; None where it is not simply the next worker's address."""
        service = self._directory.sole_service
        snapshot = None if service is None else self._directory.snapshot(service)
        if service is None or snapshot is None or self._leaving:
            return None
        reference = ModelReference(service)
        if not snapshot.matching(reference):
            return None
        self._metrics.addresses.inc()
        return self._next(snapshot, reference).address

    async def _get_resolve(self, request: web.Request) -> web.Response:
        """`GET /v1/resolve/{service}`: instances, the index, the lease and the snapshot's age."""
        index = self._directory.catalog_index
        try:
            reference = _reference(request)
            snapshot = await self._resolve(request, reference)
            index = snapshot.index
            instances = self._matching(snapshot, reference)
            zone = request.query.get("zone")
            if zone:  # a preference: the zone's own first
                instances = tuple(sorted(instances, key=lambda each: each.zone != zone))
            instances = instances[: _count(request) or None]
        except FingerpostError as error:
            self._metrics.failures["resolve"].inc()
            response = error_response(error)
            response.headers[INDEX_HEADER] = str(index)
            return response
        self._metrics.resolves.inc()
        # The index alone does not tell one representation from another, so the tag is weak.
        tag = f'W/"{index}"'
        headers = {INDEX_HEADER: str(index), hdrs.ETAG: tag}
        if request.headers.get(hdrs.IF_NONE_MATCH) == tag:
            return web.Response(status=304, headers=headers)
        if "text/plain" in request.headers.get(hdrs.ACCEPT, ""):
            text = "".join(f"{each.address}\n" for each in instances)
            return web.Response(text=text, headers=headers)
        return json_response(
            ResolveAnswer(
                service=snapshot.service,
                index=snapshot.index,
                age_s=round(snapshot.age_s(time.monotonic()), 3),
                lease_s=self._config.lease_s,
                instances=tuple(
                    ResolvedInstance.of(each, self._probes.reports.get(each.id))
                    for each in instances
                ),
                kept=snapshot.kept,
                from_disk=snapshot.from_disk,
            ),
            headers=headers,
        )

    async def _get_services(self, request: web.Request) -> web.Response:
        """`GET /v1/services`: every service, its versions, aliases and number of instances."""
        now = time.monotonic()
        return json_response(
            ServicesAnswer(
                services=tuple(_entry(each, now) for each in await self._directory.services())
            )
        )

    async def _redirect(self, request: web.Request) -> web.Response:
        """Answer 307 with a worker's URL.

        The connection is closed afterwards, because a client that did not wait for an answer goes
        on sending a body that nobody here will use.
        """
        try:
            reference = ModelReference.parse(request.match_info["service"])
            worker = await self._pick(reference)
        except FingerpostError as error:
            self._metrics.failures["redirect"].inc()
            response = error_response(error)
        else:
            self._metrics.redirects.inc()
            location = f"{worker.url}{request.rel_url}"
            response = web.Response(
                status=307, text=f"{location}\n", headers={hdrs.LOCATION: location}
            )
        self._metrics.body_bytes.inc(request.content.total_bytes)
        response.force_close()
        return response

    async def _redirect_early(self, request: web.Request) -> web.Response:
        """The same for `Expect: 100-continue`: the client has sent no body, and will not.

        So the connection can be closed at once; aiohttp would wait for the body for ten seconds.
        """
        response = await self._redirect(request)
        await response.prepare(request)
        await response.write_eof()
        if request.transport is not None:
            request.transport.close()
        return response

    async def _post_relay(self, request: web.Request) -> web.Response:
        """`POST /v1/relay/{service}`: carry the image through, where that is enabled."""
        if not self._config.relay:
            raise Unauthorized(
                "the relay is off: send images straight to a worker, or start the proxy with "
                "--relay"
            )
        reference = ModelReference.parse(request.match_info["service"])
        first = await self._pick(reference)
        snapshot = await self._directory.resolve(reference.model)
        others = [each for each in self._matching(snapshot, reference) if each is not first]
        self._rng.shuffle(others)
        query = f"?{request.query_string}" if request.query_string else ""
        return await self._relay.forward(
            request, f"/v1/classify/{reference}{query}", [first, *others]
        )

    async def _get_live(self, request: web.Request) -> web.Response:
        return json_response({"status": "live"})

    async def _get_ready(self, request: web.Request) -> web.Response:
        """Ready once there is a snapshot; an outage of the registry does not take that away."""
        error = self._directory.error
        body = {"status": "ready" if self._directory.ready else "no snapshot yet"}
        if error is not None:
            body["registry"] = str(error)
        return json_response(body, status=200 if self._directory.ready else 503)

    async def _get_metrics(self, request: web.Request) -> web.Response:
        self._metrics.waiting.set(self._waiting)
        return web.Response(
            body=self._metrics.render(self._directory),
            headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST},
        )

    async def _pick(self, reference: ModelReference) -> Instance:
        """The next worker in turn. Raises as `Directory.resolve` and `_matching` do."""
        snapshot = self._directory.snapshot(reference.model)
        if snapshot is None:
            snapshot = await self._directory.resolve(reference.model)
        return self._next(snapshot, reference)

    def _next(self, snapshot: Snapshot, reference: ModelReference) -> Instance:
        instances = self._probes.answering(self._matching(snapshot, reference))
        turn = self._turns.get(reference)
        if turn is None:
            # Only references that exist are remembered, so that this cannot grow without bound.
            turn = self._turns[reference] = RoundRobin()
        return turn.pick(instances, 0.0, self._rng)

    async def _resolve(self, request: web.Request, reference: ModelReference) -> Snapshot:
        """Resolve now, or hold the request where it has an index other than 0."""
        index, wait_s = _index(request), self._wait_s(request)
        if index == 0:
            return await self._directory.resolve(reference.model)
        if self._waiting >= self._config.max_waiting:
            raise Overloaded(
                f"{self._waiting} lookups wait here already: ask another proxy, or without index=",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._waiting += 1
        try:
            return await self._directory.resolve(reference.model, index=index, wait_s=wait_s)
        except UnknownService:
            await self._directory.catalog_changed(wait_s)
            return await self._directory.resolve(reference.model)
        finally:
            self._waiting -= 1

    def _matching(self, snapshot: Snapshot, reference: ModelReference) -> tuple[Instance, ...]:
        """The instances with the version or alias asked for.

        Raises:
            NoWorker: the service has no healthy instance.
            UnknownModel: it has, but none with that version or alias.
            UnknownService: the registry does not list it.
        """
        instances = snapshot.matching(reference)
        if instances:
            return instances
        if snapshot.instances:
            entry = _entry(snapshot, 0.0)
            known = ", ".join([*entry.versions, *entry.aliases])
            raise UnknownModel(f"no worker serves {reference}; there is {known}")
        raise NoWorker(
            f"no healthy worker serves {snapshot.service!r} now: try again in a second",
            retry_after_s=_RETRY_AFTER_S,
        )

    def _wait_s(self, request: web.Request) -> float:
        text = request.query.get("wait", "20s")
        match = _DURATION.fullmatch(text)
        if match is None:
            raise InvalidRequest(f"wait={text!r}: give a duration such as 30s or 500ms")
        return min(self._config.max_wait_s, float(match[1]) * _UNIT_S[match[2]])


def _entry(snapshot: Snapshot, now: float) -> ServiceEntry:
    models = [
        model
        for instance in snapshot.instances
        for model in instance.models
        if model.name == snapshot.service
    ]
    return ServiceEntry(
        name=snapshot.service,
        instances=len(snapshot.instances),
        versions=tuple(
            sorted({each for model in models for each in model.versions}, key=int, reverse=True)
        ),
        aliases={alias: each for model in models for alias, each in model.aliases.items()},
        age_s=round(snapshot.age_s(now), 3),
        from_disk=snapshot.from_disk,
    )


def _reference(request: web.Request) -> ModelReference:
    """What is asked for: `flowers@3` in the path, or `version=` and `alias=` in the query."""
    reference = ModelReference.parse(request.match_info["service"])
    version, alias = request.query.get("version"), request.query.get("alias")
    if label := request.query.get("label"):
        warn_old_spelling("label=", "alias=", "GET /v1/resolve", "change the callers' URLs")
    wanted = [each for each in (version, alias, label, reference.version, reference.alias) if each]
    if len(wanted) > 1:
        raise InvalidRequest(f"{' and '.join(wanted)} were asked for: give one version or alias")
    alias = alias or label
    if not (version or alias):
        return reference
    parsed = ModelReference.parse(f"{reference.model}@{version or alias}")
    if (parsed.version, parsed.alias) != (version or None, alias or None):
        raise InvalidRequest(f"version={version!r}, alias={alias!r}: versions are whole numbers")
    return parsed


def _index(request: web.Request) -> int:
    text = request.query.get("index", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidRequest(f"index={text!r}: give the index of an earlier answer")
    return int(text)


def _count(request: web.Request) -> int:
    text = request.query.get("n", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise InvalidRequest(f"n={text!r}: give the number of instances wanted, 0 for all")
    return int(text)
