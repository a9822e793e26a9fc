# pyright: reportMissingImports=false
"""The same with KServe's Python server."""

import sys

import kserve
from kserve import InferOutput, InferResponse


class Colours(kserve.Model):
    def __init__(self, name):
        super().__init__(name)
        self.load()

    def load(self):
        self.ready = True
        return True

    def predict(self, payload, headers=None, response_headers=None):
        pixels = payload.inputs[0].as_numpy()
        means = pixels.mean(axis=(2, 3)) + 1e-9  # NCHW
        scores = means / means.sum(axis=1, keepdims=True)
        output = InferOutput("scores", list(scores.shape), "FP32", data=scores.ravel().tolist())
        return InferResponse(payload.id or "1", self.name, [output])


if __name__ == "__main__":
    server = kserve.ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1)
    server.start([Colours("colours")])
