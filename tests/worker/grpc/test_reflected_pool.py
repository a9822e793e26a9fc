"""What gRPC's reflection finds by name."""

from __future__ import annotations

import pytest

from fingerpost.worker.grpc.reflected_pool import ReflectedPool
from fingerpost.worker.grpc.schema.messages import pool

SERVICE = "inference.GRPCInferenceService"


@pytest.mark.parametrize(
    "symbol", [SERVICE, f"{SERVICE}.ModelInfer", "inference.ModelInferRequest"]
)
def test_what_is_there_is_found(symbol: str) -> None:
    assert ReflectedPool(pool()).FindFileContainingSymbol(symbol).name == "inference.proto"


@pytest.mark.parametrize("symbol", ["", ".", "nothing", "nothing.at.all", f"{SERVICE}.Nothing"])
def test_what_is_not_there_is_a_key_error(symbol: str) -> None:
    with pytest.raises(KeyError):
        ReflectedPool(pool()).FindFileContainingSymbol(symbol)


def test_all_else_is_the_pools() -> None:
    assert ReflectedPool(pool()).FindFileByName("inference.proto").package == "inference"
