"""The colours model in PyTorch: exported programs and TorchScript."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.colours import SIDE, write_labels
from tests.support.later import later

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = later("torch")
    nn = later("torch.nn")


def colours() -> nn.Module:
    """Softmax of each channel's mean / 16. The convolution is there to be laid out and folded."""

    class Colours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Conv2d(3, 3, 1, bias=False)
            self.norm = nn.BatchNorm2d(3, eps=0.0)
            with torch.no_grad():
                self.same.weight.copy_(torch.eye(3)[:, :, None, None] / 16)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            means = self.norm(self.same(images)).mean((2, 3))
            return torch.softmax(means, dim=1)

    return Colours().eval()


def example(count: int) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE)


def exported(folder: Path) -> None:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(colours(), (example(2),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    write_labels(folder)


def exported_fixed_batch(folder: Path) -> None:
    program = torch.export.export(colours(), (example(4),))
    torch.export.save(program, folder / "model.pt2")
    write_labels(folder)


def exported_bfloat16(folder: Path) -> None:
    model = colours().bfloat16()
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(model, (example(2).bfloat16(),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    write_labels(folder)


def torchscript(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(colours(), example(2)), folder / "model.pt")
    write_labels(folder)
    (folder / "model.toml").write_text(
        f'framework = "torch"\n[input]\nheight = {SIDE}\nwidth = {SIDE}\n'
    )


BUILDERS: dict[str, Callable[[Path], None]] = {
    "torch": exported,
    "torch-fixed-batch": exported_fixed_batch,
    "torch-bfloat16": exported_bfloat16,
    "torchscript": torchscript,
}
