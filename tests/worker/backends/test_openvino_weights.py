"""8-bit weights on processors whose integer kernels cut sums off."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fingerpost.worker.backends.openvino_weights import cuts_sums

OLD = "processor\t: 0\nflags\t\t: fpu sse4_1 avx2 fma\nbugs\t: none\n"
NEW = "flags\t\t: fpu sse4_1 avx2 avx512f avx512_vnni\n"
# A convolution of bytes whose sums are 256 x 255 x 127, as it is and as `floated_weights` makes it.
CODE = """
import json
import sys

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from fingerpost.worker.backends.openvino_weights import floated_weights


def model(largest):
    image = ops.parameter([1, 64, 8, 8], np.float32, name="image")
    ends = [ops.constant(np.float32(each).reshape(1, 1, 1, 1)) for each in (0, 255, 0, 255)]
    weights = ops.constant(np.full((64, 64, 2, 2), largest, np.int8))
    scaled = ops.multiply(
        ops.convert(weights, "f32"), ops.constant(np.full((64, 1, 1, 1), 1 / largest, np.float32))
    )
    bytes_ = ops.fake_quantize(image, *ends, 256)
    return ov.Model([ops.convolution(bytes_, scaled, [1, 1], [0, 0], [0, 0], [1, 1])], [image], "m")


def answer(made):
    compiled = ov.Core().compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return float(compiled([np.full((1, 64, 8, 8), 255, np.float32)])[0].max())


wide, narrow = model(127), model(64)
before = answer(wide)
counts = floated_weights(wide), floated_weights(narrow), floated_weights(wide)
json.dump([counts, before, answer(wide), answer(narrow)], sys.stdout)
"""
TRUE = 64 * 4 * 255


@pytest.mark.parametrize(
    ("cpuinfo", "limit", "expected"),
    [
        (OLD, "", True),
        (NEW, "", False),
        (NEW, "AVX2", True),
        (NEW, "avx512_core", True),
        (NEW, "AVX512_CORE_VNNI", False),
        ("Features\t: fp asimd\n", "", False),  # of ARM
        ("", "AVX2", False),
    ],
)
def test_which_processors(cpuinfo: str, limit: str, expected: bool) -> None:
    assert cuts_sums(cpuinfo, {"ONEDNN_MAX_CPU_ISA": limit}) is expected


def run(**environment: str) -> tuple[list[int], float, float, float]:
    answered = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, **environment},
        capture_output=True,
        check=True,
        timeout=100,
    )
    counts, *answers = json.loads(answered.stdout)
    return counts, *answers


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86 processor")
def test_without_vnni_wide_weights_are_floats_and_right() -> None:
    counts, before, after, narrow = run(ONEDNN_MAX_CPU_ISA="AVX2")
    assert counts == [1, 0, 0]
    assert before < 0.6 * TRUE  # what OpenVINO computes by itself
    assert after == pytest.approx(TRUE, rel=1e-4)
    assert narrow == pytest.approx(TRUE, rel=1e-4)


def test_with_vnni_they_stay_integers() -> None:
    if cuts_sums(Path("/proc/cpuinfo").read_text(), {}):
        pytest.skip("needs a processor with VNNI, or one of another kind")
    counts, *answers = run(ONEDNN_MAX_CPU_ISA="")
    assert counts == [0, 0, 0]
    assert answers == [pytest.approx(TRUE, rel=1e-4)] * 3
