"""Models in one process and their front ends, over real sockets and shared memory."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fingerpost.errors import ConfigurationError, InvalidRequest, ModelFailed
from fingerpost.worker.backends.python_object import describe_object, load_object
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.inference import run
from fingerpost.worker.front_ends.messages import ModelRaised
from fingerpost.worker.front_ends.model_server import ModelServer
from fingerpost.worker.front_ends.remote_models import RemoteBackend, RemoteModels
from fingerpost.worker.repository.sources import FixedModel
from tests.support.waiting import until_blocking

pytestmark = pytest.mark.shell

SIDE = 4


class Means:
    """Scores are an image's own means, so that each answer shows whose it is."""

    height = width = SIDE
    labels = ("red", "green", "blue")
    max_batch = 8

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.closed = 0
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()

    def predict(self, batch: Any) -> Any:
        self.running.set()
        assert self.gate.wait(30)
        self.sizes.append(len(batch))
        if (batch == 13).all(axis=(1, 2, 3)).any():
            raise RuntimeError("thirteen")
        return batch.mean(axis=(1, 2))

    def close(self) -> None:
        self.closed += 1


def image(number: int) -> Any:
    return np.full((SIDE, SIDE, 3), (number, number + 1, number + 2), np.uint8)


class Place:
    """A model's process, and front ends that are threads of this test."""

    def __init__(self) -> None:
        self.model = Means()
        self.loads = 0
        self.files = describe_object(
            self.model, name="means", version="1", labels=None, image_size=None, max_batch=None
        )
        self.server = ModelServer(FixedModel(self.files), self._load, BatchingConfig())
        self._open: list[Callable[[], None]] = []

    def _load(self, files: Any) -> Any:
        self.loads += 1
        return load_object(self.model, files)

    def front_end(self) -> RemoteBackend:
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server.serve(other)
        self._open.append(own.close)
        backend = RemoteModels(own).load(self.files)
        self._open.append(backend.close)
        return backend

    def close(self) -> None:
        for each in reversed(self._open):
            each()
        self.server.close(10)


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()


def test_each_image_gets_its_own_scores(place: Place) -> None:
    backend = place.front_end()
    assert backend.input.height == SIDE
    assert not backend.input.inline
    assert backend.labels == Means.labels  # type: ignore[attr-defined]
    numbers = [3, 50, 200, 7]
    scores = backend.predict([image(each) for each in numbers])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [(n, n + 1, n + 2) for n in numbers])


def test_a_model_is_loaded_once_and_closed_after_its_last_front_end() -> None:
    place = Place()
    first, second = place.front_end(), place.front_end()
    assert place.loads == 1
    first.close()
    np.testing.assert_allclose(second.predict([image(9)]), [(9, 10, 11)])
    assert not place.model.closed
    second.close()
    place.server.close(10)
    assert place.model.closed == 1
    third = place.front_end()
    assert place.loads == 2, "it is loaded again"
    third.close()
    place.server.close(10)


def test_batches_that_are_there_at_once_run_as_one(place: Place) -> None:
    fronts = [place.front_end() for _ in range(4)]
    place.model.sizes.clear()
    place.model.gate.clear()
    place.model.running.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(fronts[0].predict, [image(1)])
        assert place.model.running.wait(30)
        rest = [
            pool.submit(each.predict, [image(10 * number + k) for k in range(3)])
            for number, each in enumerate(fronts[1:], 2)
        ]
        lane = next(iter(place.server._models.values()))._lanes[0]
        until_blocking(lambda: len(lane._epoll.poll(0)) == 3, "all three wait")
        place.model.gate.set()
        np.testing.assert_allclose(first.result(30), [(1, 2, 3)])
        for number, each in enumerate(rest, 2):
            wanted = [(n, n + 1, n + 2) for n in range(10 * number, 10 * number + 3)]
            np.testing.assert_allclose(each.result(30), wanted)
    assert sorted(place.model.sizes) == [1, 3, 6], "8 are the most, so 9 are two runs"


def test_a_bad_image_fails_alone(place: Place) -> None:
    backend = place.front_end()
    bad = np.full((SIDE, SIDE, 3), 13, np.uint8)
    with pytest.raises(ModelRaised, match="thirteen"):
        backend.predict([bad])
    outcomes, clean = run(backend, [image(1), bad, image(2)], BatchingConfig())
    assert not clean
    assert isinstance(outcomes[1], ModelFailed)
    assert "thirteen" in str(outcomes[1])
    np.testing.assert_allclose(outcomes[2], (2, 3, 4))  # type: ignore[arg-type]


def test_a_typed_error_of_the_model_stays_typed(place: Place) -> None:
    backend = place.front_end()
    with pytest.raises(InvalidRequest):
        backend.predict([np.zeros((SIDE + 1, SIDE, 3), np.float32)])


def test_a_model_that_cannot_be_loaded_says_why(place: Place) -> None:
    def load(files: Any) -> Any:
        raise ConfigurationError(f"{files.name} has no weights")

    place.server = ModelServer(FixedModel(place.files), load, BatchingConfig())
    with pytest.raises(ConfigurationError, match="means has no weights"):
        place.front_end()


def test_a_front_end_that_sends_nonsense_is_left_and_the_others_go_on(place: Place) -> None:
    hostile, honest = place.front_end(), place.front_end()
    channel = hostile._channels[0]
    channel._socket.send(b"\xc1 not a message")
    with pytest.raises(ModelFailed, match="ended|reached"):
        hostile.predict([image(1)])
    np.testing.assert_allclose(honest.predict([image(5)]), [(5, 6, 7)])
