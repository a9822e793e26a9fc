"""Weights of 8 bits, which OpenVINO's integer kernels get wrong on processors without VNNI.

Such a kernel adds two products of a byte of the image and a byte of the weights in 16 bits, and
cuts the sum off there (`vpmaddubsw`): 2 x 255 x 127 is 64,770, and becomes 32,767. With weights of
7 bits no sum is too large, and so `fingerpost model quantize` writes them (docs/decisions/0031);
TensorFlow's converter writes 8 bits. OpenVINO's documentation calls it the saturation (overflow)
issue. With the weights as float32 the same numbers are computed in float32: as slow as a model that
is not quantized, and right. Rejected: weights rounded to 7 bits when a model is loaded, which are
fast and another model; OpenVINO's `LP_TRANSFORMS_MODE=NO`, with which it fails on some layers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from openvino import opset13

if TYPE_CHECKING:
    from collections.abc import Mapping

    import openvino as ov

__all__ = ["cuts_sums", "floated_weights"]

_VNNI: Final = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})
# oneDNN's names of the instructions that it is limited to, of those without VNNI.
_LIMITED: Final = frozenset({"SSE41", "AVX", "AVX2", "AVX512_CORE"})
_LIMIT: Final = "ONEDNN_MAX_CPU_ISA"
# Of a weight: 2 x 255 x 64 is 32,640.
_MOST: Final = 64
_MIDDLE: Final = {"i8": 0, "u8": 128}


def cuts_sums(cpuinfo: str, environment: Mapping[str, str]) -> bool:
    """Whether integer kernels of this processor cut sums of products off.

    Args:
        cpuinfo: the text of `/proc/cpuinfo`; where it is not that of an x86 processor, they are
            taken to be right.
        environment: may limit the instructions that are used (`ONEDNN_MAX_CPU_ISA`).
    """
    for line in cpuinfo.splitlines():
        if line.startswith("flags"):
            limited = environment.get(_LIMIT, "").upper() in _LIMITED
            return limited or not _VNNI & set(line.partition(":")[2].split())
    return False


def floated_weights(model: ov.Model) -> int:
    """Make weights of more than 7 bits float32, where this processor needs it; says how many."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return 0
    if not cuts_sums(cpuinfo, os.environ):
        return 0
    count = 0
    for convert in model.get_ordered_ops():
        if convert.get_type_name() != "Convert":
            continue
        source = convert.input_value(0).get_node()
        middle = _MIDDLE.get(source.get_element_type().get_type_name())
        real = convert.get_element_type().is_real()
        if middle is None or source.get_type_name() != "Constant" or not real:
            continue
        values = source.get_data()
        if values.size and np.abs(values.astype(np.int16) - middle).max() > _MOST:
            floats = opset13.constant(values.astype(np.float32))
            if convert.get_element_type().get_type_name() != "f32":
                floats = opset13.convert(floats, convert.get_element_type())
            convert.output(0).replace(floats.output(0))
            count += 1
    return count
