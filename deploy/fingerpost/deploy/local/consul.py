"""One Consul agent on this machine, with ACLs that deny by default and mutual TLS; for the demo."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import ClientError, ClientSession, ClientTimeout

from fingerpost.errors import ConfigurationError
from fingerpost.security.secret_file import write_file
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.security.tls import TlsConfig

__all__ = ["POLICIES", "ConsulPorts", "LocalConsul"]

POLICIES: Final = {
    "agent": 'node_prefix "" { policy = "write" } service_prefix "" { policy = "read" }',
    "reader": 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" } '
    'key "fingerpost/lease-keys" { policy = "read" }',
    "worker": 'service "SERVICE" { policy = "write" } node_prefix "" { policy = "read" } '
    'key "fingerpost/lease-keys" { policy = "read" }',
    "keys": 'key "fingerpost/lease-keys" { policy = "write" }',
}
"""The rules of each kind of token, as in `deploy/consul/policies`."""

_READY_S: Final = 30.0
# It ends with the process that holds the other end of its standard input, also if that was killed.
_FOLLOW: Final = 'exec 3<&0; "$@" </dev/null & c=$!; (cat <&3 >/dev/null; kill $c) & wait $c'


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulPorts:
    """The agent's ports on loopback: its API over TLS, its servers' RPC, and gossip."""

    https: int
    server: int
    gossip: int


class LocalConsul:
    """An agent that keeps everything in memory, while inside `async with`.

    Args:
        binary: `consul`, 1.8 or later.
        folder: for its configuration, its log and its tokens (files of mode 0600).
        ports: where it listens.
        tls: its certificate, and the authority of its clients' (`client_ca`).
        client: what this process shows it.
        service: the service that the worker's token is for.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        ports: ConsulPorts,
        *,
        tls: TlsConfig,
        client: TlsConfig,
        service: str,
    ) -> None:
        self._binary = binary
        self._folder = folder
        self._ports = ports
        self._tls = tls
        self._client = ClientTls(client)
        self._service = service
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"consul+https://127.0.0.1:{ports.https}"
        self.tokens: dict[str, Path] = {}

    async def __aenter__(self) -> Self:
        """Start the agent, wait until it leads, and make the tokens `POLICIES` names.

        Raises:
            ConfigurationError: it cannot run; the message has what it wrote last.
        """
        try:
            await self._start()
            async with asyncio.timeout(_READY_S):
                await self._make_tokens()
        except BaseException as error:
            await self.__aexit__()
            if isinstance(error, TimeoutError | OSError | ClientError):
                raise ConfigurationError(
                    f"{self._binary} did not start: {error or 'no answer'}; {self._last_line()}"
                ) from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the agent."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()

    async def _start(self) -> None:
        config = self._folder / "consul.json"
        write_file(config, json.dumps(self._config()).encode(), mode=0o600, replace=True)
        with (self._folder / "consul.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("sh", "-c", _FOLLOW, "sh", str(self._binary), "agent", "-dev"),
                f"-config-file={config}",
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _config(self) -> dict[str, Any]:
        return {
            "node_name": "this-machine",
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "log_level": "warn",
            "disable_update_check": True,
            "connect": {"enabled": False},
            "ports": {
                **dict.fromkeys(("http", "dns", "grpc", "serf_wan"), -1),
                "https": self._ports.https,
                "server": self._ports.server,
                "serf_lan": self._ports.gossip,
            },
            "acl": {"enabled": True, "default_policy": "deny"},
            "verify_incoming_https": True,
            "ca_file": self._tls.client_ca,
            "cert_file": self._tls.cert,
            "key_file": self._tls.key,
        }

    async def _make_tokens(self) -> None:
        async with ClientSession(timeout=ClientTimeout(total=5.0)) as session:
            management = (await self._put(session, "acl/bootstrap"))["SecretID"]
            for name, rules in POLICIES.items():
                policy = {"Name": name, "Rules": rules.replace("SERVICE", self._service)}
                await self._put(session, "acl/policy", policy, management)
                secret = str(uuid.uuid4())
                token = {"SecretID": secret, "Policies": [{"Name": name}]}
                await self._put(session, "acl/token", token, management)
                if name == "agent":
                    await self._put(session, "agent/token/agent", {"Token": secret}, management)
                self.tokens[name] = self._folder / f"{name}.token"
                write_file(self.tokens[name], secret.encode(), mode=0o600, replace=True)

    async def _put(
        self, session: ClientSession, path: str, body: Any = None, token: str = ""
    ) -> Any:
        """One request, again and again while the agent is starting or elects itself."""
        url = f"https://127.0.0.1:{self._ports.https}/v1/{path}"
        while True:
            if self._process is not None and self._process.returncode is not None:
                raise OSError(f"it ended with status {self._process.returncode}")
            try:
                async with session.put(
                    url,
                    json=body,
                    headers={"X-Consul-Token": token} if token else {},
                    ssl=self._client.for_host(),
                ) as answer:
                    if answer.status == 200:
                        text = await answer.text()
                        return json.loads(text) if text.strip() else None
            except (ClientError, OSError):
                pass
            await asyncio.sleep(0.1)

    def _last_line(self) -> str:
        """What it wrote last."""
        lines = (self._folder / "consul.log").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
