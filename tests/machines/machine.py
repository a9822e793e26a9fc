"""Machines with systemd, made by the script `machines`, with Fingerpost installed in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.support.waiting import until_blocking

__all__ = ["ROOT", "SCRIPT", "Machine", "Machines", "make_layer", "run"]

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "machines"
CACHE = ROOT / ".cache" / "machines"

CONSUL_UNIT = """\
[Unit]
Description=Consul
[Service]
ExecStart=/usr/local/bin/consul agent -config-dir=/etc/consul.d
KillSignal=SIGINT
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""


def make_layer(folder: Path, consul: str) -> Path:
    """A tree with this checkout's wheel in `/opt/fingerpost`, and Consul, to lay over theirs.

    The environment is the one that `python3 -m venv` would make there: Debian's Python, and wheels
    for it. The machines have no way to a package index.
    """
    packages = folder / "opt/fingerpost/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    binaries = folder / "opt/fingerpost/bin"
    binaries.mkdir()
    (folder / "opt/fingerpost/pyvenv.cfg").write_text(
        "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n"
    )
    for name in ("python", "python3"):
        (binaries / name).symlink_to("/usr/bin/python3")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder / "wheel", ROOT)
    (wheel,) = (folder / "wheel").glob("*.whl")
    run(
        *pip, "install", "--target", packages, "--python-version", "3.11", "--only-binary", ":all:",
        f"{wheel}[python,security]",
    )  # fmt: skip
    shutil.rmtree(folder / "wheel")
    command = binaries / "fingerpost"
    command.write_text(
        "#!/opt/fingerpost/bin/python3\nimport sys\nfrom fingerpost.deploy.entry import main\n"
        "sys.exit(main())\n"
    )
    command.chmod(0o755)
    local = folder / "usr/local/bin"
    local.mkdir(parents=True)
    shutil.copy(consul, local / "consul")
    units = folder / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "consul.service").write_text(CONSUL_UNIT)
    return folder


def run(*command: object, check: bool = True, timeout_s: float = 300) -> str:
    """What a command prints on both outputs.

    Raises:
        AssertionError: it failed, and `check` is set.
    """
    done = subprocess.run(
        [str(each) for each in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        text=True,
    )
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


class Machine:
    """One of them."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self.number = number
        self.address = f"10.79.0.{number}"
        self.name = f"fpm{number}"
        self.root = folder / str(number) / "root"

    def kill(self) -> None:
        """End it at once, as if its power had failed."""
        run(SCRIPT, "kill", self._folder, self.number)

    def boot(self) -> None:
        """Start it, and wait until it is up: a further one, or one that was killed."""
        run(SCRIPT, "boot", self._folder, self.number)

    def pull_cable(self) -> None:
        """Cut its network off."""
        run("ip", "-n", "fpsw", "link", "set", f"p{self.number}", "down")

    def plug_cable(self) -> None:
        """Connect it again."""
        run("ip", "-n", "fpsw", "link", "set", f"p{self.number}", "up")

    def command(self, *command: object) -> list[str]:
        """The command line here that runs a command there, as root."""
        return [str(each) for each in (SCRIPT, "in", self._folder, self.number, *command)]

    def run(self, *command: object, check: bool = True, timeout_s: float = 120) -> str:
        """Run a command there; see `run`."""
        return run(*self.command(*command), check=check, timeout_s=timeout_s)

    def until(self, text: str, within_s: float = 60.0) -> None:
        """Wait until a line of shell succeeds there."""
        line = (*self.command("sh", "-c", text),)

        def succeeds() -> bool:
            return subprocess.run(line, capture_output=True, check=False).returncode == 0

        until_blocking(succeeds, text, within_s=within_s)

    def copy(self, file: Path, folder: str) -> None:
        """Copy a file of ours into a folder there."""
        shutil.copy(file, self.root / folder.removeprefix("/"))

    def shell(self, text: str, *, check: bool = True, timeout_s: float = 120) -> str:
        """Run a line of shell there."""
        return self.run("sh", "-c", text, check=check, timeout_s=timeout_s)

    def property(self, unit: str, name: str) -> str:
        """What `systemctl show` says of a unit."""
        return self.run("systemctl", "show", unit, "--value", f"--property={name}").strip()

    def journal(self, unit: str) -> str:
        """The log of a unit."""
        return self.run("journalctl", "--no-pager", "--output=cat", "-u", unit)

    def start_consul(self, servers: int, *, server: bool) -> None:
        """Start its agent; machines 1 to `servers` are the servers."""
        folder = self.root / "etc/consul.d"
        folder.mkdir(exist_ok=True)
        others = (each for each in range(1, servers + 1) if each != self.number)
        joined = ", ".join(f'"10.79.0.{each}"' for each in others)  # one that joins itself stops
        expect = f"server = true\nbootstrap_expect = {servers}\n" if server else ""
        (folder / "consul.hcl").write_text(
            f'data_dir = "/var/lib/consul"\nbind_addr = "{self.address}"\nretry_join = [{joined}]\n'
            f'retry_interval = "1s"\nclient_addr = "0.0.0.0"\n{expect}'
        )
        self.run("systemctl", "enable", "--now", "consul")


class Machines:
    """Some of them on one bridge, while inside `with`.

    Args:
        folder: for their files.
        count: how many.
        layer: what lies over the tree.
        tree: what they boot; by default Debian with what the script `machines` lists.
    """

    def __init__(self, folder: Path, count: int, layer: Path, tree: Path | None = None) -> None:
        self._folder = folder
        self._layer = layer
        self._tree = tree
        self._count = count
        self.all = [Machine(folder, number) for number in range(1, count + 1)]

    def __enter__(self) -> Self:
        tree = self._tree or CACHE / "root"
        if self._tree is None:
            run(SCRIPT, "root", tree, timeout_s=900)
        try:
            run(SCRIPT, "up", f"{self._layer}:{tree}", self._folder, self._count)
        except BaseException:
            self.__exit__()
            raise
        return self

    def further(self) -> Machine:
        """A further machine, which has not booted."""
        machine = Machine(self._folder, len(self.all) + 1)
        self.all.append(machine)
        return machine

    def add(self) -> Machine:
        """A further machine, which has just booted."""
        machine = self.further()
        machine.boot()
        return machine

    def __exit__(self, *_: object) -> None:
        run(SCRIPT, "down", self._folder, check=False)
