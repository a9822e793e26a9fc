"""The pure parts: URLs, and what stands in the tree."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from fingerpost.errors import ConfigurationError, InvalidInstance
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.engine_check import HttpCheckConfig
from fingerpost.registry.zookeeper.codec import (
    Node,
    decode_instance,
    encode_instance,
    sort_children,
)
from fingerpost.registry.zookeeper.registry import ZooKeeperRegistry
from fingerpost.registry.zookeeper.url import ZooKeeperAddress

INSTANCE = Instance(
    id="a-1",
    service="flowers",
    host="10.0.0.1",
    ports={"http": 80},
    models=(ModelInfo(name="flowers", versions=("1",)),),
)


@pytest.mark.parametrize(
    ("url", "hosts", "root"),
    [
        ("zookeeper://a", ("a:2181",), "/fingerpost"),
        ("zookeeper://a/", ("a:2181",), "/fingerpost"),
        ("ZooKeeper://a:1,b.example:2/x/y.z", ("a:1", "b.example:2"), "/x/y.z"),
        ("zookeeper://[::1],[fe80::1]:1/x/", ("[::1]:2181", "[fe80::1]:1"), "/x"),
        ("zookeeper://me:p%40ss@a:1", ("a:1",), "/fingerpost"),
    ],
)
def test_a_url(url, hosts, root):
    address = ZooKeeperAddress.parse(url)
    assert (address.hosts, address.root) == (hosts, root)
    assert address.auth == ("me:p@ss" if "@" in url else None)
    assert address.url == f"zookeeper://{','.join(hosts)}{root}"
    assert ZooKeeperRegistry(url).url == address.url
    assert ZooKeeperAddress.parse(url, auth="you:s3cret").auth == "you:s3cret"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "zookeeper:a",
        "zookeeper://",
        "zookeeper:///x",
        "zookeeper://a,",
        "zookeeper://a:0",
        "zookeeper://a:70000",
        "zookeeper://a:x",
        "zookeeper://::1",
        "zookeeper://a b",
        "zookeeper://a/../b",
        "zookeeper://a/b//c",
        "zookeeper://a/zookeeper",
        "zookeeper://a/b?c",
        "zookeeper://a/b#c",
        "consul://a",
        "zookeeper://me@a",
        "zookeeper://me:s3cret@a:x",
        "zookeeper://me:s3cret@a/..",
    ],
)
def test_a_url_that_makes_no_sense(url):
    with pytest.raises(ConfigurationError) as caught:
        ZooKeeperAddress.parse(url)
    assert "s3cret" not in str(caught.value)
    assert "registry URL" in str(caught.value)


@pytest.mark.parametrize("name", ["session_timeout_s", "call_timeout_s", "keep_alive_s"])
def test_a_duration_that_makes_no_sense(name):
    wrong: dict[str, Any] = {name: 0}
    with pytest.raises(ConfigurationError, match=f"{name}=0"):
        ZooKeeperRegistry("zookeeper://a", **wrong)


@pytest.mark.parametrize("fields", [{"path": "x"}, {"interval_s": 0}, {"timeout_s": -1}])
def test_a_check_that_makes_no_sense(fields):
    with pytest.raises(ConfigurationError):
        HttpCheckConfig(**fields)


def test_without_kazoo_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "kazoo"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kazoo", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fingerpost\[zookeeper\]'"):
        ZooKeeperRegistry("zookeeper://a")


@pytest.mark.shell
def test_kazoo_is_imported_only_when_it_is_needed():
    code = (
        "import sys, fingerpost.registry.zookeeper.registry; "
        "print(sorted({'aiohttp', 'kazoo'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_children_are_told_apart():
    markers = ["a:drain", "b:sick", "d:drain", "e:sick"]
    children = sort_children(["b", "a", "c", *markers, "x:drain:sick", "no!", "..:sick"])
    assert children.ids == ("a", "b", "c")
    assert children.hidden == {"a", "b"}
    assert children.orphans == ("d",)
    assert children.foreign == ("..:sick", "no!", "x:drain:sick")
    assert children.known


@pytest.mark.parametrize("names", [[], ["d:drain"], ["d:sick", "d:drain"]])
def test_a_service_of_which_only_markers_are_left_is_not_known(names):
    assert not sort_children(names).known


def test_the_round_trip():
    assert decode_instance("a-1", "flowers", Node(encode_instance(INSTANCE), 7)) == INSTANCE


@pytest.mark.parametrize(
    ("entry_id", "service", "owner", "why"),
    [
        ("a-2", "flowers", 7, "instance 'a-1'"),
        ("a-1", "digits", 7, "service 'flowers'"),
        ("a-1", "flowers", 0, "not ephemeral"),
    ],
)
def test_content_in_the_wrong_place(entry_id, service, owner, why):
    assert why in decode_instance(entry_id, service, Node(encode_instance(INSTANCE), owner))


def test_an_instance_that_does_not_fit():
    large = Instance(
        id="a-1",
        service="flowers",
        host="10.0.0.1",
        ports={"http": 80},
        models=INSTANCE.models,
        meta={"note": "x" * 300_000},
    )
    with pytest.raises(InvalidInstance, match="a-1: 3"):
        encode_instance(large)
