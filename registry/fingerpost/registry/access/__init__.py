"""Who may ask, for HTTP servers: callers of requests, keys of issuers, refusals and their log."""

from fingerpost.registry.access.callers import Callers
from fingerpost.registry.access.config import CallersConfig

__all__ = ["Callers", "CallersConfig"]
