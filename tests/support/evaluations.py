"""Evaluations of models whose answers are a function of the image's path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fingerpost.client.tasks.results import TaskResult
from fingerpost.deploy.evaluation.evaluation import EvaluationConfig, evaluate
from fingerpost.deploy.evaluation.report import Report
from fingerpost.deploy.evaluation.truth.class_folders import ClassFolders, LabelledImage
from fingerpost.deploy.evaluation.truth.targets import TargetFile, TargetImage

__all__ = ["Answering", "folders", "report_of", "targets"]

Answer = Callable[[str], TaskResult]


class Answering:
    """Answers by a function; keeps what was asked."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[tuple[str, int]] = []
        self.most = self._now = 0

    async def infer(self, path: str, *, top: int) -> TaskResult:
        self.asked.append((path, top))
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        return self._answer(path)


def folders(*labels: str) -> ClassFolders:
    images = [
        LabelledImage(path=f"{label}/{number}.png", labels=frozenset({label}))
        for number, label in enumerate(labels)
    ]
    return ClassFolders(folder=Path("photos"), images=images)


async def report_of(truth: Any, answer: Answer, **settings: Any) -> Report:
    labels = settings.pop("labels", None)
    config = EvaluationConfig(**settings)
    return await evaluate(Answering(answer), truth, config, model="m", labels=labels)


def targets(*images: tuple[str, tuple[float, ...]], labels: tuple[str, ...] = ()) -> TargetFile:
    found = [TargetImage(path=path, values=values) for path, values in images]
    return TargetFile(path=Path("targets.csv"), images=found, labels=labels)
