"""The settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from fingerpost.basics.renames import renamed_fields
from fingerpost.errors import ConfigurationError, InvalidName
from fingerpost.registry.names import check_service

__all__ = [
    "IMAGENET",
    "NO_WEIGHTS",
    "SMALL",
    "AugmentationConfig",
    "FitConfig",
    "NetworkConfig",
    "TrainConfig",
]

SMALL: Final = "small"
IMAGENET: Final = "imagenet"
NO_WEIGHTS: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """The network that is trained.

    Attributes:
        backbone: the network that turns pixels into features: the name of a Keras application in
            any spelling (`mobilenetv2`, `MobileNetV2`), or `small` (also `none`) for a small
            network without weights, trained from scratch. MobileNetV2 is the default because a CPU
            retrains and serves it with ease (14 MB, 0.3 billion multiply-adds an image). Use
            `small` for images that are unlike those of ImageNet and tiny, such as digits.
        weights: what the backbone starts from: `imagenet` (downloaded once by Keras), the path of
            a weights file of that backbone without its top (`.weights.h5`, `.h5`, `.keras`), or
            `none`. None means `imagenet` for a Keras application and `none` for `small`. A
            backbone that starts from weights is frozen (but see `FitConfig.fine_tune`); one that
            starts from none is trained whole.
        image_size: height and width in pixels that every image is resized to, 8 to 2048. None
            takes what the backbone was made for (224 for most), and for `small` the median side of
            the images, 32 to 128. Raising it shows more detail; time and memory grow with its
            square.
    """

    backbone: str = "MobileNetV2"
    weights: str | Path | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        _check_range(self, "image_size", 8, 2048)
        if self.from_scratch and self.starting_weights == IMAGENET:
            raise ConfigurationError(
                "the small network has no imagenet weights: give weights 'none', or a backbone "
                "such as MobileNetV2"
            )
        if self.weights_file is not None and not self.weights_file.is_file():
            raise ConfigurationError(
                f"weights is {str(self.weights)!r}, and there is no such file: give 'imagenet', "
                "'none' or the path of a weights file"
            )

    @property
    def from_scratch(self) -> bool:
        """Whether the backbone is the small network, which has no weights to start from."""
        return self.backbone.lower() in (SMALL, "none")

    @property
    def starting_weights(self) -> str:
        """`imagenet`, `none` or a path, with the default filled in."""
        if self.weights is None:
            return NO_WEIGHTS if self.from_scratch else IMAGENET
        return str(self.weights)

    @property
    def min_epoch_steps(self) -> int:
        """The default of `FitConfig.min_epoch_steps` for this network."""
        return 39 if self.starting_weights == NO_WEIGHTS else 10

    @property
    def weights_file(self) -> Path | None:
        """The weights file, if `weights` names one."""
        named = self.starting_weights
        return None if named in (IMAGENET, NO_WEIGHTS) else Path(named)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How the network is trained.

    Attributes:
        epochs: the most passes over the training images. Raising it costs time only where
            `patience` does not end the run first. The digits need 18 of these 40.
        min_epoch_steps: the least steps of an epoch: fewer batches are passed again until the epoch
            has so many. A network learns by steps, so that an epoch of two steps (60 images) says
            nothing about progress. Raising it trains longer on few images; 1 makes an epoch a
            single pass. None is 39 for a network that is trained from scratch, as many as a pass
            over the digits has (60 of them then need 240 steps without progress to stop; with 120
            one seed of four stopped at 60 %), and 10 where a frozen backbone needs only its last
            layer trained.
        batch_size: images per step. Raising it fills a GPU better and takes more memory; 32 is
            Keras' own default, and fits anywhere.
        learning_rate: step size of the optimizer Adam. Raising it learns faster until it no longer
            learns at all; 0.001 is Adam's own default (Kingma and Ba, 2015).
        patience: epochs without a lower validation loss before the run ends; the weights of the
            best epoch are kept. Raising it costs time and tolerates noise, which few validation
            images bring.
        fine_tune: afterwards train the backbone too, at a hundredth of `learning_rate`, for up to
            `epochs` more; the weights from before are kept if that does not lower the validation
            loss. Several times slower per epoch, often some points better on many images, worse
            on few. Only for a backbone that starts from weights.
    """

    epochs: int = 40
    min_epoch_steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 0.001
    patience: int = 6
    fine_tune: bool = False

    def __post_init__(self) -> None:
        _check_range(self, "epochs", 1, 100_000)
        _check_range(self, "min_epoch_steps", 1, 100_000)
        _check_range(self, "batch_size", 1, 65_536)
        _check_range(self, "patience", 1, 100_000)
        if not 0 < self.learning_rate <= 1:  # a NaN fails here too
            raise ConfigurationError(
                f"learning_rate is {self.learning_rate}: give a number above 0 and at most 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationConfig:
    """How the training images are varied at random.

    Attributes:
        augment: turn by up to 10 degrees, zoom and shift by up to a tenth. On by default, because
            it helps with whatever can be photographed by hand.
        flip: also mirror left to right. Off by default, because a mirrored digit, letter or sign
            means something else; turn it on for flowers.
    """

    augment: bool = True
    flip: bool = False


@renamed_fields(
    backbone="network.backbone",
    weights="network.weights",
    image_size="network.image_size",
    epochs="fit.epochs",
    batch_size="fit.batch_size",
    learning_rate="fit.learning_rate",
    patience="fit.patience",
    fine_tune="fit.fine_tune",
    augment="augmentation.augment",
    flip="augmentation.flip",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The settings of one training run, validated on construction.

    Attributes:
        images: the folder with one folder of images per class; the folders' names are the labels.
        out: the model's folder, such as `models/flowers`; the run adds the next version number
            beneath it. Its last part is the name that the model is served by, so it must be valid
            as one.
        network: the network that is trained.
        fit: how it is trained.
        augmentation: how the training images are varied at random.
        validation_split: the share of each class that is not trained on, but decides when to stop
            and measures the accuracy; above 0, below 1, and at least one image of each class.
            Raising it makes the measured accuracy more certain and the true one a little worse;
            0.15 leaves most images to train on.
        seed: of the split, the weights and the augmentation, 0 to 2**32 - 1. The split is the same
            wherever it is the same; the accuracy also varies a little with the hardware's order of
            summation.

    Raises:
        ConfigurationError: a value that cannot work; the message names it and what can.
    """

    images: Path
    out: Path
    network: NetworkConfig = field(default_factory=NetworkConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    validation_split: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            check_service(self.out.absolute().name)
        except InvalidName as error:
            raise ConfigurationError(
                f"out is {str(self.out)!r}, and a model is served by its folder's name, but {error}"
            ) from error
        if self.out.absolute().is_relative_to(self.images.absolute()):
            raise ConfigurationError(
                f"out {str(self.out)!r} lies inside the images {str(self.images)!r}, where the "
                "next run would take it for a class: put it elsewhere, such as models/NAME"
            )
        _check_range(self, "seed", 0, 2**32 - 1)
        if not 0 < self.validation_split < 1:
            raise ConfigurationError(
                f"validation_split is {self.validation_split}: give a share above 0 and below 1, "
                "such as 0.15"
            )
        if self.fit.fine_tune and self.network.starting_weights == NO_WEIGHTS:
            raise ConfigurationError(
                "fine_tune is for a backbone that starts from weights; one that starts from none "
                "is trained whole anyway: leave fine_tune out"
            )

    def to_json(self) -> dict[str, str | int | float | bool | None]:
        """All settings in one flat table, paths as text."""
        return _flat(self)


def _flat(config: Any) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            table |= _flat(value)
        else:
            table[each.name] = str(value) if isinstance(value, Path) else value
    return table


def _check_range(config: object, name: str, least: int, most: int) -> None:
    value = getattr(config, name)
    if value is not None and not least <= value <= most:
        raise ConfigurationError(f"{name} is {value}: give {least} to {most}")
