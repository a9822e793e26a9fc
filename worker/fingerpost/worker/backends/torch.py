"""PyTorch models: exported programs (`.pt2`) and TorchScript (`.pt`, `.torchscript`).

A pickle (`torch.save` of a state_dict or of a module) is refused: a state_dict is not a model
without its class, and unpickling runs any code that the file names. The format is recognized by the
contents of the archive, not by its suffix, and loaded with unpickling of code forbidden.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.import_order import check_triton
from fingerpost.worker.backends.inputs import image_input
from fingerpost.worker.backends.pixels import is_pixels, predict_in_batches, score_reader
from fingerpost.worker.backends.reasons import reason
from fingerpost.worker.backends.torch_pixels import DevicePixels, pinned
from fingerpost.worker.backends.torch_runtime import with_runtime
from fingerpost.worker.models.manifest import Layout
from fingerpost.worker.models.unread import TORCH_EXPORT, TorchArchive, torch_archive

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item, LoadConfig
    from fingerpost.worker.backends.pixels import ToScores
    from fingerpost.worker.models.files import ModelFiles

__all__ = [
    "TorchBackend",
    "choose_device",
    "is_exported",
    "load",
    "load_script",
    "read_program",
]

logger = logging.getLogger(__name__)

_SAFE: Final = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class TorchBackend:
    """A loaded PyTorch model. See `Backend`.

    Weights and images are laid out with the channels last (`memory_format`, which leaves shapes as
    they are): 1.15 times the speed on a ResNet-18 and 1.6 times on a MobileNetV2 at 8 images,
    PyTorch 2.13 on 2 cores; on an H100 1.4 times on a ResNet-50 and 1.6 times on a MobileNetV2 at
    32 images, and 0.8 to 1.0 times at 8, which do not fill it.

    Args:
        module: maps a tensor of images to scores.
        wanted: its input, in types that NumPy has.
        dtype: the type that it takes, which NumPy may not have (bfloat16).
        to_scores: makes scores of the output.
        device: where it runs.
    """

    platform = "pytorch_libtorch"

    def __init__(
        self,
        module: Callable[[torch.Tensor], Any],
        wanted: ImageInput,
        *,
        dtype: torch.dtype,
        to_scores: ToScores,
        device: torch.device,
    ) -> None:
        self._module = module
        self._dtype = dtype
        self._to_scores = to_scores
        self._device = device
        self._format = torch.contiguous_format
        if wanted.layout is Layout.NCHW:
            self._format = torch.channels_last
        self._pixels = None
        if device.type == "cuda" and not wanted.encoded:
            self._pixels = DevicePixels(wanted, device)
        self.input = wanted
        self.device = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self.framework = f"torch {torch.__version__}"

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`."""
        pixels = self._pixels
        if pixels is None or not all(map(is_pixels, images)):
            return predict_in_batches(images, self.input, self._run_tensors)
        return predict_in_batches(
            images, pixels.wanted, lambda batch: self._run(pixels.scaled(batch)), empty=pinned
        )

    def close(self) -> None:
        """Free the model's memory, also what PyTorch's allocator keeps for later."""
        del self._module
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _run_tensors(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self._run(torch.from_numpy(batch))

    def _run(self, batch: torch.Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            value = batch.to(self._device, self._dtype, memory_format=self._format)
            output = self._module(value)
            if isinstance(output, tuple | list) and len(output) == 1:
                output = output[0]
            if not isinstance(output, torch.Tensor):
                raise TypeError(f"the model returns a {type(output).__name__}, not a tensor")
            return self._to_scores(output.float().cpu().numpy(), len(batch))


def load(files: ModelFiles, config: LoadConfig) -> TorchBackend:
    """Load a model from disk.

    Raises:
        ConfigurationError: the file is damaged, a pickle, or of another PyTorch; the device does
            not exist; or the model does not map one image input to one row of scores.
    """
    for what, name in (
        ("input", files.manifest.input.name),
        ("output", files.manifest.output.name),
    ):
        if name is not None:
            raise ConfigurationError(
                f"model {files.name}: {what}.name is {name!r}, but tensors of PyTorch models have "
                "no names: export a model with one input and one output, and leave it out"
            )
    device = choose_device(config)
    exported = is_exported(files.path)
    read = _exported if exported else _torchscript
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        module, shape, dtype = read(files.path, device)
    except ConfigurationError:
        raise
    except Exception as error:  # of any kind: the archive may hold anything
        raise ConfigurationError(f"{files.path} cannot be loaded: {reason(error)}") from error
    known = {torch.bfloat16: "float32"}.get(dtype, str(dtype).removeprefix("torch."))
    wanted = image_input(files, shape, known, layout=Layout.NCHW)
    return TorchBackend(
        with_runtime(module, files, device, exported=exported),
        wanted,
        dtype=dtype,
        to_scores=score_reader(files.manifest),
        device=device,
    )


def is_exported(path: Path) -> bool:
    """Whether the archive holds an exported program, and not TorchScript.

    Raises:
        ConfigurationError: it holds neither.
    """
    held = torch_archive(path)
    if held is TorchArchive.EXPORTED:
        return True
    if held is TorchArchive.SCRIPT:
        return False
    what = "not a PyTorch model" if held is TorchArchive.OTHER else held.value
    raise ConfigurationError(
        f"{path} is {what}: expected an exported program or TorchScript. "
        f"In the program that has the model's class, write {TORCH_EXPORT}"
    )


def choose_device(config: LoadConfig) -> torch.device:
    """Where a model is to run. Raises `ConfigurationError` where that device does not exist."""
    found = torch.cuda.is_available()
    device = torch.device(
        config.device if config.device != "auto" else "cuda:0" if found else "cpu"
    )
    if device.type != "cuda":
        return device
    if not found or (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"PyTorch finds {torch.cuda.device_count()} GPUs here, and {config.device} is not one "
            "of them: check that it is built for CUDA, or use --device cpu"
        )
    if config.memory_fraction is not None:
        torch.cuda.set_per_process_memory_fraction(config.memory_fraction, device)
    return device


_Read = tuple[Callable[[torch.Tensor], Any], list[int | None], torch.dtype]


def read_program(path: Path, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """The module of an exported program on a device, and its inputs' examples by their names."""
    check_triton()
    with _no_unpickling():
        program = torch.export.load(path)
    if device.type == "cuda":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    names = program.graph_signature.user_inputs
    values = {
        node.name: node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    }
    for node in program.graph.nodes:
        # A view of what a convolution with its channels last gave is an error, a reshape a copy.
        if node.op == "call_function" and node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    module: Any = program.module()
    return module.to(memory_format=torch.channels_last), values


def _exported(path: Path, device: torch.device) -> _Read:
    module, inputs = read_program(path, device)
    values = list(inputs.values())
    if len(values) != 1 or not isinstance(values[0], torch.Tensor):
        raise ConfigurationError(
            f"{path} takes {len(values)} inputs: expected one tensor of images"
        )
    shape = [side if isinstance(side, int) else None for side in values[0].shape]
    return module, shape, values[0].dtype


def load_script(path: Path, device: torch.device) -> Any:
    """A TorchScript module on a device, as it was saved."""
    # PyTorch 2.13 warns that TorchScript is deprecated, which is not news to an operator.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(path, map_location=device).eval()


def _torchscript(path: Path, device: torch.device) -> _Read:
    """A TorchScript module has no shape for its input; `model.toml` must give it."""
    module = load_script(path, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        dtype = next(
            (each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32
        )
        module = module.to(memory_format=torch.channels_last)
        if device.type == "cpu":
            try:
                # Folds batch normalisation into convolutions and picks oneDNN's layouts: 2.9 times
                # the speed on a MobileNetV2, 1.3 times on a ResNet-18, at 8 images.
                module = torch.jit.optimize_for_inference(module)
            except RuntimeError as error:
                logger.debug("%s is not optimized: %s", path, error)
    return module, [None, None, None, None], dtype


@contextlib.contextmanager
def _no_unpickling() -> Iterator[None]:
    """Make `torch.load`, which `torch.export.load` calls, read tensors only, and no code."""
    before = os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE]
        else:
            os.environ[_SAFE] = before
