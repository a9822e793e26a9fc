"""The network that is trained: raw pixels in, preprocessing, backbone, and a new top.

A Keras application needs its own preprocessing; without it a model gives wrong answers with high
scores. So the preprocessing is part of the graph, and the model is served plain pixels.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import socket
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.tensorflow.load import import_tensorflow
from fingerpost.worker.training.config import IMAGENET, NO_WEIGHTS, SMALL
from fingerpost.worker.training.dataset import CHANNELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fingerpost.worker.training.config import TrainConfig

__all__ = ["Backbone", "Network", "build_network", "find_backbone", "import_keras"]

# What Keras' applications were trained at, where it is not 224 (their `default_size`).
_SIZES: Final = {
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2L": 480,
    "EfficientNetV2M": 480,
    "EfficientNetV2S": 384,
    "InceptionResNetV2": 299,
    "InceptionV3": 299,
    "NASNetLarge": 331,
    "Xception": 299,
}
_SMALL_SIDES: Final = (32, 128)
_SILENCE_S: Final = 20.0
"""Longest pause of a server of weights, in seconds. Keras itself sets no limit; a slow but steady
download may take any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A network without its top.

    Attributes:
        name: as Keras spells it, or `small`.
        build: called with `weights`, `include_top` and `input_shape`, gives a Keras model from
            preprocessed pixels to features `[N, h, w, c]`.
        preprocess: from float32 pixels in 0..255 to what `build`'s model takes.
        default_size: height and width in pixels it was made for; None where the images decide.
    """

    name: str
    build: Callable[..., Any]
    preprocess: Callable[[Any], Any]
    default_size: int | None

    def size_for(self, median_side: int) -> int:
        """Height and width in pixels, where the configuration leaves them open."""
        if self.default_size is not None:
            return self.default_size
        least, most = _SMALL_SIDES
        return min(max(median_side, least), most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The Keras models that share one set of weights; all of them give softmax `[N, classes]`.

    Attributes:
        backbone: without the top; what `fine_tune` unfreezes.
        training: from uint8 `[N, S, S, 3]`, varied at random while it is trained.
        serving: from uint8 `[N, S, S, 3]`, without that; what is exported.
    """

    backbone: Any
    training: Any
    serving: Any


def import_keras() -> Any:
    """Import Keras, which takes seconds.

    Raises:
        ConfigurationError: TensorFlow or Keras is not installed.
    """
    import_tensorflow(keras=True)
    import keras

    return keras


def find_backbone(name: str) -> Backbone:
    """The backbone of that name; capitals, hyphens and underscores do not matter.

    Raises:
        ConfigurationError: there is none of that name; the message names the most similar ones.
    """
    keras = import_keras()
    if _plain(name) in (SMALL, "none"):
        return Backbone(name=SMALL, build=_small, preprocess=_to_unit, default_size=None)
    known: dict[str, Backbone] = {
        _plain(attribute): Backbone(
            name=attribute,
            build=build,
            preprocess=module.preprocess_input,
            default_size=_SIZES.get(attribute, 224),
        )
        for _, module in inspect.getmembers(keras.applications, inspect.ismodule)
        if hasattr(module, "preprocess_input")
        for attribute, build in inspect.getmembers(module, inspect.isfunction)
        if hasattr(keras.applications, attribute)
    }
    if _plain(name) not in known:
        close = difflib.get_close_matches(_plain(name), [*known, SMALL], n=3)
        names = [known[key].name if key in known else key for key in close]
        raise ConfigurationError(
            f"no backbone {name!r}: give {', '.join(names) or 'MobileNetV2'}, another application "
            "of Keras, or 'small'"
        )
    return known[_plain(name)]


def build_network(
    config: TrainConfig, backbone: Backbone, *, image_size: int, classes: int
) -> Network:
    """Build the network and load its weights.

    The top is an average over all positions, dropout of a fifth, and one dense layer.

    Raises:
        ConfigurationError: the image size does not fit the backbone, the weights file does not, or
            the ImageNet weights cannot be downloaded.
    """
    keras = import_keras()
    shape = (image_size, image_size, CHANNELS)
    features = _build_backbone(
        backbone, shape, download=config.network.starting_weights == IMAGENET
    )
    if config.network.weights_file is not None:
        _load_weights(features, backbone, config.network.weights_file)
    frozen = config.network.starting_weights != NO_WEIGHTS
    features.trainable = not frozen

    pixels = keras.Input(shape, dtype="float32")
    # A frozen backbone's batch normalisation keeps its statistics even while it is fine-tuned.
    hidden = features(backbone.preprocess(pixels), training=False if frozen else None)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    hidden = keras.layers.Dropout(0.2)(hidden)
    scores = keras.layers.Dense(classes, activation="softmax", dtype="float32")(hidden)
    core = keras.Model(pixels, scores)

    image = keras.Input(shape, dtype="uint8", name="image")
    plain = keras.ops.cast(image, "float32")
    varied = plain
    for layer in _augmentation(config):
        varied = layer(varied)
    return Network(
        backbone=features,
        training=keras.Model(image, core(varied)),
        serving=keras.Model(image, core(plain)),
    )


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _build_backbone(backbone: Backbone, shape: tuple[int, int, int], *, download: bool) -> Any:
    try:
        with _quiet_and_bounded():
            return backbone.build(
                weights=IMAGENET if download else None, include_top=False, input_shape=shape
            )
    except ValueError as error:
        raise ConfigurationError(
            f"{backbone.name} cannot be built for image_size {shape[0]}: {_first_line(error)}"
        ) from error
    except Exception as error:  # Keras raises a plain Exception when a download fails
        if not download:
            raise
        raise ConfigurationError(
            f"the ImageNet weights of {backbone.name} cannot be downloaded "
            f"({_first_line(error)}): give --weights PATH with a file of them, or --weights none"
        ) from error


@contextlib.contextmanager
def _quiet_and_bounded() -> Iterator[None]:
    """Silence Keras' download and its warnings, and limit how long it waits.

    MobileNet warns that the weights of 224 x 224 are used for other sizes as well, and loading a
    wrong file gives a warning for each layer before the error.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _load_weights(features: Any, backbone: Backbone, path: Path) -> None:
    try:
        with _quiet_and_bounded():
            features.load_weights(path)
    except Exception as error:  # h5py and zipfile raise many kinds of errors
        raise ConfigurationError(
            f"{str(path)!r} does not hold the weights of {backbone.name} without its top "
            f"({_first_line(error)}): give the file that this backbone's save_weights wrote, or "
            "--weights none"
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def _to_unit(pixels: Any) -> Any:
    """From 0..255 to -1..1."""
    return pixels / 127.5 - 1.0


def _small(*, weights: None, include_top: bool, input_shape: tuple[int, int, int]) -> Any:
    """Blocks of convolution and pooling down to 4 x 4 positions or fewer, then a layer over all.

    That last layer can use where in the image a stroke is; averaging the positions instead was
    two points worse on the digits. Batch normalisation was left out: with 39 steps an epoch its
    running statistics lag behind, and the validation accuracy jumped between 0.5 and 0.95. The
    arguments are those of a Keras application; there are no weights to download and no top.
    """
    del weights, include_top
    keras = import_keras()
    pixels = keras.Input(input_shape)
    hidden, side, filters = pixels, input_shape[0], 32
    while side > 4:
        hidden = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(hidden)
        hidden = keras.layers.MaxPooling2D(padding="same")(hidden)
        side, filters = (side + 1) // 2, min(2 * filters, 128)
    hidden = keras.layers.Conv2D(128, side, activation="relu")(hidden)
    return keras.Model(pixels, hidden, name=SMALL)


def _augmentation(config: TrainConfig) -> list[Any]:
    """Layers that vary float32 pixels at random while training, and do nothing otherwise."""
    layers = import_keras().layers
    made = []
    if config.augmentation.flip:
        made.append(layers.RandomFlip("horizontal"))
    if config.augmentation.augment:
        # Edges are repeated outwards: black corners would be a pattern to learn.
        made += [
            layers.RandomRotation(10 / 360, fill_mode="nearest"),
            layers.RandomZoom(0.1, fill_mode="nearest"),
            layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"),
        ]
    return made
