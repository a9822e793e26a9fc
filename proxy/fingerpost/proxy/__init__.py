"""The proxy: it tells clients over HTTP where the workers are. It relays images only if enabled."""

from fingerpost.proxy.config import ProxyConfig
from fingerpost.proxy.proxy import Proxy
from fingerpost.registry.version import __version__

__all__ = ["Proxy", "ProxyConfig", "__version__"]
