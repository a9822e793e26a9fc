"""What went wrong in a TLS handshake, in words, with the remedy."""

from __future__ import annotations

import ssl
from typing import Final

__all__ = ["tls_problem"]

_REMEDIES: Final = {
    "certificate has expired": "give that server a new one: it is used at once",
    "certificate is not yet valid": "look at the clocks of both machines",
    "unable to get local issuer certificate": "give its authority with --tls-ca",
    "self-signed certificate": "give its authority with --tls-ca",
}
_REASONS: Final = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS: start it with --tls-cert and --tls-key",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a client certificate: give one with "
    "--tls-cert and --tls-key",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust our certificate: use one of an authority of its "
    "--tls-client-ca",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired: renew the file of --tls-cert",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it asks for a client certificate, or for other ciphers",
}


def tls_problem(error: BaseException) -> str | None:
    """What an error of a TLS connection means; None where it is not about TLS.

    Args:
        error: of `ssl`, or one of aiohttp that holds it.
    """
    found: BaseException | None = error
    if not isinstance(found, ssl.SSLError):
        held = (getattr(error, "certificate_error", None), getattr(error, "os_error", None))
        found = next((each for each in (*held, error.__cause__) if _is_tls(each)), None)
    if not isinstance(found, ssl.SSLError):
        return None
    if isinstance(found, ssl.SSLCertVerificationError):
        why = getattr(found, "verify_message", "") or found.strerror or str(found)
        remedy = next((text for known, text in _REMEDIES.items() if known in why), "")
        return f"its certificate is not accepted: {why}" + (f"; {remedy}" if remedy else "")
    reason = found.reason or str(found)
    return _REASONS.get(reason, f"TLS failed: {reason}")


def _is_tls(error: object) -> bool:
    return isinstance(error, ssl.SSLError)
