"""What deploy/monitoring and the pages about it name exists: metrics, runbooks, commands, options.

A metric that is renamed fails here. Whether Prometheus has data for each expression, and each alert
fires and clears, is tried with real programs by tests/monitoring (`make test-monitoring`).
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.core
import yaml
from prometheus_client import CollectorRegistry
from tests.support.certificates import Authority
from tests.support.command_line import commands

from fingerpost.client import Client
from fingerpost.client.metrics import ClientMetrics
from fingerpost.proxy.metrics import ProxyMetrics
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.config import CheckConfig
from fingerpost.registry.consul.schema.codec import encode_instance
from fingerpost.security.tls import ServerTls, TlsConfig
from fingerpost.worker.telemetry.metrics import WorkerMetrics

pytestmark = pytest.mark.shell

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "deploy" / "monitoring"
RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = [
    *(
        ROOT / "docs" / name
        for name in ("observability.md", "proxy.md", "client.md", "security.md")
    ),
    *(ROOT / "docs" / name for name in ("first-cluster/machines.md", "operating.md")),
    MONITORING / "README.md",
    *sorted(RUNBOOKS.glob("*.md")),
]
DASHBOARDS = sorted(MONITORING.glob("dashboards/*.json"))
# Names of metrics; `fingerpost_audit_...` and `__meta_fingerpost_zone` are none.
_METRIC = re.compile(r"(?<![\w:])(?:fingerpost|process)_[a-z0-9_]+(?![\w:]*[:.]{2}|\w)")
_RECORDED = re.compile(r"(?<!\w)[a-z_]+:fingerpost_[a-z0-9_]+:[a-z0-9_]+")
_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count"),
}


def load(name: str) -> Any:
    return yaml.safe_load((MONITORING / name).read_text("utf-8"))


def rules() -> list[dict[str, str]]:
    files = (load("rules/recording.yml"), load("rules/alerts.yml"))
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in rules() if "alert" in rule}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The type of each metric of workers, proxies and clients, by its name without suffix."""
    pair = Authority(tmp_path_factory.mktemp("authority")).worker("flowers")
    tls = ServerTls(TlsConfig(cert=str(pair.cert), key=str(pair.key)))
    worker = WorkerMetrics(tls)
    worker.tenants.answered("tenant", "batch", 1)
    worker.tenants.refused("tenant", "batch", "queue")
    proxy = ProxyMetrics(tls)
    client = CollectorRegistry()
    client.register(ClientMetrics(Client("http://127.0.0.1:1")))
    registries = (worker.registry, proxy.registry, client)
    return {each.name: each.type for registry in registries for each in registry.collect()}


@pytest.fixture(scope="module")
def exported(families: dict[str, str]) -> set[str]:
    """The names of all series."""
    return {name + suffix for name, kind in families.items() for suffix in _SUFFIXES[kind]}


def expressions() -> Iterator[tuple[str, str]]:
    """Each expression, and where it is."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text("utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.name}: {panel['title']}", target["expr"]


def test_rules_and_dashboards_use_metrics_that_exist(exported: set[str]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    unknown = {
        (where, name)
        for where, expr in expressions()
        for name in {*_METRIC.findall(expr)} - exported | {*_RECORDED.findall(expr)} - recorded
    }
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_name_metrics_that_exist(
    page: Path, exported: set[str], families: dict[str, str]
) -> None:
    named = set(_METRIC.findall(page.read_text("utf-8")))
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert not named - exported - set(families)
    assert not set(_RECORDED.findall(page.read_text("utf-8"))) - recorded


def test_every_metric_is_on_a_page(families: dict[str, str]) -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    # `..._watch_errors_total` stands for the whole name, in a row with another one.
    short = tuple(re.findall(r"`\.\.\.(_[a-z_]+?)(?:_total)?[`{]", text))
    missing = [
        name
        for name in families
        if name.startswith("fingerpost_")
        and name not in text
        and not name.endswith(short)
        and not name.startswith(("fingerpost_audit", "fingerpost_policy"))  # on security.md
    ]
    assert not missing


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_runbook_and_a_case(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"page", "warning"}
    page = ROOT / rule["annotations"]["runbook"]
    assert page == RUNBOOKS / f"{alert}.md"
    text = page.read_text("utf-8")
    assert re.findall(r"^#+ (.*)", text, re.MULTILINE) == [
        alert, "How to look", "What to do", "What ends it",
    ]  # fmt: skip
    assert f"Severity: {rule['labels']['severity']}." in text
    after = rule.get("for", "at once")
    row = f"| [{alert}]({alert}.md) | {rule['labels']['severity']} | {after} |"
    assert row in (RUNBOOKS / "index.md").read_text("utf-8")
    cases = (Path(__file__).parent / "alerts.test.yml").read_text("utf-8")
    tries = [
        bool(each["exp_samples"])
        for test in yaml.safe_load(cases)["tests"]
        for each in test["promql_expr_test"]
        if f'"{alert}"' in each["expr"]
    ]
    assert tries[0] is False
    assert True in tries


def test_no_runbook_is_left_over() -> None:
    assert {page.stem for page in RUNBOOKS.glob("Fingerpost*.md")} == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_commands_of_a_runbook_have_their_options(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text("utf-8")
    for line in re.findall(r"(?:^    |`)fingerpost ([^`\n]*)", text, re.MULTILINE):
        command: Any = commands()
        words = shlex.split(line, comments=True)
        while isinstance(command, typer.core.TyperGroup) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert command is not commands() or words == ["--version"], line
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        assert not {word for word in words if word.startswith("--")} - known, line


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_dashboards_are_whole(file: Path) -> None:
    board = json.loads(file.read_text("utf-8"))
    assert board["uid"] == f"fingerpost-{file.stem}"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]
    variables = {each["name"] for each in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\b", file.read_text("utf-8")))
    assert used - {"refId"} == variables


def test_configurations_agree_on_names() -> None:
    jobs = {"fingerpost-workers", "fingerpost-proxies"}
    for name in ("prometheus.yml", "prometheus-consul.yml"):
        config = load(name)
        assert {each["job_name"] for each in config["scrape_configs"]} == jobs
        assert all((MONITORING / each).is_file() for each in config["rule_files"])
    collector = load("otel-collector.yaml")
    scraped = collector["receivers"]["prometheus"]["config"]["scrape_configs"]
    assert {each["job_name"] for each in scraped} == jobs
    monitors = yaml.safe_load_all((MONITORING / "servicemonitor.yaml").read_text("utf-8"))
    relabelings = [one["spec"]["endpoints"][0]["relabelings"][0] for one in monitors]
    assert {each["replacement"] for each in relabelings} == jobs
    used = {job for _, expr in expressions() for job in re.findall(r'job="([^"]+)"', expr)}
    assert used <= jobs
    names = {
        match.split("=")[0]
        for match in re.findall(r"alertname=~?\S+", str(load("alertmanager.yml")))
    }
    assert names == {"alertname"}
    inhibited = re.findall(r"Fingerpost\w+", str(load("alertmanager.yml")))
    assert inhibited
    assert set(inhibited) <= set(ALERTS)


def test_the_collector_uses_what_it_defines() -> None:
    config = load("otel-collector.yaml")
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(config[kind])
    assert set(config["service"]["extensions"]) == set(config["extensions"])


def test_consuls_entries_have_what_prometheus_takes_from_them() -> None:
    worker = Instance(
        id="one",
        service="flowers",
        host="10.0.0.1",
        ports={"http": 12490},
        models=(ModelInfo(name="flowers", versions=("1",)),),
        zone="rack-1",
        meta={"scheme": "https", "device": "cpu"},
    )
    entry = encode_instance(worker, CheckConfig())
    assert (
        load("prometheus-consul.yml")["scrape_configs"][0]["consul_sd_configs"][0]["tags"][0]
        in entry["tags"]
    )
    keys = {re.sub(r"\W", "_", key) for key in entry["meta"]}
    config = (MONITORING / "prometheus-consul.yml").read_text("utf-8")
    taken = set(re.findall(r"__meta_consul_service_metadata_(\w+)", config))
    assert taken == {"scheme", "device", "fingerpost_zone"}
    assert taken <= keys


def test_the_command_of_the_page_makes_a_prometheus_rule_of_all_rules() -> None:
    text = (MONITORING / "README.md").read_text("utf-8")
    found = re.search(r"^      (\{ printf.*?\}) \| kubectl apply", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    run = subprocess.run(
        ["sh", "-c", found[1]], cwd=MONITORING, capture_output=True, text=True, check=True
    )
    made = yaml.safe_load(run.stdout)
    assert made["kind"] == "PrometheusRule"
    assert [rule for group in made["spec"]["groups"] for rule in group["rules"]] == rules()
