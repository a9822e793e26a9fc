"""`model.toml`: what may stand in it, and one clear line for each thing that may not."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.manifest import (
    MANIFEST,
    Activation,
    BatchSpec,
    ChannelOrder,
    Filter,
    Framework,
    InputSpec,
    Layout,
    Manifest,
    OutputSpec,
    Preprocessing,
    Resize,
    read_manifest,
    write_manifest,
)
from fingerpost.worker.models.tasks import Task
from tests.support.optional import not_none

_name = st.none() | st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
_side = st.none() | st.integers(1, 16384)
_number = st.floats(-1e6, 1e6, width=32)
_divisor = _number.filter(lambda number: number != 0)
_file = st.none() | st.from_regex(r"[a-z]{1,5}(/[a-zäöü ]{1,5})?\.[a-z]{1,4}", fullmatch=True)


def _one_or_three(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[object]:
    return numbers | st.tuples(numbers) | st.tuples(numbers, numbers, numbers)


_TASKS = {Activation.SOFTMAX: Task.CLASSIFICATION, Activation.SIGMOID: Task.MULTILABEL}
_sizes = st.lists(st.integers(1, 64), unique=True, max_size=4).map(lambda some: tuple(sorted(some)))
_manifests = st.builds(
    lambda framework, activation_name, **rest: Manifest(
        framework=framework,
        task=_TASKS.get(activation_name[0], Task.EMBEDDING),
        output=OutputSpec(name=activation_name[1], activation=activation_name[0]),
        python_class="my.module:Class" if framework is Framework.PYTHON else None,
        **rest,
    ),
    framework=st.sampled_from(Framework),
    activation_name=st.tuples(st.sampled_from(Activation), _name),
    file=_file,
    weights=_file,
    labels=_file,
    input=st.builds(
        InputSpec,
        name=_name,
        height=_side,
        width=_side,
        channels=st.sampled_from([None, 1, 3]),
        layout=st.none() | st.sampled_from(Layout),
        encoded=st.none() | st.booleans(),
    ),
    preprocessing=st.builds(
        Preprocessing,
        resize=st.sampled_from(Resize),
        filter=st.sampled_from(Filter),
        crop_fraction=st.floats(0.1, 1),
        order=st.sampled_from(ChannelOrder),
        mean=_one_or_three(_number),
        std=_one_or_three(_divisor),
    ),
    batch=st.builds(
        BatchSpec,
        sizes=_sizes,
        max_wait_ms=st.none() | st.floats(0, 1e6),
        latency_ms=st.none() | st.floats(0, 1e6),
    ),
)


@given(manifest=_manifests)
def test_what_is_written_is_read(
    manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / MANIFEST
    write_manifest(path, manifest)
    assert read_manifest(path) == manifest


def test_defaults_are_written_out_and_nothing_empty(tmp_path: Path) -> None:
    write_manifest(tmp_path / MANIFEST, Manifest(framework=Framework.ONNX))
    assert (tmp_path / MANIFEST).read_text() == (
        'framework = "onnx"\ntask = "classification"\n\n'
        '[preprocessing]\nresize = "stretch"\nfilter = "bilinear"\n'
        'crop_fraction = 1.0\norder = "RGB"\nmean = 0.0\nstd = 1.0\n\n'
        '[output]\nactivation = "none"\n'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing required field `framework`"),
        ("framework =", "Invalid"),
        ("\xff", "UTF-8"),
        ('framework = "theano"', r"Invalid enum value 'theano' - at `\$.framework`"),
        ('framework = "onnx"\ntask = "segment"', r"Invalid enum value 'segment' - at `\$.task`"),
        (
            'framework = "onnx"\ntask = "detection"',
            r"needs \[detection\] with layout, one of torch",
        ),
        (
            'framework = "onnx"\n[detection]\nlayout = "detr"',
            r"\[detection\] is for task 'detection', but task is 'classification'",
        ),
        (
            'framework = "onnx"\ntask = "detection"\n[detection]\nlayout = "detr"\nmin_score = 2',
            "detection.min_score is 2.0: it must be 0 to 1",
        ),
        (
            'framework = "onnx"\n[output]\nactivation = "sigmoid"',
            "is for task 'multilabel', but task is 'classification'",
        ),
        (
            'framework = "onnx"\ntask = "embedding"\n[output]\nthreshold = 0.5',
            "output.threshold is for task 'multilabel', but task is 'embedding'",
        ),
        (
            'framework = "onnx"\ntask = "multilabel"\n[output]\nthreshold = 1.5',
            "output.threshold is 1.5: it must be 0 to 1",
        ),
        ('framework = "onnx"\ncolour = 1', "unknown field `colour`"),
        ('framework = "onnx"\nfile = "/etc/passwd"', "inside the model's folder"),
        ('framework = "onnx"\nfile = "../x.onnx"', "inside the model's folder"),
        ('framework = "onnx"\nlabels = ""', "inside the model's folder"),
        ('framework = "python"', "'package.module:Class'"),
        ('framework = "onnx"\nclass = "a:B"', "'package.module:Class'"),
        ('framework = "onnx"\n[input]\nheight = 0', "input.height is 0: it must be 1 to 16384"),
        ('framework = "onnx"\n[input]\nchannels = 4', "input.channels is 4"),
        ('framework = "onnx"\n[input]\nlayout = "HWC"', "Invalid enum value 'HWC'"),
        ('framework = "onnx"\n[preprocessing]\nstd = 0', "divide by zero"),
        ('framework = "onnx"\n[preprocessing]\nstd = [1, 0, 1]', "divide by zero"),
        ('framework = "onnx"\n[preprocessing]\nmean = [1, 2]', "one number, or one per channel"),
        ('framework = "onnx"\n[preprocessing]\nmean = nan', "one number, or one per channel"),
        ('framework = "onnx"\n[preprocessing]\ncrop_fraction = 2', "must be 0.1 to 1"),
        ('framework = "onnx"\n[batch]\nmax = 0', "batch.max is 0"),
        ('framework = "onnx"\n[batch]\nsizes = [4, 2]', "must ascend"),
        ('framework = "onnx"\n[batch]\nsizes = [1, 8]\nmax = 16', "ends with 8"),
        ('framework = "onnx"\n[batch]\nmax_wait_ms = -1', "must be 0 or more"),
    ],
)
def test_clear_errors(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / MANIFEST
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_examples_in_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "models.md").read_text("utf-8")
    blocks = re.findall(r"(?m)^    framework = .*\n(?:(?:    .*)?\n)*", text)
    assert {not_none(re.search('"([a-z]+)"', block))[1] for block in blocks} == {
        "tensorflow",
        "onnx",
        "openvino",
        "torch",
        "caffe",
        "python",
    }
    for block in blocks:
        (tmp_path / MANIFEST).write_text(textwrap.dedent(block))
        read_manifest(tmp_path / MANIFEST)


def test_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read: No such file"):
        read_manifest(tmp_path / MANIFEST)
