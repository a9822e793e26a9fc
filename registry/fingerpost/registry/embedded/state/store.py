"""The embedded registry's content and its rules. Pure: no event loop, no sockets, no clock.

Rules taken from Consul 1.8.7, as observed:

1. An index grows with every change that a reader could see. Each service has its own, so that
   changes of other services do not wake its watchers; a service without entries has the
   registry's, so that it never goes backwards. A change of only a check's output does not count.
2. Registering the same content again changes nothing, and a check that is registered again keeps
   its status. Registering the same id under another name moves the service.
3. Maintenance mode is a critical check of its own. Registering leaves it, unless existing checks
   are to be replaced: then it is removed with all other checks not in the registration.
4. A TTL check without a report in time turns critical. A service of which a check was critical for
   its `deregister_after_s` is removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from fingerpost.registry.embedded.state.definitions import (
    CheckDefinition,
    CheckReport,
    ServiceDefinition,
    Status,
)

__all__ = ["Check", "Service", "Store"]

_MAINTENANCE: Final = "_service_maintenance:"
_DEFAULT_REASON: Final = "Maintenance mode is enabled for this service, but no reason was provided."


class Check(msgspec.Struct, kw_only=True):
    """A check and its present state; times in monotonic seconds."""

    definition: CheckDefinition
    service_id: str
    status: Status
    output: str = ""
    expires_at: float | None = None
    critical_since: float | None = None

    @property
    def kind(self) -> str:
        """Consul's `Type`: `http`, `ttl` or `maintenance`."""
        if self.definition.id.startswith(_MAINTENANCE):
            return "maintenance"
        return "http" if self.definition.http else "ttl"

    @property
    def due_at(self) -> float | None:
        """The next time at which it changes without a report; None if never."""
        after_s = self.definition.deregister_after_s
        if self.critical_since is not None and after_s is not None:
            return self.critical_since + after_s
        return self.expires_at


class Service(msgspec.Struct, kw_only=True):
    """A registered service entry."""

    definition: ServiceDefinition
    create_index: int
    modify_index: int


class Store:
    """Services and checks by id. Every method that depends on the time has a parameter `now`."""

    def __init__(self) -> None:
        self.index = 1
        self.catalog_index = 1
        self._service_indexes: dict[str, int] = {}
        self._services: dict[str, Service] = {}
        self._checks: dict[str, Check] = {}

    # Reading

    def service(self, service_id: str) -> Service | None:
        """The entry of that id."""
        return self._services.get(service_id)

    def services(self) -> list[Service]:
        """All entries, by id."""
        return [self._services[service_id] for service_id in sorted(self._services)]

    def instances(
        self, name: str, *, tags: Iterable[str] = (), passing: bool = False
    ) -> list[Service]:
        """The entries of one service that have all the tags; only healthy ones, if `passing`."""
        wanted = {tag.lower() for tag in tags}
        return [
            service
            for service in self.services()
            if service.definition.name == name
            and wanted <= {tag.lower() for tag in service.definition.tags}
            and (not passing or self._is_passing(service.definition.id))
        ]

    def checks_of(self, service_id: str) -> list[Check]:
        """One entry's checks, by id."""
        return [check for check in self.checks() if check.service_id == service_id]

    def checks(self) -> list[Check]:
        """All checks, by id."""
        return [self._checks[check_id] for check_id in sorted(self._checks)]

    def tags_by_service(self) -> dict[str, list[str]]:
        """Each service's name and the tags that any of its entries has."""
        tags: dict[str, set[str]] = {}
        for service in self._services.values():
            tags.setdefault(service.definition.name, set()).update(service.definition.tags)
        return {name: sorted(tags[name]) for name in sorted(tags)}

    def service_index(self, name: str) -> int:
        """The index for readers of one service (rule 1)."""
        return self._service_indexes.get(name, self.index)

    # Changing

    def register(
        self, definition: ServiceDefinition, *, now: float, replace_checks: bool = False
    ) -> None:
        """Record a service and its checks (rules 2 and 3)."""
        old = self._services.get(definition.id)
        if old is not None and old.definition.name != definition.name:
            self.deregister(definition.id)
            old = None
        changed = old is None or old.definition != definition
        wanted = {check.id for check in definition.checks}
        if replace_checks:
            for check in self.checks_of(definition.id):
                if check.definition.id not in wanted:
                    del self._checks[check.definition.id]
                    changed = True
        for check_definition in definition.checks:
            changed |= self._put_check(definition.id, check_definition, now)
        if changed:
            index = self._bump(definition.name, catalog=True)
            created = index if old is None else old.create_index
            self._services[definition.id] = Service(
                definition=definition, create_index=created, modify_index=index
            )

    def deregister(self, service_id: str) -> bool:
        """Remove a service and its checks; False where there is none of that id."""
        service = self._services.pop(service_id, None)
        if service is None:
            return False
        for check in self.checks_of(service_id):
            del self._checks[check.definition.id]
        name = service.definition.name
        self._bump(name, catalog=True)
        if not any(each.definition.name == name for each in self._services.values()):
            del self._service_indexes[name]
        return True

    def set_maintenance(self, service_id: str, *, enable: bool, reason: str, now: float) -> bool:
        """Switch an entry's maintenance mode; False where there is none of that id."""
        service = self._services.get(service_id)
        if service is None:
            return False
        check_id = _MAINTENANCE + service_id
        if enable == (check_id in self._checks):
            return True
        if enable:
            check = CheckDefinition(
                id=check_id,
                name="Service Maintenance Mode",
                status="critical",
                notes=reason or _DEFAULT_REASON,
            )
            self._put_check(service_id, check, now)
        else:
            del self._checks[check_id]
        self._bump(service.definition.name)
        return True

    def report_ttl(self, check_id: str, report: CheckReport, *, now: float) -> bool:
        """Record the report for a TTL check; False where there is no such TTL check."""
        check = self._checks.get(check_id)
        if check is None or not check.definition.ttl_s:
            return False
        check.expires_at = now + check.definition.ttl_s
        self._set_status(check, report, now)
        return True

    def report_http(self, check_id: str, report: CheckReport, *, now: float) -> None:
        """Record the result of an HTTP check; ignored if the check was removed meanwhile."""
        check = self._checks.get(check_id)
        if check is not None and check.definition.http:
            self._set_status(check, report, now)

    def tick(self, now: float) -> None:
        """Apply rule 4 at the time `now`."""
        for check in self.checks():
            if check.expires_at is not None and check.expires_at <= now:
                check.expires_at = None
                self._set_status(check, CheckReport("critical", "TTL expired"), now)
            after_s = check.definition.deregister_after_s
            since = check.critical_since
            if since is not None and after_s is not None and since + after_s <= now:
                self.deregister(check.service_id)

    def next_due_at(self) -> float | None:
        """When `tick` should be called next, unless something changes before."""
        due = [check.due_at for check in self._checks.values() if check.due_at is not None]
        return min(due, default=None)

    # Inside

    def _is_passing(self, service_id: str) -> bool:
        return all(check.status == "passing" for check in self.checks_of(service_id))

    def _put_check(self, service_id: str, definition: CheckDefinition, now: float) -> bool:
        """Add or replace a check; returns whether a reader could see the difference."""
        old = self._checks.get(definition.id)
        if old is not None and old.service_id == service_id:
            status, output, since = old.status, old.output, old.critical_since
        else:
            status, output = definition.status, ""
            since = now if status == "critical" else None
        self._checks[definition.id] = Check(
            definition=definition,
            service_id=service_id,
            status=status,
            output=output,
            expires_at=now + definition.ttl_s if definition.ttl_s else None,
            critical_since=since,
        )
        return old is None or old.service_id != service_id or old.definition != definition

    def _set_status(self, check: Check, report: CheckReport, now: float) -> None:
        check.output = report.output
        if check.status == report.status:
            return
        check.status = report.status
        check.critical_since = now if report.status == "critical" else None
        service = self._services.get(check.service_id)
        if service is not None:
            self._bump(service.definition.name)

    def _bump(self, name: str, *, catalog: bool = False) -> int:
        self.index += 1
        self._service_indexes[name] = self.index
        if catalog:
            self.catalog_index = self.index
        return self.index
