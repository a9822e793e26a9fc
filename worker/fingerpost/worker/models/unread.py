"""Model formats that are not read: what a file is, and how to make one of it that is read.

Files are recognized by their suffix; PyTorch's also by their content, because `.pt`, `.pth`, `.bin`
and `.ckpt` are used for models and for pickles alike. Nothing is unpickled or imported for that.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "TORCH_EXPORT",
    "TorchArchive",
    "is_openvino",
    "torch_archive",
    "why_not_read",
    "why_not_read_framework",
]

TORCH_EXPORT: Final = (
    "torch.export.save(torch.export.export(model.eval(), (example,), "
    "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), 'model.pt2')"
)
"""How to write a PyTorch model for batches of any size; `example` is a batch of two images."""


class TorchArchive(Enum):
    """What a file of PyTorch holds; `OTHER` is not one of PyTorch, or damaged."""

    EXPORTED = "an exported program"
    SCRIPT = "TorchScript"
    COMPILED = "compiled for one machine (AOTInductor)"
    PICKLE = "a pickle"
    OTHER = "something else"


@dataclass(frozen=True, slots=True)
class _Format:
    """A format: what a file of it is, and what to do instead."""

    what: str
    remedy: str


_IN_PYTHON: Final = f"in the program that has the model's class, write {TORCH_EXPORT}"
_PICKLE: Final = _Format(
    "a pickle of PyTorch (a state_dict, a checkpoint or a module): weights without their network, "
    "or code that reading them would run",
    _IN_PYTHON,
)
_WEIGHTS: Final = _Format(
    "a safetensors file: weights without their network",
    f"{_IN_PYTHON}; of a Hugging Face model: optimum-cli export onnx --model FOLDER onnx/",
)
_CHECKPOINT: Final = _Format(
    "a checkpoint of TensorFlow: weights without their network",
    "in the program that made it, write model.export('saved_model'); of TensorFlow 1: "
    "python -m tf2onnx.convert --checkpoint model.ckpt.meta --inputs IMAGES:0 --outputs SCORES:0 "
    "--output model.onnx",
)
_TFLITE: Final = _Format("a TensorFlow Lite model under another name", "name it model.tflite")
_CORE_ML: Final = _Format(
    "a Core ML model, for Apple's devices",
    "export the model that it was made from to ONNX or as a SavedModel",
)
_TENSORRT: Final = _Format(
    "a TensorRT engine, compiled for one kind of GPU", "serve the ONNX file that it was built from"
)
_OPENVINO: Final = _Format(
    "the weights of an OpenVINO model", "give the .xml beside it, or the folder"
)
_XML: Final = _Format(
    "an XML file that is not an OpenVINO model",
    "give the model.xml that openvino.save_model(model, 'model.xml') wrote, with its .bin",
)
_ANY_PICKLE: Final = _Format(
    "a pickle, as of scikit-learn: reading it would run its code",
    "write a Python class that loads it and has predict(), and name it in a model.toml: "
    'framework = "python" and class = "my_module:MyModel"',
)
_IN_A_CLASS: Final = _Format(
    "a model of a framework that is not built in",
    'write a Python class that runs it, and name it in a model.toml: framework = "python" and '
    'class = "my_module:MyModel"; or convert it to ONNX',
)
_ARCHIVE: Final = _Format(
    "an archive", "unpack it, and give the folder or the model's file that was in it"
)
_CAFFE_WEIGHTS: Final = _Format(
    "the weights of a Caffe model", "give the folder, with the network's .prototxt beside them"
)
_TFJS: Final = _Format(
    "a TensorFlow.js model",
    "convert it: tensorflowjs_converter --input_format=tfjs_layers_model "
    "--output_format=keras_saved_model model.json saved_model",
)

_FORMATS: Final = {
    ".ckpt": _CHECKPOINT,
    ".index": _CHECKPOINT,
    ".meta": _CHECKPOINT,
    ".safetensors": _WEIGHTS,
    ".lite": _TFLITE,
    ".mlmodel": _CORE_ML,
    ".mlpackage": _CORE_ML,
    ".engine": _TENSORRT,
    ".plan": _TENSORRT,
    ".trt": _TENSORRT,
    ".pkl": _ANY_PICKLE,
    ".pickle": _ANY_PICKLE,
    ".joblib": _ANY_PICKLE,
    ".caffemodel": _CAFFE_WEIGHTS,
    ".pdmodel": _IN_A_CLASS,
    ".pdiparams": _IN_A_CLASS,
    ".pdparams": _IN_A_CLASS,
    ".params": _IN_A_CLASS,
    ".gguf": _IN_A_CLASS,
    ".msgpack": _IN_A_CLASS,
    ".weights": _IN_A_CLASS,
    ".ptl": _IN_A_CLASS,
    ".ort": _Format("a model in ONNX Runtime's own format", "serve the .onnx file it was made of"),
    ".mar": _ARCHIVE,
    ".zip": _ARCHIVE,
    ".tar": _ARCHIVE,
    ".gz": _ARCHIVE,
    ".tgz": _ARCHIVE,
}
_TORCH_SUFFIXES: Final = frozenset(
    {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pt2", ".pth", ".torchscript"}
)
_FRAMEWORKS: Final = {
    "tensorrt": _TENSORRT,
    "tensorrtplan": _TENSORRT,
    "trt": _TENSORRT,
    "coreml": _CORE_ML,
    "safetensors": _WEIGHTS,
    "tensorflowjs": _TFJS,
    "tfjs": _TFJS,
    **dict.fromkeys(
        ("jax", "flax", "mxnet", "paddle", "paddlepaddle", "xgboost", "lightgbm", "caffe2",
         "transformers", "huggingface", "mindspore", "darknet", "theano", "chainer", "fastai",
         "sklearn", "scikitlearn"),
        _IN_A_CLASS,
    ),
}  # fmt: skip


def why_not_read(path: Path) -> str | None:
    """What a file or folder is and what to do instead; None where it may be a model that is read.

    Args:
        path: an existing file or folder.
    """
    found = _format_of(path)
    return None if found is None else f"{found.what}, which is not read here. {_upper(found)}"


def why_not_read_framework(name: str) -> str | None:
    """What to do instead, for the name of a framework in a `model.toml`, such as `tflite`."""
    found = _FRAMEWORKS.get(re.sub(r"[^a-z0-9]", "", name.casefold()))
    return None if found is None else f"not read here. {_upper(found)}"


def torch_archive(path: Path) -> TorchArchive:
    """What a file of PyTorch holds, by the names of its entries."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
            names |= set(archive.namelist())  # those of PyTorch before 2.6 have no folder
    except (OSError, ValueError, zipfile.BadZipFile):
        return TorchArchive.PICKLE if _is_pickle(path) else TorchArchive.OTHER
    if names & {"models/model.json", "serialized_exported_program.json"}:
        return TorchArchive.EXPORTED
    if "constants.pkl" in names:
        return TorchArchive.SCRIPT
    if any(name.startswith("data/aotinductor/") for name in names):
        return TorchArchive.COMPILED
    return TorchArchive.PICKLE if "data.pkl" in names else TorchArchive.OTHER


def is_openvino(path: Path) -> bool:
    """Whether an XML file is a model in OpenVINO's format (IR): its root is `net`."""
    try:
        with path.open("rb") as file:
            begin = file.read(1000)
    except OSError:
        return False
    return re.search(rb"<net[\s>]", begin) is not None


def _format_of(path: Path) -> _Format | None:
    suffix = path.suffix.casefold()
    if path.is_dir():
        return _CORE_ML if suffix == ".mlpackage" else None
    if suffix in _TORCH_SUFFIXES:
        held = torch_archive(path)
        is_torch = zipfile.is_zipfile(path) or suffix not in (".pkl", ".pickle")
        if held is TorchArchive.PICKLE and is_torch:
            return _PICKLE
        if held in (TorchArchive.EXPORTED, TorchArchive.SCRIPT):
            return None
    if suffix == ".xml":
        return None if is_openvino(path) else _XML
    if suffix == ".bin" and path.with_suffix(".xml").exists():
        return _OPENVINO
    if path.name.startswith("pytorch_model") and suffix == ".bin":
        return _PICKLE
    if path.name == "checkpoint" or re.fullmatch(r"\.data-[0-9]{5}-of-[0-9]{5}", suffix):
        return _CHECKPOINT
    if path.name == "model.json" and next(path.parent.glob("*shard*of*.bin"), None):
        return _TFJS
    return _FORMATS.get(suffix)


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as a pickle does, with its protocol; `torch.save` once wrote these."""
    try:
        with path.open("rb") as file:
            begin = file.read(2)
    except OSError:
        return False
    return len(begin) == 2 and begin[0] == 0x80 and 2 <= begin[1] <= 5


def _upper(found: _Format) -> str:
    return found.remedy[0].upper() + found.remedy[1:]
