"""mosec: decoding in one stage, TensorFlow in the next, batches of 16 (mosec's documentation)."""

from __future__ import annotations

from typing import Any

import numpy as np
from mosec import Server, Worker
from saved_model import SavedModel, best, decode


class Decode(Worker):
    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Any:
        return decode(data)


class Classify(Worker):
    def __init__(self) -> None:
        self.model = SavedModel()

    def forward(self, data: list[Any]) -> list[Any]:
        return [best(row) for row in self.model.predict(np.stack(data))]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Decode, num=2)
    server.append_worker(Classify, num=1, max_batch_size=16, max_wait_time=10)
    server.run()
