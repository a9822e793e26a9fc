"""A local cluster whose ports are taken."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.support.ports import free_port

from fingerpost.deploy.local.cluster import LocalCluster, LocalClusterConfig
from fingerpost.errors import ConfigurationError


@pytest.mark.parametrize("taken", ["proxy", "registry"])
async def test_a_port_in_use_is_told_with_its_option_before_anything_starts(taken: str) -> None:
    """The other process's answers were taken for those of the one that could not start."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = LocalClusterConfig(
            models=(Path("m"),),
            services=("m",),
            proxy_port=port if taken == "proxy" else free_port(),
            registry_port=port if taken == "registry" else free_port(),
        )
        lines: list[str] = []
        cluster = LocalCluster(config, lambda name, line: lines.append(f"{name}: {line}"))
        option = {"proxy": r"\(--port\)", "registry": r"\(--registry-port\)"}[taken]
        with pytest.raises(ConfigurationError, match=f"the {taken} cannot listen .*{option}"):
            await cluster.__aenter__()
    assert lines == []
