"""Which framework runs a file, and which file of a folder is the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.manifest import (
    MANIFEST,
    ChannelOrder,
    Framework,
    Manifest,
    Preprocessing,
)
from fingerpost.worker.models.unread import (
    TorchArchive,
    is_openvino,
    torch_archive,
    why_not_read,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "SAVED_MODEL",
    "check_format",
    "file_in",
    "frameworks_of",
    "inferred_manifest",
    "is_keras",
]

SAVED_MODEL: Final = "saved_model.pb"
# The frameworks that run a file, first the one that does without a manifest.
_SUFFIXES: Final = {
    ".keras": (Framework.TENSORFLOW,),
    ".h5": (Framework.TENSORFLOW,),
    ".hdf5": (Framework.TENSORFLOW,),
    ".pb": (Framework.TENSORFLOW,),
    ".onnx": (Framework.ONNX, Framework.OPENVINO),
    ".xml": (Framework.OPENVINO,),
    ".tflite": (Framework.LITERT, Framework.OPENVINO),
    ".pt2": (Framework.TORCH,),
    ".pt": (Framework.TORCH,),
    ".torchscript": (Framework.TORCH,),
    ".prototxt": (Framework.CAFFE,),
}
# Models of Keras 2, or weights that lie beside a model: they count where there is nothing else.
_HDF5: Final = frozenset({".h5", ".hdf5"})
# Beside another model, which they were converted from, these count only where a manifest says so.
_CONVERTED: Final = frozenset({".xml", ".tflite"})
# The default preprocessing of a format: that of `label_image` in TensorFlow's retraining tutorial,
# and that of Caffe, which reads images through OpenCV.
_PREPROCESSING: Final = {
    ".pb": Preprocessing(std=255.0),
    ".prototxt": Preprocessing(order=ChannelOrder.BGR),
}
_EXPECTED: Final = (
    f"expected {SAVED_MODEL}, one .keras or .h5 file, one frozen graph (.pb), one .onnx, .tflite, "
    f".pt2, .pt or .torchscript file, one .xml with its .bin, one .prototxt with one .caffemodel, "
    f"a {MANIFEST}, or numbered version folders"
)


def is_keras(path: Path) -> bool:
    """Whether a model's file is read by Keras."""
    return path.suffix == ".keras" or path.suffix in _HDF5


def file_in(folder: Path, framework: Framework | None) -> Path:
    """The only model file in a folder, of one framework or of any; the folder of a SavedModel.

    Raises:
        ConfigurationError: there is none, or several.
    """
    if (folder / SAVED_MODEL).is_file() and framework in (None, Framework.TENSORFLOW):
        return folder
    content = sorted(folder.iterdir())
    ranks: dict[int, list[Path]] = {}
    for file in content:
        runs = frameworks_of(file) if file.is_file() else ()
        if runs and (framework is None or framework in runs):
            ranks.setdefault(_rank(file, framework), []).append(file)
    models = ranks[min(ranks)] if ranks else []
    if len(models) == 1:
        return models[0]
    if not models:
        for file in (folder, *content):
            if hint := why_not_read(file):
                raise ConfigurationError(f"{folder} is not a model: {file.name} is {hint}")
        if code := next((file for file in content if file.suffix == ".py"), None):
            raise ConfigurationError(f"{folder} is not a model yet: {_python_class(code)}")
    found = ", ".join(file.name for rank in sorted(ranks) for file in ranks[rank])
    raise ConfigurationError(
        f"{folder} is not a model: {_EXPECTED}; found {found or 'none of these'}"
    )


def inferred_manifest(file: Path) -> Manifest:
    """What a model's file implies. Raises `ConfigurationError` where it is not a model."""
    if file.is_dir():
        return Manifest(framework=Framework.TENSORFLOW)
    _check_read(file)
    runs = frameworks_of(file)
    if not runs:
        kinds = ", ".join(_SUFFIXES)
        hint = f"; {_python_class(file)}" if file.suffix == ".py" else ""
        raise ConfigurationError(
            f"{file} is not a model: expected one of {kinds}, or a folder{hint}"
        )
    preprocessing = _PREPROCESSING.get(file.suffix, Preprocessing())
    return Manifest(framework=runs[0], file=file.name, preprocessing=preprocessing)


def check_format(manifest: Manifest, file: Path) -> None:
    """Check that the manifest's framework runs its file. Raises `ConfigurationError`."""
    _check_read(file)
    runs = (Framework.TENSORFLOW,) if file.is_dir() else _SUFFIXES.get(file.suffix, ())
    if runs and manifest.framework not in runs:
        names = " or ".join(repr(each.value) for each in runs)
        raise ConfigurationError(
            f"{file} is a model for framework {names}, but its {MANIFEST} names "
            f"{manifest.framework.value!r}"
        )


def _check_read(file: Path) -> None:
    hint = why_not_read(file)
    if hint is not None:
        raise ConfigurationError(f"{file} is {hint}")


def frameworks_of(file: Path) -> tuple[Framework, ...]:
    """Those that run a file, first the usual one; none where it is not a model."""
    if file.suffix == ".xml" and not is_openvino(file):
        return ()
    return (Framework.TORCH,) if _is_torch(file) else _SUFFIXES.get(file.suffix, ())


def _rank(file: Path, framework: Framework | None) -> int:
    """Which file of several is the model: the one with the lowest number.

    Weights alone are last, so that the error is about those.
    """
    if file.suffix in _HDF5:
        return 4 if file.stem.endswith(".weights") else 1
    if file.suffix == ".pth":  # beside another model it is what that was made of
        return 2
    if framework is Framework.OPENVINO:
        return int(file.suffix != ".xml")
    return 3 if file.suffix in _CONVERTED else 0


def _python_class(code: Path) -> str:
    return (
        f"a Python class needs a {MANIFEST} beside it with two lines: "
        f'framework = "python" and class = "{code.stem}:CLASS"'
    )


def _is_torch(file: Path) -> bool:
    """Whether a `.pth` is a model: mostly it is a pickle of weights."""
    return (
        file.suffix == ".pth"
        and file.is_file()
        and torch_archive(file) in (TorchArchive.EXPORTED, TorchArchive.SCRIPT)
    )
