"""Commands that a user can try on a local cluster, with curl and with `fingerpost`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fingerpost.deploy.local.security import ClusterSecurity

__all__ = ["hints"]


def hints(security: ClusterSecurity, service: str, proxy_url: str, *, only: bool) -> list[str]:
    """Commands with what clients of this cluster need; their own files are `client.pem` and so on.

    Args:
        security: what the cluster asks of clients.
        service: a model that is served.
        proxy_url: where the proxy listens.
        only: whether it is the only model, which `GET /` answers for.
    """
    tls, curl, shown = security.tls, "", ""
    if tls is not None:
        curl, shown = f" --cacert {tls.ca}", f" --tls-ca {tls.ca}"
        if tls.client_ca is not None:
            curl += " --cert client.pem --key client-key.pem"
            shown += " --tls-cert client.pem --tls-key client-key.pem"
    key, variable = "", ""
    if security.callers is not None:
        key, variable = ' -H "Authorization: Bearer $KEY"', "FINGERPOST_API_KEY=$KEY "
    path = "" if only else f"/v1/resolve/{service}?n=1 -H 'Accept: text/plain'"
    ask = f"curl -s{curl}{key} {proxy_url.removeprefix('http://')}{path}"
    proxy = f"--proxy {proxy_url}{shown}"
    return [
        f'curl{curl} -F data=@image.png "$({ask})"',
        f"{variable}fingerpost classify --model {service} {proxy} image.png",
        f"{variable}fingerpost status {proxy}",
    ]
