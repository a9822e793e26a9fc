"""Detectors, segmenters and models of two inputs, of each framework, whose answers are known.

The detectors find, in each of the channels red, green and blue, the edges of the pixels above 127.
The segmenters give each pixel the number of its brightest channel. The pairs have inputs `left` and
`right` (images) and `weights` (`[3]`), and outputs `distance` (`[1]`) and `means` (`[2, 3]`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.builders import litert, openvino

Writer = Callable[[Path], None]
SIDE = 48
LABELS = ("red", "green", "blue")
SIZE = f"[input]\nheight = {SIDE}\nwidth = {SIDE}\n"
FREE = '[input]\nmultiple = 16\nlayout = "NCHW"\nchannels = 3\n'


def save_onnx(
    folder: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Sequence[str],
    **constants: Any,
) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        list(nodes),
        "vision",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in inputs.items()],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "m.onnx")


def onnx_detector(folder: Path) -> None:
    from onnx import TensorProto, helper

    node = helper.make_node
    up = np.arange(SIDE, dtype=np.float32)
    nodes = [
        node("Greater", ["image", "half"], ["bright"]),
        node("Cast", ["bright"], ["mask"], to=TensorProto.FLOAT),
        node("ReduceMax", ["mask", "area"], ["detection_scores"], keepdims=0),
    ]
    for name in ("top", "left", "bottom", "right"):
        nodes += [
            node("Mul", ["mask", f"{name}_places"], [f"{name}_masked"]),
            node("ReduceMax", [f"{name}_masked", "area"], [f"{name}_far"], keepdims=0),
        ]
        far = f"{name}_far"
        if name in ("top", "left"):
            nodes.append(node("Sub", ["side", far], [f"{name}_near"]))
            far = f"{name}_near"
        nodes += [
            node("Div", [far, "side"], [f"{name}_share"]),
            node("Unsqueeze", [f"{name}_share", "last"], [f"{name}_edge"]),
        ]
    edges = [f"{name}_edge" for name in ("top", "left", "bottom", "right")]
    nodes += [
        node("Concat", edges, ["detection_boxes"], axis=2),
        node("Mul", ["detection_scores", "zero"], ["zeros"]),
        node("Add", ["zeros", "numbers"], ["detection_classes"]),
    ]
    save_onnx(
        folder,
        nodes,
        {"image": ["N", 3, SIDE, SIDE]},
        ["detection_boxes", "detection_scores", "detection_classes"],
        half=np.float32(127),
        area=np.array([2, 3]),
        last=np.array([2]),
        side=np.float32(SIDE),
        zero=np.float32(0),
        numbers=np.array([1, 2, 3], np.float32),
        top_places=(SIDE - up).reshape(1, 1, SIDE, 1),
        left_places=(SIDE - up).reshape(1, 1, 1, SIDE),
        bottom_places=(up + 1).reshape(1, 1, SIDE, 1),
        right_places=(up + 1).reshape(1, 1, 1, SIDE),
    )


def torch_detector(folder: Path) -> None:
    import torch

    class Detector(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            mask = (images > 127).float()
            ys = torch.arange(SIDE, dtype=torch.float32)[:, None]
            xs = torch.arange(SIDE, dtype=torch.float32)
            right = (mask * (xs + 1)).amax((2, 3))
            bottom = (mask * (ys + 1)).amax((2, 3))
            left = SIDE - (mask * (SIDE - xs)).amax((2, 3))
            top = SIDE - (mask * (SIDE - ys)).amax((2, 3))
            scores = torch.diag_embed(mask.amax((2, 3)))
            boxes = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            return torch.cat([torch.stack(boxes, 1), scores], 1)

    save_script(folder, Detector(), torch.rand(2, 3, SIDE, SIDE))


def save_script(folder: Path, module: Any, *example: Any) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module.eval(), example), folder / "m.pt")


def tensorflow_detector(folder: Path) -> None:
    import tensorflow as tf

    class Detector(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32, "image")])
        def __call__(self, image):
            mask = tf.cast(image > 127, tf.float32)
            ys = tf.reshape(tf.range(SIDE, dtype=tf.float32), [1, SIDE, 1, 1])
            xs = tf.reshape(tf.range(SIDE, dtype=tf.float32), [1, 1, SIDE, 1])
            edges = [
                SIDE - tf.reduce_max(mask * (SIDE - ys), [1, 2]),
                SIDE - tf.reduce_max(mask * (SIDE - xs), [1, 2]),
                tf.reduce_max(mask * (ys + 1), [1, 2]),
                tf.reduce_max(mask * (xs + 1), [1, 2]),
            ]
            scores = tf.reduce_max(mask, [1, 2])
            return {
                "detection_boxes": tf.stack(edges, 2) / SIDE,
                "detection_scores": scores,
                "detection_classes": scores * 0 + tf.constant([1.0, 2.0, 3.0]),
                "num_detections": tf.reduce_sum(scores * 0, 1) + 3,
            }

    module = Detector()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


def python_detector(folder: Path) -> None:
    (folder / "vision.py").write_text(
        """\
import numpy as np


class Vision:
    def predict(self, batch):
        (image,) = batch
        boxes = []
        for channel in range(3):
            ys, xs = np.nonzero(image[..., channel] > 127)
            boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0] * 4)
        scores = (image.max(axis=(0, 1)) > 127).astype(np.float32)
        return {"boxes": np.array(boxes, np.float32), "labels": np.arange(1, 4), "scores": scores}
"""
    )


def onnx_segmenter(folder: Path) -> None:
    from onnx import helper

    nodes = [helper.make_node("Identity", ["image"], ["out"])]
    save_onnx(folder, nodes, {"image": ["N", 3, "H", "W"]}, ["out"])


def torch_segmenter(folder: Path) -> None:
    import torch

    class Segmenter(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": images * 1.0, "aux": images.mean((2, 3))}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.rand(2, 3, SIDE, SIDE)
        script = torch.jit.trace(Segmenter().eval(), example, strict=False)
        torch.jit.save(script, folder / "m.pt")


def tensorflow_segmenter(folder: Path) -> None:
    import tensorflow as tf

    class Segmenter(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32, "image")])
        def __call__(self, image):
            return tf.identity(image)

    module = Segmenter()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


def python_segmenter(folder: Path) -> None:
    (folder / "vision.py").write_text(
        "class Vision:\n    def predict(self, batch):\n        return batch.argmax(axis=3)\n"
    )


def onnx_pair(folder: Path) -> None:
    from onnx import helper

    node = helper.make_node
    nodes = [
        node("ReduceMean", ["left", "area"], ["left_means"], keepdims=0),
        node("ReduceMean", ["right", "area"], ["right_means"], keepdims=0),
        node("Sub", ["left_means", "right_means"], ["difference"]),
        node("Abs", ["difference"], ["size"]),
        node("Mul", ["size", "weights"], ["weighted"]),
        node("ReduceSum", ["weighted", "one"], ["distance"], keepdims=1),
        node("Unsqueeze", ["left_means", "one"], ["left_row"]),
        node("Unsqueeze", ["right_means", "one"], ["right_row"]),
        node("Concat", ["left_row", "right_row"], ["means"], axis=1),
    ]
    image = ["N", 3, SIDE, SIDE]
    inputs = {"left": image, "right": image, "weights": ["N", 3]}
    constants = {"area": np.array([2, 3]), "one": np.array([1])}
    save_onnx(folder, nodes, inputs, ["distance", "means"], **constants)


def torch_pair(folder: Path) -> None:
    import torch

    class Pair(torch.nn.Module):
        def forward(
            self, left: torch.Tensor, right: torch.Tensor, weights: torch.Tensor
        ) -> dict[str, torch.Tensor]:
            means = torch.stack([left.mean((2, 3)), right.mean((2, 3))], 1)
            distance = ((means[:, 0] - means[:, 1]).abs() * weights).sum(1, keepdim=True)
            return {"distance": distance, "means": means}

    image = torch.rand(2, 3, SIDE, SIDE)
    dynamic = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        Pair().eval(),
        (image, torch.rand(2, 3, SIDE, SIDE), torch.rand(2, 3)),
        dynamic_shapes=(dynamic,) * 3,
    )
    torch.export.save(program, folder / "m.pt2")


def tensorflow_pair(folder: Path) -> None:
    import tensorflow as tf

    image = tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32)

    class Pair(tf.Module):
        @tf.function(input_signature=[image, image, tf.TensorSpec([None, 3], tf.float32)])
        def __call__(self, left, right, weights):
            means = tf.stack([tf.reduce_mean(left, [1, 2]), tf.reduce_mean(right, [1, 2])], 1)
            gap = tf.abs(means[:, 0] - means[:, 1])
            return {"distance": tf.reduce_sum(gap * weights, 1, keepdims=True), "means": means}

    module = Pair()
    tf.saved_model.save(
        module, str(folder), signatures={"compare": module.__call__, "other": module.__call__}
    )


def python_pair(folder: Path) -> None:
    (folder / "vision.py").write_text(
        """\
import numpy as np


class Vision:
    inputs = {"left": "float32", "right": "float32", "weights": "float32"}

    def predict(self, left, right, weights):
        means = np.stack([left.mean((1, 2)), right.mean((1, 2))], 1)
        gap = np.abs(means[:, 0] - means[:, 1])
        return {"distance": (gap * weights).sum(1, keepdims=True), "means": means}
"""
    )


def by_openvino(write: Writer) -> Writer:
    """The ONNX model in OpenVINO's format."""

    def convert(folder: Path) -> None:
        write(folder)
        openvino.convert(folder)

    return convert


def by_litert(write: Writer, signature: str = "serving_default") -> Writer:
    """The SavedModel as a TensorFlow Lite file."""

    def convert(folder: Path) -> None:
        write(folder)
        litert.of_saved_model(folder, signature)

    return convert


_HEADS = {
    "onnx": 'framework = "onnx"\n',
    "openvino": 'framework = "openvino"\n',
    "litert": 'framework = "litert"\n',
    "torch": 'framework = "torch"\n',
    "tensorflow": 'framework = "tensorflow"\n',
    "python": 'framework = "python"\nclass = "vision:Vision"\n',
}
PAD = '[preprocessing]\nresize = "pad"\nfilter = "nearest"\n'
DETECTORS: dict[str, tuple[Writer, str]] = {
    "onnx": (onnx_detector, '[detection]\nlayout = "tensorflow"\n'),
    "openvino": (by_openvino(onnx_detector), '[detection]\nlayout = "tensorflow"\n'),
    "litert": (by_litert(tensorflow_detector), '[detection]\nlayout = "tensorflow"\n'),
    "torch": (torch_detector, f'{SIZE}[detection]\nlayout = "yolov8"\n'),
    "tensorflow": (tensorflow_detector, '[detection]\nlayout = "tensorflow"\n'),
    "python": (python_detector, f'{SIZE}[detection]\nlayout = "torchvision"\n'),
}
SEGMENTERS: dict[str, tuple[Writer, str]] = {
    "onnx": (onnx_segmenter, FREE),
    "openvino": (by_openvino(onnx_segmenter), FREE),
    "litert": (by_litert(tensorflow_segmenter), "[segmentation]\nchannels_last = true\n"),
    "torch": (torch_segmenter, FREE),
    "tensorflow": (tensorflow_segmenter, "[segmentation]\nchannels_last = true\n"),
    "python": (python_segmenter, SIZE),
}
_IMAGE = f"image = true\nshape = [{SIDE}, {SIDE}, 3]\n"
PAIRS: dict[str, tuple[Writer, str]] = {
    "onnx": (onnx_pair, ""),
    "openvino": (by_openvino(onnx_pair), ""),
    "litert": (by_litert(tensorflow_pair, "compare"), '[input]\nsignature = "compare"\n'),
    "torch": (torch_pair, ""),
    "tensorflow": (tensorflow_pair, '[input]\nsignature = "compare"\n'),
    "python": (
        python_pair,
        f"[inputs.left]\n{_IMAGE}[inputs.right]\n{_IMAGE}[inputs.weights]\nshape = [3]\n",
    ),
}


def write_vision_model(
    folder: Path, models: dict[str, tuple[Writer, str]], kind: str, task: str, tables: str = ""
) -> None:
    """A model of a framework, with its labels and its `model.toml`."""
    write, own = models[kind]
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
    if task != "tensors":
        (folder / "labels.txt").write_text("\n".join(LABELS))
    (folder / "model.toml").write_text(f'{_HEADS[kind]}task = "{task}"\n{own}{tables}')
