"""Where the API server is: in a pod, or by a kubeconfig; and what is refused."""

from __future__ import annotations

import base64
import json

import pytest
from tests.support.certificates import Authority
from tests.support.optional import not_none

from fingerpost.errors import ConfigurationError
from fingerpost.registry import RegistryConfig
from fingerpost.registry.kubernetes.access import open_access
from fingerpost.registry.kubernetes.codec import PodReference
from fingerpost.registry.kubernetes.url import KubernetesUrl

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def account(tmp_path, authority):
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text("token-of-the-account\n")
    (folder / "namespace").write_text("ml")
    (folder / "ca.crt").write_bytes(authority.pem)
    return folder


def access(url="kubernetes://", *, environment, account, **settings):
    return open_access(
        KubernetesUrl.parse(url), RegistryConfig(**settings), environment=environment,
        account=account,
    )  # fmt: skip


def kubeconfig(folder, *, yaml=False, cluster=None, user=None, **fields):
    body = {
        "clusters": [
            {"name": "c", "cluster": {"server": "https://10.0.0.1:6443"} | (cluster or {})}
        ],
        "users": [{"name": "u", "user": {"token": "abc"} if user is None else user}],
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "vision"}},
            {"name": "two", "context": {"cluster": "c", "user": "u"}},
        ],
        "current-context": "one",
    } | fields
    path = folder / "config"
    if yaml:
        import yaml as library

        path.write_text(library.safe_dump(body))
    else:
        path.write_text(json.dumps(body))
    return path


def test_a_pod_uses_its_service_account(account):
    pod = {"POD_NAME": "w-0", "POD_UID": "u-0"}
    found = access(environment=IN_POD | pod, account=account)
    assert (found.server, found.namespace) == ("https://10.96.0.1:443", "ml")
    assert found.token.current() == "token-of-the-account"
    assert found.pod == PodReference(name="w-0", uid="u-0")
    assert found.pod_namespace == "ml"
    assert found.tls is not None
    (account / "token").write_text("the-next-one")
    assert found.token.current() == "the-next-one"
    ipv6 = access(environment=IN_POD | {"KUBERNETES_SERVICE_HOST": "fd00::1"}, account=account)
    assert ipv6.server == "https://[fd00::1]:443"
    assert ipv6.pod is None


@pytest.mark.parametrize("yaml", [False, True], ids=["json", "yaml"])
def test_outside_a_kubeconfig_is_used(tmp_path, account, yaml):
    path = kubeconfig(tmp_path, yaml=yaml)
    for url, environment in (
        (f"kubernetes://?kubeconfig={path}", IN_POD),
        ("kubernetes://", {"KUBECONFIG": str(path)}),
    ):
        found = access(url, environment=environment, account=account)
        assert (found.server, found.namespace) == ("https://10.0.0.1:6443", "vision")
        assert found.token.current() == "abc"
    given = {"token": "x"}
    found = access(
        f"kubernetes://?kubeconfig={path}&context=two", environment={}, account=account, **given
    )
    assert (found.namespace, found.token.current()) == ("default", "x")


def test_certificates_may_stand_in_it(tmp_path, account, authority):
    pair = authority.issue("client")

    def data(path):
        return base64.b64encode(path.read_bytes()).decode()

    path = kubeconfig(
        tmp_path,
        cluster={
            "certificate-authority-data": base64.b64encode(authority.pem).decode(),
            "tls-server-name": "api.example",
        },
        user={"client-certificate-data": data(pair.cert), "client-key-data": data(pair.key)},
    )
    found = access(f"kubernetes://?kubeconfig={path}", environment={}, account=account)
    assert found.server_name == "api.example"
    assert len(not_none(found.tls).current().get_ca_certs()) == 1
    path = kubeconfig(tmp_path, user={"client-certificate": "a.crt", "client-key": "a.key"})
    with pytest.raises(ConfigurationError, match="a.crt"):
        access(f"kubernetes://?kubeconfig={path}", environment={}, account=account)
    path = kubeconfig(tmp_path, cluster={"certificate-authority-data": "no base64!"})
    with pytest.raises(ConfigurationError, match="not valid base64"):
        access(f"kubernetes://?kubeconfig={path}", environment={}, account=account)
    path = kubeconfig(tmp_path, cluster={"certificate-authority-data": data(pair.key)})
    with pytest.raises(ConfigurationError, match="the kubeconfig's certificates"):
        access(f"kubernetes://?kubeconfig={path}", environment={}, account=account)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"user": {"exec": {"command": "aws"}}}, "a program that makes its credential"),
        ({"user": {"username": "me", "password": "x"}}, "has a password"),
        ({"current-context": ""}, r"no current-context: name one by \?context=NAME"),
        ({"current-context": "three"}, "has no context 'three': it has 'one', 'two'"),
        ({"clusters": []}, "has no cluster 'c': it has none"),
        ({"users": None}, "has no user 'u'"),
        ({"contexts": 7}, "is not a valid kubeconfig"),
        ({"cluster": {"server": "10.0.0.1:6443"}}, "is not a valid URL of an API server"),
        ({"cluster": {"server": "https://a:b@host"}}, "is not a valid URL of an API server"),
    ],
    ids=["exec", "password", "no-current", "unknown", "no-cluster", "no-user", "type", "url",
         "credential"],
)  # fmt: skip
def test_a_kubeconfig_that_cannot_be_used_is_refused(tmp_path, account, fields, why):
    path = kubeconfig(tmp_path, **fields)
    with pytest.raises(ConfigurationError, match=why):
        access(f"kubernetes://?kubeconfig={path}", environment={}, account=account)


def test_what_is_missing_is_named(tmp_path, account, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="this process is not in a pod"):
        access(environment={}, account=account)
    (account / "token").unlink()
    with pytest.raises(ConfigurationError, match="automountServiceAccountToken"):
        access(environment=IN_POD, account=account)
    with pytest.raises(ConfigurationError, match="there is no kubeconfig"):
        access("kubernetes://?kubeconfig=/none", environment={}, account=account)
    with pytest.raises(ConfigurationError, match="names several files"):
        access(environment={"KUBECONFIG": "/a:/b"}, account=account)
    path = kubeconfig(tmp_path, cluster={"server": "http://127.0.0.1:8001"})
    with pytest.raises(ConfigurationError, match="need TLS"):
        access(
            f"kubernetes://?kubeconfig={path}", environment={}, account=account, ca_file="/ca.pem"
        )


@pytest.mark.parametrize(
    "url",
    [
        "kubernetes:/ml",
        "kubernetes://Ml",
        "kubernetes://ml/a/b",
        "kubernetes://ml/../x",
        "kubernetes://ml?kubeconfig=a&kubeconfig=b",
        "kubernetes://ml?token=x",
        "kubernetes://ml?context",
    ],
)
def test_a_wrong_url_is_refused(url):
    with pytest.raises(ConfigurationError, match="kubernetes"):
        KubernetesUrl.parse(url)


def test_the_parts_of_a_url():
    assert KubernetesUrl.parse("kubernetes://") == KubernetesUrl()
    assert KubernetesUrl.parse("Kubernetes://ml/workers/?context=a%40b") == KubernetesUrl(
        namespace="ml", service="workers", context="a@b"
    )
