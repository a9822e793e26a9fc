"""mosec: decoding in one stage, TensorFlow in the next, batches of 16 (mosec's documentation)."""

import io
import os
from typing import Any

import numpy as np
from mosec import Server, Worker
from PIL import Image


class Decode(Worker):
    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Any:
        image = Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224))
        return np.asarray(image, dtype=np.uint8)


class Classify(Worker):
    def __init__(self) -> None:
        import tensorflow as tf

        loaded = tf.saved_model.load(os.environ["MODEL"])
        self.keep = loaded
        self.run = loaded.signatures["serving_default"]
        self.name = next(iter(self.run.structured_input_signature[1]))
        self.example = [np.zeros((224, 224, 3), np.uint8)] * 16
        self.forward(self.example)

    def forward(self, data: list[Any]) -> list[Any]:
        batch = np.stack(data).astype(np.float32)
        (scores,) = self.run(**{self.name: batch}).values()
        return [
            [[int(i), float(row[i])] for i in np.argsort(row)[:-6:-1]] for row in scores.numpy()
        ]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Decode, num=2)
    server.append_worker(Classify, num=1, max_batch_size=16, max_wait_time=10)
    server.run()
