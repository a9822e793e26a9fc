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
        claim="The cluster moves as many bytes as the links of all its workers carry. With a "
        "balancer in the path it moves what one link carries. The hosts are network namespaces on "
        "a bridge, with every link limited at both ends: 4 clients that send JPEGs of 640 KB, "
        "workers that do nothing, and one host for all balancers, whose link is as fast as a "
        "worker's. *direct* is Fingerpost's client; *307 redirect* a plain HTTP client that "
        "follows the proxy's answer; *two curl commands* are `curl -F data=@cat.jpg $(curl "
        "proxy)`, once for each image. *The article's node* is the design that Fingerpost started "
        "from: a Node.js server, of the package `http-proxy`, that hands each image to the next "
        "worker.",
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
        claim="Discovery and routing cost little: Fingerpost's client reaches at least nearly the "
        "rate of a bare aiohttp loop with the same worker. The worker itself costs next to "
        "nothing.",
        smoke=("--rounds", "3", "--seconds", "1"),
    ),
    Row(
        name="tls",
        module="benchmarks.tls",
        results=("tls",),
        title="TLS",
        claim="What TLS leaves of the rate of plain HTTP, on kept connections, with a model that "
        "does nothing: with one that takes time, less is lost. *OpenSSL alone* is what the library "
        "takes to encrypt and to decrypt 640 KB in memory; *possible share of plain* is what would "
        "be left if nothing else were added, where client and worker share the processors. The "
        "first goal is for processors that encrypt faster than this one (2.3 GB/s).",
    ),
    Row(
        name="zeromq",
        module="benchmarks.zeromq",
        results=("zeromq",),
        title="ZeroMQ",
        claim="ZeroMQ moves photos at least as fast as HTTP, on one host, with a model that does "
        "nothing. libzmq reads and writes in a thread of its own, and Python copies no byte of a "
        "photo. Each small image costs more than by HTTP: it passes between two threads in "
        "each process.",
    ),
    Row(
        name="grpc",
        module="benchmarks.grpc",
        results=("grpc",),
        title="gRPC",
        claim="What a call of gRPC costs a worker with a model that does nothing, compared with a "
        "server of grpcio that reads the message and answers as many bytes: admission, limits, the "
        "message, the engine and the load report against none of them. Processor time of the "
        "server; 16 calls at a time over one connection. grpcio passes on one event after the "
        "other, so each small image is a batch of its own, and each of the four steps of a call "
        "runs between grpcio's own work, where it takes some three times as long as in a loop by "
        "itself. To wait for others to batch with would delay images; to let grpcio read the "
        "message before the call begins would save it a tenth, and let clients fill the memory.",
    ),
    Row(
        name="front-ends",
        module="benchmarks.front_ends",
        results=("front-ends",),
        title="Front ends",
        claim="A worker with `--front-ends 2` compared with one process, where the process that "
        "reads requests is the limit: images of 20 KB over 256 connections, and a model that takes "
        "128 of them at once and sleeps for 5 ms. On two cores, of which `wrk` and the process "
        "with the model take a part. What an image costs more is its way to that process.",
    ),
    Row(
        name="worker",
        module="benchmarks.worker.mobilenet",
        results=("worker-mobilenet",),
        title="A worker with a real network",
        claim="MobileNetV2 at 224 pixels, JPEGs of 640 KB and 1600 x 1200 pixels, 16 connections. "
        "A worker classifies at nearly the rate of the *limit*: decoding threads and the model in "
        "one process, with no server. The other servers run the same network.",
        plot="worker",
    ),
    Row(
        name="shell",
        module="benchmarks.worker.nothing",
        results=("worker-nothing",),
        title="A worker with a model that does nothing",
        claim="What a server costs when the model costs nothing: reading the body, admission, "
        "batching, the answer. 16 connections, bodies of 20 KB and of 640 KB.",
        options=("--rounds", "2", "--seconds", "4"),
        smoke=("--only", "bare aiohttp", "--rounds", "2", "--seconds", "2"),
        slack=1.6,
    ),
    Row(
        name="frames",
        module="benchmarks.worker.frames",
        results=("worker-frames",),
        title="Decoded frames on one host",
        claim="A client on the worker's host sends the memory of a frame of 1920 x 1080 pixels "
        "([the same host](same-host.md#decoded-frames)): the worker maps it, and nothing is "
        "encoded. The model takes a frame as it is, and does nothing; one frame at a time, each "
        "copied from an array of the caller's. *HTTP, PNG* is what the client sends without the "
        "socket. `tritonclient` sends pixels, over HTTP or in shared memory. The goals are of "
        "processor time, the client's and the worker's together.",
        smoke=("--rounds", "2", "--frames", "100"),
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
        claim="To load and warm up a new version of one model, and to switch to it, has little "
        "effect on the other models of the same worker.",
        options=("--rounds", "2", "--seconds", "40"),
    ),
    Row(
        name="leases",
        module="benchmarks.worker.leases",
        results=("leases",),
        title="Signed leases",
        claim="Carrying and verifying a [lease](security.md#leases) costs a few microseconds for "
        "each image, as a signature is verified once. A JPEG of 20 KB, 16 connections, the worker "
        "of *a model that does nothing*; the client against a worker that costs next to nothing. "
        "All figures are processor time, measured in short slices in turn; the difference is the "
        "median of the pairs. The flood: a sender of forged leases, all different, as fast as it "
        "can, and an honest client of another address beside it, which sends 200 images a second; "
        "in turn with it, for half a second each, the same flood without leases.",
        smoke=("--pairs", "15", "--seconds", "2"),
        # The median of three pairs of two processes is 6 to 124 us, that of nine 8 to 32; a
        # signature verified for each image would show as 160 more.
        slack=20,
    ),
    Row(
        name="fairness",
        module="benchmarks.fairness.real",
        results=("fairness",),
        title="Tenants that share workers",
        claim="One of ten tenants sends ten times its share, and the others wait for no more than "
        "two runs ([why](routing.md#tenants-and-classes), with the same case simulated). 16 "
        "workers that sleep 1.3 s for a batch of 8, so that they need hardly any processor "
        "time; 100 clients in one process; nine tenants send 0.8 of their share. *All one "
        "tenant* is what the same images get without fair queues.",
        options=("--seconds", "45", "--rounds", "1"),
        slack=3,
    ),
    Row(
        name="lookups",
        module="benchmarks.lookups",
        results=("lookups",),
        title="Lookups",
        claim="A proxy answers *where?* from memory: three times as often as Consul can, and, "
        "with a proxy for each core, as often as the Node.js hub of the article that Fingerpost "
        "started from. The client of the library does not ask for each image.",
        options=("--rounds", "3", "--seconds", "4"),
    ),
    Row(
        name="decoding",
        module="benchmarks.decoding",
        results=("decoding",),
        title="Decoding",
        claim="JPEGs are decoded at a size near the one that the model needs. Measured: processor "
        "time for an image, from the file's bytes to 224 x 224 pixels.",
        options=("--rounds", "3", "--seconds", "0.6"),
        smoke=("--rounds", "2", "--seconds", "0.4", "--beside"),
    ),
    Row(
        name="runtimes",
        module="benchmarks.runtimes",
        results=("runtimes",),
        title="Runtimes",
        claim="The speed of a network depends on the framework: `fingerpost model bench` shows "
        "which one is the fastest on your machine.",
        options=("--seconds", "60"),
    ),
    Row(
        name="quantized",
        module="benchmarks.runtimes.quantized",
        results=("quantized",),
        title="Quantized",
        claim="8-bit integers make a network faster, and keep its answers: MobileNetV2, trained on "
        "handwritten digits, made by `fingerpost model quantize` and by TensorFlow's converter. "
        "*Agreement* is the share of 359 held-out images whose best label is that of the "
        "SavedModel. TensorFlow itself runs no INT8 on a CPU: LiteRT does. The last four columns "
        "are the parts of what a worker's image costs: samples of its processor time, by the "
        "library that ran.",
    ),
    Row(
        name="routing",
        module="benchmarks.routing.real",
        results=("routing-real",),
        title="Routing",
        claim="To a client, real workers of unequal speed are like one fast worker. "
        "[routing.md](routing.md) has the simulations: more policies, larger clusters, failures "
        "and overload.",
        options=("--rounds", "2", "--seconds", "8"),
    ),
    Row(
        name="overload",
        module="benchmarks.overload",
        results=("overload",),
        title="Overload on slow links",
        claim="More images than the clients' links carry, or the workers can do, are no harm to "
        "those that can be answered in time ([why](client.md#what-it-does-by-itself)). Network "
        "namespaces; 4 clients with slow links, which send JPEGs of 100 KB at random times, at 1, "
        "2, 4 and 16 times what the cluster can do, each with a deadline of 4 s. First the links "
        "are the limit, then one worker, and two, which sleep for each image and do half of what "
        "the links carry.",
        root=True,
    ),
    Row(
        name="growth",
        module="benchmarks.growth",
        results=("growth",),
        title="Growth",
        claim="With a thousand workers and ten thousand clients, a pick takes microseconds. "
        "Neither images nor more clients cause requests to the registry, and the proxy's work "
        "does not depend on the number of images.",
        plot="growth",
        options=("--seconds", "6"),
        smoke=("--picks-only", "--rounds", "3"),
        # A pick takes 17 us on a quiet machine of two cores, up to 33 on a busy one; one that
        # looked at each of 1,000 workers would take hundreds.
        slack=6,
    ),
    Row(
        name="xds",
        module="benchmarks.xds",
        results=("xds",),
        title="xDS",
        claim="A change reaches a thousand clients of [xDS](languages.md) within a second, each of "
        "which knows a hundred workers. The clients are gRPC connections of their own; they follow "
        "a model as a client of gRPC does, and send no images.",
        smoke=("--workers", "20", "--clients", "100", "--rounds", "3", "--seconds", "2"),
        # Beside other programs the last of a hundred clients knew after 0.4 to 1.4 s.
        slack=4,
    ),
    Row(
        name="gpu",
        module="benchmarks.gpu",
        results=("gpu-resnet50",),
        title="A GPU",
        claim="ResNet-50 in PyTorch: the rate of a worker, compared with the limit of one process "
        "without a server, by the number of worker processes on the device. It needs a GPU: "
        "[gpu.md](gpu.md), which also has single runs on an H100.",
        in_all=False,
    ),
)
