"""The fingerpost itself: it answers "where?" over HTTP, and carries no image unless told to."""

from fingerpost.proxy.config import ProxyConfig
from fingerpost.proxy.proxy import Proxy
from fingerpost.registry.version import __version__

__all__ = ["Proxy", "ProxyConfig", "__version__"]
