"""ResNet-50 (He et al., 2015, arXiv:1512.03385), as torchvision has it, with random weights.

Written out because torchvision does not come for every build of PyTorch, and because speed does not
depend on what the weights are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ResNet", "export"]

_MANIFEST = """\
framework = "torch"
file = "model.pt2"

[input]
height = {side}
width = {side}

[preprocessing]
resize = "crop"
crop_fraction = 0.875
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]

[output]
activation = "softmax"

[batch]
max = {batch}
"""


class Bottleneck(nn.Module):
    """1x1, 3x3 (which takes the stride, as in version 1.5), 1x1 to four times the width."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *_convolution(inputs, width, 1, 1),
            nn.ReLU(inplace=True),
            *_convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_convolution(width, outputs, 1, 1),
        )
        nn.init.constant_(self.body[-1].weight, 0.2)  # or activations grow from block to block
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*_convolution(inputs, outputs, 1, stride))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """float32 `[N, 3, H, W]` in, logits `[N, classes]` out. By default ResNet-50.

    Args:
        width: channels of the first stage.
        blocks: in each stage.
    """

    def __init__(
        self, width: int = 64, blocks: tuple[int, ...] = (3, 4, 6, 3), classes: int = 1000
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            *_convolution(3, width, 7, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        inputs = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage and not block else 1
                layers.append(Bottleneck(inputs, width << stage, stride))
                inputs = 4 * (width << stage)
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(x))
        return logits


def export(folder: Path, *, small: bool, batch: int) -> None:
    """Write a model folder that `fingerpost worker --model` serves.

    Args:
        small: a hundredth of the work, for a try on a CPU.
        batch: most images in one run.
    """
    torch.manual_seed(1)
    network = ResNet(16, (1, 1, 1, 1)) if small else ResNet()
    side = 96 if small else 224
    if not small:  # the published network's
        assert sum(each.numel() for each in network.parameters()) == 25_557_032
    images = torch.export.Dim("images", min=1, max=batch)
    program = torch.export.export(
        network.eval(), (torch.zeros(2, 3, side, side),), dynamic_shapes={"x": {0: images}}
    )
    folder.mkdir(parents=True)
    torch.export.save(program, folder / "model.pt2")
    (folder / "model.toml").write_text(_MANIFEST.format(side=side, batch=batch))
    (folder / "labels.txt").write_text("".join(f"class-{n}\n" for n in range(1000)))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )
