"""Images made as small as the model wants them."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from fingerpost.client.images.shrink import shrink, wanted_size
from fingerpost.registry import Instance, ModelInfo

MODELS = (ModelInfo(name="s", versions=("1",)),)


def picture(kind: str, size: tuple[int, int], mode: str = "RGB", **options: object) -> bytes:
    image = Image.effect_noise(size, 60).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        ("JPEG", "RGB", "JPEG"),
        ("JPEG", "L", "JPEG"),
        ("PNG", "RGBA", "PNG"),
        ("PNG", "P", "PNG"),
        ("BMP", "RGB", "PNG"),
    ],
)
def test_no_side_is_shorter_than_wanted(kind, mode, expected):
    data = picture(kind, (1600, 1200), mode)
    small = shrink(data, 224, 224)
    assert len(small) < len(data) / 4
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.size) == (expected, (299, 224))


def test_a_turned_photograph_stays_turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    small = shrink(picture("JPEG", (1600, 1200), exif=exif), 100, 400)
    with Image.open(io.BytesIO(small)) as image:
        assert image.getexif()[0x0112] == 6
        assert image.size == (533, 400)  # 400 wide once it is turned


@pytest.mark.parametrize(
    "data",
    [
        picture("JPEG", (200, 300)),
        b"no image",
        b"",
        picture("JPEG", (1600, 1200))[:500],
    ],
    ids=["small already", "none", "empty", "cut"],
)
def test_what_cannot_be_made_smaller_is_sent_as_it_is(data):
    assert shrink(data, 224, 224) is data


def instance(image: str | None) -> Instance:
    meta = {} if image is None else {"image": image}
    return Instance(
        id="a", service="s", host="127.0.0.1", ports={"http": 1}, models=MODELS, meta=meta
    )


@pytest.mark.parametrize(
    ("images", "size"),
    [
        (["224x224x3"], (224, 224)),
        (["224x112x3", "100x300x3"], (224, 300)),
        (["224x224x3", "any"], None),
        (["224x224x3", None], None),
        ([], None),
    ],
)
def test_the_largest_size_that_a_worker_wants(images, size):
    assert wanted_size(map(instance, images)) == size


async def test_a_client_shrinks_where_it_is_asked_to(cluster):
    [worker] = await cluster.workers("one")
    worker.meta = {"image": "224x224x3"}
    client = await cluster.client(worker)
    data = picture("JPEG", (1600, 1200))
    assert (await client.classify(data, "digits")).image_bytes == len(data)
    assert client.stats.bytes_spared == 0
    result = await client.classify(data, "digits", shrink=True)
    assert result.image_bytes < len(data) / 4
    assert len(worker.bodies[1]) == result.image_bytes
    assert client.stats.bytes_spared == len(data) - result.image_bytes
    [one] = [each async for each in client.stream([data], "digits", shrink=True)]
    assert one.image_bytes == result.image_bytes
