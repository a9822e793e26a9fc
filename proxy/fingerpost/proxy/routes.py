"""The routes of the proxy: every HTTP request that it answers."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web
from msgspec import UNSET
from prometheus_client import CONTENT_TYPE_LATEST

from fingerpost.client.wire import (
    FOREIGN_RELAY_PATH,
    HOLD_HEADER,
    INDEX_HEADER,
    INFER_RELAY_PATH,
    RELAY_PATH,
)
from fingerpost.errors import FingerpostError, InvalidRequest, NoWorker, Unauthorized
from fingerpost.proxy.answers import (
    foreign_path,
    identity_prefix,
    only_allowed_models,
    resolve_answer,
)
from fingerpost.proxy.blocking import BlockingQueries
from fingerpost.proxy.picker import WorkerPicker, matching
from fingerpost.proxy.query import ResolveQuery
from fingerpost.proxy.relay_target import relay_target
from fingerpost.proxy.server import remember
from fingerpost.registry import LoadReport, ModelReference, WorkerState
from fingerpost.registry.http.app import Handler, error_response, json_response, typed_errors
from fingerpost.registry.http.browser_guard import BrowserGuard
from fingerpost.registry.http.query_parameters import check_parameters
from fingerpost.security.caller import ANYBODY
from fingerpost.security.keys import PublicKeys

if TYPE_CHECKING:
    from fingerpost.proxy.config import ProxyConfig
    from fingerpost.proxy.directory import Directory
    from fingerpost.proxy.holds import StartHolds
    from fingerpost.proxy.leases import ProxyLeases
    from fingerpost.proxy.metrics import ProxyMetrics
    from fingerpost.proxy.probes import LoadProbes
    from fingerpost.proxy.relay import Relay
    from fingerpost.registry import Instance
    from fingerpost.registry.access import Callers
    from fingerpost.security.caller import Caller

__all__ = ["ProxyRoutes"]

# Far more than the workers of one service.
_MAX_TEXTS: Final = 4096
_SECRET: Final = {hdrs.CACHE_CONTROL: "no-store", "Referrer-Policy": "no-referrer"}


class ProxyRoutes:
    """The handlers of one proxy's HTTP requests; `app` is the aiohttp application with them."""

    def __init__(
        self,
        directory: Directory,
        probes: LoadProbes,
        relay: Relay,
        callers: Callers,
        holds: StartHolds,
        leases: ProxyLeases | None = None,
        *,
        config: ProxyConfig,
        metrics: ProxyMetrics,
    ) -> None:
        self._directory = directory
        self._probes = probes
        self._relay = relay
        self._callers = callers
        self._holds = holds
        self._guarded = callers.required  # read for each lookup, and fixed
        self._leases = leases
        self._config = config
        self._metrics = metrics
        self._picker = WorkerPicker(directory, probes)
        self._blocking = BlockingQueries(
            directory, most=config.max_blocking_queries, max_wait_s=config.max_wait_s
        )
        self._guard = BrowserGuard.of([config.host])
        self._leaving = False
        self._load_reports = 0
        self._texts: dict[str, tuple[Instance, int, str]] = {}

    def app(self) -> web.Application:
        """A new application with all routes."""
        errors = typed_errors("GET /v1/services lists the services")
        app = web.Application(middlewares=[self._close_when_leaving, errors])
        app.add_routes(
            [
                web.get("/", self._get_address),
                web.get("/v1/resolve/{service}", self._get_resolve),
                *(
                    web.post(f"{path}{{service}}", self._post_relay)
                    for path in (RELAY_PATH, INFER_RELAY_PATH, FOREIGN_RELAY_PATH)
                ),
                web.get("/.well-known/jwks.json", self._get_keys),
                web.get("/load", self._get_load),
                web.get("/health/live", self._get_live),
                web.get("/health/ready", self._get_ready),
                web.get("/metrics", self._get_metrics),
            ]
        )
        for path in ("/v1/classify/{service}", "/v1/infer/{service}"):
            app.router.add_post(path, self._redirect, expect_handler=self._redirect_early)
        return app

    async def leave(self, grace_s: float) -> None:
        """Send clients elsewhere: answer held lookups, and close connections after their answer.

        HTTP/1.1 has no way to announce that an idle connection will be closed, so this waits
        `grace_s` seconds; the caller closes what is left then.
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

    def address(self, *, plain: bool) -> str | None:
        """The answer to `GET /` where it is in memory: see `_get_address`; `plain` is `host:port`.

        None where the request has to go through `_get_address`.
        """
        if self._leaving:
            return None
        worker = self._picker.default_from_memory()
        if worker is None:
            return None
        self._metrics.addresses.inc()
        return worker.location if plain else self._identified(worker, ANYBODY, None)

    def _identified(self, worker: Instance, caller: Caller, request: web.Request | None) -> str:
        """`host:port` with a lease, if any, and the path that names the process.

        Without a lease it is kept, as making it takes 2 us.
        """
        if worker.foreign:  # it knows neither processes nor leases
            return f"{worker.location}{foreign_path(worker)}"
        if self._leases is not None:
            boot_id = self._probes.boot_ids.get(worker.id, 0)
            lease = self._leases.path(caller, worker, request)
            return f"{worker.location}{lease}{identity_prefix(worker, boot_id)}"
        boot_id = 0 if worker.boot_id else self._probes.boot_ids.get(worker.id, 0)
        known = self._texts.get(worker.id)
        if known is not None and known[0] is worker and known[1] == boot_id:
            return known[2]
        text = f"{worker.location}{identity_prefix(worker, boot_id)}"
        if len(self._texts) >= _MAX_TEXTS:
            self._texts.clear()
        self._texts[worker.id] = worker, boot_id, text
        return text

    async def _get_address(self, request: web.Request) -> web.Response:
        """`GET /`: `host:port/instance/BOOT_ID/MODEL` of one worker of the default service.

        Of a worker that speaks TLS it is a whole URL, because curl takes `host:port` for HTTP.
        Where leases are signed, `/lease/TOKEN` is before that path: whoever has this URL may
        send images to this service for a short time.

        Remembered only where everybody may ask and gets the same, see `ProxyRunner`.
        For curl and the like, which accept `*/*`: the worker's successor refuses it. For those that
        accept plain text, or say nothing, it is `host:port`, as in release 0.1.
        """
        plain = "*/*" not in request.headers.get(hdrs.ACCEPT, "")
        check_parameters(request.query, ())
        try:
            if self._guarded:
                caller = await self._callers.identify(request, "address")
                worker = await self._default_of(request, caller)
            else:
                caller = ANYBODY
                worker = self._picker.default_from_memory() or await self._started(
                    request, await self._directory.wait_default_service()
                )
        except FingerpostError:
            self._metrics.failures["address"].inc()
            raise
        self._metrics.addresses.inc()
        if not self._leaving and not self._guarded and not self._config.leases.bind:
            remember(request, plain=plain)
        address = worker.location if plain else self._identified(worker, caller, request)
        return web.Response(text=f"{address}\n", headers=self._secret())

    async def _default_of(self, request: web.Request, caller: Caller) -> Instance:
        """A worker of the default service; where a caller may use one model only, of that."""
        models = caller.rights.models
        if models is None:
            return await self._started(request, await self._directory.wait_default_service())
        await self._directory.services()
        service = self._directory.default_service
        if service not in models and len(models) == 1:
            service = models[0]
        if service is None:
            raise InvalidRequest(
                "there are several services: name one that you may use, as in /v1/resolve/NAME"
            )
        self._callers.require_model(request, caller, service, "address")
        return await self._started(request, service)

    async def _started(self, request: web.Request, service: str) -> Instance:
        """The next worker of a service, held until there is one. Raises as `WorkerPicker.pick`."""
        if await self._held(request, service):
            await self._callers.allow(request, service, "address")
        return await self._picker.pick(ModelReference(service))

    async def _held(self, request: web.Request, service: str, within_s: float = math.inf) -> bool:
        """Hold a lookup of a model without a worker; returns whether that took time.

        Who was held for minutes may have lost the right meanwhile: ask again.
        """
        if not self._holds.waits_for(service):
            return False
        within_s = min(within_s, self._callers.seconds_left(request))
        await self._holds.first_worker(service, request, within_s)
        return True

    async def _get_resolve(self, request: web.Request) -> web.Response:
        """`GET /v1/resolve/{service}`: instances, the index, the lease and the snapshot's age."""
        index = 0 if self._guarded else self._directory.catalog_index
        try:
            query = ResolveQuery.parse(request.match_info["service"], request.query)
            service, caller = query.reference.model, ANYBODY
            if self._guarded:
                caller = await self._callers.allow(request, service, "resolve")
                index = self._directory.catalog_index
            if query.index == 0:
                if query.start_wait_s and await self._held(request, service, query.start_wait_s):
                    caller = await self._callers.allow(request, service, "resolve")
                snapshot = await self._directory.resolve(service)
            else:
                wait_s = min(query.wait_s, self._callers.seconds_left(request))
                if self._leases is not None:
                    wait_s = min(wait_s, self._leases.held_s)
                snapshot = await self._blocking.resolve(service, index=query.index, wait_s=wait_s)
                # Who was held for minutes may have lost the right meanwhile.
                caller = await self._callers.allow(request, service, "resolve")
            index = snapshot.index
            instances = matching(snapshot, query.reference)
        except FingerpostError as error:
            self._metrics.failures["resolve"].inc()
            response = error_response(error)
            response.headers[INDEX_HEADER] = str(index)
            if self._holds.hold_s and isinstance(error, NoWorker):
                response.headers[HOLD_HEADER] = str(math.ceil(self._holds.hold_s))
            return response
        if zone := query.zone:
            instances = tuple(sorted(instances, key=lambda each: each.zone != zone))
        instances = instances[: query.count or None]
        if self._guarded:
            instances = only_allowed_models(caller, instances)
        self._metrics.resolves.inc()
        # The index alone does not tell one representation from another, so the tag is weak.
        tag = f'W/"{index}"'
        headers = {INDEX_HEADER: str(index), hdrs.ETAG: tag, **self._secret()}
        if self._leases is None and request.headers.get(hdrs.IF_NONE_MATCH) == tag:
            return web.Response(status=304, headers=headers)
        if "text/plain" in request.headers.get(hdrs.ACCEPT, ""):
            text = "".join(f"{each.location}\n" for each in instances)
            return web.Response(text=text, headers=headers)
        return json_response(
            resolve_answer(
                snapshot,
                instances,
                self._probes.reports,
                now=time.monotonic(),
                lease_s=self._config.lease_s,
                lease=UNSET
                if self._leases is None
                else self._leases.token(caller, service, request),
            ),
            headers=headers,
        )

    async def _redirect(self, request: web.Request) -> web.Response:
        """`POST /v1/classify/{service}` and `/v1/infer/{service}`: 307 with a worker's URL.

        The connection is closed afterwards, because a client that did not wait for an answer
        continues to send a body that this proxy will not read.
        """
        try:
            self._check_origin(request)
            check_parameters(request.query, ("top",))
            caller, reference = await self._allowed(request, "redirect")
            worker = await self._picker.pick(reference)
        except FingerpostError as error:
            self._metrics.failures["redirect"].inc()
            response = error_response(error)
        else:
            if worker.foreign:
                location = f"{worker.url}{foreign_path(worker, request.rel_url)}"
            else:
                prefix = identity_prefix(worker, self._probes.boot_ids.get(worker.id, 0))
                lease = "" if self._leases is None else self._leases.path(caller, worker, request)
                location = f"{worker.url}{lease}{prefix}{request.rel_url}"
            self._metrics.redirects.inc()
            headers = {hdrs.LOCATION: location, **self._secret()}
            response = web.Response(status=307, text=f"{location}\n", headers=headers)
        self._metrics.body_bytes.inc(request.content.total_bytes)
        response.force_close()
        return response

    async def _redirect_early(self, request: web.Request) -> web.Response:
        """The redirect for `Expect: 100-continue`: the client has sent no body, and will not.

        So the connection is closed at once; aiohttp would wait ten seconds for the body.
        """
        response = await self._redirect(request)
        await response.prepare(request)
        await response.write_eof()
        if request.transport is not None:
            request.transport.close()
        return response

    async def _post_relay(self, request: web.Request) -> web.Response:
        """`POST /v1/relay/[infer/ or foreign/]{service}`: carry the image through, if enabled."""
        self._check_origin(request)
        if not self._config.relay:
            raise Unauthorized(
                "the relay is off: send images straight to a worker, or start the proxy with "
                "--relay"
            )
        caller, reference = await self._allowed(request, "relay")
        candidates = await self._picker.candidates(reference)
        workers, path = relay_target(request.rel_url, reference, candidates)
        lease = "" if self._leases is None else self._leases.token(caller, reference.model, None)
        return await self._relay.forward(request, path, workers, lease)

    async def _allowed(self, request: web.Request, action: str) -> tuple[Caller, ModelReference]:
        """Who asks, and the model in the path, which the caller may use.

        Raises:
            InvalidName: it is not a valid name.
            Unauthenticated, Forbidden: nobody known, or somebody who may not use it.
        """
        reference = ModelReference.parse(request.match_info["service"])
        caller = await self._callers.allow(request, reference.model, action)
        if await self._held(request, reference.model):
            caller = await self._callers.allow(request, reference.model, action)
        return caller, reference

    def _secret(self) -> dict[str, str]:
        """Headers of an answer with a lease: nobody keeps it or passes it on."""
        return {} if self._leases is None else dict(_SECRET)

    async def _get_keys(self, request: web.Request) -> web.Response:
        """`GET /.well-known/jwks.json`: the public keys of leases (RFC 7517); none are secret."""
        keys = PublicKeys() if self._leases is None else self._leases.keys
        return web.Response(body=keys.encode(), content_type="application/jwk-set+json")

    def _check_origin(self, request: web.Request) -> None:
        """Raise `Unauthorized` for a web page of another origin, in its reader's name."""
        problem = self._guard.check_origin(request.headers)
        if problem is not None and not self._config.cors.allows(request.headers):
            raise Unauthorized(problem)

    async def _get_load(self, request: web.Request) -> web.Response:
        """`GET /load`: how many images are relayed now, for clients that wait for one of them."""
        self._load_reports += 1
        report = LoadReport(
            rif=self._relay.in_flight,
            slots=0,
            state=WorkerState.DRAINING if self._leaving else WorkerState.READY,
            boot_id=0,
            seq=self._load_reports,
        )
        return json_response(report)

    async def _get_live(self, request: web.Request) -> web.Response:
        return json_response({"status": "live"})

    async def _get_ready(self, request: web.Request) -> web.Response:
        """Ready once there is a snapshot; an outage of the registry does not change that."""
        error = self._directory.error
        ready = self._directory.ready
        body = {"status": "ready" if ready else "no snapshot yet"}
        if error is not None:
            body["registry"] = str(error)
        return json_response(body, status=200 if ready else 503)

    async def _get_metrics(self, request: web.Request) -> web.Response:
        self._metrics.waiting.set(self._blocking.waiting)
        return web.Response(
            body=self._metrics.render(self._directory, self._holds),
            headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST},
        )
