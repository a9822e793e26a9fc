"""LitServe with dynamic batching (its documentation: max_batch_size, batch_timeout)."""

import sys
from typing import Any

import litserve as ls
import numpy as np
from fastapi import Request
from saved_model import SavedModel, best, decode


class Classify(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.model = SavedModel()

    def decode_request(self, request: Request) -> Any:
        return decode(request["data"].file.read())

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, batch: Any) -> Any:
        return self.model.predict(batch)

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> Any:
        return best(output)


if __name__ == "__main__":
    api = Classify(max_batch_size=16, batch_timeout=0.01)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
