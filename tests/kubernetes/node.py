"""One real node of Kubernetes 1.20 in a network namespace of its own: control plane, kubelet, pods.

It needs root and Debian's packages containerd, runc, containernetworking-plugins, iptables and
conntrack; `get-kubernetes` builds the rest. There is no DNS, and NetworkPolicies are stored only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import until_blocking

__all__ = ["Node"]

_GET = Path(__file__).parents[1] / "support" / "get-kubernetes"
_NEEDED = ("containerd", "ctr", "runc", "iptables", "conntrack", "nsenter", "ip")
_PLUGINS = Path("/usr/lib/cni")
_ADDRESS = "10.77.0.1"
_API = 16443
# These kernels' control groups and limits: no oom scores below 0, no systemd.
_CONTAINERD = """\
version = 2
root = "{folder}/ctr"
state = "{folder}/ctr-state"
[grpc]
  address = "{folder}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
"""
_KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {address}
healthzBindAddress: 127.0.0.1
readOnlyPort: 0
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
failSwapOn: false
oomScoreAdj: 0
resolvConf: /dev/null
nodeStatusUpdateFrequency: 2s
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
"""
_PROXY = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: kubeconfig}}
mode: iptables
clusterCIDR: 10.78.0.0/24
bindAddress: {address}
hostnameOverride: n1
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
"""


class Node:
    """A cluster of one node, which ends with `stop`.

    Args:
        folder: where it puts all its files.
        tools: the folder with helm and kubectl.
        pause: the image that each pod starts with.
    """

    def __init__(self, folder: Path, tools: Path, pause: str) -> None:
        missing = [each for each in _NEEDED if shutil.which(each) is None]
        if missing or not (_PLUGINS / "bridge").exists():
            pytest.fail(
                f"{', '.join(missing) or _PLUGINS} is missing: apt-get install containerd runc "
                "containernetworking-plugins iptables conntrack"
            )
        got = subprocess.run([_GET, "node"], capture_output=True, text=True, check=False)
        if got.returncode:
            pytest.fail(got.stderr)
        self._programs = Path(got.stdout.strip())
        self._tools = tools
        self._folder = folder
        self._pause = pause
        self._space = f"fpk8s-{os.getpid()}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[object, ...]] = {}
        self._token = secrets.token_hex(16)

    # ---- commands inside

    def inside(self, *command: object) -> list[str]:
        """A command line that runs in the node's network."""
        return [
            "nsenter", f"--net=/run/netns/{self._space}", *(str(each) for each in command),
        ]  # fmt: skip

    def run(
        self, *command: object, check: bool = True, given: str | None = None, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the node's network, with its kubeconfig."""
        done = subprocess.run(
            self.inside(*command),
            capture_output=True,
            text=True,
            check=False,
            input=given,
            timeout=timeout_s,
            env={**os.environ, "KUBECONFIG": str(self._folder / "kubeconfig")},
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def kubectl(
        self, *arguments: object, check: bool = True, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.run(self._tools / "kubectl", *arguments, check=check, given=given)

    def helm(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self.run(self._tools / "helm", *arguments)

    def get(self, *arguments: object) -> Any:
        """What `kubectl get` says, as JSON."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def load_image(self, archive: Path) -> None:
        """Make the images of an archive known to containerd."""
        self.run(*self._ctr(), "images", "import", archive)

    def tag_image(self, name: str, other: str) -> None:
        """Give an image another name."""
        self.run(*self._ctr(), "images", "tag", name, other)

    def _ctr(self) -> tuple[object, ...]:
        return ("ctr", "-a", self._folder / "c.sock", "-n", "k8s.io")

    # ---- start and stop

    def start(self) -> None:
        """Start all of it; returns when the node is ready."""
        self._make_network()
        self._write_files()
        peer, client = "http://127.0.0.1:23800", "http://127.0.0.1:23790"
        self._begin(
            "etcd",
            *("etcd", "--data-dir", "etcd", "--unsafe-no-fsync"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
        )
        self._begin(
            "api",
            *("kube-apiserver", f"--etcd-servers={client}", "--bind-address=0.0.0.0"),
            *(f"--advertise-address={_ADDRESS}", f"--secure-port={_API}", "--cert-dir=certs"),
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            *("--service-account-key-file=sa.key", "--service-account-signing-key-file=sa.key"),
            *("--token-auth-file=tokens.csv", "--authorization-mode=RBAC"),
            "--service-cluster-ip-range=10.0.0.0/24",
        )
        self._begin("containerd", "containerd", "-c", "containerd.toml")
        self._until("the API server answers", lambda: self._answers("get", "--raw", "/readyz"))
        self._begin(
            "controllers",
            *("kube-controller-manager", "--kubeconfig", "kubeconfig"),
            *("--service-account-private-key-file", "sa.key"),
            *("--root-ca-file", "certs/apiserver.crt", "--use-service-account-credentials"),
            *("--bind-address", "127.0.0.1", "--port", "0", "--leader-elect=false"),
        )
        self._begin(
            "scheduler",
            *("kube-scheduler", "--kubeconfig", "kubeconfig", "--bind-address", "127.0.0.1"),
            *("--port", "0", "--leader-elect=false"),
        )
        socket = f"unix://{self._folder}/c.sock"
        self._begin(
            "kubelet",
            *("kubelet", "--kubeconfig", "kubeconfig", "--config", "kubelet.yaml"),
            *("--root-dir", self._folder / "kubelet", "--cert-dir", self._folder / "kcerts"),
            *("--container-runtime", "remote", "--container-runtime-endpoint", socket),
            *("--image-service-endpoint", socket, "--hostname-override", "n1"),
            *("--node-ip", _ADDRESS),
        )
        self._begin("proxy", "kube-proxy", "--config", "proxy.yaml")
        self._until("the node is ready", self.ready)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self._folder / "kubeconfig"

    def ready(self) -> bool:
        """Whether the control plane takes the node for ready."""
        got = self.kubectl(
            "get", "node", "n1", "-o",
            "jsonpath={.status.conditions[?(@.type=='Ready')].status}", check=False,
        )  # fmt: skip
        return got.stdout.strip() == "True"

    def kill(self, name: str) -> None:
        """End a program of the node as `kill -9` does."""
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def again(self, name: str) -> None:
        """Start a program that was killed."""
        self._begin(name, *self._commands[name])

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"== {each.name}\n{each.read_text(errors='replace')[-1500:]}"
            for each in sorted(self._folder.glob("*.log"))
        )

    def stop(self) -> None:
        """End all pods and programs, and take away what they leave on the machine."""
        with contextlib.suppress(Exception):
            self.kubectl(
                *("delete", "deploy,rs,pod", "--all", "-A", "--grace-period=1"),
                *("--timeout=30s", "--wait=false"), check=False,
            )  # fmt: skip
            end = time.monotonic() + 30
            while self._tasks() and time.monotonic() < end:
                time.sleep(0.5)
        for name in ("proxy", "kubelet", "scheduler", "controllers"):
            self._end(name)
        with contextlib.suppress(Exception):
            for task in self._tasks():
                self.run(*self._ctr(), "task", "rm", "-f", task, check=False)
        for name in ("containerd", "api", "etcd"):
            self._end(name)
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted(mounts, reverse=True):
            if mount.startswith(f"{self._folder}/"):
                subprocess.run(["umount", "-l", mount], check=False)
        subprocess.run(["ip", "netns", "del", self._space], check=False)
        for group in Path("/sys/fs/cgroup").glob("*/kubepods"):
            subprocess.run(
                ["find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"],
                capture_output=True, check=False,
            )  # fmt: skip

    def _tasks(self) -> list[str]:
        return self.run(*self._ctr(), "task", "ls", "-q", check=False).stdout.split()

    def _end(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _begin(self, name: str, *command: object) -> None:
        self._commands[name] = command
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self.inside(*command),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": f"{self._programs}:{os.environ['PATH']}", "HOME": str(self._folder)},
            )

    def _until(self, what: str, condition: Any) -> None:
        try:
            until_blocking(condition, what, within_s=180, every_s=0.3)
        except AssertionError:
            logs = self.logs()
            self.stop()
            pytest.fail(f"{what}: not within 180 s\n{logs}")

    def _answers(self, *arguments: str) -> bool:
        return self.kubectl(*arguments, check=False).returncode == 0

    def _make_network(self) -> None:
        in_it = ("ip", "-n", self._space)
        for words in (
            ("ip", "netns", "add", self._space),
            (*in_it, "link", "set", "lo", "up"),
            (*in_it, "link", "add", "br0", "type", "bridge"),
            (*in_it, "link", "add", "v0", "type", "veth", "peer", "name", "v1"),
            (*in_it, "link", "set", "v0", "master", "br0", "up"),
            (*in_it, "link", "set", "v1", "up"),
            (*in_it, "addr", "add", f"{_ADDRESS}/24", "dev", "br0"),
            (*in_it, "link", "set", "br0", "up"),
            (*in_it, "route", "add", "default", "dev", "br0"),
        ):
            subprocess.run(words, check=True, capture_output=True)
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def _write_files(self) -> None:
        folder = self._folder
        subprocess.run(
            ["openssl", "genrsa", "-out", folder / "sa.key", "2048"],
            check=True, capture_output=True,
        )  # fmt: skip
        (folder / "tokens.csv").write_text(f'{self._token},admin,1,"system:masters"\n')
        server = {
            "server": f"https://127.0.0.1:{_API}",
            "insecure-skip-tls-verify": True,
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "a", "user": {"token": self._token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "a"}}],
        }
        (folder / "kubeconfig").write_text(json.dumps(config))
        (folder / "kubeconfig").chmod(0o600)
        ipam = {
            "type": "host-local",
            "dataDir": f"{folder}/ipam",
            "ranges": [[{"subnet": "10.78.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam}
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        (folder / "cni").mkdir()
        (folder / "cni" / "10.conflist").write_text(
            json.dumps({"cniVersion": "0.4.0", "name": "fp", "plugins": [bridge, ports]})
        )
        (folder / "containerd.toml").write_text(
            _CONTAINERD.format(folder=folder, pause=self._pause, plugins=_PLUGINS)
        )
        (folder / "kubelet.yaml").write_text(_KUBELET.format(address=_ADDRESS))
        (folder / "proxy.yaml").write_text(_PROXY.format(address=_ADDRESS))
