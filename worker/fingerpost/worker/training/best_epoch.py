"""Which epoch's weights are kept, and when a training stops."""

from __future__ import annotations

from typing import Any

from fingerpost.worker.training.network import import_keras

__all__ = ["BestEpoch", "keep_best_epoch"]


class BestEpoch:
    """The rule: the epoch with the highest validation accuracy, of several the one of lowest loss.

    Training goes on while the accuracy or the loss gets better. The loss alone is a bad guide on
    few images: one that is wrong with confidence raises it for good, although more and more of the
    others are right (ten validation images of 60: best loss at 60 % accuracy, all right later).

    Args:
        patience: epochs without progress before the training stops.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best = (-1.0, float("-inf"))
        self._lowest_loss = float("inf")
        self._since = 0

    def ended(self, accuracy: float, loss: float) -> bool:
        """Record an epoch; True if it is the best until now."""
        better = (accuracy, -loss) > self._best
        progress = accuracy > self._best[0] or loss < self._lowest_loss
        self._since = 0 if progress else self._since + 1
        self._lowest_loss = min(loss, self._lowest_loss)
        if better:
            self._best = (accuracy, -loss)
        return better

    @property
    def stop(self) -> bool:
        """Whether there was no progress for `patience` epochs."""
        return self._since >= self._patience


def keep_best_epoch(model: Any, patience: int) -> Any:
    """A Keras callback that applies the rule, and gives `model` the best weights at the end."""
    rule = BestEpoch(patience)
    best: list[Any] = []

    def epoch_ended(epoch: int, logs: dict[str, float]) -> None:
        if rule.ended(logs["val_accuracy"], logs["val_loss"]):
            best[:] = model.get_weights()
        if rule.stop:
            model.stop_training = True

    return import_keras().callbacks.LambdaCallback(
        on_epoch_end=epoch_ended,
        on_train_end=lambda logs: model.set_weights(best) if best else None,
    )
