"""Adds the labels of its images to a batch of a data pipeline: Ray Data, Dask, or no framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fingerpost.client.adapters.classifier import Answer, Classifier
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Unpack

    from fingerpost.client.adapters.classifier import Options
    from fingerpost.client.sync import SyncClient

__all__ = ["BatchMapper"]


class BatchMapper:
    """Adds the columns `label`, `score` and `error` to a batch; see `Answer`.

    ::

        client = SyncClient("http://proxy:12480")
        dataset.map_batches(  # Ray Data
            BatchMapper,
            fn_constructor_kwargs={"client": client, "model": "flowers", "column": "bytes"},
            compute=ray.data.ActorPoolStrategy(size=4),
        )
        bag.map_partitions(BatchMapper(client, "flowers"))  # Dask

    A batch is a dict of columns, a pandas DataFrame, or an iterable of rows (dicts, or images).
    The result has the same form, with lists as new columns and dicts as rows; the input is not
    changed. None of the frameworks is imported.

    Args:
        client: the framework may pickle it and send it to another process.
        model: `digits`, `digits@3` or `digits@canary`.
        options: `timeout_s`, `concurrency`, `on_error` and `shrink` of `Client.stream`.
        column: the name of the column with the images: anything that `Client.classify` takes.
        prefix: precedes the names of the three columns, for a batch that has a `label` already.

    Raises:
        InvalidName, ConfigurationError: on construction, or for a batch that has no `column` or
            has one of the three columns already.
    """

    def __init__(
        self,
        client: SyncClient,
        model: str,
        *,
        column: str = "image",
        prefix: str = "",
        **options: Unpack[Options],
    ) -> None:
        self._classify = Classifier(client, model, options)
        self._column = column
        self._names = tuple(f"{prefix}{each}" for each in Answer._fields)

    def __call__(self, batch: Any) -> Any:
        """The batch with the three columns added."""
        if isinstance(batch, Mapping):
            return {**batch, **self._columns(batch)}
        if hasattr(batch, "assign"):
            return batch.assign(**self._columns(batch))
        return self._rows(batch)

    def _columns(self, batch: Any) -> dict[str, list[Any]]:
        self._check(batch)
        answers = list(self._classify(batch[self._column]))
        return {name: [each[at] for each in answers] for at, name in enumerate(self._names)}

    def _rows(self, batch: Iterable[Any]) -> list[dict[str, Any]]:
        rows = [each if isinstance(each, Mapping) else {self._column: each} for each in batch]
        for row in rows:
            self._check(row)
        answers = self._classify(row[self._column] for row in rows)
        return [
            {**row, **dict(zip(self._names, answer, strict=True))}
            for row, answer in zip(rows, answers, strict=True)
        ]

    def _check(self, columns: Collection[Any]) -> None:
        there = ", ".join(map(str, columns))
        if self._column not in columns:
            raise ConfigurationError(
                f"no column {self._column!r} among {there}: name the column of the images (column=)"
            )
        if any(name in columns for name in self._names):
            raise ConfigurationError(
                f"{', '.join(self._names)} would overwrite one of {there}: use prefix="
            )
