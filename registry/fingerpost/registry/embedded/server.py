"""The embedded registry's HTTP server: sockets and clock for the pure `Store`."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Self

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from fingerpost.basics.supervision import supervise
from fingerpost.errors import ConfigurationError, Unauthorized
from fingerpost.registry.embedded.audit import REGISTERED, RegistryAudit
from fingerpost.registry.embedded.checker import Checker
from fingerpost.registry.embedded.documents import Documents
from fingerpost.registry.embedded.requests import (
    bad_requests,
    blocking,
    flag,
    unknown_paths,
    whole_body,
)
from fingerpost.registry.embedded.state import views
from fingerpost.registry.embedded.state.definitions import (
    BadRequest,
    CheckReport,
    Status,
    parse_bool,
    parse_report,
    parse_service,
)
from fingerpost.registry.embedded.state.store import Store
from fingerpost.registry.http.app import Handler, bind, error_response, json_response, serve
from fingerpost.registry.http.browser_guard import BrowserGuard
from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.registry.http.server import HttpRunner
from fingerpost.registry.instance import format_address
from fingerpost.registry.process_metrics import add_process_metrics
from fingerpost.security.tls import ServerTls, TlsConfig

__all__ = ["DEFAULT_PORT", "EmbeddedRegistry"]

logger = logging.getLogger(__name__)

DEFAULT_PORT: Final = 12481

# One machine has tens of watchers; with so many, some client is in a loop, and gets a 429.
MAX_WAITING: Final = 1000
# A registration is some 3 KB; Consul's limits on metadata allow 40 KB.
_MAX_BODY_BYTES: Final = 256 * 1024


class EmbeddedRegistry:
    """A registry for one machine; `async with EmbeddedRegistry() as registry: registry.url`.

    It has the part of Consul's HTTP API that Fingerpost uses, checks the workers over HTTP as a
    Consul agent does, and stores nothing on disk: after a restart it is empty until the workers,
    which notice it, have registered again.

    Args:
        host: the address to listen on. There is no access control, and everybody who reaches it
            can make it send requests (the checks), so only a loopback address is allowed.
        port: the port to listen on; 0 lets the system choose, and the property `port` has it.
        allow_remote: allow other addresses, for a network that is trusted as a whole.
        allow_hosts: names by which it may be asked, beside `host`, localhost, all addresses and,
            with `allow_remote`, this machine's name. Other names, and web pages of other origins,
            get 403, see `BrowserGuard`.
        connections: which connections are refused or closed; by default one address may have all
            of them, because all clients are on one machine.
        audit_log: a file for registrations, removals and refusals; `-` is standard output.
        tls: with a certificate, it speaks TLS; and how it checks workers that speak TLS.

    Raises:
        ConfigurationError: not a loopback address, or a file of `tls` is not valid.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        allow_remote: bool = False,
        allow_hosts: Iterable[str] = (),
        connections: ConnectionConfig | None = None,
        audit_log: str | None = None,
        tls: TlsConfig | None = None,
    ) -> None:
        if not allow_remote and not _is_loopback(host):
            raise ConfigurationError(
                f"the embedded registry has no access control and does not listen on {host!r}: "
                "use 127.0.0.1, or Consul for more than one machine (or --allow-remote, "
                "allow_remote=True, where the whole network is trusted)"
            )
        self._host = host
        self._port = port
        own = (host, socket.gethostname()) if allow_remote else (host,)
        self._guard = BrowserGuard.of((*own, *allow_hosts))
        self._connections = connections or ConnectionConfig(max_per_client=0)
        self._metrics = CollectorRegistry()
        self._tls = ServerTls(tls) if tls is not None and tls.serves else None
        add_process_metrics(self._metrics, self._tls)
        self._audit = RegistryAudit(audit_log, self._metrics)
        self._store = Store()
        self._rng = random.Random()
        self._checker = Checker(self._checked, tls)
        self._changed = asyncio.Event()
        self._waiting = 0
        self._closing = False
        self._runner: web.AppRunner | None = None
        self._clock_task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port listened on, once started."""
        return self._port

    @property
    def url(self) -> str:
        """`http://host:port` or `https://host:port`, for `open_registry`."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{format_address(self._host, self._port)}"

    async def start(self) -> Self:
        """Listen, with no entries.

        Raises:
            ConfigurationError: the port is in use or cannot be listened on, or no audit log can be.
        """
        self._store = Store()
        self._closing = False
        # Without cancellation, closing would wait for the held queries of disconnected watchers.
        runner = HttpRunner(
            self._application(), self._connections, handler_cancellation=True, shutdown_timeout=1.0
        )
        await runner.setup()
        try:
            await self._audit.start()
            await serve(runner, bind(self._host, self._port), self._tls)
        except ConfigurationError:
            await runner.cleanup()
            await self._audit.aclose()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]
        self._clock_task = asyncio.create_task(
            supervise(self._keep_time, "embedded registry"), name=f"registry {self.url}"
        )
        return self

    async def aclose(self) -> None:
        """Stop listening, answer held queries, end the checks; all entries are gone."""
        self._closing = True
        self._announce()
        task, self._clock_task = self._clock_task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        await self._checker.aclose()
        await self._audit.aclose()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _application(self) -> web.Application:
        app = web.Application(
            client_max_size=_MAX_BODY_BYTES,
            middlewares=[self._audit.middleware, unknown_paths, self._check_caller, bad_requests],
        )
        agent, check = "/v1/agent/service", "/v1/agent/check"
        app.add_routes(
            [
                web.get("/metrics", self._get_metrics, allow_head=False),
                web.get("/v1/status/leader", self._leader, allow_head=False),
                web.get("/v1/agent/self", self._self, allow_head=False),
                web.get("/v1/agent/services", self._agent_services, allow_head=False),
                web.get("/v1/agent/checks", self._agent_checks, allow_head=False),
                web.put(f"{agent}/register", self._register),
                # Not `register`, so that GET of it is answered 405 and not 404.
                web.get(f"{agent}/{{id:(?!register$)[^/]+}}", self._service, allow_head=False),
                web.put(f"{agent}/deregister/{{id}}", self._deregister),
                web.put(f"{agent}/maintenance/{{id}}", self._maintenance),
                web.put(f"{check}/pass/{{id}}", self._reporter("passing")),
                web.put(f"{check}/warn/{{id}}", self._reporter("warning")),
                web.put(f"{check}/fail/{{id}}", self._reporter("critical")),
                web.put(f"{check}/update/{{id}}", self._update),
                web.get("/v1/health/service/{name}", self._health, allow_head=False),
                web.get("/v1/health/checks/{name}", self._health_checks, allow_head=False),
                web.get("/v1/catalog/services", self._catalog, allow_head=False),
                web.get("/v1/catalog/service/{name}", self._catalog_service, allow_head=False),
                *Documents().routes(),
            ]
        )
        return app

    @web.middleware
    async def _check_caller(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse web pages: there is no access control, and browsers run strangers' pages."""
        headers = request.headers
        problem = self._guard.check_host(headers) or self._guard.check_origin(headers)
        if problem is None:
            return await handler(request)
        logger.warning("a request from %s is refused: %s", request.remote, problem)
        return error_response(Unauthorized(problem))

    async def _get_metrics(self, request: web.Request) -> web.Response:
        """Not Consul's: the process, and the connections that it refused."""
        body = generate_latest(self._metrics)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _keep_time(self) -> None:
        while True:
            changed = self._changed
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._store.next_due_at()):
                    await changed.wait()
            before = self._store.index
            self._store.tick(self._now())
            if self._store.index != before:
                self._announce()

    def _announce(self) -> None:
        """After a change: wake all held queries, and run the checks that are registered now."""
        event, self._changed = self._changed, asyncio.Event()
        event.set()
        checks = [] if self._closing else self._store.checks()
        self._checker.follow(
            {each.definition.id: each.definition for each in checks if each.definition.http}
        )

    def _checked(self, check_id: str, report: CheckReport) -> None:
        before = self._store.index
        self._store.report_http(check_id, report, now=self._now())
        if self._store.index != before:
            self._announce()

    # The agent's API: writing

    async def _register(self, request: web.Request) -> web.Response:
        replace = request.query.get("replace-existing-checks") in ("", "true")
        definition = parse_service(await whole_body(request))
        request[REGISTERED] = definition.id
        self._store.register(definition, now=self._now(), replace_checks=replace)
        self._announce()
        return web.Response()

    async def _deregister(self, request: web.Request) -> web.Response:
        # Consul 1.8 answers 200 for an unknown id, later ones 404; the client accepts both.
        if self._store.deregister(request.match_info["id"]):
            self._announce()
        return web.Response()

    async def _maintenance(self, request: web.Request) -> web.Response:
        service_id = request.match_info["id"]
        text = request.query.get("enable", "")
        enable = parse_bool(text)
        if enable is None:
            raise BadRequest(
                f"Invalid value for enable: {text!r}" if text else "Missing value for enable"
            )
        reason = request.query.get("reason", "")
        if not self._store.set_maintenance(
            service_id, enable=enable, reason=reason, now=self._now()
        ):
            return web.Response(status=404, text=f"No service registered with ID {service_id!r}")
        self._announce()
        return web.Response()

    def _reporter(self, status: Status) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            return self._report(request, CheckReport(status, request.query.get("note", "")))

        return handler

    async def _update(self, request: web.Request) -> web.Response:
        return self._report(request, parse_report(await whole_body(request)))

    def _report(self, request: web.Request, report: CheckReport) -> web.Response:
        check_id = request.match_info["id"]
        if not self._store.report_ttl(check_id, report, now=self._now()):
            return web.Response(
                status=404, text=f"CheckID {check_id!r} does not have associated TTL"
            )
        self._announce()
        return web.Response()

    # The agent's API: reading

    async def _leader(self, _: web.Request) -> web.Response:
        return json_response(format_address(self._host, self._port))

    async def _self(self, _: web.Request) -> web.Response:
        return json_response(views.agent_self(self._host))

    async def _agent_services(self, _: web.Request) -> web.Response:
        services = self._store.services()
        return json_response({each.definition.id: views.agent_service(each) for each in services})

    async def _agent_checks(self, _: web.Request) -> web.Response:
        return json_response(
            {
                check.definition.id: views.check_view(check, self._store.service(check.service_id))
                for check in self._store.checks()
            }
        )

    async def _service(self, request: web.Request) -> web.Response:
        service_id = request.match_info["id"]
        service = self._store.service(service_id)
        if service is None:
            return web.Response(status=404, text=f"unknown service ID: {service_id}")
        return json_response(views.agent_service(service))

    # The catalog's API: blocking queries

    async def _health(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        tags = request.query.getall("tag", [])
        passing = flag(request, "passing")

        def content() -> object:
            services = self._store.instances(name, tags=tags, passing=passing)
            return views.health_entries(self._store, services, self._host)

        return await self._answer(request, lambda: self._store.service_index(name), content)

    async def _health_checks(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]

        def content() -> object:
            return views.health_checks(self._store, self._store.instances(name))

        return await self._answer(request, lambda: self._store.service_index(name), content)

    async def _catalog(self, request: web.Request) -> web.Response:
        return await self._answer(
            request, lambda: self._store.catalog_index, self._store.tags_by_service
        )

    async def _catalog_service(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        tags = request.query.getall("tag", [])

        def content() -> object:
            return views.catalog_entries(self._store.instances(name, tags=tags), self._host)

        return await self._answer(request, lambda: self._store.service_index(name), content)

    async def _answer(
        self, request: web.Request, index: Callable[[], int], content: Callable[[], object]
    ) -> web.Response:
        """Answer once the index is above the requested one, or the time to wait is over."""
        seen, wait_s = blocking(request)
        if index() <= seen and not self._closing:
            if self._waiting >= MAX_WAITING:
                return web.Response(status=429, text=f"{MAX_WAITING} queries are waiting already")
            self._waiting += 1
            try:
                # Up to a sixteenth more, as in Consul, so that watchers return at different times.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s * (1 + self._rng.uniform(0, 1 / 16))):
                        while index() <= seen and not self._closing:
                            await self._changed.wait()
            finally:
                self._waiting -= 1
        headers = {
            "X-Consul-Index": str(index()),
            "X-Consul-KnownLeader": "true",
            "X-Consul-LastContact": "0",
        }
        return json_response(content(), headers=headers)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
