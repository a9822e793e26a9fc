"""Further ports as the chart and the components for kustomize have them: gRPC, ZeroMQ, xDS."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.conftest import ROOT, Helm, Objects, by_name

pytestmark = pytest.mark.system

GRPC_AND_XDS: dict[str, Any] = {
    "workers": {"cpu": {"grpc": True}, "other": {}},
    "proxy": {"xds": True},
    "networkPolicy": {
        "clients": [{"namespaceSelector": {"matchLabels": {"team": "vision"}}}],
        "monitoring": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    },
}


def containers(objects: Objects, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = objects["Deployment", name]["spec"]["template"]["spec"][
        "containers"
    ]
    return found


def test_they_are_off_by_default(helm: Helm) -> None:
    rendered = helm.render()
    words = ("grpc", "xds", "zmq", "8501", "8502", "12482")
    assert not [each for each in words if each in rendered]


@pytest.mark.parametrize(
    ("deployment", "service", "name", "port", "image"),
    [
        ("worker-cpu", "workers", "grpc", 8501, "fingerpost:onnx"),
        ("worker-cpu", "workers", "zmq", 8502, "fingerpost:onnx"),
        ("proxy", "proxy", "xds", 12482, "fingerpost:xds"),
    ],
    ids=["grpc", "zmq", "xds"],
)
def test_a_further_port_is_served_listed_and_open_to_clients_alone(
    helm: Helm, deployment: str, service: str, name: str, port: int, image: str
) -> None:
    further: dict[str, Any] = {"zmq": {"workers": {"cpu": {"zmq": True}, "other": {}}}}
    objects = helm.objects(GRPC_AND_XDS | further.get(name, {}))
    (container,) = containers(objects, f"fingerpost-{deployment}")
    assert container["image"] == image
    option = container["args"].index(f"--{name}-port")
    assert container["args"][option + 1] == str(port)
    assert {"name": name, "containerPort": port, "protocol": "TCP"} in container["ports"]
    ports = objects["Service", f"fingerpost-{service}"]["spec"]["ports"]
    assert ports[1:] == [{"name": name, "port": port, "targetPort": name, "protocol": "TCP"}]
    policy = objects["NetworkPolicy", f"fingerpost-{deployment.removesuffix('-cpu')}"]
    assert policy["spec"]["ingress"][1:] == [
        {
            "ports": [{"port": port, "protocol": "TCP"}],
            "from": GRPC_AND_XDS["networkPolicy"]["clients"],  # monitoring has no use for it
        }
    ]


def test_a_pool_has_grpc_or_not_whatever_the_default_is(helm: Helm) -> None:
    objects = helm.objects(
        {"workerDefaults": {"grpc": True}, "workers": {"other": {"grpc": False}}}
    )
    for pool, ports in (("cpu", ["http", "grpc"]), ("other", ["http"])):
        (container,) = containers(objects, f"fingerpost-worker-{pool}")
        assert [each["name"] for each in container["ports"]] == ports
        assert ("--grpc-port" in container["args"]) == ("grpc" in ports)


def test_keys_of_zeromq_are_mounted_where_it_is_served(helm: Helm) -> None:
    objects = helm.objects(
        {
            "workers": {"cpu": {"zmq": True, "grpc": True}, "other": {}},
            "zmqKeys": {"secret": "zmq", "clients": "clients.txt"},
        }
    )
    (with_it,) = containers(objects, "fingerpost-worker-cpu")
    (without,) = containers(objects, "fingerpost-worker-other")
    folder = "/etc/fingerpost/zmq-keys"
    keys = ["--zmq-key", f"{folder}/zmq.key", "--zmq-clients", f"{folder}/clients.txt"]
    option = with_it["args"].index("--zmq-key")
    assert with_it["args"][option : option + len(keys)] == keys
    assert {"name": "zmq-keys", "mountPath": folder, "readOnly": True} in with_it["volumeMounts"]
    volumes = objects["Deployment", "fingerpost-worker-cpu"]["spec"]["template"]["spec"]["volumes"]
    secret = {"secretName": "zmq", "defaultMode": 0o440}
    assert {"name": "zmq-keys", "secret": secret} in volumes
    assert [each["name"] for each in with_it["ports"]] == ["http", "grpc", "zmq"]
    assert "zmq" not in str(without)
    policy = objects["NetworkPolicy", "fingerpost-worker"]["spec"]["ingress"]
    assert [each["ports"][0]["port"] for each in policy] == [8500, 8501, 8502]


def test_an_image_that_is_named_stays(helm: Helm) -> None:
    own = {"tag": "own", "repository": "registry.example/proxy"}
    objects = helm.objects({"proxy": {"xds": True, "image": own}})
    (proxy,) = containers(objects, "fingerpost-proxy")
    assert proxy["image"] == "registry.example/proxy:own"


def test_the_components_for_kustomize_do_what_the_values_do(
    helm: Helm, tools: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "deploy"
    subprocess.run(["cp", "-r", ROOT / "deploy" / "kubernetes", copy], check=True)
    kustomization = {
        "resources": ["base"],
        "components": ["components/grpc", "components/xds"],
    }
    (copy / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run(
        [tools / "kubectl", "kustomize", copy], capture_output=True, text=True, check=True
    )
    wanted = helm.objects({"workers": {"cpu": {"grpc": True}}, "proxy": {"xds": True}})
    found = by_name(done.stdout)
    assert found.keys() == wanted.keys()
    for key in (
        *(("NetworkPolicy", f"fingerpost-{each}") for each in ("worker", "proxy")),
        *(("Service", f"fingerpost-{each}") for each in ("workers", "proxy")),
    ):
        for part in ("ports", "ingress"):
            assert found[key]["spec"].get(part) == wanted[key]["spec"].get(part), key
    for name in ("fingerpost-worker-cpu", "fingerpost-proxy"):
        ((ours,), (charts,)) = (containers(each, name) for each in (found, wanted))
        assert (ours["image"], ours["ports"]) == (charts["image"], charts["ports"])
        assert sorted(ours["args"]) == sorted(charts["args"])


def test_front_ends_are_an_option_of_workers(helm: Helm) -> None:
    assert "--front-ends" not in str(helm.objects({}))
    rendered = str(helm.objects({"workers": {"cpu": {"frontEnds": 3}}}))
    assert "'--front-ends', '3'" in rendered
