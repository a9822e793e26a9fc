"""`python -m benchmarks.bandwidth`: how many bytes a cluster moves, against its number of workers.

Network namespaces on a bridge: 1, 2, 4 and 8 workers, one balancing host and 4 clients, every link
shaped on both ends. Workers and the balancing host have links of `--link` Mbit/s, clients of four
times that, so that the workers' links are the limit. The JPEGs have 640 KB; the model does nothing,
so that the machine's cores are left to the network. Needs root.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.harness.environments import CACHE, debian_tool
from benchmarks.harness.network import Network
from benchmarks.harness.pictures import photo
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.harness.servers import running
from benchmarks.worker.nothing import nothing_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CLIENTS = 4
_PORT = 9000
_FINGERPOST = [sys.executable, "-m", "fingerpost.deploy.cli"]
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


class Cluster:
    """A registry and a proxy on the balancing host `hub`, workers on hosts of their own."""

    def __init__(self, network: Network, workers: int, stack: ExitStack) -> None:
        self._network = network
        self.workers = [f"w{number}" for number in range(workers)]
        self.hub = network.address["hub"]
        registry = f"http://{self.hub}:12481"
        self._start(stack, "hub", *_FINGERPOST, "registry", "--host", self.hub, "--allow-remote")
        self._wait("hub", f"{registry}/v1/status/leader")
        self._start(stack, "hub", *_FINGERPOST, "proxy", "--host", self.hub, "--registry", registry,
                    "--service", "nothing", "--relay")  # fmt: skip
        model = nothing_model()
        for worker in self.workers:
            self._start(stack, worker, *_FINGERPOST, "worker", "--model", model, "--registry",
                        registry, "--host", network.address[worker], "--port", _PORT,
                        "--lease", 0)  # fmt: skip
        for worker in self.workers:
            self._wait(worker, f"http://{network.address[worker]}:{_PORT}/health/ready")
        self._balancers(stack)
        time.sleep(1.5)  # health checks of the balancers

    def load(self, how: str, url: str, image: Path, seconds: float, streams: int) -> int:
        """Bytes of images answered, of all client hosts together."""
        loads = [
            subprocess.Popen(
                [*self._network.inside(f"c{number}"), sys.executable, "-m",
                 "benchmarks.bandwidth.load", how, url, str(image), str(seconds), str(streams)],
                stdout=subprocess.PIPE,
            )
            for number in range(_CLIENTS)
        ]  # fmt: skip
        try:
            outputs = [each.communicate(timeout=seconds + 180)[0] for each in loads]
        finally:
            for each in loads:
                each.kill()
        return sum(json.loads(output)["bytes"] for output in outputs)

    def _start(self, stack: ExitStack, host: str, *command: object) -> None:
        stack.enter_context(
            running([*self._network.inside(host), *command], log=f"bandwidth-{host}")
        )

    def _wait(self, host: str, url: str) -> None:
        """Asked from within, because this process stands on no host of the network."""
        code = (
            "import sys, time, urllib.request\n"
            "for _ in range(600):\n"
            "    try:\n"
            "        urllib.request.urlopen(sys.argv[1], timeout=2); break\n"
            "    except OSError: time.sleep(0.1)\n"
            "else: sys.exit(sys.argv[1] + ' does not answer')\n"
        )
        subprocess.run([*self._network.inside(host), sys.executable, "-c", code, url],
                       check=True, timeout=120)  # fmt: skip

    def _balancers(self, stack: ExitStack) -> None:
        folder = CACHE / "balancers"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        places = [f"{self._network.address[worker]}:{_PORT}" for worker in self.workers]
        haproxy = "\n".join(f"  server w{n} {place} check" for n, place in enumerate(places))
        (folder / "haproxy.cfg").write_text(_HAPROXY.format(host=self.hub, servers=haproxy))
        nginx = " ".join(f"server {place};" for place in places)
        (folder / "nginx.conf").write_text(
            _NGINX.format(host=self.hub, servers=nginx, folder=folder)
        )
        haproxy_command = debian_tool(
            "haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"
        )
        self._start(stack, "hub", *haproxy_command, "-f", folder / "haproxy.cfg", "-db")
        self._start(stack, "hub", *debian_tool("nginx", "nginx-common"), "-p", folder, "-c",
                    folder / "nginx.conf")  # fmt: skip


@contextmanager
def _cluster(workers: int, link: float) -> Iterator[tuple[Cluster, Network]]:
    links = {"hub": link}
    links |= {f"w{number}": link for number in range(workers)}
    links |= {f"c{number}": 4 * link for number in range(_CLIENTS)}
    with Network(links) as network, ExitStack() as stack:
        yield Cluster(network, workers, stack), network


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--link", type=float, default=50, help="Mbit/s")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    image = photo(1600, 1200, 640)
    figures: dict[str, dict[str, float]] = {}
    hub_share: dict[int, float] = {}
    for workers in arguments.workers:
        with _cluster(workers, arguments.link) as (cluster, network):
            hub = cluster.hub
            ways = {
                "direct": ("direct", f"http://{hub}:12480"),
                "307 redirect": ("redirect", f"http://{hub}:12480"),
                "two curl commands": ("curl", f"http://{hub}:12480"),
                "relay": ("post", f"http://{hub}:12480/v1/relay/nothing"),
                "HAProxy": ("post", f"http://{hub}:9080/v1/classify/nothing"),
                "nginx": ("post", f"http://{hub}:9081/v1/classify/nothing"),
            }

            # Four uploads at a time for each worker keep its link filled.
            streams = max(2, 4 * workers // _CLIENTS)

            def measure(
                how: str, url: str, cluster: Cluster, network: Network, streams: int
            ) -> dict[str, float]:
                before = network.received("hub")
                moved = cluster.load(how, url, image, arguments.seconds, streams)
                share = (network.received("hub") - before) / max(1, moved)
                return {"Mbit/s": moved * 8e-6 / arguments.seconds, "hub": share}

            found = in_turn(
                {way: partial(measure, how, url, cluster, network, streams)
                 for way, (how, url) in ways.items()},
                rounds=arguments.rounds,
            )  # fmt: skip
        hub_share[workers] = found["direct"]["hub"]
        for way, each in found.items():
            figures.setdefault(way, {})[f"{workers} workers"] = each["Mbit/s"]
    link = arguments.link
    goals = [
        Goal(claim=f"direct / ({n} x {link:g} Mbit/s)",
             ratio=figures["direct"][f"{n} workers"] / (n * link), bound=0.93)
        for n in arguments.workers
    ]  # fmt: skip
    goals += [
        Goal(claim=f"bytes that reached the proxy's host, of those sent direct, {n} workers",
             ratio=share, bound=0.01, at_most=True)
        for n, share in hub_share.items()
    ]  # fmt: skip
    kept = report(
        "bandwidth",
        "Mbit/s of images classified, all clients together",
        figures,
        goals,
        versions={},
        settings={"link_mbit": link, "clients": _CLIENTS, "seconds": arguments.seconds,
                  "rounds": arguments.rounds, "image_bytes": image.stat().st_size},
    )  # fmt: skip
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
