"""Reads the labels of a loaded version again, after its files have changed.

Somebody who copies a version in place may write its labels after the model was loaded: without
this, its answers would name the classes by numbers for good.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.worker.models.files import ModelFiles
    from fingerpost.worker.repository.manager import ServedVersion

__all__ = ["relabelled"]

logger = logging.getLogger(__name__)


def relabelled(served: ServedVersion, files: ModelFiles) -> ServedVersion:
    """The version with the labels that its files have now; the same one if those did not change.

    Raises:
        ConfigurationError: there are none any more, or not as many as scores; or the model was
            loaded from signed files, and these are others.
    """
    if served.digest and files.digest != served.digest:
        raise ConfigurationError(
            "its signed files have changed, and what was loaded stays: publish them as another "
            "version"
        )
    if not served.task.one_row and files.labels != served.labels:
        raise ConfigurationError(
            f"its labels have changed, and a model of task {served.task.value!r} keeps those "
            "that it was loaded with: publish them as another version"
        )
    where = f"{served.model}@{served.version}"
    count = len(served.labels)
    numbers = tuple(map(str, range(count)))
    labels = files.labels or served.own_labels
    if labels == served.labels or (not labels and served.labels == numbers):
        logger.warning(
            "%s: its files have changed, but not its labels. The model stays as it was loaded: to "
            "serve other files, publish them as another version",
            where,
        )
        return served
    if len(labels) != count:
        found = f"{len(labels)} labels" if labels else "no labels any more"
        raise ConfigurationError(
            f"its files have changed: there are {found}, but the model gives {count} "
            "scores; the labels stay as they were. Write one label for each score"
        )
    logger.info("%s: its labels were read again: %s", where, _summary(labels))
    return dataclasses.replace(served, labels=labels)


def _summary(labels: tuple[str, ...]) -> str:
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return f"{', '.join(labels[:3])}{more}"
