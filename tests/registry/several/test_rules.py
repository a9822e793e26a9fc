"""How the views of several registries become one."""

from __future__ import annotations

from tests.support.snapshots import ids

from fingerpost.registry import Catalog, Instance, ModelInfo, Snapshot
from fingerpost.registry.several.rules import merge_catalogs, merge_snapshots


def instance(name, **fields):
    models = (ModelInfo(name="flowers", versions=("1",)),)
    return Instance(
        id=name, service="flowers", host="10.0.0.7", ports={"http": 80}, models=models, **fields
    )


def view(*names, known=True, index=1, taken_at=0.0, **fields):
    return Snapshot(
        service="flowers",
        instances=tuple(instance(each) for each in names),
        known=known,
        index=index,
        taken_at=taken_at,
        **fields,
    )


def test_an_instance_counts_wherever_it_is_listed():
    merged = merge_snapshots(
        "flowers",
        [view("b", index=5, taken_at=9.0), view("a", "b", index=7, taken_at=4.0)],
        "merged",
    )
    assert ids(merged) == ["a", "b"]
    assert (merged.index, merged.taken_at, merged.known) == (12, 4.0, True)


def test_the_first_registry_with_an_instance_is_used_in_failover():
    first, second = view("b", index=5), view("a", index=7)
    assert ids(merge_snapshots("flowers", [first, second], "failover")) == ["b"]
    assert ids(merge_snapshots("flowers", [view(index=5), second], "failover")) == ["a"]
    none = merge_snapshots("flowers", [view(known=False), view()], "failover")
    assert (none.instances, none.known, none.index) == ((), True, 2)
    # Each change of any part changes the index.
    assert merge_snapshots("flowers", [first, view("a", index=8)], "failover").index == 13


def test_what_is_listed_is_not_withdrawn_elsewhere():
    merged = merge_snapshots(
        "flowers",
        [
            view("a", withdrawn=("b", "c"), failing=(("b", "why"), ("c", "why"))),
            view("b", retained=("b",), rejected=(("x", "bad"),)),
        ],
        "merged",
    )
    assert merged.withdrawn == ("c",)
    assert merged.failing == (("c", "why"),)
    assert merged.retained == ("b",)
    assert merged.rejected == (("x", "bad"),)


def test_lists_of_services_are_united():
    merged = merge_catalogs(
        [
            Catalog(services=("b",), index=3, taken_at=5.0),
            Catalog(services=("a", "b"), index=4, taken_at=6.0),
        ]
    )
    assert (merged.services, merged.index, merged.taken_at) == (("a", "b"), 7, 5.0)
