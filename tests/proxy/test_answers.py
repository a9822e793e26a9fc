"""What a proxy says of workers whose check fails: bounded, and without control characters."""

from __future__ import annotations

import msgspec

from fingerpost.client.wire import ServiceEntry
from fingerpost.proxy.answers import service_entry
from fingerpost.registry import Snapshot


def entry(*failing: tuple[str, str]) -> ServiceEntry:
    snapshot = Snapshot(
        service="digits", instances=(), known=True, index=1, taken_at=0.0, failing=failing
    )
    return service_entry(snapshot, 1.0)


def test_the_reason_of_a_failing_check_is_part_of_the_list_of_services() -> None:
    why = "10.0.0.1:80: Get http://10.0.0.1:80/health: connection refused"
    assert entry(("digits-1", why)).failing == {"digits-1": why}
    assert entry().failing == {}


def test_reasons_are_bounded_and_escaped() -> None:
    """A check's output is what the worker answered: 4 KB of anything."""
    hostile = "10.0.0.1:80: \x1b]0;title\x07\nOK\u202e" + 4000 * "A"
    found = entry(*((f"digits-{number}", hostile) for number in range(5000))).failing
    assert len(found) == 100
    assert found["digits-0"].startswith(r"10.0.0.1:80: \x1b]0;title\x07\nOK\u202eAAA")
    assert max(map(len, found.values())) < 400
    assert len(msgspec.json.encode(found)) < 50_000


def test_clients_and_proxies_without_it_understand_each_other() -> None:
    class OldEntry(msgspec.Struct):
        """`ServiceEntry` as clients before this read it."""

        name: str
        instances: int
        withdrawn: tuple[str, ...] = ()

    new = msgspec.json.encode(entry(("digits-1", "refused")))
    assert msgspec.json.decode(new, type=OldEntry).name == "digits"
    without = {"name": "digits", "instances": 0, "versions": [], "age_s": 0.0}
    assert msgspec.json.decode(msgspec.json.encode(without), type=ServiceEntry).failing == {}
