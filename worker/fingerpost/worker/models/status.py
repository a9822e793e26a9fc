"""The state of one version of a model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["VersionState", "VersionStatus"]


class VersionState(Enum):
    """The states of a version, named as in TensorFlow Serving's `ModelVersionStatus`."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """The state of one version.

    Attributes:
        version: its number.
        state: what it is doing.
        error: why it could not be loaded, in state END; why its changed labels are not used, in
            state AVAILABLE; else empty.
        digest: of the files of what is loaded, where its signature was verified; else empty.
    """

    version: str
    state: VersionState
    error: str = ""
    digest: str = ""
