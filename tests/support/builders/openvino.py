"""The colours model in OpenVINO's format, and in ONNX and TensorFlow Lite for OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnx import TensorProto

from tests.support.builders import litert, onnx
from tests.support.colours import SIDE

FRAMEWORK = 'framework = "openvino"\n'


def convert(folder: Path) -> None:
    """Make `.xml` and `.bin` of the folder's only ONNX file, which goes."""
    import openvino as ov

    (path,) = folder.glob("*.onnx")
    ov.save_model(ov.Core().read_model(path), path.with_suffix(".xml"), compress_to_fp16=False)
    path.unlink()


def channels_first(folder: Path) -> None:
    onnx.write(folder, ["N", 3, SIDE, SIDE])
    convert(folder)


def uint8(folder: Path) -> None:
    onnx.write(folder, ["N", SIDE, SIDE, 3], channels_last=True, dtype=TensorProto.UINT8)
    convert(folder)


def fixed_batch(folder: Path) -> None:
    onnx.write(folder, [4, 3, SIDE, SIDE])
    convert(folder)


def of_onnx(folder: Path) -> None:
    """An ONNX file, with a size and an activation that only the manifest says."""
    toml = f'[input]\nheight = {SIDE}\nwidth = {SIDE}\n[output]\nactivation = "softmax"\n'
    onnx.write(folder, ["N", 3, "H", "W"], end="Identity")
    (folder / "model.toml").write_text(FRAMEWORK + toml)


def of_tflite(folder: Path) -> None:
    litert.floats(folder)
    (folder / "model.toml").write_text(FRAMEWORK)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "openvino": channels_first,
    "openvino-uint8": uint8,
    "openvino-fixed-batch": fixed_batch,
    "openvino-onnx": of_onnx,
    "openvino-tflite": of_tflite,
}
