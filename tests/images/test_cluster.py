"""The images on Docker's engine, as deploy/docker/compose.yaml starts them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.images.conftest import STRICT, Cluster, image_here
from tests.images.engines import ROOT
from tests.images.strict import RIGHTS
from tests.support.waiting import until_blocking

pytestmark = pytest.mark.system

_SOCKET = "/run/fingerpost/worker.sock"


def test_a_real_image_is_answered(cluster: Cluster) -> None:
    images = [f"/images/{colour}.{form}" for colour in ("red", "blue") for form in ("png", "jpg")]
    proxy = ("--proxy", "http://proxy:12480")
    done = cluster.command("classify", *proxy, "--model", "colours", "--json", *images)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(images)
    for name, answer in zip(images, answers, strict=True):
        assert ("red" in name) == ('"red"' in json.dumps(first(answer))), answer
    wrong = {"0.0.0.0", "127.0.0.1"}  # noqa: S104 - no other container reaches them
    assert {worker["host"] for worker in cluster.known()}.isdisjoint(wrong)


def first(answer: dict[str, Any]) -> object:
    return next(iter(answer["predictions"]))


def test_processes_have_no_rights_and_no_place_to_write(cluster: Cluster) -> None:
    for name in (*cluster.workers(), "test_proxy_1"):
        said = cluster.docker("exec", name, "python3", "-c", RIGHTS).stdout
        lines = {tuple(line.split()) for line in said.splitlines()}
        assert ("Uid", *["65532"] * 4) in lines
        assert ("CapEff", "0" * 16) in lines
        assert ("CapBnd", "0" * 16) in lines
        assert ("NoNewPrivs", "1") in lines
        assert ("cannot", "/", "EROFS") in lines
        assert ("cannot", "/opt/fingerpost", "EROFS") in lines


def test_the_health_check_follows_the_process(cluster: Cluster) -> None:
    docker = cluster.docker
    for name in ("test_proxy_1", *cluster.workers()):
        until_blocking(lambda name=name: health(cluster, name) == "healthy", within_s=60)
    quick = ("--health-interval", "1s", "--health-retries", "1", "--health-timeout", "4s")
    name = "checked"
    docker(
        *("run", "-d", "--name", name, *STRICT, *quick, "--network", "test_default"),
        *(image_here("core"), "proxy", "--registry", "consul://consul:8500"),
        *("--host", "0.0.0.0", "--port", "9999", "--insecure"),  # noqa: S104 - in the container
    )
    try:
        until_blocking(lambda: health(cluster, name) == "healthy", within_s=60)
        docker("kill", "--signal", "STOP", name)
        until_blocking(lambda: health(cluster, name) == "unhealthy", within_s=60)
        docker("kill", "--signal", "CONT", name)
        until_blocking(lambda: health(cluster, name) == "healthy", within_s=60)
    finally:
        docker("rm", "-f", name)


def health(cluster: Cluster, name: str) -> str:
    return str(cluster.docker.inspect(name, "State.Health.Status"))


def test_docker_stop_under_load_fails_nothing(cluster: Cluster) -> None:
    """Each worker is stopped and started again while 50 images/s come in."""
    docker = cluster.docker
    load = docker(
        *(
            "run",
            "-d",
            *STRICT,
            *cluster.where(),
            image_here("core"),
            "bench",
            "colours",
            "/images",
        ),
        *("--rate", "50", "--seconds", "900", "--warm-up", "1", "--json", "-"),
        *("--proxy", "http://proxy:12480"),
    ).stdout.strip()
    for name in cluster.workers():
        docker("stop", "-t", "60", name)
        assert docker.inspect(name, "State.ExitCode") == 0, docker("logs", name).stderr[-2000:]
        assert "draining" in docker("logs", name).stderr
        docker("start", name)
        until_blocking(lambda: len(cluster.known()) == 2, within_s=60, every_s=0.5)
        assert docker.inspect(load, "State.Running"), docker("logs", load).stderr[-2000:]
    docker("kill", "--signal", "INT", load)  # it ends the measurement, and prints it
    assert docker("wait", load).stdout.strip() == "0"
    said = docker("logs", load)
    report = json.loads(said.stdout)
    docker("rm", load)
    assert report["failed"] == 0, report["errors"]
    assert report["not_sent"] == 0
    assert report["unfinished"] <= 50, "those of the last second"
    assert report["answered"] + report["unfinished"] == report["sent"]
    assert report["seconds"] > 10
    assert len(report["workers"]) == 2


def test_prometheus_finds_the_workers(cluster: Cluster) -> None:
    def up() -> dict[str, int]:
        answer = cluster.docker.get("http://127.0.0.1:9090/api/v1/query?query=up")
        found = json.loads(answer)["data"]["result"] if answer else []
        jobs = [each["metric"]["job"] for each in found if each["value"][1] == "1"]
        return {job: jobs.count(job) for job in jobs}

    wanted = {"fingerpost-workers": 2, "fingerpost-proxies": 1}
    until_blocking(lambda: up() == wanted, within_s=90, every_s=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "MODELS"),
        ({"MODELS": "/models", "PROXY_PORT": "web"}, "services.proxy.ports"),
        ({"MODELS": "/srv", "WORKER": "onyx"}, "onyx"),
    ],
    ids=["models", "port", "image"],
)
def test_a_wrong_setting_is_refused_before_anything_starts(
    cluster: Cluster, settings: dict[str, str], message: str
) -> None:
    before = cluster.docker("ps", "-q").stdout
    images = {name: value for name, value in cluster.settings.items() if name != "MODELS"}
    done = cluster.docker.compose("up", "-d", check=False, settings={**images, **settings})
    assert done.returncode
    assert message in done.stderr
    assert cluster.docker("ps", "-q").stdout == before


def test_a_folder_of_models_that_does_not_exist_is_not_made(
    cluster: Cluster, tmp_path: Path
) -> None:
    missing = tmp_path / "modles"
    settings = {**cluster.settings, "MODELS": str(missing)}
    up = ("up", "-d", "--no-deps", "worker")
    done = cluster.docker.compose(*up, check=False, settings=settings, project="wrong")
    assert done.returncode
    assert str(missing) in done.stderr
    assert not missing.exists()
    running = cluster.docker("ps", "--filter", "label=com.docker.compose.project=wrong", "-q")
    assert not running.stdout
    cluster.docker.compose("down", settings=settings, project="wrong")


def test_a_wrong_key_is_named(cluster: Cluster, tmp_path: Path) -> None:
    text = (ROOT / "deploy/docker/compose.yaml").read_text("utf-8")
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(text.replace("stop_grace_period", "stop_grace", 1), "utf-8")
    done = cluster.docker.compose(
        "-f", wrong, "config", "-q", check=False, settings={"MODELS": "/srv"}
    )
    assert done.returncode
    assert "services.worker: 'stop_grace'" in done.stderr


def test_every_container_is_strict(cluster: Cluster) -> None:
    names = cluster.docker("ps", "--format", "{{.Names}}").stdout.split()
    assert {"test_consul_1", "test_prometheus_1", "test_proxy_1", "test_worker_1"} <= {*names}
    for name in names:
        host = cluster.docker.inspect(name, "HostConfig")
        assert is_strict(host), name
        pid = cluster.docker.inspect(name, "State.Pid")
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
        said = dict(line.split(":", 1) for line in lines)
        assert "0" not in said["Uid"].split(), name
        assert {int(said[each], 16) for each in ("CapEff", "CapPrm", "CapBnd")} == {0}, name
        assert said["NoNewPrivs"].strip() == "1", name


def is_strict(host: dict[str, Any]) -> bool:
    return (
        host["ReadonlyRootfs"] is True
        and host["CapDrop"] == ["ALL"]
        and host["SecurityOpt"] == ["no-new-privileges:true"]
        and 0 < host["PidsLimit"] <= 4096
        and 0 < host["Memory"] <= 8 * 2**30
    )


def test_workers_ask_for_gpus_where_they_shall(cluster: Cluster) -> None:
    more = ("deploy/docker/gpu.yaml",)
    settings = {**cluster.settings, "WORKER_OPTIONS": "--max-batch 8"}
    done = cluster.docker.compose("config", settings=settings, more=more)
    worker = yaml.safe_load(done.stdout)["services"]["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert worker["command"].endswith(" --devices all --max-batch 8")
    assert worker["read_only"] is True


def test_only_this_host_reaches_the_ports(cluster: Cluster) -> None:
    listed = cluster.docker("ps", "--format", "{{.Ports}}").stdout
    assert "127.0.0.1:12480->12480/tcp" in listed
    assert "127.0.0.1:9090->9090/tcp" in listed
    assert "0.0.0.0:" not in listed


def test_nothing_secret_is_in_what_docker_tells(cluster: Cluster) -> None:
    names = cluster.docker("ps", "--format", "{{.Names}}").stdout.split()
    for container in json.loads(cluster.docker("inspect", *names).stdout):
        texts = [*(container["Config"]["Env"] or ()), *(container["Config"]["Cmd"] or ())]
        assert not [each for each in texts if re.search(r"(?i)token|password|secret|key=", each)]
        assert not container["HostConfig"]["Privileged"]
        assert "/var/run/docker.sock" not in json.dumps(container["Mounts"])


# A server that is not Fingerpost's, on the Python of the image core.
_SERVER = """
import http.server, json

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"well" if self.path == "/ping" else b"", 200 if self.path == "/ping" else 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        known = self.path == "/predict" and b"PNG" in body or b"JFIF" in body
        self.answer(json.dumps({"foreign": 0.75, "other": 0.25}).encode(), 200 if known else 400)

    def answer(self, body, status):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("", 9000), Handler).serve_forever()
"""


def test_a_sidecar_registers_a_foreign_server(cluster: Cluster, tmp_path: Path) -> None:
    docker = cluster.docker
    server = {
        "entrypoint": ["python3", "-c", _SERVER.replace("$", "$$")],
        "healthcheck": {"disable": True},
    }
    (tmp_path / "server.yaml").write_text(yaml.safe_dump({"services": {"server": server}}), "utf-8")
    settings = {
        **cluster.settings,
        "SERVER_IMAGE": image_here("core"),
        "SERVICE": "articles",
        "SERVER_PORT": "9000",
        "SERVER_CHECK": "http:/ping",
        "SERVER_PATH": "/predict",
    }
    more = ("deploy/docker/foreign.yaml", tmp_path / "server.yaml")
    up = ("up", "-d", "--no-deps", "server", "sidecar")
    docker.compose(*up, settings=settings, more=more)

    def known() -> list[Any]:
        answer = docker.get("http://127.0.0.1:12480/v1/resolve/articles")
        return json.loads(answer)["instances"] if answer else []

    try:
        until_blocking(lambda: len(known()) == 1, within_s=60, every_s=0.5)
        host = known()[0]["host"]
        assert host == docker.inspect(
            "test_server_1", "NetworkSettings.Networks.test_default.IPAddress"
        )
        for name in ("test_server_1", "test_sidecar_1"):
            assert is_strict(docker.inspect(name, "HostConfig")), name
        done = cluster.command(
            *("classify", "--proxy", "http://proxy:12480", "--model", "articles", "--json"),
            "/images/red.png",
        )
        assert "foreign" in done.stdout
        until_blocking(lambda: health(cluster, "test_sidecar_1") == "healthy", within_s=60)
        said = docker("exec", "test_sidecar_1", "python3", "-c", RIGHTS).stdout
        lines = {tuple(line.split()) for line in said.splitlines()}
        assert {("CapEff", "0" * 16), ("cannot", "/", "EROFS")} <= lines
        docker("stop", "-t", "60", "test_sidecar_1")
        assert docker.inspect("test_sidecar_1", "State.ExitCode") == 0
        until_blocking(lambda: not known(), within_s=30, every_s=0.5)
    finally:
        print(docker("logs", "test_sidecar_1", check=False).stderr[-3000:])
        docker("rm", "-f", "test_server_1", "test_sidecar_1", check=False)
    missing = {name: text for name, text in settings.items() if name != "SERVICE"}
    refused = docker.compose(*up, settings=missing, more=more, check=False)
    assert refused.returncode
    assert "SERVICE" in refused.stderr


def test_programs_in_containers_use_the_unix_socket(cluster: Cluster) -> None:
    """The worker starts anew, and so it does in the next test."""
    more = ("deploy/docker/uds.yaml",)
    settings = {**cluster.settings, "WORKER_OPTIONS": "--access-log -"}
    up = ("up", "-d", "--no-deps", "--scale", "worker=1", "worker")
    cluster.docker.compose(*up, settings=settings, more=more)
    until_blocking(
        lambda: [each["meta"].get("uds") for each in cluster.known()] == [_SOCKET],
        within_s=120,
        every_s=0.5,
    )
    (worker,) = cluster.workers()
    shared = ("-v", "fingerpost-sockets:/run/fingerpost:ro")

    def callers() -> list[str]:
        lines = map(json.loads, cluster.docker("logs", worker).stdout.splitlines())
        return [each["client"] for each in lines if each["path"].startswith("/v1/classify")]

    for number, given in enumerate((shared, ()), 1):
        cluster.docker(
            *("run", "--rm", *STRICT, *cluster.where(), *given, image_here("core"), "classify"),
            *("--proxy", "http://proxy:12480", "--model", "colours", "/images/red.png"),
        )
        until_blocking(lambda number=number: len(callers()) == number)
    assert [each.startswith("uid 65532") for each in callers()] == [True, False]


def test_front_ends_work_in_a_container_as_strict_as_others(cluster: Cluster) -> None:
    settings = {**cluster.settings, "WORKER_OPTIONS": "--front-ends 2"}
    up = ("up", "-d", "--no-deps", "--scale", "worker=1", "worker")
    cluster.docker.compose(*up, settings=settings)
    until_blocking(
        lambda: [each["meta"].get("uds") for each in cluster.known()] == [None],
        within_s=120,
        every_s=0.5,
    )
    (worker,) = cluster.workers()
    assert len(cluster.docker("top", worker).stdout.splitlines()) >= 1 + 3, "head, and 3 processes"
    test_a_real_image_is_answered(cluster)
    until_blocking(lambda: health(cluster, worker) == "healthy", within_s=60)
    cluster.docker("stop", "-t", "60", worker)
    assert cluster.docker.inspect(worker, "State.ExitCode") == 0


# A program that knows gRPC and not Fingerpost: it asks for a model, and connects to what xDS tells.
_CALLER = """
import grpc

with grpc.insecure_channel("xds:///colours") as channel:
    ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
    for _ in range(20):
        assert ready(b"", timeout=30) == b"\\x08\\x01"
print("ready")
"""


def test_a_client_of_grpc_finds_the_workers(cluster: Cluster) -> None:
    """The last test here: it starts proxy and workers anew, with further ports."""
    more = ("deploy/docker/grpc.yaml",)
    up = ("up", "-d", "--no-deps", "--scale", "worker=2", "proxy", "worker")
    cluster.docker.compose(*up, settings=cluster.settings, more=more)

    def ports() -> list[dict[str, int]]:
        return [each["ports"] for each in cluster.known()]

    wanted = {"http": 12490, "grpc": 12990}
    until_blocking(lambda: ports() == [wanted, wanted], within_s=120, every_s=0.5)
    bootstrap = cluster.command("xds-bootstrap", "proxy").stdout
    called = cluster.docker(
        *("run", "--rm", *STRICT, "--network", "test_default", "--entrypoint", "python3"),
        *("-e", f"GRPC_XDS_BOOTSTRAP_CONFIG={bootstrap}", image_here("onnx"), "-c", _CALLER),
    )
    assert called.stdout == "ready\n"
    assert "127.0.0.1:12482->12482/tcp" in cluster.docker("ps", "--format", "{{.Ports}}").stdout
    for name in ("test_proxy_1", *cluster.workers()):
        until_blocking(lambda name=name: health(cluster, name) == "healthy", within_s=60)
