"""What a message or a help text says to write can be written on the very command that says it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import commands

ROOT = Path(__file__).parents[2]
ROOMS = ("registry", "client", "proxy", "worker", "deploy")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
# A command that a text says to run: its options are looked for on it.
COMMAND = re.compile(r"`fingerpost ((?:model|ca|caller|keys) [a-z]+|[a-z]+(?:-[a-z]+)*)([^`]*)`")

MODEL = ("model show", "model check", "model export", "model quantize", "model bench")
LOADS = ("worker", "classify", "evaluate", "up", *MODEL)
CLUSTER = ("classify", "stream", "bench", "resolve", "status")

# The commands that show the messages of a module; or the command that a message tells people to
# start with the option, where it is about another process. The longest fitting path counts, and
# `module:--option` is for the messages about that option alone.
SHOWN_BY: dict[str, tuple[str, ...]] = {
    "registry/http/browser_guard.py": ("registry",),
    "registry/consul/agent.py": ("worker",),
    "registry/consul/draining.py": ("drain", "undrain"),
    "registry/consul/http.py": ("classify", "stream", "bench"),
    "registry/consul/registration.py": ("worker",),
    "registry/embedded/server.py": ("registry",),
    "registry/kubernetes/kubeconfig.py": ("worker", "proxy", "drain", "status"),
    "registry/kubernetes/": ("worker",),
    "registry/http/app.py": ("worker", "proxy", "registry"),
    "registry/seaport.py": ("worker", "proxy"),
    "client/route/relay.py": ("proxy",),
    "client/zmq/": ("worker",),
    "deploy/named_inputs.py": ("infer",),
    "registry/watching/signatures.py": ("worker",),
    "client/proxy_poll.py": CLUSTER,
    "client/resolver.py": CLUSTER,
    "proxy/": ("proxy",),
    "worker/address.py": ("worker",),
    "worker/serving/": ("worker",),
    "worker/protocols/v2/": ("worker",),
    "worker/grpc/": ("worker",),
    "worker/transports.py": ("worker",),
    "worker/zmq/": ("worker",),
    "worker/zmq_config.py": ("worker",),
    "worker/front_end_limits.py": ("worker",),
    "worker/front_ends/": ("worker",),
    "worker/config.py": ("worker",),
    "worker/backends/": LOADS,
    "worker/backends/caffe.py": ("worker", "model check", "model bench"),
    "worker/backends/onnx.py": ("worker", "model check", "model bench"),
    "worker/backends/openvino.py": ("worker", "model check", "model bench"),
    "worker/backends/litert.py": ("worker", "model check", "model bench"),
    "worker/backends/loading.py": ("worker", "model check", "model bench"),
    "worker/backends/torch.py": ("worker", "model check", "model bench"),
    "worker/backends/devices.py": ("worker", "model check", "model bench"),
    # Only the commands that have these can say that their values are wrong.
    "worker/backends/onnx.py:--memory-fraction": ("worker",),
    "worker/backends/devices.py:--memory-fraction": ("worker",),
    "worker/backends/devices.py:--devices": ("worker",),
    "worker/backends/devices.py:--processes-per-device": ("worker",),
    "worker/models/": LOADS,
    "worker/models/contents.py:--models": ("worker", "up"),
    "worker/repository/loader.py": LOADS,
    "worker/repository/sources.py": ("worker",),
    "worker/telemetry/metrics.py": ("worker",),
    "worker/telemetry/probe_watch.py": ("doctor",),
    "worker/training/": ("train",),
    "worker/tools/quantize.py": ("model quantize",),
    "worker/tools/quantize.py:--tolerance": ("model export",),
    "deploy/xds_bootstrap.py": ("xds-bootstrap",),
    "deploy/load_test/": ("bench",),
    "deploy/load_test/plot.py": ("bench", "evaluate"),
    "deploy/evaluation/": ("evaluate",),
    "deploy/sidecar/": ("register",),
    "deploy/without_tls.py:--zmq-key": ("worker",),
    "deploy/without_tls.py:--zmq-clients": ("worker",),
    "deploy/demo/secure/cluster.py": ("worker",),
    "deploy/demo/secure/cluster.py:--lease-key": ("proxy",),
    "deploy/demo/secure/show.py": ("demo",),
    "deploy/demo/shapes/show.py": ("demo",),
    "deploy/demo/secure/show.py:--proxy": ("classify", "status"),
    "deploy/demo/secure/show.py:--model": ("classify",),
    "deploy/demo/secure/show.py:--tls-ca": ("classify", "status"),
    "deploy/demo/secure/show.py:--tls-cert": ("classify", "status"),
    "deploy/demo/secure/show.py:--tls-key": ("classify", "status"),
    "deploy/demo/secure/show.py:--trust-domain": ("classify", "status"),
    "deploy/demo/secure/show.py:--registration-keys": ("classify", "status"),
    "deploy/local/cluster.py": ("up",),
    "deploy/demo/shapes/": ("demo",),
    "deploy/doctor/": ("doctor",),
    "deploy/doctor/cluster_checks.py:--advertise": ("worker",),
    "deploy/doctor/gpu_checks.py:--memory-fraction": ("worker",),
    "deploy/doctor/gpu_checks.py:--processes-per-device": ("worker",),
    "deploy/doctor/machine_checks.py:--threads": ("worker",),
    # What comes after -- of `fingerpost join`.
    "deploy/doctor/node_workers.py": ("worker",),
    "deploy/commands/join.py:--device": ("worker",),
    "deploy/commands/join.py:--devices": ("worker",),
    "deploy/commands/join.py:--host": ("worker",),
    "deploy/commands/join.py:--model": ("worker",),
    "deploy/commands/join.py:--registry": ("worker",),
    "deploy/setting_names.py:--lease": ("worker",),
    "deploy/setting_names.py:--poll": ("worker",),
    "deploy/setting_names.py:--uds": ("worker",),
    "deploy/setting_names.py:--weight": ("worker",),
    "deploy/setting_names.py:--zmq-key": ("worker",),
    "deploy/setting_names.py:--zmq-port": ("worker",),
    "deploy/doctor/model_checks.py:--require-signature": ("worker",),
    "deploy/local/consul.py": ("demo",),
    "deploy/local/security.py": ("up",),
    "deploy/options/registry.py": ("worker",),
    "deploy/options/tls.py": ("proxy",),
    "deploy/join/": ("join",),
    "deploy/setting_names.py": ("classify", "stream", "bench"),
    "deploy/logs.py": ("worker", "proxy", "registry", "up"),
    "deploy/processes/device_workers.py": ("worker",),
    "deploy/options/cluster.py": CLUSTER,
    "deploy/options/cluster.py:--relay": ("classify", "stream", "bench"),
    "deploy/results_log.py": ("stream",),
    "deploy/without_tls.py": ("worker", "proxy"),
    "deploy/key_rotation.py": ("keys rotate",),
    "deploy/options/model.py": LOADS,
    "client/dispatch/leases.py": ("classify", "stream", "bench"),
    "client/dispatch/leases.py:--lease-key": ("proxy",),
    "registry/http/tls.py": ("worker", "proxy", "registry"),
    "registry/http/tls.py:--tls-ca": ("proxy", "registry"),
    "worker/address_check.py": ("worker",),
    "worker/address_check.py:--trust-domain": ("proxy", "classify"),
    "worker/engine/fairness/flow.py": ("worker",),
    "worker/protocols/classify.py": ("worker",),
    "deploy/commands/model_bench.py": ("model bench",),
    "deploy/commands/quantize.py": ("model quantize",),
    # Of other commands.
    "deploy/commands/ca.py:--tls-cert": ("proxy",),
    "deploy/commands/ca.py:--tls-key": ("proxy",),
    "deploy/commands/ca.py:--tls-ca": ("proxy",),
    "deploy/commands/keys.py:--lease-key": ("proxy",),
    "deploy/commands/keys.py:--require-lease": ("worker",),
    "deploy/commands/keys.py:--lease-keys": ("worker",),
    "deploy/commands/keys.py:--registration-keys": ("proxy", "classify"),
    "deploy/commands/keys.py:--require-signature": ("worker",),
    "deploy/commands/lease.py:--lease-key": ("proxy",),
    "deploy/commands/demo.py:--proxy": ("classify",),
    "deploy/commands/status.py:--advertise": ("worker",),
    "deploy/commands/status.py:--check": ("worker",),
    "deploy/commands/status.py:--model": ("worker",),
    "deploy/commands/train.py:--model": ("up",),
}
# Options of another command, in the help of one that has to do with it.
OF_ANOTHER = {
    "worker:--lease-key": "proxy",
    "proxy:--require-lease": "worker",
    "model sign:--require-signature": "worker",
    "keys rotate:--lease-life": "proxy",
    "keys rotate:--lease-grace": "worker",
    "keys curve:--zmq-clients": "worker",
    **{f"keys {each}:--lease-keys": "worker" for each in ("init", "publish", "rotate", "show")},
}
# Arguments of other programs: of all of a module, or one of them.
OTHERS = (
    "deploy/local/hints.py",
    "deploy/demo/demo.py",
    "deploy/commit.py",
    "worker/models/unread.py",
    "worker/serving/uploads.py",
    "registry/kubernetes/kubeconfig.py:--raw",
)


def options_of_commands() -> dict[str, set[str]]:
    """The options of each command, by its name: `worker`, `model check`."""
    return {name: set(options) for name, (options, _) in options_and_texts().items()}


def options_and_texts() -> dict[str, tuple[set[str], str]]:
    """Of each command the options, and all of its help text."""
    found: dict[str, tuple[set[str], str]] = {}

    def add(command: Any, name: str) -> None:
        for sub, each in getattr(command, "commands", {}).items():
            add(each, f"{name} {sub}".strip())
        if not getattr(command, "commands", {}):
            texts = [command.help or "", *(getattr(p, "help", None) or "" for p in command.params)]
            own = {option for each in command.params for option in each.opts}
            found[name] = own | {"--help"}, "\n".join(texts)

    add(commands(), "")
    return found


def options_in(text: str) -> Iterator[tuple[str, str]]:
    """Each option of a text, and the command that it is said to belong to, if one is named."""
    text = re.sub(r"\bcurl .*", "", text)
    for found in COMMAND.finditer(text):
        yield from ((option, found[1]) for option in OPTION.findall(found[2]))
    yield from ((option, "") for option in OPTION.findall(COMMAND.sub("", text)))


def messages() -> Iterator[tuple[str, str, str, str]]:
    """The module, function, option and named command of each text that names an option."""
    for room in ROOMS:
        for path in sorted((ROOT / room / "fingerpost" / room).rglob("*.py")):
            module = path.relative_to(ROOT / room / "fingerpost").as_posix()
            source = path.read_text("utf-8")
            if OPTION.search(source) is None:
                continue
            for part in ast.parse(source).body:
                silent = set(_not_shown(part))
                for node in ast.walk(part):
                    if isinstance(node, ast.JoinedStr):
                        silent.update(map(id, node.values))
                    text = _text(node)
                    if id(node) not in silent and not OPTION.fullmatch(text):
                        for option, command in options_in(text):
                            yield module, getattr(part, "name", ""), option, command


def _text(node: ast.AST) -> str:
    """The text of a string or an f-string, whose values are `?`; else nothing."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "?" for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def _not_shown(part: ast.AST) -> Iterator[int]:
    """Docstrings, and the definitions of options; their help is looked at as a command's."""
    for node in ast.walk(part):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield id(node.value)
        if isinstance(node, ast.Call) and _called(node).endswith(("Option", "_option")):
            yield from map(id, ast.walk(node))


def _called(call: ast.Call) -> str:
    """The last name of what is called."""
    return str(getattr(call.func, "attr", "") or getattr(call.func, "id", ""))


def shown_by(module: str, function: str, option: str) -> tuple[str, ...]:
    fitting = [
        each
        for each in SHOWN_BY
        if each == f"{module}:{option}" or (":" not in each and module.startswith(each))
    ]
    if fitting:
        return SHOWN_BY[max(fitting, key=len)]
    own = re.fullmatch(r"deploy/commands/(\w+)\.py", module)
    if own is None:
        return ()
    name = own[1]
    if name == "ca":
        return (f"ca {function}",)
    if name in ("model", "ca", "caller", "keys"):
        return (f"{name} {function}",)
    if name.startswith("model_"):
        return (name.replace("_", " "),)
    return ("drain", "undrain") if name == "drain" else (name.replace("_", "-"),)


def test_every_option_in_a_message_exists_on_the_command_that_shows_it() -> None:
    options = options_of_commands()
    seen = set()
    for module, function, option, command in messages():
        if module in OTHERS or f"{module}:{option}" in OTHERS:
            continue
        seen.add(module)
        shown = (command,) if command else shown_by(module, function, option)
        assert shown, (
            f"{module} has a message with {option}: say in SHOWN_BY which commands show it"
        )
        for command in shown:
            assert option in options[command], f"{module} says {option} to users of {command!r}"
    assert len(seen) > 25


@pytest.mark.parametrize("end", ["input", "output"])
def test_the_tensors_of_a_message_are_options(end: str) -> None:
    """A message of the TensorFlow backend puts them together: `--{end}-layer`."""
    source = ROOT / "worker/fingerpost/worker/backends/tensorflow/backend.py"
    assert "--{end}-layer" in source.read_text("utf-8")
    options = options_of_commands()
    assert not [command for command in LOADS if f"--{end}-layer" not in options[command]]


def test_every_option_in_a_help_text_exists_on_that_command() -> None:
    found = options_and_texts()
    assert len(found) >= 17
    for name, (options, text) in found.items():
        for option, command in options_in(text):
            other = command or OF_ANOTHER.get(f"{name}:{option}", "")
            assert option in (found[other][0] if other else options), (name, option, other)


def test_every_command_that_loads_a_model_has_the_same_options_for_it() -> None:
    options = options_of_commands()
    described = {
        "--name", "--labels", "--input-layer", "--output-layer", "--input-mean", "--input-std",
        "--image-size", "--input-layout", "--follow-symlinks",
    }  # fmt: skip
    others = {"train", "model sign"}
    assert {name for name, own in options.items() if own & described} == {*LOADS, *others}
    assert not [name for name in LOADS if not described <= options[name]]
