"""The embedded registry's answers beside those of a real Consul agent."""

from __future__ import annotations

PLAIN = {"Name": "{s}", "ID": "{s}-1", "Tags": ["fingerpost"], "Port": 80}
CONFORMANCE = [
    ("GET", "/v1/status/leader", None),
    ("GET", "/v1/agent/self", None),
    ("GET", "/v1/catalog/services", None),
    ("PUT", "/v1/agent/service/register", "nonsense"),
    ("PUT", "/v1/agent/service/register", ""),
    ("PUT", "/v1/agent/service/register", []),
    ("PUT", "/v1/agent/service/register", {"ID": "x"}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Unknown": 1}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Port": "80"}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Meta": {"a.b": "c"}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Meta": {"a": "x" * 513}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Meta": {f"k{n}": "" for n in range(65)}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Meta": {"consul-x": ""}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Weights": {"Passing": 0}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Weights": {"Passing": 65536}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Check": {"TTL": "soon"}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Check": {"TTL": "9s", "Interval": "9s"}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Check": {"TTL": "9s", "Status": "odd"}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Check": {"HTTP": "http://127.0.0.1:1"}}),
    (
        "PUT",
        "/v1/agent/service/register",
        PLAIN | {"Check": {"TTL": "60s"}, "checks": [{"ttl": "60s", "status": "passing"}]},
    ),
    ("PUT", "/v1/agent/service/register?replace-existing-checks=odd", PLAIN),
    ("GET", "/v1/agent/service/register", None),
    ("POST", "/v1/agent/service/deregister/{s}-1", None),
    ("POST", "/v1/catalog/services", None),
    ("GET", "/v1/agent/service/{s}-1", None),
    ("GET", "/v1/agent/service/{s}-nobody", None),
    ("GET", "/v1/agent/services", None),
    ("GET", "/v1/agent/checks", None),
    ("GET", "/v1/health/service/{s}", None),
    ("GET", "/v1/health/service/{s}?passing", None),
    ("GET", "/v1/health/service/{s}?passing=false&tag=Fingerpost", None),
    ("GET", "/v1/health/service/{s}?passing=odd", None),
    ("GET", "/v1/health/service/{s}?tag=nobody", None),
    ("GET", "/v1/health/service/{s}?index=odd", None),
    ("GET", "/v1/health/service/{s}?index=-1", None),
    ("GET", "/v1/health/service/{s}?index=0", None),
    ("GET", "/v1/health/service/{s}?index=1&wait=odd", None),
    ("GET", "/v1/health/service/{s}?wait=1", None),
    ("GET", "/v1/health/service/{s}?stale&consistent", None),
    ("GET", "/v1/health/service/{s}?index=999999999&wait=10ms", None),
    ("GET", "/v1/health/service/{s}-nobody", None),
    ("GET", "/v1/health/checks/{s}", None),
    ("GET", "/v1/catalog/service/{s}", None),
    ("GET", "/v1/catalog/service/{s}-nobody", None),
    ("PUT", "/v1/agent/check/pass/service:{s}-1:1", None),
    ("PUT", "/v1/agent/check/warn/service:{s}-1:2?note=hot", None),
    ("PUT", "/v1/agent/check/fail/service:{s}-1:2", None),
    ("PUT", "/v1/agent/check/update/service:{s}-1:2", {"Status": "passing", "Output": "fine"}),
    ("PUT", "/v1/agent/check/update/service:{s}-1:2", {"Status": "odd"}),
    ("GET", "/v1/health/service/{s}?passing", None),
    ("PUT", "/v1/agent/service/maintenance/{s}-1", None),
    ("PUT", "/v1/agent/service/maintenance/{s}-1?enable=odd", None),
    ("PUT", "/v1/agent/service/maintenance/{s}-nobody?enable=true", None),
    ("PUT", "/v1/agent/service/maintenance/{s}-1?enable=True&reason=why", None),
    ("GET", "/v1/health/service/{s}?passing", None),
    ("PUT", "/v1/agent/service/register", PLAIN),
    ("GET", "/v1/health/service/{s}?passing", None),
    ("GET", "/v1/health/checks/{s}", None),
    ("PUT", "/v1/agent/service/register?replace-existing-checks", PLAIN),
    ("GET", "/v1/health/service/{s}?passing", None),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Name": "{s}-moved"}),
    ("GET", "/v1/health/service/{s}", None),
    ("GET", "/v1/health/service/{s}-moved", None),
    ("PUT", "/v1/agent/service/deregister/{s}-1", None),
    ("GET", "/v1/health/service/{s}-moved", None),
    ("GET", "/v1/nothing-here", None),
]


async def _ask(raw, url, service, method, path, body):
    path = path.replace("{s}", service)
    if isinstance(body, dict):
        body = {
            key: value.replace("{s}", service) if isinstance(value, str) else value
            for key, value in body.items()
        }
    payload = {"data": body} if isinstance(body, str) else {"json": body} if body else {}
    async with raw.request(method, url + path, allow_redirects=False, **payload) as answer:
        blocking = {
            name: answer.headers.get(name) == "true" if name.endswith("Leader") else True
            for name in ("X-Consul-Index", "X-Consul-KnownLeader", "X-Consul-LastContact")
            if name in answer.headers
        }
        if blocking:
            assert int(answer.headers["X-Consul-Index"]) >= 1
        content = await answer.json() if answer.content_type == "application/json" else None
        return answer.status, blocking, content


def _missing(ours, theirs, where="$"):
    """Where our answer has what Consul's lacks, or another number of things, or another value."""
    kept = ("ID", "Status", "CheckID", "Type", "Notes", "Tags", "Port", "Weights", "ServiceName")
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            problem
            for key, value in ours.items()
            for problem in (
                _missing(value, theirs[key], f"{where}.{key}")
                if key in theirs
                else [f"{where}.{key} is not Consul's"]
            )
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            problem
            for number, (mine, other) in enumerate(zip(ours, theirs, strict=True))
            for problem in _missing(mine, other, f"{where}[{number}]")
        ]
    if isinstance(ours, list) or isinstance(theirs, list):
        return [] if not ours and not theirs else [f"{where}: {ours} but Consul {theirs}"]
    field = where.rpartition(".")[2]
    if field in kept and ".Node.ID" not in where and ours != theirs:
        return [f"{where}: {ours!r} but Consul {theirs!r}"]
    return []


async def test_the_embedded_registry_answers_as_consul_does(raw, consul_url, service, embedded):
    for method, path, body in CONFORMANCE:
        ours = await _ask(raw, embedded.url, service, method, path, body)
        theirs = await _ask(raw, consul_url, service, method, path, body)
        what = f"{method} {path} {body}"
        assert ours[:2] == theirs[:2], what
        if service in str(ours[2]) or service in str(theirs[2]):
            mine, other = (_about(service, each[2]) for each in (ours, theirs))
            assert _missing(mine, other) == [], what
        else:
            assert type(ours[2]) is type(theirs[2]), what


def _about(service, content):
    """Only what is about this service: the Consul agent is shared with other tests."""
    if isinstance(content, dict) and "ID" not in content:
        return {key: value for key, value in content.items() if service in key}
    if isinstance(content, list):  # /v1/catalog/service shows the node's own, random id
        return [{k: v for k, v in each.items() if k != "ID"} for each in content]
    return content
