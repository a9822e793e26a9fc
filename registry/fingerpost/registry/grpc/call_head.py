"""The head of a gRPC call, in the form that leases, limits, logs and traces read."""

from __future__ import annotations

import copy
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from multidict import CIMultiDict
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpc.aio import ServicerContext

__all__ = ["CallHead", "peer_address"]

_url: Final = lru_cache(maxsize=64)(URL)


class CallHead:
    """A call of gRPC as a `RequestHead`.

    Its metadata are the headers; keys that end in `-bin` are left out, because nothing here reads
    them.

    Args:
        path: of the method, `/package.Service/Method`.
        context: the call.

    Attributes:
        total_bytes: of the messages that have arrived.
    """

    __slots__ = (
        "_context",
        "_kept",
        "content_length",
        "headers",
        "method",
        "path",
        "remote",
        "total_bytes",
    )

    def __init__(self, path: str, context: ServicerContext[Any, Any]) -> None:
        self._context = context
        self._kept: dict[Any, Any] | None = None
        self.method = "POST"
        self.path = path
        self.content_length: int | None = None  # not announced
        self.total_bytes = 0
        found: Any = context.invocation_metadata() or ()
        # In one piece: a call of `add` for each takes twice as long.
        self.headers: CIMultiDict[str] = CIMultiDict([x for x in found if isinstance(x[1], str)])
        self.remote: str | None = peer_address(context.peer())

    def again(self) -> CallHead:
        """The head for one more message of the same call."""
        found = copy.copy(self)
        found.total_bytes, found._kept = 0, None
        return found

    @property
    def rel_url(self) -> URL:
        """The path."""
        return _url(self.path)

    @property
    def content(self) -> CallHead:
        """Itself, which counts the bytes."""
        return self

    @property
    def transport(self) -> CallHead:
        """Itself, which knows the certificate of the client."""
        return self

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername`, and `ssl_object` where the client has shown a certificate."""
        if name == "peername":
            return self._context.peer()
        if name == "ssl_object":
            return _ClientCertificate.of(self._context.auth_context()) or default
        return default

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Keep a value."""
        if self._kept is None:
            self._kept = {}
        self._kept[key] = value

    def get(self, key: Any, default: Any, /) -> Any:
        """The value that is kept under a key."""
        return default if self._kept is None else self._kept.get(key, default)


class _ClientCertificate:
    """The client's certificate, as far as gRPC passes it on, in the form of an `SSLObject`.

    Without its subject, of which gRPC passes on a part only: callers are told apart by their SPIFFE
    ids here.
    """

    def __init__(self, der: bytes, names: list[str]) -> None:
        self._der = der
        self._names = names

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> _ClientCertificate | None:
        pem = [*context.get("x509_pem_cert", ())]
        if not pem:
            return None
        names = [each.decode("utf-8", "replace") for each in context.get("peer_spiffe_id", ())]
        return cls(ssl.PEM_cert_to_DER_cert(pem[0].decode("ascii")), names)

    def getpeercert(self, *, binary_form: bool = False) -> Any:
        """Its bytes, or what `ssl.SSLSocket.getpeercert` says of it."""
        if binary_form:
            return self._der
        return {"subject": (), "subjectAltName": tuple(("URI", each) for each in self._names)}


@lru_cache(maxsize=1024)  # a connection has many calls
def peer_address(peer: str) -> str:
    """The address in gRPC's name of a peer: `ipv4:10.0.0.7:5000`, `ipv6:%5B::1%5D:5000`."""
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")
