"""Every kind of registry call, made and timed while nothing answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial

from fingerpost.errors import RegistryError, RegistryUnreachable
from fingerpost.registry import Instance, ModelInfo, Registration, Registry
from tests.faults.field import http
from tests.faults.load import SERVICE

__all__ = ["Calls", "entry_of", "forget"]

_OTHER = "frozen"


def entry_of(name: str) -> Instance:
    """An entry of a service that nobody asks for."""
    return Instance(
        id=name,
        service=_OTHER,
        host="127.0.0.1",
        ports={"http": 9},
        models=(ModelInfo(name=_OTHER, versions=("1",)),),
    )


async def forget(url: str) -> None:
    """Deregister all that was registered at one agent; a call that failed may have left an entry.

    An agent whose servers have just come back is busy telling them, and answers late.
    """
    end = time.monotonic() + 60.0
    while True:
        try:
            services = await http("GET", f"{url}/v1/agent/services")
            for each in services.values():
                if each["Service"] == _OTHER:
                    await http("PUT", f"{url}/v1/agent/service/deregister/{each['ID']}")
        except OSError:
            assert time.monotonic() < end, f"{url} could not be tidied up"
            await asyncio.sleep(0.5)
        else:
            return


class Calls:
    """Every kind of registry call, one after the other, each timed."""

    SINGLE = ("list", "catalog", "register")

    def __init__(self) -> None:
        self.took_s: dict[str, list[float]] = {}
        self.strange: list[str] = []

    async def make(self, registry: Registry, entry: Registration, where: str, end: float) -> None:
        """All kinds, in turn, the last one begun before `end`."""
        number = 0
        while True:
            number += 1
            other = entry_of(f"frozen-other-{where.replace(' ', '-')}-{number}")
            for kind, call in (
                ("list", partial(registry.list, SERVICE)),
                ("catalog", registry.catalog),
                ("register", partial(registry.register, other)),
                ("drain", partial(entry.drain, "frozen")),
                ("deregister", entry.deregister),
            ):
                if time.monotonic() > end:
                    return
                await self._time(kind, where, call())

    async def _time(self, kind: str, where: str, call: Awaitable[object]) -> None:
        began = time.monotonic()
        try:
            await call
        except RegistryUnreachable:
            pass
        except RegistryError as error:
            self.strange.append(f"{kind} {where}: {type(error).__name__}: {error}")
        finally:
            self.took_s.setdefault(f"{kind} {where}", []).append(time.monotonic() - began)

    @property
    def count(self) -> int:
        return sum(map(len, self.took_s.values()))

    def longest(self, *kinds: str) -> float:
        return max(max(took_s) for name, took_s in self.took_s.items() if name.split()[0] in kinds)

    def text(self) -> str:
        return ", ".join(f"{name} {max(took_s):.2f} s" for name, took_s in self.took_s.items())
