"""Which watches a change wakes, and what they read then."""

from __future__ import annotations

from msgspec.structs import replace
from tests.registry.kubernetes.test_rules import INSTANCE, LEASE, POD

from fingerpost.registry.kubernetes.codec import Endpoint, LeaseEntry, PodReference, Slice
from fingerpost.registry.kubernetes.state import NamespaceState

READY = Endpoint(pod=POD, addresses=("10.0.0.7",))


def slice_of(*endpoints, name="s-1"):
    return Slice(name=name, version="1", endpoints=endpoints)


def lease_of(service, number=1):
    instance_id = f"{service}-{number}"
    return LeaseEntry(
        name=f"fingerpost-{instance_id}",
        version="1",
        service=service,
        id=instance_id,
        instance=replace(INSTANCE, id=instance_id, service=service),
        pod=POD,
    )


def healthy(state, service="flowers"):
    return [each.id for each in state.entries(service) if each.healthy]


class Woken:
    """The signals of a state that have been set since the last look."""

    def __init__(self, state, *services):
        self._signals = {each: state.signal(each) for each in services}

    def look(self):
        found = {each for each, signal in self._signals.items() if signal.is_set()}
        for each in self._signals.values():
            each.clear()
        return found


def test_a_change_wakes_those_that_it_concerns():
    state = NamespaceState()
    woken = Woken(state, "", "flowers", "cats")
    flowers, cats = lease_of("flowers"), lease_of("cats")
    state.lease_changed(None, flowers)
    assert woken.look() == {"", "flowers"}
    state.slice_changed(None, slice_of(READY))
    assert woken.look() == {"flowers"}
    assert healthy(state) == ["flowers-1"]
    state.lease_changed(None, cats)
    assert woken.look() == {"", "cats"}
    assert state.services == ("cats", "flowers")
    other = Endpoint(pod=PodReference(name="x", uid="u-9"), addresses=("10.0.0.9",))
    state.slice_changed(slice_of(READY), slice_of(READY, other))
    assert woken.look() == set(), "of a pod that nobody registered"
    unready = replace(READY, ready=False)
    state.slice_changed(slice_of(READY, other), slice_of(unready))
    assert woken.look() == {"flowers", "cats"}
    assert healthy(state) == []
    state.lease_changed(cats, None)
    assert woken.look() == {"", "cats"}
    state.lease_changed(None, None)
    assert woken.look() == {"", "flowers", "cats"}


def test_a_pod_that_moves_between_slices_never_leaves():
    state = NamespaceState()
    state.lease_changed(None, LEASE)
    state.slice_changed(None, slice_of(READY))
    state.slice_changed(None, slice_of(READY, name="s-2"))
    state.slice_changed(slice_of(READY), None)
    assert healthy(state) == ["flowers-1"]
    state.slice_changed(slice_of(READY, name="s-2"), None)
    assert healthy(state) == []
    assert state.entries("flowers"), "it is known all the same"


def test_a_lease_of_another_service_or_pod_leaves_nothing_behind():
    state = NamespaceState()
    state.slice_changed(None, slice_of(READY))
    state.lease_changed(None, LEASE)
    moved = replace(lease_of("cats"), name=LEASE.name)
    state.lease_changed(LEASE, moved)
    assert state.services == ("cats",)
    assert healthy(state, "cats") == ["cats-1"]
    elsewhere = replace(moved, pod=PodReference(name="x", uid="u-9"))
    state.lease_changed(moved, elsewhere)
    state.slice_changed(slice_of(READY), slice_of(replace(READY, ready=False)))
    assert healthy(state, "cats") == []
    state.lease_changed(elsewhere, None)
    assert state.services == ()
    assert vars(state)["_by_pod"] == {}
    assert vars(state)["_leases"] == {}


def test_an_unchanged_entry_stays_the_same_object():
    state = NamespaceState()
    state.lease_changed(None, LEASE)
    state.slice_changed(None, slice_of(replace(READY, zone="a")))
    [before] = state.entries("flowers")
    state.slice_changed(
        slice_of(replace(READY, zone="a")), slice_of(replace(READY, zone="a"), name="s-1")
    )
    [after] = state.entries("flowers")
    assert before.instance is after.instance
    assert before.instance is not None
    assert before.instance.zone == "a"
