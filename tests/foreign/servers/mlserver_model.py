# pyright: reportMissingImports=false
"""The same as a custom runtime of MLServer: FP32 [1, 8, 8, 3] in, probabilities out."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Colours(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        pixels = NumpyCodec.decode_input(payload.inputs[0])
        if pixels.shape[1:] != (8, 8, 3):
            raise ValueError(f"shape {pixels.shape}")
        means = pixels.mean(axis=(1, 2)) + 1e-9
        scores = means / means.sum(axis=1, keepdims=True)
        output = NumpyCodec.encode_output("scores", scores)
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])
