"""How the API server is reached: from a pod by its service account, else by a kubeconfig.

Kubernetes tells a pod by its environment and by mounted files where the API server is, and which
pod it is; kubectl's own variable is KUBECONFIG. These are read here, once, when the registry is
opened; what a URL or a `RegistryConfig` says wins over them.
"""

from __future__ import annotations

import os
import tempfile
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fingerpost.basics.config_file import read_text
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.consul.tls import Tls, make_context
from fingerpost.registry.credentials import Token, mask_password
from fingerpost.registry.instance import format_address
from fingerpost.registry.kubernetes.codec import PodReference
from fingerpost.registry.kubernetes.kubeconfig import Context, read_kubeconfig

if TYPE_CHECKING:
    import ssl

    from fingerpost.registry.kubernetes.url import KubernetesUrl

__all__ = ["Access", "open_access"]

# Where every pod finds its service account, unless that is turned off.
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN: Final = "service account's token"  # noqa: S105 - what it is called


class TlsSource(Protocol):
    """The context for a new connection, which may change with its files."""

    def current(self) -> ssl.SSLContext:
        """The context for a new connection."""
        ...


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """An API server, and the credentials for it.

    Attributes:
        server: its base URL.
        namespace: the namespace to use where the URL names none.
        token: the token, read again when its file changes.
        tls: the certificates; None without TLS.
        server_name: the name in its certificate, if not that of the URL.
        pod: the pod that this process is in; None outside of one, or where it does not know.
        pod_namespace: that pod's namespace.
    """

    server: str
    namespace: str
    token: Token
    tls: TlsSource | None = None
    server_name: str | None = None
    pod: PodReference | None = None
    pod_namespace: str = ""


def open_access(
    url: KubernetesUrl,
    config: RegistryConfig,
    *,
    environment: Mapping[str, str] | None = None,
    account: Path = _ACCOUNT,
) -> Access:
    """Find the API server and read the credentials.

    Raises:
        ConfigurationError: there is neither a service account nor a kubeconfig, or a file is not
            valid.
    """
    environment = os.environ if environment is None else environment
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    chosen = bool(url.kubeconfig or url.context)
    if host and not chosen and (account / "token").is_file():
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        context = Context(
            server=f"https://{format_address(host, int(port) if port.isdigit() else 443)}",
            namespace=_text(account / "namespace") or "default",
            ca=str(account / "ca.crt"),
            token_file=str(account / "token"),
        )
    else:
        context = read_kubeconfig(_kubeconfig(url, environment, host, account), url.context)
    server = _server(context.server)
    if not server.startswith("https:") and config.uses_tls:
        raise ConfigurationError(
            f"ca_file, cert_file, key_file and verify=False need TLS, which {server} does not have"
        )
    token, token_file = config.token, config.token_file
    if token is None and token_file is None:
        token, token_file = context.token or None, context.token_file or None
    return Access(
        server=server,
        namespace=context.namespace,
        token=Token(token, token_file, what=_TOKEN),
        tls=_tls(context, config) if server.startswith("https:") else None,
        server_name=context.server_name or None,
        pod=_pod(environment),
        pod_namespace=environment.get("POD_NAMESPACE") or _text(account / "namespace"),
    )


def _server(url: str) -> str:
    """Check the URL of an API server, which may have a path (as behind Rancher)."""
    wrong = ConfigurationError(
        f"{mask_password(url)!r} is not a valid URL of an API server: use https://HOST:PORT"
    )
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise wrong from error
    if not valid or parts.query or parts.fragment or "@" in parts.netloc:
        raise wrong
    return url.rstrip("/")


def _kubeconfig(
    url: KubernetesUrl, environment: Mapping[str, str], host: str, account: Path
) -> Path:
    named = url.kubeconfig or environment.get("KUBECONFIG", "")
    if not url.kubeconfig and os.pathsep in named:
        raise ConfigurationError(
            f"KUBECONFIG={named!r} names several files: name the one to use by ?kubeconfig=FILE"
        )
    path = Path(named).expanduser() if named else Path.home() / ".kube" / "config"
    if not named and not path.is_file():
        why = (
            f"this pod has no service account's token in {account}: do not set "
            "automountServiceAccountToken: false"
            if host
            else "this process is not in a pod"
        )
        raise ConfigurationError(
            f"kubernetes:// does not know the API server: {why}, and there is no kubeconfig "
            f"{path}; name one by kubernetes://NAMESPACE?kubeconfig=FILE"
        )
    return path


def _pod(environment: Mapping[str, str]) -> PodReference | None:
    name, uid = environment.get("POD_NAME", ""), environment.get("POD_UID", "")
    return PodReference(name=name, uid=uid) if name and uid else None


def _text(path: Path) -> str:
    return read_text(path).strip() if path.is_file() else ""


def _tls(context: Context, config: RegistryConfig) -> TlsSource:
    """The certificates: those of `config`, and where it has none, those of the context."""
    verify = config.verify and (context.verify or config.ca_file is not None)
    ca = (config.ca_file or context.ca) if verify else None
    cert, key = config.cert_file or context.cert, config.key_file or context.key
    # OpenSSL reads keys from files only. These are this user's alone, and are removed at once.
    with tempfile.TemporaryDirectory(prefix="fingerpost-") as folder:

        def file(name: str, value: str | bytes | None) -> str | None:
            if isinstance(value, bytes):
                path = Path(folder) / name
                path.write_bytes(value)
                return str(path)
            return value or None

        files = RegistryConfig(
            ca_file=file("ca", ca),
            cert_file=file("cert", cert),
            key_file=file("key", key),
            verify=verify,
        )
        if not any(isinstance(each, bytes) for each in (ca, cert, key)):
            return Tls(files)
        try:
            return _Fixed(make_context(files))
        except ConfigurationError as error:
            raise ConfigurationError(f"the kubeconfig's certificates: {error}") from error


class _Fixed:
    """Certificates that stand in the kubeconfig itself."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def current(self) -> ssl.SSLContext:
        return self._context
