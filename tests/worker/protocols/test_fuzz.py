"""Hostile requests by the hundred: no status 500, no hang, and nothing left in flight."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.rig import serving
from tests.worker.protocols.fuzz import attempt, check_well
from tests.worker.protocols.fuzz_grpc import GrpcRequests
from tests.worker.protocols.fuzz_same_host import cleared
from tests.worker.protocols.fuzz_server import SETTINGS
from tests.worker.protocols.fuzz_zmq import ZmqRequests

pytestmark = pytest.mark.shell


@pytest.fixture(scope="module")
def uds() -> Iterator[str]:
    """The path of its Unix socket."""
    with TemporaryDirectory(prefix="fingerpost-") as folder:
        yield f"{folder}/http.sock"
        cleared()


@dataclass(frozen=True)
class Ports:
    """Of a worker service on a loop of its own, so that the requests may block."""

    http: int
    grpc: int
    zmq: int


@pytest.fixture(scope="module")
def ports(uds: str) -> Iterator[Ports]:
    started: Future[tuple[Ports, Callable[[], object]]] = Future()

    async def serve() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with serving(uds=uds, grpc=True, zmq=True, **SETTINGS) as rig:
            found = Ports(rig.port, rig.grpc_port, rig.zmq_port)
            started.set_result((found, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    found, stop = started.result(30)
    yield found
    stop()
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(ports: Ports) -> int:
    return ports.http


@pytest.fixture(scope="module")
def calls(ports: Ports) -> Iterator[GrpcRequests]:
    found = GrpcRequests(ports.grpc)
    yield found
    found.close()


@pytest.fixture(scope="module")
def messages(ports: Ports) -> Iterator[ZmqRequests]:
    found = ZmqRequests(ports.zmq)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """aiohttp logs a traceback for each request that is not HTTP, which does not matter here."""
    log = logging.getLogger("aiohttp.server")
    log.disabled = True
    yield
    log.disabled = False


# aiohttp says of a bad part header what the answer says too.
@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionHeader")
@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionParam")
@settings(
    max_examples=1000,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_hostile_requests(port: int, uds: str, seed: int) -> None:
    attempt(port, seed, uds)
    if seed % 20 == 0:
        check_well(port)


@settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_hostile_calls_of_grpc(port: int, calls: GrpcRequests, seed: int) -> None:
    calls.attempt(seed)
    if seed % 20 == 0:
        check_well(port)


@settings(
    max_examples=120,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_hostile_messages_of_zeromq(port: int, messages: ZmqRequests, seed: int) -> None:
    messages.attempt(seed)
    if seed % 20 == 0:
        check_well(port)


def test_and_it_is_well_afterwards(port: int) -> None:
    check_well(port)
