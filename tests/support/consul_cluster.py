"""Three Consul servers and a client agent on loopback, each of which can be killed or frozen.

::

    with ConsulCluster(binary, folder) as cluster:     # formed, and every agent in the catalog
        registry = open_registry(cluster.url)          # the client agent's
        cluster.kill(cluster.leader())
        cluster.restart("server1")

The secured variant is what `deploy/consul/run-cluster` runs: its configuration, keys and tokens.
"""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.support.ports import free_ports

__all__ = ["NODES", "SERVERS", "ConsulCluster"]

SERVERS = ("server1", "server2", "server3")
NODES = (*SERVERS, "client")

_ADDRESSES: dict[str, str] = dict(
    zip(NODES, ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"), strict=True)
)
_DEPLOY = Path(__file__).parents[2] / "deploy" / "consul"


class ConsulCluster:
    """`server1` to `server3` on 127.0.0.1 to 3, `client` on 127.0.0.4, all on the same ports.

    Args:
        binary: `consul`.
        folder: for data, logs and keys.
        secured: ACLs with default deny, TLS both ways, encrypted gossip; plain HTTP without.
        services: with `secured`, the services that get a worker's token.
        raft_multiplier: 1 elects a new leader in some 3 s, Consul's default of 5 in 14 s. The
            secured variant has 1 in any case.
    """

    def __init__(
        self,
        binary: str,
        folder: Path,
        *,
        secured: bool = False,
        services: tuple[str, ...] = ("digits",),
        raft_multiplier: int = 1,
    ) -> None:
        self._binary = binary
        self._folder = folder
        self._secured = secured
        self._services = services
        self._raft_multiplier = raft_multiplier
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._addresses = dict(_ADDRESSES)  # of each node's API
        ports = free_ports(4, tuple(_ADDRESSES.values()))
        self._api_port, self.dns_port, self._server_port, self._serf_port = ports
        self._tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The client agent's API: what a worker, proxy or client on this machine is given."""
        return self.url_of("client")

    def url_of(self, node: str) -> str:
        """A node's API."""
        scheme = "consul+https" if self._secured else "http"
        return f"{scheme}://{self._addresses[node]}:{self._api_port}"

    def pid(self, node: str) -> int:
        """The process id of a node's agent."""
        return self._processes[node].pid

    @property
    def ca_file(self) -> str:
        """With `secured`: the authority of all certificates."""
        return str(self._folder / "pki" / "consul-agent-ca.pem")

    @property
    def cert_file(self) -> str:
        """With `secured`: a user's certificate."""
        return str(self._folder / "pki" / "dc1-cli-consul-0.pem")

    @property
    def key_file(self) -> str:
        """With `secured`: its private key."""
        return str(self._folder / "pki" / "dc1-cli-consul-0-key.pem")

    def token_file(self, name: str) -> str:
        """With `secured`: the file of a token: `reader`, `worker-SERVICE`, `keys`, `management`."""
        return str(self._folder / "tokens" / name)

    def start(self) -> None:
        """Start all agents; returns when each is in the catalog and healthy."""
        if self._secured:
            self._script("prepare")
        for node in NODES:
            self._spawn(node)
        if self._secured:
            self._script("bootstrap")
            self._tls = ssl.create_default_context(cafile=self.ca_file)
            self._tls.load_cert_chain(self.cert_file, self.key_file)
        self.wait_until_formed()

    def stop(self) -> None:
        """End all agents, the frozen ones too."""
        processes, self._processes = self._processes, {}
        for process in processes.values():
            process.kill()
        for process in processes.values():
            process.wait()

    def kill(self, node: str) -> None:
        """`kill -9`; its data stay."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    def freeze(self, node: str) -> None:
        """SIGSTOP: connections are accepted, and nothing answers."""
        self._processes[node].send_signal(signal.SIGSTOP)

    def cont(self, node: str) -> None:
        """SIGCONT: goes on after `freeze`."""
        self._processes[node].send_signal(signal.SIGCONT)

    def restart(self, node: str) -> None:
        """Start a node again, killed before or not, with its data; does not wait for it."""
        if node in self._processes:
            self.kill(node)
        self._spawn(node)

    @contextlib.contextmanager
    def one_more(self, node: str, address: str, api_address: str) -> Iterator[str]:
        """A further client agent whose API does not listen at the node's own address; its URL.

        That is how most agents are, with an API on loopback; here loopback is the others', too.
        For the plain variant.
        """
        self._addresses[node] = api_address
        config = json.loads((self._folder / "client.json").read_text())
        config |= {"bind_addr": address, "client_addr": api_address, "node_name": node}
        config |= {"data_dir": str(self._folder / node)}
        file = self._folder / f"{node}.json"
        file.write_text(json.dumps(config))
        command = [self._binary, "agent", "-log-level=warn", f"-config-file={file}"]
        with (self._folder / f"{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self.wait_until_formed()
            yield self.url_of(node)
        finally:
            self.kill(node)

    def leader(self) -> str | None:
        """The name of the leading server; None where there is none, or nobody to ask."""
        for node in self._processes:
            with contextlib.suppress(OSError, ValueError):
                host = self.get(node, "/v1/status/leader").rpartition(":")[0]
                for name, address in _ADDRESSES.items():
                    if address == host and name in self._processes:
                        return name
        return None

    def wait_until_formed(self, *, within_s: float = 40.0) -> None:
        """Wait until there is a leader, and the client agent sees all running agents healthy."""
        until = time.monotonic() + within_s
        while not self._is_formed():
            dead = [node for node, each in self._processes.items() if each.poll() is not None]
            if dead or time.monotonic() > until:
                logs = "\n".join(f"{node}: {self._log(node)}" for node in dead or NODES)
                raise RuntimeError(f"the Consul cluster did not form; ended: {dead}\n{logs}")
            time.sleep(0.05)

    def get(self, node: str, path: str) -> Any:
        """The JSON that a node's agent answers; with all rights where it is secured."""
        scheme = "https" if self._secured else "http"
        url = f"{scheme}://{self._addresses[node]}:{self._api_port}{path}"
        request = urllib.request.Request(url)  # noqa: S310 (loopback)
        if self._secured:
            token = Path(self.token_file("management")).read_text().strip()
            request.add_header("X-Consul-Token", token)
        with urllib.request.urlopen(request, timeout=2, context=self._tls) as answer:  # noqa: S310
            return json.load(answer)

    def _is_formed(self) -> bool:
        if "client" not in self._processes or self.leader() is None:
            return False
        with contextlib.suppress(OSError, ValueError, KeyError):
            checks = self.get("client", "/v1/health/state/any?consistent")
            alive = {
                check["Node"]
                for check in checks
                if check["CheckID"] == "serfHealth" and check["Status"] == "passing"
            }
            servers = self.get("client", "/v1/catalog/service/consul?consistent")
            running = set(self._processes)
            return running <= alive and running & set(SERVERS) <= {each["Node"] for each in servers}
        return False

    def _spawn(self, node: str) -> None:
        with (self._folder / f"{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                self._command(node), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _command(self, node: str) -> list[str]:
        command = [self._binary, "agent", "-log-level=warn"]
        if self._secured:
            role = "client" if node == "client" else "server"
            files = (
                _DEPLOY / "cluster" / "common.hcl",
                _DEPLOY / "cluster" / f"{role}.hcl",
                self._folder / node / "node.hcl",
            )
            return command + [f"-config-file={file}" for file in files]
        config: dict[str, Any] = {
            "performance": {"raft_multiplier": self._raft_multiplier},
            "leave_on_terminate": False,
            "disable_update_check": True,
            "retry_join": [f"{_ADDRESSES[server]}:{self._serf_port}" for server in SERVERS],
            "retry_interval": "500ms",
            "limits": {"http_max_conns_per_client": 400},
            "ports": {
                "http": self._api_port,
                "dns": self.dns_port,
                "server": self._server_port,
                "serf_lan": self._serf_port,
                "serf_wan": -1,
                "grpc": -1,
            },
        }
        if node != "client":
            config |= {"server": True, "bootstrap_expect": 3}
        file = self._folder / f"{node}.json"
        file.write_text(json.dumps(config))
        return [
            *command,
            f"-config-file={file}",
            f"-node={node}",
            f"-bind={_ADDRESSES[node]}",
            f"-client={_ADDRESSES[node]}",
            f"-data-dir={self._folder / node}",
        ]

    def _script(self, step: str) -> None:
        run = subprocess.run(
            [
                _DEPLOY / "run-cluster",
                "--only",
                step,
                "--services",
                " ".join(self._services),
                "--https-port",
                str(self._api_port),
                "--dns-port",
                str(self.dns_port),
                "--server-port",
                str(self._server_port),
                "--serf-port",
                str(self._serf_port),
                self._folder,
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if run.returncode:
            raise RuntimeError(f"run-cluster --only {step}: {run.stderr}")

    def _log(self, node: str) -> str:
        with contextlib.suppress(OSError):
            return (self._folder / f"{node}.log").read_text()[-1500:]
        return ""
