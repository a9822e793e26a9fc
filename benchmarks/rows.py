"""The rows of docs/benchmarks.md: what is claimed, and the command that measures it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ROWS", "Row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim.

    Attributes:
        name: as in `make bench-NAME` and `python -m benchmarks NAME`.
        module: what is run, with `options`; `make bench` gives it the time that it can afford.
        results: the records it leaves, without `.json`.
        title, claim: a heading, and the text below it.
        plot: the name of its plot, without `.svg`.
        root: whether it needs root.
        in_all: whether `make bench` runs it.
        smoke: the options of a run of some 20 s, for `make bench-smoke`; None to leave it out.
        slack: how many times a goal's bound may be exceeded there.
    """

    name: str
    module: str
    results: tuple[str, ...]
    title: str
    claim: str
    options: tuple[str, ...] = ()
    plot: str | None = None
    root: bool = False
    in_all: bool = True
    smoke: tuple[str, ...] | None = None
    slack: float = 1.5


ROWS = (
    Row(
        name="bandwidth",
        module="benchmarks.bandwidth",
        results=("bandwidth",),
        title="Bandwidth",
        claim="The cluster moves as many bytes as its workers' links carry, and each worker adds "
        "its own; with a balancer in the path it moves what one link carries. Network namespaces "
        "on a bridge, every link shaped on both ends, 4 client hosts, JPEGs of 640 KB, workers "
        "that do nothing; all balancers stand on one host with a link as fast as a worker's. "
        "*direct* is Fingerpost's client, *307 redirect* a plain HTTP client that follows the "
        "proxy's answer, *two curl commands* are `curl -F data=@cat.jpg $(curl proxy)`, once for "
        "each image. *The article's node* is the design that Fingerpost started from: a Node.js "
        "server, of the package `http-proxy`, that hands each image to the next worker.",
        plot="bandwidth",
        root=True,
        smoke=("--workers", "4", "--rounds", "1", "--seconds", "4", "--only", "direct", "relay"),
        slack=1.16,
    ),
    Row(
        name="client",
        module="benchmarks.client",
        results=("client-cost",),
        title="What the client costs",
        claim="Discovery and routing cost little: Fingerpost's client reaches nearly the rate of a "
        "bare aiohttp loop at the same worker, which itself costs next to nothing.",
        smoke=("--rounds", "3", "--seconds", "1"),
    ),
    Row(
        name="worker",
        module="benchmarks.worker.mobilenet",
        results=("worker-mobilenet",),
        title="A worker with a real network",
        claim="MobileNetV2 at 224 pixels, JPEGs of 640 KB and 1600 x 1200 pixels, 16 connections. "
        "A worker feeds the model at nearly the rate of the limit, which is decoding threads and "
        "the model in one process with no server; other servers run the same network.",
        plot="worker",
    ),
    Row(
        name="shell",
        module="benchmarks.worker.nothing",
        results=("worker-nothing",),
        title="A worker with a model that does nothing",
        claim="What is left of a server when the model costs nothing: reading the body, admission, "
        "batching, the answer. 16 connections, bodies of 20 KB and of 640 KB.",
        options=("--rounds", "2", "--seconds", "4"),
        smoke=("--only", "bare aiohttp", "--rounds", "2", "--seconds", "2"),
        slack=1.6,
    ),
    Row(
        name="load",
        module="benchmarks.worker.load_latency",
        results=("load-latency",),
        title="`GET /load` of a saturated worker",
        claim="Clients learn a worker's load in about a millisecond, whatever its model is doing.",
        options=("--seconds", "15"),
        smoke=("--seconds", "6"),
        slack=10,
    ),
    Row(
        name="switch",
        module="benchmarks.worker.version_switch",
        results=("version-switch-tensorflow",),
        title="A version switch beside other models",
        claim="Loading, warming up and switching to a new version of one model disturbs the others "
        "of the same worker little.",
        options=("--rounds", "2", "--seconds", "40"),
    ),
    Row(
        name="lookups",
        module="benchmarks.lookups",
        results=("lookups",),
        title="Lookups",
        claim="*Where?* is answered from memory: three times as often as Consul can answer it, "
        "and, with a proxy for each core, as often as the Node.js hub of the article that "
        "Fingerpost started from. The library's client does not ask again for each image.",
        options=("--rounds", "3", "--seconds", "4"),
    ),
    Row(
        name="decoding",
        module="benchmarks.decoding",
        results=("decoding",),
        title="Decoding",
        claim="JPEGs are decoded no larger than the model needs them. Processor time for an image, "
        "from the file's bytes to 224 x 224 pixels.",
        options=("--rounds", "3", "--seconds", "0.6"),
        smoke=("--rounds", "2", "--seconds", "0.4", "--beside"),
    ),
    Row(
        name="runtimes",
        module="benchmarks.runtimes",
        results=("runtimes",),
        title="Runtimes",
        claim="The same network is not as fast on every framework: `fingerpost model bench` shows "
        "the operator the fastest on his machine.",
        options=("--seconds", "60"),
    ),
    Row(
        name="routing",
        module="benchmarks.routing.real",
        results=("routing-real",),
        title="Routing",
        claim="Real workers of unequal speed feel like one fast one. [routing.md](routing.md) has "
        "the simulations: more rules, larger fleets, deaths and overload.",
        options=("--rounds", "2", "--seconds", "8"),
    ),
    Row(
        name="growth",
        module="benchmarks.growth",
        results=("growth",),
        title="Growth",
        claim="A thousand workers and ten thousand clients: a pick takes microseconds, and neither "
        "images nor more clients reach the registry; the proxy's work does not depend on images.",
        plot="growth",
        options=("--seconds", "6"),
        smoke=("--picks-only", "--rounds", "3"),
        slack=3,
    ),
    Row(
        name="gpu",
        module="benchmarks.gpu",
        results=("gpu-resnet50",),
        title="A GPU",
        claim="ResNet-50 in PyTorch, served end to end against the in-process limit, by the number "
        "of worker processes on the device. Needs a GPU; [gpu.md](gpu.md).",
        in_all=False,
    ),
)
