"""LitServe with dynamic batching (its documentation: max_batch_size, batch_timeout)."""

import io
import os
import sys
from typing import Any

import litserve as ls
import numpy as np
from fastapi import Request
from PIL import Image


class Classify(ls.LitAPI):
    def setup(self, device: str) -> None:
        import tensorflow as tf

        loaded = tf.saved_model.load(os.environ["MODEL"])
        self.keep = loaded
        self.run = loaded.signatures["serving_default"]
        self.name = next(iter(self.run.structured_input_signature[1]))
        self.predict(np.zeros((16, 224, 224, 3), np.float32))

    def decode_request(self, request: Request) -> Any:
        image = Image.open(io.BytesIO(request["data"].file.read())).convert("RGB")
        return np.asarray(image.resize((224, 224)), dtype=np.float32)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, batch: Any) -> Any:
        (scores,) = self.run(**{self.name: batch}).values()
        return scores.numpy()

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> Any:
        return [[int(i), float(output[i])] for i in np.argsort(output)[:-6:-1]]


if __name__ == "__main__":
    api = Classify(max_batch_size=16, batch_timeout=0.01)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
