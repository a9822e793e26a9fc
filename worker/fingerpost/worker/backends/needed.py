"""What each framework needs: one row for a framework, for all who load, install or look for it."""

from __future__ import annotations

from typing import Final, NamedTuple

from fingerpost.worker.models.manifest import Framework

__all__ = ["NEEDED", "Needed"]


class Needed(NamedTuple):
    """What a framework needs.

    Attributes:
        name: its name, for messages.
        module: what Python imports.
        extra: the extra of the package `fingerpost` that brings it.
        packages: the distributions that have the module; one of them is enough.
    """

    name: str
    module: str
    extra: str
    packages: tuple[str, ...] = ()

    @property
    def remedy(self) -> str:
        """How to get it; a container has no pip."""
        return f"pip install 'fingerpost[{self.extra}]', or take the image that has it"


NEEDED: Final = {
    Framework.TENSORFLOW: Needed(
        "TensorFlow", "tensorflow", "tensorflow", ("tensorflow", "tensorflow-cpu")
    ),
    Framework.ONNX: Needed(
        "ONNX Runtime", "onnxruntime", "onnx", ("onnxruntime", "onnxruntime-gpu")
    ),
    Framework.OPENVINO: Needed("OpenVINO", "openvino", "openvino", ("openvino",)),
    Framework.LITERT: Needed("LiteRT", "ai_edge_litert", "litert", ("ai-edge-litert",)),
    Framework.TORCH: Needed("PyTorch", "torch", "torch", ("torch",)),
    Framework.CAFFE: Needed("OpenCV", "cv2", "caffe", ("opencv-python-headless", "opencv-python")),
    Framework.PYTHON: Needed("NumPy", "numpy", "python"),
}
