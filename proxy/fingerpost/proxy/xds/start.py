"""The xDS server of a proxy, of which nothing is imported where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.proxy.config import ProxyConfig
    from fingerpost.proxy.directory import Directory
    from fingerpost.proxy.metrics import ProxyMetrics
    from fingerpost.proxy.probes import LoadProbes
    from fingerpost.proxy.xds.server import XdsServer
    from fingerpost.registry.access import Callers

__all__ = ["start_xds"]


async def start_xds(
    directory: Directory,
    probes: LoadProbes,
    config: ProxyConfig,
    metrics: ProxyMetrics,
    callers: Callers,
    *,
    shared: bool,
) -> XdsServer:
    """Serve xDS on the port that the settings name; `shared` with a predecessor, if there is one.

    Raises:
        ConfigurationError: the extra `xds` is not installed, or the port is in use.
    """
    try:
        from fingerpost.proxy.xds.catalog import XdsCatalog
        from fingerpost.proxy.xds.server import XdsServer
    except ImportError as error:
        raise ConfigurationError(
            f"--xds-port needs gRPC ({error}): pip install 'fingerpost[xds]'"
        ) from error
    server = XdsServer(
        directory, XdsCatalog(directory, probes, config.tls), config.xds, metrics, callers
    )
    return await server.start(config.host, config.xds.port or 0, config.tls, shared=shared)
