"""A cluster's address: `kubernetes://[NAMESPACE[/SERVICE]][?kubeconfig=FILE&context=NAME]`."""

from __future__ import annotations

import re
import urllib.parse
from typing import Final, Self

import msgspec

from fingerpost.errors import ConfigurationError

__all__ = ["KubernetesUrl"]

_FORM: Final = "kubernetes://NAMESPACE/SERVICE?kubeconfig=FILE&context=NAME"
# A DNS label (RFC 1123), as the names of namespaces and Services are.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_OPTIONS: Final = ("kubeconfig", "context")


class KubernetesUrl(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL says; everything may be left out.

    Attributes:
        namespace: where the workers are; empty for the pod's own, or that of the kubeconfig.
        service: the Kubernetes Service whose EndpointSlices are read; empty for all in the
            namespace.
        kubeconfig: a kubeconfig file; empty for the cluster that this pod is in, else the file
            that `kubectl` uses.
        context: a context of the kubeconfig; empty for its current one.
    """

    namespace: str = ""
    service: str = ""
    kubeconfig: str = ""
    context: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL. Raises `ConfigurationError` where it is not of that form."""
        scheme, separator, rest = url.partition("://")
        place, _, query = rest.partition("?")
        namespace, _, service = place.rstrip("/").partition("/")
        if scheme.lower() != "kubernetes" or not separator:
            raise ConfigurationError(f"registry URL {url!r}: expected {_FORM}")
        for what, name in (("namespace", namespace), ("Service", service)):
            if name and not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"registry URL {url!r}: {name!r} is not a valid name of a {what}: use 1 to 63 "
                    f"lower-case letters, digits and hyphens; expected {_FORM}"
                )
        options: dict[str, str] = {}
        try:
            given = urllib.parse.parse_qsl(query, strict_parsing=True) if query else []
        except ValueError as error:
            raise ConfigurationError(f"registry URL {url!r}: {error}; expected {_FORM}") from error
        for name, value in given:
            if name not in _OPTIONS or name in options:
                raise ConfigurationError(
                    f"registry URL {url!r}: {name!r} is not a valid option here, or is given "
                    f"twice: use each of {' and '.join(_OPTIONS)} once"
                )
            options[name] = value
        return cls(namespace=namespace, service=service, **options)
