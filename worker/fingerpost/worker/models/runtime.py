"""How a model is run, as `model.toml` says it, where speed costs exactness or time to load.

::

    [runtime]
    precision = "bfloat16"            # PyTorch and OpenVINO; by default as the model's file
    compile = true                    # PyTorch: torch.compile
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from fingerpost.worker.models.framework import Framework

__all__ = ["Precision", "RuntimeSpec"]


class Precision(Enum):
    """The numbers in which convolutions and products of matrices are computed.

    `bfloat16` has the range of float32 and 8 bits of its 24: scores differ in the third digit. It
    is faster on GPUs since Ampere, and on processors with AMX or AVX512_BF16.
    """

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class RuntimeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[runtime]`.

    Attributes:
        precision: by default that of the model's file.
        compile: whether PyTorch compiles an exported program for this machine, which needs a C++
            compiler and takes up to minutes at each load; by default it does not.
    """

    precision: Precision | None = None
    compile: bool | None = None

    def check(self, framework: Framework) -> None:
        """Raise `ValueError` for a setting that the framework does not have."""
        for key, given, frameworks in (
            ("precision", self.precision is not None, _PRECISION),
            ("compile", bool(self.compile), _COMPILE),
        ):
            if given and framework not in frameworks:
                names = " and ".join(each.value for each in frameworks)
                raise ValueError(
                    f"runtime.{key} is for framework {names}, but framework is {framework.value!r}"
                )

    def fit(self, framework: Framework) -> RuntimeSpec:
        """The settings that a framework has, for a file that is run by another one."""
        return RuntimeSpec(
            precision=self.precision if framework in _PRECISION else None,
            compile=self.compile if framework in _COMPILE else None,
        )


_PRECISION: Final = (Framework.TORCH, Framework.OPENVINO)
_COMPILE: Final = (Framework.TORCH,)
