"""Changes among workers, as events."""

from __future__ import annotations

import msgspec

from fingerpost.deploy.instance_diff import InstanceDiff, WatchEvent
from fingerpost.errors import RegistryUnreachable
from fingerpost.registry import Instance, ModelInfo, ModelReference, Snapshot


def worker(name: str, *, version: str = "1", weight: int = 1, zone: str = "") -> Instance:
    return Instance(
        id=name,
        service="digits",
        host="10.0.0.1",
        ports={"http": 80},
        models=(ModelInfo(name="digits", versions=(version,), aliases={"stable": version}),),
        weight=weight,
        zone=zone,
    )


def view(*workers: Instance, index: int = 1, at: float = 0.0, **more: object) -> Snapshot:
    view = Snapshot(service="digits", instances=workers, known=True, index=index, taken_at=at)
    return msgspec.structs.replace(view, **more)


def diff_of(reference: str = "digits") -> InstanceDiff:
    return InstanceDiff(ModelReference.parse(reference))


def kinds(events: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(each.event, each.worker.id if each.worker else "") for each in events]


def test_workers_join_change_and_leave() -> None:
    diff = diff_of()
    first = diff.update(view(worker("a"), worker("b"), index=7), None, 0.25)
    assert kinds(first) == [("joined", "a"), ("joined", "b")]
    assert (first[0].index, first[0].age_s) == (7, 0.25)
    assert first[0].worker is not None
    assert first[0].worker.versions == ("1 (stable)",)
    assert diff.update(view(worker("a"), worker("b"), index=8), None, 1.0) == []

    changed = diff.update(view(worker("b", version="2", weight=5), worker("c")), None, 1.0)
    assert kinds(changed) == [("left", "a"), ("changed", "b"), ("joined", "c")]
    assert changed[1].changes == {"versions": (("1 (stable)",), ("2 (stable)",)), "weight": (1, 5)}


def test_a_worker_off_the_list_that_answers_itself_is_kept() -> None:
    diff = diff_of()
    diff.update(view(worker("a")), None, 0.0)
    (retained,) = diff.update(view(worker("a"), retained=("a",)), None, 0.0)
    assert retained.changes == {"state": ("listed", "retained")}
    (listed,) = diff.update(view(worker("a")), None, 0.0)
    assert listed.changes == {"state": ("retained", "listed")}


def test_a_drained_worker_says_why() -> None:
    diff = diff_of()
    diff.update(view(worker("a")), None, 0.0)
    left, empty = diff.update(view(withdrawn=("a",)), None, 0.0)
    assert (left.event, left.message) == ("left", "drained or unhealthy")
    assert (empty.event, empty.message) == ("empty", "no healthy worker serves digits now")
    assert diff.update(view(), None, 0.0) == []


def test_an_empty_list_is_reported_at_first() -> None:
    assert kinds(diff_of().update(view(), None, 0.0)) == [("empty", "")]


def test_only_the_version_or_alias_asked_for_counts() -> None:
    diff = diff_of("digits@2")
    assert kinds(diff.update(view(worker("a"), worker("b", version="2")), None, 0.0)) == [
        ("joined", "b")
    ]
    assert kinds(diff.update(view(worker("a", version="2"), worker("b")), None, 0.0)) == [
        ("joined", "a"),
        ("left", "b"),
    ]


def test_an_outage_is_reported_once_and_so_is_its_end() -> None:
    diff = diff_of()
    now = view(worker("a"))
    diff.update(now, None, 0.0)
    error = RegistryUnreachable("no proxy answered")
    (away,) = diff.update(now, error, 3.0)
    assert (away.event, away.age_s) == ("unreachable", 3.0)
    assert away.message == "no proxy answered; the list may be old"
    assert diff.update(now, RegistryUnreachable("again"), 4.0) == []
    assert kinds(diff.update(view(worker("a"), worker("b"), at=5.0), None, 5.0)) == [
        ("back", ""),
        ("joined", "b"),
    ]


def test_a_proxy_that_has_not_heard_from_its_registry() -> None:
    diff = diff_of()
    now = view(worker("a"))
    assert kinds(diff.update(now, None, 50.0)) == [("joined", "a")]
    (away,) = diff.update(now, None, 53.0)
    assert away.event == "unreachable"
    assert "the proxy cannot reach its registry" in away.message
    assert kinds(diff.update(view(worker("a"), at=60.0), None, 60.0)) == [("back", "")]
