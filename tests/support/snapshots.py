"""What tests compare of a snapshot."""

from __future__ import annotations

from fingerpost.registry import Snapshot

__all__ = ["ids"]


def ids(snapshot: Snapshot) -> list[str]:
    """The ids of its instances, in its order."""
    return [instance.id for instance in snapshot.instances]
