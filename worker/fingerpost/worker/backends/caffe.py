"""Caffe models (prototxt and caffemodel), run by OpenCV's DNN module on the CPU.

OpenCV 5 has no reader for Caffe models any more; 4.x has it, on all current Pythons and NumPys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.inputs import image_input
from fingerpost.worker.backends.pixels import predict_in_batches, score_reader
from fingerpost.worker.models.manifest import Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item, LoadConfig
    from fingerpost.worker.backends.pixels import ToScores
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["CaffeBackend", "load"]


class CaffeBackend:
    """A loaded Caffe model. See `Backend`."""

    platform = "opencv_caffe"

    def __init__(
        self, net: Any, wanted: ImageInput, *, source: str, result: str, to_scores: ToScores
    ) -> None:
        self._net = net
        self._source, self._result = source, result
        self._to_scores = to_scores
        self.input = wanted
        self.device = "cpu"
        self.framework = f"opencv {cv2.__version__}"

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`."""
        return predict_in_batches(images, self.input, self._run)

    def close(self) -> None:
        """Free the model's memory."""
        del self._net

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self._net.setInput(batch, self._source)
        # A copy: OpenCV reuses the output's memory in the next run.
        return self._to_scores(self._net.forward(self._result).copy(), len(batch))


def load(files: ModelFiles, config: LoadConfig) -> CaffeBackend:
    """Load a model from disk.

    Raises:
        ConfigurationError: a file is damaged, the prototxt is the one for training, the device is a
            GPU, or the model does not map one image input to one row of scores.
    """
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise ConfigurationError(
            f"OpenCV {cv2.__version__} cannot read Caffe models: "
            "pip install 'opencv-python-headless>=4.10,<5'"
        )
    if config.device.startswith("cuda"):
        raise ConfigurationError(
            f"Caffe models run on the CPU, not on {config.device}: use --device cpu, "
            "or convert the model to ONNX"
        )
    if config.threads:
        cv2.setNumThreads(config.threads)
    source, shape = _read_input(files)
    try:
        net = cv2.dnn.readNetFromCaffe(str(files.path), str(files.weights))
    except cv2.error as error:
        raise ConfigurationError(
            f"{files.path} with {files.weights} cannot be loaded: {' '.join(str(error).split())}"
        ) from error
    return CaffeBackend(
        net,
        image_input(files, shape, "float32", layout=Layout.NCHW, name=f"input {source!r}"),
        source=source,
        result=_output(files, net),
        to_scores=score_reader(files.manifest),
    )


def _read_input(files: ModelFiles) -> tuple[str, list[int | None]]:
    """The name and the shape of the input, which OpenCV does not report.

    They are written as `input: "data"` with four times `input_dim: 3` or one
    `input_shape { dim: 3 ... }`, or as a layer of type `Input`. The batch size there is ignored:
    OpenCV runs any.
    """
    text = re.sub(r"#.*", "", files.path.read_text(encoding="utf-8", errors="replace"))
    names = re.findall(r'\binput\s*:\s*"([^"]+)"', text)
    for layer in re.split(r"\blayers?\s*\{", text)[1:]:
        if re.search(r'\btype\s*:\s*"Input"', layer):
            names += re.findall(r'\btop\s*:\s*"([^"]+)"', layer)
    if not names:
        raise ConfigurationError(
            f"{files.path} has no input: give the prototxt for deployment (deploy.prototxt), "
            "not the one for training"
        )
    if len(names) > 1:
        raise ConfigurationError(
            f"{files.path} has {len(names)} inputs ({', '.join(names)}): expected one of images"
        )
    sides = re.findall(r"\binput_dim\s*:\s*(\d+)", text)
    if not sides and (block := re.search(r"shape\s*:?\s*\{([^}]*)\}", text)):
        sides = re.findall(r"\bdim\s*:\s*(\d+)", block[1])
    return names[0], [None, *map(int, sides[1:])]


def _output(files: ModelFiles, net: Any) -> str:
    name = files.manifest.output.name
    if name is not None:
        known = net.getLayerNames()
        if name not in known:
            raise ConfigurationError(
                f"model {files.name} has no output {name!r}; its last layers are "
                f"{', '.join(known[-3:])}"
            )
        return name
    names: Sequence[str] = net.getUnconnectedOutLayersNames()
    if len(names) != 1:
        raise ConfigurationError(
            f"model {files.name} has {len(names)} outputs ({', '.join(names)}): "
            "name the one of the scores with output.name in model.toml"
        )
    return names[0]
