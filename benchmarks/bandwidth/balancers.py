"""What else could stand before the workers: HAProxy, nginx, and a node of http-proxy's."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.environments import CACHE, debian_tool
from benchmarks.harness.node import node_packages

__all__ = ["BALANCERS", "Balancer", "balancer"]

_HAPROXY = """
global
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
frontend images
  bind {host}:9080
  default_backend workers
backend workers
  balance leastconn
  option httpchk GET /health/ready
{servers}
"""
_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_max_body_size 32m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  upstream workers {{ least_conn; keepalive 64; {servers} }}
  server {{
    listen {host}:9081;
    location / {{
      proxy_pass http://workers;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """How to start one, the port it listens on, and what it is made of."""

    command: Sequence[object]
    port: int
    versions: Mapping[str, str]


def balancer(name: str, host: str, workers: Sequence[str]) -> Balancer:
    """One of `BALANCERS`, at `host`, before these workers (`host:port`)."""
    folder = CACHE / "balancers" / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return BALANCERS[name](folder, host, workers)


def _haproxy(folder: Path, host: str, workers: Sequence[str]) -> Balancer:
    program = debian_tool("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")
    servers = "\n".join(f"  server w{n} {worker} check" for n, worker in enumerate(workers))
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(host=host, servers=servers))
    return Balancer(
        command=[*program, "-f", folder / "haproxy.cfg", "-db"],
        port=9080,
        versions={"HAProxy": _said(*program, "-v").split()[2]},
    )


def _nginx(folder: Path, host: str, workers: Sequence[str]) -> Balancer:
    program = debian_tool("nginx", "nginx-common")
    servers = " ".join(f"server {worker};" for worker in workers)
    (folder / "nginx.conf").write_text(_NGINX.format(host=host, servers=servers, folder=folder))
    return Balancer(
        command=[*program, "-p", folder, "-c", folder / "nginx.conf"],
        port=9081,
        versions={"nginx": _said(*program, "-v").rpartition("/")[2]},
    )


def _node(folder: Path, host: str, workers: Sequence[str]) -> Balancer:
    node, modules = node_packages("balancer", "http-proxy")
    package = json.loads((modules / "http-proxy" / "package.json").read_text())
    script = Path(__file__).with_name("balancer.js")
    return Balancer(
        command=["env", f"NODE_PATH={modules}", node, script, host, 9082, *workers],
        port=9082,
        versions={
            "Node.js": _said(node, "--version").removeprefix("v"),
            "http-proxy": package["version"],
        },
    )


BALANCERS: Mapping[str, Callable[[Path, str, Sequence[str]], Balancer]] = {
    "HAProxy": _haproxy,
    "nginx": _nginx,
    "the article's node": _node,
}


def _said(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(
        words, check=True, text=True, timeout=30,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ).stdout.strip()  # fmt: skip
