"""Wrong values for `fingerpost join`: a line that names each, and a machine as it was before."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.support.certificates import Authority, Pair
from tests.support.join_command import Done, JoinedMachine, run_command
from tests.support.ports import free_port
from tests.support.repository import write_version

from fingerpost.deploy.doctor import examination
from fingerpost.deploy.doctor.finding import Finding
from fingerpost.deploy.join import first_image
from fingerpost.errors import NoWorker
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry.embedded import EmbeddedRegistry

pytestmark = pytest.mark.shell


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """Files for options, right and wrong ones, and what is taken on this machine."""

    folder: Path
    good: Pair
    old: Pair
    future: Pair
    other: Pair
    taken: int
    closed: int

    def filled(self, text: str) -> str:
        """An argument with the paths and ports of its placeholders."""
        names = {"T": self.folder, "TAKEN": self.taken, "CLOSED": self.closed}
        for name in ("good", "old", "future", "other"):
            pair: Pair = getattr(self, name)
            names |= {name: pair.cert, f"{name}_key": pair.key}
        return text.format(**names)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with (
        TemporaryDirectory() as name,
        socket.create_server(("0.0.0.0", 0)) as taken,  # noqa: S104 - as the worker would
    ):
        folder = Path(name)
        folder.chmod(0o755)
        write_version(folder / "models/digits", 1)
        write_version(folder / "damaged/digits", 1)
        (folder / "damaged/digits/1/model.toml").write_text("framework = [")
        write_version(folder / "closed/digits", 1)
        (folder / "closed/digits/1/model.toml").chmod(0o600)
        (folder / "empty").mkdir()
        (folder / "text").write_text("neither PEM nor JSON\n")
        (folder / "binary").write_bytes(b"\xff\xfe\0")
        (folder / "callers.toml").write_text("[[callers]]\n")
        authority, another = Authority(folder), Authority(folder, "another")
        yield Lab(
            folder=folder,
            good=authority.issue("good"),
            old=authority.issue("old", valid_from_s=-7200, valid_to_s=-3600),
            future=authority.issue("future", valid_from_s=3600, valid_to_s=7200),
            other=another.issue("other"),
            taken=taken.getsockname()[1],
            closed=free_port(),
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JoinedMachine:
    """A machine of which only what these tests are about is looked at; the rest takes time."""
    machine = JoinedMachine(tmp_path)
    machine.install(monkeypatch)

    def nothing(*_: object, **__: object) -> list[Finding]:
        return []

    for name in ("check_machine", "check_gpus", "check_frameworks", "installed_packages"):
        monkeypatch.setattr(examination, name, nothing)
    return machine


# Further arguments, the status, and what is said; `REGISTRY` and `MODELS` replace the right ones.
OPTIONS = [
    ("REGISTRY=consull://127.0.0.1:8500", 3, "'consull://127.0.0.1:8500': expected consul://HOST"),
    ("REGISTRY=127.0.0.1:8500", 3, "'127.0.0.1:8500': expected consul://HOST:PORT"),
    ("REGISTRY=consul://127.0.0.1:85000", 3, "Port out of range"),
    ("REGISTRY=consul://127.0.0.1:{CLOSED}", 3, ":{CLOSED} cannot be reached: Connection refused"),
    ("REGISTRY=consul://nohost.invalid:8500", 3, "nohost.invalid:8500 cannot be reached"),
    ("REGISTRY=consul://127.0.0.1:8500'", 1, "cannot stand in a unit"),
    ("MODELS={T}/nowhere", 3, "{T}/nowhere cannot be read: No such file"),
    ("MODELS={T}/empty", 3, "{T}/empty is empty"),
    ("MODELS={T}/text", 3, "{T}/text is not a model"),
    ("MODELS={T}/damaged", 3, "{T}/damaged/digits/1/model.toml: Invalid value"),
    ("MODELS={T}/closed", 3, "model.toml (mode 0600) cannot be read by the service"),
    ("MODELS={T}/models/digits/1", 3, "{T}/models/digits/1 has no models"),
    ("MODELS={T}/models/digits", 3, "{T}/models/digits is the folder of one model"),
    ("MODELS=models", 1, "--models models is not an absolute path"),
    ("--port {TAKEN}", 3, ":{TAKEN}: Address already in use; give another port (--port)"),
    ("--port 80", 2, "--port"),
    ("-- --port 80", 1, "--port stands among the options of the workers: give it to join itself"),
    ("-- --grpc-port {TAKEN}", 3, "give another one (--grpc-port)"),
    ("-- --zmq-port {TAKEN}", 3, "give another one (--zmq-port)"),
    ("-- --grpc-port 80", 1, "--grpc-port 80 is a port for which the service has no right"),
    ("--tls-cert {good}", 1, "has no key: name its private key (--tls-key)"),
    ("--tls-key {good_key}", 1, "has no certificate: name it (--tls-cert)"),
    ("--tls-cert {good} --tls-key {other_key}", 1, "is not that of the certificate '{good}'"),
    ("--tls-cert {old} --tls-key {old_key}", 3, "'{old}' has expired"),
    ("--tls-cert {future} --tls-key {future_key}", 3, "{future} is valid only from"),
    ("--tls-cert {T}/none --tls-key {good_key}", 1, "--tls-cert {T}/none cannot be read: No such"),
    ("--tls-cert {good} --tls-key {good_key} --tls-client-ca {T}/text", 3, "(--tls-client-ca)"),
    ("--tls-ca {T}/none", 1, "(--tls-ca) '{T}/none' cannot be read"),
    ("--registry-ca-file {T}/none", 1, "--registry-ca-file {T}/none cannot be read: No such file"),
    ("--registry-ca-file {good}", 3, "--registry-insecure need TLS"),
    ("--registry-cert-file {good}", 1, "'{good}' has no --registry-key-file"),
    ("--registry-token-file {T}/none", 1, "--registry-token-file {T}/none cannot be read"),
    ("--registry-token-file {T}/binary", 1, "{T}/binary cannot be read: it is not text"),
    ("--registry-token-file {T}/text", 3, "mode 0644"),
    ("--registry-token-file {T}/text", 3, "is not a valid ACL token"),
    ("--token-file {T}/none", 1, "'{T}/none' cannot be read: No such file"),
    ("--token-file {T}/text --api-key x", 1, "api_key and token_file exclude each other"),
    ("--proxy http://127.0.0.1:{CLOSED}", 3, "http://127.0.0.1:{CLOSED}: Connection refused"),
    ("--proxy consul://127.0.0.1:8500", 3, "'consul://127.0.0.1:8500' is not a valid proxy URL"),
    ("-- --zone rack\t7", 1, "the worker's option 'rack\\t7' cannot stand in a unit"),
    ("-- --weight 0", 1, "--weight is 0: it must be 1 to 65535"),
    ("-- --weight -1", 1, "--weight is -1: it must be 1"),
    ("-- --weight nan", 2, "--weight"),
    ("-- --poll nan", 1, "--poll is nan: it must be 0 to"),
    ("-- --lease -1", 1, "--lease is -1.0: it must be 0 or more"),
    ("-- --classes a:2", 1, "the floor '2' is not a share"),
    ("-- --versions newest", 1, "'newest': expected latest:N"),
    ("-- --only cats", 3, "has no model cats"),
    ("-- --device cpu", 1, "--device has no effect on workers of all GPUs"),
    ("-- --advertise 10.0.0.1:80", 1, "leave out the port, 10.0.0.1"),
    ("-- --host 192.0.2.1", 1, "cannot listen on 192.0.2.1:0"),
    ("-- --uds /run/w.sock", 1, "must contain 'fingerpost'"),
    ("-- --uds /run/fingerpost/w.sock", 1, "use /run/fingerpost-workers/w.sock"),
    ("-- --access-log /var/log/x.log", 1, "--access-log /var/log/x.log is where the service may"),
    ("-- --log-level loud", 1, "--log-level loud: use debug"),
    ("-- --callers {T}/none", 1, "name {T}/none, and there is no such file"),
    ("-- --callers {T}/callers.toml", 1, "{T}/callers.toml"),
    ("-- --registry consul://x:8500", 1, "--registry stands among the options of the workers"),
]  # fmt: skip


async def run(lab: Lab, text: str, registry: str = "") -> Done:
    """Run `join` with further arguments; those in capitals replace the right ones."""
    words = lab.filled(text).split(" ")
    given = dict(each.split("=", 1) for each in words if each.startswith(("REGISTRY=", "MODELS=")))
    more = [each for each in words if each.partition("=")[0] not in given and each]
    if "--port" not in more[: more.index("--") if "--" in more else None]:
        more = ["--port", str(free_port()), *more]
    models = given.get("MODELS", f"{lab.folder}/models")
    return await asyncio.to_thread(
        run_command, "join", given.get("REGISTRY", registry), "--models", models, *more
    )


@pytest.mark.parametrize(("text", "status", "says"), OPTIONS, ids=[each[0] for each in OPTIONS])
async def test_a_wrong_value_is_named_and_changes_nothing(
    lab: Lab, machine: JoinedMachine, text: str, status: int, says: str
) -> None:
    async with EmbeddedRegistry(port=0) as registry:
        done = await run(lab, text, registry.url)
    assert done.status == status, done
    assert lab.filled(says) in done.out + done.err, done
    assert "Traceback" not in done.err
    assert machine.written() == []
    assert machine.systemctl.calls == []


@pytest.mark.parametrize("address", ["192.0.2.1", "nohost.invalid"])
async def test_an_address_of_elsewhere_is_a_warning(
    lab: Lab, machine: JoinedMachine, address: str
) -> None:
    """It is right behind NAT, which nobody sees from here."""
    async with EmbeddedRegistry(port=0) as registry:
        done = await run(lab, f"--dry-run -- --advertise {address}", registry.url)
    assert done.status == 0, done
    assert f"--advertise {address} is not" in done.out
    assert machine.written() == []


async def test_a_registry_in_a_proxys_place(lab: Lab, machine: JoinedMachine) -> None:
    async with EmbeddedRegistry(port=0) as registry:
        done = await run(lab, f"--proxy {registry.url}", registry.url)
    assert (done.status, machine.written()) == (3, [])
    assert "it is not a proxy" in done.out


async def _answered(*_: object, **__: object) -> dict[str, str]:
    return {"10.0.0.7:12490 digits": "answered an image in 5 ms"}


async def _unlisted(*_: object, **__: object) -> dict[str, str]:
    raise NoWorker("the registry lists no worker of this machine after 30 s")


@pytest.fixture
def first_images(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Replaces what workers answer, as none is started."""
    return lambda function: monkeypatch.setattr(first_image, "send_first_images", function)


async def test_a_first_start_that_fails_is_taken_back(
    lab: Lab, machine: JoinedMachine, first_images: Callable[[object], None]
) -> None:
    first_images(_unlisted)
    async with EmbeddedRegistry(port=0) as registry:
        done = await run(lab, "", registry.url)
        assert done.status == 1
        assert "after 30 s; all that was written is removed again" in done.err
        assert machine.written() == []
        assert machine.systemctl.calls[-2].startswith("disable --now")
        first_images(_answered)
        assert (await run(lab, "", registry.url)).status == 0
        before = machine.written()
        first_images(_unlisted)
        done = await run(lab, "-- --zone rack-7", registry.url)
    assert done.status == 1
    assert "`fingerpost join --undo` takes all of it back" in done.err
    assert machine.written() == before, "a node that served stays as it is asked to be"


async def test_a_model_that_is_not_served_and_a_proxy_of_another_cluster(
    lab: Lab, machine: JoinedMachine, first_images: Callable[[object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    first_images(_answered)
    monkeypatch.setattr("fingerpost.deploy.commands.join._NAMED_S", 0.1)
    models = lab.folder / "two"
    for name in ("digits", "flowers"):
        write_version(models / name, 1)
    async with (
        EmbeddedRegistry(port=0) as registry,
        EmbeddedRegistry(port=0) as other,
        Proxy(ProxyConfig(registry=other.url, port=0)) as proxy,
    ):
        done = await run(lab, f"MODELS={models} --proxy {proxy.url}", registry.url)
    assert done.status == 3, done
    assert "no worker of this machine serves it, as it cannot be loaded" in done.out
    assert f"-> fingerpost model check {models}/flowers" in done.out
    assert "whether it uses the same registry" in done.out


@pytest.mark.parametrize("place", ["etc/fingerpost", "etc/systemd/system"])
async def test_a_file_in_the_place_of_a_folder(
    lab: Lab, machine: JoinedMachine, place: str
) -> None:
    path = machine.root / place
    if path.is_dir():
        path.rmdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    async with EmbeddedRegistry(port=0) as registry:
        done = await run(lab, "", registry.url)
    assert done.status == 1
    assert f"/{place} is not a folder" in done.err
    assert machine.systemctl.calls == []


async def test_a_folder_that_cannot_be_written_to(
    lab: Lab, machine: JoinedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, only a file system that is mounted so is like this."""
    units = machine.root / "etc/systemd/system"
    may = os.access
    monkeypatch.setattr("os.access", lambda path, mode: path != units and may(path, mode))
    async with EmbeddedRegistry(port=0) as registry:
        done = await run(lab, "", registry.url)
    assert done.status == 1
    assert "/etc/systemd/system cannot be written to" in done.err
    assert machine.written() == []
