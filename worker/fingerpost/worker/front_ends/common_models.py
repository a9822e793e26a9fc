"""What several front ends serve together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.registry import ModelInfo

if TYPE_CHECKING:
    from fingerpost.worker.front_ends.messages import Served

__all__ = ["common_models"]


def common_models(
    living: list[list[Served]],
) -> dict[str, tuple[ModelInfo, dict[str, str]]]:
    """What every front end serves: models, versions and aliases, with the facts of the first.

    Args:
        living: what each one serves; at least one.
    """
    found = {}
    first, *others = ({each.name: each for each in models} for models in living)
    for name, own in first.items():
        peers = [each.get(name) for each in others]
        same = [peer for peer in peers if peer is not None]
        if len(same) < len(peers):
            continue
        versions = [each for each in own.versions if all(each in peer.versions for peer in same)]
        aliases = {
            alias: version
            for alias, version in own.aliases.items()
            if version in versions and all(peer.aliases.get(alias) == version for peer in same)
        }
        if versions:
            info = ModelInfo(name=name, versions=tuple(versions), aliases=aliases)
            found[name] = info, own.meta
    return found
