"""Which values the Helm chart refuses; each message names its key."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kubernetes.conftest import Helm

pytestmark = pytest.mark.system


def cpu(**values: Any) -> dict[str, Any]:
    return {"workers": {"cpu": values}}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a key that does not exist": ({"worker": {}}, "'worker' not allowed"),
    "of a pool": (cpu(replica=2), "/workers/cpu.*'replica' not allowed"),
    "of the proxy": ({"proxy": {"hold": 3}}, "/proxy.*'hold' not allowed"),
    "a number as text": (cpu(replicas="2"), "/workers/cpu/replicas.*got string, want integer"),
    "negative": (cpu(replicas=-1), "/workers/cpu/replicas.*minimum"),
    "a name of a pool": ({"workers": {"CPU_1": {}}}, "/workers.*'CPU_1' not allowed"),
    "a registry": ({"registries": ["consul:8500"]}, "/registries/0"),
    "a password of a registry": ({"registries": ["consul://u:p@a:8500"]}, "/registries/0"),
    "a secret among the arguments": (
        cpu(extraArgs=["--registry-token", "sekrit"]),
        "/workers/cpu/extraArgs/0",
    ),
    "a secret among the proxy's": (
        {"proxy": {"extraArgs": ["--registry-token=sekrit"]}},
        "/proxy/extraArgs/0",
    ),
    "no registry": ({"registries": []}, "/registries.*minItems"),
    "a GPU": (
        cpu(resources={"limits": {"nvidia.com/gpu": "one"}}),
        "nvidia.com~1gpu.*'one' does not match",
    ),
    "a folder without a bound": (cpu(tmpSizeLimit=""), "/workers/cpu/tmpSizeLimit"),
    "a folder of a proxy": ({"proxy": {"tmpSizeLimit": "some"}}, "/proxy/tmpSizeLimit"),
    "more asked for a copy than it may have": (
        cpu(
            models={
                "initImage": {
                    "reference": "registry.example/m:1",
                    "resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}},
                }
            }
        ),
        r"workers\.cpu\.models\.initImage\.resources\.requests\.memory is 2Gi",
    ),
    "a toleration": (cpu(tolerations=[{"effect": "Never"}]), "/workers/cpu/tolerations/0/effect"),
    "a model": (cpu(only=["../x"]), "/workers/cpu/only/0"),
    "two sources": (
        {"workers": {"cpu": {"models": {"hostPath": "/a", "inImage": "/b"}}}},
        "/workers/cpu/models.*maxProperties",
    ),
    "no source": (
        {"workerDefaults": {"models": {"persistentVolumeClaim": None}}},
        r"workers\.cpu\.models has 0 sources",
    ),
    "a grace that is too short": (
        cpu(terminationGracePeriodSeconds=31),
        r"workers\.cpu\.terminationGracePeriodSeconds is 31: give 32 or more",
    ),
    "a hold that is too long": ({"proxy": {"holdForStart": 601}}, "/proxy/holdForStart.*maximum"),
    "a hold of nothing": ({"proxy": {"holdForStart": 9}}, r"workers\.NAME\.only lists"),
    "scaling without a name": (
        cpu(autoscaling={"kind": "keda"}),
        r"workers\.cpu\.only is empty.*workers\.cpu\.autoscaling",
    ),
    "zero without a hold": (
        cpu(only=["a"], autoscaling={"kind": "keda", "minReplicas": 0}),
        r"workers\.cpu\.autoscaling\.minReplicas is 0, and proxy\.holdForStart is 0",
    ),
    "zero by HPA": (
        cpu(only=["a"], autoscaling={"kind": "hpa", "minReplicas": 0}),
        r"workers\.cpu\.autoscaling\.minReplicas is 0, which kind hpa cannot do",
    ),
    "most below least": (
        cpu(only=["a"], autoscaling={"kind": "hpa", "minReplicas": 5}),
        r"workers\.cpu\.autoscaling\.maxReplicas is 4",
    ),
    "callers that KEDA is not of": (
        cpu(only=["a"], autoscaling={"kind": "keda"}) | {"callers": {"secret": "callers"}},
        r"workers\.cpu\.autoscaling\.authentication is empty",
    ),
    "mutual TLS that KEDA is not of": (
        cpu(only=["a"], autoscaling={"kind": "keda"}) | {"tls": {"enabled": True, "mutual": True}},
        r"workers\.cpu\.autoscaling\.clientSecret",
    ),
    "two ways to be authenticated": (
        cpu(
            only=["a"],
            autoscaling={"kind": "keda", "authentication": "a", "clientSecret": "b"},
        )
        | {"tls": {"enabled": True}},
        r"workers\.cpu\.autoscaling\.authentication and .*clientSecret are both set",
    ),
    "unverified without TLS": (
        cpu(only=["a"], autoscaling={"kind": "keda", "insecureSkipVerify": True}),
        r"workers\.cpu\.autoscaling\.insecureSkipVerify has an effect only with tls\.enabled",
    ),
    "a way to be authenticated by nothing": (
        cpu(only=["a"], autoscaling={"kind": "keda", "authModes": "bearer"}),
        r"workers\.cpu\.autoscaling\.authModes has an effect only with",
    ),
    "a way to be authenticated": (
        cpu(autoscaling={"authModes": "kerberos"}),
        "/workers/cpu/autoscaling/authModes",
    ),
    "zero with proxies that cannot all be verified": (
        cpu(only=["a"], autoscaling={"kind": "keda", "minReplicas": 0})
        | {"tls": {"enabled": True}, "proxy": {"holdForStart": 60}},
        r"workers\.cpu\.autoscaling\.minReplicas is 0 with tls\.enabled and 2 proxies",
    ),
    "certificates without an issuer": (
        cpu(only=["a"]) | {"tls": {"enabled": True, "certManager": {"enabled": True}}},
        r"tls\.certManager\.issuer is empty",
    ),
    "certificates without TLS": (
        cpu(only=["a"]) | {"tls": {"certManager": {"enabled": True}}},
        r"tls\.certManager\.enabled has an effect only with tls\.enabled",
    ),
    "mutual TLS without TLS": (
        {"tls": {"mutual": True}},
        r"tls\.mutual has an effect only with tls\.enabled",
    ),
    "a trust domain without TLS": (
        {"tls": {"trustDomain": "example.org"}},
        r"tls\.trustDomain has an effect only with tls\.enabled",
    ),
    "leases that nobody signs": (
        {"leases": {"require": True}},
        r"leases\.require is true, and leases\.secret is empty",
    ),
    "a Secret": ({"leases": {"secret": "Lease_Key"}}, "/leases/secret.*does not match"),
    "a lease": ({"lease": "2s"}, "/lease.*got string, want number"),
    "gRPC as text": (cpu(grpc="yes"), "/workers/cpu/grpc.*got string, want boolean"),
    "gRPC twice": (
        cpu(grpc=True, extraArgs=["--grpc-port=9000"]),
        r"workers\.cpu\.grpc is true, and workers\.cpu\.extraArgs has --grpc-port",
    ),
    "gRPC with front ends": (
        cpu(grpc=True, frontEnds=2),
        r"workers\.cpu\.grpc is true, and workers\.cpu\.frontEnds is 2",
    ),
    "ZeroMQ with front ends": (
        cpu(zmq=True, frontEnds=2),
        r"workers\.cpu\.zmq is true, and workers\.cpu\.frontEnds is 2",
    ),
    "a socket with front ends": (
        cpu(frontEnds=2, extraArgs=["--max-batch", "8", "--uds=/run/fingerpost/a.sock"]),
        r"workers\.cpu\.extraArgs has --uds, and workers\.cpu\.frontEnds is 2",
    ),
    "the admin API with front ends": (
        cpu(
            frontEnds=2,
            extraEnv=[
                {
                    "name": "FINGERPOST_ADMIN_TOKEN",
                    "valueFrom": {"secretKeyRef": {"name": "admin", "key": "token"}},
                }
            ],
        ),
        r"workers\.cpu\.extraEnv has FINGERPOST_ADMIN_TOKEN, and workers\.cpu\.frontEnds is 2",
    ),
    "front ends twice": (cpu(extraArgs=["--front-ends", "2"]), "/workers/cpu/extraArgs/0"),
    "ZeroMQ twice": (
        cpu(zmq=True, extraArgs=["--zmq-port", "9000"]),
        r"workers\.cpu\.zmq is true, and workers\.cpu\.extraArgs has --zmq-port",
    ),
    "keys of no ZeroMQ": (
        {"zmqKeys": {"secret": "zmq"}},
        r"zmqKeys\.secret has an effect only with workers\.NAME\.zmq",
    ),
    "clients without keys": (
        cpu(zmq=True) | {"zmqKeys": {"clients": "clients.txt"}},
        r"zmqKeys\.clients has an effect only with zmqKeys\.secret",
    ),
    "ZeroMQ where clients show certificates": (
        cpu(zmq=True) | {"tls": {"enabled": True, "mutual": True}},
        r"workers\.cpu\.zmq is true, and tls\.mutual takes only clients with a certificate",
    ),
    "no front end": (cpu(frontEnds=0), "/workers/cpu/frontEnds.*minimum: got 0, want 1"),
    "xDS as a number": ({"proxy": {"xds": 12482}}, "/proxy/xds.*got number, want boolean"),
    "xDS twice": (
        {"proxy": {"xds": True, "extraArgs": ["--xds-port", "9000"]}},
        r"proxy\.xds is true, and proxy\.extraArgs has --xds-port",
    ),
    "two kinds of scaling": (cpu(autoscaling={"kind": "vpa"}), "/workers/cpu/autoscaling/kind"),
    "more than all": (cpu(maxUnavailable="150%"), "/workers/cpu/maxUnavailable"),
    "a lease of nothing": ({"lease": 0}, "/lease.*minimum"),
    "a default taken away": ({"leases": None}, "missing propert.*leases"),
    "workers that register with a list": (
        {"registries": ["static://a:8500", "kubernetes://"]},
        r"registries begins with static://a:8500",
    ),
    "a registry without a host": ({"registries": ["consul://"]}, "/registries/0"),
    "a registry twice": ({"registries": ["kubernetes://"] * 2}, "/registries"),
    "a peer that is everybody": ({"networkPolicy": {"clients": [{}]}}, "/networkPolicy/clients/0"),
    "a network": (
        {"networkPolicy": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}},
        "/networkPolicy/clients/0/ipBlock/cidr",
    ),
    "a network with a selector": (
        {"networkPolicy": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}},
        "/networkPolicy/clients/0",
    ),
    "monitoring alone": (
        {"networkPolicy": {"monitoring": [{"podSelector": {}}]}},
        r"networkPolicy\.monitoring has an effect only with networkPolicy\.clients",
    ),
    "clients of no policy": (
        {"networkPolicy": {"enabled": False, "clients": [{"podSelector": {}}]}},
        r"networkPolicy\.clients has an effect only with networkPolicy\.enabled",
    ),
    "a variable of the chart": (
        cpu(extraEnv=[{"name": "POD_NAME", "value": "a"}]),
        "/workers/cpu/extraEnv/0/name",
    ),
    "a variable twice": (
        {"proxy": {"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
        r"proxy\.extraEnv has A twice",
    ),
    "a secret in a variable": (
        cpu(extraEnv=[{"name": "FINGERPOST_REGISTRY_TOKEN", "value": "sekrit"}]),
        "/workers/cpu/extraEnv/0",
    ),
    "a variable of nothing": (
        cpu(extraEnv=[{"name": "A", "valueFrom": {}}]),
        "/workers/cpu/extraEnv/0/valueFrom",
    ),
    "an option of the chart": (cpu(extraArgs=["--port=9000"]), "/workers/cpu/extraArgs/0"),
    "a port twice": (
        cpu(extraArgs=["--zmq-port", "8500"]),
        r"workers\.cpu\.extraArgs has --zmq-port 8500, which is the port of HTTP",
    ),
    "a port that nobody knows": (
        cpu(extraArgs=["--zmq-port=0"]),
        r"workers\.cpu\.extraArgs has --zmq-port 0: give a port from 1",
    ),
    "negative resources": (
        cpu(resources={"requests": {"cpu": -1}}),
        "/workers/cpu/resources/requests/cpu.*minimum",
    ),
    "a unit": (
        cpu(resources={"limits": {"memory": "1Gb"}}),
        "/workers/cpu/resources/limits/memory",
    ),
    "thousandths of a byte": (
        cpu(resources={"limits": {"memory": "512m"}}),
        "/workers/cpu/resources/limits/memory",
    ),
    "a part of a GPU": (
        cpu(resources={"limits": {"nvidia.com/gpu": 0.5}}),
        "/workers/cpu/resources/limits/nvidia.com~1gpu",
    ),
    "a resource": (cpu(resources={"limits": {"gpu": 1}}), "/workers/cpu/resources/limits.*'gpu'"),
    "a request above its limit": (
        cpu(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1500Mi"}}),
        r"workers\.cpu\.resources\.requests\.memory is 2Gi",
    ),
    "a GPU that is only requested": (
        cpu(resources={"requests": {"nvidia.com/gpu": 1}}),
        r"workers\.cpu\.resources\.requests has nvidia\.com/gpu",
    ),
    "tolerations that are no list": (cpu(tolerations={"key": "a"}), "/workers/cpu/tolerations"),
    "a toleration of nothing": (cpu(tolerations=[{}]), "/workers/cpu/tolerations/0"),
    "a toleration with a value that is not read": (
        cpu(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
        "/workers/cpu/tolerations/0",
    ),
    "seconds that are not read": (
        cpu(tolerations=[{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]),
        "/workers/cpu/tolerations/0",
    ),
    "a class with capitals": (cpu(priorityClassName="High"), "/workers/cpu/priorityClassName"),
    "a name with two dots": (cpu(runtimeClassName="a..b"), "/workers/cpu/runtimeClassName"),
    "a spread twice": (cpu(spreadOver=["zone", "zone"]), "/workers/cpu/spreadOver"),
    "an affinity": (cpu(affinity={"nodeaffinity": {}}), "/workers/cpu/affinity"),
    "a volume of nothing": (cpu(models={"volume": {}}), "/workers/cpu/models/volume"),
    "a label of the chart": ({"podLabels": {"fingerpost/pool": "a"}}, "/podLabels"),
    "a label's value": ({"podLabels": {"a": "b c"}}, "/podLabels/a"),
    "an image with a tag": ({"image": {"repository": "a/b:core"}}, "/image/repository"),
    "an image as a URL": ({"image": {"repository": "https://a/b"}}, "/image/repository"),
    "a key that leads out": ({"callers": {"key": ".."}}, "/callers/key"),
    "an interval of nothing": ({"serviceMonitor": {"interval": "0s"}}, "/serviceMonitor/interval"),
    "a renewal before the start": (
        cpu(only=["a"])
        | {
            "tls": {
                "enabled": True,
                "trustDomain": "example.org",
                "certManager": {"enabled": True, "issuer": "a", "renewBefore": "168h"},
            }
        },
        r"tls\.certManager\.renewBefore is 168h",
    ),
    "a peer": ({"networkPolicy": {"clients": [{"ip": "1.2.3.4"}]}}, "/networkPolicy/clients/0"),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_refused_and_its_key_named(
    helm: Helm, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        helm.render(values)
