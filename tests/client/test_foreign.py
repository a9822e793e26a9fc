"""Images classified by foreign workers: a real worker by each other protocol, and small servers."""

from __future__ import annotations

import contextlib

import pytest
from tests.support.colours import LABELS, encoded
from tests.support.foreign import static_url as url
from tests.support.rig import serving

from fingerpost.client import Classification, Client, ClientConfig
from fingerpost.errors import (
    BadAnswer,
    BrokenImage,
    ConfigurationError,
    DeadlineExceeded,
    ImageError,
    UnknownPath,
    UnsupportedImage,
)
from fingerpost.registry import ModelReference

RED, BLUE = encoded("red"), encoded("blue", form="JPEG")
TENSOR = {"size": "16x16"}
CASES = [
    ({"protocol": "form"}, False),
    ({"protocol": "fingerpost"}, False),
    ({"protocol": "v2"}, True),
    ({"protocol": "v2", "encoding": "binary"}, True),
    ({"protocol": "v2", **TENSOR}, True),
    ({"protocol": "v2", "encoding": "binary", **TENSOR}, True),
    ({"protocol": "v2", "dtype": "uint8", **TENSOR}, True),
    ({"protocol": "v2", "dtype": "uint8", "encoding": "binary", **TENSOR}, True),
    ({"protocol": "tfserving"}, True),
    ({"protocol": "tfserving", "input": "image"}, True),
    ({"protocol": "tfserving", **TENSOR}, True),
    ({"protocol": "tfserving", "version": "7"}, True),
]


async def test_a_real_worker_answers_the_same_by_every_protocol():
    labels = {"colours": list(LABELS)}
    async with serving() as rig, contextlib.AsyncExitStack() as stack:
        ours = await stack.enter_async_context(Client(f"static://127.0.0.1:{rig.port}"))
        for image in (RED, BLUE):
            expected = dict((await ours.classify(image, "colours")).predictions)
            for meta, numbered in CASES:
                config = ClientConfig(labels=labels if numbered else None)
                async with Client(url(rig.port, **meta), config=config) as client:
                    result = await client.classify(image, "colours")
                assert dict(result.predictions) == pytest.approx(expected, abs=1e-5), meta
                assert result.label == max(expected, key=lambda each: expected[each])
                assert (result.model, result.worker) == ("colours", f"static-127.0.0.1-{rig.port}")
                assert result.version == ("7" if meta["protocol"] == "fingerpost" else
                                          meta.get("version", ""))  # fmt: skip


async def test_infer_gives_a_classification(foreign):
    async with Client(url(foreign[0].server.port, protocol="torchserve")) as client:
        result = await client.infer(RED, "colours", top=1)
    assert isinstance(result, Classification)
    assert result.predictions == (("rose", 0.75),)
    assert (result.worker, result.version) == (f"static-127.0.0.1-{foreign[0].server.port}", "")


async def test_errors_of_a_real_worker_are_typed():
    async with serving() as rig:
        for protocol in ("form", "v2", "tfserving"):
            async with Client(url(rig.port, protocol=protocol)) as client:
                for bad, kind in ((b"text", UnsupportedImage), (RED[:60], BrokenImage)):
                    with pytest.raises(kind, match="HTTP 4"):
                        await client.classify(bad, "colours")
        async with Client(url(rig.port, protocol="v2", **TENSOR)) as client:
            with pytest.raises(UnsupportedImage):  # by the client itself
                await client.classify(b"text", "colours")
            assert client.stats.attempts == 1
        async with Client(url(rig.port, protocol="v2", model="cats")) as client:
            with pytest.raises(UnknownPath, match="/v2/models/cats/infer"):
                await client.classify(RED, "cats")


def ports(servers):
    return [each.server.port for each in servers]


async def test_torchserve(foreign):
    one = foreign[0]
    async with Client(url(one.server.port, protocol="torchserve")) as client:
        result = await client.classify(RED, "colours", top=1)
    assert result.predictions == (("rose", 0.75),)
    [(path, _, body)] = one.requests
    assert (path, body) == ("/predictions/colours", RED)


async def test_it_is_asked_for_nothing_else_and_sent_nothing_of_ours(foreign):
    config = ClientConfig(lease="abc.def.ghi")
    async with Client(url(*ports(foreign), protocol="form"), config=config) as client:
        for _ in range(30):
            await client.classify(RED, "colours")
        assert client.stats.probes == 0
    for each in foreign:
        for path, headers, _ in each.requests:
            assert path == "/"
            assert not {"Authorization", "Fingerpost-Boot-Id", "Fingerpost-Model"} & headers.keys()


async def test_images_are_spread_by_requests_in_flight_and_measured_time(foreign):
    foreign[0].delay_s, foreign[1].delay_s, foreign[2].delay_s = 0.2, 0.02, 0.02
    async with Client(url(*ports(foreign), protocol="form")) as client:
        results = client.stream([RED] * 120, "colours", concurrency=6)
        assert [each.error async for each in results] == [None] * 120
    counts = [len(each.requests) for each in foreign]
    assert counts[0] < 30, counts
    assert min(counts[1:]) > 30, counts


async def test_one_that_fails_is_left_out_and_nothing_is_lost(foreign):
    foreign[0].status = 500
    await foreign[1].server.stop()
    async with Client(url(*ports(foreign), protocol="form")) as client:
        results = [each async for each in client.stream([RED] * 60, "colours", concurrency=4)]
        assert [each.error for each in results] == [None] * 60
        assert client.stats.ejections >= 1
    assert len(foreign[0].requests) < 20


async def test_a_busy_one_is_asked_later(foreign):
    foreign[0].status = 503
    async with Client(url(*ports(foreign[:2]), protocol="form")) as client:
        for _ in range(10):
            assert (await client.classify(RED, "colours")).label == "rose"
    assert len(foreign[0].requests) < 10


@pytest.mark.parametrize(
    ("answer", "says"),
    [("hello", "no labels and scores"), ({"error": "cuda"}, "it answered an error")],
)
async def test_a_wrong_answer_is_a_typed_error(foreign, answer, says):
    for each in foreign:
        each.answer = answer
    async with Client(url(*ports(foreign), protocol="form")) as client:
        with pytest.raises(BadAnswer, match=says):
            await client.classify(RED, "colours", timeout_s=5)


async def test_a_path_that_is_not_there_is_said_at_once(foreign):
    for each in foreign:
        each.status = 404
    async with Client(url(*ports(foreign), protocol="form", path="/nothing")) as client:
        with pytest.raises(UnknownPath, match="HTTP 404 at /nothing"):
            await client.classify(RED, "colours")


async def test_metadata_that_are_not_valid_are_named(foreign):
    async with Client(url(foreign[0].server.port, protocol="v2", size="big")) as client:
        with pytest.raises((BadAnswer, DeadlineExceeded), match="size='big' is not valid"):
            await client.classify(RED, "colours", timeout_s=2)


async def test_a_source_that_is_read_once_is_refused(foreign):
    async with Client(url(foreign[0].server.port, protocol="form")) as client:
        with pytest.raises(ImageError, match="give its bytes"):
            await client.classify(iter([RED]), "colours")
        assert (await client.classify(RED, "colours")).label == "rose"
    [request] = foreign[0].requests
    assert RED in request[2]


async def test_labels_come_from_the_metadata_or_from_a_file_which_outranks_them(foreign, tmp_path):
    foreign[0].answer = [0.25, 0.75]
    at = url(foreign[0].server.port, protocol="form", labels="a,b")
    path = tmp_path / "labels.txt"
    path.write_text("daisy\nrose\n")
    for labels, best in ((None, "b"), ({"colours": str(path)}, "rose"), ({"other": "x"}, "b")):
        async with Client(at, config=ClientConfig(labels=labels)) as client:
            assert (await client.classify(RED, "colours")).label == best
    async with Client(at, config=ClientConfig(labels={"colours": str(tmp_path / "no")})) as client:
        with pytest.raises(ConfigurationError, match="labels of 'colours'"):
            await client.classify(RED, "colours")


async def test_the_version_is_unknown(foreign):
    async with Client(url(foreign[0].server.port, protocol="form")) as client:
        view = await client.resolve("colours")
        assert view.matching(ModelReference.parse("colours@3")) == ()
        assert (await client.classify(RED, "colours")).version == ""
