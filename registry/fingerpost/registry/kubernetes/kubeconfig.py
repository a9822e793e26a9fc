"""Reads a kubeconfig file: the API server of a context, and the credentials for it.

What `kubectl config view` shows as `cluster` and `user` is read, but for two things: a `user` that
runs a program (`exec`, `auth-provider`) is refused, with what to do instead, because a registry
must not run programs; and several files are not merged.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.basics.config_file import decode_text, read_config
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Context", "read_kubeconfig"]

_EXTRA: Final = "pip install 'fingerpost[kubernetes]'"


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""


class _User(msgspec.Struct, rename={"token_file": "tokenFile", "auth_provider": "auth-provider"}):
    token: str = ""
    token_file: str = ""
    client_certificate: str = msgspec.field(name="client-certificate", default="")
    client_certificate_data: str = msgspec.field(name="client-certificate-data", default="")
    client_key: str = msgspec.field(name="client-key", default="")
    client_key_data: str = msgspec.field(name="client-key-data", default="")
    username: str = ""
    exec: Any = None
    auth_provider: Any = None


class _Context(msgspec.Struct):
    cluster: str
    user: str = ""
    namespace: str = ""


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct):
    name: str
    user: _User | None = None


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


class _File(msgspec.Struct):
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None
    current_context: str = msgspec.field(name="current-context", default="")


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """A context of a kubeconfig. Files are named, and what stands in it is decoded.

    Attributes:
        server: the URL of the API server.
        namespace: the namespace of the context; `default` where it names none.
        ca: the authority of the server's certificate, as PEM or as a file's name.
        cert: the client certificate, likewise.
        key: its private key, likewise.
        verify: whether the server's certificate is checked.
        server_name: the name in the server's certificate, if not the host of the URL.
        token: a token; empty where there is none.
        token_file: a file with a token; empty where there is none.
    """

    server: str
    namespace: str = "default"
    ca: str | bytes = ""
    cert: str | bytes = ""
    key: str | bytes = ""
    verify: bool = True
    server_name: str = ""
    token: str = ""
    token_file: str = ""


def read_kubeconfig(path: Path, context: str = "") -> Context:
    """Read one context, by default the current one.

    Raises:
        ConfigurationError: the file is missing or not valid, names what is not in it, or needs a
            program to be run.
    """
    try:
        text = decode_text(read_config(path, most=4_000_000), path)
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no kubeconfig {path}") from error
    file = _decode(text, path)
    name = context or file.current_context
    if not name:
        raise ConfigurationError(f"{path} has no current-context: name one by ?context=NAME")
    chosen = _named(file.contexts, name, "context", path).context
    cluster = _named(file.clusters, chosen.cluster, "cluster", path).cluster
    user = _named(file.users, chosen.user, "user", path).user if chosen.user else None
    user = user or _User()
    if user.exec is not None or user.auth_provider is not None or user.username:
        kind = "a password" if user.username else "a program that makes its credential"
        raise ConfigurationError(
            f"{path}: the user {chosen.user!r} has {kind}, which is not supported: give the token "
            "of a service account (kubectl create token NAME) with --registry-token-file"
        )
    return Context(
        server=cluster.server.rstrip("/"),
        namespace=chosen.namespace or "default",
        ca=_content(
            cluster.certificate_authority, cluster.certificate_authority_data, path, "authority"
        ),
        cert=_content(user.client_certificate, user.client_certificate_data, path, "certificate"),
        key=_content(user.client_key, user.client_key_data, path, "key"),
        verify=not cluster.insecure_skip_tls_verify,
        server_name=cluster.tls_server_name,
        token="" if user.token_file else user.token,
        token_file=str(path.parent / user.token_file) if user.token_file else "",
    )


def _decode(text: str, path: Path) -> _File:
    try:
        if text.lstrip().startswith("{"):  # JSON is YAML, and needs no library
            return msgspec.json.decode(text, type=_File)
        return msgspec.yaml.decode(text, type=_File)
    except ImportError as error:
        raise ConfigurationError(
            f"{path} is YAML, which needs PyYAML to be read: {_EXTRA}; or give it as JSON, which "
            "kubectl writes too"
        ) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not a valid kubeconfig: {error}") from error


def _named(found: Sequence[Any] | None, name: str, what: str, path: Path) -> Any:
    for each in found or ():
        if each.name == name:
            return each
    known = ", ".join(repr(each.name) for each in found or ()) or "none"
    raise ConfigurationError(f"{path} has no {what} {name!r}: it has {known}")


def _content(file: str, data: str, path: Path, what: str) -> str | bytes:
    """The name of a file, relative to the kubeconfig; or what is written in it."""
    if not data:
        return str(path.parent / file) if file else ""
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ConfigurationError(f"{path}: the {what}'s data is not valid base64") from error
