"""What a training run is told."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from fingerpost.errors import ConfigurationError, InvalidName
from fingerpost.registry.names import check_service

__all__ = ["IMAGENET", "NO_WEIGHTS", "SMALL", "TrainConfig"]

SMALL: Final = "small"
IMAGENET: Final = "imagenet"
NO_WEIGHTS: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run.

    Attributes:
        images: folder with one folder of images per class; the folders' names are the labels.
        out: the model's folder, such as `models/flowers`; the run adds the next version number
            beneath it. Its last part is the name the model is served by, so it must be able to be
            one.
        backbone: the network that turns pixels into features: the name of a Keras application in
            any spelling (`mobilenetv2`, `MobileNetV2`), or `small` (also `none`) for a small
            network of our own, trained from scratch. MobileNetV2 is the default because a CPU
            retrains and serves it with ease (14 MB, 0.3 billion multiply-adds an image). Use
            `small` for images that look like nothing in ImageNet and are tiny, such as digits.
        weights: what the backbone starts from: `imagenet` (downloaded once by Keras), the path of
            a weights file of that backbone without its top (`.weights.h5`, `.h5`, `.keras`), or
            `none`. None means `imagenet` for a Keras application and `none` for `small`. A
            backbone that starts from weights is frozen (but see `fine_tune`); one that starts
            from none is trained whole.
        image_size: height and width in pixels that every image is resized to. None takes what the
            backbone was made for (224 for most), and for `small` the median side of the images,
            32 to 128. Raising it shows more detail; time and memory grow with its square.
        epochs: the most passes over the training images. Raising it costs time only where
            `patience` does not end the run first. The digits need 18 of these 40.
        batch_size: images per step. Raising it fills a GPU better and takes more memory; 32 is
            Keras' own default, and fits anywhere.
        learning_rate: of Adam, per step. Raising it learns faster until it stops to learn at all;
            0.001 is Adam's own default (Kingma and Ba, 2015).
        validation_split: share of each class that is not trained on, but tells when to stop and
            what the accuracy is; above 0, below 1, and at least one image of each class. Raising
            it makes the measured accuracy surer and the true one a little worse.
        patience: epochs without a lower validation loss before the run ends; the weights of the
            best epoch are kept. Raising it costs time and rides out noise, which few validation
            images bring.
        fine_tune: afterwards train the backbone too, at a hundredth of `learning_rate`, for up to
            `epochs` more; what was learned before is kept if that does not lower the validation
            loss. Several times slower per epoch, often some points better on many images, worse
            on few. Only for a backbone that starts from weights.
        augment: vary the training images at random: turn by up to 10 degrees, zoom and shift by
            up to a tenth. On, because it helps whatever can be photographed by hand.
        flip: also mirror them left to right. Off, because a mirrored digit, letter or sign is
            another one; turn it on for flowers.
        seed: of the split, the weights and the augmentation. The split is the same wherever it is
            the same; the accuracy also varies a little with the hardware's order of summation.

    Raises:
        ConfigurationError: a value that cannot work; the message names it and what can.
    """

    images: Path
    out: Path
    backbone: str = "MobileNetV2"
    weights: str | Path | None = None
    image_size: int | None = None
    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 0.001
    validation_split: float = 0.15
    patience: int = 6
    fine_tune: bool = False
    augment: bool = True
    flip: bool = False
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
        for name, least, most in (
            ("image_size", 8, 2048),
            ("epochs", 1, 100_000),
            ("batch_size", 1, 65_536),
            ("patience", 1, 100_000),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigurationError(f"{name} is {value}: give {least} to {most}")
        if not 0 < self.learning_rate <= 1:  # a NaN fails here too
            raise ConfigurationError(
                f"learning_rate is {self.learning_rate}: give a number above 0 and at most 1"
            )
        if not 0 < self.validation_split < 1:
            raise ConfigurationError(
                f"validation_split is {self.validation_split}: give a share above 0 and below 1, "
                "such as 0.15"
            )
        self._check_weights()

    def _check_weights(self) -> None:
        if self.from_scratch and self.starting_weights == IMAGENET:
            raise ConfigurationError(
                "the small network has no imagenet weights: give weights 'none', or a backbone "
                "such as MobileNetV2"
            )
        if self.weights_file is not None and not self.weights_file.is_file():
            raise ConfigurationError(
                f"weights is {str(self.weights)!r}, and no such file: give 'imagenet', 'none' or "
                "the path of a weights file"
            )
        if self.fine_tune and self.starting_weights == NO_WEIGHTS:
            raise ConfigurationError(
                "fine_tune is for a backbone that starts from weights; one that starts from none "
                "is trained whole anyway: leave fine_tune out"
            )

    @property
    def from_scratch(self) -> bool:
        """Whether the backbone is the small network of our own."""
        return self.backbone.lower() in (SMALL, "none")

    @property
    def starting_weights(self) -> str:
        """`imagenet`, `none` or a path, with the default filled in."""
        if self.weights is None:
            return NO_WEIGHTS if self.from_scratch else IMAGENET
        return str(self.weights)

    @property
    def weights_file(self) -> Path | None:
        """The weights file, if `weights` names one."""
        named = self.starting_weights
        return None if named in (IMAGENET, NO_WEIGHTS) else Path(named)

    def to_json(self) -> dict[str, str | int | float | bool | None]:
        """All fields, paths as text."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
