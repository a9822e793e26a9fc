"""The routes of the proxy that tell what there is: all services, scrape targets, and loads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

from fingerpost.client.wire import ServicesAnswer
from fingerpost.proxy.answers import service_entry
from fingerpost.proxy.prometheus import target_groups
from fingerpost.registry.access.callers import may_see
from fingerpost.registry.http.app import json_response
from fingerpost.registry.http.query_parameters import check_parameters
from fingerpost.registry.names import check_service

if TYPE_CHECKING:
    from fingerpost.proxy.directory import Directory
    from fingerpost.proxy.holds import StartHolds
    from fingerpost.proxy.probes import LoadProbes
    from fingerpost.registry.access import Callers

__all__ = ["OverviewRoutes"]


class OverviewRoutes:
    """The handlers; `add_to` adds them to an application."""

    def __init__(
        self, directory: Directory, probes: LoadProbes, callers: Callers, holds: StartHolds
    ) -> None:
        self._directory = directory
        self._probes = probes
        self._callers = callers
        self._holds = holds

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.add_routes(
            [
                web.get("/v1/services", self._get_services),
                web.get("/v1/load/{service}", self._get_load),
                web.get("/v1/prometheus/targets", self._get_targets),
            ]
        )

    async def _get_services(self, request: web.Request) -> web.Response:
        """`GET /v1/services`: every service, its versions, aliases and number of instances.

        Without those that the caller may not use. Callers with a role also get what is wrong here.
        """
        check_parameters(request.query, ())
        now = time.monotonic()
        caller = await self._callers.identify(request, "services")
        snapshots = await self._directory.services()
        entries = tuple(
            service_entry(each, now) for each in snapshots if may_see(caller, each.service)
        )
        problems = tuple(self._callers.problems) if caller.role else ()
        return json_response(ServicesAnswer(services=entries, problems=problems))

    async def _get_targets(self, request: web.Request) -> web.Response:
        """`GET /v1/prometheus/targets`: the workers for Prometheus' `http_sd_configs`.

        An error where no list is known yet: Prometheus then keeps the targets that it has.
        """
        check_parameters(request.query, ())
        caller = await self._callers.identify(request, "targets")
        snapshots = await self._directory.services()
        return json_response(
            target_groups(each for each in snapshots if may_see(caller, each.service))
        )

    async def _get_load(self, request: web.Request) -> web.Response:
        """`GET /v1/load/{service}`: how much a service is used, for autoscalers such as KEDA.

        It is never held. A name that nobody expects is 404, so that a misspelled one is noticed.
        """
        check_parameters(request.query, ())
        service = check_service(request.match_info["service"])
        await self._callers.allow(request, service, "load")
        snapshot = await self._directory.resolve(service)
        held = self._holds.held.get(service, 0)
        return json_response(
            self._probes.demand.load(snapshot, self._probes.reports, held, time.monotonic())
        )
