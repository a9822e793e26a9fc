"""Which instances are healthy."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.support.optional import not_none

from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.kubernetes.codec import Endpoint, LeaseEntry, PodReference, Slice
from fingerpost.registry.kubernetes.rules import pods_of, read_entry

POD = PodReference(name="w-0", uid="u-0")
INSTANCE = Instance(
    id="flowers-1",
    service="flowers",
    host="10.0.0.7",
    ports={"http": 8500},
    models=(ModelInfo(name="flowers", versions=("1",)),),
)
LEASE = LeaseEntry(
    name="fingerpost-flowers-1",
    version="1",
    service="flowers",
    id="flowers-1",
    instance=INSTANCE,
    pod=POD,
)


def entry(*endpoints, lease=LEASE):
    slices = [
        Slice(name=f"s-{number}", version="1", endpoints=(each,))
        for number, each in enumerate(endpoints)
    ]
    return read_entry(lease, pods_of(slices))


def endpoint(*, pod=POD, addresses=("10.0.0.7",), **fields):
    return Endpoint(pod=pod, addresses=addresses, **fields)


@pytest.mark.parametrize(
    ("endpoints", "healthy", "withdrawn", "problem"),
    [
        ([endpoint()], True, False, ""),
        ([endpoint(ready=False)], False, False, "is not ready"),
        ([endpoint(ready=False, terminating=True)], False, True, ""),
        ([endpoint(terminating=True)], False, True, ""),
        ([], False, False, "in no EndpointSlice"),
        # The address of a pod that is gone has a new pod now.
        ([endpoint(pod=PodReference(name="w-0", uid="u-1"))], False, False, "no EndpointSlice"),
        # A move between two slices; two Services; two address families.
        ([endpoint(), endpoint()], True, False, ""),
        ([endpoint(ready=False), endpoint()], True, False, ""),
        ([endpoint(), endpoint(ready=False, terminating=True)], False, True, ""),
        ([endpoint(addresses=("fd00::7",)), endpoint()], True, False, ""),
    ],
    ids=["ready", "not-ready", "terminating", "still-ready", "none", "other-pod", "moved",
         "two-services", "one-terminating", "two-families"],
)  # fmt: skip
def test_the_state_of_its_pod_decides(endpoints, healthy, withdrawn, problem):
    read = entry(*endpoints)
    assert (read.healthy, read.withdrawn) == (healthy, withdrawn)
    assert problem in read.problem
    assert bool(problem) == bool(read.problem)
    assert read.instance == INSTANCE


def test_marks_take_it_off_the_list_for_a_reason():
    drained = replace(LEASE, drained="new disk")
    read = entry(endpoint(), lease=drained)
    assert (read.healthy, read.withdrawn, read.problem) == (False, True, "")
    sick = replace(LEASE, sick=True)
    read = entry(endpoint(), lease=sick)
    assert (read.healthy, read.withdrawn) == (False, True)
    assert "own check" in read.problem


def test_whoever_writes_leases_cannot_send_clients_elsewhere():
    read = entry(endpoint(addresses=("10.0.0.8",)))
    assert read.instance is None
    assert "its address 10.0.0.7 is not one of its pod w-0, which has 10.0.0.8" in read.rejection


def test_ipv6_addresses_are_compared_by_value():
    lease = replace(LEASE, instance=_with(host="fd00:0:0::7"))
    assert entry(endpoint(addresses=("fd00::7",)), lease=lease).healthy


def test_the_zone_of_the_slice_is_taken_where_there_is_none_and_no_signature():
    def zone(instance):
        lease = replace(LEASE, instance=instance)
        return not_none(entry(endpoint(zone="a"), lease=lease).instance).zone

    assert zone(INSTANCE) == "a"
    assert zone(_with(zone="b")) == "b"
    assert zone(_with(signature="x.y")) == ""


def _with(**fields):
    return replace(INSTANCE, **fields)
