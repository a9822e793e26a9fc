"""URLs of fixed lists of foreign workers."""

from __future__ import annotations

__all__ = ["static_url"]


def static_url(*ports: int, model: str = "colours", **meta: str) -> str:
    """Servers at these ports of this machine, with this metadata."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"static://{hosts}?model={model}&" + "&".join(f"{k}={v}" for k, v in meta.items())
