"""What the Helm chart renders, and which values it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.conftest import CHART, ROOT, Helm, by_name

pytestmark = pytest.mark.system

# All that the chart can do at once.
EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.example/fingerpost", "pullSecrets": ["registry-example"]},
    "workers": {
        "cpu": None,
        "mig": {
            "image": {"tag": "gpu"},
            "only": ["flowers", "birds"],
            "models": {"image": {"reference": "registry.example/models:3"}},
            "resources": {"limits": {"nvidia.com/mig-1g.10gb": 1, "memory": "8Gi"}},
            "tolerations": [
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
            ],
            "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100"},
            "affinity": {"podAntiAffinity": {}},
            "runtimeClassName": "nvidia",
            "priorityClassName": "serving",
            "rollout": "inPlace",
            "grpc": True,
            "longestRequest": 90,
            "extraArgs": ["--max-batch", "64"],
            "extraEnv": [{"name": "A", "value": "b"}],
            "autoscaling": {
                "kind": "keda",
                "minReplicas": 0,
                "maxReplicas": 3,
                "authentication": "proxies",
                "insecureSkipVerify": True,
            },
        },
        "init": {
            "only": ["cats"],
            "models": {"initImage": {"reference": "registry.example/m:1", "sizeLimit": "1Gi"}},
            "autoscaling": {"kind": "hpa"},
        },
        "cache": {"only": ["dogs"], "models": {"hostPath": "/srv/models"}, "replicas": 3},
    },
    "proxy": {
        "xds": True,
        "holdForStart": 120,
        "relay": True,
        "service": "flowers",
        "extraArgs": ["--lease-bind"],
    },
    "registries": ["kubernetes://", "consul://consul:8500"],
    "registryToken": {"secret": "consul-token"},
    "registryCa": {"secret": "consul-ca"},
    "tls": {
        "enabled": True,
        "mutual": True,
        "trustDomain": "example.org",
        "certManager": {"enabled": True, "issuer": "vision"},
    },
    "leases": {"secret": "lease-key", "require": True},
    "callers": {"secret": "callers"},
    "registrationKey": {"secret": "registration-key"},
    "registrationKeys": {"secret": "registration-keys"},
    "modelKeys": {"secret": "model-keys"},
    "serviceMonitor": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "clientSecret": "monitoring-tls",
    },
    "networkPolicy": {
        "clients": [{"namespaceSelector": {"matchLabels": {"team": "vision"}}}],
        "monitoring": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    },
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
}


def pod(objects: dict[Any, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = objects["Deployment", name]["spec"]["template"]["spec"]
    return found


def test_helm_finds_nothing_to_say(helm: Helm, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    workers = EVERYTHING["workers"] | {"cpu": {"only": ["ships"]}}  # `lint` keeps a null as {}
    values.write_text(yaml.safe_dump(EVERYTHING | {"workers": workers}))
    for options in ([], ["-f", values]):
        done = helm("lint", "--strict", CHART, *options)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_what_is_rendered_is_valid_by_the_schemas_of_kubernetes(
    helm: Helm, tools: Path, values: dict[str, Any]
) -> None:
    done = subprocess.run(
        [tools / "kubernetes-validate", "-k", "1.37", "--strict", "-"],
        input=helm.render(values),
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    ours = [line for line in said.splitlines() if not line.startswith("INFO - passed")]
    # The schemas are those of Kubernetes itself; these kinds are of its operators.
    for line in ours:
        assert any(each in line for each in ("cert-manager.io", "keda.sh", "monitoring.coreos.com"))


def test_the_base_for_kustomize_is_the_chart_as_it_is_by_default(
    helm: Helm, tools: Path, tmp_path: Path
) -> None:
    base = ROOT / "deploy" / "kubernetes" / "base"
    copy = tmp_path / "kubernetes"
    subprocess.run(["cp", "-r", base.parent, copy], check=True)
    subprocess.run([copy / "render-base", helm.program], check=True)
    assert (copy / "base" / "fingerpost.yaml").read_text() == (base / "fingerpost.yaml").read_text()
    kubectl = subprocess.run(
        [tools / "kubectl", "kustomize", base], capture_output=True, text=True, check=True
    )
    chart = helm.objects()
    kustomized = by_name(kubectl.stdout)
    assert kustomized.keys() == chart.keys()
    namespaces = {each["metadata"]["namespace"] for each in kustomized.values()}
    assert namespaces == {"fingerpost"}


def test_rights_are_those_of_the_manifest_that_explains_them(helm: Helm) -> None:
    explained = by_name((ROOT / "deploy" / "kubernetes" / "rbac.yaml").read_text())
    rendered = helm.objects()
    for (kind, name), each in explained.items():
        if kind == "Role":
            assert rendered[kind, name]["rules"] == each["rules"]
        if kind == "RoleBinding":
            assert rendered[kind, name]["roleRef"] == each["roleRef"]
    assert all((kind, name) in rendered for kind, name in explained)


def test_without_kubernetes_as_registry_pods_get_no_rights(helm: Helm) -> None:
    objects = helm.objects({"registries": ["consul://consul:8500"]})
    assert not [name for kind, name in objects if kind in {"Role", "RoleBinding"}]
    for name in ("fingerpost-proxy", "fingerpost-worker-cpu"):
        assert pod(objects, name)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_pods_keep_the_level_restricted_and_are_bounded(helm: Helm, values: dict[str, Any]) -> None:
    """kubernetes.io/docs/concepts/security/pod-security-standards, all of its rows."""
    for (kind, name), each in helm.objects(values).items():
        if kind != "Deployment":
            continue
        spec = each["spec"]["template"]["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        allowed = {"emptyDir", "persistentVolumeClaim", "secret", "image"}
        if name.endswith("-cache"):
            allowed.add("hostPath")  # the values say that it needs another level
        for volume in spec["volumes"]:
            assert volume.keys() - {"name"} <= allowed, name
            assert volume.get("emptyDir", {"sizeLimit": ""}).keys() == {"sizeLimit"}
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert not any("hostPort" in port for port in container.get("ports", ()))
            assert container["resources"]["limits"]["memory"]


def test_bounds_of_what_a_pod_writes_and_of_what_copies_its_models(helm: Helm) -> None:
    resources = {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}
    source = {"reference": "registry.example/m:1", "sizeLimit": "40Gi", "resources": resources}
    own = {"tmpSizeLimit": "3Gi", "models": {"initImage": source}}
    spec = pod(helm.objects({"workers": {"cpu": own}}), "fingerpost-worker-cpu")
    assert spec["initContainers"][0]["resources"] == resources
    volumes = {each["name"]: each["emptyDir"] for each in spec["volumes"]}
    assert volumes == {"tmp": {"sizeLimit": "3Gi"}, "models": {"sizeLimit": "40Gi"}}


def test_a_pod_may_live_for_lease_and_longest_request(helm: Helm) -> None:
    objects = helm.objects({"lease": 2.5, "workers": {"cpu": {"longestRequest": 60}}})
    assert pod(objects, "fingerpost-worker-cpu")["terminationGracePeriodSeconds"] == 3 + 60 + 15
    own = {"terminationGracePeriodSeconds": 40}
    objects = helm.objects({"workers": {"cpu": own}})
    assert pod(objects, "fingerpost-worker-cpu")["terminationGracePeriodSeconds"] == 40


def test_a_pool_of_gpus(helm: Helm) -> None:
    objects = helm.objects(EVERYTHING)
    spec = pod(objects, "fingerpost-worker-mig")
    (worker,) = spec["containers"]
    assert worker["image"] == "registry.example/fingerpost:gpu"
    assert worker["resources"] == {"limits": {"nvidia.com/mig-1g.10gb": 1, "memory": "8Gi"}}
    assert (spec["runtimeClassName"], spec["priorityClassName"]) == ("nvidia", "serving")
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert spec["terminationGracePeriodSeconds"] == 2 + 90 + 15
    assert worker["args"][-2:] == ["--max-batch", "64"]
    assert {
        "name": "models",
        "image": {"reference": "registry.example/models:3", "pullPolicy": "IfNotPresent"},
    } in spec["volumes"]
    deployment = objects["Deployment", "fingerpost-worker-mig"]["spec"]
    assert "replicas" not in deployment  # KEDA's
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert objects["Deployment", "fingerpost-worker-cache"]["spec"]["replicas"] == 3
    (init,) = pod(objects, "fingerpost-worker-init")["initContainers"]
    assert init["command"] == ["cp", "-r", "/models/.", "/fingerpost-models/"]


def test_a_source_of_models_replaces_the_default_as_a_whole(helm: Helm) -> None:
    source = {"initImage": {"reference": "registry.example/models:1"}}
    objects = helm.objects({"workers": {"cpu": {"models": source}, "more": {}}})
    (volume,) = (
        each
        for each in pod(objects, "fingerpost-worker-cpu")["volumes"]
        if each["name"] == "models"
    )
    assert volume == {"name": "models", "emptyDir": {"sizeLimit": "10Gi"}}
    claim = {"claimName": "fingerpost-models", "readOnly": True}
    volumes = pod(objects, "fingerpost-worker-more")["volumes"]
    assert {"name": "models", "persistentVolumeClaim": claim} in volumes


def test_all_that_security_needs_is_mounted_and_named(helm: Helm) -> None:
    objects = helm.objects(EVERYTHING)
    for name, options in {
        "fingerpost-worker-mig": (
            *("--tls-cert", "--tls-key", "--tls-client-ca", "--registry-token-file"),
            *("--registry-ca-file", "--registration-key", "--require-signature"),
        ),
        "fingerpost-proxy": (
            *("--tls-cert", "--tls-key", "--tls-client-ca", "--tls-ca", "--registry-token-file"),
            *("--registry-ca-file", "--lease-key", "--callers", "--registration-keys"),
        ),
    }.items():
        spec = pod(objects, name)
        (container,) = spec["containers"]
        mounts = {each["mountPath"] for each in container["volumeMounts"]}
        for option in options:
            path = Path(container["args"][container["args"].index(option) + 1])
            assert str(path.parent) in mounts, option
        volumes = {each["name"]: each for each in spec["volumes"]}
        for each in container["volumeMounts"]:
            if each["mountPath"].startswith("/etc/fingerpost/"):
                assert volumes[each["name"]]["secret"]["defaultMode"] == 0o440
        assert "--insecure" not in container["args"]
        # The kubelet has no client certificate.
        assert "exec" in container["readinessProbe"]
    assert "--require-lease" in pod(objects, "fingerpost-worker-mig")["containers"][0]["args"]
    certificate = objects["Certificate", "fingerpost-worker-mig"]["spec"]
    assert certificate["uris"] == [
        "spiffe://example.org/fingerpost/worker/flowers",
        "spiffe://example.org/fingerpost/worker/birds",
    ]
    assert certificate["secretName"] == "fingerpost-worker-mig-tls"
    only_tls = helm.objects({"tls": {"enabled": True}})
    probe = pod(only_tls, "fingerpost-proxy")["containers"][0]["readinessProbe"]["httpGet"]
    assert probe == {"path": "/health/ready", "port": "http", "scheme": "HTTPS"}


def test_autoscaling(helm: Helm) -> None:
    objects = helm.objects(EVERYTHING)
    scaled = objects["ScaledObject", "fingerpost-worker-mig"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (0, 3)
    assert [each["metadata"]["url"].rpartition("/")[2] for each in scaled["triggers"]] == [
        "flowers",
        "birds",
    ]
    first = scaled["triggers"][0]
    assert first["metadata"]["url"] == "https://fingerpost-proxy.vision.svc:12480/v1/load/flowers"
    assert first["metadata"]["valueLocation"] == "demand"
    assert all(isinstance(each, str) for each in first["metadata"].values())
    assert first["authenticationRef"] == {"name": "proxies"}
    assert first["metadata"]["authModes"] == "tls"
    assert first["metadata"]["unsafeSsl"] == first["metadata"]["aggregateFromKubeServiceEndpoints"]
    assert ("TriggerAuthentication", "fingerpost-worker-mig") not in objects
    proxy = pod(objects, "fingerpost-proxy")["containers"][0]["args"]
    assert proxy[proxy.index("--hold-for-start") + 1] == "120"
    assert proxy[proxy.index("--expect") + 1] == "birds,cats,dogs,flowers"
    hpa = objects["HorizontalPodAutoscaler", "fingerpost-worker-init"]["spec"]
    assert hpa["metrics"][0]["pods"]["metric"] == {"name": "fingerpost_worker_in_flight_requests"}


@pytest.mark.parametrize("issued", [False, True], ids=["Secrets", "cert-manager"])
def test_who_asks_the_proxies_for_figures_verifies_them(helm: Helm, issued: bool) -> None:
    """By the name of the Service, as certificates have no addresses of pods."""
    scaled = {"only": ["flowers"], "autoscaling": {"kind": "keda"}}
    issuer = {"enabled": issued, "issuer": "vision" if issued else ""}
    tls = {"enabled": True, "trustDomain": "example.org", "certManager": issuer}
    values = {"workers": {"cpu": scaled}, "tls": tls, "serviceMonitor": {"enabled": True}}
    secret = "fingerpost-proxy-tls" if issued else "fingerpost-proxies-tls"
    objects = helm.objects(values)
    (trigger,) = objects["ScaledObject", "fingerpost-worker-cpu"]["spec"]["triggers"]
    assert trigger["authenticationRef"] == {"name": "fingerpost-worker-cpu"}
    assert trigger["metadata"] == {
        "url": "https://fingerpost-proxy.vision.svc:12480/v1/load/flowers",
        "authModes": "tls",
        "valueLocation": "demand",
        "targetValue": "8",
        "activationTargetValue": "0",
    }
    taken = objects["TriggerAuthentication", "fingerpost-worker-cpu"]["spec"]["secretTargetRef"]
    assert taken == [
        {"parameter": "ca", "name": secret, "key": "ca.crt"},
        {"parameter": "cert", "name": secret, "key": "tls.crt"},
        {"parameter": "key", "name": secret, "key": "tls.key"},
    ]
    for component, service in {"proxy": "proxy", "worker": "workers"}.items():
        (end,) = objects["ServiceMonitor", f"fingerpost-{component}"]["spec"]["endpoints"]
        assert end["tlsConfig"] == {
            "ca": {"secret": {"name": secret, "key": "ca.crt"}},
            "serverName": f"fingerpost-{service}.vision.svc",
        }
        if issued:
            pool = "worker-cpu" if component == "worker" else "proxy"
            certificate = objects["Certificate", f"fingerpost-{pool}"]["spec"]
            assert end["tlsConfig"]["serverName"] in certificate["dnsNames"]
    # Unverified only where a value says so.
    unsafe = helm.objects(
        values | {"serviceMonitor": {"enabled": True, "insecureSkipVerify": True}}
    )
    (end,) = unsafe["ServiceMonitor", "fingerpost-proxy"]["spec"]["endpoints"]
    assert end["tlsConfig"]["insecureSkipVerify"] is True
    assert "serverName" not in end["tlsConfig"]
    # A CA that is in no Secret, and a certificate of KEDA's own.
    scaled["autoscaling"] = {"kind": "keda", "clientSecret": "keda-tls"}
    monitor = {"enabled": True, "ca": {"configMap": "roots"}}
    objects = helm.objects(values | {"serviceMonitor": monitor})
    taken = objects["TriggerAuthentication", "fingerpost-worker-cpu"]["spec"]["secretTargetRef"]
    assert {each["name"] for each in taken} == {"keda-tls"}
    (end,) = objects["ServiceMonitor", "fingerpost-worker"]["spec"]["endpoints"]
    assert end["tlsConfig"]["ca"] == {"configMap": {"name": "roots", "key": "ca.crt"}}


def test_without_tls_keda_asks_each_proxy(helm: Helm) -> None:
    scaled = {"only": ["flowers"], "autoscaling": {"kind": "keda", "authentication": "key"}}
    objects = helm.objects({"workers": {"cpu": scaled}, "callers": {"secret": "callers"}})
    (trigger,) = objects["ScaledObject", "fingerpost-worker-cpu"]["spec"]["triggers"]
    assert trigger["metadata"]["url"].startswith("http://")
    assert trigger["metadata"]["aggregateFromKubeServiceEndpoints"] == "true"
    assert trigger["metadata"]["authModes"] == "bearer"
    assert "unsafeSsl" not in trigger["metadata"]


def test_who_may_connect(helm: Helm) -> None:
    objects = helm.objects(EVERYTHING)
    for component, port in (("worker", 8500), ("proxy", 12480)):
        rule, *_ = objects["NetworkPolicy", f"fingerpost-{component}"]["spec"]["ingress"]
        assert rule["ports"] == [{"port": port, "protocol": "TCP"}]
        assert len(rule["from"]) == 3  # clients, monitoring, and the release's own pods
    assert not [
        name
        for kind, name in helm.objects({"networkPolicy": {"enabled": False}})
        if kind == "NetworkPolicy"
    ]


def test_services_have_the_labels_that_monitoring_selects(helm: Helm) -> None:
    objects = helm.objects(EVERYTHING)
    shipped = (ROOT / "deploy" / "monitoring" / "servicemonitor.yaml").read_text()
    for (_, name), monitor in by_name(shipped).items():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        service = {
            "fingerpost-workers": "fingerpost-workers",
            "fingerpost-proxies": "fingerpost-proxy",
        }
        found = objects["Service", service[name]]
        assert wanted <= found["metadata"]["labels"].items()
        assert found["spec"]["ports"][0]["name"] == "http"
    for component in ("worker", "proxy"):
        monitor = objects["ServiceMonitor", f"fingerpost-{component}"]
        (end,) = monitor["spec"]["endpoints"]
        assert end["tlsConfig"]["keySecret"] == {"name": "monitoring-tls", "key": "tls.key"}
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        name = "fingerpost-workers" if component == "worker" else "fingerpost-proxy"
        assert wanted <= objects["Service", name]["metadata"]["labels"].items()


def test_on_an_old_cluster_the_old_api_is_used(helm: Helm) -> None:
    old = helm("template", "f", CHART, "--kube-version", "1.20.0")
    assert old.returncode == 0, old.stderr
    assert (
        helm.objects(EVERYTHING)["HorizontalPodAutoscaler", "fingerpost-worker-init"]["apiVersion"]
        == "autoscaling/v2"
    )
