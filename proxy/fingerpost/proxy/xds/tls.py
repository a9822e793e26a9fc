"""How clients of gRPC connect to workers with TLS: https://github.com/grpc/proposal, A29.

The authorities, and the certificate that a client shows, are files of the client's own. Its
bootstrap file names them, as the provider `fingerpost`, so that no key is ever sent by xDS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fingerpost.proxy.xds.messages import message_class
from fingerpost.proxy.xds_names import PROVIDER

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["transport_socket"]

_TLS: Final = "envoy.extensions.transport_sockets.tls.v3"
TransportSocket = message_class("envoy.config.core.v3.TransportSocket")
StringMatcher = message_class("envoy.type.matcher.v3.StringMatcher")
UpstreamTlsContext = message_class(f"{_TLS}.UpstreamTlsContext")
CommonTlsContext = message_class(f"{_TLS}.CommonTlsContext")
Provider = message_class(f"{_TLS}.CertificateProviderPluginInstance")
CertificateValidationContext = message_class(f"{_TLS}.CertificateValidationContext")


def transport_socket(names: Iterable[str], *, certificate: bool) -> Any:
    """TLS to the workers of a cluster.

    Args:
        names: a worker's certificate must have one of these: SPIFFE ids, host names or addresses.
        certificate: the client has one of its own, and shows it. One that has none would wait for
            it for ever.
    """
    found = CommonTlsContext(
        validation_context=CertificateValidationContext(
            ca_certificate_provider_instance=Provider(instance_name=PROVIDER),
            match_subject_alt_names=[StringMatcher(exact=each) for each in names],
        )
    )
    if certificate:
        found.tls_certificate_provider_instance.CopyFrom(Provider(instance_name=PROVIDER))
    made = TransportSocket(name="envoy.transport_sockets.tls")
    made.typed_config.Pack(UpstreamTlsContext(common_tls_context=found), deterministic=True)
    return made
