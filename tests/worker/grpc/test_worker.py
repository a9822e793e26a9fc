"""A whole worker with a gRPC port: registered, with TLS, and when it leaves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.registry import WorkerState
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.http.app import bind
from fingerpost.worker import Worker, WorkerConfig
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.config import DrainConfig, ModelsConfig
from fingerpost.worker.grpc.schema.messages import message_class
from fingerpost.worker.repository.sources import ModelRoot
from fingerpost.worker.repository.versions.policy import VersionPolicy
from fingerpost.worker.tasks.loading import load_model
from tests.support.certificates import Authority
from tests.support.optional import not_none
from tests.support.python_models import write_python_model
from tests.support.tls_cluster import IMAGE, Flowers, serve_with
from tests.support.waiting import until
from tests.worker.grpc.test_open_inference import INFER, PB2


@pytest.fixture
async def registry() -> AsyncIterator[str]:
    async with EmbeddedRegistry(port=0) as registry:
        yield registry.url


def worker(registry: str, **settings: Any) -> Worker:
    config = WorkerConfig(
        **{"registry": registry, "grpc_port": 0, "drain": DrainConfig(lease_s=0.1), **settings}
    )
    return Worker.for_object(Flowers(), name="flowers", config=config)


def request(image: bytes = IMAGE, model: str = "flowers") -> bytes:
    message = PB2.ModelInferRequest(model_name=model)
    message.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents.append(
        image
    )
    return message.SerializeToString()


async def test_the_port_is_registered_as_a_transport(registry: str) -> None:
    async with worker(registry) as one:
        await one.register()
        ports = one.instance.ports
        assert set(ports) == {"http", "grpc"}
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
            answer = await channel.unary_unary(INFER)(request(), timeout=20)
        response = PB2.ModelInferResponse.FromString(answer)
        assert response.outputs[0].name == "scores"
        await one.leave()


CODE = """
class Model:
    height = width = 16

    def predict(self, images):
        return [[0.25, 0.75]] * len(images)
"""


async def test_each_model_of_several_is_named_by_the_message(registry: str, tmp_path: Path) -> None:
    for name in ("flowers", "trees"):
        write_python_model(tmp_path / name / "1", CODE, "module:Model", labels=["a", "b"])
    source = ModelRoot(tmp_path, policy=VersionPolicy.parse("latest:1"))
    config = WorkerConfig(registry=registry, grpc_port=0, drain=DrainConfig(lease_s=0.1))
    async with Worker(source, lambda files: load_model(files, LoadConfig()), config) as one:
        await one.register()
        target = f"127.0.0.1:{one.instance.ports['grpc']}"
        async with grpc.aio.insecure_channel(target) as channel:
            infer = channel.unary_unary(INFER)
            for name in ("flowers", "trees"):
                answer = await infer(request(model=name), timeout=20)
                assert PB2.ModelInferResponse.FromString(answer).model_name == name
                ready = PB2.ModelReadyRequest(name=name).SerializeToString()
                method = "/inference.GRPCInferenceService/ModelReady"
                answer = await channel.unary_unary(method)(ready, timeout=20)
                assert PB2.ModelReadyResponse.FromString(answer).ready
                status = message_class("tensorflow.serving.GetModelStatusRequest")()
                status.model_spec.name = name
                method = "/tensorflow.serving.ModelService/GetModelStatus"
                await channel.unary_unary(method)(status.SerializeToString(), timeout=20)
            with pytest.raises(grpc.aio.AioRpcError, match="several models .flowers, trees"):
                await infer(request(model=""), timeout=20)
        await one.leave()


async def test_a_port_in_use_is_named(registry: str) -> None:
    with bind("127.0.0.1", 0) as other:
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port} for gRPC.*--grpc-port"):
            async with worker(registry, grpc_port=port):
                pass


async def test_a_worker_that_has_left_is_unavailable(registry: str) -> None:
    """What a channel's retry policy takes to another worker; refused before the message is read."""
    async with worker(registry) as one:
        await one.register()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{one.instance.ports['grpc']}") as channel:
            call = channel.unary_unary(INFER)
            await call(request(), timeout=20)
            await one.leave()
            with pytest.raises(grpc.aio.AioRpcError, match="this worker is leaving") as caught:
                await call(request(), timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            silent = channel.stream_unary(INFER)(timeout=20)  # it sends no message
            assert await silent.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_that_began_before_the_drain_is_answered(registry: str) -> None:
    async with worker(registry, drain=DrainConfig(lease_s=0.0)) as one:
        await one.register()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{one.instance.ports['grpc']}") as channel:
            call = channel.stream_unary(INFER)(timeout=20)
            side: Any = not_none(one._running).side
            calls: Any = side.service.context
            await call.wait_for_connection()
            await asyncio.sleep(0)
            server_sees = until(lambda: calls.admission.uploads == 1)
            await server_sees
            leaving = asyncio.create_task(one.leave())
            await until(lambda: calls.admission.refusal is not None)
            await call.write(request())
            await call.done_writing()
            assert PB2.ModelInferResponse.FromString(await call).outputs
            await leaving
            assert calls.admission.state is WorkerState.DRAINING


async def test_models_are_loaded_by_who_has_the_token(registry: str) -> None:
    token = "0123456789abcdef" * 2
    name = "/inference.GRPCInferenceService/RepositoryModel"
    order = PB2.RepositoryModelLoadRequest(model_name="flowers").SerializeToString()
    async with worker(registry, models=ModelsConfig(admin_token=token)) as one:
        await one.register()
        target = f"127.0.0.1:{one.instance.ports['grpc']}"
        async with grpc.aio.insecure_channel(target) as channel:
            load = channel.unary_unary(f"{name}Load")
            for wrong in ("", "Bearer other"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await load(order, timeout=20, metadata=(("authorization", wrong),))
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            right = (("authorization", f"Bearer {token}"),)
            await load(order, timeout=20, metadata=right)
            unload = channel.unary_unary(f"{name}Unload")
            await unload(order, timeout=20, metadata=right)
            state = channel.unary_unary("/inference.GRPCInferenceService/ModelReady")
            ready = PB2.ModelReadyRequest(name="flowers").SerializeToString()
            async with asyncio.timeout(20):  # for the lease it is still served
                while PB2.ModelReadyResponse.FromString(await state(ready)).ready:
                    await asyncio.sleep(0.01)
            with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
                await channel.unary_unary(INFER)(request(), timeout=20)
            await load(order, timeout=20, metadata=right)
            await channel.unary_unary(INFER)(request(), timeout=20)


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_is_that_of_http(registry: str, tmp_path: Path, mutual: bool) -> None:
    ca = Authority(tmp_path)
    pair = ca.issue("localhost", hosts=("localhost", "127.0.0.1"))
    client = ca.issue("client")
    more = {"client_ca": str(ca.file)} if mutual else {}
    async with worker(registry, tls=serve_with(pair, **more)) as one:
        await one.register()
        target = f"localhost:{one.instance.ports['grpc']}"

        async def call(credentials: grpc.ChannelCredentials) -> bytes:
            async with grpc.aio.secure_channel(target, credentials) as channel:
                return await channel.unary_unary(INFER)(request(), timeout=20)

        root = Path(ca.file).read_bytes()
        shown = grpc.ssl_channel_credentials(
            root, Path(client.key).read_bytes(), Path(client.cert).read_bytes()
        )
        anonymous = grpc.ssl_channel_credentials(root)
        assert await call(shown)
        if mutual:
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await call(anonymous)
        else:
            assert await call(anonymous)
        with pytest.raises(grpc.aio.AioRpcError):
            async with grpc.aio.insecure_channel(target) as channel:
                await channel.unary_unary(INFER)(request(), timeout=20)


async def test_a_renewed_certificate_is_used_without_a_restart(
    registry: str, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    pair = old.issue("localhost", hosts=("localhost", "127.0.0.1"))
    other = new.issue("localhost", hosts=("localhost", "127.0.0.1"))
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with worker(registry, tls=serve_with(pair)) as one:
        target = f"localhost:{one.instance.ports['grpc']}"

        async def served(ca: Authority) -> bool:
            trust = grpc.ssl_channel_credentials(Path(ca.file).read_bytes())
            async with grpc.aio.secure_channel(target, trust, options=own) as channel:
                try:
                    await channel.unary_unary(INFER)(request(), timeout=20)
                except grpc.aio.AioRpcError:
                    return False
                return True

        assert await served(old)
        Path(pair.key).write_bytes(Path(other.key).read_bytes())
        Path(pair.cert).write_bytes(Path(other.cert).read_bytes())
        async with asyncio.timeout(20):  # the files are looked at twice a second
            while not await served(new):
                await asyncio.sleep(0.05)
        assert not await served(old)


@pytest.mark.shell
def test_nothing_of_grpc_is_imported_without_the_option() -> None:
    code = (
        "import sys, fingerpost.worker.worker, fingerpost.worker.service\n"
        "print([each for each in sys.modules if each.partition('.')[0] in ('grpc', 'google')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
