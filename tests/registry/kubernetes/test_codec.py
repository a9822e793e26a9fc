"""What Leases and EndpointSlices say, and what is refused in them."""

from __future__ import annotations

import json

import pytest

from fingerpost.errors import InvalidInstance, RegistryError
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.kubernetes.codec import (
    Endpoint,
    PodReference,
    address_label,
    decode_lease,
    decode_slice,
    drain_patch,
    encode_lease,
    lease_name,
)

POD = PodReference(name="w-0", uid="u-0")


def instance(**fields):
    given = {
        "id": "flowers-10.0.0.7-8500-a1",
        "service": "flowers",
        "host": "10.0.0.7",
        "ports": {"http": 8500},
        "models": (ModelInfo(name="flowers", versions=("1",)),),
    }
    return Instance(**given | fields)


def lease(**fields):
    body = encode_lease(instance(), POD)
    body["metadata"] |= {"resourceVersion": "7"} | fields
    return json.dumps(body).encode()


def test_a_lease_is_read_as_it_was_written():
    wanted = instance(
        boot_id=2**53 - 1, zone="a", weight=3, meta={"device": "gpu:0"}, signature="x.y"
    )
    body = encode_lease(wanted, POD, sick=True)
    body["metadata"]["resourceVersion"] = "9"
    body["metadata"]["annotations"] |= drain_patch("new disk")["metadata"]["annotations"]
    read = decode_lease(json.dumps(body).encode())
    assert read.instance == wanted
    assert (read.version, read.pod, read.sick, read.drained) == ("9", POD, True, "new disk")
    assert body["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "fingerpost",
        "fingerpost/service": "flowers",
        "fingerpost/address": "10.0.0.7-8500",
    }


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"ownerReferences": None}, "no pod owns its Lease"),
        (
            {"ownerReferences": [{"kind": "Node", "name": "n", "uid": "u"}]},
            "no pod owns its Lease",
        ),
        ({"name": "fingerpost-another"}, "is not that of"),
        ({"labels": {"fingerpost/service": "cats"}}, "its label names the service 'cats'"),
        ({"annotations": None}, ""),
        ({"annotations": {"fingerpost/instance": "[" * 100_000}}, ""),
    ],
    ids=["no-owner", "other-owner", "name", "service", "empty", "deep"],
)
def test_a_lease_that_is_wrong_is_rejected_with_the_reason(fields, why):
    read = decode_lease(lease(**fields))
    assert read.instance is None
    assert read.rejection
    assert why in read.rejection


def test_what_is_not_an_object_is_an_error():
    for body in (b"[]", b"{}", b"\xff", b"<html>"):
        with pytest.raises(RegistryError):
            decode_lease(body)
        with pytest.raises(RegistryError):
            decode_slice(body)


def test_an_instance_that_is_too_large_is_refused():
    with pytest.raises(InvalidInstance, match="exceed"):
        encode_lease(instance(meta={"note": "x" * 300_000}), POD)


def test_names_and_labels_are_valid_ones_of_kubernetes():
    assert lease_name("flowers-10.0.0.7-8500-a1") == "fingerpost-flowers-10.0.0.7-8500-a1"
    names = [lease_name(each) for each in ("Flowers_1", "flowers_1", "a.-b", "x" * 128)]
    assert len(set(names)) == 4
    assert all(len(each) <= 139 and each == each.lower() and "_" not in each for each in names)
    assert address_label("10.0.0.7", 8500) == "10.0.0.7-8500"
    assert address_label("fd00::7", 8500) == "fd00--7-8500"
    assert len(address_label("x" * 80 + ".example", 8500)) == 40


def slice_of(**fields):
    target = {"kind": "Pod", "name": "w-0", "uid": "u-0"}
    given = {"addresses": ["10.0.0.7"], "targetRef": target} | fields
    return json.dumps({"metadata": {"name": "s", "resourceVersion": "3"}, "endpoints": [given]})


@pytest.mark.parametrize(
    ("conditions", "ready", "terminating"),
    [
        (None, True, False),
        ({}, True, False),
        ({"ready": None, "serving": None, "terminating": None}, True, False),
        ({"ready": True, "serving": True, "terminating": False}, True, False),
        ({"ready": False, "serving": False, "terminating": False}, False, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True),
        ({"ready": False, "serving": False, "terminating": True}, False, True),
        # A Service with publishNotReadyAddresses.
        ({"ready": True, "serving": False, "terminating": False}, False, False),
    ],
    ids=str,
)
def test_the_conditions_of_an_endpoint(conditions, ready, terminating):
    read = decode_slice(slice_of(conditions=conditions).encode())
    assert read.endpoints == (
        Endpoint(pod=POD, addresses=("10.0.0.7",), ready=ready, terminating=terminating),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"zone": "a"},
        {"topology": {"topology.kubernetes.io/zone": "a"}},  # v1beta1
        {"deprecatedTopology": {"topology.kubernetes.io/zone": "a"}},
    ],
    ids=["v1", "v1beta1", "deprecated"],
)
def test_the_zone_of_an_endpoint(fields):
    assert decode_slice(slice_of(**fields).encode()).endpoints[0].zone == "a"


def test_endpoints_that_are_not_pods_are_left_out():
    for target in (None, {"kind": "Node", "name": "n", "uid": "u"}, {"kind": "Pod", "name": "w"}):
        assert decode_slice(slice_of(targetRef=target).encode()).endpoints == ()
    assert decode_slice(b'{"metadata": {"name": "s"}, "endpoints": null}').endpoints == ()
